"""`lem report`: one self-contained HTML page for each run."""

from __future__ import annotations

from pathlib import Path

import click

from lem.cli.options import existing_path
from lem.errors import UserError
from lem.paths import display_path


@click.command("report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--output", metavar="FILE", help="Page of a single run.  [default: report.html in the run]")
@click.option(
    "--baseline", metavar="ARM", help="Arm that the others are paired with.  [default: base, if there is one]"
)
def report(runs: tuple[str, ...], output: str | None, baseline: str | None) -> None:
    """Write one self-contained HTML page a run: findings, leaderboard, drawings, side-by-side answers, run facts."""
    from lem.benchmarks.plan import KIND
    from lem.benchmarks.scoring import score_benchmarks
    from lem.config import load_config
    from lem.judges.pairwise.results import write_pair_results
    from lem.records import read_run
    from lem.reports.page import write_report
    from lem.scorers.highlight import highlights
    from lem.scorers.passes import score_run
    from lem.scorers.table import SCORERS

    if output and len(runs) > 1:
        raise UserError("--output names the page of one run; leave it out to write each page into its run.")
    threshold = load_config().scoring.delta
    for path in [existing_path(run) for run in runs]:
        info, _ = read_run(path)
        if info.kind == KIND:  # answers to benchmarks are scored by their own rules
            score_benchmarks(path)
        else:
            missing = [name for name in SCORERS if not (path / "scores" / f"{name}.jsonl").exists()]
            score_run(path, missing)
        if any((path / "judgements").glob("*.pairs.json")):  # answers may have been made anew since they were written
            write_pair_results(path)
        _renew_comparison(path, baseline)
        page = write_report(
            path, existing_path(output) if output else None, baseline=baseline, threshold=threshold,
            highlights=highlights(),
        )  # fmt: skip
        click.echo(f"report: {display_path(page)}")


def _renew_comparison(run: Path, baseline: str | None) -> None:
    """Make the comparison that the page draws, unless one stands there that is newer than what it compares.

    A run that cannot be compared (one arm, an arm without answers) gets a page without findings, and the reason.
    """
    from lem.ab.comparison_file import COMPARISON_NAME
    from lem.cli.compare import make_comparison
    from lem.records import read_contents

    found = run / COMPARISON_NAME
    sources = [run / "records.jsonl", *run.glob("scores/*.jsonl"), *run.glob("judgements/*.jsonl")]
    newest = max(file.stat().st_mtime for file in sources if file.exists())
    if baseline is None and found.exists() and found.stat().st_mtime >= newest:
        return
    try:
        make_comparison([(run.name, read_contents(run))], [run], found, baseline=baseline)
    except UserError as error:
        click.echo(f"no comparison on the page: {error}", err=True)
