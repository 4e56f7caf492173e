"""A comparison for the terminal and for markdown, read from the object of `comparison.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lem.reports.formats import ABSENT, number, percent

Row = Mapping[str, Any]
DETAILED = 3  # as many contrasts or fewer are shown with everything behind them


def comparison_rich(document: Row, *, details: bool | None = None) -> RenderableType:
    """Objections first, then the arms, one table per metric, the verdict sentences, and what is behind them.

    Args:  details: show every estimate and test and the probes that moved most; default: for three contrasts or less.
    """
    shown = len(document["contrasts"]) <= DETAILED if details is None else details
    parts: list[RenderableType] = [*_objections(document), _arms(document)]
    for rows in by_metric(document).values():
        parts += [Text(), _metric(rows, document["baseline"]), *_counts(rows)]
    parts += [Text(), *_verdicts(document)]
    if shown:
        for row in document["contrasts"]:
            if row["verdict"]["code"] != "refused":
                parts += [Text(), _details(row), *_movers(row)]
    return Group(*parts, Text(), Text(_legend(document), style="dim"))


def by_metric(document: Row) -> dict[str, list[Row]]:
    """The contrasts of each metric, in the order of the file."""
    found: dict[str, list[Row]] = {}
    for row in document["contrasts"]:
        found.setdefault(row["metric"], []).append(row)
    return found


def _objections(document: Row) -> Iterator[RenderableType]:
    for objection in document["objections"]:
        refused = objection["severity"] == "refusal" and not objection["overridden"]
        word, style = ("cannot be compared", "bold red") if refused else ("note", "yellow")
        yield Text.assemble((f"{word}: ", style), objection["sentence"])
    for probe_id, reason in ((document["declared"] or {}).get("exclusions") or {}).items():
        yield Text.assemble(("left out as planned: ", "yellow"), f"{probe_id}: {reason}")
    for sentence in document["deviations"]:
        yield Text.assemble(("deviation from the plan: ", "yellow"), sentence)


def _arms(document: Row) -> Table:
    table = Table(title="arms", title_justify="left", box=None, pad_edge=False)
    for name in ("arm", "role"):
        table.add_column(name, overflow="fold")
    for name in ("answers", "failed", "missing", "cut", "repetitive", "words"):
        table.add_column(name, justify="right")
    for arm in document["arms"]:
        table.add_row(
            Text(arm["name"]), arm["role"], str(arm["answered"]), str(arm["failed"]), str(arm["missing"]),
            _share(arm["truncated"]), _share(arm["degenerate"]), number(arm["mean_words"]["value"], 0),
        )  # fmt: skip
    return table


def _share(estimate: Row) -> str:
    return ABSENT if estimate["value"] is None else percent(estimate["value"])


def _metric(rows: Sequence[Row], baseline: str) -> Table:
    first = rows[0]
    judged = "" if first["source"] == "scorer" else f", judge {first['source']}"
    title = f"{first['metric']} ({first['kind']}{judged}{', ' + first['version'] if first['version'] else ''})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(f"against {baseline}", overflow="fold", min_width=10)
    for name in ("n", "difference [95%]", "BCa [95%]", "p", "corrected"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        refused = row["verdict"]["code"] == "refused"
        cells = [ABSENT] * 4
        if not refused:
            cells = [_estimate(row["difference"]), _interval(row["bca"]), _p(row["p"]), _p(row["p_adjusted"])]
        against = "" if row["baseline"] == baseline else f" against {row['baseline']}"
        table.add_row(Text(row["treatment"] + against), str(row["n"]), *cells)
    return table


def _counts(rows: Sequence[Row]) -> Iterator[Text]:
    counts = {arm: found for row in rows for arm, found in row["counts"].items()}
    shown = []
    for arm, found in counts.items():
        lost = [f"{found[name]} {name}" for name in ("wrong", "unscored", "failed", "missing") if found[name]]
        shown.append(f"{arm} {found['scored']} scored{''.join(', ' + text for text in lost)}")
    yield Text("; ".join(shown), style="dim")


def _verdicts(document: Row) -> Iterator[RenderableType]:
    styles = {"improved": "green", "worse": "red", "refused": "bold red"}
    yield Text("verdicts", style="italic")
    for row in document["contrasts"]:
        verdict = row["verdict"]
        yield Text("- " + verdict["sentence"], style=styles.get(verdict["code"], ""))


def detail_lines(row: Row) -> list[tuple[str, str]]:
    """Every number behind one contrast, as (what it is, how it is written)."""
    lines = [
        (f"mean of {row['baseline']}", _estimate(row["baseline_mean"], signed=False)),
        (f"mean of {row['treatment']}", _estimate(row["treatment_mean"], signed=False)),
        ("difference, headline interval", f"{_estimate(row['difference'])}, {row['difference']['method']}"),
        ("BCa bootstrap over probes", _estimate(row["bca"])),
        ("cluster-robust t over domains", _clustered(row)),
        ("these probes only (repeats)", _optional(row["fixed_set"], "needs two repeats")),
        ("sign-flip permutation", _test(row["sign_flip"])),
        ("cluster-robust t test", _test(row["cluster_t"])),
        ("McNemar, exact", _test(row["mcnemar"])),
        ("Wilcoxon signed rank", _test(row["wilcoxon"])),
        ("Cliff's delta", _optional(row["cliffs_delta"])),
        ("p, Holm, Benjamini-Hochberg", f"{_p(row['p'])}, {_p(row['p_holm'])}, {_p(row['p_bh'])}"),
        ("at equal length", _optional(row["length_controlled"])),
        ("per word of difference", _optional(row["length_slope"], digits=4)),
        ("design effect of domains", number(row["design_effect"])),
        ("would have been seen (80%)", number(row["mde"])),
        ("non-inferiority", _margin(row["non_inferiority"])),
        ("equivalence", _margin(row["equivalence"])),
        ("if all unscored were worst, best", _bounds(row["bounds"])),
        ("improved, regressed, unchanged", f"{row['improved']}, {row['regressed']}, {row['unchanged']} probes"),
        ("only one arm has a value", f"{row['n_missing']} probes"),
    ]
    return [(label, value) for label, value in lines if value != ABSENT]


def _details(row: Row) -> Table:
    title = f"{row['metric']}: {row['treatment']} - {row['baseline']}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for label, value in detail_lines(row):
        table.add_row(label, value)
    return table


def _movers(row: Row) -> Iterator[RenderableType]:
    for title, changes in (("best", row["best"]), ("worst", row["worst"])):
        listed = ", ".join(f"{change['probe_id']} {number(change['difference'], signed=True)}" for change in changes)
        yield Text.assemble((f"{title} probes: ", "italic"), listed or "none")


def _estimate(estimate: Row, *, signed: bool = True, digits: int = 2) -> str:
    return f"{number(estimate['value'], digits, signed=signed)} {_interval(estimate, signed=signed, digits=digits)}"


def _interval(estimate: Row, *, signed: bool = True, digits: int = 2) -> str:
    if estimate["low"] is None or estimate["high"] is None:
        return "no interval"
    low, high = (number(estimate[end], digits, signed=signed) for end in ("low", "high"))
    return f"[{low}, {high}]"


def _optional(estimate: Row | None, absent: str = ABSENT, *, digits: int = 2) -> str:
    return absent if estimate is None or estimate["value"] is None else _estimate(estimate, digits=digits)


def _clustered(row: Row) -> str:
    cluster = row["cluster"]
    return ABSENT if cluster is None else f"{_estimate(cluster)}, {cluster['n_clusters']} domains"


def _p(value: float | None) -> str:
    return ABSENT if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _test(test: Row | None) -> str:
    if test is None or test["p"] is None:
        return ABSENT
    return f"p {_p(test['p'])}{' (exact)' if test['exact'] else ''}{', ' + test['note'] if test['note'] else ''}"


def _margin(test: Row | None) -> str:
    if test is None:
        return ABSENT
    passed = "shown" if test["passed"] else "not shown"
    return f"margin {test['margin']:g}: {passed}, p {_p(test['p'])}"


def _bounds(bounds: Sequence[float | None] | None) -> str:
    return ABSENT if bounds is None else ", ".join(number(value, signed=True) for value in bounds)


def _legend(document: Row) -> str:
    tests = {row["family"]: row["n_tests"] for row in document["contrasts"]}
    methods = {
        "primary": "Holm over {} primary contrasts",
        "exploratory": "Benjamini-Hochberg over {} exploratory ones",
    }
    families = [methods[family].format(count) for family, count in sorted(tests.items(), reverse=True)]
    declared = "" if document["declared"] else " Nothing was declared beforehand, so every contrast counts as primary."
    return (
        "difference: treatment - baseline, one per probe, with the headline interval (the span of t, BCa and "
        "bootstrap-t over probes and cluster-robust t over domains); "
        f"corrected: {' and '.join(families) or 'nothing tested'}.{declared} docs/METHODS.md explains every number."
    )
