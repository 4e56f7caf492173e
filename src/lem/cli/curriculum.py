"""`lem curriculum`: train the phases of a curriculum file, each judged on the probes before the next begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import existing_path, json_option, model_option, print_json
from lem.errors import EXIT_CHECK_FAILED, Incomplete
from lem.paths import display_path, slug

if TYPE_CHECKING:
    from lem.config import Config
    from lem.runs.plan import Arm
    from lem.studies.curriculum import Outcome
    from lem.studies.curriculum_plan import CurriculumPlan
    from lem.studies.curriculum_training import TrainingJob
    from lem.studies.measures import Measures


@click.command("curriculum")
@click.argument("file", metavar="FILE")
@model_option
@click.option("--output", metavar="DIR", help="Where everything goes.  [default: runs/curriculum/MODEL-FILE]")
@click.option("--probes", metavar="FILE", help="Probe file.  [default: the curriculum's]")
@click.option("--limit", type=int, metavar="N", help="Use the first N probes only.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Token limit of an answer.  [default: the curriculum's]")
@click.option("--phase", "only", type=int, multiple=True, metavar="P", help="Train this phase only; repeatable.")
@click.option("--quick", is_flag=True, help="Few iterations, the quick probes: does everything run?")
@click.option("--dry-run", is_flag=True, help="Check the files, print what would be done; train nothing.")
@json_option
@click.pass_context
def curriculum(
    ctx: click.Context,
    /,
    file: str,
    model: str | None,
    output: str | None,
    only: tuple[int, ...],
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Train phase after phase; after each the probes are asked, and gates say: go on, repeat, go back, stop.

    Killed or interrupted, the same command goes on where it stopped. Exit code 0: all gates passed; 1: a gate stopped
    the run; 3: there is more to do.
    """
    from lem.config import load_config
    from lem.studies.curriculum import run_curriculum
    from lem.studies.curriculum_summary import status_of, summary

    plan = _plan(load_config(), existing_path(file), model, output, **options)
    if dry_run:
        _print_dry_run(plan, as_json)
        return 0
    if (status := _in_child(ctx, plan)) is not None:
        return status
    outcome = run_curriculum(plan, _stages(as_json), only=only)
    print_json(summary(plan, outcome.rows)) if as_json else _print_table(plan, outcome)
    # With --phase, the phases that were asked for have passed; that others remain is what was wanted.
    return EXIT_CHECK_FAILED if status_of(outcome.position) == "stopped" else 0


def _plan(
    config: Config, file: Path, model: str | None, output: str | None, *, probes: str | None, limit: int | None,
    max_tokens: int | None, quick: bool,
) -> CurriculumPlan:  # fmt: skip
    from lem.config import resolve_model
    from lem.studies.curriculum_plan import make_plan

    base = resolve_model(config, model)
    name = f"{slug(base)}-{slug(file.stem)}{'-quick' if quick else ''}"
    folder = existing_path(output) if output else Path(config.runs_dir) / "curriculum" / name
    seeds = Path(config.seeds_dir)
    return make_plan(
        config, file, base, folder, probes=existing_path(probes) if probes else None, limit=limit,
        max_tokens=max_tokens, quick=quick, seeds=[seeds] if any(seeds.rglob("*.json")) else [],
        command=("lem", *sys.argv[1:]),
    )  # fmt: skip


def _in_child(ctx: click.Context, plan: CurriculumPlan) -> int | None:
    """On Metal, run this very command in a child process and return its status; None where it is to run here.

    Raises: Incomplete if a signal ended the child.
    """
    from lem.training.child import ChildKilled, end_with_parent, is_child, supervise

    if is_child():
        end_with_parent()
        return None
    from lem.chat.device import on_metal

    if not on_metal():
        return None
    try:
        return supervise(ctx.find_root().obj["arguments"], plan.output)
    except ChildKilled:
        raise Incomplete(
            f"{display_path(plan.output)}: the process was ended from outside (on a Mac mostly the GPU watchdog or a "
            "lack of memory); the same command goes on from the last checkpoint."
        ) from None


def _stages(as_json: bool) -> Any:
    """The slow parts with progress bars; what happens is told on standard output, or on standard error beside JSON."""
    from lem.studies.curriculum import Stages

    return Stages(train=_train, evaluate=_evaluate, tell=lambda sentence: click.echo(sentence, err=as_json))


def _train(job: TrainingJob) -> object:
    """Train with the live view and draw the curve, whatever the end is."""
    from lem.cli.live import curve_at_end, training_view
    from lem.studies.curriculum_training import train_job
    from lem.training.child import device_error

    with training_view(job.settings.iters, job.label) as show, curve_at_end(job.output) as draw_later:

        def on_metric(row: dict[str, Any]) -> None:
            draw_later()
            show(row)

        try:
            return train_job(job, on_metric, lambda step: show({"kind": "start", "iteration": step}))
        except RuntimeError as error:
            if device_error(error) is None:
                raise
            raise Incomplete(
                f"the device gave up while {job.label} was training ({' '.join(str(error).split())[:160]}); the same "
                "command goes on from the last checkpoint, or start a new --output with a smaller batch_size."
            ) from error


def _evaluate(plan: CurriculumPlan, arms: Sequence[Arm]) -> dict[str, Measures]:
    from lem.cli.benchmark import execute_with_progress
    from lem.studies.curriculum_arms import evaluate

    return evaluate(plan, arms, execute_with_progress)


def _print_table(plan: CurriculumPlan, outcome: Outcome) -> None:
    from rich.console import Console

    from lem.reports.curriculum_table import curriculum_rich
    from lem.studies.curriculum_summary import status_of, table_head, table_rows

    click.echo()
    Console(highlight=False).print(curriculum_rich(table_rows(plan, outcome.rows), table_head(plan)))
    where = display_path(plan.output)
    click.echo(f"\ntable: {where}/curriculum.md   plot: {where}/curriculum.png   answers: ./lem report {where}/eval")
    position = outcome.position
    if position.chain:
        click.echo(f"adapter: {display_path(plan.folder(position.chain[-1]))} (phase {position.chain[-1].label})")
    last = outcome.rows[-1]
    if status_of(position) == "stopped":
        click.echo(f"Stopped: {last['sentence']}.")
    elif position.next is not None:
        click.echo(f"Next: phase {position.next.label}; the same command without --phase goes on.")
    else:
        click.echo("All phases passed their gates.")


def _print_dry_run(plan: CurriculumPlan, as_json: bool) -> None:
    from lem.studies.curriculum_plan import preview

    facts = preview(plan)
    if as_json:
        print_json(facts)
        return
    click.echo(f"output    {facts['output']}\nmodel     {facts['model']}")
    asked = f"{facts['n_arms']} arms x {facts['n_probes']} probes of up to {plan.generation.max_tokens} tokens"
    click.echo(f"asking    {asked}, if no phase is repeated")
    for phase in facts["phases"]:
        settings = phase["settings"]
        gates = [*(["target"] if phase["target"] else []), *(gate["gate"] for gate in phase["gates"])]
        click.echo(
            f"phase {phase['number']}   {phase['name']}: {phase['format']}, {phase['n_examples']} examples, "
            f"{settings['iters']} steps of {settings['batch_size']}, learning rate {settings['learning_rate']:g}; "
            f"asked {phase['asked']}; gates: {', '.join(gates) or 'none'}"
        )
