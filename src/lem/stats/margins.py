"""Tests against a margin fixed beforehand: "no worse by more than m" and "within m either way"."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as sps

from lem.stats.estimate import Estimate, bootstrap_mean, finite_values, headline


@dataclass(frozen=True)
class MarginTest:
    """Outcome of a test against a margin; `low` and `high` are the headline interval at level 1 - 2 x alpha.

    `passed` is `p <= alpha`, which is the same as the interval clearing the margin, except where all differences are
    equal: there is no interval then and p is that of the sign test. NaN limits and `passed` False with n < 2.
    """

    margin: float
    p: float
    passed: bool
    low: float
    high: float
    alpha: float
    method: str


def _bca_tail(array: NDArray[np.float64], null: float, n_resamples: int | None) -> float:
    """One-sided p of "the mean is at most null": the level at which the end of the BCa interval meets null."""
    first = bootstrap_mean(array, 0.9, n_resamples)

    def gap(p: float) -> float:
        interval = bootstrap_mean(array, abs(1 - 2 * p), previous=first).confidence_interval
        return float(interval.low if p < 0.5 else interval.high) - null

    least = 1 / (len(first.bootstrap_distribution) + 1)
    if gap(least) >= 0:
        return least
    if gap(1 - least) <= 0:
        return 1 - least
    return float(optimize.brentq(gap, least, 1 - least, xtol=1e-7))


def _tail(
    array: NDArray[np.float64], null: float, shown: Estimate, n_units: int, n_resamples: int | None = None
) -> float:
    """One-sided p of "the mean is at most null" by the method that the headline interval used."""
    if shown.stderr == 0:
        # Nothing varies: only their number speaks, as in a sign test.
        return 0.5**n_units if shown.value > null else 1.0
    if shown.method == "bca":
        return _bca_tail(array, null, n_resamples)
    freedom = (shown.n_clusters or 2) - 1 if shown.method == "cr2-t" else len(array) - 1
    return float(sps.t.sf((shown.value - null) / shown.stderr, freedom))


def _check(margin: float, alpha: float) -> None:
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin {margin} is not above 0")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha {alpha} is not between 0 and 0.5")


def _margin_test(
    differences: Sequence[float],
    margin: float,
    clusters: Sequence[Hashable] | None,
    alpha: float,
    n_resamples: int | None,
    *,
    both_sides: bool,
) -> MarginTest:
    _check(margin, alpha)
    array = finite_values(differences)
    shown = headline(array, clusters, level=1 - 2 * alpha, n_resamples=n_resamples)
    if len(array) < 2:
        return MarginTest(margin, math.nan, False, math.nan, math.nan, alpha, shown.method)
    n_units = shown.n_clusters or len(array)
    p = _tail(array, -margin, shown, n_units, n_resamples)
    if both_sides:
        mirrored = replace(shown, value=-shown.value, low=-shown.high, high=-shown.low)
        p = max(p, _tail(-array, -margin, mirrored, n_units, n_resamples))
    method = "sign test (no variation)" if shown.stderr == 0 else shown.method
    return MarginTest(margin, p, p <= alpha, shown.low, shown.high, alpha, method)


def non_inferior(
    differences: Sequence[float],
    margin: float,
    clusters: Sequence[Hashable] | None = None,
    *,
    alpha: float = 0.05,
    n_resamples: int | None = None,
) -> MarginTest:
    """Test "worse by margin or more" (higher is better): passing says "no worse by more than margin".

    Raises: ValueError if the margin is not above 0, or a difference is NaN.
    """
    return _margin_test(differences, margin, clusters, alpha, n_resamples, both_sides=False)


def equivalent(
    differences: Sequence[float],
    margin: float,
    clusters: Sequence[Hashable] | None = None,
    *,
    alpha: float = 0.05,
    n_resamples: int | None = None,
) -> MarginTest:
    """Two one-sided tests (TOST): passing says that the mean difference is within margin of 0 on either side.

    `p` is the larger of the two.   Raises: ValueError if the margin is not above 0, or a difference is NaN.
    """
    return _margin_test(differences, margin, clusters, alpha, n_resamples, both_sides=True)
