"""The win rates of a run as files: derived from the comparisons alone, readable again, without NaN."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from made_pairs import BASELINE, TREATMENT, compared, made_pairs

from lem.judges.pairwise.results import write_pair_results
from lem.records import RunContents
from lem.records.judge_files import read_pair_results


def written(folder: Path, contents: RunContents) -> Path:
    """The run as a directory, a file of judgements for each judge."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(asdict(contents.info)))
    (folder / "records.jsonl").write_text("".join(json.dumps(r.to_row()) + "\n" for r in contents.records))
    (folder / "judgements").mkdir()
    for row in contents.judgements:
        with (folder / "judgements" / f"{row.judge}.jsonl").open("a") as file:
            file.write(json.dumps(row.to_row()) + "\n")
    return folder


def test_the_file_holds_the_win_rate_counted_by_hand(tmp_path: Path) -> None:
    """Verdicts by order: AB won, BA lost, tt tied, AA swapped (a tie), -B unscored: 1 + 0 + .5 + .5 over four."""
    run = written(tmp_path / "run", compared(made_pairs(5), ["AB", "BA", "tt", "AA", "-B"]))
    found = write_pair_results(run)
    assert list(found) == ["j"]
    [stored] = json.loads((run / "judgements" / "j.pairs.json").read_text())
    assert (stored["baseline"], stored["treatment"], stored["judge"]) == (BASELINE, TREATMENT, "j")
    assert stored["estimate"]["value"] == pytest.approx(0.5)
    assert stored["estimate"]["n"] == 4
    assert stored["consistency"]["value"] == pytest.approx(3 / 4)
    assert read_pair_results(run) == [stored]


def test_what_does_not_exist_is_null(tmp_path: Path) -> None:
    run = written(tmp_path / "run", compared(made_pairs(1), ["AB"]))
    write_pair_results(run)
    text = (run / "judgements" / "j.pairs.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_two_judges_make_a_panel_by_majority(tmp_path: Path) -> None:
    """One judge prefers the treatment everywhere, the other ties half: the majority of two is where both agree."""
    contents = compared(compared(made_pairs(4), ["AB"] * 4, "first"), ["AB", "AB", "tt", "tt"], "second")
    run = written(tmp_path / "run", contents)
    found = write_pair_results(run)
    assert list(found) == ["first", "second", "panel"]
    [panel] = found["panel"]
    assert panel["estimate"]["value"] == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)
    assert panel["judges"] == ["first", "second"]
    assert {judge: one["value"] for judge, one in panel["without"].items()} == {"first": 0.75, "second": 1.0}
    assert {one["judge"] for one in read_pair_results(run)} == {"first", "second", "panel"}


def test_results_are_remade_and_never_outlive_their_comparisons(tmp_path: Path) -> None:
    contents = compared(compared(made_pairs(4), ["AB"] * 4, "first"), ["AB"] * 4, "second")
    run = written(tmp_path / "run", contents)
    write_pair_results(run)
    (run / "judgements" / "second.jsonl").unlink()
    write_pair_results(run)
    assert {one["judge"] for one in read_pair_results(run)} == {"first"}


def test_a_run_without_comparisons_has_no_results(tmp_path: Path) -> None:
    run = written(tmp_path / "run", made_pairs(2))
    assert write_pair_results(run) == {}
    assert read_pair_results(run) == []
