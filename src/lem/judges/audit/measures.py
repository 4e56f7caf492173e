"""What the replies of an audit measure, each as an estimate with an interval; the unit is an answer or a pair.

Shares have the exact interval over units. Shifts are copy minus original, averaged over the dimensions of an answer,
with the headline interval over answers (and over probes where a probe has several), and the exact one where nothing
varies. The two orders of a comparison are joined first: verdicts that contradict each other are a tie.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from lem.judges.audit import canaries
from lem.judges.audit.plan import (
    AGAIN,
    BETTER,
    CONTENT,
    IDENTICAL,
    INJECTED,
    ORIGINAL,
    PAIR,
    RATING,
    REAL,
    REFERENCE,
    WORSE,
)
from lem.judges.audit.replies import AuditRow
from lem.judges.pairwise.pairs import PREFERENCE
from lem.stats import Estimate, headline, keep_on_scale, krippendorff_alpha, rate

ALL = "all"
SHARE, POINTS, ALPHA = "share", "points", "alpha"
N_RESAMPLES = 1999
WIN, TIE, LOSE = "win", "tie", "lose"
WITHIN = 1.0  # points that a repeated rating may lie off
CAN_FALL = 4.0  # the rating from which an answer has something to lose by being off topic


@dataclass(frozen=True)
class Measure:
    """One figure of an audit: `name` is "instrument: variant", `unit` share, points or alpha.

    `counts` says what lies behind it: outcomes of comparisons, or the mean shift of each dimension.
    """

    name: str
    about: str
    estimate: Estimate
    unit: str
    counts: dict[str, float] = field(default_factory=dict)


def measures(rows: Sequence[AuditRow], widest: float) -> list[Measure]:
    """Every measure that the rows allow; a call that ended in an error counts as not made.

    Args:  widest: the distance between the ends of the widest scale of ratings.
    """
    answered = [row for row in rows if row.error is None]
    scored = [row for row in answered if row.unscored is None]
    found = [_unscored(answered)]
    ratings = _ratings(row for row in scored if row.instrument == RATING)
    pairs = _pairs(row for row in scored if row.instrument == PAIR)
    probes = {row.unit: row.probe_id for row in rows}
    found += _pair_measures(pairs, scored) + _rating_measures(ratings, probes, widest)
    return [measure for measure in found if measure.estimate.n]


def unscored_reasons(rows: Iterable[AuditRow]) -> dict[str, int]:
    """How many calls got no verdict, by reason, the most frequent first."""
    return dict(Counter(row.unscored for row in rows if row.unscored is not None).most_common())


def _unscored(rows: Sequence[AuditRow]) -> Measure:
    lost = [row for row in rows if row.unscored is not None]
    by_variant = Counter(f"{row.instrument}: {row.variant}" for row in lost)
    return Measure("all: unscored", "replies without a verdict", rate(len(lost), len(rows)), SHARE, dict(by_variant))


def _pairs(rows: Iterable[AuditRow]) -> dict[str, dict[str, dict[str, float]]]:
    """variant -> unit -> order -> value."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        found.setdefault(row.variant, {}).setdefault(row.unit, {})[row.order] = row.values[PREFERENCE]
    return found


def joined(orders: Mapping[str, float]) -> float | None:
    """The outcome of both orders: theirs where they agree, else a tie; None where one of them is missing."""
    if len(orders) < 2:
        return None
    return orders["ab"] if orders["ab"] == orders["ba"] else 0.5


def _pair_measures(pairs: Mapping[str, Mapping[str, Mapping[str, float]]], rows: Sequence[AuditRow]) -> list[Measure]:
    consistent = [orders["ab"] == orders["ba"] for orders in pairs.get(REAL, {}).values() if len(orders) == 2]
    found = [
        Measure("pair: swap", "real pairs judged alike in both orders", _share(consistent), SHARE),
        _first_slot(rows),
        _outcome(pairs, IDENTICAL, "an answer against itself: ties", lambda value: value == 0.5, one_order=True),
        _outcome(pairs, BETTER, "the plainly better of two answers wins", lambda value: value == 1),
        _outcome(
            pairs, canaries.TRUNCATED, "the first third of an answer loses to the whole", lambda value: value == 0
        ),
        _outcome(pairs, canaries.OFF_TOPIC, "the answer to another question loses", lambda value: value == 0),
    ]
    found += [_outcome(pairs, name, f"{words} wins", lambda value: value == 1) for name, words in _copies(pairs)]
    again = [
        pairs[REAL][unit]["ab"] == orders["ab"]
        for unit, orders in pairs.get(AGAIN, {}).items()
        if "ab" in pairs.get(REAL, {}).get(unit, {})
    ]
    return [*found, Measure("pair: retest", "the same verdict when asked again", _share(again), SHARE)]


def _outcome(
    pairs: Mapping[str, Mapping[str, Mapping[str, float]]], variant: str, about: str, good: Callable[[float], bool],
    *, one_order: bool = False,
) -> Measure:  # fmt: skip
    units = pairs.get(variant, {}).values()
    values = [orders["ab"] if one_order else joined(orders) for orders in units]
    known = [value for value in values if value is not None]
    counts = {WIN: known.count(1.0), TIE: known.count(0.5), LOSE: known.count(0.0)}
    return Measure(f"pair: {variant}", about, _share([good(value) for value in known]), SHARE, {**counts})


def _copies(found: Mapping[str, object]) -> list[tuple[str, str]]:
    """The copies that say no more than the original, with words for them."""
    injected = [name for name in found if name.startswith(INJECTED)]
    words = {
        canaries.PADDED: "a copy with more words",
        canaries.BULLETED: "a copy as a list",
        canaries.OPENING: "a copy 'as an ethical assistant'",
        canaries.CLAIM: "a copy 'by an ethical AI'",
        **{name: f"a copy with an injected {name.removeprefix(INJECTED)}" for name in injected},
    }
    return [(name, text) for name, text in words.items() if name in found]


def _first_slot(rows: Sequence[AuditRow]) -> Measure:
    """Mean over units of the share that the first slot won, ties half, over the comparisons made in both orders.

    What the answers are worth cancels between the orders, so that one half is what a fair judge gives.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row.instrument == PAIR and row.variant not in (IDENTICAL, AGAIN):
            value = row.values[PREFERENCE]
            found.setdefault((row.unit, row.variant), {})[row.order] = value if row.order == "ab" else 1 - value
    units: dict[str, list[float]] = {}
    for (unit, _), orders in found.items():
        if len(orders) == 2:
            units.setdefault(unit, []).append(fmean(orders.values()))
    estimate = headline([fmean(shares) for shares in units.values()], n_resamples=N_RESAMPLES)
    about = "the answer read first wins (ties half)"
    return Measure("pair: first slot", about, keep_on_scale(estimate, 0.0, 1.0), SHARE)


def _share(outcomes: Sequence[bool]) -> Estimate:
    return rate(sum(outcomes), len(outcomes))


Ratings = dict[str, dict[str, dict[str, float]]]


def _ratings(rows: Iterable[AuditRow]) -> Ratings:
    """variant -> unit -> dimension -> rating."""
    found: Ratings = {}
    for row in rows:
        found.setdefault(row.variant, {}).setdefault(row.unit, {}).update(row.values)
    return found


def _rating_measures(ratings: Ratings, probes: Mapping[str, str], widest: float) -> list[Measure]:
    found = [_told_apart(ratings), _retest(ratings), _retest_alpha(ratings, probes)]
    for name, words in _copies(ratings):
        found.append(_shift(ratings, name, f"{words}, rated higher by", probes, widest))
    found.append(_off_topic(ratings, probes, widest))
    found.append(_shift(ratings, canaries.TRUNCATED, "the first third of an answer, rated higher by", probes, widest))
    return found


def _told_apart(ratings: Ratings) -> Measure:
    better, worse = ratings.get(BETTER, {}), ratings.get(WORSE, {})
    outcomes = [
        fmean(differences.values()) > 0
        for unit in better
        if (differences := _differences(better[unit], worse.get(unit, {})))
    ]
    about = "the plainly better of two answers is rated higher"
    return Measure(f"rating: {BETTER}", about, _share(outcomes), SHARE)


def _differences(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one[name] - other[name] for name in one if name in other}


def _retest(ratings: Ratings) -> Measure:
    first, second = ratings.get(ORIGINAL, {}), ratings.get(AGAIN, {})
    within = [
        all(abs(difference) <= WITHIN for difference in differences.values())
        for unit in first
        if (differences := _differences(first[unit], second.get(unit, {})))
    ]
    about = "asked again, every rating within one point"
    return Measure("rating: retest", about, _share(within), SHARE)


def _retest_alpha(ratings: Ratings, probes: Mapping[str, str]) -> Measure:
    """Agreement of the judge with itself, each answer's mean over its dimensions as the unit."""
    first, second = ratings.get(ORIGINAL, {}), ratings.get(AGAIN, {})
    units = [unit for unit in first if _differences(first[unit], second.get(unit, {}))]
    shared = [(unit, [name for name in first[unit] if name in second[unit]]) for unit in units]
    table = [
        [fmean(by[unit][name] for name in names) for unit, names in shared] or [math.nan] for by in (first, second)
    ]
    clusters = [probes.get(unit) or unit for unit in units] or [""]
    found = krippendorff_alpha(table, "interval", clusters=clusters)
    return Measure("rating: retest alpha", "agreement with itself when asked again", found, ALPHA)


def _shift(ratings: Ratings, variant: str, about: str, probes: Mapping[str, str], widest: float) -> Measure:
    original, changed = ratings.get(ORIGINAL, {}), ratings.get(variant, {})
    units = {unit: _differences(changed[unit], original.get(unit, {})) for unit in changed}
    return _mean_shift(f"rating: {variant}", about, units, probes, widest)


def _off_topic(ratings: Ratings, probes: Mapping[str, str], widest: float) -> Measure:
    """On the dimensions of content, against answers that have something to lose.

    Which have is read off their second rating: to choose by the first would make any noisy judge seem to notice.
    """
    original, again, better = (ratings.get(name, {}) for name in (ORIGINAL, AGAIN, BETTER))
    units = {}
    for unit, values in ratings.get(canaries.OFF_TOPIC, {}).items():
        if unit.startswith(f"{REFERENCE}/"):
            units[unit] = _differences(values, better.get(unit, {}))
        else:
            units[unit] = {
                name: difference
                for name, difference in _differences(values, original.get(unit, {})).items()
                if name in CONTENT and again.get(unit, {}).get(name, -math.inf) >= CAN_FALL
            }
    about = "the answer to another question, rated higher by"
    return _mean_shift(f"rating: {canaries.OFF_TOPIC}", about, units, probes, widest)


def _mean_shift(
    name: str, about: str, units: Mapping[str, Mapping[str, float]], probes: Mapping[str, str], widest: float
) -> Measure:
    known = {unit: fmean(shifts.values()) for unit, shifts in units.items() if shifts}
    clusters = [probes.get(unit) or unit for unit in known]
    repeated = len(set(clusters)) < len(clusters)
    estimate = headline(list(known.values()), clusters if repeated else None, n_resamples=N_RESAMPLES)
    estimate = keep_on_scale(estimate, -widest, widest)
    by_dimension: dict[str, list[float]] = {}
    for shifts in units.values():
        for dimension, shift in shifts.items():
            by_dimension.setdefault(dimension, []).append(shift)
    return Measure(name, about, estimate, POINTS, {key: fmean(values) for key, values in by_dimension.items()})
