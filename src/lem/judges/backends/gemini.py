"""Google's Gemini as a judge, through google-genai: structured replies, blocks told apart, our retries only.

The package retries nothing when `retry_options` is left out and the HTTP client is ours (read in google-genai 3.4,
`_api_client.retry_args` and `_async_request_once`). It sends requests of its own to continue a reply that was cut;
that is switched off, because one call is one request with one limit of tokens.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import ValidationError

from lem.errors import UserError
from lem.judges.backends.access import (
    certificates,
    checked_url,
    is_local,
    portable_schema,
    read_key,
    service_at,
    warn_of_clear_text,
)
from lem.judges.backends.faults import WITHOUT, Passing, Service, fault_of, not_reached
from lem.judges.backends.limits import Limits
from lem.judges.backends.remote import RemoteJudge
from lem.judges.backends.remote_pass import Ask
from lem.judges.protocol import Call, Ending, JudgeIdentity, Reply

if TYPE_CHECKING:
    from google.genai import errors

# The stable Flash model in the list at https://ai.google.dev/gemini-api/docs/models (November 2026).
DEFAULT_MODEL = "gemini-3.8-flash"
VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
URL = "https://generativelanguage.googleapis.com"
URL_VARIABLE = "GOOGLE_GEMINI_BASE_URL"
# Thinking counts against max_output_tokens (googleapis/python-genai issue 2062), so a reply gets this much more.
THINKING_TOKENS = 8192
BLOCKS = frozenset({"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"})


def open_gemini(name: str, model: str, limits: Limits, *, temperature: float = 0.0) -> RemoteJudge:
    """A Gemini judge whose key and model the service has confirmed.

    Raises: UserError for no key, a wrong one, a model that is not there, or a service that cannot be reached.
    """
    found = read_key(*VARIABLES)
    if found is None:
        raise UserError(
            f"judge '{name}': no key; set {VARIABLES[0]} (or {VARIABLES[1]}) to a key for the Gemini API, or {WITHOUT}."
        )
    variable, key = found
    url = checked_url(os.environ.get(URL_VARIABLE) or URL, URL_VARIABLE)
    service = Service(name, model, url, variable, (key,))
    # Its warnings on keys and parts that are no text would stand between our lines, some with words of the service.
    logging.getLogger("google_genai").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"google\.genai\.")
    warn_of_clear_text(name, url, variable)
    _check(service, key, limits.timeout_s)
    sampled = _takes_temperature(model)
    settings = {
        "temperature": temperature if sampled else "of the service",
        "thinking": "of the service" if sampled else "low",
        "response": "json_schema with a free item code",
    }
    if service_at(url) != service_at(URL):
        settings["service"] = service_at(url)
    identity = JudgeIdentity(name, "gemini", model, settings, {"sha": [], "names": [model]})

    @asynccontextmanager
    async def connect() -> AsyncIterator[Ask]:
        async with httpx.AsyncClient(**_web(url), limits=_pool(limits)) as web:
            client = _client(key, url, limits.timeout_s, httpx_async_client=web)

            async def ask(call: Call) -> Reply:
                return await _ask(client.aio, service, call, temperature)

            yield ask

    wider = Limits(limits.concurrency, limits.timeout_s, limits.budget, THINKING_TOKENS, limits.patience)
    return RemoteJudge(identity, service, wider, connect)


def _takes_temperature(model: str) -> bool:
    """Whether a model is older than Gemini 3, or no Gemini: later ones ignore or deprecate sampling parameters."""
    name = model.removeprefix("models/")
    version = re.match(r"gemini-(\d+)", name)
    return not name.startswith("gemini-") or (version is not None and int(version[1]) < 3)


def _pool(limits: Limits) -> httpx.Limits:
    return httpx.Limits(max_connections=limits.concurrency, max_keepalive_connections=limits.concurrency)


def _web(url: str) -> dict[str, Any]:
    return {"trust_env": not is_local(url), "verify": certificates()}


def _client(key: str, url: str, timeout_s: float, **web: Any) -> Any:
    from google import genai
    from google.genai import types

    # A client of each kind stops the package from making its own, with its certificates and its own retry.
    clients = {"httpx_client": httpx.Client(**_web(url)), "httpx_async_client": httpx.AsyncClient(**_web(url))}
    options = types.HttpOptions(base_url=url, timeout=max(1, round(timeout_s * 1000)), **{**clients, **web})
    return genai.Client(api_key=key, vertexai=False, http_options=options)


def _check(service: Service, key: str, timeout_s: float) -> None:
    """Ask for the model's description: one request, no tokens; passing errors are left for the calls."""
    from google.genai import errors

    with httpx.Client(**_web(service.url)) as web:
        client = _client(key, service.url, min(timeout_s, 30.0), httpx_client=web)
        try:
            client.models.get(model=service.model)
        except (json.JSONDecodeError, ValidationError, errors.UnknownApiResponseError):
            return
        except (errors.APIError, httpx.TransportError) as error:
            if service.url != URL and getattr(error, "code", None) == 404 and not _own_word(error):
                return  # a gateway that has no such page
            fault = _fault(service, error)
            if isinstance(fault, UserError):
                raise fault from None
            if isinstance(fault, Passing) and fault.unreachable:
                raise not_reached(service) from None


def _config(service: Service, call: Call, temperature: float) -> Any:
    from google.genai import types

    sampled = _takes_temperature(service.model)
    known = types.GenerateContentConfig.model_fields
    once = {"automatic_continuation": False} if "automatic_continuation" in known else {}
    return types.GenerateContentConfig(
        **once,
        system_instruction=call.system or None,
        temperature=temperature if sampled else None,
        thinking_config=None if sampled else types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW),
        max_output_tokens=call.max_tokens + THINKING_TOKENS,
        candidate_count=1 if sampled else None,
        response_mime_type="application/json",
        response_json_schema=portable_schema(call.schema),
    )


async def _ask(client: Any, service: Service, call: Call, temperature: float) -> Reply:
    from google.genai import errors

    config = _config(service, call, temperature)
    try:
        response = await client.models.generate_content(model=service.model, contents=call.user, config=config)
    except (json.JSONDecodeError, ValidationError, errors.UnknownApiResponseError):
        return Reply(call.id, Ending.FAILED, error="the service sent what is no reply of its protocol")
    except (errors.APIError, httpx.TransportError) as error:
        raise _fault(service, error) from None
    return _reply(service, call, response)


def _reply(service: Service, call: Call, response: Any) -> Reply:
    usage = response.usage_metadata
    written = [getattr(usage, name, None) for name in ("candidates_token_count", "thoughts_token_count")]
    candidate = (response.candidates or [None])[0]
    ending, error = _ending(service, response, candidate)
    parts = (candidate.content.parts if candidate is not None and candidate.content else None) or []
    return Reply(
        call.id,
        ending,
        "".join(part.text or "" for part in parts if not part.thought),
        error,
        response.model_version or "",
        getattr(usage, "prompt_token_count", None),
        sum(count or 0 for count in written) if usage is not None and usage.prompt_token_count is not None else None,
    )


def _ending(service: Service, response: Any, candidate: Any) -> tuple[Ending, str | None]:
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason:
        return Ending.BLOCKED, None
    if candidate is None:
        return Ending.FAILED, "the service sent no candidate"
    reason = candidate.finish_reason
    name = str(reason.value) if reason is not None else "not given"
    if name in BLOCKS:
        return Ending.BLOCKED, None
    known = {"STOP": Ending.COMPLETE, "MAX_TOKENS": Ending.TRUNCATED, "CONTINUATION": Ending.TRUNCATED}
    return (known[name], None) if name in known else (Ending.FAILED, f"finish reason {service.shown(name)}")


def _fault(service: Service, error: errors.APIError | httpx.TransportError) -> Exception:
    """What an exception of the package or of its HTTP client means."""
    from google.genai import errors

    if isinstance(error, errors.APIError):
        message, details = str(error.message or error.status or ""), error.details
        headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
        if error.code == 400 and "API_KEY_INVALID" in str(details):
            return fault_of(service, 401, "", headers)
        return fault_of(service, error.code, message, headers, _retry_delay(details))
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return Passing("no connection", unreachable=True)
    if isinstance(error, httpx.TimeoutException):
        return Passing("no reply in time", sent=True)
    return Passing("the connection broke", sent=True)


def _own_word(error: Any) -> bool:
    """Whether an error comes from the API itself and not from something that stands before it."""
    return bool(error.status == "NOT_FOUND")


def _retry_delay(details: Any) -> float | None:
    """The wait in a google.rpc.RetryInfo of an error's body ("34s"), None without one."""
    found = re.search(r"'retryDelay': '(\d+(?:\.\d+)?)s'", str(details))
    return float(found[1]) if found else None
