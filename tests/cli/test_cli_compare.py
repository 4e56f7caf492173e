"""`lem compare` and `lem leaderboard` as typed: what is printed and written, what is refused, and exit codes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Place, Result, assert_sentence

from lem.records.judge_files import UNTRUSTWORTHY
from lem.reports.ranking_table import ranking_frame, readable
from made_runs import DECODED, judged, made_run, save
from small_plan import bytes_of

Lem = Callable[..., Result]
RNG = np.random.default_rng(11)
BASE = list(RNG.normal(10, 2, 30))
BETTER = [value + 3 + noise for value, noise in zip(BASE, RNG.normal(0, 1, 30), strict=True)]


@pytest.fixture
def run(place: Place) -> Path:
    return save(made_run({"base": BASE, "kernel": BETTER}), place.folder / "made")


def test_one_run_is_compared_and_the_comparison_stands_in_it(lem: Lem, run: Path) -> None:
    result = lem("compare", "made")
    assert result.code == 0, result
    assert "v3, kernel against base: improved by +3." in " ".join(result.out.split())
    assert "Holm over 1 primary contrasts" in " ".join(result.out.split())
    document = json.loads((run / "comparison.json").read_text())
    (contrast,) = document["contrasts"]
    assert contrast["difference"]["value"] == pytest.approx(np.mean(np.subtract(BETTER, BASE)))
    assert contrast["verdict"]["code"] == "improved"
    assert len(contrast["differences"]) == 30
    assert document["objections"] == []
    printed = json.loads(lem("compare", "made", "--json").out)
    assert {**printed, "created": "", "command": []} == {**document, "created": "", "command": []}


def test_every_line_fits_a_narrow_terminal(lem: Lem, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, lem("compare", "made", "--details").out.splitlines())) <= 80
    assert max(map(len, lem("leaderboard", "made").out.splitlines())) <= 80


def test_the_details_name_every_number(lem: Lem, place: Place) -> None:
    ratings = {"base": [5.0] * 30, "kernel": [float(5 + i % 3) for i in range(30)]}
    words = {"base": [5] * 30, "kernel": [5 + i % 7 for i in range(30)]}
    save(judged(made_run({"base": BASE, "kernel": BETTER}, words=words), "safety", ratings), place.folder / "rated")
    out = lem("compare", "rated", "--metric", "safety", "--margin", "safety=1", "--details").out
    for label in (
        "BCa bootstrap over probes", "sign-flip permutation", "Wilcoxon signed rank", "Cliff's delta",
        "at equal length", "would have been seen (80%)", "non-inferiority", "equivalence",
        "improved, regressed, unchanged", "best probes",
    ):  # fmt: skip
        assert label in out
    assert "v3" not in out


def test_choosing_a_metric_afterwards_does_not_make_fewer_tests(lem: Lem, place: Place) -> None:
    save(judged(made_run({"base": BASE, "kernel": BETTER}), "safety", {"base": [5.0] * 30, "kernel": [6.0] * 30}),
         place.folder / "rated")  # fmt: skip
    (contrast,) = json.loads(lem("compare", "rated", "--metric", "safety", "--json").out)["contrasts"]
    assert contrast["n_tests"] == 2


def test_contrasts_declared_on_the_command_line_are_marked_as_late(lem: Lem, run: Path) -> None:
    result = lem("compare", "made", "--primary", "v3:kernel", "--json")
    document = json.loads(result.out)
    assert [objection["code"] for objection in document["objections"]] == ["declared-late"]
    assert document["contrasts"][0]["family"] == "primary"


def test_two_logs_of_one_arm_each_are_baseline_and_treatment(lem: Lem, place: Place) -> None:
    save(made_run({"model-a": BASE}), place.folder / "first")
    save(made_run({"model-b": BETTER}), place.folder / "second")
    result = lem("compare", "first", "second", "--json")
    assert result.code == 0, result
    document = json.loads(result.out)
    assert (document["baseline"], document["treatments"]) == ("model-a", ["model-b"])
    assert (place.folder / "runs" / "compare" / "first-second" / "comparison.json").is_file()
    again = lem("compare", "second", "first", "--json")
    assert json.loads(again.out)["contrasts"][0]["difference"]["value"] < 0


def test_answers_without_scores_are_scored_first(lem: Lem, place: Place) -> None:
    openings = {"base": "A plain answer", "kernel": "I feel the tension, however"}
    rows = [
        {"id": f"P{i}", "arm": arm, "response": f"{text} {i} and more of it, for one thing and another."}
        for i in range(6)
        for arm, text in openings.items()
    ]
    (place.folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = json.loads(lem("compare", "answers.jsonl", "--json").out)
    assert {contrast["metric"] for contrast in document["contrasts"]} == {"v2", "v3"}


def unlike(place: Place) -> None:
    save(made_run({"base": BASE}), place.folder / "one")
    save(made_run({"kernel": BETTER}, settings={**DECODED, "max_tokens": 512}), place.folder / "two")


def test_a_refused_comparison_prints_no_finding(lem: Lem, place: Place) -> None:
    unlike(place)
    result = lem("compare", "one", "two")
    assert result.code == 2
    assert result.out == ""
    assert "cannot be compared: 'base' and 'kernel' were decoded differently (max_tokens 64 and 512)" in result.err
    anyway = lem("compare", "one", "two", "--anyway")
    assert anyway.code == 0
    assert "note: 'base' and 'kernel' were decoded differently" in " ".join(anyway.out.split())


def test_missing_answers_are_exit_3_with_the_numbers_that_are_there(lem: Lem, place: Place) -> None:
    save(made_run({"base": BASE, "kernel": [*BETTER[:28], "missing", "failed"]}), place.folder / "holes")
    result = lem("compare", "holes")
    assert result.code == 3
    assert "2 planned answers failed or are missing" in result.err
    assert "28 of 30 planned answers (1 failed, 1 missing)" in " ".join(result.out.split())


REFUSALS: dict[str, tuple[tuple[Any, ...], str]] = {
    "no such run": (("compare", "nowhere"), "nowhere"),
    "no such arm": (("compare", "made", "--treatment", "gone"), "--treatment gone: there is no such arm"),
    "no such metric": (("compare", "made", "--metric", "v9"), "there is no metric 'v9' here; there are v3"),
    "both sides": (("compare", "made", "--baseline", "base", "--treatment", "base"), "both baseline and treatment"),
    "primary": (("compare", "made", "--primary", "v3"), "write METRIC:ARM"),
    "margin": (("compare", "made", "--margin", "v3=-1"), "write METRIC=X with X above 0"),
    "twice": (("compare", "made", "made"), "two of the inputs are the same"),
    "in the way": (("compare", "made", "--output", "probes.json"), "is no comparison of ours"),
    "leaderboard metric": (("leaderboard", "made", "--metric", "v9"), "there is no metric 'v9' here"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_refused_in_a_sentence_with_nothing_touched(why: str, lem: Lem, run: Path, place: Place) -> None:
    before = bytes_of(place.folder)
    arguments, part = REFUSALS[why]
    assert_sentence(lem(*arguments), part)
    assert bytes_of(place.folder) == before


def test_a_score_file_with_a_nan_is_unscored_and_not_a_finding(lem: Lem, run: Path) -> None:
    file = run / "scores" / "v3.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[:3]:
        row["value"] = float("nan")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (contrast,) = json.loads(lem("compare", "made", "--json").out)["contrasts"]
    assert contrast["n"] == 27
    assert contrast["counts"]["base"]["unscored"] == 3


def test_the_leaderboard_ranks_over_runs_in_every_format(lem: Lem, place: Place, run: Path) -> None:
    save(made_run({"kernel": [value + 1 for value in BETTER]}, name="other"), place.folder / "other")
    rows = json.loads(lem("leaderboard", "made", "other", "--json").out)["rows"]
    assert [row["arm"] for row in rows] == ["other", "made:kernel", "base"]
    assert rows[0]["first"] == 1.0
    assert rows[0]["mean"] == pytest.approx(np.mean(BETTER) + 1)
    table = list(csv.DictReader(io.StringIO(lem("leaderboard", "made", "other", "--csv").out)))
    assert [float(row["mean"]) for row in table] == pytest.approx([row["mean"] for row in rows])
    text = lem("leaderboard", "made", "other", "--markdown").out
    assert "| other |" in text.replace("m | other", "| other")
    assert "1 [1, 1]" in text


def marked_run(folder: Path) -> Path:
    """Two arms that never differ, rated by a judge of one lineage whose audit failed, on items that were trained on."""
    made = made_run({"a": BASE, "b": BASE})
    made = replace(made, info=replace(made.info, data={"contaminated": {"P001": ["an/adapter"]}}))
    found = save(judged(made, "safety", {"a": [5.0] * 30, "b": [5.0] * 30}), folder)
    (found / "judgements/j.json").write_text(json.dumps({"judge": "j", "kin": [{"arm": "a", "why": "weights"}]}))
    (found / "audits").mkdir()
    (found / "audits/j.json").write_text(json.dumps({"judge": "j", "verdict": UNTRUSTWORTHY}))
    return found


def test_the_leaderboard_says_what_stands_against_a_metric_in_its_rows_and_headings(lem: Lem, place: Place) -> None:
    marked_run(place.folder / "marked")
    every = {"v3": "CONTAMINATED", "safety": "SELF-JUDGED; UNTRUSTWORTHY; CONTAMINATED"}
    table = list(csv.DictReader(io.StringIO(lem("leaderboard", "marked", "--csv").out)))
    assert [(row["metric"], row["watermark"]) for row in table] == [(name, every[name]) for name in every for _ in "ab"]
    rows = json.loads(lem("leaderboard", "marked", "--json").out)["rows"]
    assert [row["watermark"] for row in rows] == [row["watermark"] for row in table]
    for form, mark in (((), ""), (("--markdown",), "## ")):
        lines = [line.rstrip() for line in lem("leaderboard", "marked", *form).out.splitlines()]
        assert f"{mark}v3 (CONTAMINATED)" in lines
        assert f"{mark}safety, judge j (SELF-JUDGED, UNTRUSTWORTHY, CONTAMINATED)" in lines


def test_a_heading_without_watermarks_is_the_name_alone(lem: Lem, run: Path) -> None:
    assert "## v3" in lem("leaderboard", "made", "--markdown").out.splitlines()
    (row, *_) = csv.DictReader(io.StringIO(lem("leaderboard", "made", "--csv").out))
    assert row["watermark"] == ""


def test_a_shared_rank_is_printed_as_it_is(lem: Lem, place: Place) -> None:
    marked_run(place.folder / "marked")
    for form in ((), ("--markdown",)):
        assert lem("leaderboard", "marked", "--metric", "v3", *form).out.count("1.5 [1, 2]") == 2


@pytest.mark.parametrize(
    ("rank", "low", "high", "shown"),
    [
        (4.5, 3.5, 5.0, "4.5 [3.5, 5]"),
        (2.0, 1.7, 2.2, "2 [1.5, 2.5]"),  # never narrower than it is
        (2.0, 2.0 - 1e-12, 2.0 + 1e-12, "2 [2, 2]"),
        (10.0, 9.0, 12.0, "10 [9, 12]"),
        (1.0, float("nan"), float("nan"), "1"),
        (float("nan"), float("nan"), float("nan"), "-"),
    ],
)
def test_ranks_keep_their_halves_and_their_limits_are_rounded_outwards(
    rank: float, low: float, high: float, shown: str
) -> None:
    row = {"metric": "v3", "model": "m", "arm": "a", "rank": rank, "rank_low": low, "rank_high": high, "origin": "ours"}
    counts = {"n": 3, "mean": 1.0, "unscored": 0, "failed": 0, "missing": 0, "watermark": ""}
    assert list(readable(ranking_frame([row | counts]))["rank [95%]"]) == [shown]
