"""Which items `lem eval` asks: their sources, and those that an adapter under test was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import existing_path
from lem.errors import UserError

if TYPE_CHECKING:
    from lem.data.items import Item
    from lem.runs.plan import Arm

_SHOWN = 5


def choose_items(
    tasks: Sequence[str], options: Sequence[str], limit: int | None, revision: str | None
) -> tuple[dict[str, list[Item]], dict[str, dict[str, Any]]]:
    """The items of each task, and facts about where they come from."""
    from lem.benchmarks.items import read_items, source_facts

    sources = _sources(tasks, options)
    items = {task: read_items(task, sources[task], limit, revision) for task in tasks}
    return items, {task: source_facts(task, sources[task], revision) for task in tasks}


def _sources(tasks: Sequence[str], options: Sequence[str]) -> dict[str, Any]:
    """The source of each task: its own --items TASK=SOURCE, else the one without a task, else our own items."""
    general: Any = "ours"
    own: dict[str, Any] = {}
    for option in options:
        task, separator, text = option.partition("=")
        if separator and task not in tasks:
            raise UserError(f"--items {option}: '{task}' is not among the tasks {', '.join(tasks)}; name it as well.")
        source: Any = (text if separator else option) or "ours"
        source = source if source in ("ours", "hub") else existing_path(source)
        if separator:
            own[task] = source
        else:
            general = source
    return {task: _file_of(task, own.get(task, general)) for task in tasks}


def _file_of(task: str, source: Any) -> Any:
    """A folder of item files stands for the file of the task; any other folder is a copy of the hub's data set."""
    if isinstance(source, Path) and source.is_dir():
        from lem.benchmarks.table import find

        file = source / f"{find(task).file_name}.jsonl"
        return file if file.is_file() else source
    return source


def source_key(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """What tells runs over other items than our own apart; "" for our own items.

    Files count by their folder, so that the tasks of one folder go into one run.
    """
    places = {
        "hub" if one["source"] == "hub" else str(Path(one["path"]).resolve().parent)
        for one in facts.values()
        if one["source"] != "ours"
    }
    return " ".join(sorted(places))


def report_contaminated(
    items: Mapping[str, Sequence[Item]], arms: Sequence[Arm], *, exclude: bool
) -> tuple[dict[str, list[Item]], dict[str, Any]]:
    """List the items that an adapter's training files hold, and leave them out if asked.

    Returns: the items to ask, and what the manifest says of those that were met.
    """
    from lem.ab.training_data import training_files
    from lem.benchmarks.contamination import contaminated

    met: dict[str, list[str]] = {}
    for adapter in dict.fromkeys(arm.adapter for arm in arms if arm.adapter):
        files = training_files(Path(adapter).expanduser())
        if files is None:
            click.echo(
                f"Warning: the training data of {adapter} are not at hand, so it is not known whether it was trained "
                "on items of these tasks.",
                err=True,
            )
            continue
        for found in items.values():
            for item in contaminated(found, files):
                met.setdefault(item, []).append(adapter)
    if met:
        names = ", ".join(sorted(met)[:_SHOWN]) + (f" and {len(met) - _SHOWN} more" if len(met) > _SHOWN else "")
        what = "left out" if exclude else "leave them out with --exclude-contaminated"
        click.echo(f"Warning: {len(met)} items are in the training data of an adapter ({names}): {what}.", err=True)
    kept = {task: [item for item in found if not (exclude and item.id in met)] for task, found in items.items()}
    empty = next((task for task, found in kept.items() if not found), None)
    if empty is not None:
        raise UserError(f"every item of {empty} is in the training data of an adapter; take other --items.")
    return kept, {"contaminated": met, "contaminated_excluded": exclude} if met else {}
