"""The live view: what stands on the terminal is what the rows say, no line is wider than it, silence without one."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from lem.cli.live import TrainingView, fitting, note_of, training_view
from lem.cli.options import answer_progress
from lem.errors import Incomplete


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def train_row(iteration: int, loss: float | None, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "train", "iteration": iteration, "loss": loss, "grad_norm": 1.0, "learning_rate": 4e-06,
        "n_tokens": 900, "trained_tokens": 90 * iteration, "tokens_per_s": 1234.4, "peak_memory_gb": 1.234, **fields,
    }  # fmt: skip


def valid_row(iteration: int, loss: float | None) -> dict[str, Any]:
    return {"kind": "valid", "iteration": iteration, "loss": loss, "n_tokens": 500}


def event_row(iteration: int, event: str) -> dict[str, Any]:
    return {"kind": "event", "iteration": iteration, "event": event, "note": "the loss was not finite"}


PROBE = {
    "kind": "probe", "iteration": 50, "n": 21, "n_unscored": 0, "v2": 9.5, "v2_low": 8.25, "v2_high": 11.0, "v3": 3.0,
    "v3_low": 2.0, "v3_high": 4.0, "words": 65.4, "degenerate": 0.18, "truncated": 0.1,
}  # fmt: skip


def lines_of(view: TrainingView, width: int) -> list[str]:
    console = Console(record=True, width=width, force_terminal=True, file=io.StringIO())
    console.print(view)
    return console.export_text().splitlines()


def filled(clock: Clock) -> TrainingView:
    """A view 120 of 200 iterations into a training that began at 0 and takes half a second a step."""
    view = TrainingView(200, "training", clock=clock)
    view.take(valid_row(0, 6.531))
    for iteration in range(10, 130, 10):
        clock.now += 5.0
        view.take(train_row(iteration, 5.0 - 0.02 * iteration))
    view.take(valid_row(120, 2.91))
    view.take(event_row(121, "skipped"))
    return view


def test_every_figure_stands_in_eighty_columns() -> None:
    first, second = lines_of(filled(Clock()), 80)
    assert first.startswith("training ")
    for part in ("120/200", "0:00:40 left", "lr 4.0e-06", "1 skipped", "\u2501" * 8):
        assert part in first
    for part in ("loss 2.600", "smoothed ", "valid 6.531 -> 2.910", "1,234 tok/s", "1.23 GB"):
        assert part in second


def test_the_smoothed_loss_is_the_exponential_mean_without_the_bias_of_its_start() -> None:
    losses = [6.0, 4.5, math.nan, 5.0, 3.0]
    view = TrainingView(50, "training")
    for index, loss in enumerate(losses):
        view.take(train_row(10 * index, None if math.isnan(loss) else loss))
    finite = [loss for loss in losses if not math.isnan(loss)]
    weights = [0.8 ** (len(finite) - 1 - index) for index in range(len(finite))]
    expected = sum(w * loss for w, loss in zip(weights, finite, strict=True)) / sum(weights)
    assert view.smoothed == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("width", [200, 100, 80, 72, 60, 50, 40, 30, 20])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    view = filled(Clock())
    view.take(event_row(122, "rolled-back"))
    lines = lines_of(view, width)
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    assert not any("\u2026" in line for line in lines), "parts are left out, not cut"
    assert "120/200" in lines[0]
    assert lines[1].startswith("loss 2.600")


def test_the_least_important_parts_go_first() -> None:
    parts = [(0, "aaaa"), (3, "bbbb"), (1, "cccc"), (2, "dddd")]
    assert fitting(parts, 22) == "aaaa  bbbb  cccc  dddd"
    assert fitting(parts, 21) == "aaaa  cccc  dddd"
    assert fitting(parts, 15) == "aaaa  cccc"
    assert fitting(parts, 2) == "aaaa"


def test_the_time_left_follows_the_pace_and_runs_down_between_reports() -> None:
    clock = Clock()
    view = filled(clock)
    clock.now += 15.0
    assert "0:00:25 left" in lines_of(view, 80)[0]
    clock.now += 60.0
    assert "0:00:00 left" in lines_of(view, 80)[0]


def test_a_resumed_training_counts_from_where_it_began() -> None:
    clock = Clock()
    view = TrainingView(200, "training", completed=100, first_valid=6.5, clock=clock)
    assert "100/200" in lines_of(view, 80)[0]
    clock.now += 10.0
    view.take(train_row(110, 2.0))
    assert "0:01:30 left" in lines_of(view, 80)[0]
    view.take(valid_row(110, 2.5))
    assert "valid 6.500 -> 2.500" in lines_of(view, 80)[1]


def test_where_it_starts_and_ends_can_be_told_later() -> None:
    clock = Clock()
    view = TrainingView(200, "training", clock=clock)
    clock.now += 30.0  # loading, which is no part of the pace
    view.take({"kind": "start", "iteration": 40, "iterations": 60})
    assert "40/60" in lines_of(view, 80)[0]
    clock.now += 4.0
    view.take(train_row(50, 2.0))
    assert "0:00:04 left" in lines_of(view, 80)[0]


def test_before_the_first_report_nothing_is_made_up() -> None:
    first, second = lines_of(TrainingView(200, "training"), 80)
    assert "0/200" in first
    assert "-:--:-- left" in first
    assert second == "waiting for the first report"
    view = TrainingView(200, "training")
    view.take(valid_row(0, None))
    view.take({"kind": "train", "iteration": 10, "loss": None})
    assert lines_of(view, 80)[1] == "waiting for the first report"


def test_events_and_probe_scores_leave_a_line_above_the_view() -> None:
    file = io.StringIO()
    console = Console(record=True, width=80, force_terminal=True, file=file)
    with training_view(200, "training", console=console) as on_metric:
        for row in (valid_row(0, 6.5), train_row(50, 2.6), PROBE, event_row(53, "skipped")):
            on_metric(row)
    text = console.export_text(styles=False)
    assert "at 50: v2 9.50 [8.25, 11.00], v3 3.00 [2.00, 4.00], 65 words, 18% degenerate\n" in text
    assert "at 53, skipped: the loss was not finite\n" in text
    assert text.rstrip().endswith("loss 2.600  smoothed 2.600  valid 6.500 -> 6.500  1,234 tok/s  1.23 GB")
    assert note_of(train_row(1, 1.0)) is None
    assert note_of({"kind": "probe", "iteration": 5, "v2": None, "words": None}) == "at 5: no probe could be scored"


def test_without_a_terminal_nothing_is_shown() -> None:
    file = io.StringIO()
    with training_view(200, "training", console=Console(file=file, force_terminal=False)) as on_metric:
        for row in (valid_row(0, 6.5), train_row(50, 2.6), PROBE, event_row(53, "skipped")):
            on_metric(row)
    assert file.getvalue() == ""


def test_the_bar_over_answers_begins_where_the_last_run_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may hold more cells than are asked for now; the bar counts those asked for."""
    advanced: list[int] = []

    @contextmanager
    def bar(description: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
        assert total == 10
        yield lambda n=1, note=None: advanced.append(n)

    monkeypatch.setattr("lem.cli.options.progress", bar)
    for cells, missing, done in ((10, 4, 6), (25, 4, 6), (10, 10, 0), (25, 12, 0)):
        advanced.clear()
        with answer_progress(10) as callbacks:
            callbacks["on_start"](cells, missing)
        assert advanced == [done]
    with pytest.raises(Incomplete, match="the same command goes on"), answer_progress(10):
        raise KeyboardInterrupt
