"""Table and picture of a curriculum: every number is there, 80 columns are enough, marks stand where they belong."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.collections import LineCollection
from rich.console import Console

from lem.errors import UserError
from lem.reports.curriculum_plot import curriculum_figure, draw_curriculum
from lem.reports.curriculum_table import CurriculumHead, CurriculumRow, curriculum_markdown, curriculum_rich
from lem.stats import Estimate, mean_bca, rate

HEAD = CurriculumHead("some-base", "101 probes of P01-P100.json, up to 1024 tokens, temperature 0.7", [])


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value, half / 2, value - half, value + half, 0.95, 101, 0, 10, "cr2-t")


def row(label: str, asked: str, value: float, **changes: object) -> CurriculumRow:
    base = label == "base"
    made = CurriculumRow(
        label=label, name="" if base else "ethics-0", trained="" if base else "sandwich", asked=asked, n=101,
        n_unscored=0, n_failed=0, mean=estimate(value, 1.25), change=None, previous="base", target=None,
        degenerate=rate(3, 101), words=412.4, truncated=rate(7, 101), action="", accepted=True,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


ROWS = [
    row("base", "freeflow", 15.5),
    row("base", "sandwich", 17.75),
    row("0.1", "freeflow", 16.25, change=estimate(0.75, 12.5), action="repeat", accepted=False),
    row("0.1", "sandwich", 17.25, target=18.0, accepted=False),
    row("0.2", "freeflow", 19.5, change=estimate(4.0, 1.5), action="back to 0"),
    row("0.2", "sandwich", 20.25, target=18.0),
]


def shown(rows: list[CurriculumRow], head: CurriculumHead = HEAD) -> str:
    out = io.StringIO()
    Console(file=out, width=80, highlight=False).print(curriculum_rich(rows, head))
    return out.getvalue()


def test_the_terminal_table_keeps_every_number_in_80_columns() -> None:
    text = shown(ROWS)
    assert max(len(line) for line in text.splitlines()) <= 80
    for part in ("15.50", "[14.25, 16.75]", "+0.75", "[-11.75, +13.25]", "+4.00", "[+2.50, +5.50]", "101/0", "412"):
        assert part in text
    assert re.search(r"sandwich .*20\.25 .* 18 ", text)  # the target stands on the row that it is measured on
    assert text.count("repeat") == 1
    assert "back to 0" in text
    assert "The gates chose on these probes" in " ".join(text.split())


@pytest.mark.parametrize("low", [-9.5, -19.5])
@pytest.mark.parametrize("share", [3, 101])
def test_wide_numbers_and_long_decisions_are_never_cut(low: float, share: int) -> None:
    wide = {"mean": estimate(low, 5.25), "degenerate": rate(share, 101), "truncated": rate(share, 101)}
    change = estimate(-16.41, 5.03)
    rows = [
        row("base", "freeflow", low),
        row("0.1", "freeflow", low, change=change, target=18.5, name="a-longer-name", action="finished", **wide),
        row("0.1", "sandwich", low, action="go on", **wide),
    ]
    text = shown(rows)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert sum(line.startswith("  freeflow ") for line in lines) == 2
    assert sum(line.startswith("  sandwich ") for line in lines) == 1
    for part in (
        f"[{low - 5.25:.2f}, {low + 5.25:.2f}]",
        "[-21.44, -11.38]",
        f" {round(share / 1.01)}% ",
        " 412 ",
        " 18.5 ",
    ):
        assert part in text
    assert all(part in text for part in (" finished", " go on", " decision"))


def test_lem_nano_and_quick_runs_are_labelled_everywhere() -> None:
    head = CurriculumHead("lem-nano", "21 probes", ["Quick run: 4 iterations a phase."])
    for text in (shown(ROWS, head), curriculum_markdown(ROWS, head, [])):
        assert "Quick run: 4 iterations a phase." in text
        assert "lem-nano is a toy model" in text
    figure = curriculum_figure(ROWS, head)
    assert "lem-nano is a toy model" in figure.axes[0].get_xlabel().replace("\n", " ")


def test_markdown_has_one_line_an_arm_and_every_decision() -> None:
    text = curriculum_markdown(ROWS, HEAD, [("0.1 ethics-0: repeat. Phase 0 failed target.", ["target: failed."])])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(ROWS)
    assert {line.count("|") for line in lines} == {18}
    assert "| 0.1 | ethics-0 | sandwich | freeflow | 101 | 0 | 0 | 16.25 | [15.00, 17.50] | +0.75 |" in text
    assert "- 0.1 ethics-0: repeat. Phase 0 failed target.\n  - target: failed." in text


def test_a_value_without_an_interval_is_said_not_drawn_as_one() -> None:
    single = mean_bca([3.0])
    text = shown([replace(ROWS[0], mean=single)])
    assert "no interval" in text
    curriculum_figure([replace(ROWS[0], mean=single)], HEAD)


def test_the_picture_has_a_mark_at_every_mean_a_line_through_the_accepted_and_the_targets() -> None:
    axes = curriculum_figure(ROWS, HEAD).axes[0]
    lines = axes.get_lines()
    assert list(lines[0].get_ydata()) == [15.5, 19.5]  # base and the accepted attempt, freeflow
    marks = {(round(float(line.get_xdata()[0])), float(line.get_ydata()[0])): line for line in lines[1:]}
    assert set(marks) == {(0, 15.5), (0, 17.75), (1, 16.25), (1, 17.25), (2, 19.5), (2, 20.25)}
    assert marks[(1, 16.25)].get_alpha() < marks[(2, 19.5)].get_alpha()
    segments = [tuple(part) for item in axes.collections if isinstance(item, LineCollection) for part in _ends(item)]
    assert segments.count((18.0, 18.0)) == 2
    assert (18.25, 20.75) in segments  # the interval of 0.2, freeflow
    assert [label.get_text() for label in axes.get_xticklabels()] == ["base", "0.1\nethics-0", "0.2\nethics-0"]
    assert [text.get_text() for text in axes.texts] == ["repeat", "back to 0"]
    labels = axes.get_legend_handles_labels()[1]
    assert sorted(labels) == ["freeflow", "sandwich", "target"]


def _ends(item: LineCollection) -> list[tuple[float, float]]:
    return [(float(path[0][1]), float(path[1][1])) for path in item.get_segments()]


def test_the_file_is_replaced_whole_and_a_bad_place_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "new" / "curriculum.png"
    draw_curriculum(ROWS, HEAD, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in path.parent.iterdir()] == ["curriculum.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not write"):
        draw_curriculum(ROWS, HEAD, tmp_path / "file" / "curriculum.png")
