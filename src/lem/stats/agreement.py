"""Agreement of raters: Krippendorff's alpha and weighted kappa, with jackknife intervals over the rated units."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as sps

from lem.stats.estimate import Estimate, Values, cluster_index, finite_values

FEWEST_UNITS = 30  # from here on the interval keeps what it promises where conclusions depend on it (docs/METHODS.md)
MOST_GROUPS = 1_000  # with more units than these they are left out by groups
_CHANCE_UNITS = 0.5  # units of chance agreement added to those seen, so that no logarithm is infinite

Units = NDArray[np.intp]


def _estimate(
    statistic: Callable[[Units], float], ratings: NDArray[np.float64], n: int, clusters: Sequence[Hashable] | None,
    level: float, method: str,
) -> Estimate:  # fmt: skip
    """A coefficient 1 - disagreement / chance disagreement of n units, with an interval by the jackknife.

    The interval is that of log(1 - coefficient), each unit (or cluster of them) left out in turn, with Student's t.
    The lower end leaves room for what was not seen: a kind of unit of which m independent ones hold none can be at most
    1 - ((1 - level) / 2)^(1/m) of all, and on it the raters may differ as two of all `ratings` that are not equal.
    Where the units that are left have no coefficient, chance agreement (0) takes its place.
    """
    units = np.arange(n)
    value = statistic(units) if n else math.nan
    index = units if clusters is None else cluster_index(clusters)
    if len(index) != n:
        raise ValueError("units and clusters differ in length")
    independent = len(set(index.tolist()))
    n_clusters = None if clusters is None else independent
    if independent < 2 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, math.nan, level, n, 0, n_clusters, f"{method} (undefined)")
    groups = index % MOST_GROUPS
    n_groups = min(independent, MOST_GROUPS)
    rest = np.nan_to_num([statistic(units[groups != group]) for group in range(n_groups)], nan=0.0)
    centre, spread = _loss(value, independent), _jackknife(_loss(rest, independent * (1 - 1 / n_groups)))
    half = float(sps.t.ppf(0.5 + level / 2, n_groups - 1)) * spread
    missed = 1 - ((1 - level) / 2) ** (1 / independent)
    low = min(1 - math.exp(centre + half), value - missed / _differing(ratings))
    high = max(1 - math.exp(centre - half), value)
    return Estimate(value, _jackknife(rest), max(-1.0, low), high, level, n, 0, n_clusters, f"{method}, jackknife")


def _loss(coefficient: NDArray[np.float64] | float, n: float) -> NDArray[np.float64]:
    """log(1 - coefficient) after adding the units of chance agreement to n units."""
    return np.log((n * (1 - np.asarray(coefficient)) + _CHANCE_UNITS) / (n + _CHANCE_UNITS))


def _jackknife(rest: NDArray[np.float64]) -> float:
    """Standard error of a statistic from its values with one of the groups left out in turn."""
    return math.sqrt((len(rest) - 1) * float(rest.var()))


def _differing(ratings: NDArray[np.float64]) -> float:
    """The chance that two of the ratings, drawn without putting back, are not equal."""
    counts = np.unique(ratings, return_counts=True)[1]
    n = len(ratings)
    return 1 - float((counts * (counts - 1)).sum()) / (n * (n - 1))


def krippendorff_alpha(
    ratings: ArrayLike,
    measurement: str = "ordinal",
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Krippendorff's alpha (krippendorff), 1 for perfect agreement, 0 for chance; n counts units rated twice or more.

    NaN where all ratings are the same, since chance agreement is then perfect too, or no unit has two ratings.
    Args:  ratings: raters x units, NaN where a rater gave none.  measurement: nominal, ordinal, interval or ratio.
           clusters: what each unit belongs to, where several are of one (answers to one probe).
    Raises: ValueError if it is not a table of two dimensions, a rating is infinite, or lengths differ.
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2 or np.isinf(table).any():
        raise ValueError("ratings are not a table of raters x units with finite values")
    if clusters is not None and len(clusters) != table.shape[1]:
        raise ValueError("units and clusters differ in length")
    twice = (~np.isnan(table)).sum(axis=0) >= 2
    table = table[:, twice]
    within = None if clusters is None else [one for one, rated in zip(clusters, twice, strict=True) if rated]
    from krippendorff import alpha

    def of_units(units: Units) -> float:
        rated = table[:, units]
        given = rated[~np.isnan(rated)]
        if not len(given) or np.all(given == given[0]):
            return math.nan
        return float(alpha(reliability_data=rated, level_of_measurement=measurement))

    given = table[~np.isnan(table)]
    return _estimate(of_units, given, table.shape[1], within, level, f"krippendorff's alpha ({measurement})")


def weighted_kappa(
    first: Values,
    second: Values,
    *,
    weights: str = "quadratic",
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Cohen's kappa of two raters (statsmodels) with disagreement weighted by its distance on the scale.

    Args:  first, second: one whole rating per unit.  weights: "quadratic", "linear" or "none".  clusters: what each
           unit belongs to, where several are of one.
    Every whole number between the lowest and the highest rating is a step of the scale, used or not. NaN where both
    raters gave one and the same value throughout.
    Raises: ValueError if a rating is NaN or not a whole number, or lengths differ.
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

    def of_units(units: Units) -> float:
        table = np.bincount(code[units], minlength=steps * steps).reshape(steps, steps)
        if np.trace(table > 0) == 1 and table.trace() == len(units):
            return math.nan  # one and the same value throughout: chance agreement is perfect too
        return float(cohens_kappa(table, wt=None if weights == "none" else weights, return_results=False))

    return _estimate(of_units, both, len(one), clusters, level, f"kappa ({weights})")
