"""Training curves: `loss.png` in the adapter directory, and the small drawing that the report page embeds.

One figure, its panels above each other over the same iterations: loss (always), learning rate, mean scores of the
evaluation probes with their intervals, degenerate share and length of the answers (each when the metrics hold it).
Kinds differ by colour, marker and line style.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lem.reports.drawing import BLUE, GREEN, INK, QUIET, VERMILION, save_png, tidy
from lem.reports.training_log import (
    Row,
    TrainingLog,
    TrainingSummary,
    read_training,
    summarise,
    training_summary,
    value_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["TrainingSummary", "draw_training", "summarise", "training_figure", "training_summary"]

CURVE_NAME = "loss.png"
LOSS_UNIT = "nats per reply token"
SMOOTHED_REPORTS = 5
_EVENT_NAMES = {"skipped": "skipped step", "rolled-back": "roll-back", "stopped-early": "early stop"}
_EVENT_STYLES: dict[str, Literal[":", "--", "-"]] = {"skipped": ":", "rolled-back": "--", "stopped-early": "-"}
_LOG_FROM_RATIO = 10.0
_MARKED_UP_TO = 40


def draw_training(adapter_dir: Path, output: Path | None = None) -> Path:
    """Draw the training of an adapter directory as a PNG (`output`, else its `loss.png`) and return where it is.

    The picture is 1600 pixels wide and legible at 800. The file is replaced in one step.
    Raises: UserError if there are no metrics or the file cannot be written; DataError for an unreadable row.
    """
    target = output if output is not None else adapter_dir / CURVE_NAME
    return save_png(training_figure(read_training(adapter_dir)), target)


def training_figure(log: TrainingLog, *, compact: bool = False) -> Figure:
    """The figure of a training; `compact` is narrow, without title and learning rate, for the page.

    Panels are found by label: `loss`, `rate`, `scores`, `degenerate` (with `words` on its right axis).
    """
    from matplotlib.figure import Figure

    panels = {"loss": 2.4 if compact else 3.2}
    if not compact and _holds(log.train, "learning_rate"):
        panels["rate"] = 1.1
    if _holds(log.probes, "v2") or _holds(log.probes, "v3"):
        panels["scores"] = 1.8 if compact else 2.1
    if _holds(log.probes, "degenerate") or _holds(log.probes, "words"):
        panels["degenerate"] = 1.3 if compact else 1.5
    heights = list(panels.values())
    # A fixed allowance for the title and the axis label keeps the panels of different pictures alike.
    size = (4.6, sum(heights) + 0.5) if compact else (8.0, sum(heights) + 1.1)
    figure = Figure(figsize=size, dpi=200, layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    draw = {"loss": _draw_loss, "rate": _draw_rate, "scores": _draw_scores, "degenerate": _draw_answers}
    for name, axes in zip(panels, grid, strict=True):
        axes.set_label(name)
        tidy(axes)
        draw[name](axes, log)
    _iterations(grid[-1], log)
    if not compact:
        name = textwrap.shorten(log.name, 70, placeholder="...") or "adapter"
        sources = "\n".join(textwrap.wrap(log.sources, 110)[:2])
        texts = [figure.suptitle(f"Training of {name}", x=0.01, ha="left", fontsize=12, color=INK)]
        texts.append(figure.supxlabel(sources, x=0.01, ha="left", fontsize=8.5, color=QUIET))
        for text in texts:
            text.set_parse_math(False)  # a name may hold a dollar sign
    return figure


def _iterations(axes: Axes, log: TrainingLog) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = {int(row["iteration"]) for rows in (log.train, log.valid, log.probes, log.events) for row in rows}
    if len(steps) == 1:
        axes.set_xlim(min(steps) - 1, max(steps) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("iteration (optimiser step)", color=QUIET, fontsize=8.5)


def _draw_loss(axes: Axes, log: TrainingLog) -> None:
    steps, losses = _series(log.train, "loss")
    if steps:
        few = len(steps) <= _MARKED_UP_TO
        axes.plot(steps, losses, color=BLUE, lw=0.9, marker="." if few else "", ms=4, label="training")
    if len(steps) >= 4 * SMOOTHED_REPORTS:
        label = f"training, mean of {SMOOTHED_REPORTS} reports"
        axes.plot(steps, smoothed(losses), color=BLUE, lw=2.2, alpha=0.45, label=label)
    valid_steps, valid_losses = _series(log.valid, "loss")
    if valid_steps:
        style = {"marker": "o", "ms": 5, "lw": 1.6, "zorder": 3}
        axes.plot(valid_steps, valid_losses, color=VERMILION, label="validation", **style)  # type: ignore[arg-type]
    shown = [loss for loss in losses + valid_losses if math.isfinite(loss)]
    logarithmic = bool(shown) and min(shown) > 0 and max(shown) / min(shown) >= _LOG_FROM_RATIO
    if logarithmic:
        _logarithmic(axes)
    axes.set_ylabel(f"loss ({LOSS_UNIT}{', log' if logarithmic else ''})", color=QUIET)
    _draw_events(axes, log.events)
    _legend(axes)


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_events(axes: Axes, events: Sequence[Row]) -> None:
    """Mark where steps were skipped (dotted), rolled back (dashed), stopped early (solid); the rest dash-dotted."""
    steps: dict[str, set[int]] = {}
    for row in events:
        kind = row.get("event")
        steps.setdefault(kind if kind in _EVENT_NAMES else "", set()).add(int(row["iteration"]))
    for kind, at in steps.items():
        where = f"({len(at)})" if len(at) > 1 else f"at {min(at)}"
        lines = axes.vlines(sorted(at), 0, 1, transform=axes.get_xaxis_transform(), colors=INK, lw=1.1)
        lines.set_linestyle(_EVENT_STYLES.get(kind, "-."))
        lines.set_label(f"{_EVENT_NAMES.get(kind, 'event')} {where}")


def _draw_rate(axes: Axes, log: TrainingLog) -> None:
    steps, rates = _series(log.train, "learning_rate")
    axes.plot(steps, rates, color=GREEN, lw=1.4, marker="." if len(steps) <= _MARKED_UP_TO else "", ms=4)
    axes.set_ylim(0, 1.15 * max(rate for rate in rates if math.isfinite(rate)) or 1.0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    axes.yaxis.get_offset_text().set(size=8, color=QUIET)
    axes.set_ylabel("learning\nrate", color=QUIET)


def _draw_scores(axes: Axes, log: TrainingLog) -> None:
    for scorer, colour, marker in (("v2", BLUE, "o"), ("v3", VERMILION, "s")):
        steps, means = _series(log.probes, scorer)
        if not steps:
            continue
        axes.plot(steps, means, color=colour, marker=marker, ms=5, lw=1.4, label=scorer)
        low, high = ([value_of(row, f"{scorer}_{end}") for row in log.probes] for end in ("low", "high"))
        axes.vlines([row["iteration"] for row in log.probes], low, high, colors=colour, lw=3, alpha=0.35)
    axes.set_ylabel("mean score\n(points, 95% interval)", color=QUIET)
    _legend(axes)


def _draw_answers(axes: Axes, log: TrainingLog) -> None:
    from matplotlib.ticker import PercentFormatter

    steps, shares = _series(log.probes, "degenerate")
    axes.plot(steps, shares, color=VERMILION, marker="v", ms=5, lw=1.4)
    axes.set_ylim(-0.04, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("degenerate\n(% of answers)", color=VERMILION)
    right = axes.twinx()
    right.set_label("words")
    tidy(right)
    right.grid(visible=False)
    steps, words = _series(log.probes, "words")
    right.plot(steps, words, color=BLUE, marker="D", ms=4, lw=1.4, ls="--")
    right.set_ylim(0, 1.15 * max((n for n in words if math.isfinite(n)), default=1.0) or 1.0)
    right.set_ylabel("length (words\nan answer, dashed)", color=BLUE)


def smoothed(values: Sequence[float], width: int = SMOOTHED_REPORTS) -> list[float]:
    """Mean of the `width` values around each one, of fewer, as many on either side, at the ends."""
    half, last, means = width // 2, len(values) - 1, []
    for index in range(len(values)):
        reach = min(half, index, last - index)
        around = values[index - reach : index + reach + 1]
        means.append(sum(around) / len(around))
    return means


def _series(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
    """Iterations and values of the rows that have the key; a value that is no number is a gap (NaN) in the line."""
    held = [row for row in rows if name in row]
    return [int(row["iteration"]) for row in held], [value_of(row, name) for row in held]


def _holds(rows: Sequence[Row], name: str) -> bool:
    return any(math.isfinite(value_of(row, name)) for row in rows)


def _legend(axes: Axes) -> None:
    """Above the panel, where it covers no line."""
    if axes.get_legend_handles_labels()[0]:
        columns = 3 if axes.get_figure().get_figwidth() > 6 else 2  # type: ignore[union-attr]
        axes.legend(
            frameon=False, fontsize=8.5, labelcolor=INK, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1),
            borderaxespad=0.2, columnspacing=1.2, handlelength=1.8,
        )  # fmt: skip
