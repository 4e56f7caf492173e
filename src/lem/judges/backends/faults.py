"""What can go wrong with a service on the network, told apart by what helps: waiting, another call, or a person.

No sentence made here holds a key, the query of a URL, a character that steers a terminal, or more than a line of what
a service said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from lem.errors import UserError

# Statuses after which the same request can succeed: waited out and retried; every other error is not.
PASSING = frozenset({408, 429, 500, 502, 503, 504})
OF_ONE_CALL = frozenset({400, 413, 422})
_PERHAPS_DONE = frozenset({408, 504})  # the service may have done the work all the same
WITHOUT = "judge with a local model by `--judge mlx:PATH`"
_SHOWN_CHARS = 200


class Passing(Exception):
    """A named error that passes by itself.

    `pause_s` is how long the service asks everybody to wait. `sent` says that the service may have done the work, and
    charge for it. `unreachable` marks a connection that could not be made.
    """

    def __init__(self, reason: str, *, pause_s: float | None = None, sent: bool = False, unreachable: bool = False):
        super().__init__(reason)
        self.reason = reason
        self.pause_s = pause_s
        self.sent = sent
        self.unreachable = unreachable


class BadCall(Exception):
    """The service does not take this request; the message is the short reason."""


@dataclass(frozen=True)
class Service:
    """Who is asked, for the sentences: judge's name, model, shown URL, and the variable that holds the key.

    `secrets` are the texts that no sentence may hold.
    """

    judge: str
    model: str
    url: str
    variable: str
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def shown(self, text: str) -> str:
        """A text of the service as one short line of printable characters, without keys and without queries of URLs."""
        text = "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)
        for secret in self.secrets:
            text = text.replace(secret, "***") if secret else text
        text = re.sub(r"(https?://[^\s?\"']+)\?[^\s\"']*", r"\1", text)
        text = re.sub(r"(https?://)[^\s/@\"']+@", r"\1", text)
        return " ".join(text.split())[:_SHOWN_CHARS]


def fault_of(
    service: Service, status: int, message: str, headers: Mapping[str, str], pause_s: float | None = None
) -> Exception:
    """The exception for an answer that is an error: Passing, BadCall, or UserError for what asking again cannot mend.

    Args:  pause_s: a wait that the body names, where the header has none.
    """
    said = service.shown(message)
    judge = f"judge '{service.judge}'"
    if status == 401:
        return UserError(
            f"{judge}: {service.url} did not accept the key in {service.variable} (HTTP 401); correct it, or {WITHOUT}."
        )
    if status == 402:
        return UserError(f"{judge}: {service.url} wants to be paid first (HTTP 402: {said}); add credit, or {WITHOUT}.")
    if status == 403:
        return UserError(
            f"{judge}: the key in {service.variable} may not use {service.model} at {service.url} (HTTP 403: {said}); "
            f"use a key that may, or {WITHOUT}."
        )
    if status == 404:
        return no_such_model(service, said)
    if status in PASSING:
        header = retry_after(headers)
        return Passing(f"HTTP {status}", pause_s=pause_s if header is None else header, sent=status in _PERHAPS_DONE)
    if status in OF_ONE_CALL:
        return BadCall(f"HTTP {status}: {said}")
    return UserError(f"{judge}: {service.url} answered HTTP {status} ({said}); check the URL and the model's name.")


def was_refused(error: str | None) -> bool:
    """Whether a stored error is the service's own, of a kind that it does not charge for."""
    status = re.match(r"HTTP (\d{3})\b", error or "")
    return status is not None and int(status[1]) not in _PERHAPS_DONE


def no_such_model(service: Service, said: str) -> UserError:
    """The sentence for a model that the service does not have."""
    return UserError(
        f"judge '{service.judge}': there is no model {service.model} at {service.url} ({said}); correct the model's "
        "name or the URL in --judge."
    )


def not_reached(service: Service) -> UserError:
    """The sentence for a server that no connection can be made to."""
    return UserError(
        f"judge '{service.judge}': {service.url} cannot be reached; start the server, correct the URL or mend the "
        f"connection, or {WITHOUT}."
    )


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks to wait (a number, or a date counted from the answer's own Date).

    None without a header, or with one that is neither. RFC 9110, section 10.2.3.
    """
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    until = _date(text)
    if until is None:
        return None
    sent = _date(next((value for name, value in headers.items() if name.lower() == "date"), ""))
    return max(0.0, (until - (sent or now or datetime.now(UTC))).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
