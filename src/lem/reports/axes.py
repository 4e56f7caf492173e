"""The three axes of a model that refuses: safety, over-refusal, capability. None of them says anything alone.

A model that refuses everything is safe, one that refuses nothing never refuses too much, and both can be made by
ruining its answers; so the three are read from one table and always shown together, with what is not measured empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lem.records import Cell, Metric, Outcome, RunContents
from lem.records.cells import arm_names, domains_of, sources_of
from lem.reports.leaderboard import arm_mean
from lem.reports.units import Unit, unit_of
from lem.reports.watermarks import Watermark, metric_watermarks
from lem.stats import Estimate

SCORER = "scorer"


@dataclass(frozen=True)
class Measure:
    """What can feed an axis: the first of `metrics` that a run has, on the probes of `benchmark` ("" for any).

    `judged` says whether the metrics are dimensions of judges or scorers. `full_only` counts nothing but the value 1.
    `label` is what the axis says of it.
    """

    metrics: tuple[str, ...]
    label: str
    benchmark: str = ""
    judged: bool = False
    full_only: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis: its measures side by side, and the command that would measure it."""

    name: str
    better: str
    measures: tuple[Measure, ...]
    command: str


AXES = (
    Axis(
        "Safety",
        "more is better",
        (
            Measure(("safety",), "safety of answers to harmful questions", "do_not_answer", judged=True),
            Measure(("unsafe_refusal",), "unsafe prompts fully refused", full_only=True),
        ),
        "./lem eval do_not_answer over_refusal --model M --judge SPEC",
    ),
    Axis(
        "Over-refusal",
        "LESS is better",
        (Measure(("over_refusal",), "safe prompts refused (partial: half)"),),
        "./lem eval over_refusal --model M",
    ),
    Axis(
        "Capability",
        "more is better",
        (
            Measure(("gsm8k_flexible", "gsm8k"), "GSM8K, right answers"),
            Measure(("truthfulqa_mc1",), "TruthfulQA MC1, true choice likeliest"),
        ),
        "./lem eval gsm8k truthfulqa_mc --model M",
    ),
)


@dataclass(frozen=True)
class Reading:
    """One measure of a run: `means` has the arms that have a value, in the order of the run."""

    label: str
    unit: Unit
    judge: str
    means: dict[str, Estimate]
    watermarks: tuple[Watermark, ...]


@dataclass(frozen=True)
class MeasuredAxis:
    """An axis with its readings; none where it was not measured."""

    axis: Axis
    readings: tuple[Reading, ...]


def measured_axes(contents: RunContents, metrics: Sequence[Metric]) -> tuple[MeasuredAxis, ...]:
    """All three axes of a run; () when none of them has a value."""
    axes = tuple(
        MeasuredAxis(axis, tuple(_readings(contents, metrics, axis))) for axis in AXES
    )  # fmt: skip
    return axes if any(axis.readings for axis in axes) else ()


def _readings(contents: RunContents, metrics: Sequence[Metric], axis: Axis) -> Iterator[Reading]:
    for measure in axis.measures:
        for metric in _feeding(metrics, measure):
            means = _means(contents, metric, measure)
            if means:
                judge = metric.source if measure.judged else ""
                yield Reading(measure.label, unit_of(metric), judge, means, metric_watermarks(contents, metric))


def _feeding(metrics: Sequence[Metric], measure: Measure) -> list[Metric]:
    """The metrics behind a measure: one for each judge, or the first scorer that the run has."""
    if measure.judged:
        names = [name for dimension in measure.metrics for name in (dimension, f"{dimension} · ")]
        return [
            metric for metric in metrics
            if metric.source != SCORER and (metric.name in names or metric.name == names[1] + metric.source)
        ]  # fmt: skip
    scorers = {metric.name: metric for metric in metrics if metric.source == SCORER}
    return [scorers[name] for name in measure.metrics if name in scorers][:1]


def _means(contents: RunContents, metric: Metric, measure: Measure) -> dict[str, Estimate]:
    benchmark = {probe["id"]: probe.get("benchmark", "") for probe in contents.info.probes}
    by_arm: dict[str, list[Cell]] = {name: [] for name in arm_names(contents.info, contents.records)}
    for cell in metric.cells:
        if not measure.benchmark or benchmark.get(cell.key.probe_id) == measure.benchmark:
            by_arm[cell.key.arm].append(_full(cell) if measure.full_only else cell)
    domains, sources = domains_of(contents.info), sources_of(contents.info)
    unit = unit_of(metric)
    found = {arm: arm_mean(cells, domains, sources, (unit.low, unit.high)) for arm, cells in by_arm.items()}
    return {arm: mean for arm, mean in found.items() if mean.n}


def _full(cell: Cell) -> Cell:
    if cell.outcome is not Outcome.SCORED or cell.score is None:
        return cell
    return replace(cell, score=replace(cell.score, value=float(cell.score.value == 1)))
