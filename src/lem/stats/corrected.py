"""Shares corrected for an instrument that errs: what a judge's rate says once its own error rates are measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats as sps

from lem.stats.estimate import Estimate, rate

METHOD = "Lang-Reiczigel"
CHANCE = "no better than chance"
UNBOUNDED = f"sensitivity + specificity may be 1 or less within its error, {CHANCE}: the share may be anything"
OUTSIDE = "the whole interval lies outside 0 to 1: the judge errs otherwise here than on the labelled answers"


@dataclass(frozen=True)
class CorrectedRate:
    """A share as an instrument reports it and as it is after correction for the instrument's own errors.

    `observed` is the share reported positive, `sensitivity` that among true positives, `specificity` the share
    reported negative among true negatives. `corrected` is NaN where it is not identified; `why` then says so.
    """

    observed: Estimate
    sensitivity: Estimate
    specificity: Estimate
    corrected: Estimate
    why: str = ""

    @property
    def identified(self) -> bool:
        """Whether the instrument tells positives from negatives at all, as measured."""
        return not math.isnan(self.corrected.value)


def corrected_rate(
    positives: int,
    n: int,
    true_positives: int,
    n_positive: int,
    true_negatives: int,
    n_negative: int,
    *,
    level: float = 0.95,
    design_effect: float = 1.0,
    n_unscored: int = 0,
) -> CorrectedRate:
    """The share (observed + spec - 1) / (sens + spec - 1) of Rogan and Gladen (1978), with Lang and Reiczigel's limits.

    Their interval (2014, Preventive Veterinary Medicine 113, 13-22) holds the uncertainty of all three shares: z^2/2
    successes and failures are added to the observed one, one each to sensitivity and specificity, the delta method
    gives the variance, and a shift corrects its centre. Value and limits are clipped to [0, 1].
    Args:  design_effect: variance of the observed share over that of as many independent answers; at least 1 is used.
    The share is not identified where sens + spec <= 1, where nothing positive or negative was ever labelled, and where
    the interval lies wholly outside [0, 1]. Where the interval of sens + spec reaches 1 the limits are 0 and 1.
    Raises: ValueError for more successes than trials.
    """
    observed = rate(positives, n, level=level, n_unscored=n_unscored)
    sensitivity = rate(true_positives, n_positive, level=level)
    specificity = rate(true_negatives, n_negative, level=level)
    z = float(sps.norm.ppf(0.5 + level / 2))
    why = _not_identified(observed, sensitivity, specificity)
    low, high, stderr = math.nan, math.nan, math.nan
    if not why:
        low, high, stderr = _limits(
            (observed.value, n / max(1.0, design_effect)), (sensitivity.value, n_positive),
            (specificity.value, n_negative), z,
        )  # fmt: skip
        why = OUTSIDE if high < 0 or low > 1 else ""
    if why:
        nothing = Estimate(
            math.nan, math.nan, math.nan, math.nan, level, n, n_unscored, None, f"{METHOD} (not identified)"
        )
        return CorrectedRate(observed, sensitivity, specificity, nothing, why)
    value = (observed.value + specificity.value - 1) / (sensitivity.value + specificity.value - 1)
    unbounded = math.isinf(stderr)
    estimate = Estimate(
        _share(value), stderr, _share(low), _share(high), level, n, n_unscored, None,
        f"{METHOD} (unbounded)" if unbounded else METHOD,
    )  # fmt: skip
    return CorrectedRate(observed, sensitivity, specificity, estimate, UNBOUNDED if unbounded else "")


def _not_identified(observed: Estimate, sensitivity: Estimate, specificity: Estimate) -> str:
    if not observed.n:
        return "nothing was rated"
    if not sensitivity.n or not specificity.n:
        return f"no answer was labelled {'positive' if not sensitivity.n else 'negative'}"
    if sensitivity.value + specificity.value <= 1:
        return f"sensitivity {sensitivity.value:.2f} + specificity {specificity.value:.2f} is at most 1: {CHANCE}"
    return ""


def _limits(
    observed: tuple[float, float], sensitivity: tuple[float, int], specificity: tuple[float, int], z: float
) -> tuple[float, float, float]:
    """Low, high and standard error, before clipping; all infinite where the denominator may be zero.

    A ratio has no bounded interval then (Fieller), which the delta method alone would hide.
    """
    share, n = (observed[0] * observed[1] + z**2 / 2) / (observed[1] + z**2), observed[1] + z**2
    sens, n_sens = (sensitivity[0] * sensitivity[1] + 1) / (sensitivity[1] + 2), sensitivity[1] + 2
    spec, n_spec = (specificity[0] * specificity[1] + 1) / (specificity[1] + 2), specificity[1] + 2
    of_sens, of_spec = sens * (1 - sens) / n_sens, spec * (1 - spec) / n_spec
    power = sens + spec - 1
    if power - z * math.sqrt(of_sens + of_spec) <= 0:
        return -math.inf, math.inf, math.inf
    centre = (share + spec - 1) / power
    shift = 2 * z**2 * (centre * of_sens - (1 - centre) * of_spec)
    stderr = math.sqrt(share * (1 - share) / n + centre**2 * of_sens + (1 - centre) ** 2 * of_spec) / power
    return centre + shift - z * stderr, centre + shift + z * stderr, stderr


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
