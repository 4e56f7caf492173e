"""What repeats say: the difference on exactly these probes, and how much of the noise is the sampling of answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

from lem.stats.estimate import Estimate, finite_values

Repeats = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class _ProbeDifferences:
    """Per probe: mean difference, variance of that mean from sampling (NaN: one repeat), its degrees of freedom.

    `size` is the number of repeats behind a probe: variance x size is the variance of one repeat's difference.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    freedom: NDArray[np.float64]
    size: NDArray[np.float64]


def _one_probe(treated: NDArray[np.float64], base: NDArray[np.float64]) -> tuple[float, float, float, float]:
    k, m = len(treated), len(base)
    mean, size = float(treated.mean() - base.mean()), 2 / (1 / k + 1 / m)
    if min(k, m) < 2:
        return mean, math.nan, 0.0, size
    if k == m:
        # Repeat by repeat, because repeats of both arms share their random stream.
        return mean, float((treated - base).var(ddof=1) / k), k - 1.0, size
    parts = np.asarray([treated.var(ddof=1) / k, base.var(ddof=1) / m])
    total = float(parts.sum())
    welch = total**2 / float((parts**2 / np.asarray([k - 1, m - 1])).sum()) if total else k + m - 2.0
    return mean, total, welch, size


def _probe_differences(treatment: Repeats, baseline: Repeats, probes: Sequence[str]) -> _ProbeDifferences:
    rows = [_one_probe(finite_values(treatment[probe]), finite_values(baseline[probe])) for probe in probes]
    columns = np.asarray(rows, dtype=np.float64).reshape(len(rows), 4).T
    return _ProbeDifferences(*columns)


def _shared(treatment: Repeats, baseline: Repeats) -> list[str]:
    return [probe for probe in sorted(set(treatment) & set(baseline)) if len(treatment[probe]) and len(baseline[probe])]


def _weights(probes: Sequence[str], sources: Mapping[str, str]) -> NDArray[np.float64]:
    """Equal weight to every source, shared among its variants; they sum to 1."""
    names = [sources.get(probe, probe) for probe in probes]
    sizes = Counter(names)
    return np.asarray([1 / (len(sizes) * sizes[name]) for name in names])


def fixed_set_difference(
    treatment: Repeats, baseline: Repeats, *, level: float = 0.95, sources: Mapping[str, str] | None = None
) -> Estimate:
    """Mean difference on exactly these probes: the interval holds the noise of sampling answers and nothing else.

    The variance is the weighted sum over probes of (variance of the repeats' differences / repeats), with
    Satterthwaite's degrees of freedom. Repeats are paired by position where both arms have equally many, otherwise
    taken as two independent samples. A probe with a single repeat borrows the mean variance of one repeat from the
    others; without any probe of two repeats the interval is NaN.

    Args:  treatment, baseline: the values of a probe's repeats.  sources: probe -> id of its source; the variants of
           a source share its weight.
    """
    probes = _shared(treatment, baseline)
    n = len(probes)
    if not n:
        return Estimate(math.nan, math.nan, math.nan, math.nan, level, 0, 0, None, "fixed set (no probes)")
    found, weights = _probe_differences(treatment, baseline, probes), _weights(probes, sources or {})
    value = float(weights @ found.mean)
    known = ~np.isnan(found.variance)
    if not known.any():
        return Estimate(value, math.nan, math.nan, math.nan, level, n, 0, None, "fixed set (fewer than 2 repeats)")
    of_one = float(np.mean(found.variance[known] * found.size[known]))
    parts = weights**2 * np.where(known, found.variance, of_one / found.size)
    total = float(parts.sum())
    if total == 0:
        return Estimate(value, 0.0, value, value, level, n, 0, None, "fixed set (no variation)")
    freedom = total**2 / float((parts[known] ** 2 / found.freedom[known]).sum())
    half = float(sps.t.ppf(0.5 + level / 2, freedom)) * math.sqrt(total)
    return Estimate(value, math.sqrt(total), value - half, value + half, level, n, 0, None, "fixed set t")


@dataclass(frozen=True)
class NoiseComponents:
    """Standard deviations behind a probe's difference: `sd_between` of the true ones, `sd_within` of one repeat's.

    `repeats` is the (harmonic) mean number of repeats a probe had. With one repeat the two cannot be told apart:
    `sd_within` is NaN and `sd_between` holds both.
    """

    sd_between: float
    sd_within: float
    n: int
    repeats: float


def noise_components(treatment: Repeats, baseline: Repeats) -> NoiseComponents:
    """Split the spread of the per-probe differences into probes and repeats, by the method of moments.

    Within: mean over probes of the variance of one repeat's difference. Between: variance of the per-probe
    differences less what the repeats explain, at least 0. NaN with fewer than two shared probes.
    """
    probes = _shared(treatment, baseline)
    if not probes:
        return NoiseComponents(math.nan, math.nan, 0, math.nan)
    found = _probe_differences(treatment, baseline, probes)
    repeats = float(1 / np.mean(1 / found.size))
    known = ~np.isnan(found.variance)
    within = float(np.mean(found.variance[known] * found.size[known])) if known.any() else math.nan
    if len(probes) < 2:
        return NoiseComponents(math.nan, math.sqrt(within), len(probes), repeats)
    spread = float(found.mean.var(ddof=1))
    if math.isnan(within):
        return NoiseComponents(math.sqrt(spread), math.nan, len(probes), repeats)
    return NoiseComponents(math.sqrt(max(0.0, spread - within / repeats)), math.sqrt(within), len(probes), repeats)


def sd_of_difference(c: NoiseComponents, repeats: int) -> float:
    """Standard deviation of a probe's difference with this many repeats: sqrt(between^2 + within^2 / repeats).

    Where `sd_within` is unknown this is `sd_between`, which is an upper bound for as many repeats as were seen or more.
    Raises: ValueError for fewer than one repeat.
    """
    if repeats < 1:
        raise ValueError(f"{repeats} repeats")
    if math.isnan(c.sd_within):
        return c.sd_between
    return math.sqrt(c.sd_between**2 + c.sd_within**2 / repeats)
