"""Means per domain and arm: where an effect comes from. Exploratory: the intervals are not corrected for many looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lem.records import Record, RunInfo, Score
from lem.reports.cells import Cell, arm_names, domains_of, join_cells
from lem.reports.leaderboard import probe_values
from lem.stats import Estimate, headline


@dataclass(frozen=True)
class DomainMean:
    """Mean of one arm over the probes of one domain, with the BCa interval over those probes (NaN for n < 2)."""

    domain: str
    arm: str
    n: int
    mean: Estimate
    model: str = ""
    scorer: str = ""


def domain_means(info: RunInfo, records: Sequence[Record], scores: Sequence[Score]) -> list[DomainMean]:
    """One mean per domain (in the order of the probes) and arm (in the order of `run.json`), of ONE scorer's scores.

    Empty when the run does not say which domain its probes belong to. Raises: what `join_cells` raises.
    """
    domains = domains_of(info)
    cells: dict[tuple[str, str], list[Cell]] = {}
    for cell in join_cells(info, records, scores):
        if cell.key.probe_id in domains:
            cells.setdefault((domains[cell.key.probe_id], cell.key.arm), []).append(cell)
    scorer = scores[0].scorer if scores else ""
    means = []
    for domain in dict.fromkeys(domains.values()):
        for arm in arm_names(info, records):
            members = cells.get((domain, arm), [])
            values = list(probe_values(members).values())
            n_probes = len({cell.key.probe_id for cell in members})
            mean = headline(values, n_unscored=n_probes - len(values))
            model = str(info.arms.get(arm, {}).get("model", ""))
            means.append(DomainMean(domain, arm, len(values), mean, model, scorer))
    return means
