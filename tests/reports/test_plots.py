"""The drawings hold the numbers they were given, at the places where they belong."""

from __future__ import annotations

import dataclasses
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats as sps
from small_comparison import make_comparison
from small_run import SmallRun

from lem.reports.comparison_file import Effect, estimate_of
from lem.reports.drawing import BLUE, GREEN, VERMILION
from lem.reports.plots_forest import forest_figure
from lem.reports.plots_length import MOST_POINTS, change_figure, length_figure, rank_correlation
from lem.reports.plots_spread import bin_edges, spread_figure
from lem.reports.svg import inline_svg
from lem.stats import headline


def effects(run: SmallRun, **options: object) -> list[Effect]:
    document = make_comparison(run.path, **options)  # type: ignore[arg-type]
    found = []
    for raw in document["contrasts"]:
        difference = estimate_of(raw["difference"])
        assert difference
        found.append(
            Effect(
                raw["metric"],
                raw["treatment"],
                "base",
                raw["family"],
                raw["verdict"]["code"],
                raw["verdict"]["sentence"],
                raw["n"],
                difference,
                raw,
            )
        )
    return [effect for effect in found if effect.metric == "v2"]


def panel(figure: Figure, label: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_label() == label)


def dots(axes: Axes) -> list[tuple[float, str, str]]:
    """x, marker and colour of every single mark."""
    lines = [line for line in axes.get_lines() if line.get_marker() not in ("None", "", None)]
    return [(float(line.get_xdata()[0]), str(line.get_marker()), to_hex(line.get_color())) for line in lines]  # type: ignore[index, arg-type]


def test_forest_places_each_effect_with_its_interval(run: SmallRun) -> None:
    found = effects(run, refused=None, codes={"json": "improved", "trained": "worse"})
    axes = panel(forest_figure("v2", found), "forest")
    assert dots(axes) == [(found[0].difference.value, "o", GREEN), (found[1].difference.value, "o", VERMILION)]
    spans = [segment[:, 0].tolist() for lines in axes.collections for segment in lines.get_segments()]  # type: ignore[attr-defined]
    assert spans == [[effect.difference.low, effect.difference.high] for effect in found]
    margins = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"]  # type: ignore[index]
    assert sorted(margins) == [-1.0, 1.0]


def test_forest_marks_exploratory_effects_and_puts_them_last(run: SmallRun) -> None:
    first, second = effects(run, refused=None)
    axes = panel(forest_figure("v2", [dataclasses.replace(first, family="exploratory"), second]), "forest")
    assert [(marker, colour) for _, marker, colour in dots(axes)] == [("o", BLUE), ("s", BLUE)]
    labels = [text.get_text() for text in axes.texts]
    assert labels.index("trained against base") < labels.index("json against base")


def test_forest_draws_nothing_of_what_is_withheld(run: SmallRun) -> None:
    found = effects(run, refused="trained")
    axes = panel(forest_figure("v2", found), "forest")
    assert len(dots(axes)) == 1
    texts = [text.get_text() for text in axes.texts]
    assert texts[texts.index("trained against base") + 1] == "withheld"
    everything = forest_figure("v2", [effect for effect in found if effect.refused])
    assert dots(panel(everything, "forest")) == []
    assert "withheld" in inline_svg(everything, "x")


def test_spread_counts_every_value_once() -> None:
    rng = np.random.default_rng(5)
    values = {"base": rng.normal(3, 1, 80).tolist(), "json": rng.normal(4, 1, 50).tolist()}
    figure = spread_figure("v2", values, {name: headline(found) for name, found in values.items()})
    assert figure
    axes = panel(figure, "spread")
    assert [x for x, *_ in dots(axes)] == [headline(found).value for found in values.values()]
    edges = bin_edges(np.concatenate([values["base"], values["json"]]))
    for name, patch in zip(values, [patch for patch in axes.patches if patch.get_fill()], strict=True):
        heights = np.asarray(patch.get_data().values) - patch.get_data().baseline  # type: ignore[attr-defined]
        assert heights / heights.sum() == pytest.approx(np.histogram(values[name], edges)[0] / len(values[name]))


@pytest.mark.parametrize(
    ("values", "edges"),
    [([1, 2, 2, 5], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]), ([0.0, 0.5], [-0.25, 0.25, 0.75]), ([7.0, 7.0], [6.5, 7.5])],
)
def test_ratings_have_a_bin_each(values: list[float], edges: list[float]) -> None:
    assert bin_edges(np.asarray(values, float)).tolist() == pytest.approx(edges)


def test_length_panels_hold_every_point() -> None:
    points = {"base": [(10.0, 1.0), (20.0, 3.0), (30.0, 2.0)], "json": [(15.0, 2.0)], "failed": []}
    figure = length_figure("v2", points)
    assert figure
    assert {axes.get_label() for axes in figure.axes} >= {"base", "json"}
    assert "failed" not in {axes.get_label() for axes in figure.axes}
    (line,) = panel(figure, "base").get_lines()
    data = np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])[::3]
    assert [tuple(row) for row in data] == points["base"]
    svg = ET.fromstring(inline_svg(figure, "x"))
    strokes = [e.attrib["d"] for e in svg.iter("path") if "stroke-linecap: round" in e.attrib.get("style", "")]
    assert sorted(d.count("M") for d in strokes) == [1, 3]
    for d in strokes:  # a stroke of no length at all is not drawn by every browser
        starts, ends = re.findall(r"M ([\d.]+)", d), re.findall(r"L ([\d.]+)", d)
        assert all(float(end) > float(start) for start, end in zip(starts, ends, strict=True))


def test_many_points_become_groups_of_bounded_size() -> None:
    rng = np.random.default_rng(6)
    words = rng.uniform(20, 400, 20 * MOST_POINTS)
    scores = words / 100 + rng.normal(0, 1, len(words))
    figure = length_figure("v2", {"base": list(zip(words.tolist(), scores.tolist(), strict=True))})
    assert figure
    assert len(inline_svg(figure, "x")) < 20_000
    title = panel(figure, "base").get_title(loc="left")
    assert title == f"base  rho {sps.spearmanr(words, scores).statistic:+.2f}"


def test_the_line_of_change_crosses_zero_at_the_controlled_effect() -> None:
    figure = change_figure("v2", [(-10.0, 0.0), (10.0, 2.0), (20.0, 3.0)], 1.0, 0.1)
    assert figure
    axes = panel(figure, "change")
    line = next(line for line in axes.get_lines() if to_hex(line.get_color()) == VERMILION)  # type: ignore[arg-type]
    assert np.interp(0, np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)) == pytest.approx(1.0)


def test_little_is_drawn_and_nothing_is_not() -> None:
    assert spread_figure("v2", {"base": []}, {}) is None
    assert length_figure("v2", {}) is None
    assert change_figure("v2", [], 0.0, 0.0) is None
    assert math.isnan(rank_correlation(np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]])))
    for figure in (
        spread_figure("a $ name", {"b $x$": [1.0]}, {"b $x$": headline([1.0])}),
        length_figure("a $ name", {"b $x$": [(3.0, 1.0)]}),
        change_figure("a $ name", [(3.0, 1.0)], math.nan, math.nan),
    ):
        assert figure
        assert "$ name" in inline_svg(figure, "x")
