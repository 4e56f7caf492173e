"""Cliff's delta against counted pairs, McNemar's test against the binomial one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from lem.stats import cliffs_delta, mcnemar

pairs = st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=2, max_size=20)


def counted(treatment: np.ndarray, baseline: np.ndarray) -> float:
    return float(np.sign(treatment[:, None] - baseline[None, :]).mean())


@settings(max_examples=25, deadline=None)
@given(pairs)
def test_delta_counts_all_pairs(rows: list[tuple[int, int]]) -> None:
    treatment, baseline = np.asarray(rows, dtype=float).T
    found = cliffs_delta(treatment, baseline, n_resamples=99)
    assert found.value == pytest.approx(counted(treatment, baseline), abs=1e-12)
    assert found.n == len(rows)
    mirrored = cliffs_delta(baseline, treatment, n_resamples=99)
    assert mirrored.value == pytest.approx(-found.value, abs=1e-12)


def test_its_interval_is_bca_over_pairs_of_values() -> None:
    """Arms that are alike up to a small step in each probe: unpaired resampling would be several times as wide."""
    rng = np.random.default_rng(6)
    baseline = rng.normal(0, 3, 40)
    treatment = baseline + rng.normal(0.3, 0.2, 40)
    rows = rng.integers(0, 40, (6000, 40))
    draws = np.asarray([counted(treatment[row], baseline[row]) for row in rows])
    value = counted(treatment, baseline)
    kept = [np.delete(np.arange(40), row) for row in range(40)]
    jackknife = np.asarray([counted(treatment[rest], baseline[rest]) for rest in kept])
    away = jackknife.mean() - jackknife
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    bias = sps.norm.ppf(((draws < value).mean() + (draws <= value).mean()) / 2)
    found = cliffs_delta(treatment, baseline)
    assert found.stderr == pytest.approx(draws.std(), rel=0.1)
    for end, z in ((found.low, -1.96), (found.high, 1.96)):
        share = sps.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        assert end == pytest.approx(np.quantile(draws, share), abs=0.5 * draws.std())
    unpaired = [counted(treatment[a], baseline[b]) for a, b in zip(rows[:400], rows[400:800], strict=True)]
    assert np.std(unpaired) > 4 * found.stderr


def test_large_samples_have_the_normal_interval() -> None:
    rng = np.random.default_rng(9)
    baseline = rng.integers(1, 11, 1500).astype(float)
    treatment = np.clip(baseline + rng.integers(-2, 4, 1500), 1, 10)
    found = cliffs_delta(treatment, baseline)
    rows = rng.integers(0, 1500, (200, 1500))
    draws = np.asarray([counted(treatment[row], baseline[row]) for row in rows])
    assert found.method.endswith("normal (n > 1,000)")
    assert found.stderr == pytest.approx(draws.std(), rel=0.2)
    assert found.value == pytest.approx(counted(treatment, baseline))


def test_delta_at_its_ends_and_without_values() -> None:
    apart = cliffs_delta([5.0, 6.0, 7.0], [1.0, 2.0, 3.0])
    assert (apart.low, apart.value, apart.high) == (1.0, 1.0, 1.0)
    assert "no variation" in apart.method
    same = cliffs_delta([4.0] * 5, [4.0] * 5)
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)
    assert math.isnan(cliffs_delta([], []).value)
    one = cliffs_delta([2.0], [1.0])
    assert (one.value, one.n) == (1.0, 1)
    assert math.isnan(one.low)
    with pytest.raises(ValueError, match="length"):
        cliffs_delta([1.0], [])
    with pytest.raises(ValueError, match="NaN"):
        cliffs_delta([1.0, math.nan], [1.0, 2.0])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_a_binomial_test_of_the_changed(rows: list[tuple[bool, bool]]) -> None:
    gained = sum(t and not b for t, b in rows)
    lost = sum(b and not t for t, b in rows)
    found = mcnemar([float(t) for t, _ in rows], [float(b) for _, b in rows])
    expected = sps.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found.p == pytest.approx(expected)
    assert found.statistic == min(gained, lost)
    assert found.note == f"{gained} turned to 1, {lost} to 0"
    assert (found.n, found.exact) == (len(rows), True)


def test_mcnemar_takes_zeros_and_ones_only() -> None:
    assert math.isnan(mcnemar([], []).p)
    with pytest.raises(ValueError, match="0 and 1"):
        mcnemar([0.5], [1.0])
    with pytest.raises(ValueError, match="length"):
        mcnemar([1.0], [])
    with pytest.raises(ValueError, match="NaN"):
        mcnemar([math.nan], [1.0])
