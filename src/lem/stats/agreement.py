"""Agreement of raters: Krippendorff's alpha and weighted kappa, with bootstrap intervals over the rated units."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as sps

from lem.stats.estimate import BOOTSTRAP_SEED, Estimate, Values, finite_values

N_AGREEMENT_RESAMPLES = 999


def _over_units(
    statistic: Callable[[NDArray[np.intp]], float], n: int, level: float, method: str, n_resamples: int | None
) -> Estimate:
    """Percentile interval of a statistic of resampled units; resamples where it is undefined are left out."""
    value = statistic(np.arange(n)) if n else math.nan
    if n < 2 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, math.nan, level, n, 0, None, f"{method} (undefined)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sps.DegenerateDataWarning)  # undefined resamples are dropped below
        found = sps.bootstrap(
            (np.arange(n),), statistic, vectorized=False, method="percentile", confidence_level=level,
            n_resamples=N_AGREEMENT_RESAMPLES if n_resamples is None else n_resamples,
            rng=np.random.default_rng(BOOTSTRAP_SEED),
        )  # fmt: skip
    draws = found.bootstrap_distribution[np.isfinite(found.bootstrap_distribution)]
    if np.ptp(draws) == 0:
        return Estimate(value, 0.0, value, value, level, n, 0, None, f"{method}, bootstrap (no variation)")
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(draws.std(ddof=1)), float(low), float(high), level, n, 0, None, f"{method}, bootstrap")


def krippendorff_alpha(
    ratings: ArrayLike, measurement: str = "ordinal", *, level: float = 0.95, n_resamples: int | None = None
) -> Estimate:
    """Krippendorff's alpha (krippendorff), 1 for perfect agreement, 0 for chance; n counts units rated twice or more.

    NaN where all ratings are the same, since chance agreement is then perfect too, or no unit has two ratings.
    Args:  ratings: raters x units, NaN where a rater gave none.  measurement: nominal, ordinal, interval or ratio.
    Raises: ValueError if it is not a table of two dimensions or a rating is infinite.
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2 or np.isinf(table).any():
        raise ValueError("ratings are not a table of raters x units with finite values")
    table = table[:, (~np.isnan(table)).sum(axis=0) >= 2]
    from krippendorff import alpha

    def of_units(units: NDArray[np.intp]) -> float:
        rated = table[:, units]
        given = rated[~np.isnan(rated)]
        if not len(given) or np.all(given == given[0]):
            return math.nan
        return float(alpha(reliability_data=rated, level_of_measurement=measurement))

    return _over_units(of_units, table.shape[1], level, f"krippendorff's alpha ({measurement})", n_resamples)


def weighted_kappa(
    first: Values,
    second: Values,
    *,
    weights: str = "quadratic",
    level: float = 0.95,
    n_resamples: int | None = None,
) -> Estimate:
    """Cohen's kappa of two raters (statsmodels) with disagreement weighted by its distance on the scale.

    Args:  first, second: one whole rating per unit.  weights: "quadratic", "linear" or "none".
    Every whole number between the lowest and the highest rating is a step of the scale, used or not. NaN where both
    raters gave one and the same value throughout.
    Raises: ValueError if a rating is NaN or not a whole number, or the raters rated different numbers of units.
    """
    one, two = finite_values(first), finite_values(second)
    if len(one) != len(two):
        raise ValueError("the two raters differ in the number of units")
    both = np.concatenate([one, two])
    if weights not in ("quadratic", "linear", "none"):
        raise ValueError(f"weights {weights!r} are not quadratic, linear or none")
    if np.any(both != np.round(both)):
        raise ValueError("kappa takes whole ratings; use krippendorff_alpha with measurement='interval'")
    low, steps = (int(both.min()), int(np.ptp(both)) + 1) if len(both) else (0, 1)
    from statsmodels.stats.inter_rater import cohens_kappa  # two seconds to import

    code = (one - low).astype(np.intp) * steps + (two - low).astype(np.intp)

    def of_units(units: NDArray[np.intp]) -> float:
        table = np.bincount(code[units], minlength=steps * steps).reshape(steps, steps)
        if np.trace(table > 0) == 1 and table.trace() == len(units):
            return math.nan  # one and the same value throughout: chance agreement is perfect too
        return float(cohens_kappa(table, wt=None if weights == "none" else weights, return_results=False))

    return _over_units(of_units, len(one), level, f"kappa ({weights})", n_resamples)
