"""`Estimate` and the intervals of one mean: BCa bootstrap, CR2 cluster-robust t, Clopper-Pearson for shares."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

N_RESAMPLES = 9999
BOOTSTRAP_SEED = 20260101
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


def _undefined(values: NDArray[np.float64], level: float, n_unscored: int, method: str) -> Estimate:
    value = float(values.mean()) if len(values) else math.nan
    return Estimate(value, math.nan, math.nan, math.nan, level, len(values), n_unscored, None, f"{method} (n < 2)")


def mean_bca(values: Sequence[float], *, level: float = 0.95, n_unscored: int = 0) -> Estimate:
    """Mean with the bias-corrected and accelerated bootstrap interval (scipy), seeded so that reruns agree.

    Identical values have a zero-width interval and zero standard error: that is what the data say.
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return _undefined(array, level, n_unscored, "bca")
    mean, stderr = float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array)))
    if np.all(array == array[0]):
        return Estimate(mean, 0.0, mean, mean, level, len(array), n_unscored, None, "bca (no variation)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sps.DegenerateDataWarning)
        # The jackknife of nearly constant data has no spread; scipy then divides 0 by 0 and falls back by itself.
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = sps.bootstrap(
            (array,), np.mean, n_resamples=N_RESAMPLES, confidence_level=level, method="BCa",
            rng=np.random.default_rng(BOOTSTRAP_SEED), batch=max(1, _BATCH_VALUES // len(array)),
        ).confidence_interval  # fmt: skip
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
    array = np.asarray(values, dtype=np.float64)
    if len(array) != len(clusters):
        raise ValueError("values and clusters differ in length")
    labels = list(dict.fromkeys(clusters))
    n, n_clusters = len(array), len(labels)
    if n < 2 or n_clusters < 2:
        return replace(_undefined(array, level, n_unscored, "cr2-t"), n_clusters=n_clusters)
    position = {label: number for number, label in enumerate(labels)}
    index = np.asarray([position[cluster] for cluster in clusters], dtype=np.intp)
    mean = float(array.mean())
    sums = np.bincount(index, weights=array - mean, minlength=n_clusters)
    sizes = np.bincount(index, minlength=n_clusters)
    stderr = math.sqrt(float(np.sum(sums**2 / (1 - sizes / n)))) / n
    half = float(sps.t.ppf(0.5 + level / 2, n_clusters - 1)) * stderr
    return Estimate(mean, stderr, mean - half, mean + half, level, n, n_unscored, n_clusters, "cr2-t")


def headline(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, level: float = 0.95, n_unscored: int = 0
) -> Estimate:
    """The wider of the BCa interval over probes and the CR2 t interval over domains (BCa alone without clusters)."""
    bca = mean_bca(values, level=level, n_unscored=n_unscored)
    if clusters is None or len(set(clusters)) < 2:
        return bca
    robust = cluster_t_interval(values, clusters, level=level, n_unscored=n_unscored)
    if math.isnan(bca.width) or robust.width > bca.width:
        return robust
    return replace(bca, n_clusters=robust.n_clusters)


def rate(successes: int, n: int, *, level: float = 0.95, n_unscored: int = 0) -> Estimate:
    """A share with the exact Clopper-Pearson interval (scipy); NaN for n = 0.   Raises: ValueError if k > n."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n}")
    if n == 0:
        return _undefined(np.empty(0), level, n_unscored, "clopper-pearson")
    interval = sps.binomtest(successes, n).proportion_ci(confidence_level=level, method="exact")
    p = successes / n
    stderr = math.sqrt(p * (1 - p) / n) if n > 1 else math.nan
    return Estimate(p, stderr, float(interval.low), float(interval.high), level, n, n_unscored, None, "clopper-pearson")
