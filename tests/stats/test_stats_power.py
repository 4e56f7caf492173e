"""Power against an integral written out, published figures, and a simulated t test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from lem.stats import detectable_effect, minimum_detectable_effect, power_of, probes_needed


@settings(deadline=None, max_examples=60)
@given(st.floats(0.05, 3), st.floats(0.2, 5), st.integers(2, 200), st.integers(1, 12), st.floats(0.5, 3))
def test_power_averages_a_normal_tail(effect: float, sd: float, n: int, n_tests: int, deff: float) -> None:
    shift = effect / sd / math.sqrt(deff) * math.sqrt(n)
    critical = sps.t.isf(0.05 / n_tests / 2, n - 1)
    # P(T > c) integrated over the chi distribution of the standard deviation, T = (Z + shift) / (chi / sqrt(df)).
    grid = sps.chi.ppf((np.arange(4000) + 0.5) / 4000, n - 1) / math.sqrt(n - 1)
    expected = np.mean(sps.norm.sf(critical * grid - shift) + sps.norm.cdf(-critical * grid - shift))
    found = power_of(effect, sd, n, n_tests=n_tests, design_effect=deff)
    assert found == pytest.approx(expected, abs=2e-3)
    assert power_of(-effect, sd, n, n_tests=n_tests, design_effect=deff) == pytest.approx(found)


def test_the_published_example_of_gpower() -> None:
    """Paired t test, d = 0.5, two-sided 5%: 34 pairs have a power of 0.8078."""
    assert probes_needed(0.5, 1.0) == 34
    assert power_of(0.5, 1.0, 34) == pytest.approx(0.8077775, abs=1e-6)


def test_the_rule_of_thumb() -> None:
    """At n = 101 the minimum detectable effect is 2.83 standard errors; twelve tests multiply it by about a third."""
    alone = minimum_detectable_effect(1.0, 101)
    assert alone * math.sqrt(101) == pytest.approx(2.83, abs=0.005)
    assert minimum_detectable_effect(1.0, 101, n_tests=12) / alone == pytest.approx(1.34, abs=0.01)
    assert minimum_detectable_effect(1.0, 101, design_effect=4.0) == pytest.approx(2 * alone)
    assert minimum_detectable_effect(3.5, 101) == pytest.approx(3.5 * alone)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.1, 4), st.integers(4, 400), st.floats(0.5, 0.95))
def test_the_detectable_effect_has_the_power_asked_for(sd: float, n: int, power: float) -> None:
    found = minimum_detectable_effect(sd, n, power=power)
    assert power_of(found, sd, n) == pytest.approx(power, abs=1e-4)
    needed = probes_needed(found * 1.0001, sd, power=power)
    assert needed <= n
    assert needed == 2 or power_of(found * 1.0001, sd, needed - 1) < power


def test_a_simulated_t_test_finds_it_as_often() -> None:
    effect = minimum_detectable_effect(2.0, 21)
    draws = np.random.default_rng(5).normal(effect, 2.0, (4000, 21))
    assert np.mean(sps.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("freedom", [1.0, 2.7, 9.0, 100.0])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.98])
def test_a_standard_error_with_few_degrees_of_freedom(freedom: float, power: float) -> None:
    """T = (Z + shift) / (chi / sqrt(df)) exceeds the limit as often as asked for, by an integral over chi."""
    shift = detectable_effect(0.5, freedom, power=power) / 0.5
    grid = sps.chi.ppf((np.arange(4000) + 0.5) / 4000, freedom) / math.sqrt(freedom)
    limit = sps.t.isf(0.025, freedom)
    found = np.mean(sps.norm.sf(limit * grid - shift) + sps.norm.cdf(-limit * grid - shift))
    assert found == pytest.approx(power, abs=2e-3)


def test_an_effect_without_an_error() -> None:
    assert math.isnan(detectable_effect(math.nan, 5.0))
    assert math.isnan(detectable_effect(1.0, 0.0))
    assert detectable_effect(0.0, 5.0) == 0.0
    assert detectable_effect(2.0, 20.0, n_tests=12) == pytest.approx(detectable_effect(2.0, 20.0, alpha=0.05 / 12))


def test_edges() -> None:
    assert math.isnan(minimum_detectable_effect(1.0, 1))
    assert math.isnan(power_of(1.0, 1.0, 0))
    assert minimum_detectable_effect(0.0, 10) == 0.0
    assert power_of(0.0, 1.0, 10) == 0.05
    assert power_of(1.0, 0.0, 10) == 1.0
    assert power_of(1e9, 1.0, 1000) == pytest.approx(1.0)
    assert probes_needed(50.0, 0.1) == 2
    for bad in (
        lambda: probes_needed(0.0, 1.0), lambda: probes_needed(1e-9, 1.0), lambda: power_of(1.0, -1.0, 9),
        lambda: minimum_detectable_effect(1.0, 9, power=0.01), lambda: power_of(1.0, 1.0, 9, n_tests=0),
        lambda: power_of(1.0, 1.0, 9, design_effect=0.0), lambda: power_of(1.0, math.nan, 9),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"effect|deviation|power|alpha"):
            bad()
