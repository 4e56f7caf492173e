"""Several judges as one: the mean of their standardised ratings (of comparisons see `lem.judges.pairwise.panel`).

A judge's ratings are standardised over the cells that all judges of the panel rated, so that neither a severe judge
nor one with a wide scale weighs more, and all are counted in standard deviations. A cell that one of them did not
rate has no value: its mean would depend on who is missing. What that leaves open is bounded, and every difference is
made again without each judge in turn: if its sign is one judge's doing, it is no finding.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lem.records import Judgement, Key, RunContents, text_sha
from lem.records.cells import domains_of, sources_of
from lem.stats import Estimate, paired_difference, per_probe, per_source

PANEL = "panel"  # the judge's name that a panel's judgements carry

Ratings = Mapping[str, Mapping[Key, Judgement]]


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of a judge's ratings over the cells that the whole panel rated.

    The deviation is 0 for a judge that rated them all alike: nothing stands out to it, and it adds 0 everywhere.
    """

    mean: float
    deviation: float

    def of(self, value: float) -> float:
        """A rating in standard deviations from the mean."""
        return (value - self.mean) / self.deviation if self.deviation else 0.0


@dataclass(frozen=True)
class PanelContrast:
    """Treatment minus baseline on a dimension as a panel sees it, in standard deviations of its judges' ratings.

    `flat` are judges that rated all cells alike. `without` has the difference without each judge, over the same cells;
    `dependent` are the judges without whom it vanishes or turns. `n_partial` counts cells of the two arms that some
    judge did not rate, which have no value; `bounds` are the mean differences if they had all been rated worst, and
    best, for the treatment (None: there are none, or a judge's scale is not known).
    """

    dimension: str
    judges: tuple[str, ...]
    flat: tuple[str, ...]
    difference: Estimate
    without: dict[str, Estimate]
    dependent: tuple[str, ...]
    n_partial: int
    bounds: tuple[float, float] | None

    @property
    def judge_dependent(self) -> bool:
        """True when the sign of the difference hangs on one judge."""
        return bool(self.dependent)


def judge_dependent(whole: Estimate, without: Mapping[str, Estimate], null: float = 0.0) -> tuple[str, ...]:
    """The judges without whom an estimate lies on the other side of `null`, or on it.

    Empty where the whole panel is at null already or has no estimate: there is no side to lose.
    """
    side = whole.value - null
    if math.isnan(side) or side == 0:
        return ()
    return tuple(judge for judge, found in without.items() if not (found.value - null) * side > 0)


def panel_judges(contents: RunContents, dimension: str) -> list[str]:
    """The judges that rated a dimension, as they first appear; one without any rating and a stored panel are none."""
    found = (
        one.judge
        for one in contents.judgements
        if one.dimension == dimension and not one.order and one.value is not None
    )
    return [judge for judge in dict.fromkeys(found) if judge != PANEL]


def panel_judgements(contents: RunContents, judges: Sequence[str] = ()) -> list[Judgement]:
    """The panel's ratings as judgements by the judge `PANEL`, for every dimension that two or more judges rated.

    Args:  judges: who sits on it (none: everyone).
    A cell that a judge of the dimension did not rate is unscored, with the reason. The scale has no ends. `version`
    is equal where the same judges rated in the same way.
    """
    found: list[Judgement] = []
    for dimension in dict.fromkeys(one.dimension for one in contents.judgements if not one.order):
        seated = [judge for judge in panel_judges(contents, dimension) if not judges or judge in judges]
        if len(seated) > 1:
            found += _series(_ratings(contents, dimension, seated), dimension)
    return found


def panel_contrast(
    contents: RunContents, dimension: str, treatment: str, baseline: str, *, judges: Sequence[str] = (),
    excluded: Mapping[str, str] | frozenset[str] = frozenset(), level: float = 0.95,
) -> PanelContrast:  # fmt: skip
    """Compare two arms on one dimension by all its judges together.

    Ratings are standardised over all arms of the run. Raises: ValueError with fewer than two judges.
    """
    seated = [judge for judge in panel_judges(contents, dimension) if not judges or judge in judges]
    if len(seated) < 2:
        raise ValueError(f"a panel takes two or more judges of '{dimension}', not {len(seated)}")
    ratings = _ratings(contents, dimension, seated)
    standards = _standards(ratings)
    scores = {judge: {key: standards[judge].of(_value(rows[key])) for key in _common(ratings)}
              for judge, rows in ratings.items()}  # fmt: skip

    def difference(who: Sequence[str]) -> Estimate:
        means = {key: sum(scores[judge][key] for judge in who) / len(who) for key in scores[seated[0]]}
        sides = [per_probe((k.probe_id, v) for k, v in means.items() if k.arm == arm and k.probe_id not in excluded)
                 for arm in (treatment, baseline)]  # fmt: skip
        domains = domains_of(contents.info)
        known = domains if len({domains.get(probe, "") for probe in set(sides[0]) & set(sides[1])}) > 1 else None
        return paired_difference(
            sides[0], sides[1], known, sources=sources_of(contents.info), level=level
        ).difference  # fmt: skip

    whole = difference(seated)
    without = {judge: difference([other for other in seated if other != judge]) for judge in seated}
    partial = {key for key in _partial(ratings) if key.arm in (treatment, baseline) and key.probe_id not in excluded}
    return PanelContrast(
        dimension, tuple(seated), tuple(judge for judge in seated if not standards[judge].deviation), whole, without,
        judge_dependent(whole, without), len(partial),
        _bounds(contents, ratings, standards, treatment, baseline, excluded) if partial else None,
    )  # fmt: skip


def _ratings(contents: RunContents, dimension: str, judges: Sequence[str]) -> Ratings:
    """Ratings by judge and cell, those of answers that were made anew since left out."""
    answers = {record.key: record.response for record in contents.records}
    found: dict[str, dict[Key, Judgement]] = {judge: {} for judge in judges}
    for one in contents.judgements:
        answer = answers.get(one.key)
        fresh = answer is not None and one.record_sha in ("", text_sha(answer))
        if one.judge in found and one.dimension == dimension and not one.order and fresh:
            found[one.judge][one.key] = one
    return found


def _value(one: Judgement) -> float:
    assert one.value is not None
    return one.value


def _rated(one: Judgement | None) -> bool:
    return one is not None and one.value is not None and not one.unscored and not one.error


def _cells(ratings: Ratings) -> list[Key]:
    """Every cell that at least one judge was asked about, sorted."""
    return sorted({key for rows in ratings.values() for key in rows})


def _common(ratings: Ratings) -> list[Key]:
    return [key for key in _cells(ratings) if all(_rated(rows.get(key)) for rows in ratings.values())]


def _partial(ratings: Ratings) -> list[Key]:
    return [key for key in _cells(ratings) if not all(_rated(rows.get(key)) for rows in ratings.values())]


def _standards(ratings: Ratings) -> dict[str, Standard]:
    common = _common(ratings)
    found = {}
    for judge, rows in ratings.items():
        values = np.asarray([_value(rows[key]) for key in common])
        varied = len(values) > 1 and bool(np.any(values != values[0]))
        mean = float(values.mean()) if len(values) else math.nan
        found[judge] = Standard(mean, float(values.std(ddof=1)) if varied else 0.0)
    return found


def _series(ratings: Ratings, dimension: str) -> Iterable[Judgement]:
    standards, common = _standards(ratings), set(_common(ratings))
    versions = {judge: sorted({one.version for one in rows.values()}) for judge, rows in ratings.items()}
    version = hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:12]
    for key in _cells(ratings):
        absent = [judge for judge, rows in ratings.items() if not _rated(rows.get(key))]
        mean = None
        if key in common:
            mean = sum(standards[judge].of(_value(rows[key])) for judge, rows in ratings.items()) / len(ratings)
        sha = next((rows[key].record_sha for rows in ratings.values() if key in rows), "")
        reason = f"no rating by {', '.join(absent)}" if absent else None
        yield Judgement(*key, PANEL, dimension, mean, unscored=reason, version=version, record_sha=sha)


def _bounds(
    contents: RunContents, ratings: Ratings, standards: Mapping[str, Standard], treatment: str, baseline: str,
    excluded: Mapping[str, str] | frozenset[str],
) -> tuple[float, float] | None:  # fmt: skip
    """The mean differences with every missing rating at the worst, and at the best, end for the treatment."""
    scales: dict[str, tuple[float, float]] = {}
    for judge, rows in ratings.items():
        ends = next(((one.low, one.high) for one in rows.values() if one.low is not None), (None, None))
        if ends[0] is None or ends[1] is None or not standards[judge].deviation:
            return None
        scales[judge] = (ends[0], ends[1])

    def filled(key: Key, end: int) -> float:
        values = [_value(rows[key]) if _rated(rows.get(key)) else scales[judge][end] for judge, rows in ratings.items()]
        return sum(standards[judge].of(v) for judge, v in zip(ratings, values, strict=True)) / len(ratings)

    def difference(ends: tuple[int, int]) -> float:
        cells = [key for key in _cells(ratings) if key.probe_id not in excluded]
        sides = [
            per_probe((key.probe_id, filled(key, end)) for key in cells if key.arm == arm)
            for arm, end in zip((treatment, baseline), ends, strict=True)
        ]
        paired = {probe: sides[0][probe] - sides[1][probe] for probe in sorted(set(sides[0]) & set(sides[1]))}
        found = per_source(paired, sources_of(contents.info))
        return sum(found.values()) / len(found) if found else math.nan

    return difference((0, 1)), difference((1, 0))
