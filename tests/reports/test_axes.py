"""Three axes in one figure: what feeds each, against means over the stored rows, and never one axis alone."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from small_evaluation import ARMS, KIND, STRICT, evaluation, manifest

from lem.judges.panel import panel_judgements
from lem.records import Judgement, RunContents, Score, metrics_of
from lem.reports.axes import AXES, MeasuredAxis, measured_axes
from lem.reports.benchmark_table import benchmark_markdown, benchmark_table, title
from lem.reports.page_axes import drawn_axes
from lem.reports.plots_axes import axes_figure
from made_runs import judged, made_run

NAMES = ["Safety", "Over-refusal", "Capability"]


@pytest.fixture(scope="module")
def contents() -> RunContents:
    return dataclasses.replace(evaluation(), judges={KIND: manifest(KIND, kin=("base",))})


def axes_of(contents: RunContents) -> dict[str, MeasuredAxis]:
    return {axis.axis.name: axis for axis in measured_axes(contents, metrics_of(contents))}


def mean_of(rows: list[Score] | list[Judgement], arm: str) -> float:
    values = [float(row.value) for row in rows if row.arm == arm and row.value is not None]
    return float(np.mean(values))


def words_of(contents: RunContents) -> str:
    drawn = drawn_axes(contents, metrics_of(contents))
    assert drawn is not None
    return " ".join(re.sub(r"<[^>]+>", " ", drawn.wide).split())


def test_each_axis_is_fed_by_its_measures(contents: RunContents) -> None:
    axes = axes_of(contents)
    assert list(axes) == NAMES
    safety, over, able = (axes[name].readings for name in NAMES)
    assert [reading.judge for reading in safety] == [STRICT, KIND, ""]
    for reading, judge in zip(safety, (STRICT, KIND), strict=False):
        rated = [one for one in contents.judgements if one.judge == judge and one.dimension == "safety"]
        assert {arm: mean.value for arm, mean in reading.means.items()} == pytest.approx(
            {arm: mean_of(rated, arm) for arm in ARMS}
        )
    for reading, scorer in zip((*over, *able), ("over_refusal", "gsm8k_flexible", "truthfulqa_mc1"), strict=True):
        assert {arm: mean.value for arm, mean in reading.means.items()} == pytest.approx(
            {arm: mean_of(contents.scores[scorer], arm) for arm in ARMS}
        )


def test_what_a_panel_says_is_in_standard_deviations_in_table_and_figures(contents: RunContents) -> None:
    several = dataclasses.replace(contents, judgements=[*contents.judgements, *panel_judgements(contents)])
    rows = [row for row in benchmark_table(several) if row.source == "panel" and row.metric.startswith("safety")]
    assert "standard deviations, judge panel" in title(rows[0])
    assert {title(row).count("1-10") for row in rows} == {0}
    assert rows[0].unit.label("safety") == "safety, standard deviations"
    assert "| standard deviations | panel |" in benchmark_markdown(rows)
    (caption,) = [
        axes.get_xlabel()
        for axes in axes_figure(measured_axes(several, metrics_of(several)), columns=1).axes
        if "judge panel" in " ".join(axes.get_xlabel().split())
    ]
    assert "standard deviations" in " ".join(caption.split())


def test_only_full_refusals_of_unsafe_prompts_count() -> None:
    run = made_run({"a": [1, 0.5, 0.5, 0]}, scorer="unsafe_refusal")
    (reading,) = axes_of(run)["Safety"].readings
    assert reading.means["a"].value == 0.25
    (over,) = axes_of(made_run({"a": [1, 0.5, 0.5, 0]}, scorer="over_refusal"))["Over-refusal"].readings
    assert over.means["a"].value == 0.5


def test_safety_is_rated_on_do_not_answer_alone() -> None:
    run = judged(made_run({"a": [1, 1, 1, 1]}, scorer="v3"), "safety", {"a": [2, 4, 9, 9]})
    assert axes_of(run) == {}
    benchmarks = ["do_not_answer", "do_not_answer", "ethics", "ethics"]
    probes = [{**probe, "benchmark": name} for probe, name in zip(run.info.probes, benchmarks, strict=True)]
    run = dataclasses.replace(run, info=dataclasses.replace(run.info, probes=probes))
    (reading,) = axes_of(run)["Safety"].readings
    assert reading.means["a"].value == 3


@pytest.mark.parametrize("scorer", ["gsm8k_flexible", "gsm8k", "over_refusal", "unsafe_refusal"])
@pytest.mark.parametrize("columns", [True, False])
def test_one_measured_axis_brings_the_others_empty(scorer: str, columns: bool) -> None:
    run = made_run({"base": [1, 0, 1], "trained": [1, 1, 0]}, scorer=scorer)
    axes = measured_axes(run, metrics_of(run))
    assert [axis.axis.name for axis in axes] == NAMES
    assert sum(bool(axis.readings) for axis in axes) == 1
    figure = axes_figure(axes, columns=columns)
    assert [strip.get_label() for strip in figure.axes] == NAMES
    for strip, axis in zip(figure.axes, axes, strict=True):
        text = " ".join(" ".join(found.get_text() for found in strip.texts).split())
        assert text == f"not measured: {axis.axis.command}" or axis.readings


def test_points_intervals_and_whole_scales_are_drawn(contents: RunContents) -> None:
    axes = measured_axes(contents, metrics_of(contents))
    figure = axes_figure(axes, columns=True)
    readings = [reading for axis in axes for reading in axis.readings]
    assert len(figure.axes) == len(readings) == 6
    for strip, reading in zip(figure.axes, readings, strict=True):
        percent = reading.unit.percent
        assert strip.get_xlim() == ((0, 100) if percent else (1, 10))
        factor = 100 if percent else 1
        drawn = [float(np.asarray(line.get_xdata())[0]) for line in strip.lines]
        assert drawn == pytest.approx([factor * mean.value for mean in reading.means.values()])
        spans = [segment[:, 0] for lines in strip.collections for segment in lines.get_segments()]
        wanted = [(factor * m.low, factor * m.high) for m in reading.means.values() if not math.isnan(m.low)]
        assert np.asarray(spans) == pytest.approx(np.asarray(wanted))
        assert strip.get_xlim()[0] <= np.min(spans)
        assert np.max(spans) <= strip.get_xlim()[1]


def test_the_figure_says_which_way_is_better_and_who_judged(contents: RunContents) -> None:
    text = words_of(contents)
    assert "Over-refusal: LESS is better" in text
    assert f"judge {STRICT}" in text
    assert f"judge {KIND} (SELF-JUDGED)" in text
    assert f"judge {STRICT} (" not in text
    drawn = drawn_axes(contents, metrics_of(contents))
    assert drawn is not None
    assert drawn.watermarks == [
        f"SELF-JUDGED: the judge {KIND} is of one lineage with arm base; do not rank arms by its verdicts."
    ]


def test_both_shapes_say_the_same_in_the_colours_of_the_page(contents: RunContents) -> None:
    drawn = drawn_axes(contents, metrics_of(contents))
    assert drawn is not None
    for svg in (drawn.wide, drawn.narrow):
        assert "#" not in re.sub(r'(href|xlink:href)="#[^"]*"|url\(#[^)]*\)', "", svg)
        assert "var(--blue)" in svg
    texts = [sorted(re.findall(r">([^<>]+)</text>", svg)) for svg in (drawn.wide, drawn.narrow)]
    assert texts[0] == texts[1]


def test_a_run_without_any_axis_has_no_figure() -> None:
    run = made_run({"a": [1.5, 2.5]})
    assert measured_axes(run, metrics_of(run)) == ()
    assert drawn_axes(run, metrics_of(run)) is None


def test_every_axis_says_how_to_measure_it() -> None:
    assert [axis.name for axis in AXES] == NAMES
    assert all(axis.command.startswith("./lem eval ") for axis in AXES)
