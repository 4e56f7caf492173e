"""The win rate of one arm over another by one judge, with its bounds and with what length and order did to it.

Repeats are averaged per probe and variants per source before anything is estimated, as everywhere; ties count half.
Only what is said of the judge itself, its swap consistency and its slots, counts pairs one by one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lem.judges.pairwise.length import CHARACTERS, TOKENS, LengthControlledWinRate, length_controlled_win_rate
from lem.judges.pairwise.outcomes import outcomes_of
from lem.judges.pairwise.pairs import LOSS, PREFERENCE, TIE, WIN, PairOutcome, mean_values, pairs_of
from lem.records import Key, Outcome, Record, RunContents
from lem.records.cells import domains_of, sources_of
from lem.stats import (
    Estimate,
    cluster_t_test,
    mean_on_scale,
    per_probe,
    per_source,
    rate,
    sign_flip,
    source_domains,
    t_interval,
)

LEAST_CONSISTENCY = 0.8


@dataclass(frozen=True)
class WinRate:
    """What a judge's comparisons of two arms amount to.

    `estimate` is the treatment's win rate over (source) probes, ties half; `p` tests it against 0.5 as a contrast is
    tested. `n_pairs` are the pairs that the judge was to compare: `wins`, `ties` and `losses` of the treatment, those
    `unscored`, by reason, and those of which an answer failed (`n_failed`) or is missing (`n_missing`). `inconsistent`
    ties are those whose verdict changed with the order. `bounds` are the win rates if every unscored pair were lost,
    and won (None: none is unscored); failed and missing ones stay out, because there is nothing to prefer.

    `consistency` is the share of pairs with one verdict in both orders, `slot_lean` the share, among the others, that
    leaned to the answer read first: both of pairs, with exact intervals, which are too narrow where probes have several
    repeats. `first_slot` is the share of all verdicts that the answer read first won, 0.5 without a bias.
    `controlled` is the win rate at equal length; `length_matters` is True where it differs from the plain one by more
    than half of that one's interval, and should then be read first.
    """

    treatment: str
    baseline: str
    judge: str
    dimension: str
    estimate: Estimate
    p: float
    n_pairs: int
    wins: int
    ties: int
    losses: int
    inconsistent: int
    unscored: dict[str, int]
    n_failed: int
    n_missing: int
    bounds: tuple[float, float] | None
    consistency: Estimate
    slot_lean: Estimate
    first_slot: Estimate
    controlled: LengthControlledWinRate | None
    length_matters: bool

    @property
    def consistent(self) -> bool:
        """True when at least `LEAST_CONSISTENCY` of the pairs had one verdict in both orders."""
        return self.consistency.value >= LEAST_CONSISTENCY


def win_rate(
    contents: RunContents, baseline: str, treatment: str, *, judge: str, dimension: str = PREFERENCE,
    excluded: Mapping[str, str] | frozenset[str] = frozenset(), level: float = 0.95,
) -> WinRate:  # fmt: skip
    """The win rate by one judge.   Raises: DataError for comparisons of several versions, or that are none."""
    outcomes = outcomes_of(contents, baseline, treatment, judge, dimension, excluded)
    return summarise(contents, outcomes, baseline, treatment, judge=judge, dimension=dimension, level=level)


def summarise(
    contents: RunContents, outcomes: Sequence[PairOutcome], baseline: str, treatment: str, *, judge: str,
    dimension: str = PREFERENCE, level: float = 0.95,
) -> WinRate:  # fmt: skip
    """What these outcomes amount to; see `win_rate`."""
    scored = [outcome for outcome in outcomes if outcome.value is not None]
    by_unit, clusters = units(contents, per_probe(mean_values(scored)))
    estimate = mean_on_scale(
        list(by_unit.values()), clusters, low=LOSS, high=WIN, level=level,
        n_unscored=len(_sources(contents, outcomes)) - len(by_unit),
    )  # fmt: skip
    controlled = _controlled(contents, scored, baseline, treatment, level)
    swapped = [outcome for outcome in scored if outcome.agreed is not None and outcome.first_slot is not None]
    changed = [outcome for outcome in swapped if not outcome.agreed]
    leaning = sum((outcome.first_slot or 0.0) > 0.5 for outcome in changed)
    slots = per_probe((outcome.key.probe_id, outcome.first_slot) for outcome in swapped)
    first, slot_clusters = units(contents, slots)
    values = [outcome.value for outcome in scored]
    counts = Counter(outcome.outcome for outcome in outcomes)
    unscored = [outcome for outcome in outcomes if outcome.outcome is Outcome.UNSCORED]
    return WinRate(
        treatment, baseline, judge, dimension, estimate, _p([v - 0.5 for v in by_unit.values()], clusters),
        n_pairs=len(outcomes), wins=values.count(WIN), ties=values.count(TIE), losses=values.count(LOSS),
        inconsistent=len(changed),
        unscored=dict(Counter(outcome.reason or "" for outcome in unscored)),
        n_failed=counts[Outcome.FAILED], n_missing=counts[Outcome.MISSING],
        bounds=_bounds(contents, [*scored, *unscored]) if unscored else None,
        consistency=rate(len(swapped) - len(changed), len(swapped), level=level),
        slot_lean=rate(leaning, len(changed), level=level),
        first_slot=mean_on_scale(list(first.values()), slot_clusters, low=0.0, high=1.0, level=level),
        controlled=controlled,
        length_matters=_differ(estimate, controlled),
    )  # fmt: skip


def units(contents: RunContents, values: Mapping[str, float]) -> tuple[dict[str, float], list[str] | None]:
    """Values per source probe, sorted, and their domains; None where there are fewer than two."""
    sources, domains = sources_of(contents.info), domains_of(contents.info)
    by_source = per_source({probe: values[probe] for probe in sorted(values)}, sources)
    found = {unit: by_source[unit] for unit in sorted(by_source)}
    domain_of = source_domains({probe: domains.get(probe, "") for probe in values}, sources)
    clusters = [domain_of.get(unit, "") for unit in found]
    return found, clusters if len(set(clusters)) > 1 else None


def _sources(contents: RunContents, outcomes: Sequence[PairOutcome]) -> set[str]:
    sources = sources_of(contents.info)
    return {sources.get(outcome.key.probe_id, outcome.key.probe_id) for outcome in outcomes}


def _p(differences: Sequence[float], clusters: Sequence[str] | None) -> float:
    """The larger p of the tests over probes and over domains, as for a contrast."""
    flip = sign_flip(differences).p
    robust = cluster_t_test(differences, clusters).p if clusters else math.nan
    return flip if math.isnan(robust) else robust if math.isnan(flip) else max(flip, robust)


def _bounds(contents: RunContents, outcomes: Sequence[PairOutcome]) -> tuple[float, float]:
    ends = [units(contents, per_probe(mean_values(outcomes, fill)))[0] for fill in (LOSS, WIN)]
    worst, best = (sum(values.values()) / len(values) for values in ends)
    return worst, best


def _differ(plain: Estimate, controlled: LengthControlledWinRate | None) -> bool:
    return controlled is not None and abs(plain.value - controlled.estimate.value) > plain.width / 2


def _controlled(
    contents: RunContents, scored: Sequence[PairOutcome], baseline: str, treatment: str, level: float
) -> LengthControlledWinRate | None:
    """The win rate at equal length; None without a scored pair."""
    answers = {ours.key: (ours, other) for ours, other in pairs_of(contents, baseline, treatment)}
    pairs = [answers[outcome.key] for outcome in scored]
    if not pairs:
        return None
    models = [contents.info.arms.get(arm, {}).get("model_sha") for arm in (baseline, treatment)]
    unit = length_unit([record for pair in pairs for record in pair], one_model=models[0] == models[1] is not None)
    sizes: list[dict[Key, int]] = [{pair[0].key: length_of(pair[side], unit) for pair in pairs} for side in (0, 1)]
    ratios = {key: math.log(max(1, sizes[0][key])) - math.log(max(1, sizes[1][key])) for key in sizes[0]}
    by_unit, clusters = units(contents, per_probe(mean_values(scored)))
    x, _ = units(contents, per_probe((key.probe_id, ratio) for key, ratio in ratios.items()))
    lengths = [
        t_interval(list(units(contents, per_probe((k.probe_id, float(n)) for k, n in side.items()))[0].values()))
        for side in sizes
    ]
    found, slope = length_controlled_win_rate(list(by_unit.values()), [x[u] for u in by_unit], clusters, level=level)
    extrapolated = min(x.values()) > 0 or max(x.values()) < 0
    return LengthControlledWinRate(found, slope, unit, lengths[0], lengths[1], extrapolated)


def length_unit(records: Sequence[Record], *, one_model: bool) -> str:
    """Tokens where they count what a judge reads: of one tokenizer, known for every answer, no thinking among them."""
    known = all(record.n_tokens is not None and record.thinking is None for record in records)
    return TOKENS if known and one_model else CHARACTERS


def length_of(record: Record, unit: str) -> int:
    """Length of an answer in tokens or characters."""
    return int(record.n_tokens or 0) if unit == TOKENS else len(record.response or "")
