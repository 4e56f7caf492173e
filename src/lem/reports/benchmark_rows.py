"""The table of a benchmark run: one row per metric and arm, with every count kept apart and the unscored ones bounded.

Wrong answers are part of a mean, unscored, failed and missing ones never are. What the unscored ones could have done to
a mean is said by its bounds; arms that were left unscored at different rates are flagged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lem.records import Cell, Metric, Outcome, RunContents, RunInfo, metrics_of
from lem.records.cells import arm_names, sources_of
from lem.reports.leaderboard import choose_baseline, leaderboard_of
from lem.reports.units import Unit, unit_of
from lem.reports.watermarks import Watermark, metric_watermarks
from lem.stats import Estimate, per_source
from lem.stats.bounds import missing_bounds

UNEVEN = 0.02  # a difference in unscored rates between arms that is flagged when it is greater
_ROUNDING = 1e-9


@dataclass(frozen=True)
class BenchmarkRow:
    """One arm under one metric, numbers in the metric's own unit (`unit` says how they read: "%" values are 0 to 1).

    `n` and both estimates are of probes (repeats averaged); the other counts are of answers. `n_wrong` is None where a
    metric has no wrong answers. `reasons` says why answers are unscored. `worst` and `best` are the means if every
    unscored answer had the worse, the better end of the scale, None where nothing is unscored or the scale is not
    known. `uneven` is True on every row of a metric whose arms differ by more than 2 percentage points in unscored
    rates. Without its `watermarks` the row must not be shown.
    """

    benchmark: str
    metric: str
    source: str
    version: str
    unit: Unit
    arm: str
    model: str
    n: int
    mean: Estimate
    n_wrong: int | None
    n_unscored: int
    n_failed: int
    n_missing: int
    unscored_rate: float
    reasons: Mapping[str, int]
    worst: float | None
    best: float | None
    truncated: Estimate
    baseline: str | None
    delta: Estimate | None
    uneven: bool
    watermarks: tuple[Watermark, ...]


def benchmark_table(
    contents: RunContents,
    manifests: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    baseline: str | None = None,
    only: Collection[str] | None = None,
) -> list[BenchmarkRow]:
    """The rows of a run, metric by metric, arms in the order of the run.

    Args:  manifests: those of the judges by name, where they are not those of `contents`.
           baseline: arm that the others are paired with; default: 'base' if the run has it, else none.
           only: sources to show ("scorer", names of judges); default: all.
    Raises: UserError for an unknown baseline; what `metrics_of` raises.
    """
    against = choose_baseline(arm_names(contents.info, contents.records), baseline)
    metrics = [metric for metric in metrics_of(contents) if only is None or metric.source in only]
    return [row for metric in metrics for row in _rows(contents, metric, manifests, against)]


def unscored_reasons(cells: Sequence[Cell]) -> Counter[str]:
    """How many cells are unscored for which reason; what follows a colon in a reason is left out."""
    return Counter((cell.reason or "").partition(":")[0] for cell in cells if cell.outcome is Outcome.UNSCORED)


def unscored_rates(metric: Metric) -> dict[str, float]:
    """Arm -> share of its answers that are unscored; arms without an answer are left out."""
    answered: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for cell in metric.cells:
        answered[cell.key.arm] += cell.outcome in (Outcome.SCORED, Outcome.UNSCORED)
        lost[cell.key.arm] += cell.outcome is Outcome.UNSCORED
    return {arm: lost[arm] / n for arm, n in answered.items() if n}


def is_uneven(metric: Metric) -> bool:
    """True when unscored rates differ by more than 2 percentage points between any two arms."""
    rates = unscored_rates(metric).values()
    return bool(rates) and max(rates) - min(rates) > UNEVEN + _ROUNDING


def mean_bounds(cells: Sequence[Cell], unit: Unit, info: RunInfo) -> tuple[float, float] | None:
    """The least and the greatest mean of one arm that its unscored answers leave open.

    None where nothing is unscored or the scale is not known. Failed and missing cells stay out: there is no answer that
    could have had a value.
    """
    if unit.low is None or unit.high is None or not any(cell.outcome is Outcome.UNSCORED for cell in cells):
        return None
    scored: dict[str, list[float]] = {}
    unscored: Counter[str] = Counter()
    for cell in cells:
        if cell.outcome in (Outcome.SCORED, Outcome.UNSCORED):
            values = scored.setdefault(cell.key.probe_id, [])
            unscored[cell.key.probe_id] += cell.value is None
            values += [] if cell.value is None else [cell.value]
    ends = {probe: missing_bounds(values, unscored[probe], unit.low, unit.high) for probe, values in scored.items()}
    sources = sources_of(info)
    least, most = (per_source({probe: end[at] for probe, end in ends.items()}, sources) for at in (0, 1))
    return sum(least.values()) / len(least), sum(most.values()) / len(most)


def benchmarks_of(info: RunInfo, metric: Metric) -> str:
    """The benchmarks whose probes a metric is about, "" for probes without one."""
    ids = {cell.key.probe_id for cell in metric.cells}
    return ", ".join(dict.fromkeys(str(probe.get("benchmark", "")) for probe in info.probes if probe["id"] in ids))


def _rows(
    contents: RunContents, metric: Metric, manifests: Mapping[str, Mapping[str, Any]] | None, baseline: str | None
) -> list[BenchmarkRow]:
    info, unit = contents.info, unit_of(metric)
    names, rates = arm_names(info, contents.records), unscored_rates(metric)
    by_arm: dict[str, list[Cell]] = {name: [] for name in names}
    for cell in metric.cells:
        by_arm.setdefault(cell.key.arm, []).append(cell)
    board = leaderboard_of(
        info,
        names,
        metric.cells,
        metric.name,
        metric.version,
        baseline=baseline,
        threshold=0.0,
        ends=(unit.low, unit.high),
    )
    rows = []
    for row in sorted(board, key=lambda row: list(by_arm).index(row.arm)):
        cells = by_arm[row.arm]
        ends = mean_bounds(cells, unit, info)
        worst, best = (None, None) if ends is None else ends[::-1] if unit.lower_is_better else ends
        rows.append(
            BenchmarkRow(
                benchmark=benchmarks_of(info, metric),
                metric=metric.name,
                source=metric.source,
                version=metric.version,
                unit=unit,
                arm=row.arm,
                model=row.model,
                n=row.n,
                mean=row.mean,
                n_wrong=sum(cell.value == 0 for cell in cells) if unit.graded else None,
                n_unscored=row.n_unscored,
                n_failed=row.n_failed,
                n_missing=row.n_missing,
                unscored_rate=rates.get(row.arm, float("nan")),
                reasons=dict(unscored_reasons(cells)),
                worst=worst,
                best=best,
                truncated=row.truncated,
                baseline=row.baseline,
                delta=unit.differing(row.delta.difference) if row.delta else None,
                uneven=is_uneven(metric),
                watermarks=metric_watermarks(contents, metric, manifests),
            )
        )
    return rows
