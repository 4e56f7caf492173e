"""Pairs: what is to be compared, and what two orders of one comparison amount to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_pairs import BASELINE, TREATMENT, compared, made_pairs

from lem.errors import DataError
from lem.judges.grade import PAIR_VALUES
from lem.judges.pairwise.outcomes import NOT_JUDGED, outcomes_of, pair_judges
from lem.judges.pairwise.pairs import ONE_ORDER, ORDERS, STALE, PairOutcome, pair_outcomes, pair_plan, pair_sha
from lem.records import Key, Record


def key(i: int, repeat: int = 0) -> Key:
    return Key(TREATMENT, f"P{i:03d}", repeat)


def test_every_pair_of_answers_is_planned_in_both_orders() -> None:
    run = made_pairs(2, repeats=2)
    wanted = [(key(i, repeat), order) for i in (0, 1) for repeat in (0, 1) for order in ("ab", "ba")]
    assert pair_plan(run, BASELINE, TREATMENT) == wanted
    assert [k.arm for k, _ in pair_plan(run, TREATMENT, BASELINE)] == [BASELINE] * 8
    assert pair_plan(replace(run, records=run.records[::-1]), BASELINE, TREATMENT) == wanted


@pytest.mark.parametrize(
    "change",
    [
        {"response": None, "error": "out of memory"},
        {"response": "", "thinking": "hm", "finish_reason": "length"},
        {"response": '{"loglikelihoods": [-1.0]}', "finish_reason": "likelihood"},
    ],
)
@pytest.mark.parametrize("arm", [BASELINE, TREATMENT])
def test_a_pair_needs_an_answer_on_either_side(change: dict[str, str], arm: str) -> None:
    run = made_pairs(2)
    at = next(i for i, record in enumerate(run.records) if record.key == Key(arm, "P000", 0))
    records = [*run.records[:at], replace(run.records[at], **change), *run.records[at + 1 :]]  # type: ignore[arg-type]
    assert pair_plan(replace(run, records=records), BASELINE, TREATMENT) == [(key(1), "ab"), (key(1), "ba")]
    assert pair_plan(replace(run, records=run.records[1:]), BASELINE, TREATMENT) == [(key(1), "ab"), (key(1), "ba")]


@pytest.mark.parametrize(
    ("verdicts", "value", "agreed", "first_slot"),
    [
        ("AB", 1.0, True, 0.5),  # the treatment both times
        ("BA", 0.0, True, 0.5),
        ("tt", 0.5, True, 0.5),
        ("AA", 0.5, False, 1.0),  # whatever came first
        ("BB", 0.5, False, 0.0),
        ("At", 0.5, False, 0.75),
        ("tA", 0.5, False, 0.75),
        ("tB", 0.5, False, 0.25),
        ("Bt", 0.5, False, 0.25),
    ],
)
def test_both_orders_make_one_outcome(verdicts: str, value: float, agreed: bool, first_slot: float) -> None:
    run = compared(made_pairs(1), [verdicts])
    assert outcomes_of(run, BASELINE, TREATMENT, "j") == [PairOutcome(key(0), value, agreed, first_slot)]
    slots = [(1.0, 0.5, 0.0)["AtB".index(letter)] for letter in verdicts]
    assert first_slot == sum(slots) / 2


def test_the_values_are_those_that_grading_stores() -> None:
    """The made-up runs of these tests turn slots into values as the pass that stores judgements does."""
    for (order, verdict), value in PAIR_VALUES.items():
        letters = ["t", "t"]
        letters[ORDERS.index(order)] = "t" if verdict == "tie" else verdict
        run = compared(made_pairs(1), ["".join(letters)])
        assert next(one.value for one in run.judgements if one.order == order) == value


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [("A.", ONE_ORDER), (".B", ONE_ORDER), ("A-", "unparsable"), ("--", "unparsable"), (None, NOT_JUDGED)],
)
def test_a_pair_without_two_verdicts_has_no_outcome(verdicts: str | None, reason: str) -> None:
    run = compared(made_pairs(1), [verdicts])
    assert outcomes_of(run, BASELINE, TREATMENT, "j") == [PairOutcome(key(0), None, reason=reason)]


def test_a_failed_call_is_no_outcome() -> None:
    run = compared(made_pairs(1), ["AB"])
    failed = replace(run.judgements[1], value=None, error="timeout")
    found = outcomes_of(replace(run, judgements=[run.judgements[0], failed]), BASELINE, TREATMENT, "j")
    assert found[0].reason == "timeout"


@pytest.mark.parametrize("arm", [BASELINE, TREATMENT])
def test_an_answer_made_anew_on_either_side_makes_the_verdict_stale(arm: str) -> None:
    run = compared(made_pairs(2), ["AB", "AB"])
    records = [replace(r, response="another") if r.key == Key(arm, "P000", 0) else r for r in run.records]
    found = outcomes_of(replace(run, records=records), BASELINE, TREATMENT, "j")
    assert [(outcome.value, outcome.reason) for outcome in found] == [(None, STALE), (1.0, None)]


def test_the_hash_of_a_pair_knows_whose_answer_is_whose() -> None:
    one, two = (Record("r", "a", "P", 0, text) for text in ("x", 'y", "z'))
    assert pair_sha(one, two) != pair_sha(two, one)
    assert pair_sha(one, two) != pair_sha(replace(one, response='x", "y'), replace(two, response="z"))


def test_only_the_judge_and_the_arms_asked_for_count() -> None:
    run = compared(compared(made_pairs(1), ["AB"]), ["BA"], judge="k")
    other = [replace(one, against="placebo", value=0.0) for one in run.judgements]
    run = replace(run, judgements=[*other, *run.judgements])
    assert [outcomes_of(run, BASELINE, TREATMENT, judge)[0].value for judge in "jk"] == [1.0, 0.0]
    assert pair_judges(run, BASELINE, TREATMENT) == ["j", "k"]
    assert pair_judges(run, TREATMENT, BASELINE) == []
    with pytest.raises(ValueError, match="several judges"):
        pair_outcomes(run.judgements)


def test_excluded_probes_do_not_exist() -> None:
    run = compared(made_pairs(2), ["AB", "AB"])
    found = outcomes_of(run, BASELINE, TREATMENT, "j", excluded={"P000": "seen in training"})
    assert [outcome.key for outcome in found] == [key(1)]


def test_two_versions_or_a_rating_among_comparisons_are_refused() -> None:
    run = compared(made_pairs(2), ["AB", "AB"])
    mixed = [replace(run.judgements[0], version="v1"), *run.judgements[1:]]
    with pytest.raises(DataError, match=r"by 'j' come from versions \(none\), v1"):
        pair_outcomes(mixed)
    with pytest.raises(DataError, match=r"on probe P000 has the value 0\.7"):
        pair_outcomes([replace(run.judgements[0], value=0.7), *run.judgements[1:]])
    assert pair_outcomes([replace(run.judgements[0], order="", value=7.0)]) == []
