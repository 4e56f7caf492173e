"""`lem data`: checks on training data, and a look at its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import json_option, model_option, print_json
from lem.errors import CheckFailed, UserError

if TYPE_CHECKING:
    from lem.config import Config
    from lem.training.dataset import Sandwich

SHOWN_UNASKED = 3


@click.group("data")
def data_group() -> None:
    """Check training data, and look at its tokens."""


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

    config = load_config()
    kernels = sorted(path for path in Path(config.kernel_dir).glob("*") if path.suffix in (".json", ".txt"))
    report = check_data(directory or Path(config.training_dir), seeds or (Path(config.seeds_dir),), corpus, kernels)
    click.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=2) if as_json else render_report(report))
    if not report.clean:
        errors = sum(finding.severity == "error" for finding in report.findings)
        raise CheckFailed(f"{report.directory}: the data check found {errors} error(s), listed above.")


@data_group.command("show")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@model_option
@click.option("--row", "chosen", metavar="N", help="The example on line N only.")
@click.option("--rows", "chosen", metavar="A-B", help="The examples on lines A to B.")
@click.option("--max-seq-length", type=click.IntRange(min=8), help="Longest row in tokens.  [default: config, 2048]")
@click.option(
    "--too-long", type=click.Choice(["truncate", "drop"]), default="truncate", show_default=True,
    help="Shorten a longer row's prompt, or leave the row out.",
)  # fmt: skip
@click.option("--mask-prompt/--no-mask-prompt", default=True, show_default=True, help="Train on the replies only.")
@click.option(
    "--format", "form", type=click.Choice(["freeflow", "sandwich"]), default="freeflow", show_default=True,
    help="Prompt alone, or inside a kernel.",
)  # fmt: skip
@click.option("--kernel", metavar="PATH", help="Kernel of the sandwich.  [default: config]")
@click.option("--ids", is_flag=True, help="One token a line, with position and id.")
@click.option(
    "--color/--no-color", default=None, help="Colours, or marks round what is trained.  [default: by terminal]"
)
@json_option
def show(
    file: Path, model: str | None, chosen: str | None, max_seq_length: int | None, too_long: Any, mask_prompt: bool,
    form: str, kernel: str | None, ids: bool, color: bool | None, as_json: bool,
) -> None:  # fmt: skip
    """Print the exact tokens of the chat file FILE as training sees them, the trained ones marked.

    Without --row or --rows: counts for the whole file, and its first three examples.
    """
    from lem.chat.load import load
    from lem.config import load_config, resolve_model
    from lem.training.show import as_json as rows_as_json
    from lem.training.show import read_rows, render

    config = load_config()
    select = _selection(chosen)
    chat = load(resolve_model(config, model), weights=False)
    shown = read_rows(
        chat, file.expanduser(), max_seq_length or config.training.max_seq_length, select or (lambda line: True),
        mask_prompt=mask_prompt, too_long=too_long, sandwich=_sandwich(config, form, kernel),
    )  # fmt: skip
    if as_json:
        print_json(rows_as_json(chat, shown))
        return
    colour = _colour() if color is None else color
    outcomes = shown.found.outcomes if select else shown.found.outcomes[:SHOWN_UNASKED]
    page = render(chat, shown, outcomes, colour=colour, ids=ids)
    if not colour:
        click.echo(page.plain, nl=False)
        return
    from rich.console import Console

    Console(force_terminal=True, color_system="standard", no_color=False, highlight=False).print(
        page, soft_wrap=True, end=""
    )


def _selection(chosen: str | None) -> Callable[[int], bool] | None:
    """Which lines `N` or `A-B` means; None for no choice.   Raises: UserError."""
    if chosen is None:
        return None
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", chosen.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise UserError(f"--row and --rows take a line or a range of lines, as 7 or 3-9 (got {chosen}).")
    return lambda line: first <= line <= last


def _sandwich(config: Config, form: str, kernel: str | None) -> Sandwich | None:
    from lem.cli.training_options import read_sandwich
    from lem.training.settings import TrainingSettings

    return read_sandwich(config, TrainingSettings(format=form), kernel)


def _colour() -> bool:
    import os
    import sys

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
