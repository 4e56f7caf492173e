"""`lem distill`: a model answers seed prompts with a kernel in front; the best answers become training data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import answer_progress, existing_path, json_option, model_option, print_json, seed_option
from lem.errors import CheckFailed, Incomplete
from lem.paths import display_path, slug

if TYPE_CHECKING:
    from lem.config import Config
    from lem.runs.plan import RunPlan
    from lem.training.distil import Distillation
    from lem.training.distil_filters import Filters

REMEDIES = {
    "truncated": "raise --max-tokens",
    "degenerate": "lower --temperature or take a larger model",
    "unscored": "take --scorer v2, which reads every text",
    "below-threshold": "lower --threshold (nothing is generated anew for that) or raise --samples",
    "kernel-text": "put the kernel elsewhere with --inject, or raise --samples",
    "probe-text": "take other --prompts",
}


@click.command("distill")
@model_option
@click.option("--adapter", metavar="DIR", help="Adapter on the model.")
@click.option("--kernel", metavar="PATH", help="Kernel to answer with.  [default: default_kernel of the config]")
@click.option("--inject", type=click.Choice(["system", "user", "sandwich"]), help="Where the kernel goes.")
@click.option("--prompts", required=True, metavar="FILE", help="Chat examples, {id, prompt} lines, or a JSON array.")
@click.option("--samples", type=click.IntRange(min=1), help="Answers per prompt.  [default: config]")
@click.option("--scorer", type=click.Choice(["v2", "v3"]), default="v2", show_default=True, help="What chooses.")
@click.option("--threshold", type=float, help="Lowest score to keep.  [default: config]")
@click.option(
    "--keep-per-prompt", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
    help="Keep the best N answers of a prompt.",
)  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(min=1), help="Token limit of an answer.  [default: config]")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 is greedy.  [default: config]")
@click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), help="Nucleus mass.  [default: config]")
@click.option("--limit", type=int, metavar="N", help="Use the first N prompts only.")
@click.option("--group-size", type=click.IntRange(min=1), help="Rows decoded together.  [default: from free memory]")
@click.option(
    "--seeds", multiple=True, metavar="PATH",
    help="Evaluation probes to keep out; repeatable.  [default: seeds_dir of the config]",
)  # fmt: skip
@click.option("--output", metavar="DIR", help="Run directory.  [default: runs/distill/<model>-<hash>]")
@click.option("--dry-run", is_flag=True, help="Print counts, tokens and one prompt; generate nothing.")
@seed_option
@json_option
def distill(
    output: str | None, scorer: str, threshold: float | None, keep_per_prompt: int, seeds: tuple[str, ...],
    dry_run: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Answer seed prompts with a kernel in front, keep the best answers, write them as training data.

    Killed or interrupted, the same command goes on where it stopped. With another --threshold, --scorer or
    --keep-per-prompt it chooses anew and generates nothing.
    """
    from lem.config import load_config
    from lem.training.distil import check_plan
    from lem.training.distil_filters import Filters

    config = load_config()
    plan = make_plan(config, **options)
    probes = [existing_path(path) for path in seeds] or [Path(config.seeds_dir)]
    run = existing_path(output) if output else default_run(config, plan)
    level = config.distillation.threshold if threshold is None else threshold
    filters = Filters(scorer, level, keep_per_prompt)
    if dry_run:
        check_plan(plan, filters, probes)
        _print_dry_run(plan, run, as_json)
        return
    made = distil_with_progress(plan, run, filters, probes)
    print_json({**made.summary, "run": display_path(run)}) if as_json else _print_summary(made)
    refuse_unfinished(made)


def make_plan(
    config: Config, *, model: str | None, adapter: str | None, kernel: str | None, inject: Any, prompts: str,
    samples: int | None, max_tokens: int | None, temperature: float | None, top_p: float | None, limit: int | None,
    group_size: int | None, seed: int | None,
) -> RunPlan:  # fmt: skip
    """Turn option values and config defaults into a plan of one arm."""
    from lem.chat.generate import GenerationSettings
    from lem.chat.load import file_sha
    from lem.config import resolve_model
    from lem.data import read_kernel
    from lem.runs.plan import Arm, RunPlan
    from lem.training.distil import ARM
    from lem.training.distil_prompts import read_prompts

    defaults = config.distillation
    prompt_file = existing_path(prompts)
    probes = tuple(read_prompts(prompt_file, limit))
    text = read_kernel(existing_path(kernel) if kernel else Path(config.default_kernel))
    signature = Path(config.kernel_dir) / "lek-1-sig.txt"
    return RunPlan(
        arms=(Arm(ARM, resolve_model(config, model), adapter, text),),
        probes=probes,
        probe_file=display_path(prompt_file),
        probe_sha=file_sha(prompt_file),
        settings=GenerationSettings(
            max_tokens=max_tokens or defaults.max_tokens,
            temperature=defaults.temperature if temperature is None else temperature,
            top_p=top_p or config.top_p,
        ),
        repeats=samples or defaults.samples,
        seed=config.seed if seed is None else seed,
        inject=inject,
        signature=signature.read_text(encoding="utf-8").strip() if signature.is_file() else "",
        group_size=group_size or config.batch_size,
        command=("lem", *sys.argv[1:]),
    )


def default_run(config: Config, plan: RunPlan) -> Path:
    """The run directory of a plan: another model, kernel, prompt file, setting or seed gets another one."""
    return Path(config.runs_dir) / "distill" / f"{slug(plan.arms[0].model)}-{plan.short_hash}"


def distil_with_progress(plan: RunPlan, run: Path, filters: Filters, seeds: list[Path]) -> Distillation:
    """Distil with a progress bar over the answers.   Raises: Incomplete on Ctrl-C."""
    from lem.training.distil import distil

    with answer_progress(len(plan.probes) * plan.repeats) as callbacks:
        return distil(plan, run, filters, seeds, **callbacks)


def refuse_unfinished(made: Distillation) -> None:
    """Exit 3 when answers failed or are missing, 1 when none was kept.   Raises: Incomplete, CheckFailed."""
    summary, run = made.summary, display_path(made.run)
    if summary["failed"] or summary["missing"]:
        raise Incomplete(
            f"{run}: {summary['failed']} answers failed and {summary['missing']} are missing; run the same command "
            "again, what is there is kept."
        )
    if not summary["kept"]:
        counts = {reason: n for reason, n in summary["rejected"].items() if n}
        main = max(counts, key=counts.__getitem__)
        filters, best = summary["filters"], summary["best_score"]
        seen = "no answer could be scored" if best is None else f"the best {filters['scorer']} score was {best:.2f}"
        raise CheckFailed(
            f"{run}: none of {summary['planned']} answers was kept ({_listed(counts)}); {seen} and --threshold is "
            f"{filters['threshold']:g}: {REMEDIES[main]}."
        )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items())


def _print_summary(made: Distillation) -> None:
    summary = made.summary
    click.echo(
        f"{display_path(made.run)}: {summary['kept']} of {summary['planned']} answers kept, of "
        f"{summary['n_prompts_kept']} of {summary['n_prompts']} prompts"
    )
    for reason, n in summary["rejected"].items():
        if n:
            click.echo(f"  {reason:<16} {n:>6}")
    click.echo(f"{summary['duplicate_repeats']} samples equal an earlier sample of their prompt word for word")
    for row in summary["figures"]:
        if row["what"] in (summary["filters"]["scorer"], "words") and row["n"]:
            mean = row["mean"]
            limits = "" if mean["low"] is None else f" [{mean['low']:.2f}, {mean['high']:.2f}]"
            click.echo(f"{row['what']:<6} {row['answers']:<5} mean {mean['value']:.2f}{limits}, max {row['max']:.2f}")
    data = display_path(made.data)
    click.echo(f"training data: {data}/train.jsonl   data card: {data}/DATA_CARD.md")
    if summary["kept"]:
        click.echo(f"next: ./lem data check {data}   ./lem train --data {data}")


def _print_dry_run(plan: RunPlan, run: Path, as_json: bool) -> None:
    from lem.runs.plan import preview

    facts = {"run": display_path(run), **preview(plan)}
    if as_json:
        print_json(facts)
        return
    click.echo(f"run directory   {facts['run']}")
    click.echo(f"answers         {facts['n_probes']} prompts x {facts['repeats']} samples = {facts['n_requests']}")
    click.echo(f"prompt tokens   {facts['prompt_tokens']} in all, {facts['prefill_tokens']} with the shared prefix")
    click.echo(f"new tokens      at most {facts['max_new_tokens']}")
    click.echo(f"\none rendered prompt ({facts['example']['probe_id']}):\n")
    click.echo(facts["example"]["text"])
