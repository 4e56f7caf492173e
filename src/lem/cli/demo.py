"""`lem demo`: train, A/B, score and report, start to end; a second run resumes what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import existing_path, model_option, seed_option
from lem.paths import display_path

if TYPE_CHECKING:
    from lem.config import Config
    from lem.runs.plan import RunPlan

NANO_TOKENS = 192
PRIMARY = "v2:trained"
DECLARED = ("arms", "baseline", "primary", "margins", "exclusions", "probes", "probe_sha", "repeats", "settings")


@click.command("demo")
@model_option
@click.option("--max-tokens", type=click.IntRange(min=1), help="Token limit of an answer.  [default: 192 for lem-nano]")
@click.option("--iters", type=click.IntRange(min=1), help="Training steps.  [default: config, 200]")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Peak rate of AdamW.  [default: config, 1e-5]",
)
@click.option("--limit", type=int, metavar="N", help="Use the first N probes only.")
@click.option("--output", metavar="DIR", help="Run directory.  [default: runs/benchmark/demo-...]")
@seed_option
def demo(
    model: str | None, max_tokens: int | None, iters: int | None, learning_rate: float | None, limit: int | None,
    output: str | None, seed: int | None,
) -> None:  # fmt: skip
    """Train a LoRA on the kernel set, then A/B base, kernels, placebos and trained over the probes; score; report."""
    from lem.config import load_config, resolve_model

    config = load_config()
    base = resolve_model(config, model)
    toy = base.rstrip("/").endswith("lem-nano")
    adapter = _train(config, base, {"iters": iters, "learning_rate": learning_rate, "seed": seed})
    tokens = max_tokens or (NANO_TOKENS if toy else config.max_tokens)
    run = _benchmark(config, base, adapter, tokens, limit, output, seed)
    page = _score_and_report(run, config.scoring.delta)
    click.echo(f"report page: {display_path(page)}   (open it in a browser)")


def _train(config: Config, base: str, given: dict[str, Any]) -> Path:
    from lem.cli.train import describe, train_with_progress
    from lem.cli.training_options import recipe
    from lem.studies.demo import adapter_folder, held_out_loss, train_once

    start = perf_counter()
    data = Path(config.training_dir)
    settings = recipe(config, None, given)
    folder = adapter_folder(Path(config.adapter_dir), base, data, settings)
    click.echo(
        f"1/3 train: LoRA on {display_path(data)}, {settings.iters} iterations of {settings.batch_size}, "
        f"learning rate {settings.learning_rate:g}"
    )
    report = train_once(folder, lambda partial: train_with_progress(config, base, data, partial, settings, resume=True))
    if report is None:
        click.echo(f"adapter: {display_path(folder)} (already trained)")
    else:
        click.echo(describe(replace(report, adapter_path=str(folder))))
        loss = held_out_loss(base, folder, data / "test.jsonl")
        change = loss.change.difference
        click.echo(
            f"held-out loss {loss.base.value:.4f} -> {loss.trained.value:.4f}, change {change.value:+.4f} "
            f"[{change.low:+.4f}, {change.high:+.4f}] over {change.n} examples   ({perf_counter() - start:.0f} s)"
        )
    return folder


def _benchmark(
    config: Config, base: str, adapter: Path, tokens: int, limit: int | None, output: str | None, seed: int | None
) -> Path:
    from lem.cli.benchmark import execute_with_progress, make_plan, refuse_incomplete
    from lem.records import read_run
    from lem.runs.conduct import count_cells

    start = perf_counter()
    kernels = Path(config.kernel_dir)
    plan = make_plan(
        config, model=base, kernels=(f"json={config.default_kernel}", f"txt={kernels / 'lek-1-kernel.txt'}"),
        adapters=(f"trained={adapter}",), trained=(), placebo=True, only=(), prompts=None, repeats=1,
        max_tokens=tokens, temperature=None, top_p=None, inject=None, limit=limit, group_size=None, strict=False,
        seed=seed,
    )  # fmt: skip
    plan, run = _declare(config, plan, adapter, existing_path(output) if output else None)
    names = ", ".join(arm.name for arm in plan.arms)
    click.echo(f"\n2/3 benchmark: {names} over {len(plan.probes)} probes, up to {tokens} tokens")
    execute_with_progress(plan, run)
    counts = count_cells(*read_run(run))
    click.echo(
        f"{display_path(run)}: {counts['answered']} answers, {counts['failed']} failed, {counts['missing']} missing, "
        f"{counts['truncated']} truncated   ({perf_counter() - start:.0f} s)"
    )
    refuse_incomplete(counts)
    return run


def _declare(config: Config, plan: RunPlan, adapter: Path, output: Path | None) -> tuple[RunPlan, Path]:
    """Declare the demo's one primary contrast before anything is generated; returns the plan and its run directory."""
    from lem.ab.plan import Options, make_plan_document
    from lem.ab.plan_file import read_plan, write_plan

    runs, stem = Path(config.runs_dir) / "benchmark", f"demo-{adapter.name.removeprefix('demo-')}"
    beside = output if output else runs / f"{stem}-{plan.short_hash}-{len(plan.probes)}"
    document = make_plan_document(plan, Options(baseline="base", primary=(PRIMARY,)))
    file = beside.with_name(f"{beside.name}.plan.json")
    stored = read_plan(file) if file.is_file() else {}
    # what is foretold may change with a newer version, what was declared may not
    same = bool(stored) and all(stored[part] == document[part] for part in DECLARED)
    plan = replace(plan, declared=stored if same else write_plan(file, document))
    return plan, beside


def _score_and_report(run: Path, threshold: float) -> Path:
    from rich.console import Console

    from lem.ab.comparison_file import COMPARISON_NAME
    from lem.cli.compare import make_comparison
    from lem.cli.score import leaderboards, score_inputs
    from lem.records import read_contents
    from lem.reports import tables, write_report
    from lem.scorers.highlight import highlights

    click.echo("\n3/3 score and report")
    (item,) = score_inputs([run], ["v2", "v3", "v1"])
    boards = leaderboards(item, None, threshold)
    console = Console(highlight=False)
    console.print(tables.leaderboard_rich(boards["v2"]))
    document, _ = make_comparison([(run.name, read_contents(run))], [run], run / COMPARISON_NAME)
    primary = [row["verdict"]["sentence"] for row in document["contrasts"] if row["family"] == "primary"]
    console.print("\nverdict on the one primary contrast: " + " ".join(primary), markup=False)
    click.echo(f"({document['n_exploratory']} exploratory ones, and all that stands against them: ")
    click.echo(f" ./lem compare {display_path(run)})\n")
    return write_report(run, None, threshold=threshold, highlights=highlights())
