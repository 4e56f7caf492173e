"""`lem compare`: did the answers change, for the better, and at what cost?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import existing_path, json_option, print_json
from lem.errors import Incomplete, UserError
from lem.paths import display_path, slug

if TYPE_CHECKING:
    from lem.ab.compare import Comparison, Declared
    from lem.records import RunContents

SCORERS = ("v2", "v3")


@click.command("compare")
@click.argument("inputs", nargs=-1, required=True, metavar="RUN...")
@click.option("--baseline", metavar="ARM", help="Arm to compare with.  [default: base, or the first of two]")
@click.option(
    "--treatment", "treatments", multiple=True, metavar="ARM", help="Arm to compare; repeatable.  [default: all]"
)
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="Scorer or judged dimension; repeatable.  [default: all]"
)
@click.option("--plan", metavar="FILE", help="What was declared beforehand.  [default: the plan stored in the run]")
@click.option("--primary", multiple=True, metavar="METRIC:ARM", help="Declare a primary contrast; repeatable.")
@click.option("--margin", "margins", multiple=True, metavar="METRIC=X", help="'No worse by more than X'; repeatable.")
@click.option("--lower-is-better", "lower", multiple=True, metavar="METRIC", help="Less of this is better; repeatable.")
@click.option("--anyway", is_flag=True, help="Print refused contrasts too, watermarked.")
@click.option("--details/--no-details", default=None, help="Every estimate and test.  [default: for up to 3 contrasts]")
@click.option("--output", metavar="FILE", help="Where comparison.json goes.  [default: into the run]")
@json_option
def compare(inputs: tuple[str, ...], output: str | None, as_json: bool, details: bool | None, **options: Any) -> None:
    """Compare arms of one run, of several runs, or of logs that other tools wrote, and say what the numbers allow.

    Inputs: run directories, Inspect .eval and .json logs, lm-eval samples, published LEM files.
    """
    paths = [existing_path(text) for text in inputs]
    named = [(name, read_input(path)) for name, path in zip(input_names(paths), paths, strict=True)]
    target = _target(paths, output)
    document, comparison = make_comparison(named, paths, target, **options)
    if as_json:
        print_json(document)
    else:
        _print(document, named, details, target)
    lost = sum(arm.missing + arm.failed for arm in comparison.arms)
    if lost:
        raise Incomplete(f"{lost} planned answers failed or are missing; run the benchmark again to complete them.")


def make_comparison(
    named: Sequence[tuple[str, RunContents]], paths: Sequence[Path], target: Path, *, baseline: str | None = None,
    treatments: tuple[str, ...] = (), metrics: tuple[str, ...] = (), plan: str | None = None,
    primary: tuple[str, ...] = (), margins: tuple[str, ...] = (), lower: tuple[str, ...] = (), anyway: bool = False,
) -> tuple[dict[str, Any], Comparison]:  # fmt: skip
    """Join, compare and write `comparison.json`; returns its object and the comparison.

    Raises: UserError when every contrast is refused; nothing is written then.
    """
    from lem.ab.compare import Options, compare
    from lem.ab.comparison_file import to_json, write_comparison
    from lem.ab.join import join_runs
    from lem.config import load_config

    joined = join_runs(named)
    baseline, treatments = _first_and_rest(named, joined, baseline, treatments)
    declared, deviations = _declared(joined, plan, primary, margins)
    options = Options(
        baseline=baseline, treatments=treatments, metrics=metrics, lower_is_better=lower,
        threshold=load_config().scoring.delta, anyway=anyway,
    )  # fmt: skip
    comparison = compare(joined, options, declared, deviations)
    if comparison.refused:
        raise UserError(" ".join(dict.fromkeys(verdict.sentence for verdict in comparison.verdicts)))
    runs = [{"name": name, "path": display_path(path)} for (name, _), path in zip(named, paths, strict=True)]
    document = to_json(comparison, runs, ["lem", *sys.argv[1:]])
    write_comparison(document, target)
    return document, comparison


def read_input(path: Path) -> RunContents:
    """Read a run or a foreign log, writing nothing.

    Answers to benchmarks are scored anew by their rules; other answers without any score are scored with v2 and v3.
    """
    from lem.benchmarks.plan import KIND
    from lem.benchmarks.scoring import score_records as score_by_rule
    from lem.data.items import read_run_items
    from lem.interop import read_answers_file
    from lem.records import read_contents
    from lem.scorers.passes import score_records

    is_run = path.is_dir() and (path / "run.json").is_file()
    contents = read_contents(path) if is_run else read_answers_file(path).contents
    if is_run and contents.info.kind == KIND:
        by_rule = score_by_rule(contents.records, read_run_items(path))
        return replace(contents, scores={**contents.scores, **by_rule})
    if contents.scores or contents.judgements:
        return contents
    return replace(contents, scores={name: score_records(contents.records, name) for name in SCORERS})


def input_names(paths: Sequence[Path]) -> list[str]:
    """A short unique name per input: the last part of its path, with more parts where two are alike."""
    names = [slug(path.resolve().name if path.is_dir() else path.stem) for path in paths]
    if len(set(names)) == len(names):
        return names
    longer = [f"{path.resolve().parent.name}/{name}" for path, name in zip(paths, names, strict=True)]
    if len(set(longer)) < len(longer):
        raise UserError("two of the inputs are the same; give each run once.")
    return longer


def _first_and_rest(
    named: Sequence[tuple[str, RunContents]], joined: RunContents, baseline: str | None, treatments: tuple[str, ...]
) -> tuple[str | None, tuple[str, ...]]:
    """Of logs with one arm each, the first is the baseline and the others are the treatments."""
    arms = list(joined.info.arms)
    if baseline is None and len(named) > 1 and len(arms) == len(named):
        return arms[0], treatments or tuple(arms[1:])
    return baseline, treatments


def _declared(
    joined: RunContents, plan: str | None, primary: tuple[str, ...], margins: tuple[str, ...]
) -> tuple[Declared | None, list[str]]:
    """What was declared: the plan's contrasts and margins, and those of the command line where there is no plan."""
    from lem.ab.compare import Declared
    from lem.ab.plan_file import plan_sha

    found = joined.info.plan
    if found and plan_sha(found) != found.get("sha"):
        raise UserError("the plan stored in the run was changed after it was made; restore run.json from a copy.")
    if plan is not None:
        from lem.ab.plan_file import read_plan

        found = read_plan(existing_path(plan))
    if found and (primary or margins):
        raise UserError("this run has a plan, which declares its contrasts and margins; leave out --primary, --margin.")
    if found:
        from lem.ab.plan_deviations import deviations

        exclusions = {entry["probe_id"]: entry["reason"] for entry in found.get("exclusions", [])}
        pairs = tuple((str(metric), str(arm)) for metric, arm in found.get("primary", []))
        declared = Declared(pairs, dict(found.get("margins", {})), exclusions, str(found["sha"]), found["baseline"])
        return declared, deviations(found, joined)
    if not primary and not margins:
        return None, []
    pairs = tuple(_pair(text, joined.info.arms) for text in primary)
    return Declared(pairs, dict(_margin(text) for text in margins)), []


def _pair(text: str, arms: Iterable[str]) -> tuple[str, str]:
    """Split METRIC:ARM, where both may have a colon of their own.   Raises: UserError."""
    for place, character in enumerate(text):
        if character == ":" and place and text[place + 1 :] in arms:
            return text[:place], text[place + 1 :]
    raise UserError(f"--primary {text}: write METRIC:ARM with an arm of {', '.join(arms)}.")


def _margin(text: str) -> tuple[str, float]:
    metric, _, value = text.rpartition("=")
    try:
        margin = float(value)
    except ValueError:
        margin = 0.0
    if not metric or not 0 < margin < float("inf"):
        raise UserError(f"--margin {text}: write METRIC=X with X above 0, for example v2=1.")
    return metric, margin


def _target(paths: Sequence[Path], output: str | None) -> Path:
    """Where the comparison goes: as asked, into the one run, or into a folder of its own for anything else."""
    from lem.ab.comparison_file import COMPARISON_NAME
    from lem.config import load_config

    if output is not None:
        path = existing_path(output)
        return path / COMPARISON_NAME if path.is_dir() else path
    if len(paths) == 1 and (paths[0] / "run.json").is_file():
        return paths[0] / COMPARISON_NAME
    name = "-".join(input_names(paths)).replace("/", "-")[:100]
    return Path(load_config().runs_dir) / "compare" / name / COMPARISON_NAME


def _print(
    document: dict[str, Any], named: Sequence[tuple[str, RunContents]], details: bool | None, target: Path
) -> None:
    from rich.console import Console

    from lem.reports.comparison_table import comparison_rich
    from lem.reports.formats import toy_notice

    console = Console(highlight=False)
    toy = toy_notice(str(arm["model"]) for arm in document["arms"])
    for note in [*([toy] if toy else []), *(note for _, contents in named for note in contents.notes)]:
        console.print(f"note: {note}", markup=False)
    console.print(comparison_rich(document, details=details))
    click.echo(f"\ncomparison: {display_path(target)}")
