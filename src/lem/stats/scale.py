"""The mean of values on a scale with known ends: an interval that stays on it, exact where nothing varies."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

from lem.stats.estimate import Estimate, Values, finite_values, rate
from lem.stats.headline import headline


def mean_on_scale(
    values: Values,
    clusters: Sequence[Hashable] | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    level: float = 0.95,
    n_unscored: int = 0,
) -> Estimate:
    """The mean with its headline interval kept between the ends of the scale.

    Where all values lie at one end of a scale from 0 to 1 (all wrong, all right) no spread can be estimated, and the
    interval is Clopper and Pearson's exact one. Without ends it is the plain headline.
    Raises: ValueError if a value is NaN.
    """
    array = finite_values(values)
    if (low, high) == (0.0, 1.0) and len(array) and (array == array[0]).all() and array[0] in (0.0, 1.0):
        return rate(int(array.sum()), len(array), level=level, n_unscored=n_unscored)
    found = headline(array, clusters, level=level, n_unscored=n_unscored)
    if math.isnan(found.low):
        return found
    least = -math.inf if low is None else low
    most = math.inf if high is None else high
    return replace(found, low=max(least, found.low), high=min(most, found.high))
