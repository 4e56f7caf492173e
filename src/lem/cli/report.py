"""`lem report`: one self-contained HTML page for a run."""

from __future__ import annotations

import click

from lem.cli.options import existing_path
from lem.paths import display_path


@click.command("report")
@click.argument("run", metavar="RUN")
@click.option("--output", metavar="FILE", help="Where the page goes.  [default: report.html in the run]")
def report(run: str, output: str | None) -> None:
    """Write one self-contained HTML page: leaderboard, domains, side-by-side answers, run facts."""
    from lem.records import read_run
    from lem.reports.page import write_report
    from lem.scorers.passes import score_run

    path = existing_path(run)
    read_run(path)
    if not (path / "scores" / "v2.jsonl").exists():
        score_run(path, ["v2", "v3"])
    page = write_report(path, existing_path(output) if output else None)
    click.echo(f"report: {display_path(page)}")
