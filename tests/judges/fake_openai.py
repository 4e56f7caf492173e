"""A local server that speaks OpenAI's chat completions, by a script per question.

The shapes are those of https://platform.openai.com/docs/api-reference/chat and of its error bodies.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fake_server import Answer, Asked, FakeServer, serving

MODEL = "org/judge-1"
VERSION = "judge-1-2026-10-01"
KEY = "sk-test-0123456789abcdef"

Refuse = Callable[[dict[str, Any]], Answer | None]


def said(text: str | None, finish: str = "stop", refusal: str | None = None) -> Answer:
    """A choice with a text."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return Answer(
        body={
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": VERSION,
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
        }
    )  # fmt: skip


def failing(
    status: int, message: str = "no", code: str | None = None, param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:  # fmt: skip
    """An error body."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Answer(status, {"error": error}, dict(headers or {}))


@contextmanager
def openai(
    script: Mapping[str, Sequence[Answer]], refuse: Refuse = lambda body: None, models: Answer | None = None
) -> Iterator[FakeServer]:
    """Serve a script: question -> its answers in turn, the last one over and over; "" is for every other question.

    Args:  refuse: an answer for requests whose body is not taken.  models: the answer to a list of models.
    """
    turns: dict[str, int] = defaultdict(int)
    lock = threading.Lock()
    listed = models or Answer(body={"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def answer(asked: Asked) -> Answer:
        if asked.method == "GET":
            return listed if asked.path == "/v1/models" else Answer(404, b"Not Found")
        assert asked.path == "/v1/chat/completions"
        if (refused := refuse(asked.body)) is not None:
            return refused
        question = asked.body["messages"][-1]["content"]
        with lock:
            answers = script.get(question, script.get("", [said("{}")]))
            turns[question] += 1
            return answers[min(turns[question], len(answers)) - 1]

    with serving(answer) as server:
        yield server
