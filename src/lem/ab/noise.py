"""How much the paired difference of one probe varies: measured in a pilot run, or given.

Three parts: between probes (the effect is not the same everywhere), within a probe (another repeat, another score),
and the share that whole domains have in common, which makes probes of one domain count for less.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev

from scipy import stats as sps

from lem.errors import UserError
from lem.records import Metric, RunContents, metrics_of
from lem.records.cells import domains_of, sources_of
from lem.stats import NoiseComponents, design_effect, noise_components, sd_of_difference, source_domains

F_TEST = 0.05
GIVEN, PILOT, STAND_IN = "given", "pilot", "pilot, another arm"


@dataclass(frozen=True)
class Noise:
    """The spread of one contrast's paired difference.

    `sd_between`: SD of the true difference over probes.  `sd_within`: SD of one repeat's difference within a probe;
    NaN when not known, and `sd_between` then holds both, at `repeats` repeats a probe.  `n`: probes behind it, None
    when the spread was given.  `sd_pilot`: SD of the differences as the pilot shows them.  `domain_variance`: variance
    that probes of one domain share.  `fixed_effect`: a design effect that was given and is used as it is.
    """

    metric: str
    treatment: str
    sd_between: float
    sd_within: float
    source: str
    repeats: float
    n: int | None = None
    sd_pilot: float = math.nan
    domain_variance: float = 0.0
    fixed_effect: float | None = None

    @property
    def splits(self) -> bool:
        """Whether the part within a probe is known, so that the use of repeats can be foretold."""
        return not math.isnan(self.sd_within)

    def is_exact(self, repeats: int) -> bool:
        """Whether `sd` is known for so many repeats, and not only bounded or unknown."""
        return self.splits or repeats == self.repeats

    def sd(self, repeats: int) -> float:
        """SD of a probe's difference with so many repeats.

        Where the part within a probe is unknown it is an upper bound for more repeats than were seen, NaN for fewer.
        """
        if not self.splits and repeats < self.repeats:
            return math.nan
        return sd_of_difference(NoiseComponents(self.sd_between, self.sd_within, self.n or 0, self.repeats), repeats)

    def sd_limits(self, repeats: int) -> tuple[float, float]:
        """Limits of `sd` that the size of the pilot leaves open (95%); `sd` itself for a given spread.

        Chi-squared limits, once of the variance of the differences (n - 1 degrees of freedom) and once of that within
        probes (n x (repeats - 1)), each with the other part as estimated; the outermost count. NaN below 3 probes.
        """
        if self.n is None or math.isnan(self.sd(repeats)):
            return self.sd(repeats), self.sd(repeats)
        if self.n < 3:
            return math.nan, math.nan
        within = self.sd_within**2 if self.splits else 0.0
        found = [
            max(0.0, total - within / self.repeats) + within / repeats
            for total in _variance_limits(self.sd_pilot**2, self.n - 1)
        ]
        if within:
            freedom = self.n * (self.repeats - 1)
            found += [self.sd_between**2 + part / repeats for part in _variance_limits(within, freedom)]
        return math.sqrt(min(found)), math.sqrt(max(found))

    def design_effect(self, repeats: int, domain_size: float) -> float:
        """Variance of the mean over what independent probes would have: 1 + (m - 1) x share of the domains, at least 1.

        Args:  domain_size: m, probes per domain as `mean_domain_size` counts them.
        """
        if self.fixed_effect is not None:
            return self.fixed_effect
        variance = self.sd(repeats) ** 2
        if not variance > 0:
            return 1.0
        share = min(1.0, max(0.0, self.domain_variance / variance))
        return max(1.0, 1 + (domain_size - 1) * share)


def _variance_limits(variance: float, freedom: float) -> tuple[float, float]:
    low, high = (variance * freedom / float(sps.chi2.ppf(quantile, freedom)) for quantile in (0.975, 0.025))
    return low, high


def mean_domain_size(domains: Iterable[str]) -> float:
    """Probes per domain, each domain weighted by its probes (sum of squares over sum); 1 when all differ."""
    sizes = Counter(domains).values()
    return sum(size * size for size in sizes) / sum(sizes) if sizes else 1.0


def pilot_noise(
    pilot: RunContents, baseline: str, treatments: Sequence[str], excluded: Mapping[str, str] | None = None
) -> list[Noise]:
    """The spread of every metric's contrasts in a pilot run.

    A treatment that the pilot does not have takes the widest spread the pilot shows for that metric, so that the
    forecast errs on the safe side; its `source` says so.
    Raises: UserError if the pilot lacks the baseline or any other arm, has no scores, or too few probes in common.
    """
    others = [arm for arm in pilot.info.arms if arm != baseline]
    if baseline not in pilot.info.arms or not others:
        known = ", ".join(pilot.info.arms) or "no arms"
        raise UserError(
            f"the pilot {pilot.info.run_id} needs the baseline '{baseline}' and another arm to measure differences, "
            f"but has {known}; name its baseline with --baseline, or give the spread with --sd."
        )
    found: list[Noise] = []
    for metric in metrics_of(pilot):
        measured = [_measure(pilot, metric, baseline, arm, excluded or {}) for arm in others]
        usable = {noise.treatment: noise for noise in measured if noise is not None}
        found.extend(_for_treatment(usable, arm) for arm in treatments if usable)
    if not found:
        raise UserError(
            f"the pilot {pilot.info.run_id} has no metric with values for two probes in both arms; score it with "
            "`./lem score` first, run a larger pilot, or give the spread with --sd."
        )
    return found


def _for_treatment(measured: Mapping[str, Noise], arm: str) -> Noise:
    if arm in measured:
        return measured[arm]
    widest = max(measured.values(), key=lambda noise: noise.sd(math.ceil(noise.repeats)))
    return replace(widest, treatment=arm, source=STAND_IN)


def _measure(pilot: RunContents, metric: Metric, baseline: str, arm: str, excluded: Mapping[str, str]) -> Noise | None:
    sources = sources_of(pilot.info)
    values = {name: _repeats(metric, name, sources, excluded) for name in (baseline, arm)}
    shared = [unit for unit in values[arm] if unit in values[baseline]]
    if len(shared) < 2:
        return None
    parts = noise_components(
        {unit: values[arm][unit] for unit in shared}, {unit: values[baseline][unit] for unit in shared}
    )
    domain_of = source_domains(domains_of(pilot.info), sources)
    differences = [_mean(values[arm][unit]) - _mean(values[baseline][unit]) for unit in shared]
    spread = stdev(differences)
    return Noise(
        metric.name, arm, parts.sd_between, parts.sd_within, PILOT, parts.repeats, parts.n, spread,
        _domain_variance(differences, [domain_of[unit] for unit in shared], spread**2),
    )  # fmt: skip


def _domain_variance(differences: Sequence[float], domains: Sequence[str], variance: float) -> float:
    """Variance that probes of one domain share: (design effect - 1) / (m - 1) of the variance.

    0 unless the domains differ beyond chance (one-way F test at 0.05): from a few probes per domain the share is so
    uncertain that a forecast for larger domains would mostly magnify noise.
    """
    groups: dict[str, list[float]] = {}
    for difference, domain in zip(differences, domains, strict=True):
        groups.setdefault(domain, []).append(difference)
    if not 1 < len(groups) < len(differences) or variance == 0:
        return 0.0
    if not float(sps.f_oneway(*groups.values()).pvalue) < F_TEST:
        return 0.0
    return max(0.0, (design_effect(differences, domains) - 1) / (mean_domain_size(domains) - 1) * variance)


def _repeats(
    metric: Metric, arm: str, sources: Mapping[str, str], excluded: Mapping[str, str]
) -> dict[str, list[float]]:
    """Scored repeats of an arm per source probe; the variants of a source are averaged repeat by repeat."""
    found: dict[str, dict[int, list[float]]] = {}
    for cell in metric.cells:
        if cell.key.arm != arm or cell.value is None or cell.key.probe_id in excluded:
            continue
        source = sources.get(cell.key.probe_id, cell.key.probe_id)
        found.setdefault(source, {}).setdefault(cell.key.repeat, []).append(cell.value)
    return {source: [_mean(values) for values in repeats.values()] for source, repeats in found.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
