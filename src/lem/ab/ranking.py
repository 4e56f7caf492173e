"""Ranking arms of any number of runs under one metric, with the uncertainty of the order itself.

All contestants are compared on the probes that every one of them has a value for. The probes are resampled (variants
of a source together), the means are ranked in each draw, and the share of draws in which a contestant comes first is
its `first`: 0.4 says that another draw of probes like these would often have put somebody else on top.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

from lem.ab.values import ArmValues, arm_values, counts_of
from lem.records import Metric, RunContents, metrics_of
from lem.records.metrics import LOWER_IS_BETTER
from lem.stats import Estimate, mean_on_scale, per_source, source_domains

DRAWS = 4000
RANKING_SEED = 20260101
_BATCH_VALUES = 8_000_000
_SIZE = re.compile(r"(?<![A-Za-z0-9])(\d+(?:\.\d+)?)\s?([bm])(?![a-z])", re.IGNORECASE)
_FAMILIES = "gemma|llama|qwen|mistral|mixtral|phi|gpt-oss|apertus|olmo|granite|smollm|deepseek"
_FAMILY = re.compile(rf"({_FAMILIES})[-_ ]?(\d+(?:\.\d+)?(?![\dbm]))?", re.IGNORECASE)


@dataclass(frozen=True)
class Ranked:
    """One arm under one metric.

    `mean` is over all its own probes; `rank` (1 is best) and its 95% limits `rank_low` and `rank_high`, and `first`,
    the share of draws in which it is the best, are over the `n_shared` probes that all contestants have (NaN with
    fewer than two). `n_unscored`, `n_failed` and `n_missing` count cells.
    """

    metric: str
    arm: str
    model: str
    family: str
    size: str
    mean: Estimate
    rank: float
    rank_low: float
    rank_high: float
    first: float
    n_shared: int
    n_unscored: int
    n_failed: int
    n_missing: int


def rankings(contents: RunContents, *, lower_is_better: Sequence[str] = ()) -> dict[str, list[Ranked]]:
    """Rank all arms of a (joined) run under each metric, best first on the shared probes; arms without a rank last."""
    lower = {*lower_is_better, *LOWER_IS_BETTER}
    return {metric.name: _ranked(contents, metric, metric.name in lower) for metric in metrics_of(contents)}


def family_and_size(model: str) -> tuple[str, str]:
    """Read family and size off a model's name: `gemma-3-1b-it` -> ("Gemma 3", "1B"); "" where it does not say."""
    family, size = _FAMILY.search(model), _SIZE.search(model)
    found = f"{family[1].capitalize()} {family[2] or ''}".strip() if family else ""
    return found, f"{size[1]}{size[2].upper()}" if size else ""


def _ranked(contents: RunContents, metric: Metric, lower: bool) -> list[Ranked]:
    by_arm = arm_values(metric)
    sources = {probe["id"]: probe["source"] for probe in contents.info.probes if probe.get("source")}
    domains = {probe["id"]: probe.get("domain", "") for probe in contents.info.probes}
    units = {arm: per_source(found.values, sources) for arm, found in by_arm.items()}
    entered = [arm for arm in units if units[arm]]
    shared = sorted(set.intersection(*(set(units[arm]) for arm in entered))) if entered else []
    table = np.array([[units[arm][unit] for unit in shared] for arm in entered], dtype=np.float64)
    ranks = dict(zip(entered, _rank_draws(-table if lower else table), strict=True))
    rows = []
    for arm, found in by_arm.items():
        facts = contents.info.arms.get(arm, {})
        model = str(facts.get("model") or "")
        family, size = family_and_size(model)
        counts = counts_of(found, metric.kind)
        rank = ranks.get(arm, (math.nan,) * 4)
        rows.append(
            Ranked(
                metric.name, arm, model, family, size,
                _mean(metric, found, units[arm], domains, sources), *rank,
                n_shared=len(shared), n_unscored=counts.unscored, n_failed=counts.failed, n_missing=counts.missing,
            )
        )  # fmt: skip
    sign = 1 if lower else -1
    means = {row.arm: math.inf if math.isnan(row.mean.value) else sign * row.mean.value for row in rows}
    return sorted(rows, key=lambda row: (math.inf if math.isnan(row.rank) else row.rank, means[row.arm]))


def _mean(
    metric: Metric, found: ArmValues, values: Mapping[str, float], domains: Mapping[str, str],
    sources: Mapping[str, str],
) -> Estimate:  # fmt: skip
    order = sorted(values)
    domain_of = source_domains({probe: domains.get(probe, "") for probe in found.values}, sources)
    clusters = [domain_of.get(unit, "") for unit in order]
    several = clusters if len(set(clusters)) > 1 else None
    return mean_on_scale([values[unit] for unit in order], several, low=metric.low, high=metric.high)


def _rank_draws(table: NDArray[np.float64]) -> list[tuple[float, float, float, float]]:
    """(rank, low, high, share first) of every row of a contestants x probes table, more being better.

    Ties share the middle of their ranks, and a first place is divided among those who hold it. The limits of rows that
    are equal throughout span all the places they share.
    """
    if table.size == 0 or table.shape[1] < 2:
        return [(math.nan,) * 4] * len(table)
    n = table.shape[1]
    rng = np.random.default_rng(RANKING_SEED)
    batch = max(1, _BATCH_VALUES // n)
    means = []
    for start in range(0, DRAWS, batch):
        # weights instead of indices: one matrix product per batch, whatever the number of contestants
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(batch, DRAWS - start))
        means.append(weights @ table.T / n)
    drawn = np.round(np.concatenate(means), 12)
    ranks = sps.rankdata(-drawn, axis=1)
    winners = drawn == drawn.max(axis=1, keepdims=True)
    first = (winners / winners.sum(axis=1, keepdims=True)).mean(axis=0)
    observed = sps.rankdata(-np.round(table.mean(axis=1), 12))
    # Arms that are equal on every probe are tied in every draw; each may hold any of the places they share.
    others = (np.all(table[:, None] == table[None], axis=2).sum(axis=1) - 1) / 2
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0)
    low, high = np.minimum(low, observed) - others, np.maximum(high, observed) + others
    return [tuple(map(float, row)) for row in zip(observed, low, high, first, strict=True)]  # type: ignore[misc]
