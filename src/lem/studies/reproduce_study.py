"""A whole reproduction: every model of a table through its steps, then the page with both figures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.config import Config, resolve_model
from lem.data.published_figures import PublishedFigure, read_published
from lem.errors import UserError
from lem.paths import slug
from lem.reports.formats import toy_notice
from lem.studies.reproduce import (
    Step,
    Subject,
    needs_training,
    parse_subjects,
    recipe_of,
    specification,
    steps,
    table_names,
    variant_steps,
)
from lem.studies.reproduce_report import Page, read_comparison, rows_of, write_page
from lem.studies.reproduce_run import Runner, Say, command_line, run_steps

Work = tuple[Subject | None, Path, list[Step]]  # no subject for published answers


@dataclass(frozen=True)
class Options:
    """What is asked for: the table, its models as NAME=MODEL, or a folder of published answers; where it goes."""

    table: str
    models: tuple[str, ...] = ()
    answers: Path | None = None
    output: Path | None = None
    quick: bool = False
    dry_run: bool = False


def reproduce(config: Config, options: Options, run: Runner, say: Say) -> Path | None:
    """Run what is missing of a table and write the page; returns `table.md`, or None for a dry run.

    Raises: UserError for a table or a model that cannot be run; StepFailed with the exit code of a failed step.
    """
    _refuse_misfits(options)
    figures = read_published(Path(config.benchmarks_dir) / "published")
    name = options.table + ("-quick" if options.quick else "")
    folder = (options.output or Path(config.runs_dir) / "reproduce") / name
    work = _work(config, options, figures, folder)
    for subject, place, made in work:
        if subject is not None:
            _introduce(config, subject, say)
        if options.dry_run:
            for step in made:
                say(f"\n$ {command_line(step)}")
        else:
            run_steps(made, place, run, say)
    if options.dry_run:
        return None
    page = _variant_page(work[0][1], work[0][2], figures) if options.answers else _page(config, options, work, figures)
    return write_page(page, folder)[0]


def _work(config: Config, options: Options, figures: Sequence[PublishedFigure], folder: Path) -> list[Work]:
    if options.answers is not None:
        return [(None, folder, variant_steps(options.answers, folder))]
    table = specification()["tables"][options.table]
    subjects = parse_subjects(options.models, _of_table(figures, table["published"]))
    return [
        (subject, place, steps(config, options.table, subject, place, quick=options.quick))
        for subject, place in zip(subjects, _places(subjects, folder), strict=True)
    ]


def _introduce(config: Config, subject: Subject, say: Say) -> None:
    known = f"published as {subject.published}" if subject.published else "nothing published under this name"
    say(f"\n{subject.name}: {subject.model} ({known})")
    if toy := toy_notice([resolve_model(config, subject.model)]):
        say(toy)


def _refuse_misfits(options: Options) -> None:
    spec = specification()
    if options.table not in table_names():
        raise UserError(f"--table {options.table}: there is no such table; there are {', '.join(table_names())}.")
    if options.answers is not None:
        if options.table != "variants":
            raise UserError("--published-answers belongs to --table variants; leave it out, or ask for that table.")
        if options.models or options.quick:
            raise UserError("--published-answers analyses answers that are there; leave out --models and --quick.")
        if not options.answers.is_dir():
            raise UserError(f"{options.answers}: no such folder of published answers; check the path.")
    elif options.table in spec["unavailable"]:
        raise UserError(spec["unavailable"][options.table])


def _of_table(figures: Sequence[PublishedFigure], name: str) -> list[PublishedFigure]:
    return [figure for figure in figures if figure.table == name]


def _places(subjects: Sequence[Subject], folder: Path) -> list[Path]:
    """A folder per model.   Raises: UserError if two names make one folder."""
    names = [slug(subject.name.replace("/", "-")) for subject in subjects]
    if len({name.casefold() for name in names}) < len(names):
        raise UserError("two models would share a folder; give them names that differ in their letters or digits.")
    return [folder / name for name in names]


def _page(config: Config, options: Options, work: Sequence[Work], figures: Sequence[PublishedFigure]) -> Page:
    published = _of_table(figures, specification()["tables"][options.table]["published"])
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


def _variant_page(folder: Path, made: Sequence[Step], figures: Sequence[PublishedFigure]) -> Page:
    wanted = specification()["variants"]
    published = _of_table(figures, wanted["published"])
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


def against(comparison: dict[str, Any]) -> list[str]:
    """What a comparison says against itself: objections and deviations from its plan."""
    return [*(found["sentence"] for found in comparison["objections"]), *comparison["deviations"]]


def _notes(config: Config, options: Options, subjects: Sequence[Subject]) -> list[str]:
    spec = specification()
    short = spec["quick"]
    trained = [subject for subject in subjects if needs_training(options.table, subject)]
    recipes = [f"{subject.name}: {', '.join(p or 'the defaults' for p in recipe_of(subject))}" for subject in trained]
    values = {
        "temperature": f"{config.temperature:g}", "top_p": f"{config.top_p:g}", "seed": config.seed,
        "max_tokens": short["max_tokens"] if options.quick else config.max_tokens,
        "recipes": "; ".join(recipes), "assumed_sd": f"{spec['assumed_sd']['v2']:g}",
        "iters": short["iters"], "probes": short["probes"],
    }  # fmt: skip
    sentences = [
        *(spec["notes"]["quick"] if options.quick else []),
        *spec["notes"]["always"],
        *(spec["notes"]["trained"] if trained else []),
    ]
    return [sentence.format(**values) for sentence in sentences]
