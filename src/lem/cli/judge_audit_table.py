"""The audit of a judge as tables for a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lem.judges.audit.verdict import FEWEST
from lem.stats import FEWEST_UNITS

if TYPE_CHECKING:
    from lem.judges.audit.run import Audit
    from lem.judges.audit.verdict import Bound, Check
    from lem.judges.human import HumanAgreement
    from lem.stats import Estimate

_STYLES = {"passed": "green", "failed": "bold red", "not shown": "yellow"}
_FORMS = {"share": "{:.0%}", "points": "{:+.2f}", "alpha": "{:.2f}"}
_LEGEND = (
    "Shares: replies without a verdict; real pairs judged alike in both orders; wins of the answer read first; ties "
    "of identical answers; wins of the plainly better, losses of a truncated and an off-topic answer; wins of a copy "
    "that says no more than its original; the same verdict when asked again. Points: how much higher a copy is rated "
    "than its original. A check is passed when its whole interval is inside, failed when it is outside; "
    f"fewer than {FEWEST} units (n), for agreement {FEWEST_UNITS}, show nothing."
)


def audit_rich(audit: Audit, kin: Sequence[str] = ()) -> RenderableType:
    """The checks, the other measures, agreement with judges and people, and notes.

    Args:  kin: arms that the judge is of one lineage with; they are named above and below the table.
    """
    mark = [Text(f"SELF-JUDGED: of one lineage with {', '.join(kin)}", "bold reverse")] if kin else []
    parts: list[RenderableType] = [*mark, Text(f"audit of the judge {audit.judge}", "bold"), _checks(audit.checks)]
    if audit.earlier:
        before = [one.check for one in audit.earlier]
        parts += [Text("\nfound by an earlier audit, not made again", "bold"), _checks(before)]
    parts += [Text(_LEGEND, "dim"), *_reasons(audit)]
    if audit.others or audit.judges:
        parts += [Text(""), _others(audit)]
    parts += [part for one in audit.humans for part in (Text(""), _human(one))]
    parts.append(Text(""))
    if audit.unscored:
        reasons = ", ".join(f"{reason} {count}" for reason, count in audit.unscored.items())
        parts.append(Text(f"unscored replies: {reasons}"))
    return Group(*parts, *(Text(f"note: {note}") for note in audit.notes), *mark)


def _checks(checks: Sequence[Check]) -> Table:
    table = _table("check", "n", "found", "[95%]", "must be", "")
    for one in checks:
        found, unit = one.measure.estimate, one.measure.unit
        status = Text(str(one.status), _STYLES[str(one.status)])
        table.add_row(Text(one.measure.name), *_cells(found, unit), Text(_bound(one.bound, unit)), status)
    return table


def _reasons(audit: Audit) -> list[Text]:
    """Why the failed checks matter, each once."""
    every = [*audit.checks, *(one.check for one in audit.earlier)]
    failed = {one.measure.name: one for one in every if str(one.status) == "failed"}
    return [Text(f"failed, {name}: {one.measure.about}; {one.bound.reason}.") for name, one in failed.items()]


def _others(audit: Audit) -> Table:
    table = _table("also measured", "n", "found", "[95%]", "")
    for measure in audit.others:
        table.add_row(Text(measure.name), *_cells(measure.estimate, measure.unit), Text(""))
    for one in audit.judges:
        series = f"judges: {one.dimension}" + (f" against {one.against}" if one.against else "")
        table.add_row(Text(series), *_cells(one.alpha, "alpha"), Text(f"{len(one.judges)} judges: {one.conclusion}"))
    return table


def _human(one: HumanAgreement) -> Table:
    series = one.dimension + (f" against {one.against}" if one.against else "")
    table = _table(f"people: {series}", "n", "found", "[95%]", "")
    rows: list[tuple[str, Estimate, str, str]] = [
        ("Krippendorff's alpha", one.alpha, "alpha", ""),
        ("kappa, quadratic", one.kappa, "alpha", ""),
        ("exactly the same", one.raw, "share", ""),
        ("positive by people", one.prevalence, "share", ""),
        ("positive by the judge", one.judged, "share", ""),
        ("alpha among people", one.among_humans, "alpha", f"{len(one.labellers)} labellers"),
    ]
    for number, (arm, rates) in enumerate(one.corrected.items()):
        if number == 0:
            rows += [("sensitivity", rates.sensitivity, "share", ""), ("specificity", rates.specificity, "share", "")]
        rows.append((f"{arm}: positive", rates.observed, "share", ""))
        rows.append((f"{arm}: corrected", rates.corrected, "share", rates.why))
    for name, found, unit, note in rows:
        table.add_row(Text(name), *_cells(found, unit), Text(note))
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        number = name in ("n", "found")
        table.add_column(Text(name), justify="right" if number else "left", no_wrap=number or name == "[95%]")
    return table


def _cells(found: Estimate, unit: str) -> tuple[Text, Text, Text]:
    form = _FORMS[unit]
    value, low, high = ("-" if math.isnan(x) else form.format(x) for x in (found.value, found.low, found.high))
    return Text(str(found.n)), Text(value), Text(f"[{low}, {high}]")


def _bound(bound: Bound, unit: str) -> str:
    form = _FORMS[unit]
    if bound.low == -math.inf or (unit == "share" and bound.low <= 0):
        return f"<= {form.format(bound.high)}"
    if bound.high >= 1:
        return f">= {form.format(bound.low)}"
    return f"{form.format(bound.low)} to {form.format(bound.high)}"
