"""Training curves: what is drawn is what the metrics say; the picture is one; bad files are sentences."""

from __future__ import annotations

import math
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from small_training import (
    PROBES,
    RATES,
    TRAIN_LOSSES,
    VALID_LOSSES,
    event_rows,
    probe_rows,
    train_rows,
    valid_rows,
    write_training,
)

from lem.errors import DataError, UserError
from lem.reports.curves import draw_training, training_figure, training_summary
from lem.reports.svg import inline_svg
from lem.reports.training_log import TrainingLog, read_training


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_training(tmp_path / "lek-first")


def drawn_small(log: TrainingLog, label: str) -> str:
    """The curve as it stands on the page."""
    return inline_svg(training_figure(log, compact=True), label)


def figure_of(folder: Path, rows: list[dict[str, Any]] | None = None, *, compact: bool = False) -> Figure:
    return training_figure(read_training(write_training(folder, rows)), compact=compact)


def panels(figure: Figure) -> dict[str, Axes]:
    return {str(axes.get_label()): axes for axes in figure.axes}


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for line in axes.get_lines():
        assert isinstance(line, Line2D)
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        found[str(line.get_label())] = list(zip(x.tolist(), y.tolist(), strict=True))
    return found


def uprights(axes: Axes) -> list[tuple[str, list[tuple[float, float, float]]]]:
    """Vertical lines as (label, [(x, low, high)])."""
    return [
        (str(drawn.get_label()), [(float(s[0][0]), float(s[0][1]), float(s[1][1])) for s in drawn.get_segments()])
        for drawn in axes.collections
        if isinstance(drawn, LineCollection)
    ]


def test_the_loss_panel_holds_the_losses_of_the_metrics(adapter: Path) -> None:
    loss = panels(training_figure(read_training(adapter)))["loss"]
    drawn = lines(loss)
    assert drawn["training"] == [(10.0 * (i + 1), value) for i, value in enumerate(TRAIN_LOSSES)]
    assert drawn["validation"] == [(float(at), value) for at, value in VALID_LOSSES.items()]
    assert set(drawn) == {"training", "validation"}, "twelve reports are too few to smooth"
    assert loss.get_ylabel() == "loss (nats per reply token, log)"
    assert loss.get_yscale() == "log", "6.5 to 0.25 is more than a factor of ten"


def test_events_stand_where_they_happened(adapter: Path) -> None:
    marked = dict(uprights(panels(training_figure(read_training(adapter)))["loss"]))
    assert {label: [x for x, _, _ in where] for label, where in marked.items()} == {
        "skipped step (2)": [37.0, 52.0], "roll-back at 53": [53.0], "early stop at 120": [120.0],
    }  # fmt: skip
    assert all((low, high) == (0.0, 1.0) for where in marked.values() for _, low, high in where), "the whole height"


def test_the_other_panels_hold_rates_scores_intervals_and_lengths(adapter: Path) -> None:
    found = panels(training_figure(read_training(adapter)))
    assert set(found) == {"loss", "rate", "scores", "degenerate", "words"}
    assert [y for _, y in next(iter(lines(found["rate"]).values()))] == RATES
    scores = lines(found["scores"])
    assert scores == {
        "v2": [(float(at), row[0]) for at, row in PROBES.items()],
        "v3": [(float(at), row[3]) for at, row in PROBES.items()],
    }
    assert [where for _, where in uprights(found["scores"])] == [
        [(float(at), row[1], row[2]) for at, row in PROBES.items()],
        [(float(at), row[4], row[5]) for at, row in PROBES.items()],
    ]
    assert next(iter(lines(found["degenerate"]).values())) == [(float(at), row[7]) for at, row in PROBES.items()]
    assert next(iter(lines(found["words"]).values())) == [(float(at), row[6]) for at, row in PROBES.items()]
    units = {name: axes.get_ylabel().replace("\n", " ") for name, axes in found.items()}
    assert units["scores"] == "mean score (points, 95% interval)"
    assert units["degenerate"] == "degenerate (% of answers)"
    assert "words an answer" in units["words"]
    assert found["degenerate"].get_xlabel() == "iteration (optimiser step)"


def test_the_title_names_the_adapter_and_the_foot_its_data(adapter: Path) -> None:
    figure = training_figure(read_training(adapter))
    assert figure.get_suptitle() == "Training of lek-first"
    assert figure.get_supxlabel() == "base: lem-nano; data: train.jsonl (df42b8ea), valid.jsonl (44912cf4)"


def test_smoothing_is_labelled_and_is_the_mean_of_the_neighbours(tmp_path: Path) -> None:
    losses = [3.0 + math.sin(index) for index in range(24)]
    rows = [{"kind": "train", "iteration": index + 1, "loss": loss} for index, loss in enumerate(losses)]
    drawn = lines(panels(figure_of(tmp_path / "a", rows))["loss"])
    assert set(drawn) == {"training", "training, mean of 5 reports"}
    expected = [losses[0], np.mean(losses[:3]), *(np.mean(losses[i - 2 : i + 3]) for i in range(2, 22))]
    expected += [np.mean(losses[21:]), losses[23]]
    assert [y for _, y in drawn["training, mean of 5 reports"]] == pytest.approx(expected, rel=1e-12)


def test_the_scale_is_linear_where_a_factor_of_ten_is_not_reached(tmp_path: Path) -> None:
    loss = panels(figure_of(tmp_path / "a", [train_rows()[0], train_rows()[6]]))["loss"]
    assert loss.get_yscale() == "linear"
    assert loss.get_ylabel() == "loss (nats per reply token)"


def test_a_loss_that_is_no_number_is_a_gap(tmp_path: Path) -> None:
    rows = train_rows()[:4]
    rows[1]["loss"] = None
    drawn = lines(panels(figure_of(tmp_path / "a", rows))["loss"])["training"]
    assert [math.isnan(y) for _, y in drawn] == [False, True, False, False]


def test_rows_that_were_made_anew_replace_the_abandoned_ones(tmp_path: Path) -> None:
    first = [{"kind": "train", "iteration": at, "loss": 2.0} for at in (10, 20, 30, 40)]
    again = [{"kind": "train", "iteration": at, "loss": 1.0} for at in (20, 30)]
    event = {"kind": "event", "iteration": 40, "event": "rolled-back", "note": "why"}
    drawn = lines(panels(figure_of(tmp_path / "a", [*first, event, *again]))["loss"])["training"]
    assert drawn == [(10.0, 2.0), (20.0, 1.0), (30.0, 1.0)]
    assert training_summary(tmp_path / "a").n_rolled_back == 1


@pytest.mark.parametrize(
    "rows",
    [
        valid_rows()[:1],
        train_rows()[:1],
        valid_rows(),
        [*valid_rows()[:1], *event_rows(), *probe_rows()[:1]],
        [{"kind": "valid", "iteration": 0, "loss": None}],
        [{"kind": "train", "iteration": 10, "loss": 0.0, "learning_rate": 0.0}],
        [{"kind": "train", "iteration": 10, "loss": 1e30}, {"kind": "train", "iteration": 20, "loss": 1e-30}],
    ],
    ids=["one validation", "one report", "validations only", "one of each", "no number", "zeros", "huge"],
)
def test_little_or_odd_is_drawn_too(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    picture = draw_training(write_training(tmp_path / "a", rows)).read_bytes()
    assert png_size(picture)[0] == 1600
    assert drawn_small(read_training(tmp_path / "a"), "curve").startswith("<svg")


def png_size(picture: bytes) -> tuple[int, int]:
    """Width and height from the header of a PNG, after a check of every chunk's CRC."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    at, names = 8, []
    while at < len(picture):
        (length,) = struct.unpack(">I", picture[at : at + 4])
        body = picture[at + 4 : at + 8 + length]
        assert struct.unpack(">I", picture[at + 8 + length : at + 12 + length])[0] == zlib.crc32(body)
        names.append(body[:4])
        at += 12 + length
    assert (names[0], names[-1]) == (b"IHDR", b"IEND")
    width, height = struct.unpack(">II", picture[16:24])
    return int(width), int(height)


def test_the_picture_is_a_whole_png_put_in_place_in_one_step(adapter: Path, tmp_path: Path) -> None:
    before = {path.name for path in adapter.iterdir()}
    assert draw_training(adapter) == adapter / "loss.png"
    assert draw_training(adapter) == adapter / "loss.png", "the second replaces the first"
    assert {path.name for path in adapter.iterdir()} - before == {"loss.png"}
    width, height = png_size((adapter / "loss.png").read_bytes())
    assert width == 1600
    assert 1200 < height < 2400
    elsewhere = tmp_path / "new" / "curve.png"
    assert draw_training(adapter, elsewhere) == elsewhere
    assert (elsewhere.stat().st_mode & 0o777, len(list(elsewhere.parent.iterdir()))) == (0o644, 1)


def test_pyplot_stays_unloaded_and_nothing_is_loaded_before_it_is_drawn(adapter: Path) -> None:
    script = (
        "import sys, pathlib\nfrom lem.reports.curves import draw_training\n"
        "assert not any(name.startswith('matplotlib') for name in sys.modules)\n"
        "draw_training(pathlib.Path(sys.argv[1]))\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(adapter)], check=True, capture_output=True)


def test_the_summary_equals_the_metrics(adapter: Path) -> None:
    summary = training_summary(adapter)
    assert (summary.first_valid, summary.last_valid) == (6.5, 2.0)
    assert (summary.best_valid, summary.best_iteration) == (1.75, 80)
    assert (summary.iterations, summary.tokens, summary.peak_memory_gb) == (120, 12 * 900, 1.5)
    assert (summary.n_skipped, summary.n_rolled_back, summary.stopped_early) == (2, 1, True)


def test_what_the_metrics_do_not_hold_is_none(tmp_path: Path) -> None:
    rows = [{"kind": "train", "iteration": 6, "loss": 6.5, "tokens_per_s": 1.0}]
    summary = training_summary(write_training(tmp_path / "a", rows))
    assert (summary.first_valid, summary.last_valid, summary.best_valid, summary.best_iteration) == (None,) * 4
    assert (summary.tokens, summary.peak_memory_gb, summary.iterations) == (None, None, 6)
    assert (summary.n_skipped, summary.n_rolled_back, summary.stopped_early) == (0, 0, False)


def test_bad_input_is_a_sentence(tmp_path: Path) -> None:
    adapter = tmp_path / "a"
    with pytest.raises(UserError, match="no such file"):
        draw_training(adapter)
    write_training(adapter, [])
    with pytest.raises(UserError, match="holds no loss yet"):
        draw_training(adapter)
    write_training(adapter, event_rows())
    with pytest.raises(UserError, match="holds no loss yet"):
        training_summary(adapter)
    write_training(adapter, [train_rows()[0], {"kind": "train", "loss": 1.0}])
    with pytest.raises(DataError, match=r"metrics\.jsonl line 2: needs 'kind' and a whole 'iteration'"):
        draw_training(adapter)
    write_training(adapter)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(DataError, match=r"adapter_config\.json: not valid JSON"):
        draw_training(adapter)
    (adapter / "adapter_config.json").unlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"curve\.png: could not write \(.*file is not a folder\)"):
        draw_training(adapter, tmp_path / "file" / "curve.png")
    assert not (adapter / "loss.png").exists()


def test_a_torn_last_line_of_a_training_that_is_still_running_is_left_out(adapter: Path) -> None:
    with (adapter / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "iter')
    assert training_summary(adapter).iterations == 120


def test_the_drawing_for_the_page_is_small_plain_and_needs_nothing(adapter: Path) -> None:
    log = read_training(adapter)
    svg = drawn_small(log, 'Training of "a" & <b>')
    root = ET.fromstring(svg)
    assert root.attrib["aria-label"] == 'Training of "a" & <b>'
    tags = {element.tag for element in root.iter()}
    assert tags <= {"svg", "g", "path", "use", "text", "tspan", "defs"}
    assert not re.search(r"https?:|url\(|<style|font-family|clip-path|#[0-9a-f]{6}\b", svg)
    targets = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    assert {element.attrib["href"] for element in root.iter("use")} == {f"#{target}" for target in targets}
    assert len(svg) < 30_000
    assert svg == drawn_small(log, 'Training of "a" & <b>'), "the same metrics give the same page"


def test_the_drawing_places_the_losses_as_the_figure_does(adapter: Path) -> None:
    """The path in the SVG, taken back through the axes' transform by two known points, gives the losses again."""
    root = ET.fromstring(drawn_small(read_training(adapter), "curve"))
    wanted = "stroke: var(--vermilion); stroke-width: 1.6"
    path = next(e.attrib["d"] for e in root.iter("path") if wanted in e.attrib.get("style", ""))
    points = [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    assert len(points) == len(VALID_LOSSES)
    iterations, losses = list(VALID_LOSSES), np.log(list(VALID_LOSSES.values()))
    x, y = np.array(points).T
    back_x = iterations[0] + (x - x[0]) / (x[-1] - x[0]) * (iterations[-1] - iterations[0])
    back_y = losses[0] + (y - y[0]) / (y[2] - y[0]) * (losses[2] - losses[0])
    assert back_x == pytest.approx(iterations, abs=0.1)
    assert back_y == pytest.approx(losses, abs=0.01)
