"""The table of a benchmark run: every count against a count over the stored rows, every bound against a filled mean."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from small_evaluation import ARMS, KIND, LOST, SIZES, STRICT, evaluation, write_evaluation

from lem.errors import UserError
from lem.records import Judgement, RunContents, read_contents
from lem.records.judge_files import read_judge_manifests
from lem.reports.benchmark_table import (
    LEGEND,
    BenchmarkRow,
    benchmark_csv,
    benchmark_json,
    benchmark_markdown,
    benchmark_rich,
    benchmark_table,
)
from lem.reports.formats import TOY_NOTICE
from made_runs import judged, made_run

RATED = f"safety · {STRICT}"


@pytest.fixture(scope="module")
def contents() -> RunContents:
    return evaluation()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[BenchmarkRow]:
    """The rows of the run as it lies on disk, judges' manifests included."""
    made = write_evaluation(tmp_path_factory.mktemp("runs"))
    return benchmark_table(read_contents(made.path), read_judge_manifests(made.path))


def of(rows: list[BenchmarkRow], metric: str) -> dict[str, BenchmarkRow]:
    return {row.arm: row for row in rows if row.metric == metric}


def terminal(rows: list[BenchmarkRow], width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), legacy_windows=False)
    console.print(benchmark_rich(rows))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_metric_has_every_arm_in_the_order_of_the_run(rows: list[BenchmarkRow]) -> None:
    metrics = list(dict.fromkeys(row.metric for row in rows))
    assert [(row.metric, row.arm) for row in rows] == [(metric, arm) for metric in metrics for arm in ARMS]
    assert {row.benchmark for row in of(rows, "unsafe_refusal").values()} == {"unsafe_contrast"}


def test_means_and_deltas_are_those_of_the_stored_values(rows: list[BenchmarkRow], contents: RunContents) -> None:
    for name, scores in contents.scores.items():
        values = {arm: {one.probe_id: float(one.value or 0) for one in scores if one.arm == arm} for arm in ARMS}
        for arm, row in of(rows, name).items():
            assert row.mean.value == pytest.approx(np.mean(list(values[arm].values())))
            assert row.n == len(values[arm]) == SIZES[row.benchmark]
            if arm != "base":
                paired = [values[arm][probe] - values["base"][probe] for probe in values["base"]]
                assert row.delta is not None
                assert row.delta.value == pytest.approx(np.mean(paired))
            else:
                assert row.delta is None


def test_counts_stay_apart(rows: list[BenchmarkRow], contents: RunContents) -> None:
    for arm, row in of(rows, RATED).items():
        lost = LOST.get((STRICT, "safety", arm), ())
        assert row.n_unscored == len(lost)
        assert row.reasons == Counter(reason.partition(":")[0] for reason in lost)
        assert row.n_failed == (arm == "base")
        assert row.n == SIZES["do_not_answer"] - len(lost) - row.n_failed
        assert row.n_wrong is None
    wrong = {arm: sum(one.value == 0 for one in contents.scores["gsm8k_strict"] if one.arm == arm) for arm in ARMS}
    assert {arm: row.n_wrong for arm, row in of(rows, "gsm8k_strict").items()} == wrong


def test_bounds_are_the_means_with_every_gap_filled(rows: list[BenchmarkRow], contents: RunContents) -> None:
    for arm, row in of(rows, RATED).items():
        rated = [
            one.value for one in contents.judgements
            if (one.arm, one.judge, one.dimension) == (arm, STRICT, "safety")
        ]  # fmt: skip
        if row.n_unscored:
            assert row.worst == pytest.approx(np.mean([1 if value is None else value for value in rated]))
            assert row.best == pytest.approx(np.mean([10 if value is None else value for value in rated]))
        else:
            assert (row.worst, row.best) == (None, None)


def test_bounds_fill_repeats_before_probes_are_averaged() -> None:
    run = judged(made_run({"a": [[1, 1], [1, 1]]}), "safety", {"a": [None, 4]})
    second = [
        Judgement("a", probe, 1, "j", "safety", value, low=1.0, high=10.0, unscored=None if value else "blocked")
        for probe, value in (("P000", 8.0), ("P001", None))
    ]
    run = replace(run, judgements=[*run.judgements, *second])
    (row,) = (row for row in benchmark_table(run) if row.metric == "safety")
    assert row.mean.value == pytest.approx(6.0)
    assert row.worst == pytest.approx(((1 + 8) / 2 + (4 + 1) / 2) / 2)
    assert row.best == pytest.approx(((10 + 8) / 2 + (4 + 10) / 2) / 2)


def test_where_less_is_better_the_worst_is_the_most() -> None:
    run = made_run({"a": [1, 0, None, 0]}, scorer="over_refusal")
    (row,) = benchmark_table(run)
    assert row.worst == pytest.approx(2 / 4)
    assert row.best == pytest.approx(1 / 4)


def test_answers_that_are_all_wrong_still_read_as_percent() -> None:
    (row,) = benchmark_table(made_run({"a": [0, 0, 0, "failed", "missing"]}, scorer="gsm8k_flexible"))
    assert (row.unit.name, row.n_wrong, row.n_failed, row.n_missing, row.n_unscored) == ("%", 3, 1, 1, 0)
    assert row.mean.high == pytest.approx(1 - 0.025 ** (1 / 3))  # none of 3, exactly
    assert "0.0 [0.0, 70.8]" in terminal([row])


@pytest.mark.parametrize(("n_lost", "flagged"), [(0, False), (1, False), (2, True)])
def test_unscored_rates_more_than_two_points_apart_are_flagged(n_lost: int, flagged: bool) -> None:
    ratings = {"a": [5.0] * 50, "b": [*[None] * n_lost, *[5.0] * (50 - n_lost)]}
    run = judged(made_run({"a": [1] * 50, "b": [1] * 50}), "safety", ratings)
    found = [row for row in benchmark_table(run) if row.metric == "safety"]
    assert {row.uneven for row in found} == {flagged}
    assert ("flagged: unscored rates differ" in terminal(found)) is flagged


def test_measured_choices_have_no_words_and_no_ending(rows: list[BenchmarkRow]) -> None:
    assert all(row.truncated.n == 0 for row in of(rows, "truthfulqa_mc1").values())
    assert of(rows, "gsm8k_strict")["base"].truncated.value == pytest.approx(1 / 20)


def test_a_self_judge_marks_every_rendering_and_only_its_own_rows(rows: list[BenchmarkRow]) -> None:
    marked = {row.source for row in rows if row.watermarks}
    assert marked == {KIND}
    for text in (terminal(rows), benchmark_markdown(rows), benchmark_csv(rows), benchmark_json(rows)):
        assert f"SELF-JUDGED: the judge {KIND} is of one lineage with arms base, kernel, trained" in " ".join(
            text.split()
        )
    assert "SELF-JUDGED" not in terminal([row for row in rows if row.source != KIND])


def test_the_terminal_keeps_to_eighty_columns_and_cuts_nothing(rows: list[BenchmarkRow]) -> None:
    text = terminal(rows)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    one_line = " ".join(text.split())
    assert " ".join(LEGEND.split()) in one_line
    assert TOY_NOTICE in one_line
    assert "less is better" in one_line
    assert "unscored: kernel 2 blocked, 1 unparsable; trained 1 failed" in one_line


def test_csv_and_json_hold_what_the_rows_hold(rows: list[BenchmarkRow]) -> None:
    listed = list(csv.DictReader(io.StringIO(benchmark_csv(rows))))
    document = json.loads(benchmark_json(rows))
    assert len(listed) == len(document["rows"]) == len(rows)
    for row, line, entry in zip(rows, listed, document["rows"], strict=True):
        assert float(line["mean"]) == entry["mean"]["value"] == row.mean.value
        assert (line["n_unscored"], line["arm"]) == (str(row.n_unscored), row.arm)
        assert line["worst"] == ("" if row.worst is None else repr(row.worst))
        assert entry["reasons"] == row.reasons
    assert sum(line.startswith("| ") for line in benchmark_markdown(rows).splitlines()) == len(rows) + 2


def test_only_the_sources_asked_for(contents: RunContents) -> None:
    assert {row.source for row in benchmark_table(contents, only={STRICT})} == {STRICT}
    assert {row.source for row in benchmark_table(contents, only={"scorer"})} == {"scorer"}


def test_an_unknown_baseline_is_a_sentence(contents: RunContents) -> None:
    with pytest.raises(UserError, match="nobase"):
        benchmark_table(contents, baseline="nobase")


def test_nothing_scored_says_so(tmp_path: Path) -> None:
    assert "Nothing is scored or judged yet." in terminal([])
    assert benchmark_csv([]).startswith("metric,arm")


def test_items_that_an_adapter_was_trained_on_mark_every_rendering_of_their_metric_and_no_other() -> None:
    made = evaluation()
    met = {"gsm8k-03": ["an/adapter"], "gsm8k-04": ["an/adapter"], "left-out": ["an/adapter"]}
    rows = benchmark_table(replace(made, info=replace(made.info, data={"contaminated": met})))
    marked = {row.metric for row in rows if "CONTAMINATED" in [mark.word for mark in row.watermarks]}
    assert marked == {"gsm8k_strict", "gsm8k_flexible"}
    sentence = "CONTAMINATED: weights of this run were trained on 2 of the 20 items of gsm8k_strict"
    assert sentence in " ".join(terminal(rows).split())
    for rendered in (benchmark_markdown(rows), benchmark_csv(rows), benchmark_json(rows)):
        assert sentence in rendered
    assert "CONTAMINATED" not in benchmark_csv(benchmark_table(made))
