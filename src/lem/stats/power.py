"""What a design can see: power, minimum detectable effect and probes needed of a paired t test."""

from __future__ import annotations

import math

from scipy import optimize
from scipy import stats as sps

_MOST_PROBES = 2**40


def _alpha_of_one(alpha: float, n_tests: int) -> float:
    if not 0 < alpha < 1 or n_tests < 1:
        raise ValueError(f"alpha {alpha} with {n_tests} tests")
    return alpha / n_tests


def _spread(sd: float, design_effect: float) -> float:
    if not (sd >= 0 and design_effect > 0):
        raise ValueError(f"standard deviation {sd}, design effect {design_effect}")
    return sd * math.sqrt(design_effect)


def power_of(
    effect: float, sd: float, n: int, *, alpha: float = 0.05, n_tests: int = 1, design_effect: float = 1.0
) -> float:
    """Chance that a two-sided paired t test at alpha / n_tests finds this mean difference (statsmodels).

    Args:  sd: standard deviation of a probe's difference.  n: probes.  n_tests: as the first step of Holm.
           design_effect: see `design_effect`; the standard error grows by its square root.
    NaN with fewer than two probes.   Raises: ValueError for an impossible argument.
    """
    level, spread = _alpha_of_one(alpha, n_tests), _spread(sd, design_effect)
    if n < 2:
        return math.nan
    if spread == 0 or effect == 0:
        return level if effect == 0 else 1.0
    from statsmodels.stats.power import TTestPower  # two seconds to import

    # Beyond a noncentrality of 30 the power is 1, and the noncentral t loses its digits.
    standardised = min(abs(effect) / spread, 30 / math.sqrt(n))
    found = float(TTestPower().power(standardised, n, level, alternative="two-sided"))
    if math.isnan(found):
        # The far tail of a strong effect underflows to NaN in scipy; it adds nothing to the near one.
        found = float(TTestPower().power(standardised, n, level / 2, alternative="larger"))
    return 1.0 if math.isnan(found) else found


def detectable_effect(
    stderr: float, freedom: float, *, alpha: float = 0.05, power: float = 0.8, n_tests: int = 1
) -> float:
    """Smallest effect that a two-sided t test at alpha / n_tests finds with this power, given its standard error.

    For a comparison that was made: the standard error and the degrees of freedom are those of its own test.
    NaN without either, 0 where nothing varies.
    """
    level = _alpha_of_one(alpha, n_tests)
    if math.isnan(stderr) or not freedom > 0:
        return math.nan
    if stderr == 0:
        return 0.0
    limit = float(sps.t.isf(level / 2, freedom))

    def short_of(shift: float) -> float:
        near, far = float(sps.nct.sf(limit, freedom, shift)), float(sps.nct.cdf(-limit, freedom, shift))
        found = near if math.isnan(far) else near + far  # the far tail of a strong effect underflows to NaN in scipy
        return 1.0 - power if math.isnan(found) else found - power  # and so does the near one where the power is 1

    most = limit + 1
    while short_of(most) < 0:
        most *= 2
    return float(optimize.brentq(short_of, 0.0, most, xtol=1e-9)) * stderr


def minimum_detectable_effect(
    sd: float, n: int, *, alpha: float = 0.05, power: float = 0.8, n_tests: int = 1, design_effect: float = 1.0
) -> float:
    """Smallest mean difference that a two-sided paired t test at alpha / n_tests finds with this power.

    In units of the score. NaN with fewer than two probes, 0 with no spread.   Raises: ValueError as `power_of`.
    """
    level, spread = _alpha_of_one(alpha, n_tests), _spread(sd, design_effect)
    if not level < power < 1:
        raise ValueError(f"power {power} is not between alpha and 1")
    return detectable_effect(spread / math.sqrt(n), n - 1, alpha=level, power=power) if n >= 2 else math.nan


def probes_needed(
    effect: float,
    sd: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    n_tests: int = 1,
    design_effect: float = 1.0,
) -> int:
    """Fewest probes whose `power_of` this effect reaches `power`; at least 2.

    Raises: ValueError for no effect or one that a trillion probes could not show.
    """
    _alpha_of_one(alpha, n_tests)
    if effect == 0 or not 0 < power < 1:
        raise ValueError(f"effect {effect} with power {power}")

    def enough(n: int) -> bool:
        return power_of(effect, sd, n, alpha=alpha, n_tests=n_tests, design_effect=design_effect) >= power

    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST_PROBES:
            raise ValueError(f"an effect of {effect} with standard deviation {sd} cannot be shown")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
