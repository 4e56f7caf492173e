"""The published table of standard-benchmark scores: `scores[benchmark][model][id]`, read strictly.

    GSM8K        {"correct": true | false, "extracted", "expected"}
    the others   {dimension: 1..10, dimension: 1..10, "reasoning"}

The published scorer stored 5 for every call that failed, with the reasoning "API failed". Those numbers are nobody's
verdict: such a row is unscored here, with that reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.interop.lines import read_object

JUDGE = "gemini-2.0-flash"
LOW, HIGH = 1.0, 10.0
INVENTED = "API failed"
GSM8K = "gsm8k"


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark is judged on (nothing: it is scored by program) and which item field is its domain."""

    dimensions: tuple[str, ...]
    domain: str


BENCHMARKS = {
    GSM8K: Benchmark((), ""),
    "truthfulqa": Benchmark(("truthfulness", "informativeness"), "category"),
    "do_not_answer": Benchmark(("safety", "nuance"), "risk_area"),
    "toxigen": Benchmark(("kindness", "awareness"), "target_group"),
}


@dataclass(frozen=True)
class Entry:
    """The score of one answer: `correct` for GSM8K, else a value per dimension (None: the file gives no number)."""

    benchmark: str
    model: str
    probe_id: str
    correct: bool | None
    values: dict[str, float | None]
    reasoning: str

    @property
    def invented(self) -> bool:
        """True when the judge's call failed, so that the file's numbers are the scorer's and not the judge's."""
        return self.reasoning.strip().rstrip(".").casefold() == INVENTED.casefold()


@dataclass(frozen=True)
class ScoreTable:
    """All entries of a scores file, and the judge it names (the published one if it names none)."""

    judge: str
    entries: list[Entry]


def is_score_table(found: dict[str, Any]) -> bool:
    """Whether a JSON object has the shape of a scores file: known benchmarks under "scores"."""
    scores = found.get("scores")
    return isinstance(scores, dict) and bool(scores) and any(name in BENCHMARKS for name in scores)


def read_score_table(path: Path) -> ScoreTable:
    """Read a scores file.

    Raises: UserError if it is missing; DataError, with benchmark, model and id, for an unknown benchmark or dimension,
    a rating outside 1 to 10, or anything of another shape.
    """
    found = read_object(path, "a table of published scores")
    scores = found.get("scores")
    if not isinstance(scores, dict) or not scores:
        raise DataError(f"{path}: field 'scores' is missing or empty; it maps benchmark, model and id to a score.")
    judge = found.get("judge", JUDGE)
    if not isinstance(judge, str) or not judge.strip():
        raise DataError(f"{path}: field 'judge' is empty or not a string; give the judge's name or leave it out.")
    return ScoreTable(judge, list(_entries(path, scores)))


def _entries(path: Path, scores: dict[str, Any]) -> Iterator[Entry]:
    for benchmark, by_model in scores.items():
        if benchmark not in BENCHMARKS:
            raise DataError(f"{path}: unknown benchmark '{benchmark}'; LEM knows {', '.join(BENCHMARKS)}.")
        for model, by_id in _object(path, by_model, benchmark).items():
            if not model.strip():
                raise DataError(f"{path}: a model of {benchmark} has an empty name.")
            for probe_id, row in _object(path, by_id, f"{benchmark}, {model}").items():
                where = f"{path}: {benchmark}, {model}, {probe_id}"
                yield _entry(where, benchmark, model, probe_id, _object(path, row, f"{benchmark}, {model}, {probe_id}"))


def _object(path: Path, value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path}: {what}: not an object; scores are nested as benchmark, model, id.")
    return value


def _entry(where: str, benchmark: str, model: str, probe_id: str, row: dict[str, Any]) -> Entry:
    if not probe_id.strip():
        raise DataError(f"{where}: an id is empty.")
    if benchmark == GSM8K:
        correct = row.get("correct")
        if correct is not None and not isinstance(correct, bool):
            raise DataError(f"{where}: field 'correct' is {correct!r}; it must be true, false or null.")
        return Entry(benchmark, model, probe_id, correct, {}, "")
    known = BENCHMARKS[benchmark].dimensions
    strangers = [name for name in row if name not in known and name != "reasoning"]
    if strangers:
        raise DataError(f"{where}: unknown dimension '{strangers[0]}'; {benchmark} is judged on {' and '.join(known)}.")
    reasoning = row.get("reasoning")
    if reasoning is not None and not isinstance(reasoning, str):
        raise DataError(f"{where}: field 'reasoning' is not a string.")
    values = {name: _rating(where, name, row.get(name)) for name in known}
    return Entry(benchmark, model, probe_id, None, values, reasoning or "")


def _rating(where: str, name: str, value: Any) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not LOW <= value <= HIGH:
        raise DataError(f"{where}: '{name}' is {value!r}; a rating is a number from {LOW:g} to {HIGH:g}, or null.")
    return float(value)
