"""The live view of a training: two lines at the foot of the terminal, and a line above them for whatever happens.

    training ━━━━━━━━━━━━━━━━━━━━                  120/200  0:00:41 left  lr 1.0e-05
    loss 2.345  smoothed 2.401  valid 6.531 -> 2.910  1,234 tok/s  1.23 GB

It takes the rows of `metrics.jsonl`. Figures that do not fit the terminal are left out, the least important first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

Metric = dict[str, Any]
_NEWEST_WEIGHT = 0.2
_SHORTEST_BAR = 8
_REFRESH_PER_S = 4


@contextmanager
def training_view(
    total: int,
    description: str,
    *,
    completed: int = 0,
    first_valid: float | None = None,
    console: Console | None = None,
) -> Iterator[Callable[[Metric], None]]:
    """Show a training of `total` iterations, of which `completed` were done before, on standard error.

    A resumed training hands its first validation loss over in `first_valid`. When the console is no terminal nothing
    is shown.
    Yields: `on_metric`, to be called with every metrics row; a row `{"kind": "start", "iteration": done, "iterations":
    total}`, which no file holds, corrects where the training starts and ends once that is known.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    where = Console(stderr=True) if console is None else console
    view = TrainingView(total, description, completed, first_valid)
    if not where.is_terminal:
        yield view.take
        return
    with Live(view, console=where, refresh_per_second=_REFRESH_PER_S) as live:

        def on_metric(row: Metric) -> None:
            view.take(row)
            said = note_of(row)
            if said:
                # As Text: a style given to `print` would colour the view below it too.
                live.console.print(Text(said, "yellow" if row["kind"] == "event" else "dim"))

        yield on_metric


class TrainingView:
    """What the rows so far say, drawn by rich as one line of progress and one of figures.

    `smoothed` is the exponential mean of the reported training losses, the newest with weight 0.2, without the bias
    of its start.
    """

    def __init__(
        self,
        total: int,
        description: str,
        completed: int = 0,
        first_valid: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.description, self.iteration = total, description, completed
        self.latest: Metric = {}
        self.first_valid = self.last_valid = first_valid
        self.n_skipped = self.n_rolled_back = 0
        self._sum = self._weight = 0.0
        self._clock = clock
        self._began = (clock(), completed) if completed else None
        self._remaining_s: float | None = None
        self._estimated_at = clock()

    def take(self, row: Metric) -> None:
        """Take one row of the metrics into account."""
        kind = row["kind"]
        if kind == "start":
            self.total = row.get("iterations", self.total)
            self._began = None
        if kind in ("start", "train", "valid"):
            self._progress(row["iteration"])
        if kind == "train":
            self.latest = row
            if _is_number(row.get("loss")):
                self._sum += _NEWEST_WEIGHT * (row["loss"] - self._sum)
                self._weight += _NEWEST_WEIGHT * (1 - self._weight)
        elif kind == "valid" and _is_number(row.get("loss")):
            self.last_valid = row["loss"]
            self.first_valid = row["loss"] if self.first_valid is None else self.first_valid
        elif kind == "event":
            self.n_skipped += row.get("event") == "skipped"
            self.n_rolled_back += row.get("event") == "rolled-back"

    @property
    def smoothed(self) -> float | None:
        """The smoothed training loss; None before the first report."""
        return self._sum / self._weight if self._weight else None

    def _progress(self, iteration: int) -> None:
        """Move to an iteration and estimate the time left from the pace since the first one that was told."""
        self.iteration, self._estimated_at = iteration, self._clock()
        if self._began is None:
            self._began = (self._estimated_at, iteration)
        began, start = self._began
        if iteration > start:
            self._remaining_s = (self._estimated_at - began) / (iteration - start) * max(0, self.total - iteration)

    def _time_left(self) -> str:
        if self._remaining_s is None:
            return "-:--:-- left"
        seconds = max(0.0, self._remaining_s - (self._clock() - self._estimated_at))
        return f"{timedelta(seconds=round(seconds))} left"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Two lines, each no wider than the console."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        width = options.max_width
        count = f"{self.iteration}/{self.total}"
        right = fitting(self._run_parts(count), width - _SHORTEST_BAR - 1)
        name = f"{self.description} "
        if len(name) + _SHORTEST_BAR + 1 + len(right) > width:
            name = ""
        bar_width = max(1, width - len(name) - 1 - len(right))
        bar = ProgressBar(total=self.total, completed=min(self.iteration, self.total), width=bar_width)
        line = Table.grid(padding=0)
        # An empty column would still take one cell.
        line.add_row(*([Text(name, no_wrap=True)] if name else []), bar, Text(f" {right}", no_wrap=True))
        yield line
        yield Text(fitting(self._figures(), width), no_wrap=True, overflow="ellipsis")

    def _run_parts(self, count: str) -> list[tuple[int, str]]:
        parts = [(0, count), (1, self._time_left())]
        rate = self.latest.get("learning_rate")
        if _is_number(rate):
            parts.append((3, f"lr {rate:.1e}"))
        if self.n_skipped:
            parts.append((2, f"{self.n_skipped} skipped"))
        if self.n_rolled_back:
            parts.append((2, f"{self.n_rolled_back} rolled back"))
        return parts

    def _figures(self) -> list[tuple[int, str]]:
        loss, parts = self.latest.get("loss"), []
        if _is_number(loss):
            parts.append((0, f"loss {loss:.3f}"))
        if self.smoothed is not None:
            parts.append((4, f"smoothed {self.smoothed:.3f}"))
        if self.first_valid is not None:
            parts.append((1, f"valid {self.first_valid:.3f} -> {self.last_valid:.3f}"))
        speed, memory = self.latest.get("tokens_per_s"), self.latest.get("peak_memory_gb")
        if _is_number(speed):
            parts.append((2, f"{speed:,.0f} tok/s"))
        if _is_number(memory):
            parts.append((3, f"{memory:.2f} GB"))
        return parts or [(0, "waiting for the first report")]


def fitting(parts: Sequence[tuple[int, str]], width: int) -> str:
    """Join (rank, text) parts with two blanks; while the line is too wide, the part of the highest rank goes."""
    kept = list(parts)
    while len(kept) > 1 and len("  ".join(text for _, text in kept)) > width:
        kept.remove(max(kept, key=lambda part: part[0]))
    return "  ".join(text for _, text in kept)


def note_of(row: Metric) -> str | None:
    """The line that a row leaves above the view: events and the scores of a checkpoint; None for other rows."""
    at = f"at {row['iteration']}"
    if row["kind"] == "event":
        return f"{at}, {row.get('event', 'event')}: {row.get('note', '')}".rstrip(": ")
    if row["kind"] != "probe":
        return None
    means = [
        f"{name} {row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
        for name in ("v2", "v3")
        if all(_is_number(row.get(key)) for key in (name, f"{name}_low", f"{name}_high"))
    ]
    words, degenerate = row.get("words"), row.get("degenerate")
    means += [f"{words:.0f} words"] if _is_number(words) else []
    means += [f"{100 * degenerate:.0f}% degenerate"] if _is_number(degenerate) else []
    return f"{at}: {', '.join(means) or 'no probe could be scored'}"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@contextmanager
def curve_at_end(output: Path) -> Iterator[Callable[[], None]]:
    """Draw `output`/loss.png at the end if the yielded function was called, however the training ends.

    A folder that was refused stays untouched, and a training is not lost over its picture.
    """
    from lem.errors import UserError

    called: list[bool] = []
    try:
        yield lambda: called.append(True)
    except (KeyboardInterrupt, UserError):  # Ctrl-C a second time, which acts at once; a full disk
        called.clear()
        raise
    finally:
        if called:
            _draw(output)


def _draw(output: Path) -> None:
    import click

    from lem.errors import UserError
    from lem.reports.curves import draw_training

    try:
        draw_training(output)
    except (UserError, OSError) as error:
        click.echo(f"Warning: no loss curve: {error}", err=True)
