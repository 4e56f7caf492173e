"""One outcome per cell of a run: scored, unscored, failed or missing, never two of them, never a default.

A cell is (arm, probe, repeat). It is *missing* when it was planned and nothing is stored, *failed* when the
request ended in an error, *unscored* when there is an answer and no valid score for it (the reason says why),
and *scored* otherwise; only then has it a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.records.model import (
    NOT_FINITE,
    Key,
    Record,
    Score,
    field_kinds,
    is_finite,
    misfit,
    shown,
    text_sha,
)
from lem.records.run import RunInfo, nth_line, reading
from lem.records.store import read_jsonl

NOT_SCORED = "no score stored yet"
UNFINISHED = "truncated while thinking"
STALE = "the stored score belongs to an earlier answer"
# The names in lem.scorers.table: what `lem score` can make again from the answers alone.
OWN_SCORERS = ("v1", "v2", "v3")
# Those of the benchmarks' rules, made again by `lem report` and `lem eval`.
BENCHMARK_SCORERS = (
    "gsm8k_strict", "gsm8k_flexible", "truthfulqa_mc1", "truthfulqa_mc2", "over_refusal", "unsafe_refusal",
)  # fmt: skip
_KINDS = field_kinds(Score)
_NUMBERS = frozenset((int, float))


class Outcome(StrEnum):
    """What became of a cell."""

    SCORED = "scored"
    UNSCORED = "unscored"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True)
class Cell:
    """A cell with its record (None when missing), its score by one scorer, and the reason if it has no value."""

    key: Key
    outcome: Outcome
    record: Record | None = None
    score: Score | None = None
    reason: str | None = None

    @property
    def value(self) -> float | None:
        """The score's value; None unless the outcome is scored."""
        return self.score.value if self.score is not None and self.outcome is Outcome.SCORED else None


def planned_keys(info: RunInfo) -> list[Key]:
    """Every cell that the run set out to fill: its decoding groups, else arms x probes x repeats."""
    if info.groups:
        return [Key(g["arm"], probe, g["repeat"]) for g in info.groups.values() for probe in g["probes"]]
    repeats = range(int(info.settings.get("repeats", 1)))
    return [Key(arm, probe["id"], repeat) for arm in info.arms for probe in info.probes for repeat in repeats]


def arm_names(info: RunInfo, records: Sequence[Record]) -> list[str]:
    """Arms in the order of `run.json`, then any that only records name."""
    return list(dict.fromkeys([*info.arms, *(record.arm for record in records)]))


def domains_of(info: RunInfo) -> dict[str, str]:
    """Domain per probe id, from `run.json`; empty when the run does not list its probes."""
    return {probe["id"]: probe["domain"] for probe in info.probes}


def sources_of(info: RunInfo) -> dict[str, str]:
    """Source per probe id, from `run.json`: the probe that it rephrases, else its own id."""
    return {probe["id"]: probe.get("source") or probe["id"] for probe in info.probes}


def variants_each(info: RunInfo) -> str:
    """How many probes a source has, "3" or "1 to 3"; empty when every probe has a source of its own."""
    counts = Counter(sources_of(info).values()).values()
    most = max(counts, default=1)
    if most == 1:
        return ""
    fewest = min(counts)
    return str(most) if fewest == most else f"{fewest} to {most}"


def join_cells(info: RunInfo, records: Sequence[Record], scores: Sequence[Score]) -> list[Cell]:
    """Join the plan, the records and ONE scorer's scores; planned cells first, in the order of the plan.

    Raises: ValueError if the scores come from two scorers; DataError if they come from two versions of one, or
    belong to cells without a record.
    """
    if len({score.scorer for score in scores}) > 1:
        raise ValueError("scores of more than one scorer in one table")
    by_record = {record.key: record for record in records}
    by_score = {score.key: score for score in scores}
    _check_scores(by_record, by_score)
    order = dict.fromkeys([*planned_keys(info), *by_record])
    return [_cell(key, by_record.get(key), by_score.get(key)) for key in order]


def _check_scores(records: dict[Key, Record], scores: dict[Key, Score]) -> None:
    versions = sorted({score.version for score in scores.values()})
    name = next((score.scorer for score in scores.values()), "")
    if len(versions) > 1:
        named = ", ".join(version or "(none)" for version in versions)
        cannot = "" if name in OWN_SCORERS else ", which cannot be compared"
        raise DataError(f"scores of '{name}' come from versions {named}{cannot}; {_remedy(name)}.")
    strangers = [key for key in scores if key not in records]
    if strangers:
        arm, probe, repeat = strangers[0]
        raise DataError(
            f"scores of '{name}': {len(strangers)} belong to no record of this run, the first to arm '{arm}', probe "
            f"{probe}, repeat {repeat}; {_remedy(name)}."
        )


def _remedy(name: str) -> str:
    if name in BENCHMARK_SCORERS:
        return "run `./lem report` on each run, which scores it again"
    return "run `./lem score` again" if name in OWN_SCORERS else "import or judge again"


def _cell(key: Key, record: Record | None, score: Score | None) -> Cell:
    if record is None:
        return Cell(key, Outcome.MISSING)
    if record.failed or record.response is None:
        return Cell(key, Outcome.FAILED, record, reason=record.error or "no answer stored")
    if score is None:
        cut = record.thinking is not None and record.response == "" and record.finish_reason == "length"
        return Cell(key, Outcome.UNSCORED, record, reason=UNFINISHED if cut else NOT_SCORED)
    if score.record_sha and score.record_sha != text_sha(record.response):
        return Cell(key, Outcome.UNSCORED, record, reason=STALE)
    if score.unscored is not None or score.value is None:
        return Cell(key, Outcome.UNSCORED, record, score, score.unscored or "no value and no reason stored")
    if not is_finite(score.value):
        return Cell(key, Outcome.UNSCORED, record, score, NOT_FINITE)
    return Cell(key, Outcome.SCORED, record, score)


def read_scores(run: Path) -> dict[str, list[Score]]:
    """Read every `scores/<scorer>.jsonl` of a run: v2 first, the others by name; empty if nothing was scored.

    Raises: DataError naming the file and line of a row that is no score.
    """
    files = sorted((run / "scores").glob("*.jsonl"), key=lambda file: (file.stem != "v2", file.stem))
    return {file.stem: _read_score_file(file) for file in files}


def _read_score_file(file: Path) -> list[Score]:
    scores = []
    with reading(file):
        rows = read_jsonl(file, allow_torn=False)[0]
    for number, row in enumerate(rows):
        try:
            score = Score(**row)
            fault = misfit(row, _KINDS) or _signal_misfit(score.signals)
        except TypeError as error:
            fault = str(error)
        if fault is None and score.scorer != file.stem:
            fault = f"it is by '{score.scorer}'"
        if fault is not None:
            remedy = "run `./lem score` again" if file.stem in OWN_SCORERS else "restore it from a copy or import again"
            raise DataError(f"{nth_line(file, number)}: not a score of '{file.stem}' ({fault}); {remedy}.")
        if score.value is not None and not is_finite(score.value):
            score = replace(score, value=None, unscored=score.unscored or NOT_FINITE)
        scores.append(score)
    return scores


def _signal_misfit(signals: dict[str, Any]) -> str | None:
    values = signals.values()
    try:
        if _NUMBERS.issuperset(map(type, values)) and is_finite(sum(map(abs, values))):
            return None
    except OverflowError:  # a whole number that no float can hold
        pass
    for name, value in signals.items():
        if type(value) not in _NUMBERS or not is_finite(value):
            return f"signal '{name}' must be a finite number, not {shown(value)}"
    return None
