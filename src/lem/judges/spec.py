"""How a judge is named on the command line, and which backend answers to it.

[NAME=]gemini[:MODEL]     [NAME=]openai:MODEL@URL     [NAME=]mlx[:PATH]
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol, Self

from lem.config import load_config, resolve_model
from lem.errors import UserError
from lem.judges.backends.access import checked_url
from lem.judges.backends.budget import Budget
from lem.judges.protocol import Judge

FORMS = "gemini, gemini:MODEL, openai:MODEL@URL or mlx:PATH, with NAME= before it for a name of its own"
METHODS = ("grammar", "labels")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class JudgeSpec:
    """A judge as asked for: its name in files and tables, backend, model, URL, and the option's text.

    The model of mlx is a folder, a hub id, or a short name of `lem.config.json`.
    """

    name: str
    backend: str
    model: str
    url: str | None
    text: str


class OpenJudge(Judge, Protocol):
    """A judge that can be asked, as a context manager; its end closes what is under way."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def parse_spec(text: str) -> JudgeSpec:
    """Read one `--judge`.   Raises: UserError for a form that is none of the three, a bad name, or a bad URL."""
    match = re.fullmatch(r"(?:(?P<name>[^=:]*)=)?(?P<backend>[a-z]+)(?::(?P<rest>.*))?", text.strip(), re.DOTALL)
    if match is None or match["backend"] not in ("gemini", "openai", "mlx"):
        raise UserError(f"--judge: no judge of this form{_quoted(text)}; write {FORMS}.")
    name, backend, rest = match["name"], match["backend"], (match["rest"] or "").strip()
    if name is not None and not re.fullmatch(_NAME, name):
        raise UserError(
            f"--judge: a judge's name is of letters, digits, '.', '_' and '-', 64 at most (got '{name}'); mend it."
        )
    if match["rest"] is not None and not rest:
        raise UserError(f"--judge {backend}: names no model after the colon; write {FORMS}.")
    url = None
    if backend == "gemini":
        from lem.judges.backends.gemini import DEFAULT_MODEL

        model = rest or DEFAULT_MODEL
    elif backend == "openai":
        model, url = _model_at(rest)
    else:
        model = rest or resolve_model(load_config(), None)
    return JudgeSpec(name or _default_name(backend, model), backend, model, url, text.strip())


def open_judge(
    spec: JudgeSpec, *, concurrency: int = 8, timeout_s: float = 120.0, budget: Budget | None = None,
    method: str = "grammar", temperature: float = 0.0,
) -> OpenJudge:  # fmt: skip
    """Open a judge, which is also a context manager; the limits are of services, `method` is of local models.

    Raises: UserError, before any call, for a missing key, package or model, and for a server that cannot be reached.
    """
    if concurrency < 1:
        raise UserError(f"--concurrency must be 1 or more (got {concurrency}).")
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise UserError(f"--timeout must be a finite number of seconds above 0 (got {timeout_s:g}).")
    if method not in METHODS:
        raise UserError(f"--judge-method must be one of {', '.join(METHODS)} (got '{method}').")
    if spec.backend == "mlx":
        from lem.judges.backends.local import open_local

        return open_local(spec, method=method)
    from lem.judges.backends.limits import Limits

    limits = Limits(concurrency, timeout_s, budget if budget is not None else Budget())
    if spec.backend == "gemini":
        from lem.judges.backends.gemini import open_gemini

        return open_gemini(spec.name, spec.model, limits, temperature=temperature)
    from lem.judges.backends.openai import open_openai

    return open_openai(spec.name, spec.model, spec.url or "", limits, temperature=temperature)


def _model_at(rest: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?P<model>[^\s]+?)@(?P<url>[A-Za-z][A-Za-z0-9+.-]*://.*)", rest)
    if match is None:
        raise UserError(
            "--judge openai: needs a model and a URL that starts with http:// or https://; write it like "
            "openai:MODEL@http://127.0.0.1:8080/v1."
        )
    return match["model"], checked_url(match["url"], "--judge openai")


def _default_name(backend: str, model: str) -> str:
    last = PurePath(model).name if backend == "mlx" else model.removeprefix("models/")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:64] or backend
    return name if backend != "gemini" or name.startswith("gemini") else f"gemini-{name}"


def _quoted(text: str) -> str:
    """The text in quotes, unless it may hold what should not be shown again."""
    return f": '{text}'" if len(text) <= 80 and "@" not in text else ""
