"""A whole reproduction: every model of a table through its steps, then the page with both figures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lem.config import Config, resolve_model
from lem.data.published_figures import PublishedFigure, read_published
from lem.errors import UserError
from lem.paths import slug
from lem.reports.formats import toy_notice
from lem.studies.reproduce import Step, Subject, parse_subjects, specification, steps, variant_steps
from lem.studies.reproduce_judges import check_judge
from lem.studies.reproduce_options import Options, judge_specs, on_benchmarks, refuse_misfits, variant_models
from lem.studies.reproduce_pages import Work, answers_page, of_table, standard_page, v2_page
from lem.studies.reproduce_report import Page, write_page
from lem.studies.reproduce_run import Runner, Say, command_line, read_done, run_steps
from lem.studies.reproduce_standard import judge_step, standard_steps


def reproduce(config: Config, options: Options, run: Runner, say: Say) -> Path | None:
    """Run what is missing of a table and write the page; returns `table.md`, or None for a dry run.

    Raises: UserError for a table or a model that cannot be run; StepFailed with the exit code of a failed step.
    """
    refuse_misfits(options)
    figures = read_published(Path(config.benchmarks_dir) / "published")
    name = options.table + ("-quick" if options.quick else "")
    folder = (options.output or Path(config.runs_dir) / "reproduce") / name
    work = _work(config, options, figures, folder)
    if not options.dry_run:
        _look_at_judges(config, options, work)
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
    return write_page(_page(config, options, work, figures), folder)[0]


def _page(config: Config, options: Options, work: Sequence[Work], figures: Sequence[PublishedFigure]) -> Page:
    if options.answers is not None:
        return answers_page(work[0][1], work[0][2], figures)
    return (standard_page if on_benchmarks(options) else v2_page)(config, options, work, figures)


def _look_at_judges(config: Config, options: Options, work: Sequence[Work]) -> None:
    """Check the judges that have something left to do, against the models that they would judge."""
    others = variant_models(config, options.extras)
    for spec in judge_specs(options.extras):
        left = [
            {"base": resolve_model(config, subject.model), **others}
            for subject, place, _ in work
            if subject is not None and judge_step(spec.name) not in read_done(place)
        ]
        if left:
            check_judge(spec, left, options.extras)


def _work(config: Config, options: Options, figures: Sequence[PublishedFigure], folder: Path) -> list[Work]:
    if options.answers is not None:
        return [(None, folder, variant_steps(options.answers, folder))]
    named = specification()["standard_tables" if on_benchmarks(options) else "tables"][options.table]
    subjects = parse_subjects(options.models, of_table(figures, named["published"]))
    if options.extras.variants and len(subjects) > 1:
        raise UserError("--variant adds an arm to one model and --models names several; give one of them.")
    return [
        (subject, place, _steps(config, options, subject, place))
        for subject, place in zip(subjects, _places(subjects, folder), strict=True)
    ]


def _steps(config: Config, options: Options, subject: Subject, place: Path) -> list[Step]:
    if on_benchmarks(options):
        return standard_steps(config, options.table, subject, place, options.extras, quick=options.quick)
    return steps(config, options.table, subject, place, quick=options.quick)


def _introduce(config: Config, subject: Subject, say: Say) -> None:
    known = f"published as {subject.published}" if subject.published else "nothing published under this name"
    say(f"\n{subject.name}: {subject.model} ({known})")
    if toy := toy_notice([resolve_model(config, subject.model)]):
        say(toy)


def _places(subjects: Sequence[Subject], folder: Path) -> list[Path]:
    """A folder per model.   Raises: UserError if two names make one folder."""
    names = [slug(subject.name.replace("/", "-")) for subject in subjects]
    if len({name.casefold() for name in names}) < len(names):
        raise UserError("two models would share a folder; give them names that differ in their letters or digits.")
    return [folder / name for name in names]
