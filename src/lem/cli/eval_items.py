"""Which items `lem eval` asks: their sources, and those that the weights under test were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import existing_path
from lem.errors import UserError

if TYPE_CHECKING:
    from lem.chat.trainings import Training
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
        if "://" in source:
            raise UserError(f"--items {option}: an address is no place for items; download the file and name it.")
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
    items: Mapping[str, Sequence[Item]], arms: Sequence[Arm], run: Path, *, exclude: bool
) -> tuple[dict[str, list[Item]], dict[str, Any]]:
    """List the items that the weights of the arms were trained on, and leave them out if asked.

    The items that the run holds already are looked for as well, because the arms answer them too.

    Returns: the items to ask, and what the manifest says of those that were met.
    """
    from lem.benchmarks.contamination import contaminated, too_short_items
    from lem.data.items import read_run_items

    asked = {item.id: item for item in [*read_run_items(run).values(), *(one for two in items.values() for one in two)]}
    trainings = _trainings(arms)
    met: dict[str, list[str]] = {}
    for weights, found in trainings.items():
        _warn_of_unknown(weights, found)
        files = list(dict.fromkeys(file for one in found for file in one.files or ()))
        for item in contaminated(list(asked.values()), files):
            met.setdefault(item, []).append(weights)
    short = [item for item in too_short_items(list(asked.values())) if item not in met] if trainings else []
    if met:
        what = "left out" if exclude else "leave them out with --exclude-contaminated"
        click.echo(
            f"Warning: {len(met)} items are in the training data of an adapter ({_some(sorted(met))}): {what}.",
            err=True,
        )
    if short:
        click.echo(
            f"Warning: {len(short)} items are too short to be looked for in training data ({_some(short)}).", err=True
        )
    kept = {task: [item for item in found if not (exclude and item.id in met)] for task, found in items.items()}
    empty = next((task for task, found in kept.items() if not found), None)
    if empty is not None:
        raise UserError(f"every item of {empty} is in the training data of an adapter; take other --items.")
    return kept, _facts(met, short, run, exclude=exclude)


def _trainings(arms: Sequence[Arm]) -> dict[str, list[Training]]:
    """The trainings behind each adapter and each model of the arms, by name; without ordinary models, which have none.

    Raises: UserError for a model that is not there.
    """
    from lem.chat.load import resolve_model_path
    from lem.chat.trainings import trainings_of_adapter, trainings_of_model

    models = {model: trainings_of_model(resolve_model_path(model)) for model in dict.fromkeys(a.model for a in arms)}
    adapters = {a.adapter: trainings_of_adapter(Path(a.adapter).expanduser()) for a in arms if a.adapter}
    return {**{model: found for model, found in models.items() if found}, **adapters}


def _warn_of_unknown(weights: str, trainings: Sequence[Training]) -> None:
    unknown = dict.fromkeys(one.weights for one in trainings if one.files is None)
    if unknown:
        click.echo(
            f"Warning: the training data of {', '.join(unknown)} are not at hand as they were, so it is not known "
            f"whether {weights} was trained on items of these tasks.",
            err=True,
        )


def _facts(met: Mapping[str, list[str]], short: Sequence[str], run: Path, *, exclude: bool) -> dict[str, Any]:
    """What the manifest says; weights that the run knows to have met an item stay noted."""
    from lem.records.contaminated import CONTAMINATED, TOO_SHORT, joined_contaminated
    from lem.records.run import read_manifest

    before = read_manifest(run).data if (run / "run.json").is_file() else {}
    joined = joined_contaminated([before, {CONTAMINATED: dict(met)}]).get(CONTAMINATED, {})
    facts: dict[str, Any] = {TOO_SHORT: dict.fromkeys(short, True)} if short else {}
    if met:
        facts |= {CONTAMINATED: {item: joined[item] for item in met}, "contaminated_excluded": exclude}
    return facts


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
