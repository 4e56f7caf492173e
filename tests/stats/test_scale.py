"""Means on a scale: exact where nothing varies, never beyond the ends, else the headline."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as sps

from lem.stats import cluster_t_interval, headline, mean_on_scale


@pytest.mark.parametrize(("value", "n"), [(0.0, 6), (1.0, 6), (0.0, 50)])
def test_all_wrong_or_all_right_has_clopper_and_pearsons_interval(value: float, n: int) -> None:
    found = mean_on_scale([value] * n, low=0.0, high=1.0)
    beyond = 1 - 0.025 ** (1 / n)  # the closed form of the limit with no success
    low, high = (0.0, beyond) if value == 0 else (1 - beyond, 1.0)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high))


def test_an_interval_stays_on_the_scale_and_keeps_the_rest_of_the_headline() -> None:
    values = [0.0, 0.0, 0.0, 0.8, 0.0, 0.1]
    plain, kept = headline(values), mean_on_scale(values, low=0.0, high=1.0)
    assert plain.low < 0
    assert (kept.low, kept.high, kept.value) == (0.0, min(1.0, plain.high), plain.value)


def test_equal_values_inside_the_scale_do_not_prove_that_no_probe_differs() -> None:
    found = mean_on_scale([0.5] * 8, low=0.0, high=1.0)
    others = 1 - 0.025 ** (1 / 8)
    assert (found.low, found.high) == pytest.approx((0.5 - others / 2, 0.5 + others / 2))
    rated = mean_on_scale([3.0] * 6, low=1.0, high=10.0)
    others = 1 - 0.025 ** (1 / 6)
    assert (rated.low, rated.high) == pytest.approx((3 - 2 * others, 3 + 7 * others))


def test_the_interval_without_variation_covers_as_often_as_it_says() -> None:
    # worst case: the share of other probes that is just large enough, all at the far end of the scale
    n, rng = 20, np.random.default_rng(7)
    share = 1 - 0.025 ** (1 / n)
    draws = rng.random((20_000, n)) < share
    unlucky = (~draws).all(axis=1)  # nothing varies, and the truth is at the very end of the interval
    assert unlucky.mean() == pytest.approx(0.025, abs=0.004)


def test_one_value_has_an_interval_that_is_nearly_the_whole_scale() -> None:
    found = mean_on_scale([1.0], low=0.0, high=1.0)
    assert (found.low, found.high) == pytest.approx((0.025, 1.0))


def test_a_value_off_the_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the scale"):
        mean_on_scale([0.0, 1.5], low=0.0, high=1.0)


def test_without_ends_it_is_the_headline() -> None:
    values = list(sps.norm.ppf([0.1, 0.3, 0.5, 0.8, 0.95]))
    clusters = ["a", "a", "b", "b", "c"]
    assert mean_on_scale(values, clusters) == headline(values, clusters)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        mean_on_scale([0.0, float("nan")], low=0.0, high=1.0)


def test_a_few_right_answers_have_the_exact_interval_and_not_that_of_a_bootstrap() -> None:
    values = [1.0] + [0.0] * 4
    found = mean_on_scale(values, low=0.0, high=1.0)
    low, high = sps.beta.ppf(0.025, 1, 5), sps.beta.ppf(0.975, 2, 4)  # Clopper and Pearson's limits
    assert (found.low, found.high) == pytest.approx((low, high))
    clusters = ["a", "a", "b", "b", "c"]
    wide, robust = mean_on_scale(values, clusters, low=0.0, high=1.0), cluster_t_interval(values, clusters)
    assert (wide.low, wide.high) == pytest.approx((max(0.0, min(low, robust.low)), min(1.0, max(high, robust.high))))
    assert wide.n_clusters == 3


@pytest.mark.parametrize("truth", [0.1, 0.3, 0.5])
def test_the_interval_of_shares_covers(truth: float) -> None:
    rng = np.random.default_rng(11)
    n, draws, covered = 25, 400, 0
    for _ in range(draws):
        found = mean_on_scale((rng.random(n) < truth).astype(float), low=0.0, high=1.0)
        covered += found.low <= truth <= found.high
    assert covered / draws >= 0.93
