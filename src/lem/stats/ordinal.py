"""Cliff's delta: how often a treated probe's value lies above a baseline one, whatever the distances mean."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

from lem.stats import estimate
from lem.stats.estimate import BOOTSTRAP_SEED, Estimate, Values, finite_values

_BATCH_VALUES = 2_000_000
_LARGE_N = 1_000  # beyond, ranking every resample costs minutes


def _delta(treatment: NDArray[np.float64], baseline: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """P(T > B) - P(T < B) over all pairs, from the rank sum of the treatment (Mann and Whitney's identity)."""
    n, m = treatment.shape[axis], baseline.shape[axis]
    ranks = sps.rankdata(np.concatenate([treatment, baseline], axis=axis), axis=axis)
    treated = np.take(ranks, np.arange(n), axis=axis).sum(axis=axis)
    return np.asarray(2 * (treated - n * (n + 1) / 2) / (n * m) - 1)


def _influence(treatment: NDArray[np.float64], baseline: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each probe's part in the delta, from its two values' places among the other arm's values; their mean is delta."""
    n = len(treatment)
    both = sps.rankdata(np.concatenate([treatment, baseline]))
    above = (both[:n] - sps.rankdata(treatment)) / n
    below = 1 - (both[n:] - sps.rankdata(baseline)) / n
    return np.asarray(2 * (above + below) - 2 - (2 * above.mean() - 1))


def cliffs_delta(
    treatment: Values, baseline: Values, *, level: float = 0.95, n_resamples: int | None = None
) -> Estimate:
    """P(T > B) - P(T < B) over all n^2 pairs of a treated and a baseline value, -1 to 1, with a BCa interval (scipy).

    Probes are resampled as pairs, so that the interval knows what makes a probe hard for both arms.
    Args:  treatment, baseline: one value per probe, in the same order.   Raises: ValueError if the lengths differ.
    """
    treated, base = finite_values(treatment), finite_values(baseline)
    if len(treated) != len(base):
        raise ValueError("treatment and baseline differ in length")
    n = len(treated)
    value = float(_delta(treated, base)) if n else math.nan
    if n < 2:
        return Estimate(value, math.nan, math.nan, math.nan, level, n, 0, None, "cliff's delta, bca (n < 2)")
    if n > _LARGE_N:
        stderr = float(_influence(treated, base).std(ddof=1) / math.sqrt(n))
        half = float(sps.norm.ppf(0.5 + level / 2)) * stderr
        method = f"cliff's delta, normal (n > {_LARGE_N:,})"
        return Estimate(value, stderr, max(-1.0, value - half), min(1.0, value + half), level, n, 0, None, method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sps.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's own 0/0 where every resample agrees
        found = sps.bootstrap(
            (treated, base), _delta, paired=True, vectorized=True, confidence_level=level, method="BCa",
            n_resamples=estimate.N_RESAMPLES if n_resamples is None else n_resamples,
            rng=np.random.default_rng(BOOTSTRAP_SEED), batch=max(1, _BATCH_VALUES // n),
        )  # fmt: skip
    if np.ptp(found.bootstrap_distribution) == 0:
        return Estimate(value, 0.0, value, value, level, n, 0, None, "cliff's delta, bca (no variation)")
    low, high = (float(limit) for limit in found.confidence_interval)
    return Estimate(value, float(found.standard_error), low, high, level, n, 0, None, "cliff's delta, bca")
