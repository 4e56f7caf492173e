"""Means per domain and arm: where an effect comes from. Exploratory: the intervals are not corrected for many looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lem.records import Record, RunInfo, Score
from lem.records.cells import Cell, arm_names, domains_of, join_cells, sources_of, variants_each
from lem.reports.leaderboard import source_values
from lem.stats import Estimate, headline


@dataclass(frozen=True)
class DomainMean:
    """Mean of one arm over the probes of one domain, with the interval over those probes.

    The interval is NaN for fewer than two probes, and where all have the same value. Where probes are variants, both
    are over source probes; `variants` is that of the leaderboard's row.
    """

    domain: str
    arm: str
    n: int
    mean: Estimate
    model: str = ""
    scorer: str = ""
    variants: str = ""


def domain_means(info: RunInfo, records: Sequence[Record], scores: Sequence[Score]) -> list[DomainMean]:
    """One mean per domain (in the order of the probes) and arm (in the order of `run.json`), of ONE scorer's scores.

    Empty when the run does not say which domain its probes belong to. Raises: what `join_cells` raises.
    """
    scorer = scores[0].scorer if scores else ""
    return domain_means_of(info, arm_names(info, records), join_cells(info, records, scores), scorer)


def domain_means_of(info: RunInfo, names: Sequence[str], cells: Sequence[Cell], scorer: str) -> list[DomainMean]:
    """The same from cells that are joined already, for the domains that have any; `names` are the arms."""
    domains, sources = domains_of(info), sources_of(info)
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.key.probe_id in domains:
            grouped.setdefault((domains[cell.key.probe_id], cell.key.arm), []).append(cell)
    means = []
    asked = {domain for domain, _ in grouped}
    for domain in dict.fromkeys(domain for domain in domains.values() if domain in asked):
        for arm in names:
            values, n_lost = source_values(grouped.get((domain, arm), []), sources)
            mean = with_width(headline(list(values.values()), n_unscored=n_lost))
            model = str(info.arms.get(arm, {}).get("model", ""))
            means.append(DomainMean(domain, arm, mean.n, mean, model, scorer, variants_each(info)))
    return means


def with_width(estimate: Estimate) -> Estimate:
    """The estimate without an interval if that has no width: values that are all equal say nothing of their spread."""
    return replace(estimate, low=math.nan, high=math.nan) if estimate.low == estimate.high else estimate
