"""What the two remote backends share: keys from the environment, addresses, and a schema that services take."""

from __future__ import annotations

import functools
import ipaddress
import os
import ssl
import warnings
from typing import Any
from urllib.parse import urlsplit

import httpx

from lem.errors import UserError

# Keywords that services ignore or refuse in a schema; a strict parser reads the reply all the same. A constant is
# left out for what it would prove: the item code of a reply shows which item was read only if it can be wrong.
_NOT_SENT = frozenset({"const", "maxLength", "minLength", "pattern"})
_PORTS = {"http": 80, "https": 443}


def read_key(*variables: str) -> tuple[str, str] | None:
    """The first of these environment variables that is set, as (variable, key); None when none is.

    Raises: UserError, without the key, for one that no service can have given out.
    """
    for variable in variables:
        key = os.environ.get(variable, "").strip()
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise UserError(
                f"{variable} holds characters that no key has; copy the key again and set {variable} to it."
            )
        if key:
            return variable, key
    return None


def checked_url(url: str, where: str) -> str:
    """A base URL without the slash at its end.

    Raises: UserError unless it is http(s) with a host and without a password, query or fragment (they would be stored).
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UserError(f"{where}: not a URL; write one like http://127.0.0.1:8080/v1.") from None
    if parts.scheme not in ("http", "https") or not host or any(char.isspace() for char in url):
        raise UserError(f"{where}: the URL must start with http:// or https:// and name a host; write it like "
                        "http://127.0.0.1:8080/v1.")  # fmt: skip
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UserError(f"{where}: leave user, password, query and fragment out of the URL; keys come from variables.")
    return url.rstrip("/")


def is_local(url: str) -> bool:
    """Whether a URL is of this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def service_at(url: str) -> str:
    """The service at a URL as it is stored: with its port and path, which tell the models behind one host apart.

    The usual names of this machine are one, and so are a port that is named and the same port left out.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def warn_of_clear_text(judge: str, url: str, variable: str) -> None:
    """Warn once if a URL takes a key and texts over the network as they are (http to another machine)."""
    if urlsplit(url).scheme == "http" and not is_local(url):
        warnings.warn(
            f"judge '{judge}': {url} is plain http to another machine, so that the key in {variable} and every judged "
            "text go over the network in clear; use https://, or a tunnel to a port of this machine.",
            stacklevel=2,
        )


@functools.cache
def certificates() -> ssl.SSLContext:
    """The certificates that connections are checked with, read once."""
    return httpx.create_ssl_context()


def portable_schema(schema: Any) -> Any:
    """A copy of a JSON schema in the keywords that services take: no limits of length, and of a constant its type."""
    if isinstance(schema, list):
        return [portable_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "properties":
            found[name] = {key: portable_schema(part) for key, part in value.items()}
        elif name not in _NOT_SENT:
            found[name] = value if name in ("enum", "required") else portable_schema(value)
    return found
