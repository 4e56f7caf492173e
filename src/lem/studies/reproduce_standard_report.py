"""The published table beside ours for scores by rule and ratings of judges: rows, watermarks, what is unscored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lem.data.published_figures import PublishedFigure
from lem.judges.panel import PANEL
from lem.records import RunContents
from lem.records.contents import read_contents
from lem.reports.watermarks import watermarks
from lem.studies.reproduce import specification
from lem.studies.reproduce_report import MEAN, Beside, against, read_comparison, rows_of

SCORER = "scorer"
NOT_JUDGED, WITHHELD = "not judged", "withheld"


@dataclass(frozen=True)
class Findings:
    """What a run of one model says: rows, the sentences without which its ratings must not be shown, objections."""

    rows: tuple[Beside, ...]
    watermarks: tuple[str, ...]
    objections: tuple[str, ...]
    judges: tuple[str, ...]


def findings(model: str, figures: Sequence[PublishedFigure], run: Path) -> Findings:
    """Rows of the score by rule first, then those of each judge; judged rows without a judge say that.

    Raises: DataError for an unreadable run or comparison.
    """
    contents, comparison = read_contents(run), read_comparison(run / "comparison.json")
    judges = _judges(comparison)
    marks = {judge: watermarks(contents, judge) for judge in judges}
    rows = _rows(model, figures, contents, _of(comparison, SCORER), list(_by_rule().values()), "")
    for judge in judges:
        word = ", ".join(mark.word for mark in marks[judge])
        rated = _rows(model, figures, contents, _of(comparison, judge), _judged(), judge)
        rows += [replace(row, mark=word) for row in rated]
    if not judges:
        rows += _unjudged(model, figures, contents)
    sentences = [mark.sentence for judge in judges for mark in marks[judge]]
    return Findings(
        tuple(rows), tuple(sentences), (*against(comparison), *_unscored(comparison)), tuple(judges)
    )  # fmt: skip


def _by_rule() -> dict[str, str]:
    found: dict[str, str] = specification()["standard"]["by_rule"]
    return found


def _judged() -> list[str]:
    found: list[str] = specification()["standard"]["judged"]
    return found


def _judges(comparison: Mapping[str, Any]) -> list[str]:
    """The judges of a comparison; the panel is none of them, because its unit is no rating."""
    return list(dict.fromkeys(row["source"] for row in comparison["contrasts"] if row["source"] not in (SCORER, PANEL)))


def _of(comparison: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The contrasts of one scorer or judge, under the published names of their metrics."""
    names = _by_rule() if source == SCORER else {name: name for name in _judged()}
    contrasts = []
    for row in comparison["contrasts"]:
        metric = names.get(row["metric"].partition(" · ")[0])
        if row["source"] == source and metric:
            contrasts.append({**row, "metric": metric})
    return {**comparison, "contrasts": contrasts}


def _rows(
    model: str, figures: Sequence[PublishedFigure], contents: RunContents, comparison: Mapping[str, Any],
    metrics: Sequence[str], judge: str,
) -> list[Beside]:  # fmt: skip
    shares, arms = specification()["standard"]["shares"], contents.info.arms
    found = []
    for row in rows_of(model, figures, comparison, metrics):
        absent = WITHHELD if row.value is None and row.arm in arms else ""
        found.append(replace(row, percent=row.metric in shares, judge=judge, absent=absent))
    return found


def _unjudged(model: str, figures: Sequence[PublishedFigure], contents: RunContents) -> list[Beside]:
    """A row without a value for everything that only a judge can rate."""
    found = rows_of(model, figures, {"contrasts": []}, _judged()) or [
        Beside(model, arm, metric, MEAN, "", "", None, None, None, None, None)
        for metric in _judged() for arm in contents.info.arms
    ]  # fmt: skip
    return [replace(row, absent=NOT_JUDGED) if row.arm in contents.info.arms else row for row in found]


def _unscored(comparison: Mapping[str, Any]) -> Iterator[str]:
    """How many answers of each arm a judge left unscored, one sentence for each metric that has such answers."""
    lost: dict[tuple[str, str], dict[str, int]] = {}
    for row in comparison["contrasts"]:
        if row["source"] not in (SCORER, PANEL):
            of_metric = lost.setdefault((row["source"], row["metric"]), {})
            of_metric.update({arm: counts["unscored"] for arm, counts in row["counts"].items()})
    for (judge, metric), arms in lost.items():
        if any(arms.values()):
            listed = ", ".join(f"{arm} {count}" for arm, count in arms.items())
            yield f"unscored by {judge}, {metric.partition(' · ')[0]}: {listed}."
