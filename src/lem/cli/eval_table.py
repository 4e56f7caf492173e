"""The table of a benchmark run on the terminal or as JSON."""

from __future__ import annotations

from pathlib import Path


def print_table(run: Path, form: str, *, judged_only: bool = False) -> None:
    """Print one row per metric and arm, judged metrics alone if asked; `form` is table, json, csv or markdown."""
    import click
    from rich.console import Console

    from lem.records.contents import read_contents
    from lem.reports import benchmark_table as tables

    contents = read_contents(run)
    only = {one.judge for one in contents.judgements} if judged_only else None
    rows = tables.benchmark_table(contents, contents.judges, only=only)
    if form == "table":
        Console().print(tables.benchmark_rich(rows))
        return
    written = {"json": tables.benchmark_json, "csv": tables.benchmark_csv, "markdown": tables.benchmark_markdown}
    click.echo(written[form](rows))
