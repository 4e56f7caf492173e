"""The audit of a judge as tables for a terminal of 80 columns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lem.judges.audit_run import Audit
    from lem.judges.audit_verdict import Bound, Check
    from lem.judges.human import HumanAgreement
    from lem.stats import Estimate

_STYLES = {"passed": "green", "failed": "bold red", "not shown": "yellow"}
_FORMS = {"share": "{:.0%}", "points": "{:+.2f}", "alpha": "{:.2f}"}


def audit_rich(audit: Audit) -> RenderableType:
    """The checks, the other measures, agreement with judges and people, notes, and the verdict last."""
    parts: list[RenderableType] = [Text(f"audit of the judge {audit.judge}", "bold"), _checks(audit)]
    if audit.others or audit.judges:
        parts += [Text(""), _others(audit)]
    parts += [part for one in audit.humans for part in (Text(""), _human(one))]
    parts.append(Text(""))
    if audit.unscored:
        reasons = ", ".join(f"{reason} {count}" for reason, count in audit.unscored.items())
        parts.append(Text(f"unscored replies: {reasons}"))
    parts += [Text(f"note: {note}") for note in audit.notes]
    parts.append(Text(audit.sentence, "bold"))
    return Group(*parts)


def _checks(audit: Audit) -> Table:
    table = _table("check", "what", "n", "found [95%]", "must be", "")
    for one in audit.checks:
        found = one.measure.estimate
        table.add_row(
            Text(one.measure.name), Text(one.measure.about), Text(str(found.n)), _number(found, one.measure.unit),
            Text(_bound(one.bound, one.measure.unit)), _status(one),
        )  # fmt: skip
    return table


def _status(one: Check) -> Text:
    return Text(str(one.status), _STYLES[str(one.status)])


def _others(audit: Audit) -> Table:
    table = _table("also measured", "what", "n", "found [95%]")
    for measure in audit.others:
        found = measure.estimate
        table.add_row(Text(measure.name), Text(measure.about), Text(str(found.n)), _number(found, measure.unit))
    for one in audit.judges:
        series = f"judges: {one.dimension}" + (f" against {one.against}" if one.against else "")
        about = f"alpha of {len(one.judges)} judges: {one.conclusion}"
        table.add_row(Text(series), Text(about), Text(str(one.alpha.n)), _number(one.alpha, "alpha"))
    return table


def _human(one: HumanAgreement) -> Table:
    series = one.dimension + (f" against {one.against}" if one.against else "")
    table = _table(f"people: {series}", "", "n", "found [95%]")
    rows: list[tuple[str, str, Estimate, str]] = [
        ("alpha", "Krippendorff, ordinal", one.alpha, "alpha"),
        ("kappa", "Cohen, quadratic weights", one.kappa, "alpha"),
        ("same", "exactly the same value", one.raw, "share"),
        ("prevalence", "positive by people", one.prevalence, "share"),
        ("judged", "positive by the judge", one.judged, "share"),
        ("among people", f"alpha of {len(one.labellers)} labellers", one.among_humans, "alpha"),
    ]
    for arm, rates in one.corrected.items():
        if arm == next(iter(one.corrected)):
            rows += [
                ("sensitivity", "positive where people are", rates.sensitivity, "share"),
                ("specificity", "negative where people are", rates.specificity, "share"),
            ]
        rows.append((f"{arm}, judged", "positive in the run", rates.observed, "share"))
        about = f"corrected{': ' + rates.why if rates.why else ''}"
        rows.append((f"{arm}, corrected", about, rates.corrected, "share"))
    for name, about, found, unit in rows:
        table.add_row(Text(name), Text(about), Text(str(found.n)), _number(found, unit))
    return table


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, width=80)
    for name in names:
        right = name in ("n",)
        table.add_column(Text(name), justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def _number(found: Estimate, unit: str) -> Text:
    form = _FORMS[unit]
    value, low, high = ("-" if math.isnan(x) else form.format(x) for x in (found.value, found.low, found.high))
    return Text(f"{value}\n[{low}, {high}]")


def _bound(bound: Bound, unit: str) -> str:
    form = _FORMS[unit]
    floor = -math.inf if unit == "points" else 0.0
    if bound.low <= floor:
        return f"<= {form.format(bound.high)}"
    if bound.high >= 1:
        return f">= {form.format(bound.low)}"
    return f"{form.format(bound.low)} to {form.format(bound.high)}"
