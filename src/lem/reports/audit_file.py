"""`audits/<judge>.json` as the page needs it: each check with its estimate, threshold and outcome, and the verdict.

The file is written by `lem judge audit`; here it is read, and nothing is computed anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.reports.comparison_file import estimate_of
from lem.reports.formats import ABSENT
from lem.reports.units import Unit
from lem.stats import Estimate

SHARE = "share"


@dataclass(frozen=True)
class CheckView:
    """One check of an audit; `outcome` is passed, failed or not shown."""

    name: str
    sentence: str
    estimate: Estimate | None
    unit: str
    threshold: str
    outcome: str

    @property
    def found(self) -> str:
        """The estimate with its interval, shares in percent; '-' where nothing could be estimated."""
        if self.estimate is None or math.isnan(self.estimate.value):
            return ABSENT
        unit = Unit(percent=self.unit == SHARE)
        ends = "" if math.isnan(self.estimate.low) else f" {unit.interval(self.estimate)}"
        return f"{unit.shown(self.estimate.value)}{ends}{' %' if unit.percent else ''}"


@dataclass(frozen=True)
class AuditView:
    """An audit: whether the judge can be trusted as far as it was tested, in a sentence, and the checks."""

    trustworthy: bool
    verdict: str
    checks: list[CheckView]
    notes: list[str]


def read_audits(run: Path) -> dict[str, AuditView]:
    """The audits of a run by the judge's name.   Raises: DataError for a file that is none."""
    found = {}
    for file in sorted((run / "audits").glob("*.json")):
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            found[str(document["judge"])] = _view(document)
        except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
            raise DataError(f"{file}: not an audit ({error!r}); run `lem judge audit` again.") from None
    return found


def _view(document: Mapping[str, Any]) -> AuditView:
    return AuditView(
        trustworthy=bool(document["trustworthy"]),
        verdict=str(document["verdict"]),
        checks=[_check(entry) for entry in document["checks"]],
        notes=[str(note) for note in document.get("notes", [])],
    )


def _check(entry: Mapping[str, Any]) -> CheckView:
    return CheckView(
        name=str(entry["name"]),
        sentence=str(entry.get("about", "")),
        estimate=estimate_of(entry.get("estimate")),
        unit=str(entry.get("unit", "")),
        threshold=str(entry.get("threshold", "")),
        outcome=str(entry["outcome"]),
    )
