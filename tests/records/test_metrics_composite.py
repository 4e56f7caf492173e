"""A composite is the mean of all its parts, or nothing: a missing or unscored part has no stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from lem.records import Judgement, Record, RunContents, RunInfo, Score, text_sha
from lem.records.cells import NOT_SCORED, STALE, UNFINISHED, Outcome
from lem.records.metrics import COMPOSITES, CONTINUOUS, Metric, metrics_of

PARTS = ("sovereignty", "ethical_depth", "creative_expression", "self_concept")
PROBES = ("e1", "e2", "g1")


def rated(ratings: Mapping[tuple[str, str, str], float | None], judge: str = "j") -> list[Judgement]:
    """Ratings by (arm, probe, dimension); None is unscored."""
    return [
        Judgement(
            arm, probe, 0, judge, dimension, value, low=1.0, high=10.0, unscored="blocked" if value is None else None,
            record_sha=text_sha(f"{arm} on {probe}"), version=dimension,
        )
        for (arm, probe, dimension), value in ratings.items()
    ]  # fmt: skip


def a_run(judgements: list[Judgement]) -> RunContents:
    benchmarks = {"e1": "ethics", "e2": "ethics", "g1": "gsm8k"}
    probes = [{"id": p, "domain": "", "prompt": p, "benchmark": benchmarks[p]} for p in PROBES]
    records = [Record("r", arm, p, 0, f"{arm} on {p}", finish_reason="stop") for arm in ("a", "b") for p in PROBES]
    info = RunInfo("r", "eval", "done", {"a": {}, "b": {}}, {"repeats": 1}, probes=probes)
    return RunContents(info, records, {}, judgements)


def whole() -> dict[tuple[str, str, str], float | None]:
    values = iter([2, 4, 5, 9, 1, 1, 1, 1, 10, 10, 10, 10, 3, 3, 4, 4])
    return {(arm, probe, part): float(next(values)) for arm in ("a", "b") for probe in ("e1", "e2") for part in PARTS}


def composite(run: RunContents, name: str = "ethics") -> Metric:
    return {metric.name: metric for metric in metrics_of(run)}[name]


def test_the_published_composite_is_of_these_four() -> None:
    assert COMPOSITES["ethics"] == PARTS


def test_it_is_the_mean_of_its_parts_over_its_own_benchmark() -> None:
    metric = composite(a_run(rated(whole())))
    assert {cell.key[:2]: cell.value for cell in metric.cells} == {
        ("a", "e1"): 5.0, ("a", "e2"): 1.0, ("b", "e1"): 10.0, ("b", "e2"): 3.5,
    }  # fmt: skip
    assert (metric.kind, metric.low, metric.high, metric.source) == (CONTINUOUS, 1.0, 10.0, "j")


@pytest.mark.parametrize("part", PARTS)
def test_an_unscored_part_leaves_no_mean_and_says_why(part: str) -> None:
    metric = composite(a_run(rated({**whole(), ("a", "e1", part): None})))
    cells = {cell.key[:2]: cell for cell in metric.cells}
    assert (cells["a", "e1"].outcome, cells["a", "e1"].value) == (Outcome.UNSCORED, None)
    assert cells["a", "e1"].reason == "blocked"
    assert cells["b", "e1"].value == 10.0


def test_a_part_that_was_not_asked_for_is_no_zero_and_no_mean_of_three() -> None:
    some = {key: value for key, value in whole().items() if key != ("a", "e2", "self_concept")}
    metric = composite(a_run(rated(some)))
    cells = {cell.key[:2]: cell for cell in metric.cells}
    assert (cells["a", "e2"].outcome, cells["a", "e2"].reason) == (Outcome.UNSCORED, "not rated on every part")
    never = {key: value for key, value in whole().items() if key[2] != "self_concept"}
    assert "ethics" not in {metric.name for metric in metrics_of(a_run(rated(never)))}


def test_an_answer_that_no_part_was_rated_of_is_unscored() -> None:
    some = {key: value for key, value in whole().items() if key[:2] != ("b", "e2")}
    cells = {cell.key[:2]: cell for cell in composite(a_run(rated(some))).cells}
    assert (cells["b", "e2"].outcome, cells["b", "e2"].reason) == (Outcome.UNSCORED, NOT_SCORED)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_rated_on_an_earlier_answer_is_no_part_of_the_mean(part: str) -> None:
    """The answer was made anew and only some dimensions were judged again."""
    rows = [
        replace(row, record_sha="0" * 64) if (row.arm, row.probe_id, row.dimension) == ("a", "e1", part) else row
        for row in rated(whole())
    ]
    cells = {cell.key[:2]: cell for cell in composite(a_run(rows)).cells}
    assert (cells["a", "e1"].outcome, cells["a", "e1"].reason) == (Outcome.UNSCORED, STALE)
    assert cells["a", "e2"].value == 1.0


def test_each_judge_has_its_own() -> None:
    twice = {key: None if value is None else 11 - value for key, value in whole().items()}
    run = a_run([*rated(whole()), *rated(twice, "k")])
    assert composite(run, "ethics · j").cells[0].value == 5.0
    assert composite(run, "ethics · k").cells[0].value == 6.0


def test_a_failed_call_is_unscored_in_every_metric() -> None:
    rows = rated(whole())
    rows[0] = replace(rows[0], value=None, unscored="failed: timeout", error="timeout")
    run = a_run(rows)
    for name in ("sovereignty", "ethics"):
        cell = composite(run, name).cells[0]
        assert (cell.outcome, cell.value, cell.reason) == (Outcome.UNSCORED, None, "failed: timeout")


def test_dimensions_stand_in_the_order_of_the_judge_s_rubrics_and_not_of_its_replies() -> None:
    replies = sorted(rated(whole()), key=lambda one: one.dimension)
    assert replies[0].dimension == "creative_expression"
    run = a_run(replies)
    assert [m.name for m in metrics_of(run)][:2] == ["creative_expression", "ethical_depth"]
    run = replace(run, judges={"j": {"judge": "j", "rubrics": dict.fromkeys(PARTS, "1")}})
    assert [m.name for m in metrics_of(run)] == [*PARTS, "ethics"]


@pytest.mark.parametrize(("values", "low"), [((0.0, 0.5), 0.0), ((0.0, 7.0), None)])
def test_an_imported_score_of_a_benchmark_s_name_is_no_share_unless_its_values_are(
    values: tuple[float, float], low: float | None
) -> None:
    run = a_run([])
    scores = [Score(arm, "g1", 0, "over_refusal", "x", value, {}) for arm, value in zip("ab", values, strict=True)]
    (metric,) = metrics_of(replace(run, scores={"over_refusal": scores}))
    assert (metric.low, metric.kind) == (low, CONTINUOUS)
    graded = [replace(score, scorer="gsm8k") for score in scores]
    (metric,) = metrics_of(replace(run, scores={"gsm8k": graded}))
    assert (metric.low, metric.kind) == (None, CONTINUOUS)


def test_an_answer_cut_off_while_thinking_says_so_to_every_judge() -> None:
    run = a_run(rated({("a", "e1", "safety"): 4.0, ("b", "e1", "safety"): 4.0}))
    cut = [
        replace(one, thinking="...", response="", finish_reason="length") if one.key == ("a", "e2", 0) else one
        for one in run.records
    ]
    (metric,) = metrics_of(replace(run, records=cut))
    reasons = {cell.key: cell.reason for cell in metric.cells}
    assert (reasons["a", "e2", 0], reasons["b", "e2", 0]) == (UNFINISHED, NOT_SCORED)
