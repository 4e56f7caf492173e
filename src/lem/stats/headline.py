"""The headline interval: it spans several intervals, because each alone covers less than it claims on some data."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as sps

from lem.stats.estimate import (
    LARGE_N,
    MOST_STRETCH,
    Estimate,
    Values,
    bootstrap_mean,
    bootstrap_t,
    cluster_freedom,
    cluster_t_interval,
    finite_values,
    mean_bca,
    studentised,
    t_interval,
)


def spanned_intervals(
    values: Values,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    n_resamples: int | None = None,
) -> list[Estimate]:
    """The intervals that `headline` spans: t, BCa and bootstrap-t over values, CR2 t over two or more clusters."""
    array = finite_values(values)
    found = [t_interval(array, level=level)]
    if 2 <= len(array) <= LARGE_N:
        found.append(mean_bca(array, level=level, n_resamples=n_resamples))
        found.append(bootstrap_t(array, level=level, n_resamples=n_resamples))
    if clusters is not None and _n_clusters(array, clusters):
        found.append(cluster_t_interval(array, clusters, level=level))
    return found


def headline(
    values: Values,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    n_unscored: int = 0,
    n_resamples: int | None = None,
) -> Estimate:
    """The span of the t, BCa and bootstrap-t intervals over probes and, with two or more clusters, CR2 t over them.

    Each end is the outermost of theirs: BCa and bootstrap-t follow skew, t is right for few probes, CR2 for alike
    ones. `method` names the one behind the lower and, if another, the one behind the upper end; `stderr` is the
    largest. Beyond `LARGE_N` values the bootstraps are left out.
    """
    spanned = spanned_intervals(values, clusters, level=level, n_resamples=n_resamples)
    lowest, highest = min(spanned, key=lambda found: found.low), max(spanned, key=lambda found: found.high)
    method = lowest.method if lowest.method == highest.method else f"{lowest.method} / {highest.method}"
    return replace(
        spanned[0], low=lowest.low, high=highest.high, stderr=max(found.stderr for found in spanned),
        n_unscored=n_unscored, n_clusters=spanned[-1].n_clusters, method=method,
    )  # fmt: skip


def _n_clusters(array: NDArray[np.float64], clusters: Sequence[Hashable] | None) -> int:
    """Number of clusters, 0 where they say nothing: none given, or all values in one."""
    if clusters is None:
        return 0
    if len(clusters) != len(array):
        raise ValueError("values and clusters differ in length")
    found = len(set(clusters))
    return found if found > 1 else 0


def headline_tail(
    values: Values,
    null: float,
    clusters: Sequence[Hashable] | None = None,
    *,
    n_resamples: int | None = None,
) -> float:
    """One-sided p of "the mean is at most `null`": the alpha whose headline interval of 1 - 2 alpha begins at null.

    It is the largest of the p-values of the intervals spanned. Where all values are equal only their number speaks,
    as in a sign test: 0.5^n (with clusters: 0.5^G). NaN with fewer than two values.
    """
    array = finite_values(values)
    n_clusters = _n_clusters(array, clusters)
    if len(array) < 2:
        return math.nan
    if np.all(array == array[0]):
        return 0.5 ** (n_clusters or len(array)) if array[0] > null else 1.0
    plain = t_interval(array)
    distance = (plain.value - null) / plain.stderr
    tails = [float(sps.t.sf(distance, len(array) - 1))]
    if clusters is not None and n_clusters:
        robust = cluster_t_interval(array, clusters)
        far = distance * plain.stderr / robust.stderr if robust.stderr else math.copysign(math.inf, distance)
        tails.append(float(sps.t.sf(far, cluster_freedom(clusters))))
    if len(array) <= LARGE_N:
        drawn = studentised(array, n_resamples)
        beyond = float((np.sum(drawn >= distance) + 1) / (len(drawn) + 1))
        tails.append(min(beyond, _stretched(distance, len(array))))
        tails.append(_bca_tail(array, null, max(tails), n_resamples))
    return max(tails)


def _stretched(distance: float, n: int) -> float:
    """Tail probability of Student's t at the distance that the limit of `bootstrap_t` allows for."""
    return float(sps.t.sf(distance / MOST_STRETCH if distance > 0 else distance, n - 1))


def _bca_tail(array: NDArray[np.float64], null: float, at_least: float, n_resamples: int | None) -> float:
    """The p at which an end of the BCa interval meets null, found on one set of resamples; or `at_least` if smaller."""
    first = bootstrap_mean(array, 0.9, n_resamples)

    def gap(p: float) -> float:
        interval = bootstrap_mean(array, abs(1 - 2 * p), previous=first).confidence_interval
        return float(interval.low if p < 0.5 else interval.high) - null

    grain = 1 / (len(first.bootstrap_distribution) + 1)
    smallest, largest = max(at_least, grain), 1 - grain
    if smallest >= largest or gap(smallest) >= 0:
        return smallest
    if gap(largest) <= 0:
        return largest
    return float(optimize.brentq(gap, smallest, largest, xtol=1e-6))
