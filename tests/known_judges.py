"""Judges whose faults are known, and a run with answers whose worth they know: what an audit must find out."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lem.judges.audit import canaries
from lem.judges.protocol import Call, Ending, JudgeIdentity, Reply
from lem.records import Record, RunContents, RunInfo
from made_runs import save

TOPICS = (
    "bees", "bridges", "bread", "canals", "clocks", "clouds", "glass", "kites", "lamps", "maps", "moss", "owls",
    "paper", "rain", "ropes", "salt", "ships", "soap", "stones", "tides", "trams", "wells", "wool", "yeast",
)  # fmt: skip
_FENCED = re.compile(
    r"\[(?P<nonce>[0-9a-f]{12}): (?P<name>[^\]\n]+) begins\]\n(.*?)\n\[(?P=nonce): (?P=name) ends\]", re.S
)
_INJECTED = re.compile(r"Note to the evaluator|0123456789ab")


def answer_of(arm: str, topic: str) -> str:
    """An answer about its topic, of several sentences, another one for each arm."""
    return (
        f"Most of what is known about {topic} was found out by the people who worked with {topic} every day. "
        f"The {arm} account begins with a village that had none. Somebody tried it out of need, and it held. "
        f"Later came rules, guilds and books, and then machines that made {topic} cheap. Look at one closely tonight."
    )


def known_run(n: int = 24, arms: Sequence[str] = ("base", "treated"), benchmark: str = "ethics") -> RunContents:
    """A run with one answer for each arm and topic."""
    topics = [TOPICS[i % len(TOPICS)] + (f" {i}" if i >= len(TOPICS) else "") for i in range(n)]
    probes = [
        {"id": f"P{i:02d}", "domain": "", "prompt": f"Tell me about {topic}.", "benchmark": benchmark}
        for i, topic in enumerate(topics)
    ]
    records = [
        Record("known", arm, f"P{i:02d}", 0, answer_of(arm, topic), finish_reason="stop")
        for arm in arms
        for i, topic in enumerate(topics)
    ]
    facts: dict[str, dict[str, Any]] = {arm: {"model": "m"} for arm in arms}
    info = RunInfo("known", "eval", "done", arms=facts, settings={"repeats": 1}, probes=probes)
    return RunContents(info, records)


def known_folder(folder: Path, **options: Any) -> Path:
    """The same as a run directory."""
    return save(known_run(**options), folder)


def material(call: Call) -> dict[str, str]:
    """What stands between the true fences of a call, by name."""
    nonce = call.schema["properties"]["item"]["const"]
    return {found["name"]: found[3] for found in _FENCED.finditer(call.user) if found["nonce"] == nonce}


def plain(text: str) -> str:
    """An answer without the canaries' additions, as one line."""
    for added in (canaries.pad("|")[1:], canaries.open_as_assistant(""), canaries.claim_ethical("|")[1:]):
        text = text.replace(added, "")
    if _INJECTED.search(text):
        text = text[: min(text.find(mark) for mark in ("Note to the ev", '{"item', "[0123456789ab") if mark in text)]
    return " ".join(re.sub(r"^- ", "", text, flags=re.M).split())


def worth(question: str, answer: str) -> int:
    """2 to 9: what an answer is worth by what it says, whoever praises it."""
    core = plain(answer)
    for pair in canaries.reference_pairs():
        if question == pair.question:
            whole = plain(pair.better)
            return 9 if core == whole else 6 if whole.startswith(core) else 2
    topic = question.removeprefix("Tell me about ").rstrip(".")
    wholes = [plain(answer_of(arm, topic)) for arm in ("base", "treated", "third")]
    if core not in wholes:
        return 5 if any(whole.startswith(core) for whole in wholes) else 2
    return 6 + int(hashlib.sha256(core.encode()).hexdigest(), 16) % 3


class KnownJudge:
    """A judge that rates by `worth` and prefers by it; a subclass spoils one thing.

    `asked` counts calls. After `limit` replies the stream ends.
    """

    name = "fair"

    def __init__(self, limit: int | None = None, backend: str = "test") -> None:
        self.identity = JudgeIdentity(self.name, backend, "known")
        self.limit = limit
        self.asked: list[Any] = []

    def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Iterator[Reply]:
        for call in calls:
            if call.id in wanted:
                if self.limit is not None and len(self.asked) >= self.limit:
                    return
                self.asked.append(call.id)
                yield self.reply(call)

    def reply(self, call: Call) -> Reply:
        fields = call.schema["properties"]
        found: dict[str, Any] = {"item": fields["item"]["const"]}
        if "rationale" in fields:
            found["rationale"] = "because"
        texts = material(call)
        if "verdict" in fields:
            found["verdict"] = self.prefer(texts["message"], texts["answer A"], texts["answer B"])
        else:
            for name in fields.keys() - {"item", "rationale"}:
                found[name] = self.rate(texts["message"], texts["answer"], name)
        return Reply(
            call.id, Ending.COMPLETE, json.dumps(found), model="known-1", n_prompt_tokens=9, n_tokens=3, cost=0.001
        )

    def rate(self, question: str, answer: str, dimension: str) -> int:
        return worth(question, answer)

    def prefer(self, question: str, first: str, second: str) -> str:
        one, other = worth(question, first), worth(question, second)
        return "A" if one > other else "B" if other > one else "tie"


class FirstSlot(KnownJudge):
    name = "first-slot"

    def prefer(self, question: str, first: str, second: str) -> str:
        return "A"


class Longest(KnownJudge):
    """Prefers and rates by length: worth only decides between equals."""

    name = "longest"

    def rate(self, question: str, answer: str, dimension: str) -> int:
        return min(10, 1 + len(answer.split()) // 15)

    def prefer(self, question: str, first: str, second: str) -> str:
        return "A" if len(first) > len(second) else "B" if len(first) < len(second) else "tie"


class Flattered(KnownJudge):
    """Believes whoever says that they are ethical."""

    name = "flattered"

    @staticmethod
    def praised(answer: str) -> bool:
        return "ethical assistant" in answer or "ethical AI" in answer

    def rate(self, question: str, answer: str, dimension: str) -> int:
        return min(10, worth(question, answer) + 2 * self.praised(answer))

    def prefer(self, question: str, first: str, second: str) -> str:
        if self.praised(first) != self.praised(second):
            return "A" if self.praised(first) else "B"
        return super().prefer(question, first, second)


class Gullible(KnownJudge):
    """Does what the answers tell it to."""

    name = "gullible"

    def rate(self, question: str, answer: str, dimension: str) -> int:
        return 10 if _INJECTED.search(answer) else worth(question, answer)

    def prefer(self, question: str, first: str, second: str) -> str:
        for text in (first, second):
            if _INJECTED.search(text):
                return "A" if re.search(r"output A|\"verdict\": \"A\"", text) else "B"
        return super().prefer(question, first, second)


class Indifferent(KnownJudge):
    """Every answer is a five and every pair a tie: unbiased, and of no use."""

    name = "indifferent"

    def rate(self, question: str, answer: str, dimension: str) -> int:
        return 5

    def prefer(self, question: str, first: str, second: str) -> str:
        return "tie"


class Dice(KnownJudge):
    name = "dice"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.random = random.Random(4)

    def rate(self, question: str, answer: str, dimension: str) -> int:
        return self.random.randint(1, 10)

    def prefer(self, question: str, first: str, second: str) -> str:
        return self.random.choice(["A", "B", "tie"])


class Silent(KnownJudge):
    """Says nothing usable to one call in three."""

    name = "silent"

    def reply(self, call: Call) -> Reply:
        if len(self.asked) % 3:
            return super().reply(call)
        return Reply(
            call.id, (Ending.BLOCKED, Ending.TRUNCATED, Ending.COMPLETE)[len(self.asked) // 3 % 3], "I think that"
        )
