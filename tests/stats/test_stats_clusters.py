"""Cluster bootstrap, cluster t test and design effect against resamples and regressions of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from lem.stats import cluster_bootstrap, cluster_t_interval, cluster_t_test, design_effect, mean_bca

RNG = np.random.default_rng(23)
LABELS = np.sort(RNG.integers(0, 12, 90))
VALUES = RNG.normal(0, 0.7, 12)[LABELS] + RNG.normal(0.3, 1, 90)


def test_bootstrap_draws_whole_clusters() -> None:
    found = cluster_bootstrap(VALUES, list(LABELS))
    draws = []
    for _ in range(4000):
        drawn = [VALUES[label == LABELS] for label in RNG.integers(0, 12, 12)]
        draws.append(np.concatenate(drawn).mean())
    assert found.value == pytest.approx(VALUES.mean())
    assert found.stderr == pytest.approx(np.std(draws), rel=0.06)
    assert found.low == pytest.approx(np.quantile(draws, 0.025), abs=0.15 * found.width)
    assert found.high == pytest.approx(np.quantile(draws, 0.975), abs=0.15 * found.width)
    assert (found.n, found.n_clusters) == (90, 12)
    assert found.width > 1.5 * mean_bca(VALUES).width, "the clusters differ"


def test_singletons_are_the_ordinary_bootstrap() -> None:
    found, plain = cluster_bootstrap(VALUES, range(90)), mean_bca(VALUES)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-9)


def test_design_effect_is_the_ratio_of_variances() -> None:
    naive = VALUES.std(ddof=1) / math.sqrt(90)
    assert design_effect(VALUES, list(LABELS)) == pytest.approx(
        (cluster_t_interval(VALUES, list(LABELS)).stderr / naive) ** 2
    )
    assert design_effect(VALUES, range(90)) == pytest.approx(1.0)
    copies = np.repeat(RNG.normal(0, 1, 20), 5)
    # Five copies of each of 20 values: 100 values that say as much as 20, up to (n - 1) / n of the two variances.
    assert design_effect(copies, np.repeat(np.arange(20), 5).tolist()) == pytest.approx(5 * (99 / 100) / (19 / 20))


def test_cluster_t_test_is_the_interval_read_the_other_way() -> None:
    found = cluster_t_test(VALUES, list(LABELS))
    assert cluster_t_interval(VALUES, list(LABELS), level=1 - found.p).low == pytest.approx(0.0, abs=1e-9)
    single = cluster_t_test(VALUES, range(90))
    assert (single.statistic, single.p) == pytest.approx(tuple(sps.ttest_1samp(VALUES, 0.0)))


def test_clusters_that_say_nothing() -> None:
    one = cluster_bootstrap([1.0, 2.0], ["a", "a"])
    assert math.isnan(one.low)
    assert one.n_clusters == 1
    assert math.isnan(design_effect([1.0, 2.0], ["a", "a"]))
    assert math.isnan(design_effect([3.0] * 4, list("aabb")))
    assert math.isnan(design_effect([], []))
    assert math.isnan(cluster_bootstrap([], []).value)
    same = cluster_bootstrap([3.0] * 4, list("aabb"))
    assert (same.low, same.high) == (3.0, 3.0)
    with pytest.raises(ValueError, match="length"):
        cluster_bootstrap([1.0], [])
    with pytest.raises(ValueError, match="NaN"):
        cluster_bootstrap([1.0, math.nan], ["a", "b"])
