"""`Estimate` and the single intervals of a mean: t, CR2 cluster-robust t, BCa, bootstrap-t, and of a share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

Values = Sequence[float] | NDArray[np.float64]
N_RESAMPLES = 9999
BOOTSTRAP_SEED = 20260101
MOST_STRETCH = 2.0  # see bootstrap_t
LARGE_N = 2_000  # beyond, resampling costs minutes and its interval is the normal one
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


def finite_values(values: Values) -> NDArray[np.float64]:
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


def studentised(array: NDArray[np.float64], n_resamples: int | None = None) -> NDArray[np.float64]:
    """t statistics of seeded resamples about the mean of the values; infinite where a resample does not vary."""
    mean, root = array.mean(), math.sqrt(len(array))
    nothing = 1e-9 * array.std() / root

    def pivot(resample: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        shift, spread = resample.mean(axis=axis) - mean, resample.std(axis=axis, ddof=1) / root
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(spread > nothing, shift / spread, np.sign(shift) * np.inf))

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", sps.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # limits among infinite resamples are not used here
        found = sps.bootstrap(
            (array,), pivot, vectorized=True, method="percentile", rng=np.random.default_rng(BOOTSTRAP_SEED),
            n_resamples=N_RESAMPLES if n_resamples is None else n_resamples,
            batch=max(1, _BATCH_VALUES // len(array)),
        )  # fmt: skip
    drawn: NDArray[np.float64] = found.bootstrap_distribution
    drawn[np.isnan(drawn)] = 0.0  # a resample of one value that is the mean
    return drawn


def mean_bca(values: Values, *, level: float = 0.95, n_unscored: int = 0, n_resamples: int | None = None) -> Estimate:
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
    values: Values, clusters: Sequence[Hashable], *, level: float = 0.95, n_unscored: int = 0
) -> Estimate:
    """Mean with the cluster-robust CR2 standard error and a t interval with Bell and McCaffrey's degrees of freedom.

    For a mean the CR2 correction (Bell and McCaffrey 2002) of cluster g's residuals is (1 - n_g/n)^(-1/2),
    so Var = sum_g (sum of g's residuals)^2 / (1 - n_g/n) / n^2. See `cluster_freedom` for the degrees of freedom.
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
    half = float(sps.t.ppf(0.5 + level / 2, cluster_freedom(clusters))) * stderr
    return Estimate(mean, stderr, mean - half, mean + half, level, n, n_unscored, n_clusters, "cr2-t")


def cluster_freedom(clusters: Sequence[Hashable]) -> float:
    """Degrees of freedom of the CR2 variance of a mean: G - 1 for G clusters of one size, fewer for uneven ones.

    Satterthwaite's, trace(W)^2 / trace(W W) with W = diag(s c^2) - (s c)(s c)', s_g = n_g / n, c_g = (1 - s_g)^(-1/2)
    (Bell and McCaffrey 2002).   Raises: ValueError with fewer than two clusters.
    """
    shares = np.bincount(cluster_index(clusters)) / max(1, len(clusters))
    if len(shares) < 2:
        raise ValueError("degrees of freedom take two or more clusters")
    own, load = shares / (1 - shares), shares**2 / (1 - shares)
    squares = (own**2).sum() - 2 * (own * load).sum() + load.sum() ** 2
    return float((own.sum() - load.sum()) ** 2 / squares)


def t_interval(values: Values, *, level: float = 0.95, n_unscored: int = 0) -> Estimate:
    """Mean with Student's interval: the CR2 one where each value is a cluster of its own."""
    robust = cluster_t_interval(values, range(len(values)), level=level, n_unscored=n_unscored)
    return replace(robust, n_clusters=None, method=robust.method.replace("cr2-t", "t"))


def bootstrap_t(
    values: Values, *, level: float = 0.95, n_unscored: int = 0, n_resamples: int | None = None
) -> Estimate:
    """Mean with the studentised bootstrap interval, each end at most `MOST_STRETCH` times as far out as Student's.

    The quantiles of (resample mean - mean) / (resample standard error) take the place of Student's (Efron and
    Tibshirani 1993, chapter 12). On skewed data they lie far apart, in a small sample sometimes absurdly so: hence
    the limit. A resample without variation counts as infinitely far out.
    """
    array = finite_values(values)
    plain = t_interval(array, level=level, n_unscored=n_unscored)
    if len(array) < 2 or np.all(array == array[0]):
        return replace(plain, method="bootstrap-t (n < 2)" if len(array) < 2 else "bootstrap-t (no variation)")
    drawn = studentised(array, n_resamples)
    limit = MOST_STRETCH * float(sps.t.ppf(0.5 + level / 2, len(array) - 1))
    least, most = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2], method="inverted_cdf")
    below, above = min(float(most), limit) * plain.stderr, max(float(least), -limit) * plain.stderr
    return replace(plain, low=plain.value - below, high=plain.value - above, method="bootstrap-t")


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
