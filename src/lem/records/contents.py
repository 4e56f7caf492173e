"""`RunContents`: a run as it stands, read whole; a foreign log takes the same shape without ever being written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.records.cells import read_scores
from lem.records.judge_files import read_audits, read_judge_manifests, with_arms
from lem.records.model import NOT_FINITE, Judgement, Record, Score, field_kinds, is_finite, misfit, shown
from lem.records.run import RunInfo, nth_line, read_run, reading
from lem.records.store import read_jsonl

_KINDS = field_kinds(Judgement)


@dataclass(frozen=True)
class RunContents:
    """Manifest, records, scores by scorer, judgements, and the manifests and audits of the judges by their names.

    `notes` says what a reader of foreign data must know.
    """

    info: RunInfo
    records: list[Record]
    scores: dict[str, list[Score]] = field(default_factory=dict)
    judgements: list[Judgement] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)
    audits: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_contents(path: Path) -> RunContents:
    """Read everything of a run directory, changing nothing.

    Scores are read before records: a run that is still growing may then have more records than scores, never fewer.
    Raises: DataError for whatever cannot be read, with its file and line.
    """
    scores, judgements = read_scores(path), read_judgements(path)
    info, records = read_run(path)
    unfinished = f"the run {path.name} is {info.status}; some of its cells may be missing."
    notes = [] if info.status == "done" else [unfinished]
    notes += [str(note) for note in info.data.get("notes", [])]  # what the importer of a foreign log had to say
    judges = {name: with_arms(manifest, info.arms) for name, manifest in read_judge_manifests(path).items()}
    return RunContents(info, records, scores, judgements, tuple(notes), judges, read_audits(path))


def read_judgements(run: Path) -> list[Judgement]:
    """Read every `judgements/<judge>.jsonl` of a run, files by name; the last line of a judgement's key wins.

    A call that failed has no verdict, so it is read as of the version and scale of the verdicts that it stands beside.
    Raises: DataError naming the file and line of a row that is no judgement, whose value is outside its scale, or
    whose scale is not that of the judge's other judgements on the dimension.
    """
    found: dict[tuple[str, str, int, str, str, str, str], tuple[Judgement, Path, int]] = {}
    for file in sorted((run / "judgements").glob("*.jsonl")):
        for number, row in enumerate(_rows(file)):
            try:
                judgement = Judgement(**row)
                fault = misfit(row, _KINDS) or _scale_fault(judgement.value, judgement.low, judgement.high)
            except TypeError as error:
                fault = str(error)
            if fault is None and not (judgement.judge + judgement.dimension).isprintable():
                fault = "its judge or dimension holds a character that cannot be printed"
            if fault is not None:
                raise _not_a_judgement(file, number, fault)
            if judgement.value is not None and not is_finite(judgement.value):
                judgement = replace(judgement, value=None, unscored=judgement.unscored or NOT_FINITE)
            found[judgement.full_key] = (judgement, file, number)
    rows = _with_failed_as_others([*found.values()])
    _refuse_two_scales(rows)
    return [judgement for judgement, _, _ in rows]


def _rows(file: Path) -> list[dict[str, Any]]:
    with reading(file):
        return read_jsonl(file)[0]


def _not_a_judgement(file: Path, number: int, fault: str) -> DataError:
    return DataError(f"{nth_line(file, number)}: not a judgement ({fault}); restore it from a copy or judge again.")


def _scale_fault(value: float | None, low: float | None, high: float | None) -> str | None:
    for name, end in (("low", low), ("high", high)):
        if end is not None and not is_finite(end):
            return f"field '{name}' must be a finite number or null, not {shown(end)}"
    if low is not None and high is not None and low >= high:
        return f"the scale from {low:g} to {high:g} has no range"
    if value is None or not is_finite(value):
        return None
    if (low is not None and value < low) or (high is not None and value > high):
        ends = [f"{word} {end:g}" for word, end in (("from", low), ("to", high)) if end is not None]
        return f"the value {value:g} is outside the scale {' '.join(ends)}"
    return None


def _with_failed_as_others(rows: Sequence[tuple[Judgement, Path, int]]) -> list[tuple[Judgement, Path, int]]:
    """The rows with version and scale of the last verdict of a series, else of its last call, for those that failed."""
    if not any(one.failed for one, _, _ in rows):
        return list(rows)
    kinds: dict[tuple[str, str, bool], Judgement] = {}
    for one, _, _ in sorted(rows, key=lambda row: (not row[0].failed, row[1], row[2])):
        kinds[_series(one)] = one

    def as_others(one: Judgement) -> Judgement:
        kind = kinds[_series(one)]
        return replace(one, version=kind.version, low=kind.low, high=kind.high) if one.failed else one

    return [(as_others(one), file, number) for one, file, number in rows]


def _series(judgement: Judgement) -> tuple[str, str, bool]:
    """What has one scale: ratings on a dimension by a judge, and comparisons."""
    return judgement.judge, judgement.dimension, judgement.order == ""


def _refuse_two_scales(judgements: Iterable[tuple[Judgement, Path, int]]) -> None:
    """Ratings and comparisons of two answers may have scales of their own; a row without a scale contradicts none."""
    scales: dict[tuple[str, str, bool], tuple[float | None, float | None]] = {}
    for judgement, file, number in judgements:
        scale = (judgement.low, judgement.high)
        if scale == (None, None):
            continue
        first = scales.setdefault(_series(judgement), scale)
        if scale != first:
            one, other = (" to ".join("?" if end is None else f"{end:g}" for end in ends) for ends in (scale, first))
            raise _not_a_judgement(file, number, f"its scale is {one}, that of earlier ones on its dimension {other}")
