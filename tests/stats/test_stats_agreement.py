"""Agreement against Krippendorff's published example, scikit-learn and longhand sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from lem.stats import krippendorff_alpha, weighted_kappa

N = math.nan
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]


@pytest.mark.parametrize(("measurement", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example(measurement: str, alpha: float) -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), four observers and twelve units, one of them rated once."""
    found = krippendorff_alpha(PUBLISHED, measurement, n_resamples=199)
    assert found.value == pytest.approx(alpha, abs=0.0006)
    assert found.n == 11
    assert found.low < alpha < found.high <= 1


def test_alpha_of_two_complete_raters_is_one_less_a_ratio_of_distances() -> None:
    """Interval level: 1 - mean squared disagreement inside units over that of all pairs of ratings."""
    rng = np.random.default_rng(2)
    first = rng.integers(1, 11, 30).astype(float)
    second = np.clip(first + rng.integers(-2, 3, 30), 1, 10)
    both = np.concatenate([first, second])
    inside = ((first - second) ** 2).mean()
    anywhere = ((both[:, None] - both[None, :]) ** 2).sum() / (60 * 59)
    assert krippendorff_alpha([first, second], "interval").value == pytest.approx(1 - inside / anywhere)


def test_its_interval_resamples_units() -> None:
    rng = np.random.default_rng(12)
    table = np.clip(np.round(rng.normal(5, 2, 60) + rng.normal(0, 1, (3, 60))), 1, 10)
    found = krippendorff_alpha(table, "interval")
    draws = [krippendorff_alpha(table[:, rng.integers(0, 60, 60)], "interval", n_resamples=2).value for _ in range(300)]
    assert found.stderr == pytest.approx(np.std(draws), rel=0.2)
    assert found.low == pytest.approx(np.quantile(draws, 0.025), abs=0.03)
    assert krippendorff_alpha(table, "interval") == found


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=2, max_size=25),
    st.sampled_from(["quadratic", "linear", "none"]),
)
def test_kappa_is_scikit_learns_over_the_whole_scale(rows: list[tuple[int, int]], weights: str) -> None:
    first, second = zip(*rows, strict=True)
    assume(len({*first, *second}) > 1)
    found = weighted_kappa(first, second, weights=weights, n_resamples=9)
    peer = cohen_kappa_score(first, second, labels=range(1, 8), weights=None if weights == "none" else weights)
    assert found.value == pytest.approx(peer, abs=1e-12)
    assert found.n == len(rows)


def test_the_distance_counts_and_not_the_position_among_ratings_in_use() -> None:
    """1 against 2 and 1 against 10 differ, though 2 and 10 may be neighbours among the ratings that were given."""
    first, second = [1, 1, 2, 10, 10, 2], [2, 1, 2, 10, 10, 1]
    near = weighted_kappa(first, second).value
    moments = np.var(first) + np.var(second) + (np.mean(first) - np.mean(second)) ** 2
    assert near == pytest.approx(1 - np.mean(np.subtract(first, second) ** 2) / moments)
    assert near > 0.95


def test_nothing_to_agree_on() -> None:
    tables = [[[3, 3, 3], [3, 3, 3]], [[1, 2, 3]], np.empty((2, 0)), [[1, N], [N, 2]]]
    pairs: list[tuple[list[float], list[float]]] = [([2, 2], [2, 2]), ([], [])]
    for found in [krippendorff_alpha(table) for table in tables] + [weighted_kappa(*pair) for pair in pairs]:
        assert math.isnan(found.value)
        assert math.isnan(found.low)
    perfect = weighted_kappa([1, 2, 3, 4] * 5, [1, 2, 3, 4] * 5)
    assert (perfect.value, perfect.low, perfect.high) == (1.0, 1.0, 1.0)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="whole"):
        weighted_kappa([1.5], [1.0])
    with pytest.raises(ValueError, match="number of units"):
        weighted_kappa([1.0], [])
    with pytest.raises(ValueError, match="quadratic"):
        weighted_kappa([1.0], [1.0], weights="cubic")
    with pytest.raises(ValueError, match="NaN"):
        weighted_kappa([math.nan], [1.0])
    with pytest.raises(ValueError, match="raters"):
        krippendorff_alpha([1.0, 2.0])
