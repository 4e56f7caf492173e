"""Win rates in a terminal: everything inside 80 columns, counts apart, watermarks first."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from lem.reports.win_rate_table import LEGEND, win_rates_rich


def a_rate(**more: Any) -> dict[str, Any]:
    estimate = {"value": 0.625, "low": 0.5, "high": 0.7512}
    return {
        "treatment": "trained-with-a-long-name", "baseline": "base", "judge": "gemini-3.8-flash-preview",
        "estimate": estimate, "controlled": {"estimate": {"value": 0.51, "low": None, "high": None}},
        "length_matters": True, "wins": 412, "ties": 17, "losses": 203, "unscored": {"blocked": 3, "truncated": 4},
        "n_failed": 5, "n_missing": 6, "bounds": [0.6071, 0.6184],
        "consistency": {"value": 0.912}, "first_slot": {"value": None}, **more,
    }  # fmt: skip


def printed(rates: list[dict[str, Any]], *marks: str) -> str:
    console = Console(width=80, record=True, file=None, force_terminal=False, no_color=True)
    with console.capture() as capture:
        console.print(win_rates_rich(rates, marks))
    return capture.get()


def test_every_figure_stands_in_80_columns_unshortened() -> None:
    text = printed([a_rate()], "SELF-JUDGED: the judge is of one lineage with arm base.")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    for part in (
        "62", "[50%, 75%]", "51%", "no interval", "412/17/203", "7/5/6", "61% .. 62%", "91%", "*",
    ):  # fmt: skip
        assert part in text, part
    whole = " ".join(text.split())
    assert "vs base, judge gemini-3.8-flash-preview: 3 blocked, 4 truncated" in whole
    assert text.index("SELF-JUDGED") < text.index("win rate")
    assert " ".join(LEGEND.split()) in whole


def test_where_nothing_is_unscored_nothing_is_said_of_it() -> None:
    text = printed([a_rate(unscored={}, n_failed=0, n_missing=0, bounds=None)])
    assert "0/0/0" in text
    assert ".. 62%" not in text
    assert "unscored: " not in text


def test_nothing_compared_is_said() -> None:
    assert "no comparison" in printed([])
