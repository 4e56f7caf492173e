"""`lem score`: score runs and answer files, print leaderboards, audit the scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import existing_path
from lem.errors import UserError
from lem.paths import display_path

if TYPE_CHECKING:
    from lem.records import Record, RunInfo, Score
    from lem.reports import LeaderboardRow
    from lem.scorers.audit import ScorerAudit
    from lem.stats import Estimate

FORMATS = ("table", "json", "csv", "markdown")


@dataclass(frozen=True)
class Scored:
    """One input with its records and its scores by scorer."""

    title: str
    info: RunInfo
    records: Sequence[Record]
    scores: dict[str, list[Score]]
    notes: tuple[str, ...] = ()


@click.command("score")
@click.option("--input", "inputs", multiple=True, metavar="FILE_OR_RUN", help="What to score; repeatable.")
@click.argument("more", nargs=-1, metavar="[FILE_OR_RUN]...")
@click.option("--scorer", "scorers", multiple=True, help="Scorer; repeatable.  [default: v2, v3 and v1]")
@click.option(
    "--baseline", metavar="ARM", help="Arm that the others are paired with.  [default: base, if there is one]"
)
@click.option("--domains", is_flag=True, help="Add the table per domain (of the first scorer).")
@click.option("--audit", "with_audit", is_flag=True, help="Audit the scorers: length, padding, bullets, halo opening.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--markdown", "form", flag_value="markdown", help="Print markdown.")
def score(
    inputs: tuple[str, ...], more: tuple[str, ...], scorers: tuple[str, ...], baseline: str | None, domains: bool,
    with_audit: bool, form: str | None,
) -> None:  # fmt: skip
    """Score runs, published A/B files, benchmark results or {id, response} rows, and print the leaderboard.

    In a run directory the scores are written to scores/<scorer>.jsonl; other files are left as they are.
    """
    from lem.config import load_config

    paths = [existing_path(text) for text in (*inputs, *more)]
    if not paths:
        raise UserError("nothing to score; give --input RUN or --input FILE.jsonl.")
    config = load_config()
    form = form or config.scoring.format
    if with_audit and form in ("csv", "markdown"):
        raise UserError(f"--audit cannot be printed as {form}; use it with the table or with --json.")
    if form not in FORMATS:
        raise UserError(f"scoring.format in lem.config.json is '{form}'; use one of {', '.join(FORMATS)}.")
    names = list(dict.fromkeys(scorers)) or ["v2", "v3", "v1"]
    scored = score_inputs(paths, names)
    boards = [leaderboards(item, baseline, config.scoring.delta) for item in scored]
    if form == "json":
        _print_json(scored, boards, domains, with_audit)
        return
    for item, rows in zip(scored, boards, strict=True):
        _print(item, rows, form, domains)
        if with_audit:
            print_audits(audits(item))


def score_inputs(paths: Sequence[Path], names: Sequence[str]) -> list[Scored]:
    """Score every input: runs in place, files in memory, result files of one benchmark as one table."""
    from lem.interop import merge_by_benchmark, read_answers_file
    from lem.records import read_run
    from lem.scorers.passes import score_records, score_run

    scored, files = [], []
    for path in paths:
        if (path / "run.json").is_file():
            info, records = read_run(path)
            scored.append(Scored(display_path(path), info, records, score_run(path, names)))
        else:
            files.append(read_answers_file(path))
    for imported in merge_by_benchmark(files):
        scores = {name: score_records(imported.records, name) for name in names}
        title = imported.info.run_id
        scored.append(Scored(title, imported.info, imported.records, scores, tuple(imported.notes)))
    return scored


def leaderboards(item: Scored, baseline: str | None, threshold: float) -> dict[str, list[LeaderboardRow]]:
    """One leaderboard per scorer."""
    from lem.reports import leaderboard

    return {
        name: leaderboard(item.info, item.records, scores, baseline=baseline, threshold=threshold)
        for name, scores in item.scores.items()
    }


def _print(item: Scored, boards: dict[str, list[LeaderboardRow]], form: str, domains: bool) -> None:
    from rich.console import Console

    from lem.reports import domain_means, tables

    first = next(iter(item.scores))
    means = domain_means(item.info, item.records, item.scores[first]) if domains else []
    if form == "csv":
        for name in boards:
            click.echo(tables.leaderboard_csv(boards[name]))
        if means:
            click.echo(tables.domains_csv(means))
        return
    if form == "markdown":
        click.echo(f"## {item.title}\n")
        for name in boards:
            click.echo(tables.leaderboard_markdown(boards[name]) + "\n")
        if means:
            click.echo(tables.domains_markdown(means))
        return
    console = Console(highlight=False)
    console.rule(item.title, align="left", style="dim")
    for note in item.notes:
        console.print(f"note: {note}", markup=False)
    console.print(tables.leaderboards_rich(list(boards.values())))
    if means:
        console.print(tables.domains_rich(means))


def _print_json(
    scored: Sequence[Scored], boards: Sequence[dict[str, list[LeaderboardRow]]], domains: bool, with_audit: bool
) -> None:
    from lem.cli.options import print_json
    from lem.reports import domain_means
    from lem.reports.tables import plain

    out: list[dict[str, Any]] = []
    for item, rows in zip(scored, boards, strict=True):
        entry: dict[str, Any] = {"input": item.title, "notes": list(item.notes), "leaderboards": plain(rows)}
        if domains:
            entry["domains"] = {n: plain(domain_means(item.info, item.records, s)) for n, s in item.scores.items()}
        if with_audit:
            entry["audit"] = plain(audits(item))
        out.append(entry)
    print_json(out)


def audits(item: Scored) -> dict[str, ScorerAudit]:
    """Audit the scorers on all answers of one input."""
    from lem.scorers.audit import audit

    domain = {probe["id"]: probe["domain"] for probe in item.info.probes}
    texts, clusters = {}, {}
    for record in item.records:
        if record.response:
            name = "/".join(map(str, record.key))
            texts[name] = record.response
            clusters[name] = domain.get(record.probe_id, record.probe_id)
    return audit(texts, list(item.scores), clusters)


def print_audits(found: dict[str, ScorerAudit]) -> None:
    """Print the audit as a table: what each scorer pays for besides content."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lem.reports.formats import interval, number

    table = Table(
        title="scorer audit: what is rewarded besides content", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("")
    for name, entry in found.items():
        table.add_column(f"{name} (n {entry.n - entry.n_unscored})", justify="right")
    rows: tuple[tuple[str, Callable[[ScorerAudit], Estimate]], ...] = (
        ("rank correlation with characters", lambda e: e.length_characters),
        ("rank correlation with words", lambda e: e.length_words),
        ("padded: change of the mean", lambda e: e.padded.difference),
        ("bulleted", lambda e: e.bulleted.difference),
        ("opened as an ethical assistant", lambda e: e.opened.difference),
    )
    for label, pick in rows:
        estimates = [pick(entry) for entry in found.values()]
        table.add_row(label, *(Text(f"{number(e.value, signed=True)} {interval(e)}") for e in estimates))
    console = Console(highlight=False)
    console.print(table)
    console.print("A good scorer shows no gain when the same answers are padded, bulleted or opened so.", style="dim")
