"""`lem report`: one self-contained HTML page for a run."""

from __future__ import annotations

import click

from lem.cli.options import existing_path
from lem.paths import display_path


@click.command("report")
@click.argument("run", metavar="RUN")
@click.option("--output", metavar="FILE", help="Where the page goes.  [default: report.html in the run]")
@click.option(
    "--baseline", metavar="ARM", help="Arm that the others are paired with.  [default: base, if there is one]"
)
def report(run: str, output: str | None, baseline: str | None) -> None:
    """Write one self-contained HTML page: leaderboard, domains, side-by-side answers, run facts."""
    from lem.config import load_config
    from lem.records import read_run
    from lem.reports.page import write_report
    from lem.scorers.passes import score_run
    from lem.scorers.table import SCORERS

    path = existing_path(run)
    read_run(path)
    missing = [name for name in SCORERS if not (path / "scores" / f"{name}.jsonl").exists()]
    score_run(path, missing)
    threshold = load_config().scoring.delta
    page = write_report(path, existing_path(output) if output else None, baseline=baseline, threshold=threshold)
    click.echo(f"report: {display_path(page)}")
