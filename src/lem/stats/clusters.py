"""What clusters do to a mean: a bootstrap that resamples whole clusters, and the design effect."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

from lem.stats import estimate
from lem.stats.estimate import (
    BOOTSTRAP_SEED,
    LARGE_N,
    Estimate,
    Values,
    cluster_freedom,
    cluster_index,
    cluster_t_interval,
    finite_values,
    undefined,
)
from lem.stats.hypotheses import PValue


def _pooled_mean(sums: NDArray[np.float64], sizes: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    return np.asarray(sums.sum(axis=axis) / sizes.sum(axis=axis))


def cluster_bootstrap(
    values: Values, clusters: Sequence[Hashable], *, level: float = 0.95, n_resamples: int | None = None
) -> Estimate:
    """Mean with the BCa interval of a bootstrap that draws whole clusters (scipy).

    A resample's mean is over all its values, so that large clusters weigh more, as they do in the mean itself.
    Raises: ValueError if the lengths differ.
    """
    array = finite_values(values)
    if len(array) != len(clusters):
        raise ValueError("values and clusters differ in length")
    index = cluster_index(clusters)
    sizes = np.bincount(index).astype(np.float64)
    n, n_clusters = len(array), len(sizes)
    if n < 2 or n_clusters < 2:
        return replace(undefined(array, level, 0, "cluster bootstrap"), n_clusters=n_clusters)
    if n_clusters > LARGE_N:
        return replace(cluster_t_interval(array, clusters, level=level), method=f"cr2-t (clusters > {LARGE_N:,})")
    # About the mean, so that rounding of large sums cannot pass for variation.
    mean = float(array.mean())
    sums = np.bincount(index, weights=array - mean)
    if np.all(array == array[0]):
        return Estimate(mean, 0.0, mean, mean, level, n, 0, n_clusters, "cluster bootstrap (no variation)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sps.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's own 0/0 where all cluster means agree
        found = sps.bootstrap(
            (sums, sizes), _pooled_mean, paired=True, vectorized=True, confidence_level=level, method="BCa",
            n_resamples=estimate.N_RESAMPLES if n_resamples is None else n_resamples,
            rng=np.random.default_rng(BOOTSTRAP_SEED), batch=max(1, 2_000_000 // n_clusters),
        )  # fmt: skip
    low, high = (mean + float(limit) for limit in found.confidence_interval)
    stderr = float(found.standard_error)
    return Estimate(mean, stderr, low, high, level, n, 0, n_clusters, "cluster bootstrap, bca")


def cluster_t_test(values: Values, clusters: Sequence[Hashable]) -> PValue:
    """Test of a zero mean with the CR2 standard error and the t distribution with its degrees of freedom.

    `p` is NaN with one cluster, and 0 or 1 where the clusters' sums do not vary at all.
    """
    found = cluster_t_interval(values, clusters)
    n_clusters = found.n_clusters or 0
    note = f"{n_clusters} clusters"
    if math.isnan(found.stderr):
        return PValue("cluster t", math.nan, math.nan, found.n, False, note)
    if found.stderr == 0:
        return PValue("cluster t", math.inf if found.value else 0.0, 0.0 if found.value else 1.0, found.n, False, note)
    statistic = found.value / found.stderr
    return PValue(
        "cluster t", statistic, float(2 * sps.t.sf(abs(statistic), cluster_freedom(clusters))), found.n, False, note
    )


def design_effect(values: Values, clusters: Sequence[Hashable]) -> float:
    """CR2 variance of the mean over its variance if all values were independent; 1 means that clusters don't matter.

    n divided by it is the number of independent probes that would say as much. NaN without variation, with fewer
    than two values or with one cluster.
    """
    array = finite_values(values)
    robust = cluster_t_interval(values, clusters).stderr
    if len(array) < 2 or np.all(array == array[0]):
        return math.nan
    return float(robust**2 / (array.var(ddof=1) / len(array)))
