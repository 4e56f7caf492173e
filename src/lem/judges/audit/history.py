"""What earlier audits of a judge found stands until the same is asked again: as widely, and in the same manner.

A finding is made again by one of the same check on at least as many units of the same draw, on all of its dimensions,
asked in the same manner, in an audit without a missing call. So neither a smaller audit nor another one takes a failure
back, or makes trust out of what was left open; nor do too few answers take back what more answers have shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError, ResumeMismatch
from lem.judges.audit.measures import Measure
from lem.judges.audit.plan import PAIR, RATING, AuditCall, AuditSettings
from lem.judges.audit.verdict import HUMANS, Check, Status, check
from lem.judges.calls import Asking
from lem.judges.manifest import check_same_judge, same_judge, what_differs
from lem.judges.pairwise.pairs import PREFERENCE
from lem.judges.protocol import JudgeIdentity
from lem.stats import Estimate

# Missing from an estimate as from a single unit; n_clusters is None in its own right.
_NUMBERS = ("value", "stderr", "low", "high", "level")


@dataclass(frozen=True)
class Finding:
    """A check with what it was made on: `covers` the dimensions ("preference": comparisons), `seed` the draw."""

    check: Check
    covers: tuple[str, ...]
    asking: Asking
    seed: int
    made: str = ""

    @property
    def way(self) -> tuple[Asking, int]:
        """How it was asked, and of which draw of answers."""
        return self.asking, self.seed

    def makes_again(self, other: Finding) -> bool:
        """Whether this one, were it of a whole audit, says of the judge all that the other one says."""
        return (
            self.check.measure.name == other.check.measure.name
            and self.way == other.way
            and set(self.covers) >= set(other.covers)
            and self.check.measure.estimate.n >= other.check.measure.estimate.n
        )


def refuse_other_judge(run: Path, identity: JudgeIdentity, audit: Mapping[str, Any] | None) -> None:
    """Refuse a judge that is not the one that has judged this run, or was audited on it, under its name.

    Args:  audit: what is stored of an earlier audit under this name.
    Raises: ResumeMismatch.
    """
    check_same_judge(run, identity)
    before = (audit or {}).get("identity")
    if isinstance(before, dict) and not same_judge(before, identity):
        raise ResumeMismatch(
            f"{run}: the judge '{identity.name}' was audited here as {before.get('backend')} {before.get('model')}, "
            f"and {what_differs(before, identity)}"
        )


def findings(checks: Sequence[Check], calls: Sequence[AuditCall], settings: AuditSettings, made: str) -> list[Finding]:
    """The checks of an audit with what it asked; agreement with people is left out, which is that of now."""
    dimensions = sorted({name for one in calls for name in one.dimensions})
    comparisons = [PREFERENCE] if any(one.instrument == PAIR for one in calls) else []
    found = []
    for one in checks:
        instrument = one.measure.name.partition(":")[0]
        covers = {RATING: dimensions, PAIR: comparisons}.get(instrument, [*dimensions, *comparisons])
        if not _of_people(one.measure.name):
            found.append(Finding(one, tuple(covers), _manner(settings.asking, covers), settings.seed, made))
    return found


def _of_people(name: str) -> bool:
    return name.startswith(HUMANS)


def _manner(asking: Asking, covers: Sequence[str]) -> Asking:
    """How it was asked; to be asked for several dimensions together is no part of a comparison."""
    rated = any(name != PREFERENCE for name in covers)
    return Asking(asking.together and rated, asking.rationale, asking.max_tokens)


def earlier_findings(audit: Mapping[str, Any] | None, version: str, file: Path) -> list[Finding]:
    """What a stored audit of this version of the judge says, with what it handed on itself.

    Of an audit with calls missing the failures alone: what is missing may be what the judge cannot do.
    Raises: DataError for what is no finding.
    """
    if audit is None or audit.get("version") != version:
        return []
    try:
        own = [_finding(entry) for entry in audit["checks"] if not _of_people(entry["name"])]
        handed_on = [_finding(entry) for entry in audit.get("earlier", ())]
        complete = not (audit["failed"] or audit["missing"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: not what an audit has written ({error!r}); restore it from a copy, or remove it and audit again."
        ) from None
    return [one for one in own if complete or one.check.status is Status.FAILED] + handed_on


def _finding(entry: Mapping[str, Any]) -> Finding:
    raw = dict(entry["estimate"])
    estimate = Estimate(**{**raw, **{name: math.nan for name in _NUMBERS if raw[name] is None}})
    measure = Measure(entry["name"], entry["about"], estimate, entry["unit"], dict(entry["counts"]))
    covers, asking = tuple(entry["covers"]), Asking(**entry["asking"])
    return Finding(check([measure])[0], covers, asking, int(entry["seed"]), str(entry["made"]))


def standing(now: Sequence[Finding], before: Sequence[Finding], *, complete: bool) -> list[Finding]:
    """The findings of before that this audit does not make again.

    An audit with calls missing makes nothing again but what fails. A check that did not fail, and is now made in
    another manner or of another draw, is not kept beside it.
    """
    again = [one for one in now if complete or one.check.status is Status.FAILED]
    ways = {(one.check.measure.name, one.way) for one in now}

    def kept(one: Finding) -> bool:
        if any(new.makes_again(one) for new in again):
            return False
        otherwise = any(name == one.check.measure.name and way != one.way for name, way in ways)
        return one.check.status is Status.FAILED or not otherwise

    return [one for one in before if kept(one)]


def deciding(checks: Sequence[Check], found: Sequence[Finding], earlier: Sequence[Finding]) -> list[Check]:
    """The checks of this audit that its verdict rests on: all but those left open that more answers have passed before.

    Args:  found: the checks with what they were made on.  earlier: what stands of audits before.
    """
    passed = [one for one in earlier if one.check.status is Status.PASSED]
    settled = {
        one.check.measure.name
        for one in found
        if one.check.status is Status.NOT_SHOWN and any(wider.makes_again(one) for wider in passed)
    }
    return [one for one in checks if one.measure.name not in settled]


def scope(finding: Finding) -> dict[str, Any]:
    """What the summary says of a finding beside its check."""
    return {
        "covers": list(finding.covers),
        "asking": asdict(finding.asking),
        "seed": finding.seed,
        "made": finding.made,
    }
