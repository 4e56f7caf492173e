"""The headline interval spans the single ones, and its one-sided p belongs to the same interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from lem.stats import bootstrap_t, cluster_t_interval, headline, headline_tail, mean_bca, t_interval
from lem.stats.estimate import LARGE_N

RNG = np.random.default_rng(17)


@pytest.mark.parametrize("values", [RNG.normal(0, 1, 40), RNG.exponential(1, 40), -RNG.exponential(1, 21)])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_it_spans_every_interval(values: np.ndarray, shift: float) -> None:
    clusters = [i % 5 for i in range(len(values))]
    values = values + shift * (np.asarray(clusters) - 2)
    parts = [t_interval(values), mean_bca(values), bootstrap_t(values)]
    alone = headline(values, n_unscored=4)
    assert (alone.low, alone.high) == (min(part.low for part in parts), max(part.high for part in parts))
    assert (alone.n, alone.n_unscored, alone.n_clusters) == (len(values), 4, None)
    robust = cluster_t_interval(values, clusters)
    together = headline(values, clusters)
    assert (together.low, together.high) == (min(alone.low, robust.low), max(alone.high, robust.high))
    assert together.n_clusters == 5
    assert together.stderr == max(robust.stderr, alone.stderr)
    assert headline(values, ["one"] * len(values), n_unscored=4) == alone, "one domain says nothing about domains"


def test_the_method_names_the_intervals_behind_the_ends() -> None:
    assert headline([1.0] * 10 + [-1.0] * 10, [i // 5 for i in range(20)]).method == "cr2-t"
    low, high = headline(RNG.exponential(1, 60)).method.split(" / ")
    assert low == "t", "skewed to the right: the lower end is Student's"
    assert high == "bootstrap-t"


@pytest.mark.parametrize("values", [[], [2.0]])
def test_less_than_two_values_have_no_interval(values: list[float]) -> None:
    found = headline(values, ["a"] * len(values))
    assert math.isnan(found.low)
    assert math.isnan(found.stderr)
    assert found.n == len(values)
    assert math.isnan(headline_tail(values, 0.0))


def test_two_values_and_equal_values() -> None:
    pair = headline([1.0, 2.0], ["a", "b"])
    assert pair.low <= 1.5 - sps.t(1).isf(0.025) * 0.5 < 1.5 < pair.high
    same = headline([0.25] * 9, [0, 1, 2] * 3)
    assert (same.low, same.high, same.stderr) == (0.25, 0.25, 0.0)
    with pytest.raises(ValueError, match="length"):
        headline([1.0, 2.0, 3.0], ["a"])
    with pytest.raises(ValueError, match="NaN"):
        headline([1.0, math.nan])


def test_many_values_are_not_resampled() -> None:
    values = np.random.default_rng(1).exponential(1, LARGE_N + 1)
    assert headline(values).method == "t"
    assert headline_tail(values, 1.02) == pytest.approx(sps.ttest_1samp(values, 1.02, alternative="greater").pvalue)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-6, 9), min_size=4, max_size=25), st.sampled_from([-3.0, -0.5, 0.0, 1.0]), st.booleans(),
    st.sampled_from([0.01, 0.05, 0.2]),
)  # fmt: skip
def test_the_tail_is_the_interval_read_the_other_way(
    values: list[int], null: float, grouped: bool, alpha: float
) -> None:
    """p <= alpha where the lower end of the 1 - 2 alpha interval is above null, up to the grain of resamples."""
    clusters = [i % 3 for i in range(len(values))] if grouped else None
    p = headline_tail(values, null, clusters, n_resamples=999)
    if len(set(values)) == 1:
        assert p == (0.5 ** (3 if grouped else len(values)) if values[0] > null else 1.0)
        return
    least, most = (headline(values, clusters, level=1 - 2 * a, n_resamples=999).low for a in (alpha / 1.2, alpha * 1.2))
    if least > null:
        assert p <= alpha
    if most < null:
        assert p > alpha


def test_the_tail_of_symmetric_data_is_near_students() -> None:
    values = RNG.normal(0.3, 1, 60)
    student = sps.ttest_1samp(values, 0.0, alternative="greater").pvalue
    assert student <= headline_tail(values, 0.0) <= student + 0.01
    assert headline_tail(values, float(values.mean())) == pytest.approx(0.5, abs=0.05)
    assert headline_tail(values, 9.0) > 0.999
