"""Corrected shares against the equations of the paper in longhand, against truth by simulation, and at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lem.stats import rate
from lem.stats.corrected import corrected_rate


def longhand(k: int, n: float, k_se: int, n_se: int, k_sp: int, n_sp: int, z: float = 1.959964) -> tuple[float, float]:
    """Equations 4, 6, 7, 16 and 17 of Lang and Reiczigel (2014), without limits to [0, 1]."""
    n1, se1, sp1 = n + z**2, (k_se + 1) / (n_se + 2), (k_sp + 1) / (n_sp + 2)
    p1 = (n * (k / n) + z**2 / 2) / n1
    prev = (p1 + sp1 - 1) / (se1 + sp1 - 1)
    shift = 2 * z**2 * (prev * se1 * (1 - se1) / (n_se + 2) - (1 - prev) * sp1 * (1 - sp1) / (n_sp + 2))
    parts = p1 * (1 - p1) / n1 + prev**2 * se1 * (1 - se1) / (n_se + 2) + (1 - prev) ** 2 * sp1 * (1 - sp1) / (n_sp + 2)
    half = z * math.sqrt(parts / (se1 + sp1 - 1) ** 2)
    return prev + shift - half, prev + shift + half


def test_the_corrected_share_and_its_limits_in_longhand() -> None:
    """40% positive by a judge of 85/90: (0.40 + 0.90 - 1) / (0.85 + 0.90 - 1) = 0.40."""
    found = corrected_rate(120, 300, 51, 60, 63, 70)
    assert found.corrected.value == pytest.approx((0.40 + 0.90 - 1) / (0.85 + 0.90 - 1))
    low, high = longhand(120, 300, 51, 60, 63, 70)
    assert (found.corrected.low, found.corrected.high) == pytest.approx((low, high), abs=1e-5)
    assert found.sensitivity == rate(51, 60)
    assert found.specificity == rate(63, 70)
    assert found.observed == rate(120, 300)
    assert found.identified
    assert not found.why


def test_errors_of_the_judge_widen_the_interval_and_an_exact_judge_changes_little() -> None:
    few = corrected_rate(120, 300, 17, 20, 18, 20).corrected
    many = corrected_rate(120, 300, 850, 1000, 900, 1000).corrected
    assert few.width > 1.3 * many.width
    exact = corrected_rate(120, 300, 100_000, 100_000, 100_000, 100_000).corrected
    assert exact.value == pytest.approx(0.4)
    assert (exact.low, exact.high) == pytest.approx((rate(120, 300).low, rate(120, 300).high), abs=0.005)


def test_clustered_answers_count_for_fewer() -> None:
    plain = corrected_rate(120, 300, 51, 60, 63, 70).corrected
    wide = corrected_rate(120, 300, 51, 60, 63, 70, design_effect=4.0).corrected
    assert (wide.low, wide.high) == pytest.approx(longhand(30, 75, 51, 60, 63, 70), abs=1e-5)
    assert wide.value == plain.value
    assert wide.n == 300
    assert corrected_rate(120, 300, 51, 60, 63, 70, design_effect=0.2).corrected == plain


def test_what_lies_outside_is_clipped() -> None:
    """Fewer positives than the judge's false alarms alone give: the estimate would be below zero."""
    found = corrected_rate(20, 300, 51, 60, 63, 70).corrected
    low, high = longhand(20, 300, 51, 60, 63, 70)
    assert low < 0 < high
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(high, abs=1e-5)
    found = corrected_rate(265, 300, 51, 60, 63, 70).corrected
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low < 1


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ((120, 300, 30, 60, 35, 70), "is at most 1"),
        ((120, 300, 20, 60, 20, 70), "is at most 1"),
        ((120, 300, 0, 0, 20, 70), "no answer was labelled positive"),
        ((120, 300, 20, 60, 0, 0), "no answer was labelled negative"),
        ((0, 0, 51, 60, 63, 70), "nothing was rated"),
        ((0, 300, 51, 60, 63, 70), "lies outside 0 to 1"),
    ],
)
def test_a_judge_without_power_identifies_nothing(counts: tuple[int, ...], why: str) -> None:
    found = corrected_rate(*counts)
    assert not found.identified
    assert why in found.why
    assert all(math.isnan(number) for number in (found.corrected.value, found.corrected.low, found.corrected.high))


def test_a_judge_that_may_be_without_power_bounds_nothing() -> None:
    """60% and 50% of ten each: better than chance as measured, and well within the error of chance."""
    found = corrected_rate(120, 300, 6, 10, 5, 10)
    assert found.identified
    assert (found.corrected.low, found.corrected.high) == (0.0, 1.0)
    assert "may be 1 or less" in found.why


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5 successes out of 4"):
        corrected_rate(1, 2, 5, 4, 1, 2)


@pytest.mark.parametrize("truth", [0.1, 0.8])
@pytest.mark.parametrize(("sens", "spec", "n_labelled"), [(0.85, 0.9, 60), (0.7, 0.95, 60), (0.95, 0.75, 100)])
def test_the_interval_covers(truth: float, sens: float, spec: float, n_labelled: int) -> None:
    """400 draws of a judged run of 300 answers and a labelled sample; four Monte Carlo errors are 4.4 points."""
    rng = np.random.default_rng(5)
    draws, n = 400, 300
    n_positive = np.maximum(1, rng.binomial(n_labelled, truth, draws))
    counts = np.column_stack([
        rng.binomial(n, truth * sens + (1 - truth) * (1 - spec), draws), np.full(draws, n),
        rng.binomial(n_positive, sens), n_positive,
        rng.binomial(np.maximum(1, n_labelled - n_positive), spec), np.maximum(1, n_labelled - n_positive),
    ])  # fmt: skip
    found = [corrected_rate(*map(int, row)).corrected for row in counts]
    known = [one for one in found if not math.isnan(one.low)]
    assert len(known) > 0.97 * draws
    assert np.mean([one.low <= truth <= one.high for one in known]) > 0.95 - 0.044


def test_the_share_as_reported_misses_what_the_corrected_one_holds() -> None:
    """80% of truth is reported as 69% by a judge of 85/95: the uncorrected interval is about another number."""
    rng = np.random.default_rng(6)
    reported = [int(k) for k in rng.binomial(300, 0.8 * 0.85 + 0.2 * 0.05, 100)]
    naive = [rate(k, 300) for k in reported]
    corrected = [corrected_rate(k, 300, 85, 100, 95, 100).corrected for k in reported]
    assert np.mean([one.low <= 0.8 <= one.high for one in naive]) < 0.1
    assert np.mean([one.low <= 0.8 <= one.high for one in corrected]) > 0.9
