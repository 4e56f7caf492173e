"""The picture of a curriculum: mean v2 with its interval, attempt by attempt, with targets and decisions.

Filled circles are freeflow, open squares the sandwich; the line joins the attempts that were accepted. Matplotlib is
imported when something is drawn, and its global state (pyplot) is never used.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lem.reports.curriculum_table import CHOSEN_ON, CurriculumHead, CurriculumRow
from lem.reports.drawing import BLUE, GREEN, INK, QUIET, VERMILION, save_png, tidy
from lem.reports.formats import toy_notice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMS = {"freeflow": (BLUE, "o", BLUE, -0.12), "sandwich": (VERMILION, "s", "white", 0.12)}


def draw_curriculum(rows: Sequence[CurriculumRow], head: CurriculumHead, path: Path) -> None:
    """Draw the rows as a PNG, replacing the file in one step.   Raises: UserError if it cannot be written."""
    save_png(curriculum_figure(rows, head), path)


def curriculum_figure(rows: Sequence[CurriculumRow], head: CurriculumHead) -> Figure:
    """The figure: attempts from left to right in the order in which they were made, base first."""
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(row.label for row in rows))
    place = {label: float(index) for index, label in enumerate(labels)}
    width = max(6.4, 1.6 + 1.05 * len(labels))
    figure = Figure(figsize=(width, 4.8), dpi=200, layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    axes.margins(y=0.14)
    accepted = [row for row in rows if row.asked == "freeflow" and row.accepted]
    at = [place[row.label] + _FORMS["freeflow"][3] for row in accepted]
    axes.plot(at, [row.mean.value for row in accepted], color=BLUE, lw=1.2, alpha=0.5, zorder=1)
    for asked in _FORMS:
        _draw_means(axes, [row for row in rows if row.asked == asked], place, asked)
    _draw_targets(axes, [row for row in rows if row.target is not None], place)
    _draw_decisions(axes, rows, place)
    names = {row.label: row.name for row in rows}
    axes.set_xticks(range(len(labels)), [f"{label}\n{names[label]}" if names[label] else label for label in labels])
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_ylabel("mean v2 (points, 95% interval)", color=QUIET)
    title = f"Curriculum of {head.model}; {head.probes}"
    axes.set_title(title, loc="left", fontsize=8.5, color=QUIET, parse_math=False, pad=22)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False, fontsize=8.5)
    below = " ".join([*head.notes, toy_notice([head.model]) or CHOSEN_ON])
    axes.set_xlabel("\n".join(textwrap.wrap(below, int(15 * width))), color=QUIET, fontsize=8, loc="left")
    return figure


def _draw_means(axes: Axes, rows: Sequence[CurriculumRow], place: dict[str, float], asked: str) -> None:
    """Means with their intervals; attempts that were not accepted are pale."""
    colour, marker, face, shift = _FORMS[asked]
    for index, row in enumerate(rows):
        at, shade = place[row.label] + shift, 1.0 if row.accepted else 0.4
        axes.vlines([at], [row.mean.low], [row.mean.high], colors=colour, lw=1.6, alpha=shade, zorder=2)
        axes.plot(
            [at], [row.mean.value], ls="", marker=marker, ms=6, color=colour, markerfacecolor=face, alpha=shade,
            label=asked if index == 0 else None, zorder=3,
        )  # fmt: skip


def _draw_targets(axes: Axes, rows: Sequence[CurriculumRow], place: dict[str, float]) -> None:
    if rows:
        at = [place[row.label] for row in rows]
        axes.hlines(
            [float(row.target or 0) for row in rows], [x - 0.36 for x in at], [x + 0.36 for x in at],
            colors=INK, lw=1.4, ls="--", label="target",
        )  # fmt: skip


def _draw_decisions(axes: Axes, rows: Sequence[CurriculumRow], place: dict[str, float]) -> None:
    """What was decided after an attempt, above it."""
    for row in rows:
        if row.action:
            colour = GREEN if row.action in ("go on", "finished") else VERMILION
            axes.text(
                place[row.label], 1.01, row.action, transform=axes.get_xaxis_transform(), ha="center", va="bottom",
                fontsize=8.5, color=colour,
            )  # fmt: skip
