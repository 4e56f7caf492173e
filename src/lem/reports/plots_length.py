"""Length against score: one panel per arm, so that a reader sees whether longer answers score higher.

Up to `MOST_POINTS` probes an arm are drawn as points; beyond that the quartiles of twenty groups of like length are,
so that the size of the drawing does not depend on the number of probes. The rank correlation stands above each panel.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lem.reports.drawing import BLUE, INK, QUIET, RULE, VERMILION, tidy
from lem.reports.formats import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
MOST_POINTS = 400
N_GROUPS = 20
COLUMNS = 2
WIDTH = 4.6


def length_figure(metric: str, points: Mapping[str, Points]) -> Figure | None:
    """Draw (words, score) per probe, one panel per arm on common axes; None when no arm has a point."""
    from matplotlib.figure import Figure

    shown = {arm: np.asarray(found, dtype=np.float64) for arm, found in points.items() if len(found)}
    if not shown:
        return None
    span = _span(np.concatenate(list(shown.values())))
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * rows), dpi=200, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, (arm, found) in zip(grid.flat, shown.items(), strict=False):
        axes.set_label(arm)
        tidy(axes)
        _draw(axes, found, span)
        title = f"{textwrap.shorten(arm, 22, placeholder='...')}  rho {number(rank_correlation(found), signed=True)}"
        axes.set_title(title, loc="left", fontsize=8.5, color=INK, parse_math=False)
    if len(shown) > columns and len(shown) % columns:
        grid[-2, -1].tick_params(labelbottom=True)
    figure.supxlabel("words in the answer", fontsize=8.5, color=QUIET)
    figure.supylabel(textwrap.shorten(metric, 40), fontsize=8.5, color=QUIET).set_parse_math(False)
    return figure


def change_figure(metric: str, points: Points, intercept: float, slope: float) -> Figure | None:
    """Draw the change in score against the change in length per probe, with the line of the length-controlled effect.

    `intercept` is that effect: the line's height where the length did not change. None without points.
    """
    from matplotlib.figure import Figure

    found = np.asarray(points, dtype=np.float64)
    if not len(found):
        return None
    figure = Figure(figsize=(WIDTH, 2.7), dpi=200, layout="constrained")
    axes = figure.subplots()
    axes.set_label("change")
    tidy(axes)
    for draw in (axes.axhline, axes.axvline):
        draw(0, color=QUIET, lw=1, ls="--", zorder=1)
    _draw(axes, found, _span(found))
    if math.isfinite(intercept) and math.isfinite(slope):
        ends = np.array([found[:, 0].min(), found[:, 0].max()])
        axes.plot(ends, intercept + slope * ends, color=VERMILION, lw=1.6)
        axes.plot([0], [intercept], ls="", marker="D", ms=6, color=VERMILION)
    axes.set_xlabel("change in words", color=QUIET, fontsize=8.5)
    axes.set_ylabel(f"change in {textwrap.shorten(metric, 30)}", color=QUIET, fontsize=8.5, parse_math=False)
    return figure


def rank_correlation(points: NDArray[np.float64]) -> float:
    """Spearman's rank correlation of the two columns; NaN when one of them does not vary."""
    from scipy import stats

    if len(points) < 3 or np.ptp(points[:, 0]) == 0 or np.ptp(points[:, 1]) == 0:
        return math.nan
    return float(stats.spearmanr(points[:, 0], points[:, 1]).statistic)


def _span(points: NDArray[np.float64]) -> float:
    """Width of what is drawn, never 0."""
    return float(np.ptp(points[:, 0])) or 0.1 * abs(float(points[0, 0])) or 1.0


def _draw(axes: Axes, points: NDArray[np.float64], span: float) -> None:
    if len(points) > MOST_POINTS:
        _draw_groups(axes, points)
        return
    # Dots as one path of very short strokes: a seventh of the size of as many marks.
    gaps, short = np.full(len(points), np.nan), 0.001 * span
    x = np.stack([points[:, 0], points[:, 0] + short, gaps], axis=1).ravel()
    y = np.stack([points[:, 1], points[:, 1], gaps], axis=1).ravel()
    axes.plot(x, y, color=BLUE, lw=4, alpha=0.5, solid_capstyle="round")


def _draw_groups(axes: Axes, points: NDArray[np.float64]) -> None:
    """Quartiles of the scores in groups of like length."""
    ordered = points[np.argsort(points[:, 0], kind="stable")]
    groups = [group for group in np.array_split(ordered, N_GROUPS) if len(group)]
    at = [float(np.median(group[:, 0])) for group in groups]
    low, middle, high = (np.array([np.percentile(group[:, 1], q) for group in groups]) for q in (25, 50, 75))
    axes.fill_between(at, low, high, color=BLUE, alpha=0.25, lw=0)
    axes.plot(at, middle, color=BLUE, lw=1.8)
    axes.plot(at, middle, ls="", marker="o", ms=3, color=BLUE, markeredgecolor=RULE, mew=0)
