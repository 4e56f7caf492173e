"""Leaderboard and per-domain table in four renderings: terminal (rich, 80 columns), markdown, CSV, JSON.

Each says what its intervals are and, for lem-nano, that the scores say nothing about the method. In CSV these two
sentences are columns, so that the file stays one table.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lem.reports.domains import DomainMean
from lem.reports.formats import (
    ABSENT,
    domain_legend,
    interval,
    legend,
    models_line,
    number,
    percent,
    toy_notice,
)
from lem.reports.leaderboard import LeaderboardRow
from lem.stats import Estimate

_TABLE_SCHEMA = 1


def leaderboards_rich(boards: Sequence[Sequence[LeaderboardRow]]) -> RenderableType:
    """Leaderboards of several scorers over the same arms: models above all of them, legend and notices below."""
    parts: list[RenderableType] = []
    for rows in boards:
        parts += [_leaderboard_table(rows), Text("")]
    return _framed(boards[-1], Group(*parts[:-1]), _below(boards[-1]))


def leaderboard_rich(rows: Sequence[LeaderboardRow]) -> RenderableType:
    """The leaderboard for a terminal of 80 columns or more: models above, legend and notices below."""
    return _framed(rows, _leaderboard_table(rows), _below(rows))


def _below(rows: Sequence[LeaderboardRow]) -> str:
    return _legend(rows) + " cut: share stopped by the token limit."


def _leaderboard_table(rows: Sequence[LeaderboardRow]) -> Table:
    against = _baseline(rows)
    table = _rich_table("arm")
    for name in (
        "n",
        "uns/\nfail/\nmiss",
        f"{_scorer(rows)} mean\n[low, high]",
        f"vs {against}\n[low, high]" if against else "delta",
        "up/\ndown/\nsame",
        "cut",
        "words",
    ):
        table.add_column(Text(name), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.arm, "bold") + Text(f"\n{row.note}" if row.note else "", "dim"),
            Text(str(row.n)),
            _counts(row),
            _two_lines(row.mean),
            _delta_lines(row),
            _changes(row),
            percent(row.truncated.value),
            number(row.mean_words, 0),
        )
    return table


def domains_rich(means: Sequence[DomainMean]) -> RenderableType:
    """The per-domain table for a terminal: one line per domain and arm."""
    table = _rich_table("domain", "arm")
    for name in ("n", f"{_scorer(means)} mean", "[low, high]"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    previous = None
    for mean in means:
        if previous is not None and mean.domain != previous:
            table.add_section()
        shown = mean.domain if mean.domain != previous else ""
        cells = (shown, mean.arm, str(mean.n), number(mean.mean.value), interval(mean.mean))
        table.add_row(*(Text(cell) for cell in cells))  # Text, because rich reads brackets in plain strings as markup
        previous = mean.domain
    return _framed(means, table, domain_legend(_variants(means)))


def leaderboard_markdown(rows: Sequence[LeaderboardRow]) -> str:
    """The leaderboard as a markdown table with the legend and notices as lines around it."""
    against = _baseline(rows)
    head = ["arm", "model", "n", "unscored", "failed", "missing", f"{_scorer(rows)} mean", "[low, high]",
            f"delta to {against}" if against else "delta", "[low, high]",
            "improved", "regressed", "unchanged", "truncated", "words"]  # fmt: skip
    body = []
    for row in rows:
        delta, change = _delta(row), row.delta
        body.append([
            f"{row.arm} ({row.note})" if row.note else row.arm, row.model, row.n,
            row.n_unscored, row.n_failed, row.n_missing,
            number(row.mean.value), interval(row.mean),
            number(delta.value, signed=True) if delta else ABSENT,
            interval(delta, signed=True) if delta else ABSENT,
            change.improved if change else ABSENT, change.regressed if change else ABSENT,
            change.unchanged if change else ABSENT,
            percent(row.truncated.value), number(row.mean_words, 0),
        ])  # fmt: skip
    return _markdown(head, body, n_text=2, rows=rows, below=_legend(rows))


def domains_markdown(means: Sequence[DomainMean]) -> str:
    """The per-domain table as markdown, one line per domain and arm."""
    head = ["domain", "arm", "n", f"{_scorer(means)} mean", "[low, high]"]
    body = [[mean.domain, mean.arm, mean.n, number(mean.mean.value), interval(mean.mean)] for mean in means]
    return _markdown(head, body, n_text=2, rows=means, below=domain_legend(_variants(means)))


def leaderboard_csv(rows: Sequence[LeaderboardRow]) -> str:
    """The leaderboard as CSV at full precision; an empty field is a value that does not exist."""
    return _csv([_flat(row) for row in rows], _legend(rows))


def domains_csv(means: Sequence[DomainMean]) -> str:
    """The per-domain table as CSV at full precision."""
    return _csv([_flat(mean) for mean in means], domain_legend(_variants(means)))


def leaderboard_json(rows: Sequence[LeaderboardRow]) -> str:
    """The leaderboard as one JSON object; estimates are objects, NaN is null."""
    return _json(rows, "leaderboard", _legend(rows))


def domains_json(means: Sequence[DomainMean]) -> str:
    """The per-domain table as one JSON object; estimates are objects, NaN is null."""
    return _json(means, "domains", domain_legend(_variants(means)))


def plain(value: Any) -> Any:
    """Turn dataclasses into dicts and NaN into None, all the way down, for strict JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def _rich_table(*text_columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, header_style="bold")
    for name in text_columns:
        table.add_column(name, overflow="fold")
    return table


def _framed(rows: Sequence[LeaderboardRow] | Sequence[DomainMean], table: RenderableType, below: str) -> Group:
    parts: list[RenderableType] = [Text(models_line((row.arm, row.model) for row in rows), "dim"), table]
    parts.append(Text(below, "dim"))
    notice = toy_notice(row.model for row in rows)
    if notice:
        parts.append(Text(notice, "yellow"))
    return Group(*parts)


def _two_lines(estimate: Estimate, *, signed: bool = False, style: str = "") -> Text:
    value = Text(number(estimate.value, signed=signed), style)
    return value + Text("\n" + interval(estimate, signed=signed), "dim")


def _delta_lines(row: LeaderboardRow) -> Text:
    delta = _delta(row)
    if delta is None:
        return Text(ABSENT)
    style = ""
    if delta.excludes(0.0):
        style = "bold green" if delta.value > 0 else "bold red"
    return _two_lines(delta, signed=True, style=style)


def _delta(row: LeaderboardRow) -> Estimate | None:
    return row.delta.difference if row.delta else None


def _counts(row: LeaderboardRow) -> Text:
    troubled = row.n_unscored + row.n_failed + row.n_missing > 0
    return Text(f"{row.n_unscored}/{row.n_failed}/{row.n_missing}", "yellow" if troubled else "")


def _changes(row: LeaderboardRow) -> str:
    if row.delta is None:
        return ABSENT
    return f"{row.delta.improved}/{row.delta.regressed}/{row.delta.unchanged}"


def _baseline(rows: Sequence[LeaderboardRow]) -> str | None:
    return next((row.baseline for row in rows if row.baseline), None)


def _threshold(rows: Sequence[LeaderboardRow]) -> float:
    return rows[0].threshold if rows else 0.5


def _legend(rows: Sequence[LeaderboardRow]) -> str:
    return legend(_threshold(rows), _variants(rows))


def _variants(rows: Sequence[LeaderboardRow] | Sequence[DomainMean]) -> str:
    return rows[0].variants if rows else ""


def _scorer(rows: Sequence[LeaderboardRow] | Sequence[DomainMean]) -> str:
    return (rows[0].scorer if rows else "") or "score"


def _markdown(
    head: Sequence[str],
    body: Sequence[Sequence[Any]],
    *,
    n_text: int,
    rows: Sequence[LeaderboardRow] | Sequence[DomainMean],
    below: str,
) -> str:
    rule = ["---"] * n_text + ["---:"] * (len(head) - n_text)
    lines = [f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in (head, rule, *body)]
    notice = toy_notice(row.model for row in rows)
    return "\n".join([*lines, "", below, *(["", f"**{notice}**"] if notice else [])]) + "\n"


def _escaped(cell: Any) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")


def _flat(row: LeaderboardRow | DomainMean) -> dict[str, Any]:
    """One level of columns: `mean`, `mean_low`, `mean_high`, ... for each estimate; the counts of a comparison."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if field.name == "delta":
            flat |= _flat_estimate("delta", value.difference if value else None)
            for count in ("improved", "regressed", "unchanged", "n_missing"):
                column = "delta_n_missing" if count == "n_missing" else count
                flat[column] = getattr(value, count) if value else None
        elif isinstance(value, Estimate):
            flat |= _flat_estimate(field.name, value)
        else:
            flat[field.name] = value
    return flat


def _flat_estimate(name: str, estimate: Estimate | None) -> dict[str, Any]:
    parts = ("stderr", "low", "high", "n", "method")
    value = {name: estimate.value if estimate else None}
    return value | {f"{name}_{part}": getattr(estimate, part) if estimate else None for part in parts}


def _csv(flats: Sequence[dict[str, Any]], below: str) -> str:
    notice = toy_notice(str(flat["model"]) for flat in flats) or ""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*(flats[0] if flats else ["arm"]), "legend", "notice"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**plain(flat), "legend": below, "notice": notice} for flat in flats)
    return out.getvalue()


def _json(rows: Sequence[LeaderboardRow] | Sequence[DomainMean], kind: str, below: str) -> str:
    payload = {
        "schema": _TABLE_SCHEMA,
        "table": kind,
        "legend": below,
        "notice": toy_notice(row.model for row in rows),
        "rows": plain(list(rows)),
    }
    return json.dumps(payload, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
