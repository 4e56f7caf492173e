"""The bounds of a mean when some of its values are not known: worst and best case, without any assumption."""

from __future__ import annotations

import math

from lem.stats.estimate import Values, finite_values


def missing_bounds(values: Values, n_unscored: int, low: float, high: float) -> tuple[float, float]:
    """The mean if every unscored value were `low`, and if every one were `high` (Manski's bounds of a mean).

    With nothing unscored both are the mean itself; with no value at all they are the ends of the scale; with neither
    they are NaN.
    Raises: ValueError for a negative count, a scale without a range, or a value outside the scale.
    """
    array = finite_values(values)
    if n_unscored < 0 or not low < high:
        raise ValueError(f"{n_unscored} unscored values on a scale from {low} to {high}")
    if len(array) and not (low <= array.min() and array.max() <= high):
        raise ValueError(f"a value is outside the scale from {low} to {high}")
    n = len(array) + n_unscored
    if n == 0:
        return math.nan, math.nan
    known = float(array.sum())
    return (known + n_unscored * low) / n, (known + n_unscored * high) / n
