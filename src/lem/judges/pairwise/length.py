"""The win rate at equal length: how often the treatment would be preferred if its answers were no longer or shorter."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

from lem.stats import Estimate, keep_on_scale

TOKENS, CHARACTERS = "tokens", "characters"


@dataclass(frozen=True)
class LengthControlledWinRate:
    """Win rate predicted at equal length, and the log-odds that one standard deviation of log length is worth.

    `unit` is what lengths were counted in, `treatment_length` and `baseline_length` their means per probe.
    `extrapolated` is True where one arm's answers were the longer ones throughout, so that equal lengths lie beyond
    everything seen.
    """

    estimate: Estimate
    slope: Estimate
    unit: str
    treatment_length: Estimate
    baseline_length: Estimate
    extrapolated: bool


def length_controlled_win_rate(
    values: Sequence[float], log_ratios: Sequence[float], clusters: Sequence[Hashable] | None = None,
    *, level: float = 0.95,
) -> tuple[Estimate, Estimate]:  # fmt: skip
    """(win rate at equal length, slope), by a logistic regression of the outcome on the length difference.

    The binomial GLM (statsmodels) with fractional outcomes

        P(win) = logistic(a + b * log(length of treatment / length of baseline) / s)

    one row per probe, s the standard deviation of the log ratios; the win rate is logistic(a). Its interval is that
    of a, put through the logistic function: the wider of the sandwich intervals over probes (t, n - 2) and over
    clusters (t, G - 1). After Dubois et al. 2024 (arXiv 2404.04475), who take tanh of the standardised difference in
    characters, add a term for the difficulty of each instruction, known from many models on their own 805, and fit
    with an L1 penalty. Two arms on other probes can tell no difficulty, the logarithm tames extremes as tanh does, and
    no penalty means no pull towards either arm.

    NaN where lengths do not vary, below four probes, or where length alone separates wins from losses, so that
    the fit has no finite solution. Where every outcome is the same, so is the win rate at any length; it then has an
    interval only if that is a tie: the exact one of `keep_on_scale`.
    Raises: ValueError if a value is outside 0 to 1, a ratio is not finite, or the lengths of the arguments differ.
    """
    y, x = np.asarray(values, dtype=np.float64), np.asarray(log_ratios, dtype=np.float64)
    if len(y) != len(x) or (clusters is not None and len(clusters) != len(y)):
        raise ValueError("outcomes, length ratios and clusters differ in number")
    if not (np.all((y >= 0) & (y <= 1)) and np.all(np.isfinite(x))):
        raise ValueError("an outcome is outside 0 to 1, or a length ratio is not finite")
    n, fault = len(y), _fault(y, x)
    if fault:
        constant = n > 0 and bool(np.all(y == y[0]))
        found = _nothing(n, level, fault, float(y[0]) if constant else math.nan)
        if constant and 0 < y[0] < 1:
            found = keep_on_scale(replace(found, stderr=0.0), 0.0, 1.0)
        return found, _nothing(n, level, fault, math.nan)
    scale = float(x.std(ddof=1))
    groups = [list(range(n))] + ([list(clusters)] if clusters is not None and len(set(clusters)) > 1 else [])
    fits = [_fit(y, x / scale, _numbers(group), level) for group in groups]
    names = ["cluster-robust t over probes", "cluster-robust t over domains"]
    widest = max(range(len(fits)), key=lambda k: fits[k][0][2] - fits[k][0][1])
    n_clusters = len(set(groups[1])) if len(groups) > 1 else None
    method = f"logistic, {names[widest]}"
    (a, low, high, se), slope = fits[widest]
    rate = _logistic(a)
    at_equal = Estimate(
        rate, se * rate * (1 - rate), _logistic(low), _logistic(high), level, n, 0, n_clusters, method
    )  # fmt: skip
    return at_equal, Estimate(slope[0], slope[3], slope[1], slope[2], level, n, 0, n_clusters, method)


def _fault(y: NDArray[np.float64], x: NDArray[np.float64]) -> str:
    """Why there is no finite fit; "" if there is one."""
    if len(y) < 4:
        return "too few probes"
    if np.all(y == y[0]):
        return "no variation"
    if float(np.ptp(x)) <= 1e-9 * max(1.0, float(np.abs(x).max())):
        return "lengths do not vary"
    # A fractional outcome is part win, part loss. One predictor separates them if no loss lies beyond a win.
    won, lost = x[y > 0], x[y < 1]
    if won.max() <= lost.min() or lost.max() <= won.min():
        return "length separates wins from losses"
    return ""


def _fit(
    y: NDArray[np.float64], x: NDArray[np.float64], groups: NDArray[np.intp], level: float
) -> list[tuple[float, float, float, float]]:
    """(value, low, high, stderr) of intercept and slope on the scale of log-odds."""
    import statsmodels.api as sm  # two seconds to import

    model = sm.GLM(y, np.column_stack([np.ones(len(x)), x]), family=sm.families.Binomial())
    fitted = model.fit(cov_type="cluster", cov_kwds={"groups": groups}, tol=1e-10)
    n_groups = len(set(groups.tolist()))
    half = float(sps.t.ppf(0.5 + level / 2, n_groups - 2 if n_groups == len(y) else n_groups - 1))
    pairs = zip(fitted.params.tolist(), fitted.bse.tolist(), strict=True)
    return [(value, value - half * se, value + half * se, se) for value, se in pairs]


def _numbers(labels: Sequence[Hashable]) -> NDArray[np.intp]:
    position: dict[Hashable, int] = {}
    return np.asarray([position.setdefault(label, len(position)) for label in labels], dtype=np.intp)


def _nothing(n: int, level: float, fault: str, value: float) -> Estimate:
    return Estimate(value, math.nan, math.nan, math.nan, level, n, 0, None, f"logistic ({fault})")


def _logistic(log_odds: float) -> float:
    return float(np.exp(-np.logaddexp(0.0, -log_odds)))
