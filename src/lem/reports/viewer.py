"""What the page's viewer needs, packed for size: every distinct text is stored once and named by its number."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lem.records import Key, Record, RunInfo, Score
from lem.records.cells import Cell, Outcome, arm_names, join_cells
from lem.reports.tables import plain

_SURROGATE = re.compile("[\ud800-\udfff]")


class _Texts:
    """Distinct texts in order of first use."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def add(self, text: str) -> int:
        return self.index.setdefault(text, len(self.index))


def viewer_data(
    info: RunInfo, records: Sequence[Record], scores: Mapping[str, Sequence[Score]], baseline: str | None
) -> dict[str, Any]:
    """Build the viewer's data: arms, probes, scorers with their signal names, texts, and one entry per cell.

    A cell holds arm `a`, probe `p`, repeat `r`, outcome `o` (answered, failed, missing), and when it has them: text
    `t`, thinking `k`, ending `f`, words `w`, tokens `n`, error `e`, messages `m` as [role, [texts]], and per scorer
    `s` as [value, reason it is unscored, signals].
    """
    texts = _Texts()
    joined = {name: join_cells(info, records, rows) for name, rows in scores.items()}
    cells = next(iter(joined.values()), None) or join_cells(info, records, [])
    arms = arm_names(info, records)
    probes = {probe["id"]: (probe["domain"], probe["prompt"]) for probe in info.probes}
    for record in records:
        probes.setdefault(record.probe_id, ("", _question(record)))
    signals = {name: _signal_names(rows) for name, rows in scores.items()}
    by_scorer = {name: {cell.key: cell for cell in rows} for name, rows in joined.items()}
    probe_at = {probe_id: number for number, probe_id in enumerate(probes)}
    packed = []
    for cell in sorted(cells, key=lambda cell: (probe_at.get(cell.key.probe_id, len(probe_at)), cell.key.repeat)):
        entry: dict[str, Any] = {"a": arms.index(cell.key.arm), "p": probe_at[cell.key.probe_id], "r": cell.key.repeat}
        entry |= _answer(cell, probes[cell.key.probe_id][1], texts)
        if entry["o"] == "answered":
            entry["s"] = [_score(found, cell.key, signals[name]) for name, found in by_scorer.items()]
        packed.append(entry)
    return {
        "arms": arms,
        "baseline": arms.index(baseline) if baseline in arms else None,
        "scorers": [{"name": name, "signals": signals[name]} for name in scores],
        "probes": [
            {"id": probe_id, "domain": domain, "t": texts.add(prompt)} for probe_id, (domain, prompt) in probes.items()
        ],
        "cells": packed,
        "texts": list(texts.index),
    }


def _question(record: Record) -> str:
    return next((message["content"] for message in reversed(record.messages) if message.get("role") == "user"), "")


def _signal_names(scores: Sequence[Score]) -> list[str]:
    return list(dict.fromkeys(name for score in scores for name in score.signals))


def _answer(cell: Cell, prompt: str, texts: _Texts) -> dict[str, Any]:
    record = cell.record
    if record is None:
        return {"o": "missing"}
    entry: dict[str, Any] = {"m": [_message(message, prompt, texts) for message in record.messages]}
    if cell.outcome is Outcome.FAILED:
        return entry | {"o": "failed", "e": cell.reason}
    response = record.response or ""
    entry |= {"o": "answered", "t": texts.add(response), "w": len(response.split()), "f": record.finish_reason}
    if record.n_tokens is not None:
        entry["n"] = record.n_tokens
    if record.thinking:
        entry["k"] = texts.add(record.thinking)
    return entry


def _message(message: Mapping[str, str], prompt: str, texts: _Texts) -> list[Any]:
    """[role, parts]: a kernel put before the question in one message is stored once, apart from the question."""
    content = message.get("content", "")
    parts = content.partition(prompt) if prompt else (content,)
    return [message.get("role", ""), [texts.add(part) for part in parts if part]]


def _score(cells: Mapping[Key, Cell], key: Key, names: Sequence[str]) -> list[Any]:
    cell = cells[key]
    signals = cell.score.signals if cell.score else {}
    return [cell.value, cell.reason, [signals.get(name) for name in names] if signals else []]


def embed(data: Any) -> str:
    """JSON that is safe inside a script element: no '<', '>' or '&', no lone surrogate, no NaN."""
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return _SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
