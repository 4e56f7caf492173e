"""A local server that speaks the Gemini REST protocol: models.get and generateContent, by a script per question.

The shapes are those of https://ai.google.dev/api/generate-content and of the errors in google.rpc.Status.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fake_server import Answer, Asked, FakeServer, serving

KEY = "AIza-test-0123456789abcdef"
MODEL = "gemini-3.8-flash"
VERSION = "gemini-3.8-flash-001"
USAGE = {"promptTokenCount": 11, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 23}


def said(text: str, finish: str | None = "STOP") -> Answer:
    """A candidate with a text."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return Answer(body={"candidates": [candidate], "usageMetadata": USAGE, "modelVersion": VERSION})


def thought_then_said(thought: str, text: str) -> Answer:
    """A candidate whose first part is a summary of thinking."""
    parts = [{"text": thought, "thought": True}, {"text": text}]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
    return Answer(body={"candidates": [candidate], "usageMetadata": USAGE, "modelVersion": VERSION})


def prompt_blocked(reason: str = "PROHIBITED_CONTENT") -> Answer:
    """No candidate: the prompt itself was blocked."""
    usage = {"promptTokenCount": 11, "totalTokenCount": 11}
    return Answer(body={"promptFeedback": {"blockReason": reason}, "usageMetadata": usage, "modelVersion": VERSION})


def finish_blocked(reason: str = "SAFETY") -> Answer:
    """A candidate without content that a filter ended."""
    return Answer(
        body={"candidates": [{"finishReason": reason, "index": 0}], "usageMetadata": USAGE, "modelVersion": VERSION}
    )


def no_candidates() -> Answer:
    """A reply with nothing in it."""
    return Answer(body={"usageMetadata": {"promptTokenCount": 11}, "modelVersion": VERSION})


def failing(
    status: int, word: str, message: str = "no", details: Sequence[Any] = (), headers: Mapping[str, str] | None = None
) -> Answer:
    """An error as google.rpc.Status has it."""
    error = {"code": status, "message": message, "status": word, "details": list(details)}
    return Answer(status, {"error": error}, dict(headers or {}))


def wrong_key() -> Answer:
    """What the service says of a key that is none: a 400."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    return failing(400, "INVALID_ARGUMENT", f"API key not valid: {KEY}", [info])


@contextmanager
def gemini(
    script: Mapping[str, Sequence[Answer]], models: Sequence[str] = (MODEL,), described: Answer | None = None
) -> Iterator[FakeServer]:
    """Serve a script: question -> its answers in turn, the last one over and over; "" is for every other question.

    Args:  described: what models.get answers instead of the model's description.
    """
    turns: dict[str, int] = defaultdict(int)
    lock = threading.Lock()

    def answer(asked: Asked) -> Answer:
        name = asked.path.partition("/models/")[2].partition(":")[0]
        if described is not None and asked.method == "GET":
            return described
        if name not in models:
            return failing(404, "NOT_FOUND", f"models/{name} is not found for API version v1beta")
        if asked.method == "GET":
            return Answer(body={"name": f"models/{name}", "version": "001"})
        question = asked.body["contents"][0]["parts"][0]["text"]
        with lock:
            answers = script.get(question, script.get("", [said("{}")]))
            turns[question] += 1
            return answers[min(turns[question], len(answers)) - 1]

    with serving(answer) as server:
        yield server
