"""What became of every planned pair: lost answers and pairs never asked stay counted, and inside the bounds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_pairs import BASELINE, TREATMENT, compared, made_pairs

from lem.data.items import Item
from lem.judges.conduct import Pass, judge_pairs
from lem.judges.pairwise.outcomes import NOT_JUDGED, comparisons_of, outcomes_of, planned_tasks
from lem.judges.pairwise.panel import panel_win_rate
from lem.judges.pairwise.results import write_pair_results
from lem.judges.pairwise.win_rates import win_rate
from lem.judges.protocol import Call, Reply
from lem.records import Key, Outcome, RunContents
from lem.records.cells import UNFINISHED
from lem.records.contents import read_contents
from scripted_judge import ONE, TWO, ScriptedJudge, complete, evaluated, named, write_run

CUT = {"response": "", "thinking": "hm", "finish_reason": "length"}
BROKEN = {"response": None, "error": "out of memory", "finish_reason": None}


def with_answers(run: RunContents, changes: dict[tuple[str, int], dict[str, Any] | None]) -> RunContents:
    """The run with these answers, by arm and number of the probe, changed or (None) taken out."""
    by_key = {(arm, f"P{i:03d}"): change for (arm, i), change in changes.items()}
    records = []
    for record in run.records:
        change = by_key.get((record.arm, record.probe_id), {})
        if change is not None:
            records.append(replace(record, **change))
    return replace(run, records=records)


def of_benchmarks(run: RunContents, names: Sequence[str]) -> RunContents:
    probes = [{**probe, "benchmark": name} for probe, name in zip(run.info.probes, names, strict=True)]
    return replace(run, info=replace(run.info, probes=probes))


@pytest.mark.parametrize("arm", [BASELINE, TREATMENT])
def test_a_pair_without_two_answers_is_counted_for_what_it_is(arm: str) -> None:
    """Eight probes: four won, one lost, one cut off while thinking, one failed, one missing."""
    run = compared(made_pairs(8), ["AB"] * 4 + ["BA"] + ["AB"] * 3)
    run = with_answers(run, {(arm, 5): CUT, (arm, 6): BROKEN, (arm, 7): None})
    found = win_rate(run, BASELINE, TREATMENT, judge="j")
    assert (found.wins, found.ties, found.losses) == (4, 0, 1)
    assert (found.unscored, found.n_failed, found.n_missing, found.n_pairs) == ({UNFINISHED: 1}, 1, 1, 8)
    assert (found.estimate.value, found.estimate.n, found.estimate.n_unscored) == (pytest.approx(4 / 5), 5, 3)
    assert found.bounds == (pytest.approx(4 / 6), pytest.approx(5 / 6)), "of the six pairs that have answers"


def test_nothing_is_bounded_where_answers_failed_or_are_missing_only() -> None:
    run = with_answers(compared(made_pairs(3), ["AB"] * 3), {(TREATMENT, 0): BROKEN, (BASELINE, 1): None})
    found = win_rate(run, BASELINE, TREATMENT, judge="j")
    assert (found.n_failed, found.n_missing, found.unscored, found.bounds) == (1, 1, {}, None)


def test_a_failed_answer_is_failed_whatever_the_other_is() -> None:
    changes = {(TREATMENT, 0): BROKEN, (BASELINE, 0): None, (TREATMENT, 1): CUT, (BASELINE, 1): None,
               (TREATMENT, 2): CUT, (BASELINE, 2): BROKEN}  # fmt: skip
    run = with_answers(compared(made_pairs(4), ["AB"] * 4), changes)
    outcomes = [one.outcome for one in outcomes_of(run, BASELINE, TREATMENT, "j")]
    assert outcomes == [Outcome.FAILED, Outcome.MISSING, Outcome.FAILED, Outcome.SCORED]


def test_the_bounds_hold_every_way_in_which_unscored_pairs_could_have_ended() -> None:
    """Two repeats a probe, two variants of one source; all endings of the four unscored pairs are tried."""
    run = made_pairs(4, repeats=2, sources=["P000", "P000", "P002", "P003"])
    run = compared(compared(run, ["AB", "A-", "BA", None]), [None, "AB", "tt", "AB"], repeat=1)
    run = replace(run, records=[r for r in run.records if r.key != Key(TREATMENT, "P003", 1)])
    run = replace(run, records=[replace(r, **CUT) if r.key == Key(BASELINE, "P002", 0) else r for r in run.records])
    found = win_rate(run, BASELINE, TREATMENT, judge="j")
    assert (sum(found.unscored.values()), found.n_missing, found.n_pairs) == (4, 1, 8)
    known: dict[str, list[float | None]] = {"0": [1.0, None], "1": [None, 1.0], "2": [None, 0.5], "3": [None]}
    means = []
    for filling in itertools.product([0.0, 0.5, 1.0], repeat=4):
        rest = iter(filling)
        probe = {
            name: sum(next(rest) if value is None else value for value in values) / len(values)
            for name, values in known.items()
        }
        means.append(((probe["0"] + probe["1"]) / 2 + probe["2"] + probe["3"]) / 3)
    assert found.bounds == pytest.approx((min(means), max(means)))


def test_probes_with_measured_choices_are_no_pairs_not_even_where_they_failed() -> None:
    run = of_benchmarks(made_pairs(4), ["truthfulqa_mc", "truthfulqa_mc", "gsm8k", "gsm8k"])
    choices = {"response": '{"loglikelihoods": [-1.0]}', "finish_reason": "likelihood"}
    run = with_answers(run, {(TREATMENT, 0): choices, (BASELINE, 0): choices, (TREATMENT, 1): BROKEN})
    assert [one.key.probe_id for one in outcomes_of(run, BASELINE, TREATMENT, "j")] == ["P002", "P003"]
    assert planned_tasks(run, BASELINE, TREATMENT) == ["gsm8k"]


def test_choices_that_are_still_to_be_measured_are_no_pairs_either() -> None:
    run = of_benchmarks(made_pairs(3), ["truthfulqa_mc", "gsm8k", "gsm8k"])
    run = with_answers(run, {(TREATMENT, 0): None, (BASELINE, 0): None})
    asked = [{**probe, "choices": ["a", "b"]} if probe["id"] == "P000" else probe for probe in run.info.probes]
    run = replace(run, info=replace(run.info, probes=asked))
    assert [one.key.probe_id for one in outcomes_of(run, BASELINE, TREATMENT, "j")] == ["P001", "P002"]
    assert planned_tasks(run, BASELINE, TREATMENT) == ["gsm8k"]


def test_what_an_arm_was_never_to_answer_is_no_pair() -> None:
    run = compared(made_pairs(3), ["AB", "AB", "AB"])
    groups = {"b": {"arm": BASELINE, "repeat": 0, "probes": ["P000", "P001"]},
              "t": {"arm": TREATMENT, "repeat": 0, "probes": ["P000", "P001", "P002"]}}  # fmt: skip
    run = with_answers(replace(run, info=replace(run.info, groups=groups)), {(BASELINE, 1): None, (BASELINE, 2): None})
    found = win_rate(run, BASELINE, TREATMENT, judge="j")
    assert (found.wins, found.n_missing, found.n_pairs) == (1, 1, 2)


def test_excluded_probes_are_not_counted_as_failed_either() -> None:
    run = with_answers(compared(made_pairs(2), ["AB", "AB"]), {(TREATMENT, 0): BROKEN})
    found = win_rate(run, BASELINE, TREATMENT, judge="j", excluded=frozenset({"P000"}))
    assert (found.n_pairs, found.n_failed) == (1, 0)


def test_a_panel_counts_lost_answers_as_its_judges_do() -> None:
    run = compared(compared(made_pairs(4), ["AB"] * 4, "x"), ["AB", "AB", "AB", None], "y")
    run = with_answers(run, {(TREATMENT, 0): CUT, (BASELINE, 1): BROKEN})
    rate = panel_win_rate(run, BASELINE, TREATMENT, judges=["x", "y"]).rate
    assert (rate.wins, rate.n_failed, rate.n_pairs) == (1, 1, 4)
    assert rate.unscored == {UNFINISHED: 1, "no outcome by y": 1}
    assert rate.bounds == (pytest.approx(1 / 3), 1.0)


def test_a_judge_s_manifest_says_which_benchmarks_it_was_to_compare() -> None:
    names = ["gsm8k", "gsm8k", "toxigen", "toxigen", "ethics"]
    run = compared(of_benchmarks(made_pairs(5), names), ["AB", "AB", None, None, None])
    assert win_rate(run, BASELINE, TREATMENT, judge="j").n_pairs == 2, "what it has verdicts on, where nothing is known"
    entry = {"treatment": TREATMENT, "baseline": BASELINE, "tasks": ["gsm8k", "toxigen"]}
    run = replace(run, judges={"j": {"judge": "j", "compared": [entry]}})
    found = win_rate(run, BASELINE, TREATMENT, judge="j")
    assert (found.n_pairs, found.unscored, found.bounds) == (4, {NOT_JUDGED: 2}, (0.5, 1.0))
    other = replace(run, judges={"j": {"judge": "j", "compared": [{**entry, "tasks": ["toxigen"]}]}})
    assert win_rate(other, BASELINE, TREATMENT, judge="j").n_pairs == 4, "an earlier pass compared gsm8k"


class Ending(ScriptedJudge):
    """Prefers the second arm's answer in either slot and ends after so many replies, as a full budget does."""

    def __init__(self, n: int) -> None:
        super().__init__(prefer_second)
        self.left = n

    def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Iterator[Reply]:
        yield from itertools.islice(super().replies(calls, wanted), self.left)


def prefer_second(call: Call) -> Reply:
    return complete(call, verdict="A" if call.user.index("the 1. of") < call.user.index("the 0. of") else "B")


ITEMS = [
    *(Item(f"a{i}", "do_not_answer", f"Question {i}?", f"d{i}") for i in range(2)),
    *(Item(f"z{i}", "ethics", f"Probe {i}?", f"e{i}") for i in range(4)),
]


def test_a_pass_that_ended_early_leaves_no_benchmark_out(tmp_path: Path) -> None:
    """Both orders of the first benchmark's two pairs were judged, none of the second's four."""
    run = write_run(tmp_path / "run", evaluated(ITEMS), ITEMS)
    assert judge_pairs(run, Ending(4), Pass(), ONE, [TWO]).missing == 8
    [rate] = write_pair_results(run)["scripted"]
    assert (rate["wins"], rate["unscored"], rate["n_pairs"]) == (2, {NOT_JUDGED: 4}, 6)
    assert rate["bounds"] == (pytest.approx(2 / 6), 1.0)
    manifest = json.loads((run / "judgements" / "scripted.json").read_text())
    assert manifest["compared"] == [{"treatment": TWO, "baseline": ONE, "tasks": ["do_not_answer", "ethics"]}]


def test_a_benchmark_that_was_not_asked_for_is_no_part_until_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated(ITEMS), ITEMS)
    judge_pairs(run, Ending(99), Pass(), ONE, [TWO], ["do_not_answer"])
    assert (rate := write_pair_results(run)["scripted"][0])["n_pairs"] == 2
    assert rate["bounds"] is None
    judge_pairs(run, Ending(2), Pass(), ONE, [TWO], ["ethics"])
    [rate] = write_pair_results(run)["scripted"]
    assert (rate["wins"], rate["unscored"], rate["n_pairs"]) == (3, {NOT_JUDGED: 3}, 6)


def test_a_treatment_that_a_pass_did_not_reach_has_a_rate_of_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated(ITEMS, (ONE, TWO, "third")), ITEMS)
    judge_pairs(run, Ending(3), Pass(), ONE, [TWO, "third"])
    reached, never = write_pair_results(run)["scripted"]
    assert (reached["treatment"], never["treatment"]) == (TWO, "third")
    assert (never["n_pairs"], never["unscored"], never["bounds"]) == (6, {NOT_JUDGED: 6}, (0.0, 1.0))
    stored = json.loads((run / "judgements" / "scripted.pairs.json").read_text())
    assert stored[1]["estimate"]["value"] is None
    assert list(comparisons_of(read_contents(run))) == [(ONE, TWO), (ONE, "third")]


def test_an_arm_without_an_answer_is_counted_beside_one_that_has_them(tmp_path: Path) -> None:
    """Nothing of the second treatment can be asked, and it is in the table all the same."""
    whole = evaluated(ITEMS, (ONE, TWO, "third"))
    records = [replace(r, **BROKEN) if r.arm == "third" else r for r in whole.records]
    run = write_run(tmp_path / "run", replace(whole, records=records), ITEMS)
    judge_pairs(run, Ending(99), Pass(), ONE, [TWO, "third"])
    _, failed = write_pair_results(run)["scripted"]
    assert (failed["n_pairs"], failed["n_failed"], failed["unscored"], failed["bounds"]) == (6, 6, {}, None)


def test_a_judge_that_said_nothing_compared_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated(ITEMS), ITEMS)
    judge_pairs(run, Ending(99), Pass(), ONE, [TWO])
    before = comparisons_of(read_contents(run))
    silent = replace(read_contents(run), judges={"other": {"judge": "other", "compared": [
        {"treatment": ONE, "baseline": TWO, "tasks": ["ethics"]}]}})  # fmt: skip
    assert comparisons_of(silent) == before, "a judge that never said anything"
    assert judge_pairs(run, ScriptedJudge(identity=named("second")), Pass(), ONE, [TWO]).missing == 0
    assert comparisons_of(read_contents(run)) == {(ONE, TWO): ["scripted", "second"]}
