"""The values of one arm under one metric: per probe, with what became of the cells that have none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lem.records import Cell, Metric, Outcome, Record
from lem.records.model import LIKELIHOOD
from lem.stats import per_probe, per_source


@dataclass(frozen=True)
class Outcomes:
    """Cells of one arm by what became of them; `wrong` counts scored cells with the value 0 of a binary metric."""

    scored: int
    unscored: int
    failed: int
    missing: int
    wrong: int | None = None


@dataclass(frozen=True)
class ArmValues:
    """One arm under one metric.

    `values`: mean over the scored repeats, per probe.  `repeats`: those repeats.  `words`: mean whitespace words of
    the scored answers, per probe; an empty answer has none, and measured choices are no answer.
    `cells`: every planned cell of the arm.
    """

    arm: str
    values: dict[str, float]
    repeats: dict[str, list[float]]
    words: dict[str, float]
    cells: tuple[Cell, ...] = field(repr=False)


def arm_values(metric: Metric, excluded: Mapping[str, str] | frozenset[str] = frozenset()) -> dict[str, ArmValues]:
    """The values of every arm that has planned cells under the metric; excluded probes do not exist here."""
    by_arm: dict[str, list[Cell]] = {}
    for cell in metric.cells:
        if cell.key.probe_id not in excluded:
            by_arm.setdefault(cell.key.arm, []).append(cell)
    return {arm: _values(arm, cells) for arm, cells in by_arm.items()}


def _values(arm: str, cells: Sequence[Cell]) -> ArmValues:
    repeats: dict[str, list[float]] = {}
    words: list[tuple[str, float | None]] = []
    for cell in cells:
        if cell.value is not None:
            repeats.setdefault(cell.key.probe_id, []).append(cell.value)
        if cell.value is not None and cell.record is not None and _is_written(cell.record):
            words.append((cell.key.probe_id, float(len((cell.record.response or "").split()))))
    values = per_probe((probe, value) for probe, found in repeats.items() for value in found)
    return ArmValues(arm, values, repeats, per_probe(words), tuple(cells))


def _is_written(record: Record) -> bool:
    return record.response is not None and record.finish_reason != LIKELIHOOD


def counts_of(arm: ArmValues, kind: str) -> Outcomes:
    """Count an arm's cells by outcome, and the wrong ones where the metric is right or wrong."""
    found = {outcome: sum(cell.outcome is outcome for cell in arm.cells) for outcome in Outcome}
    wrong = sum(cell.value == 0 for cell in arm.cells) if kind == "binary" else None
    return Outcomes(
        found[Outcome.SCORED], found[Outcome.UNSCORED], found[Outcome.FAILED], found[Outcome.MISSING], wrong
    )


def outcome_bounds(
    metric: Metric, treatment: ArmValues, baseline: ArmValues, sources: Mapping[str, str]
) -> tuple[float, float] | None:
    """The mean difference if all unscored answers had the worst, and the best, value for the treatment.

    None where nothing is unscored or the ends of the scale are not known. Failed and missing cells stay out: there is
    no answer that could have had a value.
    """
    arms = (treatment, baseline)
    if metric.low is None or metric.high is None:
        return None
    if not any(cell.outcome is Outcome.UNSCORED for arm in arms for cell in arm.cells):
        return None
    worst = _filled_difference(treatment, baseline, metric.low, metric.high, sources)
    best = _filled_difference(treatment, baseline, metric.high, metric.low, sources)
    return (worst, best)


def _filled_difference(
    treatment: ArmValues, baseline: ArmValues, for_treatment: float, for_baseline: float, sources: Mapping[str, str]
) -> float:
    filled = [_filled(treatment, for_treatment), _filled(baseline, for_baseline)]
    shared = sorted(set(filled[0]) & set(filled[1]))
    differences = per_source({probe: filled[0][probe] - filled[1][probe] for probe in shared}, sources)
    return sum(differences.values()) / len(differences) if differences else math.nan


def _filled(arm: ArmValues, value: float) -> dict[str, float]:
    return per_probe(
        (cell.key.probe_id, value if cell.outcome is Outcome.UNSCORED else cell.value) for cell in arm.cells
    )
