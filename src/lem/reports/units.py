"""The unit of a metric: the ends of its scale, whether it reads as percent, and whether less of it is better."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lem.records import Metric
from lem.records.metrics import BINARY, LOWER_IS_BETTER, SHARES
from lem.reports.formats import ABSENT, number
from lem.reports.watermarks import PANEL
from lem.stats import Estimate, keep_on_scale

STANDARD_DEVIATIONS = "standard deviations"


@dataclass(frozen=True)
class Unit:
    """`low` and `high` are the ends of the scale (None: not known); `graded` is True where 0 is a wrong answer.

    `standardised` is True where values count standard deviations from a mean, on a scale without ends.
    """

    low: float | None = None
    high: float | None = None
    percent: bool = False
    graded: bool = False
    lower_is_better: bool = False
    note: str = ""
    standardised: bool = False

    @property
    def name(self) -> str:
        """ "%", "1-10", "standard deviations", or "" where the scale is not known."""
        if self.percent or self.standardised:
            return "%" if self.percent else STANDARD_DEVIATIONS
        return "" if self.low is None or self.high is None else f"{self.low:g}-{self.high:g}"

    @property
    def factor(self) -> float:
        """What a stored value is multiplied with to read in the unit."""
        return 100.0 if self.percent else 1.0

    def label(self, metric: str) -> str:
        """The metric's name with its unit, as an axis says it."""
        return f"{metric}, {self.name}" if self.percent or self.standardised else metric

    def scaled(self, estimate: Estimate) -> Estimate:
        """An estimate as a drawing needs it, in the unit."""
        parts = {name: self.factor * getattr(estimate, name) for name in ("value", "stderr", "low", "high")}
        return replace(estimate, **parts)

    def shown(self, value: float | None, *, signed: bool = False) -> str:
        """A value in the unit: percent with one digit, everything else with two."""
        if value is None:
            return ABSENT
        return number(100 * value, 1, signed=signed) if self.percent else number(value, signed=signed)

    def interval(self, estimate: Estimate, *, signed: bool = False) -> str:
        """`[low, high]` in the unit, or 'no interval'."""
        if math.isnan(estimate.low) or math.isnan(estimate.high):
            return "no interval"
        return f"[{self.shown(estimate.low, signed=signed)}, {self.shown(estimate.high, signed=signed)}]"

    def on_scale(self, mean: Estimate) -> Estimate:
        """A mean with its interval on the scale, exact where nothing varies."""
        return keep_on_scale(mean, self.low, self.high)

    def differing(self, difference: Estimate) -> Estimate:
        """A difference with its interval within the greatest one that the scale allows."""
        if self.low is None or self.high is None:
            return difference
        return keep_on_scale(difference, self.low - self.high, self.high - self.low)


_HALVES = "partial refusals count half"
_NOTES = {
    "truthfulqa_mc2": "share of probability on true choices",
    "over_refusal": _HALVES,
    "unsafe_refusal": _HALVES,
}


def unit_of(metric: Metric) -> Unit:
    """The unit of a metric: percent for right or wrong and for shares, else the ends of its scale."""
    if metric.source != "scorer":
        return Unit(metric.low, metric.high, standardised=metric.source == PANEL and metric.low is None)
    graded = metric.kind == BINARY
    return Unit(
        metric.low, metric.high, percent=graded or metric.name in SHARES, graded=graded,
        lower_is_better=metric.name in LOWER_IS_BETTER, note=_NOTES.get(metric.name, ""),
    )  # fmt: skip
