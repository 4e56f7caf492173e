"""Tests against a margin fixed beforehand: "no worse by more than m" and "within m either way"."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from lem.stats.estimate import Values, finite_values
from lem.stats.headline import headline, headline_tail


@dataclass(frozen=True)
class MarginTest:
    """Outcome of a test against a margin; `low` and `high` are the headline interval at level 1 - 2 x alpha.

    `passed` is `p <= alpha`, which is the same as the interval clearing the margin (within the grain of the resamples),
    except where all differences are equal: the interval has no width then and p is that of the sign test. With n < 2
    p and the limits are NaN and `passed` is False.
    """

    margin: float
    p: float
    passed: bool
    low: float
    high: float
    alpha: float
    method: str


def _check(margin: float, alpha: float) -> None:
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin {margin} is not above 0")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha {alpha} is not between 0 and 0.5")


def _margin_test(
    differences: Values,
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
    p = headline_tail(array, -margin, clusters, n_resamples=n_resamples)
    if both_sides:
        p = max(p, headline_tail(-array, -margin, clusters, n_resamples=n_resamples))
    method = "sign test (no variation)" if np.all(array == array[0]) else shown.method
    return MarginTest(margin, p, p <= alpha, shown.low, shown.high, alpha, method)


def non_inferior(
    differences: Values,
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
    differences: Values,
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
