"""Win rates: what enters them, and their intervals against the statistics that they are said to be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_pairs import BASELINE, TREATMENT, Verdicts, compared, made_pairs
from scipy import stats as sps

from lem.judges.pairwise.length import CHARACTERS, TOKENS, length_controlled_win_rate
from lem.judges.pairwise.outcomes import NOT_JUDGED
from lem.judges.pairwise.pairs import ONE_ORDER
from lem.judges.pairwise.win_rates import WinRate, win_rate
from lem.records import RunContents
from lem.stats import cluster_t_test, headline, sign_flip

MIXED: list[Verdicts] = ["AB", "BA", "AB", "tt", "AA", "AB", "At", "BA", "AB", "AB", "BB", "AB"]
VALUES = [1.0, 0.0, 1.0, 0.5, 0.5, 1.0, 0.5, 0.0, 1.0, 1.0, 0.5, 1.0]


def of(run: RunContents, judge: str = "j") -> WinRate:
    return win_rate(run, BASELINE, TREATMENT, judge=judge)


def test_ties_count_half_and_the_interval_is_the_headline_one() -> None:
    found = of(compared(made_pairs(12), MIXED))
    expected = headline(VALUES)
    assert found.estimate.value == pytest.approx(8 / 12)
    assert (found.estimate.low, found.estimate.high) == (expected.low, min(1.0, expected.high))
    assert (found.n_pairs, found.wins, found.ties, found.losses, found.inconsistent) == (12, 6, 4, 2, 3)
    assert found.p == sign_flip([v - 0.5 for v in VALUES]).p
    assert (found.unscored, found.bounds) == ({}, None)


def test_domains_are_clusters() -> None:
    domains = list("aaabbbcccddd")
    found = of(compared(made_pairs(12, domains=domains), MIXED))
    expected = headline(VALUES, domains)
    assert (found.estimate.low, found.estimate.n_clusters) == (expected.low, 4)
    differences = [v - 0.5 for v in VALUES]
    assert found.p == max(sign_flip(differences).p, cluster_t_test(differences, domains).p)


def test_repeats_are_averaged_before_probes_and_variants_before_sources() -> None:
    run = made_pairs(3, repeats=2, sources=["P000", "P000", "P002"])
    for repeat, verdicts in enumerate((["AB", "AB", "BA"], ["AB", "tt", "BA"])):
        run = compared(run, verdicts, repeat=repeat)
    found = of(run)
    assert (found.estimate.n, found.n_pairs) == (2, 6)
    assert found.estimate.value == pytest.approx(np.mean([np.mean([1.0, 0.75]), 0.0]))


def test_a_clean_sweep_has_the_exact_interval() -> None:
    found = of(compared(made_pairs(9), ["AB"] * 9))
    assert (found.estimate.value, found.estimate.low) == (1.0, pytest.approx(0.025 ** (1 / 9)))
    assert found.controlled is not None
    assert not found.length_matters


def test_consistency_and_slots_are_of_pairs() -> None:
    found = of(compared(made_pairs(12), MIXED))
    low, high = sps.beta(9, 4).ppf(0.025), sps.beta(10, 3).ppf(0.975)
    assert (found.consistency.value, found.consistency.n) == (9 / 12, 12)
    assert (found.consistency.low, found.consistency.high) == pytest.approx((low, high))
    assert not found.consistent
    assert (found.slot_lean.value, found.slot_lean.n) == (2 / 3, 3)  # AA and At lean to the first, BB to the second
    assert found.first_slot.value == pytest.approx((9 * 0.5 + 1.0 + 0.75 + 0.0) / 12)


def test_a_judge_that_takes_whatever_comes_first_says_nothing_and_is_seen() -> None:
    found = of(compared(made_pairs(20), ["AA"] * 20))
    assert (found.estimate.value, found.ties, found.inconsistent) == (0.5, 20, 20)
    assert (found.consistency.value, found.first_slot.value, found.slot_lean.value) == (0.0, 1.0, 1.0)
    assert found.slot_lean.low == pytest.approx(0.025 ** (1 / 20))
    assert not found.consistent
    assert found.p == 1.0


def test_a_judge_without_a_changed_verdict_has_no_lean() -> None:
    found = of(compared(made_pairs(4), ["AB", "AB", "BA", "tt"]))
    assert found.consistent
    assert found.first_slot.value == 0.5
    assert math.isnan(found.slot_lean.value)


def test_unscored_pairs_are_counted_by_reason_and_bounded() -> None:
    found = of(compared(made_pairs(6), ["AB", "AB", "BA", "A-", "A.", None]))
    assert found.unscored == {"unparsable": 1, ONE_ORDER: 1, NOT_JUDGED: 1}
    assert (found.estimate.value, found.estimate.n, found.estimate.n_unscored) == (pytest.approx(2 / 3), 3, 3)
    assert found.bounds == (pytest.approx(2 / 6), pytest.approx(5 / 6))


def test_nothing_judged_is_no_win_rate() -> None:
    found = of(made_pairs(3))
    assert math.isnan(found.estimate.value)
    assert (found.controlled, found.length_matters, found.unscored) == (None, False, {NOT_JUDGED: 3})
    assert found.bounds == (0.0, 1.0)


def longer(n: int, seed: int, b: float) -> RunContents:
    """The treatment's answers are longer for the most part, and a judge likes length by b log-odds a unit of log."""
    rng = np.random.default_rng(seed)
    base, treated = (np.exp(rng.normal(center, 0.5, n)).astype(int) + 1 for center in (4.0, 4.7))
    won = rng.random(n) < 1 / (1 + np.exp(-b * np.log(treated / base)))
    run = made_pairs(n, lengths={BASELINE: base.tolist(), TREATMENT: treated.tolist()})
    return compared(run, ["AB" if w else "BA" for w in won])


def test_length_alone_is_taken_for_no_merit() -> None:
    run = longer(200, 5, 2.5)
    found = of(run)
    assert found.estimate.low > 0.6
    assert found.controlled is not None
    assert found.controlled.estimate.low < 0.5 < found.controlled.estimate.high
    assert found.length_matters
    assert found.controlled.unit == TOKENS
    sizes = {arm: [r.n_tokens or 0 for r in run.records if r.arm == arm] for arm in (BASELINE, TREATMENT)}
    assert found.controlled.treatment_length.value == pytest.approx(np.mean(sizes[TREATMENT]))
    assert found.controlled.baseline_length.value == pytest.approx(np.mean(sizes[BASELINE]))
    values = [one.value for one in run.judgements if one.order == "ab" and one.value is not None]
    ratios = np.log(sizes[TREATMENT]) - np.log(sizes[BASELINE])
    expected, _ = length_controlled_win_rate(values, ratios.tolist())
    assert found.controlled.estimate.value == pytest.approx(expected.value)
    assert found.controlled.estimate.low == pytest.approx(expected.low)


def test_length_matters_beyond_half_of_the_interval() -> None:
    """Beyond half and within the whole, and within half."""
    for b, matters in ((0.9, True), (0.4, False)):
        found = of(longer(200, 5, b))
        assert found.controlled is not None
        shift = abs(found.estimate.value - found.controlled.estimate.value)
        assert found.estimate.width / 8 < shift < found.estimate.width
        assert found.length_matters == matters == (shift > (found.estimate.high - found.estimate.low) / 2)


def test_a_judge_indifferent_to_length_keeps_its_win_rate() -> None:
    found = of(longer(200, 6, 0.0))
    assert found.controlled is not None
    assert not found.length_matters
    assert not found.controlled.extrapolated
    assert found.controlled.estimate.low < 0.5 < found.controlled.estimate.high


def test_lengths_that_do_not_overlap_are_said_to_be_extrapolated() -> None:
    lengths = {BASELINE: [10] * 12, TREATMENT: [20 + i for i in range(12)]}
    found = of(compared(made_pairs(12, lengths=lengths), MIXED))
    assert found.controlled is not None
    assert found.controlled.extrapolated


@pytest.mark.parametrize("change", [{"n_tokens": None}, {"thinking": "let me see"}])
def test_tokens_are_counted_only_where_they_are_what_the_judge_reads(change: dict[str, str | None]) -> None:
    run = compared(made_pairs(12), MIXED)
    records = [replace(run.records[0], **change), *run.records[1:]]  # type: ignore[arg-type]
    found = of(replace(run, records=records)).controlled
    assert found is not None
    assert found.unit == CHARACTERS
    assert found.treatment_length.value == 9


def test_tokens_of_two_models_are_not_compared() -> None:
    run = compared(made_pairs(12), MIXED)
    run.info.arms[BASELINE]["model_sha"] = "b"
    found = of(run).controlled
    assert found is not None
    assert found.unit == CHARACTERS


def test_benchmarks_that_were_not_compared_are_not_unscored_pairs() -> None:
    run = made_pairs(6)
    names = ["gsm8k"] * 3 + ["do_not_answer"] * 3
    probes = [{**probe, "benchmark": name} for probe, name in zip(run.info.probes, names, strict=True)]
    run = replace(run, info=replace(run.info, probes=probes))
    found = win_rate(compared(run, [None] * 3 + ["AB", "AB", "BA"]), BASELINE, TREATMENT, judge="j")
    assert (found.n_pairs, found.unscored, found.bounds) == (3, {}, None)
    part = win_rate(compared(run, [None] * 3 + ["AB", "AB", None]), BASELINE, TREATMENT, judge="j")
    assert (part.n_pairs, sum(part.unscored.values())) == (3, 1)
