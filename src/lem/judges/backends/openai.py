"""Any server that speaks OpenAI's chat completions as a judge, through the `openai` package with its retries off.

Servers differ in what they take. A request that is refused for one named parameter is sent once more without it
(`response_format`, `temperature`) or with its newer name (`max_tokens`). What was changed holds for the calls after it,
and is kept in `adapted`, once a request that was changed has been answered.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import ValidationError

from lem.errors import UserError
from lem.judges.backends.access import (
    certificates,
    is_local,
    portable_schema,
    read_key,
    service_at,
    warn_of_clear_text,
)
from lem.judges.backends.faults import WITHOUT, Passing, Service, fault_of, no_such_model, not_reached
from lem.judges.backends.limits import Limits
from lem.judges.backends.remote import RemoteJudge
from lem.judges.backends.remote_pass import Ask
from lem.judges.protocol import Call, Ending, JudgeIdentity, Reply

VARIABLE = "OPENAI_API_KEY"
# Reasoning counts against max_completion_tokens; a model that wants that name gets this much more.
REASONING_TOKENS = 8192
_SCHEMA_NAME = "verdict"
_ADAPTABLE = ("response_format", "max_tokens", "temperature")
# vLLM names max_tokens too when a prompt and its reply do not fit the context; the newer name does not help there.
_NO_ROOM = re.compile(r"too (?:large|long)|maximum context|context[ _]length", re.IGNORECASE)
_NOT_KNOWN = re.compile(r"unsupported|not supported|max_completion_tokens\W+instead", re.IGNORECASE)


def open_openai(name: str, model: str, url: str, limits: Limits, *, temperature: float = 0.0) -> RemoteJudge:
    """A judge at an OpenAI-compatible URL, which has been reached and has not refused the key.

    Raises: UserError for the package or key missing, a wrong key, an unreachable server, or a model that a server on
    the network does not list (local ones often serve names that they do not list).
    """
    _package(name)
    found = read_key(VARIABLE)
    if found is None and not is_local(url):
        raise UserError(f"judge '{name}': no key; set {VARIABLE} to a key for {url}, or {WITHOUT}.")
    key = found[1] if found else "none"
    service = Service(name, model, url, VARIABLE, (found[1],) if found else ())
    warn_of_clear_text(name, url, VARIABLE)
    _check(service, key, limits.timeout_s)
    settings = {
        "temperature": temperature,
        "response": "json_schema with a free item code, where the server takes it",
        "service": service_at(url),
    }
    identity = JudgeIdentity(name, "openai", model, settings, {"sha": [], "names": [model]})
    adapted: list[str] = []

    @asynccontextmanager
    async def connect() -> AsyncIterator[Ask]:
        pool = httpx.Limits(max_connections=limits.concurrency, max_keepalive_connections=limits.concurrency)
        async with httpx.AsyncClient(trust_env=not is_local(url), verify=certificates(), limits=pool) as web:
            client = _package(name).AsyncOpenAI(
                api_key=key, base_url=url, max_retries=0, timeout=limits.timeout_s, http_client=web
            )

            async def ask(call: Call) -> Reply:
                return await _ask(client, service, call, temperature, adapted)

            yield ask

    wider = Limits(limits.concurrency, limits.timeout_s, limits.budget, REASONING_TOKENS, limits.patience)
    return RemoteJudge(identity, service, wider, connect, adapted)


def _package(name: str) -> Any:
    try:
        return importlib.import_module("openai")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "openai":
            raise
        raise UserError(
            f"judge '{name}' needs the package openai, which is not installed; get it with "
            f"`{sys.executable} -m pip install openai`."
        ) from None


def _check(service: Service, key: str, timeout_s: float) -> None:
    """Ask for the list of models: reached, key taken, model listed; what a server does not have is left for the calls.

    A key can be allowed to ask without being allowed to list (403).
    """
    package = _package(service.judge)
    with httpx.Client(trust_env=not is_local(service.url), verify=certificates()) as web:
        client = package.OpenAI(
            api_key=key, base_url=service.url, max_retries=0, timeout=min(timeout_s, 30.0), http_client=web
        )
        try:
            listed = {str(model.id) for model in client.models.list()}
        except package.APIError as error:
            fault = _fault(service, error)
            if isinstance(fault, Passing) and fault.unreachable:
                raise not_reached(service) from None
            if getattr(error, "status_code", None) == 401:
                raise fault from None
            return
        except (AttributeError, TypeError, ValueError):  # a list in a form of its own
            return
    if listed and service.model not in listed and not is_local(service.url):
        names = [service.shown(model) for model in sorted(listed)[:5]]
        raise no_such_model(service, "it lists " + ", ".join(names) + (", ..." if len(listed) > 5 else ""))


def _request(service: Service, call: Call, temperature: float, adapted: Collection[str]) -> dict[str, Any]:
    newer = "max_tokens" in adapted
    request: dict[str, Any] = {
        "model": service.model,
        "messages": [
            *([{"role": "system", "content": call.system}] if call.system else []),
            {"role": "user", "content": call.user},
        ],
        "max_completion_tokens" if newer else "max_tokens": call.max_tokens + (REASONING_TOKENS if newer else 0),
    }
    if "temperature" not in adapted:
        request["temperature"] = temperature
    if "response_format" not in adapted:
        schema = {"name": _SCHEMA_NAME, "schema": portable_schema(call.schema), "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    return request


async def _ask(client: Any, service: Service, call: Call, temperature: float, adapted: list[str]) -> Reply:
    package = _package(service.judge)
    tried: list[str] = []
    while True:
        request = _request(service, call, temperature, {*adapted, *tried})
        try:
            reply = _reply(call, await client.chat.completions.create(**request))
        except package.APIError as error:
            if getattr(error, "code", None) == "content_filter":
                return Reply(call.id, Ending.BLOCKED)
            refused = _refused(error, request)
            if refused is None:
                raise _fault(service, error) from None
            tried.append(refused)
        except (json.JSONDecodeError, ValidationError):
            return Reply(call.id, Ending.FAILED, error="the service sent what is no reply of its protocol")
        else:
            adapted += [name for name in tried if name not in adapted]
            return reply


def _refused(error: Any, request: dict[str, Any]) -> str | None:
    """The parameter of a request that a 400 or 422 names, if we can do without it."""
    if getattr(error, "status_code", None) not in (400, 422):
        return None
    text = f"{getattr(error, 'param', '')} {getattr(error, 'code', '')} {error.message}"
    named = [name for name in _ADAPTABLE if name in request and name in text]
    if "max_tokens" in named and (_NO_ROOM.search(text) or not _NOT_KNOWN.search(text)):
        named.remove("max_tokens")
    return named[0] if named else None


def _reply(call: Call, done: Any) -> Reply:
    choices: Any = getattr(done, "choices", None)
    usage = getattr(done, "usage", None)
    counts = (getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None))
    model = str(getattr(done, "model", None) or "")
    message = getattr(choices[0], "message", None) if choices else None
    if message is None:
        return Reply(call.id, Ending.FAILED, "", "the service sent no choice", model, *counts)
    if refusal := getattr(message, "refusal", None):
        return Reply(call.id, Ending.REFUSED, str(refusal), None, model, *counts)
    endings = {"length": Ending.TRUNCATED, "content_filter": Ending.BLOCKED}
    ending = endings.get(choices[0].finish_reason or "", Ending.COMPLETE)
    return Reply(call.id, ending, getattr(message, "content", None) or "", None, model, *counts)


def _fault(service: Service, error: Any) -> Exception:
    package = _package(service.judge)
    if isinstance(error, package.APITimeoutError):
        if isinstance(error.__cause__, httpx.ConnectTimeout):
            return Passing("no connection", unreachable=True)
        return Passing("no reply in time", sent=True)
    if isinstance(error, package.APIConnectionError):
        if isinstance(error.__cause__, httpx.ConnectError):
            return Passing("no connection", unreachable=True)
        return Passing("the connection broke", sent=True)
    if isinstance(error, package.APIStatusError):
        if error.code == "insufficient_quota":
            return fault_of(service, 402, error.message, error.response.headers)
        return fault_of(service, error.status_code, error.message, error.response.headers)
    return Passing("the reply was cut off") if isinstance(error, package.APIError) else error
