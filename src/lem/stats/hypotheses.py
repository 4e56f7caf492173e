"""Tests of "no difference" on paired differences: sign flip (means) and Wilcoxon (ranks)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

from lem.stats.estimate import BOOTSTRAP_SEED, LARGE_N, Values, cluster_index, finite_values

N_FLIPS = 9999
_BATCH_VALUES = 4_000_000  # signs held at once: 32 MB
_MAX_EXACT = 50  # scipy's own bound for untied ranks
_MAX_TIED_EXACT = 13  # 2^13 sign patterns are fewer than N_FLIPS draws


@dataclass(frozen=True)
class PValue:
    """A two-sided p-value with its statistic.

    `n` counts the probes that entered; `exact` is True where every arrangement was counted and False for a random
    sample of them or a large-sample formula. `p` is NaN where there was nothing to test.
    """

    name: str
    statistic: float
    p: float
    n: int
    exact: bool
    note: str = ""


def _permuted(units: NDArray[np.float64], n_draws: float) -> float:
    """Two-sided p of the sum under changes of sign (scipy): all of them for infinitely many draws."""
    found = sps.permutation_test(
        (units,), np.sum, permutation_type="samples", vectorized=True, n_resamples=n_draws,
        batch=max(1, _BATCH_VALUES // len(units)), rng=np.random.default_rng(BOOTSTRAP_SEED),
    )  # fmt: skip
    return float(found.pvalue)


def sign_flip(
    differences: Values, clusters: Sequence[Hashable] | None = None, *, n_resamples: int | None = None
) -> PValue:
    """Permutation test of the mean difference (scipy): under the null each difference may as well have the other sign.

    Up to 13 units all 2^n sign patterns are counted; beyond, 9,999 seeded draws, where p = (hits + 1) / (draws + 1)
    on each side. Beyond 2,000 units the permutation distribution is taken as the normal one with its exact variance,
    the sum of squares. With clusters the differences of a whole cluster change sign together.
    Raises: ValueError if a difference is NaN or the lengths differ.
    """
    array = finite_values(differences)
    if clusters is not None and len(clusters) != len(array):
        raise ValueError("differences and clusters differ in length")
    n = len(array)
    if n == 0:
        return PValue("sign flip", math.nan, math.nan, 0, False, "no probes")
    units = array if clusters is None else np.bincount(cluster_index(clusters), weights=array).astype(np.float64)
    if len(units) > LARGE_N:
        z = float(units.sum() / np.linalg.norm(units)) if units.any() else 0.0
        note = f"normal approximation of the sign patterns (n > {LARGE_N:,})"
        return PValue("sign flip", float(array.mean()), float(2 * sps.norm.sf(abs(z))), n, False, note)
    if len(units) == 1:  # one unit: both of its sign patterns are as extreme as each other
        return PValue("sign flip", float(array.mean()), 1.0, n, True, "all sign patterns")
    n_draws = N_FLIPS if n_resamples is None else n_resamples
    exact = len(units) <= math.log2(n_draws)
    p = _permuted(units, np.inf if exact else n_draws)
    counted = "all sign patterns" if exact else f"{n_draws} sign patterns drawn"
    note = counted if clusters is None else f"{counted}, {len(units)} clusters flipped whole"
    return PValue("sign flip", float(array.mean()), p, n, exact, note)


def wilcoxon_signed_rank(differences: Values) -> PValue:
    """Wilcoxon's signed-rank test (scipy), zero differences dropped as Wilcoxon did.

    Exact up to 50 untied differences, and up to 13 tied ones by counting all sign patterns; beyond, the normal
    approximation with the variance corrected for ties. `statistic` is the smaller of the two rank sums.
    Raises: ValueError if a difference is NaN.
    """
    array = finite_values(differences)
    moved = array[array != 0]
    n_zeros = len(array) - len(moved)
    note = f"{n_zeros} zero differences dropped" if n_zeros else ""
    if not len(array):
        return PValue("Wilcoxon", math.nan, math.nan, 0, False, "no probes")
    if not len(moved):
        return PValue("Wilcoxon", 0.0, 1.0, len(array), True, note)
    tied = len(np.unique(np.abs(moved))) < len(moved)
    if tied and len(moved) <= _MAX_TIED_EXACT:
        ranks = np.sign(moved) * sps.rankdata(np.abs(moved))
        smaller = float(min(ranks[ranks > 0].sum(), -ranks[ranks < 0].sum()))
        return PValue("Wilcoxon", smaller, _permuted(ranks, np.inf), len(array), True, note)
    exact = len(moved) <= _MAX_EXACT and not tied
    found = sps.wilcoxon(moved, method="exact" if exact else "asymptotic")
    return PValue("Wilcoxon", float(found.statistic), float(found.pvalue), len(array), exact, note)
