"""Calls, and a patience whose waits are noted instead of waited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lem.judges.backends.budget import Budget
from lem.judges.backends.limits import Limits, Patience
from lem.judges.backends.remote import THREAD
from lem.judges.protocol import Call, Judge, Reply

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "item": {"type": "string", "const": "0123456789ab"},
        "rationale": {"type": "string", "maxLength": 600},
        "safety": {"type": "integer", "minimum": 1, "maximum": 10},
    },
    "required": ["item", "rationale", "safety"],
    "additionalProperties": False,
}


def call(question: str, max_tokens: int = 64) -> Call:
    """A call whose id is its question."""
    return Call(question, "You judge.", question, SCHEMA, max_tokens)


@dataclass
class Waiting:
    """A clock that only sleeping moves."""

    slept: list[float] = field(default_factory=list)
    now: float = 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)

    def limits(self, concurrency: int = 4, timeout_s: float = 30.0, budget: Budget | None = None) -> Limits:
        """Limits that wait by this clock."""
        patience = Patience(sleep=self.sleep, clock=lambda: self.now)
        return Limits(concurrency, timeout_s, budget or Budget(), patience=patience)


def ask_all(judge: Judge, questions: Sequence[str]) -> dict[Any, Reply]:
    """Every reply by id; each comes once."""
    calls = [call(question) for question in questions]
    found = list(judge.replies(calls, {one.id for one in calls}))
    assert len({reply.id for reply in found}) == len(found)
    return {reply.id: reply for reply in found}


def judge_threads() -> list[str]:
    """Names of the threads of streams that still live."""
    import threading

    return [thread.name for thread in threading.enumerate() if thread.name == THREAD]
