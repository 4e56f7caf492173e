"""Bounds of a mean against a search over what the missing values could have been."""

import itertools
import math

import pytest

from lem.stats.bounds import missing_bounds


@pytest.mark.parametrize(("values", "n_unscored"), [([3, 7, 10], 2), ([1.5], 3), ([1, 1, 10, 10], 1), ([], 2)])
def test_no_filling_leaves_the_bounds_and_two_reach_them(values: list[float], n_unscored: int) -> None:
    fillings = itertools.product([1.0, 2.5, 5.0, 10.0], repeat=n_unscored)
    means = [sum([*values, *filling]) / (len(values) + n_unscored) for filling in fillings]
    assert missing_bounds(values, n_unscored, 1, 10) == pytest.approx((min(means), max(means)))


def test_nothing_unscored_is_the_mean_twice() -> None:
    assert missing_bounds([0, 1, 1, 0.5], 0, 0, 1) == (0.625, 0.625)


def test_nothing_at_all_has_no_bounds() -> None:
    assert all(math.isnan(bound) for bound in missing_bounds([], 0, 0, 1))


@pytest.mark.parametrize(
    ("values", "n_unscored", "low", "high"),
    [([11], 0, 1, 10), ([0.5], 1, 1, 10), ([5], -1, 1, 10), ([5], 1, 10, 1), ([math.nan], 1, 1, 10)],
)
def test_what_cannot_be_bounded_is_refused(values: list[float], n_unscored: int, low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"scale|NaN"):
        missing_bounds(values, n_unscored, low, high)
