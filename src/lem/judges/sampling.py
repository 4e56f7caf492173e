"""A seeded sample of a run that every stratum has its share of, in an order that does not depend on how much is taken.

The first n of the order are the sample of n, so a larger sample holds a smaller one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable
from itertools import chain, zip_longest
from typing import TypeVar

from lem.judges.pairwise.pairs import has_answer
from lem.records import Record, RunContents

Unit = TypeVar("Unit")
_NOTHING = object()


def stratified(
    units: Iterable[Unit], stratum: Callable[[Unit], Hashable], name: Callable[[Unit], object], seed: int
) -> list[Unit]:
    """All units, one of each stratum after another, chosen by the hash of seed and name inside a stratum."""
    strata: dict[Hashable, list[Unit]] = {}
    for unit in sorted(units, key=lambda unit: draw(seed, name(unit))):
        strata.setdefault(stratum(unit), []).append(unit)
    rows = zip_longest(*strata.values(), fillvalue=_NOTHING)
    return [unit for unit in chain.from_iterable(rows) if unit is not _NOTHING]  # type: ignore[misc]


def draw(seed: int, name: object) -> str:
    """A number in hex that looks random and follows from seed and name alone."""
    return hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).hexdigest()


def usable_records(contents: RunContents) -> list[Record]:
    """The records that hold an answer: not blank, and not unscored by every scorer that looked at them."""
    looked: dict[object, bool] = {}
    for scores in contents.scores.values():
        for score in scores:
            looked[score.key] = looked.get(score.key, False) or score.value is not None
    answers = filter(has_answer, contents.records)
    return [record for record in answers if (record.response or "").strip() and looked.get(record.key, True)]
