"""The forest plot of one metric: the effect of each contrast with its interval, primary ones before exploratory ones.

Filled circles are primary, open squares exploratory; green and red are verdicts (better, worse), blue is neither. A
contrast whose verdict is withheld has its name and no mark.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lem.reports.comparison_file import Effect
from lem.reports.drawing import BLUE, GREEN, INK, QUIET, VERMILION, row_text, tidy_rows
from lem.reports.formats import interval, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.6
_COLOURS = {"improved": GREEN, "worse": VERMILION}


def forest_figure(metric: str, effects: Sequence[Effect]) -> Figure:
    """Draw the effects of one metric, one row each; the dashed line is no difference, dotted lines the margin."""
    from matplotlib.figure import Figure

    ordered = sorted(effects, key=lambda effect: not effect.primary)
    figure = Figure(figsize=(WIDTH, 0.75 + 0.46 * len(ordered)), dpi=200, layout="constrained")
    axes = figure.subplots()
    axes.set_label("forest")
    tidy_rows(axes)
    axes.axvline(0, color=QUIET, lw=1, ls="--", zorder=1)
    for place, effect in enumerate(ordered):
        _draw(axes, effect, -float(place))
    for margin in {effect.number("margin") for effect in ordered if not effect.refused} - {0.0}:
        if math.isfinite(margin):
            for at in (-margin, margin):
                axes.axvline(at, color=QUIET, lw=1, ls=":", zorder=1)
    axes.set_ylim(-len(ordered) + 0.45, 0.8)
    axes.margins(x=0.06)
    axes.set_xlabel(f"difference in {_plain(metric, 30)} (95% interval)", color=QUIET, fontsize=8.5, parse_math=False)
    return figure


def _draw(axes: Axes, effect: Effect, at: float) -> None:
    label = f"{_plain(effect.treatment, 24)} against {_plain(effect.baseline, 24)}"
    row_text(axes, at + 0.16, label, INK)
    estimate = effect.difference
    if effect.refused or math.isnan(estimate.value):
        row_text(axes, at + 0.16, "withheld" if effect.refused else "no value", QUIET, right=True)
        return
    colour = _COLOURS.get(effect.code, BLUE)
    figures = f"{number(estimate.value, signed=True)} {interval(estimate, signed=True)}"
    row_text(axes, at + 0.16, figures, colour, right=True)
    if not math.isnan(estimate.low):
        axes.hlines([at], [estimate.low], [estimate.high], colors=colour, lw=1.8)
    marker, face = ("o", colour) if effect.primary else ("s", "none")
    axes.plot([estimate.value], [at], ls="", marker=marker, ms=6, color=colour, markerfacecolor=face, mew=1.4)


def _plain(name: str, width: int) -> str:
    return textwrap.shorten(name, width, placeholder="...") or name[:width]
