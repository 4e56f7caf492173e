"""How a plan is printed: what it takes, what it can see, what is declared; 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lem.reports.formats import ABSENT, number, percent, toy_notice

_MEBI, _GIBI = 2**20, 2**30


def plan_rich(plan: Mapping[str, Any]) -> Group:
    """The whole plan as one renderable: the run, its cost, the effects it can see, the declarations, the notes."""
    parts: list[RenderableType] = [_facts(_run_rows(plan) + _cost_rows(plan["cost"])), *_effects(plan), *_grids(plan)]
    parts += [Text(), _facts(_declared_rows(plan))]
    toy = toy_notice(str(arm.get("model", "")) for arm in plan["arms"])
    notes = [*([toy] if toy else []), *plan["notes"]]
    return Group(*parts, *(Text(f"note: {note}", style="dim") for note in notes))


def _facts(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(Text(label), Text(text))
    return table


def _run_rows(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    expected = plan["expected"]
    arms = ", ".join(arm["name"] for arm in plan["arms"])
    new, rate, minutes = expected["new_tokens"], expected["tokens_per_second"], expected["minutes"]
    at_most = f"at most {_count(expected['max_new_tokens'])}"
    repeats = "1 repeat" if plan["repeats"] == 1 else f"{plan['repeats']} repeats"
    answers = f"{len(plan['arms'])} arms x {plan['n_probes']} probes x {repeats}"
    return [
        ("arms", arms),
        ("answers", f"{_count(expected['requests'])} = {answers}"),
        ("prompt tokens", f"{_count(expected['prompt_tokens'])}; {_count(expected['prefill_tokens'])} to compute"),
        ("new tokens", f"{at_most}; how many is not known" if new is None else f"{_range(new, _count)}, {at_most}"),
        ("speed", "not known; give --pilot RUN or --tokens-per-second" if rate is None
         else f"{_range(rate, _count)} tokens a second, {rate['note']}"),
        ("minutes", _missing_minutes(new, rate) if minutes is None else _range(minutes, _minutes)),
        ("memory", _memory(expected["memory"])),
    ]  # fmt: skip


def _missing_minutes(new: object, rate: object) -> str:
    lacking = [what for what, known in (("the length of an answer", new), ("the speed", rate)) if known is None]
    return f"not known, for lack of {' and '.join(lacking)}"


def _memory(memory: Mapping[str, int]) -> str:
    parts = (
        f"about {_bytes(memory['total_bytes'])}: {memory['decoders']} x ({_bytes(memory['weights_bytes'])} weights, "
        f"{_bytes(memory['rows_bytes'])} for {memory['rows']} rows); {_bytes(memory['free_bytes'])} free"
    )
    return parts + ("; it does not fit" if memory["total_bytes"] > memory["free_bytes"] else "")


def _cost_rows(cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not cost["judges"]:
        return [("judges", "none")]
    rows = []
    for judge in cost["judges"]:
        price = judge["price"]
        text = f"{_count(judge['calls'])} calls"
        if judge["input_tokens"] is not None:
            text += f", {_count(judge['input_tokens'])} tokens read, {_count(judge['output_tokens'])} written"
        if judge["cost"] is not None:
            text += f": {judge['cost']:.2f} {price['currency']} at prices of {price['date']}"
        rows.append((f"judge {judge['judge']}", text))
    if cost["total"] is not None:
        total = " + ".join(f"{amount:.2f} {currency}" for currency, amount in cost["total"].items())
    else:
        total = f"not known: {'; '.join(cost['unknown'])}"
    return [*rows, ("cost", total)]


def _effects(plan: Mapping[str, Any]) -> list[RenderableType]:
    mde = plan["mde"]
    tests = f"{mde['n_tests']} contrast{'s' if mde['n_tests'] > 1 else ''}"
    if not mde["contrasts"]:
        sds = number(mde["in_sds"])
        said = f"Smallest difference seen with 80% power: {sds} SD of a probe's difference (two-sided 0.05, {tests})."
        return [Text(), Text(f"{said} Give --pilot RUN or --sd METRIC=X to have it in points of a metric.")]
    table = Table(box=None, pad_edge=False)
    for name in ("metric", "against " + plan["baseline"]):
        table.add_column(name, overflow="fold")
    for name in ("effect", "[range]", "SD between", "within", "deff"):
        table.add_column(Text(name), justify="right")
    for row in mde["contrasts"]:
        effect = ("<" if row["at_most"] and row["mde"] is not None else "") + number(row["mde"])
        span = ABSENT if row["n_pilot"] is None else f"[{number(row['low'])}, {number(row['high'])}]"
        table.add_row(
            Text(row["metric"] + (" *" if row["primary"] else "")), Text(row["treatment"]), effect, Text(span),
            number(row["sd_between"]), number(row["sd_within"]), number(row["design_effect"]),
        )  # fmt: skip
    heading = Text("smallest true difference that is seen with 80% power", style="italic")
    return [Text(), heading, table, Text(_effects_legend(mde, tests), style="dim")]


def _effects_legend(mde: Mapping[str, Any], tests: str) -> str:
    rows = mde["contrasts"]
    parts = [f"Two-sided 0.05, Holm's first step over {tests}, {mde['n_probes']} probes that count."]
    if any(row["primary"] for row in rows):
        parts.append("* primary.")
    else:
        parts.append("No contrast is declared primary, so all count; declare one with --primary METRIC:ARM.")
    if any(row["n_pilot"] is not None for row in rows):
        parts.append("[range]: what the size of the pilot leaves open.")
    if any(row["at_most"] for row in rows):
        parts.append("<: an upper bound, as the spread within a probe is not known.")
    parts.append("deff: design effect of the domains, 1 unless they differ beyond chance in the pilot.")
    return " ".join(parts)


def _grids(plan: Mapping[str, Any]) -> list[RenderableType]:
    """Repeats against probes for the primary contrasts, or for the first one when none is declared."""
    rows = plan["mde"]["contrasts"]
    parts: list[RenderableType] = []
    for row in [entry for entry in rows if entry["primary"]] or rows[:1]:
        title = f"repeats or probes: {row['metric']}, {row['treatment']} against {plan['baseline']} (answers it takes)"
        known = any(cell["mde"] is not None for cell in row["grid"])
        parts += [Text(), Text(title, style="italic"), _grid(row["grid"])] if known else [Text()]
        parts.append(Text(row["advice"]))
    return parts


def _grid(cells: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("repeats", justify="right")
    for count in dict.fromkeys(cell["n_probes"] for cell in cells):
        table.add_column(f"{count} probes", justify="right")
    for repeats in dict.fromkeys(cell["repeats"] for cell in cells):
        row = [cell for cell in cells if cell["repeats"] == repeats]
        table.add_row(str(repeats), *(f"{number(cell['mde'])} ({_count(cell['answers'])})" for cell in row))
    return table


def _declared_rows(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    mde = plan["mde"]
    rows = [("primary", "; ".join(f"{metric}, {arm} against {plan['baseline']}" for metric, arm in plan["primary"]))]
    rows = rows if plan["primary"] else [("primary", "none declared")]
    for entry in mde["margins"]:
        shown = "not known" if entry["power"] is None else percent(entry["power"])
        said = f"{entry['metric']}: no worse by more than {entry['margin']:g}; {entry['treatment']} would show it in "
        rows.append(("margin", f"{said}{shown} of runs if nothing changed"))
    foretold = {entry["metric"] for entry in mde["margins"]}
    for metric, margin in plan["margins"].items():
        if metric not in foretold:
            rows.append(("margin", f"{metric}: no worse by more than {margin:g}; the spread that decides is not known"))
    for entry in mde["detect"]:
        said = f"{entry['metric']}, {entry['treatment']}: a difference of {entry['effect']:g} "
        if entry["probes"] is None:
            rows.append(("detect", said + "needs a known spread at this number of repeats"))
        else:
            rows.append(("detect", f"{said}needs {_count(entry['probes'])} probes; this plan sees it in "
                                   f"{percent(entry['power'])} of runs"))  # fmt: skip
    rows += [("exclude", f"{entry['probe_id']}: {entry['reason']}") for entry in plan["exclusions"]]
    return rows


def _range(found: Mapping[str, float], shown: Any) -> str:
    value, low, high = (shown(found[name]) for name in ("value", "low", "high"))
    return str(value) if low == high else f"{value} ({low} to {high})"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def _minutes(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _bytes(size: float) -> str:
    return f"{size / _GIBI:.1f} GiB" if size >= _GIBI else f"{size / _MEBI:.0f} MiB"
