"""The page's figure of the three axes: one drawing for wide pages and one for narrow ones, of the same readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lem.records import Metric, RunContents
from lem.reports.axes import MeasuredAxis, measured_axes
from lem.reports.plots_axes import axes_figure
from lem.reports.svg import inline_svg
from lem.reports.watermarks import sentences_of


@dataclass(frozen=True)
class DrawnAxes:
    """The figure in both shapes, and what must be said above it."""

    wide: Markup
    narrow: Markup
    watermarks: list[str]


def drawn_axes(contents: RunContents, metrics: Sequence[Metric]) -> DrawnAxes | None:
    """The figure of a run; None when no axis has a value."""
    axes = measured_axes(contents, metrics)
    if not axes:
        return None
    label = "Safety, over-refusal and capability: " + "; ".join(map(_told, axes))
    wide, narrow = (axes_figure(axes, columns=columns) for columns in (True, False))
    marks = [mark for axis in axes for reading in axis.readings for mark in reading.watermarks]
    return DrawnAxes(inline_svg(wide, label), inline_svg(narrow, label + " (narrow)"), sentences_of(marks))


def _told(axis: MeasuredAxis) -> str:
    """An axis in words, for those who cannot see it."""
    if not axis.readings:
        return f"{axis.axis.name} not measured"
    parts = []
    for reading in axis.readings:
        judged = f" by {reading.judge}" if reading.judge else ""
        means = ", ".join(f"{arm} {reading.unit.shown(mean.value)}" for arm, mean in reading.means.items())
        parts.append(f"{reading.label}{judged}, {reading.unit.name}: {means}")
    return f"{axis.axis.name} ({axis.axis.better}) {'; '.join(parts)}"
