"""`lem eval`: the standard benchmarks with any arms; answers, scores by rule, and ratings by judges."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.eval_items import choose_items, report_contaminated, source_key
from lem.cli.judge_options import REMEDY, JudgeOptions, judge_options, take_judge_options
from lem.cli.options import (
    arm_options,
    existing_path,
    form_options,
    model_option,
    print_json,
    seed_option,
)
from lem.errors import UserError
from lem.paths import display_path, slug

if TYPE_CHECKING:
    from lem.config import Config
    from lem.runs.plan import Arm, RunPlan


@click.command("eval")
@click.argument("tasks", nargs=-1, metavar="TASK...")
@model_option
@arm_options
@click.option("--arm", "only", multiple=True, metavar="NAME", help="Run only these arms; repeatable.")
@click.option(
    "--items",
    "sources",
    multiple=True,
    metavar="[TASK=]SOURCE",
    help="hub, a file, or a folder of TASK.jsonl files; repeatable.  [default: our own items]",
)
@click.option("--revision", metavar="HASH", help="Commit of the hub's data sets.  [default: the pinned one]")
@click.option("--limit", type=int, metavar="N", help="Use N items of each task.")
@click.option("--exclude-contaminated", is_flag=True, help="Leave out items that an adapter was trained on.")
@click.option("--completion", is_flag=True, help="Plain-text prompts for every model, chat template or not.")
@click.option("--output", metavar="DIR", help="Run directory.  [default: runs/eval/<model>-<hash>]")
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Answers per item and arm.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="One token limit for all tasks.  [default: per task]")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 is greedy.  [default: 0.3]")
@click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), help="Nucleus mass.  [default: config]")
@click.option("--inject", type=click.Choice(["system", "user", "sandwich"]), help="Where kernels go.")
@click.option("--group-size", type=click.IntRange(min=1), help="Rows decoded together.  [default: from free memory]")
@click.option("--strict", is_flag=True, help="Decode one row at a time (slow; no batch effects).")
@click.option("--no-judge", is_flag=True, help="Answers and scores by rule only; judge later with `lem judge grade`.")
@click.option("--dry-run", is_flag=True, help="Print arms, counts, tokens and one prompt; generate nothing.")
@judge_options
@seed_option
@form_options
def eval_command(tasks: tuple[str, ...], output: str | None, dry_run: bool, form: str, **options: Any) -> None:
    """Run benchmarks: gsm8k truthfulqa truthfulqa_mc do_not_answer toxigen ethics over_refusal.

    All tasks of one model, with the same arms and settings, go into one run. Killed or interrupted, the same command
    goes on where it stopped.
    """
    from lem.benchmarks.plan import check_tasks, judged_tasks, run_benchmarks
    from lem.cli.benchmark import execute_with_progress
    from lem.config import load_config

    config = load_config()
    judging = take_judge_options(options)
    no_judge = options.pop("no_judge")
    names = check_tasks(tasks)
    wants_judge = judged_tasks(names) if not no_judge else []
    if no_judge and judging.judges:
        raise UserError("--no-judge and --judge contradict each other; leave out one of them.")
    if wants_judge and not judging.judges and not dry_run:
        raise UserError(f"{', '.join(wants_judge)} can only be rated by a judge; {REMEDY}.")
    if judging.judges and not wants_judge:
        click.echo(f"Warning: {', '.join(names)}: scored by program, so no judge is asked.", err=True)
    if output and output.endswith(".jsonl"):
        raise UserError(f"--output {output}: a run of benchmarks is a directory; give a name without .jsonl.")
    plan, run = make_plan(config, names, existing_path(output) if output else None, **options)
    if dry_run:
        _print_dry_run(plan, run, form == "json")
        return
    if wants_judge:
        _check_judges(plan, judging)
    if not execute_with_progress(plan, run, run_benchmarks):
        return
    finish(run, judging if wants_judge else None, form)


def make_plan(
    config: Config, tasks: Sequence[str], output: Path | None, *, model: str | None, sources: tuple[str, ...],
    revision: str | None, limit: int | None, exclude_contaminated: bool, completion: bool, repeats: int,
    max_tokens: int | None, temperature: float | None, top_p: float | None, inject: Any, group_size: int | None,
    strict: bool, seed: int | None, only: tuple[str, ...], **named: Any,
) -> tuple[RunPlan, Path]:  # fmt: skip
    """A plan of option values and config defaults, and its run; items that adapters learnt are listed or left out.

    Args:  output: where the run goes; None for the place that the plan decides.
    """
    from lem.ab.arms import select_arms
    from lem.benchmarks.plan import MAX_TOKENS, TEMPERATURE, benchmark_plan
    from lem.chat.generate import GenerationSettings
    from lem.config import resolve_model

    arms = select_arms(_arms(config, resolve_model(config, model), **named), only)
    items, facts = choose_items(tasks, sources, limit, revision)
    signature = Path(config.kernel_dir) / "lek-1-sig.txt"
    plan_of = partial(
        benchmark_plan, arms, sources=facts, probe_sha=source_key(facts),
        max_tokens=max_tokens, form="completion" if completion else "auto",
        settings=GenerationSettings(
            max_tokens=max_tokens or MAX_TOKENS,
            temperature=TEMPERATURE if temperature is None else temperature,
            top_p=config.top_p if top_p is None else top_p,
        ),
        repeats=repeats, seed=config.seed if seed is None else seed, inject=inject,
        signature=signature.read_text(encoding="utf-8").strip() if signature.is_file() else "",
        group_size=1 if strict else group_size or config.batch_size, command=("lem", *sys.argv[1:]),
    )  # fmt: skip
    run = default_run(config, plan_of(items)) if output is None else output
    kept, met = report_contaminated(items, arms, run, exclude=exclude_contaminated)
    plan = plan_of(kept)
    plan.data.update(met)
    return plan, run


def _arms(
    config: Config, model: str, *, kernels: tuple[str, ...], adapters: tuple[str, ...], trained: tuple[str, ...],
    placebo: bool, design: str | None, adapter_scale: str | None,
) -> list[Arm]:  # fmt: skip
    """The arms that were asked for; without any the model alone."""
    from lem.ab.arms import build_arms
    from lem.cli.benchmark import resolve_trained
    from lem.cli.benchmark_plan import choose_arms

    if not (kernels or adapters or trained or placebo or design):
        if adapter_scale is not None:
            raise UserError("--adapter-scale needs an adapter to apply at these scales; give --adapter NAME=DIR.")
        return build_arms(model)
    return choose_arms(
        config, model, kernels=kernels, adapters=adapters, placebo=placebo, design=design,
        trained=[resolve_trained(config, option) for option in trained], adapter_scale=adapter_scale, axioms=(),
    )  # fmt: skip


def default_run(config: Config, plan: RunPlan) -> Path:
    """Where a run goes without --output; the same for any tasks of one source, so that the axes come together."""
    return Path(config.runs_dir) / "eval" / f"{slug(plan.arms[0].model)}-{plan.short_hash}"


def _check_judges(plan: RunPlan, judging: JudgeOptions) -> None:
    """Find a missing key, a model that is not there, and kinship with an arm before anything is generated."""
    from lem.cli.judging import check_judges
    from lem.records import RunInfo
    from lem.runs.plan import render_plan

    arms = {rendered.arm.name: rendered.facts for rendered in render_plan(plan)}
    check_judges(judging, RunInfo(run_id="", kind="eval", arms=arms))


def finish(run: Path, judging: JudgeOptions | None, form: str) -> None:
    """Score by rule, have judges rate, print the table; exit 3 when something failed or is missing."""
    from lem.benchmarks.scoring import score_benchmarks
    from lem.cli.benchmark import refuse_incomplete
    from lem.cli.eval_table import print_table
    from lem.cli.judging import rate_run, refuse_unjudged
    from lem.records import read_run
    from lem.runs.conduct import count_cells

    score_benchmarks(run)
    graded = rate_run(run, judging) if judging is not None else []
    counts = count_cells(*read_run(run))
    print_table(run, form)
    if form == "table":
        _say_next(run, judged=bool(graded))
    refuse_incomplete(counts)
    refuse_unjudged(graded)


def _say_next(run: Path, *, judged: bool) -> None:
    """The commands that go on from here, one a line."""
    from lem.benchmarks.plan import judged_tasks
    from lem.records.run import read_manifest

    where, info = display_path(run), read_manifest(run)
    waiting = judged_tasks(list(info.data.get("tasks", {}))) if not judged else []
    if waiting:
        click.echo(f"not rated: {', '.join(waiting)}")
    click.echo(f"next: ./lem report {where}")
    if len(info.arms) > 1:
        click.echo(f"      ./lem compare {where}")
    if waiting:
        click.echo(f"      ./lem judge grade {where} --judge SPEC")
    if judged:
        click.echo(f"      ./lem judge audit {where} --judge SPEC")


def _print_dry_run(plan: RunPlan, run: Path, as_json: bool) -> None:
    from lem.benchmarks.plan import judged_tasks
    from lem.runs.plan import preview

    facts = {"run": display_path(run), "tasks": plan.data["tasks"], **preview(plan)}
    if as_json:
        print_json(facts)
        return
    click.echo(f"run directory   {facts['run']}")
    for task, said in facts["tasks"].items():
        click.echo(f"  {task:<14} {said['n']:>5} items ({said.get('source', '')})")
    click.echo(f"answers         {facts['n_requests']} by {facts['n_arms']} arms, x {facts['repeats']} repeats")
    click.echo(f"prompt tokens   {facts['prompt_tokens']} in all, {facts['prefill_tokens']} with shared prefixes")
    click.echo(f"new tokens      at most {facts['max_new_tokens']}")
    if waiting := judged_tasks(list(facts["tasks"])):
        click.echo(f"for a judge     {', '.join(waiting)}")
    click.echo(f"\none rendered prompt ({facts['example']['arm']}, {facts['example']['probe_id']}):\n")
    click.echo(facts["example"]["text"])
