"""The leaderboard: one row per arm, with its mean score, its paired delta, and every count kept apart.

Repeats are averaged per probe first, and rephrased probes per source, so `n` counts (source) probes; unscored, failed
and missing count cells (answers that were planned), because one probe can have a good repeat and a failed one. The
domains of the probes are the clusters of both intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lem.errors import UserError
from lem.records import Record, RunInfo, Score
from lem.records.cells import Cell, Outcome, arm_names, domains_of, join_cells, sources_of, variants_each
from lem.reports.choices import is_measured
from lem.stats import (
    Estimate,
    PairedComparison,
    mean_on_scale,
    paired_difference,
    per_probe,
    per_source,
    rate,
    source_domains,
)

DEFAULT_BASELINE = "base"
OTHER_WEIGHTS = "other weights"


@dataclass(frozen=True)
class LeaderboardRow:
    """One arm under one scorer.

    `n` probes have a value, source probes where probes are variants (`variants` says how many a source has, "3" or
    "1 to 3", and is empty otherwise); `n_unscored`, `n_failed` and `n_missing` count cells. `delta` is this arm minus
    `baseline` over the probes both have; both are None on the baseline's own row or when there is none.
    `truncated` is the share of answers cut off by the token limit, among answers whose ending is known.
    `mean_words` counts whitespace words over answers (NaN without any). `note` is "other weights" when the arm's
    model is not the baseline's. `threshold` is the change that counts as improved or regressed.
    """

    model: str
    arm: str
    n: int
    n_unscored: int
    n_failed: int
    mean: Estimate
    baseline: str | None
    delta: PairedComparison | None
    truncated: Estimate
    mean_words: float
    n_repeats: int
    n_missing: int = 0
    note: str = ""
    scorer: str = ""
    version: str = ""
    threshold: float = 0.5
    variants: str = ""


def leaderboard(
    info: RunInfo,
    records: Sequence[Record],
    scores: Sequence[Score],
    *,
    baseline: str | None = None,
    threshold: float = 0.5,
) -> list[LeaderboardRow]:
    """Rank the arms of a run by the mean of ONE scorer's scores, best first (an arm without a value last).

    Args:  baseline: arm that the others are paired with; default: 'base' if the run has it, else none.
           threshold: a probe whose difference exceeds it counts as improved or regressed (published: 0.5).
    Raises: UserError for an unknown baseline; what `join_cells` raises.
    """
    names = arm_names(info, records)
    cells = join_cells(info, records, scores)
    scorer, version = (scores[0].scorer, scores[0].version) if scores else ("", "")
    return leaderboard_of(info, names, cells, scorer, version, baseline=baseline, threshold=threshold)


def leaderboard_of(
    info: RunInfo,
    names: Sequence[str],
    cells: Sequence[Cell],
    scorer: str,
    version: str,
    *,
    baseline: str | None = None,
    threshold: float = 0.5,
    ends: tuple[float | None, float | None] = (None, None),
) -> list[LeaderboardRow]:
    """The same from cells that are joined already, of one scorer or one judge's dimension.

    Args:  names: the arms.  ends: of the metric's scale, on which the means and their intervals are kept.
    """
    against = choose_baseline(names, baseline)
    domains, sources = domains_of(info), sources_of(info)
    by_arm: dict[str, list[Cell]] = {name: [] for name in names}
    for cell in cells:
        by_arm.setdefault(cell.key.arm, []).append(cell)
    values = {name: probe_values(cells) for name, cells in by_arm.items()}
    rows = []
    for name, of_arm in by_arm.items():
        paired = None
        if against is not None and name != against:
            paired = paired_difference(
                values[name], values[against], domains or None, sources=sources, threshold=threshold
            )
        mean = arm_mean(of_arm, domains, sources, ends)
        rows.append(
            LeaderboardRow(
                model=str(info.arms.get(name, {}).get("model", "")),
                arm=name,
                n=mean.n,
                n_unscored=_count(of_arm, Outcome.UNSCORED),
                n_failed=_count(of_arm, Outcome.FAILED),
                mean=mean,
                baseline=against if paired is not None else None,
                delta=paired,
                truncated=_truncated(of_arm),
                mean_words=_mean_words(of_arm, sources),
                n_repeats=len({cell.key.repeat for cell in of_arm}),
                n_missing=_count(of_arm, Outcome.MISSING),
                note=OTHER_WEIGHTS if against is not None and _other_weights(info, name, against) else "",
                scorer=scorer,
                version=version,
                threshold=threshold,
                variants=variants_each(info),
            )
        )
    return sorted(rows, key=lambda row: -math.inf if math.isnan(row.mean.value) else row.mean.value, reverse=True)


def choose_baseline(names: Sequence[str], named: str | None) -> str | None:
    """The arm to compare with: the named one, else 'base' if there is one.   Raises: UserError if it is unknown."""
    if named is not None and named not in names:
        known = ", ".join(names) or "no arms"
        raise UserError(f"--baseline {named}: this run has no such arm; it has {known}.")
    if named is None and DEFAULT_BASELINE in names:
        return DEFAULT_BASELINE
    return named


def probe_values(cells: Sequence[Cell]) -> dict[str, float]:
    """Value per probe of one arm: the mean over its scored repeats; probes without any are left out."""
    return per_probe((cell.key.probe_id, cell.value) for cell in cells)


def source_values(cells: Sequence[Cell], sources: Mapping[str, str]) -> tuple[dict[str, float], int]:
    """Value per source probe of one arm (see `probe_values`), and how many sources have none."""
    values = per_source(probe_values(cells), sources)
    asked = {sources.get(cell.key.probe_id, cell.key.probe_id) for cell in cells}
    return values, len(asked) - len(values)


def arm_mean(
    cells: Sequence[Cell], domains: Mapping[str, str], sources: Mapping[str, str],
    ends: tuple[float | None, float | None] = (None, None),
) -> Estimate:  # fmt: skip
    """Mean of one arm's cells over (source) probes and domains, on a scale with these ends."""
    values, n_lost = source_values(cells, sources)
    order = sorted(values)  # so that the bootstrap does not depend on the order of the records
    domain_of = source_domains(domains, sources)
    clusters = [domain_of.get(source, "") for source in order] if domains else None
    return mean_on_scale([values[source] for source in order], clusters, low=ends[0], high=ends[1], n_unscored=n_lost)


def _count(cells: Sequence[Cell], outcome: Outcome) -> int:
    return sum(cell.outcome is outcome for cell in cells)


def _answered(cells: Sequence[Cell]) -> list[Record]:
    """The records of a text; measured choices have neither words nor an ending."""
    found = [cell.record for cell in cells if cell.record and cell.outcome in (Outcome.SCORED, Outcome.UNSCORED)]
    return [record for record in found if not is_measured(record)]


def _truncated(cells: Sequence[Cell]) -> Estimate:
    endings = [record.finish_reason for record in _answered(cells)]
    known = [ending for ending in endings if ending is not None]
    return rate(known.count("length"), len(known), n_unscored=len(endings) - len(known))


def _mean_words(cells: Sequence[Cell], sources: Mapping[str, str]) -> float:
    words = per_probe((record.probe_id, len((record.response or "").split())) for record in _answered(cells))
    means = per_source(words, sources)
    return sum(means.values()) / len(means) if means else math.nan


def _other_weights(info: RunInfo, arm: str, baseline: str) -> bool:
    """True when two arms start from different models; an adapter or kernel on the same model is not that."""
    ours, theirs = info.arms.get(arm, {}), info.arms.get(baseline, {})
    if ours.get("model_sha") and theirs.get("model_sha"):
        return bool(ours["model_sha"] != theirs["model_sha"])
    return bool(ours.get("model") != theirs.get("model"))
