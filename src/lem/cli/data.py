"""`lem data`: checks on training data."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("data")
def data_group() -> None:
    """Check training data."""


@data_group.command("check")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--seeds", multiple=True, type=click.Path(path_type=Path), metavar="PATH",
    help="Probe file or folder of them; repeatable. Default: the configured seeds folder.",
)  # fmt: skip
@click.option(
    "--corpus", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="Text or JSONL that must share no eight words in a row with training, probes or kernels; repeatable.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def check(directory: Path | None, seeds: tuple[Path, ...], corpus: tuple[Path, ...], as_json: bool) -> None:
    """Check the chat files below DIR (default: the training folder).

    Looks for bad lines, copies and near-copies, prompts shared between splits, and words of evaluation probes.
    Exit status: 0 clean, 1 something was found, 2 a path or a probe file is wrong.
    """
    import json

    from lem.config import load_config
    from lem.data.check import check_data
    from lem.data.check_report import render_report
    from lem.errors import CheckFailed

    config = load_config()
    kernels = sorted(path for path in Path(config.kernel_dir).glob("*") if path.suffix in (".json", ".txt"))
    report = check_data(directory or Path(config.training_dir), seeds or (Path(config.seeds_dir),), corpus, kernels)
    click.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=2) if as_json else render_report(report))
    if not report.clean:
        errors = sum(finding.severity == "error" for finding in report.findings)
        raise CheckFailed(f"{report.directory}: the data check found {errors} error(s), listed above.")
