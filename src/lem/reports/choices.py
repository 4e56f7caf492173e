"""Measured choices: records that hold no answer but the log-likelihood of each choice of a question."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lem.data.items import Item
from lem.records import Record
from lem.records.model import LIKELIHOOD

Choice = tuple[str, bool | None]


def is_measured(record: Record) -> bool:
    """True for a record of log-likelihoods: it has no words, no length and no ending."""
    return record.finish_reason == LIKELIHOOD


def choices_of(entries: Sequence[Mapping[str, Any]], items: Mapping[str, Item]) -> dict[str, list[Choice]]:
    """Probe -> its choices, each with whether it is a correct one (None where the run has no items that say so)."""
    found = {}
    for entry in entries:
        if entry.get("choices"):
            item = items.get(entry["id"])
            right = {_plain(text) for text in _correct(item)} if item else None
            found[entry["id"]] = [(text, None if right is None else _plain(text) in right) for text in entry["choices"]]
    return found


def measured_choices(record: Record, choices: Sequence[Choice]) -> list[list[Any]]:
    """[choice, log-likelihood in nats, its tokens, whether it is correct] per choice; [] for what cannot be read."""
    try:
        found = json.loads(record.response or "")
        values, lengths = found["loglikelihoods"], found["n_tokens"]
        if not len(choices) == len(values) == len(lengths):
            return []
        return [
            [text, round(float(value), 3), int(length), right]
            for (text, right), value, length in zip(choices, values, lengths, strict=True)
        ]
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return []


def _correct(item: Item) -> Collection[str]:
    return [str(text) for text in (*item.fields.get("correct_answers", ()), item.fields.get("best_answer", ""))]


def _plain(text: str) -> str:
    """Choices are closed by a point where an item's answers may not be."""
    return text.strip().rstrip(".").casefold()
