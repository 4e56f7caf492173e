"""Options and output shared by several commands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from lem.errors import Incomplete
from lem.paths import slug

Command = TypeVar("Command", bound=Callable[..., Any])


def model_option(command: Command) -> Command:
    """`--model`: a path, a hub id or a name from lem.config.json; default: the config's default_model."""
    help_text = "Model: folder, hub id or a name from lem.config.json.  [default: default_model of the config]"
    return click.option("--model", help=help_text)(command)


_ARMS = (
    click.option("--kernel", "kernels", multiple=True, metavar="[NAME=]PATH", help="Inject this text; repeatable."),
    click.option("--adapter", "adapters", multiple=True, metavar="[NAME=]DIR", help="Add an adapter arm; repeatable."),
    click.option("--trained", multiple=True, metavar="NAME=MODEL", help="Add another model as an arm; repeatable."),
    click.option("--placebo", is_flag=True, help="Add the two control texts (placebo-json, placebo-txt)."),
    click.option("--design", type=click.Choice(["kernel", "full"]), help="A set of arms with its controls; see docs."),
    click.option("--adapter-scale", metavar="S,S,...", help="Apply each adapter at these scales, an arm for each."),
)


def arm_options(command: Command) -> Command:
    """The options that name arms: kernels, adapters, trained models, placebos, designs, doses."""
    for option in reversed(_ARMS):
        command = option(command)
    return command


def json_option(command: Command) -> Command:
    """`--json`: machine-readable output on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)


def form_options(command: Command) -> Command:
    """`--json`, `--csv` and `--markdown` for a table, as the parameter `form`; without any it is "table"."""
    for form, name in (("markdown", "markdown"), ("csv", "CSV"), ("json", "JSON for machines")):
        command = click.option(f"--{form}", "form", flag_value=form, default="table", help=f"Print {name}.")(command)
    return command


def seed_option(command: Command) -> Command:
    """`--seed`: the run's random seed; default: the config's."""
    return click.option("--seed", type=int, help="Random seed.  [default: seed of the config]")(command)


def print_json(value: Any) -> None:
    """Print a value as JSON; NaN and infinities become null."""
    click.echo(json.dumps(_clean(value), indent=1, ensure_ascii=False, default=str))


def _clean(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _clean(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(entry) for entry in value]
    return value


@contextmanager
def progress(description: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    """Show a progress bar with rate and remaining time on standard error; silent when that is no terminal.

    Yields: `advance(n=1, note="", total=None)`; a `total` takes the place of the first one.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn(unit),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(n: int = 1, note: str | None = None, total: int | None = None) -> None:
            fields: dict[str, Any] = {} if note is None else {"note": note}
            bar.update(task, advance=n, total=total, **fields)

        yield advance


def existing_path(text: str) -> Path:
    """An option's path, relative to the working directory, with ~ expanded."""
    return Path(text).expanduser()


@contextmanager
def answer_progress(total: int) -> Iterator[dict[str, Callable[..., None]]]:
    """A progress bar over `total` answers, as the callbacks of `conduct`.   Raises: Incomplete on Ctrl-C."""
    with progress("answers", total, "answers") as advance:
        try:
            yield {
                "on_start": lambda cells, missing: advance(max(0, min(cells, total) - missing), note=""),
                "on_record": lambda record: advance(1, note=f"{record.arm} {record.probe_id}"),
                "on_load": lambda what: advance(0, note=f"loading {slug(what)}"),
            }
        except KeyboardInterrupt:
            raise Incomplete(
                "interrupted; what was finished is on disk, the same command goes on from there."
            ) from None
