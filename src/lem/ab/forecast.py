"""What a plan can see: the minimum detectable effect of each contrast, and whether repeats or probes buy more of it.

Everything is two-sided at alpha 0.05 with a power of 0.8, at the level of the first step of Holm's correction over the
declared contrasts, and with the design effect of the domains. More probes are taken to come with as many more domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lem.ab.noise import GIVEN, Noise
from lem.errors import UserError
from lem.stats import minimum_detectable_effect, power_of, probes_needed

ALPHA, POWER = 0.05, 0.8
REPEATS, FACTORS = (1, 2, 3, 5, 10), (1, 2, 4)
_ENDLESS = 10**9


@dataclass(frozen=True)
class Size:
    """How large a planned run is: probes that count (source probes), repeats, arms, probes per domain, contrasts."""

    n_probes: int
    repeats: int
    n_arms: int
    domain_size: float
    n_tests: int


@dataclass(frozen=True)
class GridCell:
    """The minimum detectable effect with so many repeats and probes, and the answers that takes (over all arms)."""

    repeats: int
    n_probes: int
    answers: int
    mde: float


@dataclass(frozen=True)
class ContrastForecast:
    """What a planned contrast can see; NaN where the pilot cannot tell.

    `at_most` marks an `mde` that is only an upper bound, because the spread within a probe is unknown.  `low`, `high`:
    the range of `mde` that the pilot's own size leaves open (see `Noise.sd_limits`); equal to it for a
    given spread.  `floor`: what remains with any number of repeats.
    """

    noise: Noise
    primary: bool
    design_effect: float
    sd: float
    mde: float
    low: float
    high: float
    at_most: bool
    floor: float
    grid: tuple[GridCell, ...]
    advice: str


@dataclass(frozen=True)
class Detection:
    """Probes needed for one effect on one contrast at the planned repeats, and the power that the plan has for it."""

    metric: str
    treatment: str
    effect: float
    probes: int | None
    power: float


def mde_of(noise: Noise, size: Size, *, n_probes: int | None = None, repeats: int | None = None) -> float:
    """The smallest true effect seen with 80% power, with the size's probes and repeats or others; NaN if unknown."""
    k = size.repeats if repeats is None else repeats
    return _mde(noise.sd(k), n_probes or size.n_probes, size, noise.design_effect(k, size.domain_size))


def _mde(sd: float, n: int, size: Size, design_effect: float) -> float:
    """NaN also for a spread of zero: a pilot without any variation says nothing about a run that has some."""
    if not sd > 0 or n < 2:
        return math.nan
    return _mde_of_one_sd(n, size.n_tests) * sd * math.sqrt(design_effect)


@lru_cache(maxsize=1024)
def _mde_of_one_sd(n: int, n_tests: int) -> float:
    return minimum_detectable_effect(1.0, n, alpha=ALPHA, power=POWER, n_tests=n_tests)


def forecast(noise: Noise, size: Size, *, primary: bool) -> ContrastForecast:
    """Foretell one contrast of a run of this size."""
    sd = noise.sd(size.repeats)
    mde = mde_of(noise, size)
    effect = noise.design_effect(size.repeats, size.domain_size)
    low, high = (_mde(limit, size.n_probes, size, effect) for limit in noise.sd_limits(size.repeats))
    grid = tuple(
        GridCell(k, size.n_probes * factor, size.n_arms * k * size.n_probes * factor,
                 mde_of(noise, size, n_probes=size.n_probes * factor, repeats=k) if noise.is_exact(k) else math.nan)
        for k in REPEATS for factor in FACTORS
    )  # fmt: skip
    return ContrastForecast(
        noise, primary, effect, sd, mde, low, high, not noise.is_exact(size.repeats), _floor(noise, size),
        grid, advice(noise, size),
    )  # fmt: skip


def _floor(noise: Noise, size: Size) -> float:
    """The detectable effect with endless repeats, which only the spread between probes leaves; NaN if unknown."""
    if not noise.splits:
        return math.nan
    return mde_of(noise, size, repeats=_ENDLESS) if noise.sd_between > 0 else 0.0


def advice(noise: Noise, size: Size) -> str:
    """Which of repeats or probes buys more, in plain words."""
    if not noise.splits:
        return _unsplit_advice(noise)
    if noise.sd_within == 0:
        if noise.sd_between == 0:
            return "The pilot shows no spread at all, so nothing can be foretold from it."
        return "Repeats buy nothing, because the answers to a probe do not vary; only more probes do."
    n, k, now = size.n_probes, size.repeats, mde_of(noise, size)
    by_repeats, by_probes = mde_of(noise, size, repeats=2 * k), mde_of(noise, size, n_probes=2 * n)
    if _shown(by_repeats) == _shown(by_probes):
        better = "both buy the same"
    else:
        better = "probes buy more" if by_probes < by_repeats else "repeats buy more"
    sentences = [
        f"Twice the answers would bring it from {_shown(now)} to {_shown(by_repeats)} as {2 * k} repeats, or to "
        f"{_shown(by_probes)} as {2 * n} probes: {better}."
    ]
    if k > 1:
        wide = mde_of(noise, size, n_probes=n * k, repeats=1)
        sentences.append(f"The same answers spent as {n * k} probes with one repeat would see {_shown(wide)}.")
    if noise.sd_between > 0:
        floor = _shown(_floor(noise, size))
        sentences.append(f"With these {n} probes no number of repeats sees less than {floor}.")
    elif noise.n is not None:
        sentences.append(
            f"The {noise.n} probes of the pilot show no spread between them beyond that of repeats; with few probes "
            "that can be chance, and then repeats buy less than it says here."
        )
    return " ".join(sentences)


def _unsplit_advice(noise: Noise) -> str:
    unknown = "Whether repeats or probes buy more is not known, because"
    if noise.source == GIVEN:
        return f"{unknown} only the SD of the whole difference was given; add that of repeats: --sd {noise.metric}=X,Y."
    return f"{unknown} the pilot has one repeat and so shows no spread within a probe; run it with --repeats 3."


def _shown(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def detect(noise: Noise, size: Size, effect: float) -> Detection:
    """Probes needed to see an effect with 80% power at the planned repeats, and the power of the plan as it stands."""
    sd, design = noise.sd(size.repeats), noise.design_effect(size.repeats, size.domain_size)
    if not sd > 0:
        return Detection(noise.metric, noise.treatment, effect, None, math.nan)
    try:
        needed = probes_needed(effect, sd, alpha=ALPHA, power=POWER, n_tests=size.n_tests, design_effect=design)
    except ValueError:
        raise UserError(
            f"--detect {noise.metric}={effect:g}: no number of probes could show it against a spread of {sd:g}; name a "
            "larger effect."
        ) from None
    power = power_of(effect, sd, size.n_probes, alpha=ALPHA, n_tests=size.n_tests, design_effect=design)
    return Detection(noise.metric, noise.treatment, effect, needed, power)


def margin_power(noise: Noise, size: Size, margin: float) -> float:
    """How likely a treatment without any effect is shown to be no worse by more than the margin (one-sided 0.05)."""
    sd = noise.sd(size.repeats)
    if not sd > 0:
        return math.nan
    design = noise.design_effect(size.repeats, size.domain_size)
    # A two-sided test at 2 x alpha has the one-sided one as its upper half; the lower half adds next to nothing.
    return power_of(margin, sd, size.n_probes, alpha=2 * ALPHA, n_tests=1, design_effect=design)


def in_sds(size: Size) -> float:
    """The detectable effect in SDs of a probe's paired difference, for when no spread is known at all."""
    return _mde(1.0, size.n_probes, size, 1.0)


def contrasts_first(forecasts: Sequence[ContrastForecast]) -> list[ContrastForecast]:
    """Primary contrasts first, the others in the order in which they came."""
    return sorted(forecasts, key=lambda found: not found.primary)
