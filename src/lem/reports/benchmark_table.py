"""The table of a benchmark run in four renderings: terminal (rich, 80 columns), markdown, CSV, JSON.

Each carries its watermarks, its flags and what its intervals are; in CSV these are columns, so that the file stays one
table. Percentages are percent on the terminal and in markdown, and shares from 0 to 1 in CSV and JSON.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lem.reports.benchmark_rows import BenchmarkRow, benchmark_table
from lem.reports.formats import ABSENT, INTERVALS, models_line, percent, toy_notice
from lem.reports.tables import plain
from lem.reports.watermarks import sentences_of, words_of
from lem.stats import Estimate

__all__ = [
    "LEGEND",
    "BenchmarkRow",
    "benchmark_csv",
    "benchmark_json",
    "benchmark_markdown",
    "benchmark_rich",
    "benchmark_table",
]

_TABLE_SCHEMA = 1
LEGEND = (
    f"{INTERVALS}; of right or wrong answers Clopper-Pearson and CR2 t. n counts probes with a value (repeats "
    "averaged), w/u/f/m wrong, unscored, failed and missing answers: only wrong ones are part of a mean. Under a mean: "
    "worst .. best, where it would lie if every unscored answer had the worse or the better end of the scale. "
    "cut: share stopped by the token limit."
)


def benchmark_rich(rows: Sequence[BenchmarkRow]) -> RenderableType:
    """The table for a terminal of 80 columns or more: watermarks first, then one table per metric, the legend last."""
    if not rows:
        return Text("Nothing is scored or judged yet.")
    parts: list[RenderableType] = [Text(mark, "bold red") for mark in all_watermarks(rows)]
    parts.append(Text(models_line(dict.fromkeys((row.arm, row.model) for row in rows)), "dim"))
    for of_metric in by_metric(rows):
        parts += [Text(), Text(title(of_metric[0]), "bold"), _table(of_metric)]
        parts += [Text(sentence, "dim") for sentence in unscored_sentences(of_metric)]
        parts += [Text(sentence, "yellow") for sentence in uneven_sentences(of_metric)]
    parts += [Text(), Text(LEGEND, "dim")]
    notice = toy_notice(row.model for row in rows)
    return Group(*parts, *([Text(notice, "yellow")] if notice else []))


def by_metric(rows: Sequence[BenchmarkRow]) -> list[list[BenchmarkRow]]:
    """The rows of each metric, in order."""
    found: dict[tuple[str, str], list[BenchmarkRow]] = {}
    for row in rows:
        found.setdefault((row.metric, row.source), []).append(row)
    return list(found.values())


def all_watermarks(rows: Sequence[BenchmarkRow]) -> list[str]:
    """Every watermark of the rows, once."""
    return sentences_of(mark for row in rows for mark in row.watermarks)


def title(row: BenchmarkRow) -> str:
    """What a metric is: its name, its benchmark, its unit, who judged, and in which direction it is better."""
    facts = [
        f"on {row.benchmark}" if row.benchmark and row.benchmark not in row.metric else "",
        "% right" if row.unit.graded else row.unit.name,
        row.unit.note,
        "less is better" if row.unit.lower_is_better else "",
        words_of(row.watermarks).strip() if row.source == "scorer" else f"judge {row.source}{words_of(row.watermarks)}",
    ]
    return ", ".join([row.metric, *(fact for fact in facts if fact)])


def unscored_sentences(rows: Sequence[BenchmarkRow]) -> Iterator[str]:
    """Why answers of a metric are unscored, arm by arm; nothing when none is."""
    told = [f"{row.arm} {_reasons(row)}" for row in rows if row.n_unscored]
    if told:
        yield f"unscored: {'; '.join(told)}"


def uneven_sentences(rows: Sequence[BenchmarkRow]) -> Iterator[str]:
    """The flag on a metric whose arms are unscored at different rates."""
    if any(row.uneven for row in rows):
        rates = ", ".join(f"{row.arm} {percent(row.unscored_rate)}" for row in rows if row.unscored_rate >= 0)
        yield f"flagged: unscored rates differ by more than 2 percentage points between arms ({rates})"


def benchmark_markdown(rows: Sequence[BenchmarkRow]) -> str:
    """The table as markdown, watermarks above, flags, legend and notice below."""
    head = ["metric", "unit", "judge", "arm", "n", "mean", "[low, high]", "worst", "best", "delta", "[low, high]",
            "against", "wrong", "unscored", "failed", "missing", "cut"]  # fmt: skip
    rule = ["---"] * 4 + ["---:"] * (len(head) - 4)
    lines = [_markdown_line(line) for line in (head, rule, *map(_markdown_cells, rows))]
    above = [f"**{mark}**" for mark in all_watermarks(rows)]
    below = [
        f"{title(found[0])}: {sentence}."
        for found in by_metric(rows)
        for sentence in (*unscored_sentences(found), *uneven_sentences(found))
    ]
    notice = toy_notice(row.model for row in rows)
    parts = [*above, "\n".join(lines), *below, LEGEND, *([f"**{notice}**"] if notice else [])]
    return "\n\n".join(parts) + "\n"


def benchmark_csv(rows: Sequence[BenchmarkRow]) -> str:
    """The table as CSV at full precision; an empty field is a value that does not exist."""
    notice = toy_notice(row.model for row in rows) or ""
    flats = [plain(_flat(row)) | {"legend": LEGEND, "notice": notice} for row in rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(flats[0]) if flats else ["metric", "arm"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flats)
    return out.getvalue()


def benchmark_json(rows: Sequence[BenchmarkRow]) -> str:
    """The table as one JSON object; estimates are objects, NaN is null."""
    payload = {
        "schema": _TABLE_SCHEMA,
        "table": "benchmarks",
        "watermarks": all_watermarks(rows),
        "legend": LEGEND,
        "notice": toy_notice(row.model for row in rows),
        "rows": plain(list(rows)),
    }
    return json.dumps(payload, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table(rows: Sequence[BenchmarkRow]) -> Table:
    against = next((row.baseline for row in rows if row.baseline), None)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, header_style="bold")
    table.add_column("arm", overflow="fold", min_width=8)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("mean [95%]", justify="right", no_wrap=True)
    table.add_column("w/u/f/m", justify="right", no_wrap=True)
    table.add_column(Text(f"vs {against} [95%]" if against else "delta"), justify="right", overflow="fold")
    table.add_column("cut", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.arm), str(row.n), _mean(row), _counts(row), _delta(row), percent(row.truncated.value)
        )  # fmt: skip
    return table


def _mean(row: BenchmarkRow) -> Text:
    text = Text(f"{row.unit.shown(row.mean.value)} ") + Text(row.unit.interval(row.mean), "dim")
    if row.worst is not None:
        text += Text(f"\n{row.unit.shown(row.worst)} .. {row.unit.shown(row.best)}", "yellow")
    return text


def _counts(row: BenchmarkRow) -> Text:
    wrong = ABSENT if row.n_wrong is None else row.n_wrong
    lost = row.n_unscored + row.n_failed + row.n_missing
    return Text(f"{wrong}/{row.n_unscored}/{row.n_failed}/{row.n_missing}", "yellow" if lost else "")


def _delta(row: BenchmarkRow) -> Text:
    if row.delta is None:
        return Text(ABSENT)
    style = ""
    if row.delta.excludes(0.0):
        style = "bold green" if (row.delta.value > 0) != row.unit.lower_is_better else "bold red"
    return Text(f"{row.unit.shown(row.delta.value, signed=True)} ", style) + Text(
        row.unit.interval(row.delta, signed=True), "dim"
    )


def _reasons(row: BenchmarkRow) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(row.reasons.items()))


def _markdown_cells(row: BenchmarkRow) -> list[Any]:
    unit, delta = row.unit, row.delta
    change = [unit.shown(delta.value, signed=True), unit.interval(delta, signed=True)] if delta else [ABSENT, ABSENT]
    return [
        row.metric, unit.name, "" if row.source == "scorer" else row.source, row.arm, row.n,
        unit.shown(row.mean.value), unit.interval(row.mean), unit.shown(row.worst), unit.shown(row.best),
        *change, row.baseline or ABSENT, ABSENT if row.n_wrong is None else row.n_wrong, row.n_unscored, row.n_failed,
        row.n_missing, percent(row.truncated.value),
    ]  # fmt: skip


def _markdown_line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _flat(row: BenchmarkRow) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if field.name in ("mean", "delta", "truncated"):
            flat |= _flat_estimate(field.name, value)
        elif field.name == "unit":
            flat |= {"unit": value.name, "lower_is_better": value.lower_is_better}
        elif field.name == "reasons":
            flat["unscored_reasons"] = _reasons(row)
        else:
            flat[field.name] = " ".join(sentences_of(value)) if field.name == "watermarks" else value
    return flat


def _flat_estimate(name: str, estimate: Estimate | None) -> dict[str, Any]:
    parts = ("stderr", "low", "high", "n", "method")
    value = {name: estimate.value if estimate else None}
    return value | {f"{name}_{part}": getattr(estimate, part) if estimate else None for part in parts}
