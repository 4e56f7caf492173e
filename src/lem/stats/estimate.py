"""`Estimate` and the intervals of one mean: BCa bootstrap, t, CR2 cluster-robust t, Clopper-Pearson for shares."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

N_RESAMPLES = 9999
BOOTSTRAP_SEED = 20260101
LARGE_N = 10_000  # beyond, resampling costs minutes and its interval is the normal one
_BATCH_VALUES = 20_000_000  # resampled values held at once: 160 MB


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty; never a bare float.

    `n` counts probes that entered, `n_unscored` those left out, `n_clusters` the domains behind a
    cluster-robust interval (None when clusters were not used). With n < 2 the error and limits are NaN.
    """

    value: float
    stderr: float
    low: float
    high: float
    level: float
    n: int
    n_unscored: int
    n_clusters: int | None
    method: str

    def excludes(self, value: float) -> bool:
        """True when the interval lies wholly on one side of `value` (False for a NaN interval)."""
        return self.low > value or self.high < value

    @property
    def width(self) -> float:
        """Length of the interval (NaN when it has none)."""
        return self.high - self.low


def finite_values(values: Sequence[float]) -> NDArray[np.float64]:
    """The values as a float64 vector.   Raises: ValueError if one is NaN or infinite: unscored values never enter."""
    array = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(array)):
        raise ValueError("a value is NaN or infinite; leave unscored probes out and count them")
    return array


def cluster_index(clusters: Sequence[Hashable]) -> NDArray[np.intp]:
    """Number of each value's cluster, 0 for the first one met."""
    position: dict[Hashable, int] = {}
    return np.asarray([position.setdefault(cluster, len(position)) for cluster in clusters], dtype=np.intp)


def undefined(values: NDArray[np.float64], level: float, n_unscored: int, method: str) -> Estimate:
    """The mean of fewer than two values (NaN of none), without an interval."""
    value = float(values.mean()) if len(values) else math.nan
    return Estimate(value, math.nan, math.nan, math.nan, level, len(values), n_unscored, None, f"{method} (n < 2)")


def bootstrap_mean(
    array: NDArray[np.float64], level: float, n_resamples: int | None = None, previous: Any = None
) -> Any:
    """scipy's BCa bootstrap of a mean, seeded; `previous` reuses the resamples of an earlier call at another level."""
    n_draws = N_RESAMPLES if n_resamples is None else n_resamples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sps.DegenerateDataWarning)
        # The jackknife of nearly constant data has no spread; scipy then divides 0 by 0 and falls back by itself.
        warnings.simplefilter("ignore", RuntimeWarning)
        return sps.bootstrap(
            (array,), np.mean, n_resamples=0 if previous is not None else n_draws, confidence_level=level,
            method="BCa", rng=np.random.default_rng(BOOTSTRAP_SEED), batch=max(1, _BATCH_VALUES // len(array)),
            bootstrap_result=previous,
        )  # fmt: skip


def mean_bca(
    values: Sequence[float], *, level: float = 0.95, n_unscored: int = 0, n_resamples: int | None = None
) -> Estimate:
    """Mean with the bias-corrected and accelerated bootstrap interval (scipy), seeded so that reruns agree.

    Identical values have a zero-width interval and zero standard error: that is what the data say. Beyond
    `LARGE_N` values it is the t interval, and `method` says so.
    """
    array = finite_values(values)
    if len(array) < 2:
        return undefined(array, level, n_unscored, "bca")
    if len(array) > LARGE_N:
        return replace(t_interval(array, level=level, n_unscored=n_unscored), method=f"t (n > {LARGE_N:,})")
    mean, stderr = float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array)))
    if np.all(array == array[0]):
        return Estimate(mean, 0.0, mean, mean, level, len(array), n_unscored, None, "bca (no variation)")
    interval = bootstrap_mean(array, level, n_resamples).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return Estimate(mean, stderr, low, high, level, len(array), n_unscored, None, "bca")


def cluster_t_interval(
    values: Sequence[float], clusters: Sequence[Hashable], *, level: float = 0.95, n_unscored: int = 0
) -> Estimate:
    """Mean with the cluster-robust CR2 standard error and a t interval with G-1 degrees of freedom.

    For a mean the CR2 correction (Bell and McCaffrey 2002) of cluster g's residuals is (1 - n_g/n)^(-1/2),
    so Var = sum_g (sum of g's residuals)^2 / (1 - n_g/n) / n^2.
    Raises: ValueError if the lengths differ.
    """
    array = finite_values(values)
    if len(array) != len(clusters):
        raise ValueError("values and clusters differ in length")
    index = cluster_index(clusters)
    sizes = np.bincount(index)
    n, n_clusters = len(array), len(sizes)
    if n < 2 or n_clusters < 2:
        return replace(undefined(array, level, n_unscored, "cr2-t"), n_clusters=n_clusters)
    mean = float(array.mean())
    sums = np.bincount(index, weights=array - mean)
    stderr = math.sqrt(float(np.sum(sums**2 / (1 - sizes / n)))) / n
    half = float(sps.t.ppf(0.5 + level / 2, n_clusters - 1)) * stderr
    return Estimate(mean, stderr, mean - half, mean + half, level, n, n_unscored, n_clusters, "cr2-t")


def t_interval(values: Sequence[float], *, level: float = 0.95, n_unscored: int = 0) -> Estimate:
    """Mean with Student's interval: the CR2 one where each value is a cluster of its own."""
    robust = cluster_t_interval(values, range(len(values)), level=level, n_unscored=n_unscored)
    return replace(robust, n_clusters=None, method=robust.method.replace("cr2-t", "t"))


def headline(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    n_unscored: int = 0,
    n_resamples: int | None = None,
) -> Estimate:
    """The widest of the BCa interval, the t interval and, with two or more clusters, the CR2 t interval over them.

    Each alone covers less than it claims on some shape of data: skewed, clustered, or few.
    """
    candidates = [
        mean_bca(values, level=level, n_unscored=n_unscored, n_resamples=n_resamples),
        t_interval(values, level=level, n_unscored=n_unscored),
    ]
    n_clusters = len(set(clusters)) if clusters is not None else 0
    if clusters is not None and n_clusters > 1:
        candidates.append(cluster_t_interval(values, clusters, level=level, n_unscored=n_unscored))
    widest = candidates[0]
    for candidate in candidates[1:]:
        if candidate.width > widest.width or math.isnan(widest.width):
            widest = candidate
    return replace(widest, n_clusters=n_clusters) if n_clusters > 1 else widest


def rate(successes: int, n: int, *, level: float = 0.95, n_unscored: int = 0) -> Estimate:
    """A share with the exact Clopper-Pearson interval (scipy); NaN for n = 0.   Raises: ValueError if k > n."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n}")
    if n == 0:
        return undefined(np.empty(0), level, n_unscored, "clopper-pearson")
    interval = sps.binomtest(successes, n).proportion_ci(confidence_level=level, method="exact")
    p = successes / n
    stderr = math.sqrt(p * (1 - p) / n) if n > 1 else math.nan
    return Estimate(p, stderr, float(interval.low), float(interval.high), level, n, n_unscored, None, "clopper-pearson")
