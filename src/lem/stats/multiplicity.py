"""Corrections for looking more than once: Holm for declared contrasts, Benjamini-Hochberg for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scipy import stats as sps


def _adjusted(p_values: Sequence[float], adjust: Callable[[list[float]], Sequence[float]]) -> list[float]:
    tested = [p for p in p_values if not math.isnan(p)]
    if any(not 0 <= p <= 1 for p in tested):
        raise ValueError("a p-value is not between 0 and 1")
    if not tested:
        return [math.nan] * len(p_values)
    found = iter(adjust(tested))
    return [p if math.isnan(p) else float(next(found)) for p in p_values]


def _holm(tested: list[float]) -> Sequence[float]:
    from statsmodels.stats.multitest import multipletests  # two seconds to import

    adjusted: Sequence[float] = multipletests(tested, method="holm")[1]
    return adjusted


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (statsmodels), in the order given: the chance of any false finding is kept.

    NaN stays NaN and is not counted as a test.   Raises: ValueError if a p-value is not between 0 and 1.
    """
    return _adjusted(p_values, _holm)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values (scipy): the expected share of false findings is kept.

    NaN stays NaN and is not counted as a test.   Raises: ValueError if a p-value is not between 0 and 1.
    """
    return _adjusted(p_values, sps.false_discovery_control)
