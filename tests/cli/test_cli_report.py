"""`lem report` as typed: a page a run, with its comparison and the marks of the scorers; what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Place, Result, assert_sentence

from made_runs import made_run, save

Lem = Callable[..., Result]


@pytest.fixture
def run(place: Place) -> Path:
    return save(made_run({"base": [1.0, 2.0, 3.0, 4.0], "kernel": [3.0, 4.0, 5.0, 6.5]}), place.folder / "made")


def test_a_page_for_each_run_with_its_comparison(lem: Lem, place: Place, run: Path) -> None:
    other = save(made_run({"base": [1.0, 2.0, 3.0], "kernel": [1.0, 2.5, 3.0]}), place.folder / "other")
    result = lem("report", "made", "other")
    assert result.code == 0, result
    assert result.out.splitlines() == ["report: made/report.html", "report: other/report.html"]
    for path in (run, other):
        page = (path / "report.html").read_text(encoding="utf-8")
        sentence = json.loads((path / "comparison.json").read_text())["contrasts"][0]["verdict"]["sentence"]
        assert sentence in page
        assert 'id="findings"' in page


def test_one_output_is_for_one_run(lem: Lem, run: Path) -> None:
    assert_sentence(lem("report", "made", "made", "--output", "page.html"), "--output names the page of one run")
    assert lem("report", "made", "--output", "page.html").code == 0
    assert not (run / "report.html").exists()


def test_a_file_that_is_no_report_is_left_alone(lem: Lem, place: Place, run: Path) -> None:
    mine = place.folder / "letter.html"
    mine.write_text("<p>Dear</p>")
    assert_sentence(lem("report", "made", "--output", "letter.html"), "is no report of ours")
    assert mine.read_text() == "<p>Dear</p>"
    assert run.is_dir()
