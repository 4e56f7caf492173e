"""`lem judge`: have judges rate the answers of a run, compare two arms, and find out how far they can be trusted."""

from __future__ import annotations

from typing import Any

import click

from lem.cli.judge_audit import audit
from lem.cli.judge_options import judge_options, take_judge_options
from lem.cli.options import existing_path, form_options, json_option
from lem.errors import UserError


@click.group("judge")
def judge_group() -> None:
    """Rate answers (grade), compare two arms (pairs), test a judge (audit)."""


@judge_group.command("grade")
@click.argument("run", metavar="RUN")
@click.option(
    "--dimension",
    "dimensions",
    multiple=True,
    metavar="NAME",
    help="Rubric, by name or file; repeatable.  [default: those of each benchmark]",
)
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME", help="Benchmark of the run; repeatable.  [default: all]"
)
@judge_options
@form_options
def grade(run: str, dimensions: tuple[str, ...], tasks: tuple[str, ...], form: str, **options: Any) -> None:
    """Have every --judge rate the answers of RUN; verdicts go to judgements/<judge>.jsonl.

    Resumes where it stopped: what is judged with the same model, rubric and prompt is not asked again.
    """
    from lem.cli.eval_table import print_table
    from lem.cli.judging import rate_run, refuse_unjudged

    path = existing_path(run)
    graded = rate_run(path, take_judge_options(options), dimensions, tasks)
    print_table(path, form, judged_only=True)
    refuse_unjudged(graded)


@judge_group.command("pairs")
@click.argument("run", metavar="RUN")
@click.option(
    "--baseline", default="base", show_default=True, metavar="ARM", help="Arm that the others are held against."
)
@click.option(
    "--treatment", "treatments", multiple=True, required=True, metavar="ARM", help="Arm to compare; repeatable."
)
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME", help="Benchmark of the run; repeatable.  [default: all]"
)
@judge_options
@json_option
def pairs(
    run: str, baseline: str, treatments: tuple[str, ...], tasks: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Have every --judge compare the answers of two arms, A/B/tie, in both orders.

    A verdict that changes with the order is a tie. The win rate has an interval and one at equal length beside it.
    """
    from lem.cli.judge_pairs import compare_arms, print_win_rates
    from lem.cli.judging import refuse_unjudged

    if baseline in treatments:
        raise UserError(f"--baseline and --treatment both name '{baseline}'; name two arms.")
    path = existing_path(run)
    graded = compare_arms(path, take_judge_options(options), baseline, treatments, tasks)
    print_win_rates(path, as_json)
    refuse_unjudged(graded)


judge_group.add_command(audit)
