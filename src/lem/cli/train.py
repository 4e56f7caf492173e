"""`lem train`: a recipe, a data folder, and an adapter directory that mlx-lm reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import existing_path, json_option, model_option, print_json, seed_option
from lem.cli.training_options import read_sandwich, recipe, recipe_options
from lem.errors import UserError
from lem.paths import display_path

if TYPE_CHECKING:
    from lem.config import Config
    from lem.training.dataset import Sandwich
    from lem.training.settings import TrainingSettings
    from lem.training.train import TrainingReport


@dataclass(frozen=True)
class Scoring:
    """Which probes an `--eval-every` answers: the file, how many of them, and the token limit."""

    prompts: str | None
    limit: int | None
    max_tokens: int


@click.command("train")
@model_option
@click.option("--data", metavar="DIR", help="Folder with train.jsonl and valid.jsonl.  [default: config]")
@click.option("--adapter-path", metavar="DIR", help="Where the adapter goes; must be new.  [default: config]")
@click.option("--resume", is_flag=True, help="Go on with the training in --adapter-path, from its last checkpoint.")
@click.option("--from-adapter", metavar="DIR", help="Begin with this adapter's weights, to train it further.")
@click.option("--preset", metavar="NAME", help="A recipe of training/presets, or a .yaml file; options override it.")
@recipe_options
@click.option("--format", type=click.Choice(["freeflow", "sandwich"]), help="Prompt in a kernel?  [default: freeflow]")
@click.option("--kernel", metavar="PATH", help="Kernel of the sandwich.  [default: config]")
@click.option("--eval-prompts", metavar="PATH", help="Probes of --eval-every.  [default: P01-P20.json of the seeds]")
@click.option("--eval-limit", type=click.IntRange(min=1), metavar="N", help="The first N of them.")
@click.option("--eval-max-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Of an answer.")
@click.option("--track", metavar="SPEC", help="Also send metrics to a local tracker: trackio[:PROJECT].")
@click.option("--trainer", type=click.Choice(["lem", "mlx-lm"]), default="lem", show_default=True, help="Whose loop.")
@click.option("--child/--no-child", default=None, help="Train in a child process.  [default: on Metal]")
@click.option("--dry-run", is_flag=True, help="Print rows, steps and the memory estimate; train nothing.")
@seed_option
@json_option
@click.pass_context
def train(
    ctx: click.Context, /, model: str | None, data: str | None, adapter_path: str | None, resume: bool,
    from_adapter: str | None, preset: str | None, kernel: str | None, eval_prompts: str | None, eval_limit: int | None,
    eval_max_tokens: int, track: str | None, trainer: str, child: bool | None, dry_run: bool, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Train an adapter: LoRA, DoRA, LoRA on a quantised base, or the blocks in full; mlx-lm reads the result."""
    from lem.config import load_config, resolve_model

    config = load_config()
    settings = recipe(config, preset, given)
    sandwich = read_sandwich(config, settings, kernel)
    output = existing_path(adapter_path) if adapter_path else Path(config.training.adapter_path)
    folder = existing_path(data) if data else Path(config.training_dir)
    base = resolve_model(config, model)
    if dry_run:
        _print_preview(config, base, folder, settings, sandwich, as_json)
        return
    if trainer == "mlx-lm":
        _refuse_ours(resume=resume, from_adapter=from_adapter, kernel=kernel, track=track, json=as_json, child=child)
        _train_with_mlx_lm(base, folder, output, settings)
        return
    if not settings.eval_every:
        _refuse_without_scoring(eval_prompts=eval_prompts, eval_limit=eval_limit)
    from lem.chat.device import on_metal
    from lem.training.child import end_with_parent, is_child, supervise
    from lem.training.ranks import here

    if is_child():
        end_with_parent()
    elif child if child is not None else on_metal():
        ctx.exit(supervise(ctx.find_root().obj["arguments"], output))
    report = train_with_progress(
        config, base, folder, output, settings, sandwich=sandwich, resume=resume, track=track,
        from_adapter=existing_path(from_adapter) if from_adapter else None,
        scoring=Scoring(eval_prompts, eval_limit, eval_max_tokens),
    )  # fmt: skip
    if not here().first:
        return
    if as_json:
        print_json(asdict(report))
        return
    if report.was_finished:
        click.echo("this training was finished already, nothing was done")
    click.echo(describe(report))


def _refuse_ours(**given: object) -> None:
    """Refuse options that mlx-lm's loop has no use for."""
    for name, value in given.items():
        if value not in (None, False):
            raise UserError(f"--trainer mlx-lm has no --{name.replace('_', '-')}; leave it out.")


def _refuse_without_scoring(**given: object) -> None:
    """Refuse options of the scoring on the way where there is none."""
    for name, value in given.items():
        if value is not None:
            raise UserError(f"--{name.replace('_', '-')} is for --eval-every; give that too.")


def _print_preview(
    config: Config, base: str, folder: Path, settings: TrainingSettings, sandwich: Sandwich | None, as_json: bool
) -> None:
    from lem.chat.load import load
    from lem.training.preview import preview

    found = preview(load(base), folder, settings, sandwich, _seeds(config))
    if as_json:
        print_json(found)
        return
    left = found["dropped"] + found["too_long"]
    click.echo(
        f"{found['model']}: {found['method']} on {found['layers']} layers, {found['trainable']:,} of "
        f"{found['parameters']:,} parameters\n"
        f"data: {found['rows']} rows ({left} left out, {found['truncated']} with a shortened prompt), "
        f"{found['tokens']:,} tokens, {found['trained_tokens']:,} trained; {found['valid_rows']} rows for validation\n"
        f"steps: {found['iterations']} ({found['steps_per_epoch']} an epoch), {found['sequences']} sequences, "
        f"{found['padding']:.0%} padding; longest batch {found['longest_batch'][0]} x {found['longest_batch'][1]}\n"
        f"memory beyond the weights: about {found['memory_gb']:.1f} GB, {found['free_gb']:.1f} GB are free"
    )


def _train_with_mlx_lm(base: str, folder: Path, output: Path, settings: TrainingSettings) -> None:
    from lem.training.mlx_lm_trainer import train_with_mlx_lm

    train_with_mlx_lm(base, folder, output, settings)
    click.echo(f"adapter: {display_path(output)} (trained by mlx-lm's loop)")


def _seeds(config: Config) -> list[Path]:
    """The probes that training data must not hold; none where there is no seeds folder."""
    folder = Path(config.seeds_dir)
    return [folder] if folder.is_dir() else []


def train_with_progress(
    config: Config, base: str, data: Path, output: Path, settings: TrainingSettings, *,
    sandwich: Sandwich | None = None, resume: bool = False, from_adapter: Path | None = None, track: str | None = None,
    scoring: Scoring | None = None,
) -> TrainingReport:  # fmt: skip
    """Load the model and train with the live view, then draw the curve, also of a training that was interrupted."""
    from lem.chat.load import load
    from lem.cli.live import curve_at_end, training_view
    from lem.cli.tracking import open_tracker
    from lem.training.child import device_error
    from lem.training.prepare import refuse_occupied
    from lem.training.ranks import here
    from lem.training.settings import as_json
    from lem.training.train import Hooks, train

    first = here().first
    if first:
        refuse_occupied(output, resume)
    chat = load(base)
    evaluate = None
    if settings.eval_every and scoring is not None and first:
        evaluate = _evaluator(config, chat, settings, scoring, output)
    facts = {"model": base, "data": str(data), **as_json(settings)}
    with (
        open_tracker(track if first else None, facts, name=output.name, resume=resume) as send,
        training_view(settings.iters, "training") as show,
        curve_at_end(output) as draw_later,
    ):

        def on_metric(row: dict[str, Any]) -> None:
            draw_later()
            show(row)
            send(row)

        def on_start(done: int, iters: int) -> None:
            show({"kind": "start", "iteration": done, "iterations": iters})

        hooks = Hooks(on_metric=on_metric, on_evaluate=evaluate, on_start=on_start)
        try:
            return train(
                chat, data, output, settings, resume=resume, from_adapter=from_adapter, sandwich=sandwich,
                seeds=_seeds(config), hooks=hooks,
            )  # fmt: skip
        except RuntimeError as error:
            sentence = device_error(error)
            if sentence is None:
                raise
            raise sentence from error


def _evaluator(
    config: Config, chat: Any, settings: TrainingSettings, scoring: Scoring, output: Path
) -> Callable[[int], dict[str, Any]]:
    from lem.chat.generate import GenerationSettings
    from lem.data.probes import read_probes, refuse_variants
    from lem.studies.checkpoint_scoring import probe_evaluator

    path = existing_path(scoring.prompts) if scoring.prompts else Path(config.seeds_dir) / "P01-P20.json"
    probes = read_probes(path, scoring.limit)
    refuse_variants(probes, path)
    generation = GenerationSettings(scoring.max_tokens, config.temperature, config.top_p)
    return probe_evaluator(chat, probes, generation, settings.seed, output)


def describe(report: TrainingReport) -> str:
    """A few sentences about a finished training: what was left out, the losses, and what went wrong on the way."""
    left = [
        f"{count} {what}"
        for count, what in (
            (report.n_dropped, "without a reply dropped"), (report.n_too_long, "too long dropped"),
            (report.n_truncated, "with a shortened prompt"), (report.n_skipped, "steps skipped"),
            (report.n_rolled_back, "returns to a checkpoint"),
        )
        if count
    ]  # fmt: skip
    lines = [
        f"adapter: {display_path(Path(report.adapter_path))} ({report.method}, {report.num_layers} layers, "
        f"{report.n_trainable:,} trainable parameters, {report.n_train} examples"
        + (f"; {', '.join(left)})" if left else ")")
    ]
    if report.valid_before is not None:
        best = "" if report.best_iteration is None else f", the best, at iteration {report.best_iteration}"
        lines.append(
            f"validation loss {report.valid_before:.4f} -> {report.valid_after:.4f} nats per reply token{best}"
        )
    speed = "" if report.tokens_per_s is None else f", {report.tokens_per_s:.0f} reply tokens/s"
    early = ", stopped early" if report.stopped_early else ""
    lines.append(f"{report.iterations} iterations{early}, {report.trained_tokens:,} reply tokens{speed}")
    return "\n".join(lines)
