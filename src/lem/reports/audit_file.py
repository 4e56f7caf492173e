"""What an audit found, as the page needs it: each check with its estimate, its bound and its outcome, and the verdict.

`audits/<judge>.json` is written by `lem judge audit`; here nothing is computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lem.errors import DataError
from lem.records.judge_files import TRUSTWORTHY, UNTRUSTWORTHY
from lem.reports.comparison_file import estimate_of
from lem.reports.formats import ABSENT
from lem.reports.units import Unit
from lem.stats import Estimate

SHARE = "share"


@dataclass(frozen=True)
class CheckView:
    """One figure of an audit; `bound` and `outcome` (passed, failed, not shown) are "" where none was set."""

    name: str
    about: str
    found: str
    n: int
    bound: str = ""
    reason: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class AuditView:
    """An audit: its verdict in a sentence, the checks behind it, other figures, and what went without a verdict.

    The checks of an earlier audit that count still stand behind its own.
    """

    verdict: str
    sentence: str
    checks: list[CheckView]
    others: list[CheckView]
    lost: str
    notes: list[str]

    @property
    def trustworthy(self) -> bool:
        """True when every check was passed."""
        return self.verdict == TRUSTWORTHY

    @property
    def untrustworthy(self) -> bool:
        """True when a check failed."""
        return self.verdict == UNTRUSTWORTHY


def audit_view(judge: str, document: Mapping[str, Any]) -> AuditView:
    """The audit of a judge.   Raises: DataError if it lacks a field or one is of another type."""
    try:
        lost = [f"{n} {reason}" for reason, n in (document.get("unscored") or {}).items()]
        counts = [f"{document[name]} {name}" for name in ("failed", "missing") if document.get(name)]
        return AuditView(
            verdict=str(document["verdict"]),
            sentence=str(document.get("sentence", "")),
            checks=[
                *(_check(entry) for entry in document.get("checks") or ()),
                *(_check({**entry, "name": f"{entry['name']} (earlier)"}) for entry in document.get("earlier") or ()),
            ],
            others=[_check(entry) for entry in document.get("others") or ()] + list(_agreement(document)),
            lost=", ".join(lost + counts),
            notes=[str(note) for note in document.get("notes") or ()],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"the audit of '{judge}' is not readable ({error!r}); run `lem judge audit` again.") from None


def _check(entry: Mapping[str, Any]) -> CheckView:
    unit = Unit(percent=entry.get("unit") == SHARE)
    estimate = estimate_of(entry.get("estimate"))
    return CheckView(
        name=str(entry["name"]),
        about=str(entry.get("about", "")),
        found=_found(estimate, unit),
        n=estimate.n if estimate else 0,
        bound=_bound(entry.get("bound"), unit),
        reason=str(entry.get("reason", "")),
        outcome=str(entry.get("status", "")),
    )


def _found(estimate: Estimate | None, unit: Unit) -> str:
    """The estimate with its interval, shares in percent; '-' where nothing could be estimated."""
    if estimate is None or math.isnan(estimate.value):
        return ABSENT
    ends = "" if math.isnan(estimate.low) else f" {unit.interval(estimate)}"
    return f"{unit.shown(estimate.value)}{'%' if unit.percent else ''}{ends}"


def _bound(ends: Any, unit: Unit) -> str:
    """The bound in words; an end that is null is no bound, and neither is the end of the scale of shares."""
    if ends is None:
        return ""
    low, high = ends
    sign = "%" if unit.percent else ""
    least = "" if low is None or (unit.percent and low <= 0) else f"{100 * low if unit.percent else low:g}{sign}"
    most = "" if high is None or (unit.percent and high >= 1) else f"{100 * high if unit.percent else high:g}{sign}"
    if least and most:
        return f"{least} to {most}"
    return f"at least {least}" if least else f"at most {most}" if most else ""


def _agreement(document: Mapping[str, Any]) -> Iterator[CheckView]:
    """Agreement with other judges and with people, and rates corrected by what people said."""
    for entry in document.get("judges") or ():
        series = _series(entry)
        named = " and ".join(str(name) for name in entry["judges"])
        about = f"Krippendorff's alpha of {named} on {series}: {entry.get('conclusion', '')}"
        yield _check({"name": f"agreement: {series}", "about": about, "estimate": entry["alpha"]})
    for entry in document.get("humans") or ():
        series = _series(entry)
        for name, unit in (("raw", SHARE), ("kappa", ""), ("among_humans", "")):
            words = {"raw": "same value", "kappa": "weighted kappa", "among_humans": "alpha between people"}[name]
            yield _check(
                {"name": f"humans: {words}", "about": f"on {series}", "estimate": entry.get(name), "unit": unit}
            )
        for arm, found in (entry.get("corrected") or {}).items():
            about = f"positive on {series}, corrected by what people said; {found.get('why') or 'identified'}"
            yield _check(
                {"name": f"corrected share: {arm}", "about": about, "estimate": found["corrected"], "unit": SHARE}
            )


def _series(entry: Mapping[str, Any]) -> str:
    return str(entry["dimension"]) + (f" against {entry['against']}" if entry.get("against") else "")
