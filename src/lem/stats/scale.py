"""The mean of values on a scale with known ends: an interval that stays on it, exact where nothing varies."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lem.stats.estimate import Estimate, Values, cluster_t_interval, finite_values, rate
from lem.stats.headline import headline

NO_VARIATION = "exact (no variation)"
_NOTHING = 1e-12  # a standard error below this share of the scale is rounding


def mean_on_scale(
    values: Values,
    clusters: Sequence[Hashable] | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    level: float = 0.95,
    n_unscored: int = 0,
) -> Estimate:
    """The mean with its headline interval, as `keep_on_scale` keeps it; the plain headline without ends.

    Of zeros and ones on a scale from 0 to 1 it is the span of Clopper and Pearson's exact interval and, with two or
    more clusters, the CR2 t interval: the bootstraps have little to resample in a few zeros and ones.
    Raises: ValueError if a value is NaN or outside the scale.
    """
    array = finite_values(values)
    if low is not None and high is not None and len(array) and (array.min() < low or array.max() > high):
        raise ValueError(f"a value is outside the scale from {low:g} to {high:g}")
    if (low, high) == (0.0, 1.0) and len(array) and set(array.tolist()) <= {0.0, 1.0}:
        return _share(array, clusters, level, n_unscored)
    return keep_on_scale(headline(array, clusters, level=level, n_unscored=n_unscored), low, high)


def _share(array: NDArray[np.float64], clusters: Sequence[Hashable] | None, level: float, n_unscored: int) -> Estimate:
    exact = rate(int(array.sum()), len(array), level=level, n_unscored=n_unscored)
    n_clusters = len(set(clusters)) if clusters is not None else 0
    if n_clusters < 2 or (array == array[0]).all():
        return exact
    robust = cluster_t_interval(array, clusters or (), level=level)
    if math.isnan(robust.low):
        return exact
    low, high = min(exact.low, max(0.0, robust.low)), max(exact.high, min(1.0, robust.high))
    method = exact.method if (low, high) == (exact.low, exact.high) else f"{exact.method} / {robust.method}"
    return replace(
        exact, low=low, high=high, stderr=max(exact.stderr, robust.stderr), n_clusters=n_clusters, method=method
    )


def keep_on_scale(mean: Estimate, low: float | None, high: float | None) -> Estimate:
    """The mean with its interval cut at the ends of the scale, and made anew where nothing varies.

    Where all n values are the same v no spread can be estimated. At this level at most u = 1 - (alpha / 2)^(1/n) of
    all probes have another value, so the mean lies between v - u (v - low) and v + u (high - v); where all are wrong,
    or all right, that is Clopper and Pearson's interval.
    """
    if low is None or high is None or mean.n == 0:
        return mean
    if mean.n == 1 or mean.stderr <= _NOTHING * (high - low):
        others = 1 - ((1 - mean.level) / 2) ** (1 / mean.n)
        ends = {"low": mean.value - others * (mean.value - low), "high": mean.value + others * (high - mean.value)}
        return replace(mean, stderr=0.0, method=NO_VARIATION, **ends)
    return replace(mean, low=max(low, mean.low), high=min(high, mean.high))
