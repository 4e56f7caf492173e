"""A server on this machine that judges like OpenAI's chat completions: whole verdicts, unless a script spoils one."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from local_server import local_server

MODEL = "org/judge-1"
Say = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass
class JudgingServer:
    """The server while it runs.

    `prompts` are the user turns in the order they came, `items` the nonces of their calls. `spoil` maps a text that a
    prompt may hold to what goes wrong with its reply; `say` gives the values of a verdict, from prompt and schema.
    `over` is set when the server goes; a call that is to time out gets no answer before.
    """

    url: str = ""
    delay_s: float = 0.0
    prompts: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    spoil: Mapping[str, str] = field(default_factory=dict)
    say: Say = lambda prompt, properties: {}
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def spec(self) -> str:
        """What --judge takes."""
        return f"openai:{MODEL}@{self.url}"

    def answer(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to one request."""
        prompt = body["messages"][-1]["content"]
        properties = body["response_format"]["json_schema"]["schema"]["properties"]
        item = re.findall(r"^Item code: (\w+)$", prompt, re.MULTILINE)[0]
        with self.lock:
            self.prompts.append(prompt)
            self.items.append(item)
        time.sleep(self.delay_s)
        kind = next((kind for mark, kind in self.spoil.items() if mark in prompt), "")
        if kind == "failed":
            return 400, {"error": {"message": "not this one", "type": "invalid_request_error", "param": None}}
        if kind == "timed out":
            self.over.wait()
        defaults = {"item": item, "rationale": "so", "verdict": "tie"}
        verdict = {name: defaults.get(name, 1 + len(prompt) % 10) for name in properties}
        text = json.dumps({**verdict, **self.say(prompt, properties)})
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        finish = {"truncated": "length", "blocked": "content_filter"}.get(kind, "stop")
        if kind == "unparsable":
            message["content"] = "Seven, I'd say."
        elif kind == "refused":
            message |= {"content": None, "refusal": "I'd rather not."}
        return 200, {
            "id": "c", "object": "chat.completion", "created": 1, "model": "judge-1-a",
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
        }  # fmt: skip


@contextmanager
def judging_server(**options: Any) -> Iterator[JudgingServer]:
    """Run a server on a free port."""
    state = JudgingServer(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send(*state.answer(body))

        def _send(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            try:
                self.send_response_only(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    with local_server(Handler) as address:
        state.url = f"{address}/v1"
        try:
            yield state
        finally:
            state.over.set()
