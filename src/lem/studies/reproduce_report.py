"""The published table beside ours: one row per published figure and per contrast of ours, as JSON and as markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lem.data.published_figures import DIFFERENCE, PublishedFigure
from lem.errors import DataError
from lem.paths import display_path
from lem.records import write_atomic
from lem.reports.formats import ABSENT, number, toy_notice

SCHEMA = 1
MEAN = "mean"


@dataclass(frozen=True)
class Beside:
    """One row: a published figure, ours with its interval, or both.

    `value`, `low` and `high` are ours in the unit of the metric (shares for percentages) and None where there is
    nothing of ours; `published` is the figure as it was published, "" where there is none. With `percent` the shares
    are shown as percentages. `judge` rated it ("" for a score by rule), `mark` is the word that must stand beside its
    ratings, and `absent` what stands in place of a value that is not there ("": it was not run).
    """

    model: str
    arm: str
    metric: str
    quantity: str
    baseline: str
    published: str
    published_n: int | None
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    verdict: str = ""
    percent: bool = False
    judge: str = ""
    mark: str = ""
    absent: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the row is about, whoever measured it."""
        return self.metric, self.quantity, self.arm, self.baseline


def read_comparison(path: Path) -> dict[str, Any]:
    """The object of a `comparison.json`.   Raises: DataError if it is missing or damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found["contrasts"], found["objections"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{display_path(path)}: missing or damaged; make it again with `./lem compare`.") from None
    return found


def against(comparison: Mapping[str, Any]) -> list[str]:
    """What a comparison says against itself: objections and deviations from its plan."""
    return [*(found["sentence"] for found in comparison["objections"]), *comparison["deviations"]]


def rows_of(
    model: str, figures: Sequence[PublishedFigure], comparison: Mapping[str, Any], metrics: Sequence[str],
    names: Mapping[str, str] | None = None,
) -> list[Beside]:  # fmt: skip
    """The published figures of a model in their order, each beside ours, then what we have and nobody published.

    Args:  metrics: which metrics of the comparison to show.  names: our arm -> the published arm (default: the same).
    """
    ours = {row.key: row for row in _ours(model, comparison, metrics, names or {})}
    rows = [_join(figure, model, ours.pop(_key(figure), None)) for figure in figures if figure.metric in metrics]
    rows += [row for row in ours.values() if row.quantity == DIFFERENCE or not figures]
    shares = {figure.metric for figure in figures if figure.shown.endswith("%")}
    return [replace(row, percent=row.metric in shares) for row in rows]


def _key(figure: PublishedFigure) -> tuple[str, str, str, str]:
    return figure.metric, figure.quantity, figure.arm, figure.baseline


def _join(figure: PublishedFigure, model: str, ours: Beside | None) -> Beside:
    return Beside(
        model, figure.arm, figure.metric, figure.quantity, figure.baseline, figure.shown, figure.n,
        *((ours.value, ours.low, ours.high, ours.n, ours.verdict) if ours else (None, None, None, None, "")),
    )  # fmt: skip


def _ours(
    model: str, comparison: Mapping[str, Any], metrics: Sequence[str], names: Mapping[str, str]
) -> Iterator[Beside]:
    """The mean of every arm once, and every contrast that was not refused."""
    seen: set[tuple[str, str]] = set()
    for row in comparison["contrasts"]:
        if row["metric"] not in metrics or row["verdict"]["code"] == "refused":
            continue
        for arm, mean in ((row["baseline"], row["baseline_mean"]), (row["treatment"], row["treatment_mean"])):
            if (row["metric"], arm) not in seen:
                seen.add((row["metric"], arm))
                yield _row(model, names.get(arm, arm), row["metric"], MEAN, "", mean)
        treatment, baseline = (names.get(row[side], row[side]) for side in ("treatment", "baseline"))
        yield _row(
            model, treatment, row["metric"], DIFFERENCE, baseline, row["difference"], str(row["verdict"]["sentence"])
        )


def _row(
    model: str, arm: str, metric: str, quantity: str, baseline: str, estimate: Mapping[str, Any], verdict: str = ""
) -> Beside:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    return Beside(model, arm, metric, quantity, baseline, "", None, value, low, high, estimate["n"], verdict)


@dataclass(frozen=True)
class Page:
    """All that a table says: title and source of the published one, rows, commands, objections, notes, watermarks."""

    table: str
    title: str
    source: str
    rows: tuple[Beside, ...]
    not_run: tuple[str, ...]
    objections: tuple[str, ...]
    notes: tuple[str, ...]
    commands: tuple[str, ...]
    models: tuple[str, ...]
    watermarks: tuple[str, ...] = ()


def write_page(page: Page, folder: Path) -> tuple[Path, Path]:
    """Write `table.md` and `table.json`; returns both paths."""
    markdown, data = folder / "table.md", folder / "table.json"
    document = {"schema": SCHEMA, "kind": "reproduction", "toy": toy_notice(page.models), **asdict(page)}
    write_atomic(markdown, as_markdown(page))
    write_atomic(data, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return markdown, data


def as_markdown(page: Page) -> str:
    """The page as markdown: the table, the verdicts, what differs from the published set-up, and the commands."""
    toy = toy_notice(page.models)
    lines = [f"# {page.title}: published and ours", ""]
    lines += [line for said in ([toy] if toy else []) + list(page.watermarks) for line in (f"**{said}**", "")]
    lines += [f"Published: {page.source}. The published figures are quoted as published and have no interval.", ""]
    lines += ["| model | arm | metric | published | ours [95%] | n |", "|---|---|---|---|---|---|"]
    lines += [_line(row) for row in page.rows]
    if page.not_run:
        lines += ["", f"Published and not run here: {', '.join(page.not_run)}."]
    said = [f"- {row.model}: {row.verdict}{_marked(row)}" for row in page.rows if row.verdict]
    lines += ["", "## Verdicts", "", *(said or ["No contrast of ours has one."])]
    lines += ["", "## What differs, and what stands against the figures", ""]
    lines += [f"- {note}" for note in (*page.notes, *page.objections)]
    lines += ["", "## Commands", "", "```", *page.commands, "```", ""]
    return "\n".join(lines)


def _line(row: Beside) -> str:
    arm = f"{row.arm} - {row.baseline}" if row.quantity == DIFFERENCE else row.arm
    published = f"{row.published} (n {row.published_n})" if row.published else ABSENT
    metric = row.metric + (f", judge {row.judge}{_marked(row)}" if row.judge else "")
    cells = [row.model, arm, metric, published, _value(row), ABSENT if row.n is None else str(row.n)]
    return "| " + " | ".join(cells) + " |"


def _marked(row: Beside) -> str:
    return f" ({row.mark})" if row.mark else ""


def _value(row: Beside) -> str:
    if row.value is None:
        return row.absent or "not run"
    signed = row.quantity == DIFFERENCE
    factor, digits, unit = (100, 1, " points" if signed else "%") if row.percent else (1, 2, "")
    value, low, high = (
        None if part is None else number(factor * part, digits, signed=signed)
        for part in (row.value, row.low, row.high)
    )
    return f"{value}{unit}" + ("" if low is None or high is None else f" [{low}, {high}]")
