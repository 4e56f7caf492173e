"""Intervals against scipy called directly and against their definitions written out with numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from lem.stats import bootstrap_t, cluster_t_interval, mean_bca, rate, t_interval
from lem.stats.estimate import BOOTSTRAP_SEED, LARGE_N, N_RESAMPLES, cluster_freedom

RNG = np.random.default_rng(7)
SKEWED = RNG.lognormal(0, 1, 40)


def bca_longhand(values: np.ndarray, level: float, n_resamples: int, seed: int) -> tuple[float, float]:
    """Efron's BCa interval of a mean, formula by formula, with resamples of its own."""
    n = len(values)
    rng = np.random.default_rng(seed)
    means = np.sort(values[rng.integers(0, n, (n_resamples, n))].mean(axis=1))
    below = ((means < values.mean()).sum() + (means <= values.mean()).sum()) / (2 * n_resamples)
    z0 = sps.norm.ppf(below)
    jackknife = (values.sum() - values) / (n - 1)
    away = jackknife.mean() - jackknife
    a = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    limits = []
    for z in sps.norm.ppf([(1 - level) / 2, (1 + level) / 2]):
        share = sps.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
        limits.append(float(np.quantile(means, share)))
    return limits[0], limits[1]


@pytest.mark.parametrize("values", [SKEWED, RNG.normal(3, 2, 21), -RNG.exponential(1, 60)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bca_agrees_with_its_definition(values: np.ndarray, level: float) -> None:
    found = mean_bca(values, level=level)
    low, high = bca_longhand(values, level, 40_000, seed=1)
    # Other resamples: the limits of 9999 draws scatter by some two per cent of the width.
    assert found.low == pytest.approx(low, abs=0.04 * found.width)
    assert found.high == pytest.approx(high, abs=0.04 * found.width)
    assert found.value == pytest.approx(values.sum() / len(values))
    assert found.stderr == pytest.approx(
        math.sqrt(((values - values.mean()) ** 2).sum() / (len(values) - 1) / len(values))
    )
    assert (found.n, found.level, found.method) == (len(values), level, "bca")


def test_bca_is_scipys_with_a_fixed_seed() -> None:
    peer = sps.bootstrap(
        (SKEWED,), np.mean, n_resamples=N_RESAMPLES, method="BCa", rng=np.random.default_rng(BOOTSTRAP_SEED)
    ).confidence_interval
    found = mean_bca(SKEWED)
    assert (found.low, found.high) == (peer.low, peer.high)
    assert mean_bca(list(SKEWED)) == found, "a rerun gives the same interval"


def test_bca_follows_the_skew() -> None:
    found = mean_bca(SKEWED)
    assert found.high - found.value > 1.2 * (found.value - found.low)


def bootstrap_t_longhand(values: np.ndarray, level: float, n_resamples: int, seed: int) -> tuple[float, float]:
    n, mean = len(values), values.mean()
    drawn = values[np.random.default_rng(seed).integers(0, n, (n_resamples, n))]
    pivots = np.sort((drawn.mean(axis=1) - mean) / (drawn.std(axis=1, ddof=1) / np.sqrt(n)))
    least, most = np.quantile(pivots, [(1 - level) / 2, (1 + level) / 2])
    stderr = values.std(ddof=1) / np.sqrt(n)
    return mean - most * stderr, mean - least * stderr


@pytest.mark.parametrize("values", [RNG.exponential(1, 60), RNG.normal(3, 2, 21)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bootstrap_t_agrees_with_its_definition(values: np.ndarray, level: float) -> None:
    found = bootstrap_t(values, level=level)
    low, high = bootstrap_t_longhand(values, level, 40_000, seed=2)
    assert found.low == pytest.approx(low, abs=0.05 * found.width)
    assert found.high == pytest.approx(high, abs=0.05 * found.width)
    assert found.method == "bootstrap-t"


def test_bootstrap_t_never_reaches_further_than_twice_students() -> None:
    """One large value in twelve: every third resample misses it, and the plain bootstrap-t interval has no end."""
    values = np.asarray([*np.linspace(0, 0.01, 11), 50.0])
    plain, found = t_interval(values), bootstrap_t(values)
    assert bootstrap_t_longhand(values, 0.95, 9999, seed=3)[1] > plain.value + 10 * plain.width
    assert found.high - found.value == pytest.approx(2 * (plain.high - plain.value))
    assert found.value - found.low < plain.value - plain.low


def cr2_longhand(values: np.ndarray, clusters: list[str]) -> tuple[float, float]:
    """Bell and McCaffrey's CR2 standard error and degrees of freedom of a mean, with their matrices."""
    n = len(values)
    design = np.ones((n, 1))
    bread = np.linalg.inv(design.T @ design)
    hat = design @ bread @ design.T
    residuals = values - hat @ values
    meat, columns = np.zeros((1, 1)), []
    for cluster in sorted(set(clusters)):
        rows = [i for i, name in enumerate(clusters) if name == cluster]
        eigenvalues, vectors = np.linalg.eigh(np.eye(len(rows)) - hat[np.ix_(rows, rows)])
        adjust = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
        score = design[rows].T @ adjust @ residuals[rows]
        meat += np.outer(score, score)
        columns.append((np.eye(n) - hat)[:, rows] @ adjust @ design[rows] @ bread)
    g = np.column_stack(columns)
    weights = np.linalg.eigvalsh(g.T @ g)
    return float(np.sqrt((bread @ meat @ bread)[0, 0])), float(weights.sum() ** 2 / (weights**2).sum())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.sampled_from("abcdef")), min_size=3, max_size=25))
def test_cr2_agrees_with_its_matrices(rows: list[tuple[float, str]]) -> None:
    values = np.asarray([value for value, _ in rows])
    clusters = [cluster for _, cluster in rows]
    found = cluster_t_interval(values, clusters)
    n_clusters = len(set(clusters))
    assert found.n_clusters == n_clusters
    if n_clusters < 2:
        assert math.isnan(found.low)
        return
    stderr, freedom = cr2_longhand(values, clusters)
    half = sps.t(freedom).isf(0.025) * stderr
    assert found.stderr == pytest.approx(stderr, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-6, abs=1e-7)


@given(st.integers(2, 30), st.integers(1, 9))
def test_clusters_of_one_size_have_one_degree_of_freedom_fewer(n_clusters: int, size: int) -> None:
    assert cluster_freedom(list(range(n_clusters)) * size) == pytest.approx(n_clusters - 1)


def test_uneven_clusters_count_for_fewer() -> None:
    assert cluster_freedom([0] * 50 + list(range(1, 11))) < 3
    with pytest.raises(ValueError, match="two or more"):
        cluster_freedom(["a"])


def test_singleton_clusters_give_the_ordinary_t_interval() -> None:
    peer = sps.ttest_1samp(SKEWED, 0).confidence_interval(0.9)
    found = cluster_t_interval(SKEWED, range(len(SKEWED)), level=0.9)
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high))


def test_clusters_must_match_the_values() -> None:
    with pytest.raises(ValueError, match="length"):
        cluster_t_interval([1.0, 2.0], ["a"])


@pytest.mark.parametrize("values", [[], [2.0]])
def test_less_than_two_values_have_no_interval(values: list[float]) -> None:
    for found in (
        mean_bca(values),
        t_interval(values),
        bootstrap_t(values),
        cluster_t_interval(values, ["a"] * len(values)),
    ):
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert math.isnan(found.stderr)
        assert math.isnan(found.width)
        assert not found.excludes(0.0)
        assert found.n == len(values)
        assert math.isnan(found.value) == (not values)


def test_equal_values_have_an_interval_of_no_width() -> None:
    for found in (mean_bca([3.5] * 12), bootstrap_t([3.5] * 12), t_interval([3.5] * 12)):
        assert (found.low, found.value, found.high, found.stderr) == (3.5, 3.5, 3.5, 0.0)
        assert found.excludes(0.0)
        assert not found.excludes(3.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    values = [1.0, bad, 2.0]
    for interval in (mean_bca, t_interval, bootstrap_t, lambda found: cluster_t_interval(found, "aab")):
        with pytest.raises(ValueError, match="NaN or infinite"):
            interval(values)


def test_many_values_have_the_t_interval() -> None:
    values = np.random.default_rng(4).normal(1, 1, LARGE_N + 1)
    found, plain = mean_bca(values), t_interval(values)
    assert (found.low, found.high) == (plain.low, plain.high)
    assert found.method == "t (n > 2,000)"


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_shares_have_the_beta_quantiles_of_clopper_and_pearson(pair: tuple[int, int], level: float) -> None:
    k, n = pair
    found = rate(k, n, level=level)
    alpha = 1 - level
    low = 0.0 if k == 0 else sps.beta.ppf(alpha / 2, k, n - k + 1)
    high = 1.0 if k == n else sps.beta.ppf(1 - alpha / 2, k + 1, n - k)
    assert (found.value, found.low, found.high) == pytest.approx((k / n, low, high), abs=1e-9)


def test_shares_of_nothing_and_of_nonsense() -> None:
    assert math.isnan(rate(0, 0).value)
    assert math.isnan(rate(0, 0).low)
    for k, n in ((3, 2), (-1, 4)):
        with pytest.raises(ValueError, match="out of"):
            rate(k, n)
