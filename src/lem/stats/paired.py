"""Paired comparison of two arms: repeats are averaged per probe, then one difference per probe, or per source probe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lem.stats.estimate import Estimate
from lem.stats.headline import headline


@dataclass(frozen=True)
class PairedComparison:
    """Treatment minus baseline over the probes that both arms answered and a scorer could score.

    `improved`, `regressed` and `unchanged` count probes whose difference is above, below or within the
    threshold. `n_missing` counts probes that only one side has; they are left out of the difference. Where sources
    were given, everything but `n_missing` is of source probes, so that a source that lost one of its variants counts
    in the difference and its lost variant in `n_missing`.
    """

    difference: Estimate
    improved: int
    regressed: int
    unchanged: int
    n_missing: int


def per_probe(values: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """Average a probe's repeats; unscored repeats (None or NaN) are left out, a probe without any value too."""
    sums: dict[str, list[float]] = {}
    for probe_id, value in values:
        if value is not None and not math.isnan(value):
            sums.setdefault(probe_id, []).append(value)
    return {probe_id: sum(found) / len(found) for probe_id, found in sums.items()}


def per_source(values: Mapping[str, float], sources: Mapping[str, str]) -> dict[str, float]:
    """Average the variants of each source, in the order of their first variants.

    Args:  values: value per probe.  sources: probe -> id of its source; a probe without one is its own source.
    """
    variants: dict[str, list[float]] = {}
    for probe, value in values.items():
        variants.setdefault(sources.get(probe, probe), []).append(value)
    # summed from the first value on, so that a lone value keeps its bits (0 + -0.0 is 0.0)
    return {source: sum(found[1:], start=found[0]) / len(found) for source, found in variants.items()}


def source_domains(domains: Mapping[str, str], sources: Mapping[str, str]) -> dict[str, str]:
    """Domain per source: that of the source itself where it is among the probes, else of its first variant by id."""
    found = {sources.get(probe, probe): domains[probe] for probe in sorted(domains, reverse=True)}
    return found | {source: domains[source] for source in found if source in domains}


def paired_difference(
    treatment: Mapping[str, float],
    baseline: Mapping[str, float],
    domains: Mapping[str, str] | None = None,
    *,
    sources: Mapping[str, str] | None = None,
    threshold: float = 0.5,
    level: float = 0.95,
) -> PairedComparison:
    """Estimate the mean of treatment - baseline per probe, with the headline interval over probes and domains.

    Variants are paired one by one before their differences are averaged, so that a variant which only one side has
    does not make the two sides of its source unlike.

    Args:  treatment, baseline: value per probe (see `per_probe`).  domains: probe -> cluster; probes without
           one count as their own cluster only if no probe has one, otherwise they are one cluster "".
           sources: probe -> id of its source; the variants of a source are one observation (see `per_source`).
           threshold: a probe counts as improved when its difference is greater than this, as published.
    """
    sources = sources or {}
    shared, unpaired = set(treatment) & set(baseline), set(treatment) ^ set(baseline)
    by_source = per_source({probe: treatment[probe] - baseline[probe] for probe in sorted(shared)}, sources)
    units = sorted(by_source)
    differences = [by_source[unit] for unit in units]
    domain_of = source_domains(domains, sources) if domains else None
    lost = {sources.get(probe, probe) for probe in unpaired} - set(units)
    improved = sum(difference > threshold for difference in differences)
    regressed = sum(difference < -threshold for difference in differences)
    return PairedComparison(
        difference=headline(
            differences,
            [domain_of.get(unit, "") for unit in units] if domain_of else None,
            level=level,
            n_unscored=len(lost),
        ),
        improved=improved,
        regressed=regressed,
        unchanged=len(differences) - improved - regressed,
        n_missing=len(unpaired),
    )
