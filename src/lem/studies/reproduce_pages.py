"""The page of a reproduction: rows of every model, notes on what differs, commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lem.benchmarks.plan import TEMPERATURE
from lem.benchmarks.table import find
from lem.config import Config, resolve_model
from lem.data.published_figures import PublishedFigure
from lem.studies.reproduce import Step, Subject, needs_training, recipe_of, specification
from lem.studies.reproduce_options import Options, variant_models
from lem.studies.reproduce_report import Page, against, read_comparison, rows_of
from lem.studies.reproduce_run import command_line
from lem.studies.reproduce_standard_report import findings

Work = tuple[Subject | None, Path, list[Step]]  # no subject for published answers


def of_table(figures: Sequence[PublishedFigure], name: str) -> list[PublishedFigure]:
    """The figures of one published table."""
    return [figure for figure in figures if figure.table == name]


def v2_page(config: Config, options: Options, work: Sequence[Work], figures: Sequence[PublishedFigure]) -> Page:
    """The page of a table of v2 scores."""
    published = of_table(figures, specification()["tables"][options.table]["published"])
    rows, objections = [], []
    run_here = [(subject, place) for subject, place, _ in work if subject is not None]
    subjects = [subject for subject, _ in run_here]
    for subject, place in run_here:
        comparison = read_comparison(place / "run" / "comparison.json")
        rows += rows_of(subject.name, [f for f in published if f.model == subject.published], comparison, ["v2"])
        objections += [f"{subject.name}: {found}" for found in against(comparison)]
    run = {subject.published for subject in subjects}
    return Page(
        table=options.table,
        title=specification()["tables"][options.table]["title"],
        source=f"{published[0].source}, {published[0].date}",
        rows=tuple(rows),
        not_run=tuple(dict.fromkeys(figure.model for figure in published if figure.model not in run)),
        objections=tuple(objections),
        notes=tuple(_notes(config, options, subjects)),
        commands=tuple(command_line(step) for _, _, made in work for step in made),
        models=tuple(resolve_model(config, subject.model) for subject in subjects),
    )


def standard_page(config: Config, options: Options, work: Sequence[Work], figures: Sequence[PublishedFigure]) -> Page:
    """The page of a table on standard benchmarks."""
    table = specification()["standard_tables"][options.table]
    published = of_table(figures, table["published"])
    run_here = [(subject, place) for subject, place, _ in work if subject is not None]
    subjects = [subject for subject, _ in run_here]
    found = [
        findings(subject.name, [f for f in published if f.model == subject.published], place / "run")
        for subject, place in run_here
    ]
    run = {subject.published for subject in subjects}
    judges = {judge for one in found for judge in one.judges}
    return Page(
        table=options.table,
        title=table["title"],
        source=f"{published[0].source}, {published[0].date}",
        rows=tuple(row for one in found for row in one.rows),
        not_run=tuple(dict.fromkeys(figure.model for figure in published if figure.model not in run)),
        objections=tuple(
            f"{subject.name}: {said}" for subject, one in zip(subjects, found, strict=True) for said in one.objections
        ),
        notes=tuple(_standard_notes(config, options, subjects, len(judges))),
        commands=tuple(command_line(step) for _, _, made in work for step in made),
        models=(
            *(resolve_model(config, subject.model) for subject in subjects),
            *variant_models(config, options.extras).values(),
        ),
        watermarks=tuple(dict.fromkeys(said for one in found for said in one.watermarks)),
    )


def answers_page(folder: Path, made: Sequence[Step], figures: Sequence[PublishedFigure]) -> Page:
    """The page of published answers and ratings that were analysed again."""
    wanted = specification()["variants"]
    published = of_table(figures, wanted["published"])
    comparison = read_comparison(folder / "run" / "comparison.json")
    return Page(
        table="variants",
        title=wanted["title"],
        source=f"{published[0].source}, {published[0].date}",
        rows=tuple(rows_of(wanted["model"], published, comparison, wanted["metrics"], wanted["arms"])),
        not_run=(),
        objections=tuple(against(comparison)),
        notes=tuple(specification()["notes"]["variants"]),
        commands=tuple(command_line(step) for step in made),
        models=(),
    )


def _notes(config: Config, options: Options, subjects: Sequence[Subject]) -> list[str]:
    spec = specification()
    short = spec["quick"]
    trained = [subject for subject in subjects if needs_training(options.table, subject)]
    values = {
        "temperature": f"{config.temperature:g}", "top_p": f"{config.top_p:g}", "seed": config.seed,
        "max_tokens": short["max_tokens"] if options.quick else config.max_tokens,
        "recipes": _recipes(trained), "assumed_sd": f"{spec['assumed_sd']['v2']:g}",
        "iters": short["iters"], "probes": short["probes"],
    }  # fmt: skip
    sentences = [
        *(spec["notes"]["quick"] if options.quick else []),
        *spec["notes"]["always"],
        *(spec["notes"]["trained"] if trained else []),
    ]
    return [sentence.format(**values) for sentence in sentences]


def _standard_notes(config: Config, options: Options, subjects: Sequence[Subject], n_judges: int) -> list[str]:
    spec, said = specification(), specification()["notes"]
    wanted = spec["standard"]
    short = wanted["quick"]
    limits = ", ".join(f"{find(task).max_tokens} tokens for {task}" for task in wanted["tasks"])
    values = {
        "temperature": f"{TEMPERATURE:g}", "top_p": f"{config.top_p:g}", "seed": config.seed,
        "max_tokens": f"{short['max_tokens']} tokens" if options.quick else limits,
        "items": ", ".join(options.extras.items) or "our own, on other questions than the published ones",
        "recipes": _recipes(subjects), "iters": spec["quick"]["iters"], "limit": short["limit"],
    }  # fmt: skip
    sentences = [
        *(said["standard_quick"] if options.quick else []),
        *(said["not_judged"] if not n_judges else []),
        *(said["panel"] if n_judges > 1 else []),
        *said["standard"],
        *said["trained"],
    ]
    return [sentence.format(**values) for sentence in sentences]


def _recipes(subjects: Sequence[Subject]) -> str:
    return "; ".join(f"{one.name}: {', '.join(p or 'the defaults' for p in recipe_of(one))}" for one in subjects)
