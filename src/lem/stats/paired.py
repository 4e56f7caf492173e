"""Paired comparison of two arms: repeats are averaged per probe first, then one difference per probe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lem.stats.estimate import Estimate, headline


@dataclass(frozen=True)
class PairedComparison:
    """Treatment minus baseline over the probes that both arms answered and a scorer could score.

    `improved`, `regressed` and `unchanged` count probes whose difference is above, below or within the
    threshold. `n_missing` counts probes that only one side has; they are left out of the difference.
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


def paired_difference(
    treatment: Mapping[str, float],
    baseline: Mapping[str, float],
    domains: Mapping[str, str] | None = None,
    *,
    threshold: float = 0.5,
    level: float = 0.95,
) -> PairedComparison:
    """Estimate the mean of treatment - baseline per probe, with the headline interval over probes and domains.

    Args:  treatment, baseline: value per probe (see `per_probe`).  domains: probe -> cluster; probes without
           one count as their own cluster only if no probe has one, otherwise they are one cluster "".
           threshold: a probe counts as improved when its difference is greater than this, as published.
    """
    shared = sorted(set(treatment) & set(baseline))
    differences = [treatment[probe] - baseline[probe] for probe in shared]
    clusters = [domains.get(probe, "") for probe in shared] if domains else None
    n_missing = len(set(treatment) ^ set(baseline))
    improved = sum(difference > threshold for difference in differences)
    regressed = sum(difference < -threshold for difference in differences)
    return PairedComparison(
        difference=headline(differences, clusters, level=level, n_unscored=n_missing),
        improved=improved,
        regressed=regressed,
        unchanged=len(differences) - improved - regressed,
        n_missing=n_missing,
    )
