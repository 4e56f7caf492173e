"""The figure of the three axes: one strip per measure, a row per arm, the whole scale always in view.

There is no way to draw one axis without the others; one that was not measured is an empty strip with the command that
would measure it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lem.reports.axes import MeasuredAxis, Reading
from lem.reports.drawing import BLUE, INK, QUIET, RULE, VERMILION, row_text, tidy_rows
from lem.reports.watermarks import words_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In inches: a column, the space beside its strips, an axis's title, a row, and what stands below a strip.
WIDTH, SIDE, TITLE, ROW, BELOW, EMPTY = 4.2, 0.17, 0.32, 0.42, 0.68, 0.9
_LINE = 44  # characters


def axes_figure(axes: Sequence[MeasuredAxis], *, columns: bool) -> Figure:
    """Draw all axes side by side (`columns`), or one below the other for a narrow page."""
    from matplotlib.figure import Figure

    heights = [_height(axis) for axis in axes]
    total = max(heights) if columns else sum(heights)
    n_columns = len(axes) if columns else 1
    figure = Figure(figsize=(WIDTH * n_columns, total), dpi=200)
    for number, axis in enumerate(axes):
        left = (WIDTH * number if columns else 0.0) + SIDE
        top = total - (0.0 if columns else sum(heights[:number]))
        _draw_axis(figure, axis, left, top)
    return figure


def _height(axis: MeasuredAxis) -> float:
    return TITLE + sum(ROW * len(reading.means) + BELOW for reading in axis.readings or ()) + (
        0.0 if axis.readings else EMPTY + SIDE
    )  # fmt: skip


def _draw_axis(figure: Figure, axis: MeasuredAxis, left: float, top: float) -> None:
    """Draw an axis with its upper left corner at a place in inches."""
    width, height = figure.get_size_inches()
    at = top - TITLE
    for number in range(max(1, len(axis.readings))):
        tall = ROW * len(axis.readings[number].means) if axis.readings else EMPTY
        box = (left / width, (at - tall) / height, (WIDTH - 2 * SIDE) / width, tall / height)
        strip = figure.add_axes(box, label=axis.axis.name)
        tidy_rows(strip)
        if number == 0:
            title = f"{axis.axis.name}: {axis.axis.better}"
            strip.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold", parse_math=False)
        if axis.readings:
            _draw(strip, axis.readings[number])
        else:
            _draw_empty(strip, axis)
        at -= tall + BELOW


def _draw(strip: Axes, reading: Reading) -> None:
    unit = reading.unit
    colour = VERMILION if reading.watermarks else BLUE
    for place, (arm, mean) in enumerate(reading.means.items()):
        at, shown = -float(place), unit.scaled(mean)
        row_text(strip, at + 0.16, textwrap.shorten(arm, 26, placeholder="...") or arm[:26], INK)
        row_text(strip, at + 0.16, f"{unit.shown(mean.value)} {unit.interval(mean)}", colour, right=True)
        if not math.isnan(shown.low):
            strip.hlines([at], [shown.low], [shown.high], colors=colour, lw=1.8)
        strip.plot([shown.value], [at], ls="", marker="o", ms=6, color=colour, clip_on=False)
    strip.set_ylim(-len(reading.means) + 0.6, 0.8)
    if unit.low is not None and unit.high is not None:
        strip.set_xlim(unit.low * unit.factor, unit.high * unit.factor)
    strip.set_xlabel(_caption(reading), color=QUIET, fontsize=8.5, parse_math=False)


def _caption(reading: Reading) -> str:
    parts = [reading.label, reading.unit.name, f"judge {reading.judge}" if reading.judge else ""]
    return textwrap.fill(", ".join(part for part in parts if part) + words_of(reading.watermarks), _LINE)


def _draw_empty(strip: Axes, axis: MeasuredAxis) -> None:
    strip.set(xlim=(0, 1), ylim=(0, 1), xticks=[])
    strip.spines[["left", "right", "top", "bottom"]].set_visible(True)
    strip.spines[["left", "right", "top", "bottom"]].set_color(RULE)
    command = textwrap.fill(axis.axis.command, _LINE, break_long_words=False, break_on_hyphens=False)
    strip.text(0.5, 0.5, f"not measured:\n{command}", color=QUIET, fontsize=8.5, ha="center", va="center")
