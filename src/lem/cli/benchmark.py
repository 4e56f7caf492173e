"""`lem benchmark` (alias `ab`): plan, dry-run or execute an A/B run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.benchmark_plan import choose_arms, choose_probes, planned, read_declared, warn_of_deviations
from lem.cli.options import (
    answer_progress,
    arm_options,
    existing_path,
    json_option,
    model_option,
    print_json,
    seed_option,
)
from lem.errors import Incomplete, UserError
from lem.paths import display_path, slug

if TYPE_CHECKING:
    from lem.config import Config
    from lem.runs.plan import RunPlan


@click.command("benchmark")
@model_option
@arm_options
@click.option("--axioms", multiple=True, type=click.Choice(["prefixes", "leave-one-out"]), help="Arms of kernel parts.")
@click.option("--plan", "plan_file", metavar="FILE", help="Run under this plan of `lem plan`; it fills in settings.")
@click.option("--arm", "only", multiple=True, metavar="NAME", help="Run only these arms of the plan; repeatable.")
@click.option("--prompts", metavar="FILE", help="Probe file.  [default: default_probes of the config]")
@click.option("--output", metavar="PATH", help="Run directory, or X.jsonl for the published format as well.")
@click.option("--repeats", type=click.IntRange(min=1), help="Answers per probe and arm.  [default: 1]")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Token limit of an answer.  [default: config]")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 is greedy.  [default: config]")
@click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), help="Nucleus mass.  [default: config]")
@click.option("--inject", type=click.Choice(["system", "user", "sandwich"]), help="Where kernels go.")
@click.option("--limit", type=int, metavar="N", help="Use the first N probes only.")
@click.option("--group-size", type=click.IntRange(min=1), help="Rows decoded together.  [default: from free memory]")
@click.option("--strict", is_flag=True, help="Decode one row at a time (slow; no batch effects).")
@click.option("--dry-run", is_flag=True, help="Print arms, counts, tokens and one prompt; generate nothing.")
@seed_option
@json_option
def benchmark(output: str | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """A/B run: every arm answers the same probes with the same random streams.

    Killed or interrupted, the same command goes on where it stopped. Under `mlx.launch -n N` the answers are shared
    out over N processes.
    """
    from lem.config import load_config

    config = load_config()
    plan = make_plan(config, **options)
    run, published = output_paths(config, plan, output)
    if dry_run:
        _print_dry_run(plan, run, as_json)
        return
    if not execute_with_progress(plan, run):
        return
    summary = _finish(run, published)
    print_json(summary) if as_json else _print_summary(summary)
    refuse_incomplete(summary)


def refuse_incomplete(counts: dict[str, Any]) -> None:
    """Exit 3 when something failed or is missing, saying in which arms.   Raises: Incomplete."""
    if counts["failed"] or counts["missing"]:
        arms = ", ".join(counts["incomplete_arms"])
        raise Incomplete(
            f"{counts['failed']} failed and {counts['missing']} missing (in {arms}); run the command with these arms "
            "again, what is there is kept."
        )


def make_plan(
    config: Config, *, model: str | None, kernels: tuple[str, ...], adapters: tuple[str, ...],
    trained: tuple[str, ...], placebo: bool, only: tuple[str, ...], prompts: str | None, repeats: int | None,
    max_tokens: int | None, temperature: float | None, top_p: float | None, inject: Any, limit: int | None,
    group_size: int | None, strict: bool, seed: int | None, design: str | None = None,
    adapter_scale: str | None = None, axioms: tuple[str, ...] = (), plan_file: str | None = None,
) -> RunPlan:  # fmt: skip
    """Turn option values, what a plan file says, and config defaults into a plan, in this order of precedence."""
    from lem.ab.arms import select_arms
    from lem.chat.generate import GenerationSettings
    from lem.chat.load import file_sha
    from lem.config import resolve_model
    from lem.runs.plan import RunPlan

    declared = read_declared(plan_file)
    said = planned(declared)
    probe_file = existing_path(prompts or said.get("prompts") or config.default_probes)
    arms = choose_arms(
        config, resolve_model(config, model), kernels=kernels, adapters=adapters, placebo=placebo, design=design,
        trained=[resolve_trained(config, option) for option in trained], adapter_scale=adapter_scale, axioms=axioms,
    )  # fmt: skip
    signature = Path(config.kernel_dir) / "lek-1-sig.txt"
    plan = RunPlan(
        arms=tuple(select_arms(arms, only)),
        probes=tuple(choose_probes(probe_file, limit, {} if prompts else declared)),
        probe_file=display_path(probe_file),
        probe_sha=file_sha(probe_file),
        settings=GenerationSettings(
            max_tokens=_first(max_tokens, said.get("max_tokens"), config.max_tokens),
            temperature=_first(temperature, said.get("temperature"), config.temperature),
            top_p=_first(top_p, said.get("top_p"), config.top_p),
        ),
        repeats=_first(repeats, said.get("repeats"), 1),
        seed=_first(seed, said.get("seed"), config.seed),
        inject=inject,
        signature=signature.read_text(encoding="utf-8").strip() if signature.is_file() else "",
        group_size=1 if strict else group_size or config.batch_size,
        command=("lem", *sys.argv[1:]),
        declared=declared,
    )
    warn_of_deviations(plan, whole=not only)
    return plan


def _first(*values: Any) -> Any:
    """The first value that was given; the last one always is."""
    return next(value for value in values if value is not None)


def resolve_trained(config: Config, option: str) -> str:
    """Look the model of a --trained option up in the configuration's short names."""
    from lem.config import resolve_model

    name, separator, model = option.rpartition("=")
    return f"{name}{separator}{resolve_model(config, model)}"


def output_paths(config: Config, plan: RunPlan, output: str | None) -> tuple[Path, Path | None]:
    """The run directory, and the published-format file when the output ends in .jsonl."""
    runs = Path(config.runs_dir) / "benchmark"
    if output is None:
        return runs / f"{slug(plan.arms[0].model)}-{plan.short_hash}", None
    path = existing_path(output)
    if path.suffix != ".jsonl":
        return path, None
    if path.exists() and not (runs / path.stem / "run.json").exists():
        raise UserError(f"{path} exists and no run of ours made it; choose another --output, nothing was touched.")
    return runs / path.stem, path


def execute_with_progress(plan: RunPlan, run: Path, execute: Callable[..., object] | None = None) -> bool:
    """Run the plan with a progress bar over its cells; under `mlx.launch` its ranks share the work.

    Args:  execute: what executes plans of this kind; default: that of A/B runs.
    Returns: whether this process speaks for the run: alone, or as the first rank.
    """
    from lem.ab.benchmark import run_benchmark
    from lem.runs.shards import here

    ranks = here()
    conducted: Callable[..., object] = execute or run_benchmark
    if not ranks.first:
        conducted(plan, run, ranks=ranks)
        return False
    with answer_progress(len(plan.arms) * len(plan.probes) * plan.repeats) as callbacks:
        conducted(plan, run, ranks=ranks, **callbacks)
    return True


def _finish(run: Path, published: Path | None) -> dict[str, Any]:
    """Count what the run holds; write the published format if asked for."""
    from lem.records import read_run
    from lem.runs.conduct import count_cells

    info, records = read_run(run)
    counts = count_cells(info, records)
    if published is not None:
        from lem.interop.published import write_ab
        from lem.scorers.passes import score_run

        scores = {score.key: score for score in score_run(run, ["v2"])["v2"]}
        write_ab(published, info, records, scores)
    return {"run": display_path(run), "published": published and str(published), "status": info.status, **counts}


def _print_summary(summary: dict[str, Any]) -> None:
    click.echo(
        f"{summary['run']}: {summary['answered']} answers, {summary['failed']} failed, {summary['missing']} missing, "
        f"{summary['truncated']} truncated, {summary['duplicate_repeats']} duplicate repeats"
    )
    if summary["published"]:
        click.echo(f"published format: {summary['published']}")
    click.echo(f"next: ./lem score --input {summary['run']}   ./lem report {summary['run']}")


def _print_dry_run(plan: RunPlan, run: Path, as_json: bool) -> None:
    from lem.runs.plan import preview

    facts = {"run": display_path(run), **preview(plan)}
    if as_json:
        print_json(facts)
        return
    click.echo(f"run directory   {facts['run']}")
    click.echo(f"cells           {facts['n_arms']} arms x {facts['n_probes']} probes x {facts['repeats']} repeats")
    click.echo(f"                = {facts['n_requests']} answers of at most {plan.settings.max_tokens} tokens")
    click.echo(f"prompt tokens   {facts['prompt_tokens']} in all, {facts['prefill_tokens']} with shared prefixes")
    click.echo(f"new tokens      at most {facts['max_new_tokens']}")
    for arm in facts["arms"]:
        click.echo(f"  {arm['name']:<16} {arm['prompt_tokens']:>8} prompt tokens, {arm['shared_prefix']:>5} shared")
    click.echo(f"\none rendered prompt ({facts['example']['arm']}, {facts['example']['probe_id']}):\n")
    click.echo(facts["example"]["text"])
