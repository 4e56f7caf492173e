"""The page's boards: per metric the leaderboard, the domains and the drawings of spread and length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from lem.records import Cell, Metric, RunContents
from lem.records.cells import arm_names, domains_of, sources_of
from lem.records.metrics import CONTINUOUS
from lem.reports.choices import is_measured
from lem.reports.comparison_file import ComparisonView
from lem.reports.domains import DomainMean, domain_means_of, with_width
from lem.reports.leaderboard import LeaderboardRow, leaderboard_of, probe_values
from lem.reports.plots_length import length_figure
from lem.reports.plots_spread import spread_figure
from lem.reports.svg import inline_svg
from lem.reports.units import Unit, unit_of
from lem.reports.watermarks import Watermark, metric_watermarks
from lem.stats import Estimate, paired_difference, per_probe, per_source


@dataclass(frozen=True)
class Board:
    """Everything the page shows of one metric; `changes` are by domain, against `baseline`, withheld ones left out."""

    metric: Metric
    unit: Unit
    arms: list[str]
    baseline: str | None
    threshold: float
    rows: list[dict[str, Any]]
    means: list[tuple[str, list[tuple[DomainMean, float]]]]
    changed_arms: list[str]
    changes: list[tuple[str, list[tuple[Estimate, float]]]]
    spread: Markup | None
    length: Markup | None
    watermarks: tuple[Watermark, ...]


def _on_scale(row: LeaderboardRow, unit: Unit) -> LeaderboardRow:
    """The row with its difference kept where the metric's scale allows it."""
    delta = row.delta and replace(row.delta, difference=unit.differing(row.delta.difference))
    return replace(row, delta=delta)


def build_board(
    contents: RunContents, metric: Metric, baseline: str | None, threshold: float, comparison: ComparisonView | None
) -> Board:
    """Estimate and draw one metric of a run."""
    info, names, unit = contents.info, arm_names(contents.info, contents.records), unit_of(metric)
    threshold = change_threshold(metric, threshold)
    found = leaderboard_of(
        info, names, metric.cells, metric.name, metric.version, baseline=baseline, threshold=threshold,
        ends=(unit.low, unit.high),
    )  # fmt: skip
    rows = _ranked([_on_scale(row, unit) for row in found], unit)
    withheld = withheld_arms(comparison, metric.name, names, baseline)
    by_arm: dict[str, list[Cell]] = {name: [] for name in names}
    for cell in metric.cells:
        by_arm.setdefault(cell.key.arm, []).append(cell)
    values = {name: probe_values(cells) for name, cells in by_arm.items()}
    words = {name: _words(cells) for name, cells in by_arm.items()}
    lower = lower_is_better(comparison, metric)
    deltas = [row.delta.difference for row in rows if row.delta and row.arm not in withheld]
    scales = _scale([row.mean for row in rows]), _scale(deltas, zero=True)
    codes = _codes(comparison, metric.name, baseline)
    changed = [name for name in names if baseline is not None and name != baseline and name not in withheld]
    return Board(
        metric=metric,
        unit=unit,
        arms=names,
        baseline=next((row.baseline for row in rows if row.baseline), None),
        threshold=threshold,
        rows=[_drawn(row, *scales, withheld.get(row.arm), lower, codes.get(row.arm)) for row in rows],
        means=_matrix(domain_means_of(info, names, metric.cells, metric.name)),
        changed_arms=changed,
        changes=_changes(contents, metric, unit, changed, baseline) if changed else [],
        spread=_spread(metric.name, unit, values, rows, sources_of(info)),
        length=_length(metric.name, unit, values, words),
        watermarks=metric_watermarks(contents, metric),
    )


def change_threshold(metric: Metric, threshold: float) -> float:
    """The difference above which a probe counts as changed: any at all where values are ranks, shares or yes and no."""
    return threshold if metric.kind == CONTINUOUS and not unit_of(metric).percent else 0.0


def lower_is_better(comparison: ComparisonView | None, metric: Metric) -> bool:
    """True when less of a metric is better, by what it is or because a comparison was told so."""
    told = comparison.of(metric.name) if comparison is not None else []
    return unit_of(metric).lower_is_better or any(effect.raw.get("lower_is_better") for effect in told)


def _ranked(rows: list[LeaderboardRow], unit: Unit) -> list[LeaderboardRow]:
    """Best first, as the rows come unless less is better; arms without a value stay last."""
    if not unit.lower_is_better:
        return rows
    return sorted(rows, key=lambda row: math.inf if math.isnan(row.mean.value) else row.mean.value)


def withheld_arms(
    comparison: ComparisonView | None, metric: str, names: Sequence[str], baseline: str | None
) -> dict[str, str]:
    """Arm -> why its numbers against the baseline are not shown."""
    if comparison is None or baseline is None:
        return {}
    why = {name: comparison.refused(metric, name, baseline) for name in names}
    return {name: sentence for name, sentence in why.items() if sentence is not None}


def _codes(comparison: ComparisonView | None, metric: str, baseline: str | None) -> dict[str, str]:
    """Treatment -> code of its verdict against the baseline."""
    effects = comparison.of(metric) if comparison else []
    return {effect.treatment: effect.code for effect in effects if effect.baseline == baseline}


def _drawn(
    row: LeaderboardRow,
    means: tuple[float, float],
    deltas: tuple[float, float],
    withheld: str | None,
    lower: bool,
    code: str | None,
) -> dict[str, Any]:
    delta = row.delta if withheld is None else None
    difference = delta.difference if delta else None
    up_down = (delta.improved, delta.regressed) if delta else (0, 0)
    return {
        "row": row,
        "delta": delta,
        "up": up_down[lower],
        "down": up_down[not lower],
        "difference": difference,
        "direction": _direction(difference, lower, code),
        "withheld": withheld,
        "mean_bar": _bar(row.mean, means),
        "delta_bar": _bar(difference, deltas) if difference else None,
    }


def _direction(difference: Estimate | None, lower: bool, code: str | None) -> str:
    """better or worse by the verdict of the comparison if there is one, else by the interval alone; "" for neither."""
    if difference is None:
        return ""
    if code is not None:
        return {"improved": "better", "worse": "worse"}.get(code, "")
    return ("better" if (difference.value > 0) != lower else "worse") if difference.excludes(0.0) else ""


def _scale(estimates: Sequence[Estimate], *, zero: bool = False) -> tuple[float, float]:
    """The smallest range that holds all limits and values (and zero), a little widened; never empty."""
    points = [p for e in estimates for p in (e.value, e.low, e.high) if not math.isnan(p)]
    points += [0.0] if zero or not points else []
    low, high = min(points), max(points)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _bar(estimate: Estimate, scale: tuple[float, float]) -> dict[str, float] | None:
    """Positions on the scale in percent; None when there is no value to draw."""
    if math.isnan(estimate.value):
        return None
    low, high = scale

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    ends = (estimate.value, estimate.value) if math.isnan(estimate.low) else (estimate.low, estimate.high)
    return {"mid": place(estimate.value), "low": place(ends[0]), "high": place(ends[1]), "zero": place(0.0)}


def _matrix(means: Sequence[DomainMean]) -> list[tuple[str, list[tuple[DomainMean, float]]]]:
    """Rows of the heat map of means: domain, then each arm's mean with its tint in 0 .. 1 over the whole table."""
    values = [mean.mean.value for mean in means if not math.isnan(mean.mean.value)]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    table: dict[str, list[tuple[DomainMean, float]]] = {}
    for mean in means:
        value = mean.mean.value
        tint = 0.0 if math.isnan(value) or high == low else (value - low) / (high - low)
        table.setdefault(mean.domain, []).append((mean, round(tint, 3)))
    return list(table.items())


def _changes(
    contents: RunContents, metric: Metric, unit: Unit, arms: Sequence[str], baseline: str | None
) -> list[tuple[str, list[tuple[Estimate, float]]]]:
    """Rows of the heat map of changes: domain, then each arm's paired difference, tinted in -1 .. 1 around zero."""
    domains, sources = domains_of(contents.info), sources_of(contents.info)
    asked = {cell.key.probe_id for cell in metric.cells}
    values = {arm: probe_values([cell for cell in metric.cells if cell.key.arm == arm]) for arm in (*arms, baseline)}
    of_domain: dict[str, set[str]] = {}
    for probe, domain in domains.items():
        if probe in asked:
            of_domain.setdefault(domain, set()).add(probe)
    found: dict[str, list[Estimate]] = {}
    for domain, probes in of_domain.items():
        inside = {
            arm: {probe: value for probe, value in of_arm.items() if probe in probes} for arm, of_arm in values.items()
        }
        found[domain] = [
            with_width(unit.differing(paired_difference(inside[arm], inside[baseline], sources=sources).difference))
            for arm in arms
        ]
    most = max((abs(e.value) for row in found.values() for e in row if not math.isnan(e.value)), default=0.0)
    return [
        (domain, [(e, 0.0 if math.isnan(e.value) or not most else round(e.value / most, 3)) for e in row])
        for domain, row in found.items()
    ]


def _words(cells: Sequence[Cell]) -> dict[str, float]:
    """Words per probe, over the answers that have a value, so that both axes of a point are of the same answers."""
    return per_probe(
        (cell.key.probe_id, float(len((cell.record.response or "").split())))
        for cell in cells
        if cell.record is not None and cell.value is not None and not is_measured(cell.record)
    )


def _spread(
    metric: str,
    unit: Unit,
    values: Mapping[str, Mapping[str, float]],
    rows: Sequence[LeaderboardRow],
    sources: Mapping[str, str],
) -> Markup | None:
    drawn = {arm: [unit.factor * v for v in per_source(of_arm, sources).values()] for arm, of_arm in values.items()}
    figure = spread_figure(unit.label(metric), drawn, {row.arm: unit.scaled(row.mean) for row in rows})
    return inline_svg(figure, f"Spread of {metric} per arm, with means and their intervals") if figure else None


def _length(
    metric: str,
    unit: Unit,
    values: Mapping[str, Mapping[str, float]],
    words: Mapping[str, Mapping[str, float]],
) -> Markup | None:
    points = {
        arm: [(words[arm][probe], unit.factor * value) for probe, value in found.items() if probe in words[arm]]
        for arm, found in values.items()
    }
    figure = length_figure(unit.label(metric), points)
    return inline_svg(figure, f"{metric} against the length of the answer, a panel per arm") if figure else None
