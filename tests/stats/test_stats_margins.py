"""Margin tests against Student's one-sided tests and the interval they claim to read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps
from statsmodels.stats.weightstats import DescrStatsW

from lem.stats import cluster_t_interval, equivalent, headline, non_inferior

RNG = np.random.default_rng(31)
NORMAL = RNG.normal(-0.1, 1, 60)


@pytest.mark.parametrize("margin", [0.2, 0.4, 0.6])
def test_non_inferiority_is_students_test_against_the_margin_or_stricter(margin: float) -> None:
    found = non_inferior(NORMAL, margin)
    student = sps.ttest_1samp(NORMAL, -margin, alternative="greater").pvalue
    assert student - 1e-12 <= found.p <= 1.3 * student + 0.005
    assert found.passed == (found.p <= 0.05) == (found.low > -margin)
    shown = headline(NORMAL, level=0.9)
    assert (found.low, found.high, found.method) == (shown.low, shown.high, shown.method)
    assert (found.margin, found.alpha) == (margin, 0.05)


@pytest.mark.parametrize("margin", [0.2, 0.4, 0.6])
def test_equivalence_is_statsmodels_tost_or_stricter(margin: float) -> None:
    found = equivalent(NORMAL, margin, alpha=0.025)
    peer = DescrStatsW(NORMAL).ttost_mean(-margin, margin)[0]
    assert peer - 1e-12 <= found.p <= 1.3 * peer + 0.005
    assert found.passed == (found.low > -margin and found.high < margin)
    assert equivalent(-NORMAL, margin).p == pytest.approx(found.p, rel=0.25, abs=1e-3)


def test_clusters_make_it_harder() -> None:
    labels = [i // 10 for i in range(60)]
    values = NORMAL + np.repeat(RNG.normal(0, 0.6, 6), 10)
    alone, grouped = non_inferior(values, 0.8), non_inferior(values, 0.8, labels)
    robust = cluster_t_interval(values, labels)
    assert grouped.p > alone.p
    assert grouped.p == pytest.approx(sps.t(5).sf((robust.value + 0.8) / robust.stderr))


def test_equal_differences_pass_by_their_number_only() -> None:
    assert non_inferior([0.0] * 4, 1.0).p == 0.5**4
    assert not non_inferior([0.0] * 4, 1.0).passed
    five = equivalent([0.0] * 5, 1.0)
    assert (five.p, five.passed, five.low, five.high) == (0.5**5, True, 0.0, 0.0)
    assert five.method == "sign test (no variation)"
    assert non_inferior([-2.0] * 9, 1.0).p == 1.0
    assert equivalent([2.0] * 9, 1.0).p == 1.0
    assert non_inferior([0.0] * 6, 1.0, [0, 0, 0, 1, 1, 1]).p == 0.25, "two clusters"


@pytest.mark.parametrize("values", [[], [0.5]])
def test_too_few_never_pass(values: list[float]) -> None:
    for found in (non_inferior(values, 9.0), equivalent(values, 9.0)):
        assert math.isnan(found.p)
        assert math.isnan(found.low)
        assert not found.passed


def test_bad_margins_and_values() -> None:
    for margin in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="margin"):
            non_inferior([1.0, 2.0], margin)
    with pytest.raises(ValueError, match="alpha"):
        equivalent([1.0, 2.0], 1.0, alpha=0.5)
    with pytest.raises(ValueError, match="NaN"):
        equivalent([1.0, math.nan], 1.0)
