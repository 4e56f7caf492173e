"""What the page's viewer needs: an index of all cells that filters read, and the texts in parts that rows open.

The index holds one letter and one value per metric for every cell of the grid probes x arms x repeats, in columns. A
part holds the texts and details of a group of probes; every distinct text of a part is stored once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lem.data.items import Item
from lem.records import Cell, Judgement, Key, Metric, Record, RunContents
from lem.records.cells import arm_names, planned_keys
from lem.reports.choices import Choice, choices_of, is_measured, measured_choices

Highlights = Mapping[str, Mapping[str, Sequence[Mapping[str, str]]]]

HEAD_CHARACTERS = 100
ANSWERED, TRUNCATED, FAILED, MISSING, NOT_PLANNED = "atfm-"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ViewedMetric:
    """A metric with how its changes are counted: `threshold`, whether less is better, and arms that show no change.

    `marked` goes with its name wherever it is shown.
    """

    metric: Metric
    threshold: float
    lower_is_better: bool = False
    withheld: tuple[str, ...] = ()
    marked: str = ""

    @property
    def shown_name(self) -> str:
        """The metric's name with its marks."""
        return self.metric.name + self.marked


class Grid:
    """The cells of a run by place: probe by probe, within it arm by arm, within that repeat by repeat."""

    def __init__(self, contents: RunContents, items: Mapping[str, Item] | None = None) -> None:
        info = contents.info
        self.choices = choices_of(info.probes, items or {})
        self.arms = arm_names(info, contents.records)
        self.records = {record.key: record for record in contents.records}
        self.planned = set(planned_keys(info))
        probes = {probe["id"]: (probe.get("domain", ""), probe.get("prompt", "")) for probe in info.probes}
        for record in contents.records:
            if record.probe_id not in probes:
                probes[record.probe_id] = ("", _question(record))
        self.probes = probes
        self.repeats = sorted({key.repeat for key in self.planned} | {key.repeat for key in self.records})

    def places(self) -> Iterator[Key]:
        """Every place of the grid in its order."""
        for probe in self.probes:
            yield from self.places_of(probe)

    def places_of(self, probe: str) -> Iterator[Key]:
        """The places of one probe."""
        return (Key(arm, probe, repeat) for arm in self.arms for repeat in self.repeats)

    def outcome(self, key: Key) -> str:
        """One letter for what became of a place."""
        record = self.records.get(key)
        if record is None:
            return MISSING if key in self.planned else NOT_PLANNED
        if record.failed or record.response is None:
            return FAILED
        return TRUNCATED if record.finish_reason == "length" else ANSWERED


def viewer_index(
    grid: Grid, viewed: Sequence[ViewedMetric], baseline: str | None, highlights: Highlights
) -> dict[str, Any]:
    """Build the index: arms, repeats, probes, metrics and, per cell, its outcome and values.

    A value is a number, null for an answer without one, "" where the metric does not apply or there is no answer.
    """
    domains = list(dict.fromkeys(domain for domain, _ in grid.probes.values()))
    heads = [" ".join(prompt[: 2 * HEAD_CHARACTERS].split())[:HEAD_CHARACTERS] for _, prompt in grid.probes.values()]
    at = {domain: number for number, domain in enumerate(domains)}
    names = [one.metric.name for one in viewed]
    return {
        "arms": grid.arms,
        "baseline": grid.arms.index(baseline) if baseline in grid.arms else None,
        "repeats": grid.repeats,
        "ids": list(grid.probes),
        "domains": domains,
        "domain": [at[domain] for domain, _ in grid.probes.values()],
        "heads": heads,
        "outcomes": "".join(grid.outcome(key) for key in grid.places()),
        "metrics": [
            {"name": one.shown_name, "version": one.metric.version, "threshold": one.threshold,
             "lower": one.lower_is_better, "signals": _signal_names(one.metric),
             "withheld": [grid.arms.index(arm) for arm in one.withheld]}
            for one in viewed
        ],
        "values": [_values(grid, one.metric) for one in viewed],
        "highlights": {name: patterns for name, patterns in highlights.items() if name in names},
    }  # fmt: skip


def _values(grid: Grid, metric: Metric) -> list[float | str | None]:
    found: dict[Key, float | None] = {cell.key: cell.value for cell in metric.cells}
    outcomes = ((key, grid.outcome(key) in (ANSWERED, TRUNCATED)) for key in grid.places())
    values = ((found.get(key, "") if answered else "") for key, answered in outcomes)
    return [round(value, 4) if isinstance(value, float) else value for value in values]


def _signal_names(metric: Metric) -> list[str]:
    return list(dict.fromkeys(name for cell in metric.cells if cell.score for name in cell.score.signals))


def probe_entries(contents: RunContents, grid: Grid, viewed: Sequence[ViewedMetric]) -> Iterator[ProbeTexts]:
    """Texts and details of one probe after the other, in the order of the grid."""
    cells = [{cell.key: cell for cell in one.metric.cells} for one in viewed]
    names = [_signal_names(one.metric) for one in viewed]
    said = _said(contents.judgements, viewed)
    for probe, (_, prompt) in grid.probes.items():
        entry = ProbeTexts(prompt, grid.choices.get(probe, ()))
        for place, key in enumerate(grid.places_of(probe)):
            record = grid.records.get(key)
            if record is not None:
                scores = [
                    _score(of.get(key), signals, told.get(key))
                    for of, signals, told in zip(cells, names, said, strict=True)
                ]
                entry.add(place, record, scores)
        yield entry


def _said(judgements: Sequence[Judgement], viewed: Sequence[ViewedMetric]) -> list[dict[Key, str]]:
    """Per metric what its judge wrote about each answer; empty for scorers."""
    found: dict[tuple[str, str], dict[Key, str]] = {}
    for judgement in judgements:
        if judgement.raw and not judgement.order:
            key = Key(judgement.arm, judgement.probe_id, judgement.repeat)
            found.setdefault((judgement.judge, judgement.dimension), {})[key] = judgement.raw
    metrics = [one.metric for one in viewed]
    return [found.get((m.source, m.name.removesuffix(f" · {m.source}")), {}) for m in metrics]


def _score(cell: Cell | None, names: Sequence[str], said: str | None) -> list[Any]:
    """[reason it is unscored, its signals in the order of the index, what a judge said]."""
    if cell is None:
        return []
    signals = cell.score.signals if cell.score else {}
    found = [_finite(signals.get(name)) for name in names] if signals else []
    return [cell.reason, found, *([said] if said else [])]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class ProbeTexts:
    """One probe's prompt and answers before their texts are numbered; cells name texts by their words."""

    def __init__(self, prompt: str, choices: Sequence[Choice] = ()) -> None:
        self.prompt = prompt
        self.choices = choices
        self.cells: list[dict[str, Any]] = []

    def add(self, place: int, record: Record, scores: Sequence[list[Any]]) -> None:
        """Add the cell at a place of the probe's grid: texts `t`, `k`, messages `m`, facts `w`, `n`, `e`, `s`.

        Measured choices have a table `l` instead of a text.
        """
        entry: dict[str, Any] = {"i": place, "m": [_message(message, self.prompt) for message in record.messages]}
        if record.failed or record.response is None:
            entry["e"] = record.error or "no answer stored"
        elif is_measured(record) and (measured := measured_choices(record, self.choices)):
            entry |= {"l": measured, "s": list(scores)}
        else:
            entry |= {"t": record.response, "w": len(record.response.split()), "s": list(scores)}
        if record.n_tokens is not None and "l" not in entry:
            entry["n"] = record.n_tokens
        if record.thinking:
            entry["k"] = record.thinking
        self.cells.append(entry)

    def numbered(self, texts: dict[str, int]) -> dict[str, Any]:
        """The probe as it goes into a part, every text replaced by its number in `texts`, which grows."""

        def number(text: str) -> int:
            return texts.setdefault(text, len(texts))

        cells = [
            cell
            | {name: number(cell[name]) for name in ("t", "k") if name in cell}
            | {"m": [[role, [number(part) for part in parts]] for role, parts in cell["m"]]}
            | ({"l": [[number(text), *facts] for text, *facts in cell["l"]]} if "l" in cell else {})
            for cell in self.cells
        ]
        return {"t": number(self.prompt), "c": cells}


def _question(record: Record) -> str:
    return next((message["content"] for message in reversed(record.messages) if message.get("role") == "user"), "")


def _message(message: Mapping[str, str], prompt: str) -> tuple[str, list[str]]:
    """(role, parts): a kernel put before the question in one message is stored once, apart from the question."""
    content = message.get("content", "")
    parts = content.partition(prompt) if prompt else (content,)
    return message.get("role", ""), [part for part in parts if part]


def as_json(data: Any) -> str:
    """Compact JSON; lone surrogates, which no encoding can hold, are escaped.   Raises: ValueError for NaN."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
