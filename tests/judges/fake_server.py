"""A threaded HTTP server on this machine that answers by a script and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from local_server import local_server


@dataclass(frozen=True)
class Answer:
    """One answer: status, body (bytes as they are, else JSON), further headers; `hold` waits for it first."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    drop: bool = False


@dataclass(frozen=True)
class Asked:
    """One request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class FakeServer:
    """The server while it runs: `url`, the requests so far, and `answer`, which says what comes back."""

    answer: Callable[[Asked], Answer]
    requests: list[Asked] = field(default_factory=list)
    url: str = ""
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, method: str = "POST") -> list[Asked]:
        """The requests of one method."""
        return [request for request in self.requests if request.method == method]


@contextmanager
def serving(answer: Callable[[Asked], Answer]) -> Iterator[FakeServer]:
    """Run a server on a free port of this machine."""
    state = FakeServer(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            self._answer("GET", None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            self._answer("POST", json.loads(body))

        def _answer(self, method: str, body: Any) -> None:
            asked = Asked(method, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            with state.lock:
                state.requests.append(asked)
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            try:
                self._send(state.answer(asked))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with state.lock:
                    state.at_once -= 1

        def _send(self, answer: Answer) -> None:
            if answer.hold is not None:
                answer.hold.wait(60)
            if answer.drop:
                self.close_connection = True
                return
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response_only(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with local_server(Handler) as address:
        state.url = address
        yield state
