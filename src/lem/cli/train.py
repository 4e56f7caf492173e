"""`lem train`, and `lem fuse` and `lem convert`, which call mlx-lm for now."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lem.cli.options import existing_path, json_option, model_option, print_json, progress, seed_option
from lem.errors import Incomplete, UserError
from lem.paths import display_path


@click.command("train")
@model_option
@click.option("--data", metavar="DIR", help="Folder with train.jsonl and valid.jsonl.  [default: config]")
@click.option("--adapter-path", metavar="DIR", help="Where the adapter goes; must be new.  [default: config]")
@click.option("--iters", type=click.IntRange(min=1), help="Optimiser steps.  [default: config, 200]")
@click.option("--batch-size", type=click.IntRange(min=1), help="Conversations a step.  [default: config, 2]")
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Adam step.  [default: config, 1e-5]"
)
@click.option("--num-layers", type=int, help="LoRA layers from the top; -1 is all; clamped.  [default: config, 16]")
@click.option("--rank", type=click.IntRange(min=1), help="LoRA rank.  [default: config, 8]")
@click.option("--scale", type=float, help="LoRA scale, used as is.  [default: config, 20]")
@click.option(
    "--dropout", type=click.FloatRange(min=0, max=1, max_open=True), help="LoRA dropout.  [default: config, 0]"
)
@click.option("--max-seq-length", type=click.IntRange(min=8), help="Longest row in tokens.  [default: config, 2048]")
@click.option("--save-every", type=click.IntRange(min=1), help="Checkpoint interval.  [default: config, 50]")
@click.option("--mask-prompt/--no-mask-prompt", default=True, show_default=True, help="Loss on the reply only.")
@click.option("--trainer", type=click.Choice(["lem", "mlx-lm"]), default="lem", show_default=True, help="Whose loop.")
@seed_option
@json_option
def train(
    model: str | None, data: str | None, adapter_path: str | None, trainer: str, as_json: bool, **given: Any
) -> None:
    """Train a LoRA adapter; mlx-lm reads the result."""
    from lem.config import load_config, resolve_model

    config = load_config()
    settings = training_settings(config, given)
    output = existing_path(adapter_path) if adapter_path else Path(config.training.adapter_path)
    folder = existing_path(data) if data else Path(config.training_dir)
    base = resolve_model(config, model)
    if trainer == "mlx-lm":
        from lem.training.mlx_lm_trainer import train_with_mlx_lm

        train_with_mlx_lm(base, folder, output, settings)
        click.echo(f"adapter: {display_path(output)} (trained by mlx-lm's loop)")
        return
    report = train_with_progress(base, folder, output, settings)
    print_json(asdict(report)) if as_json else click.echo(describe(report))


def training_settings(config: Any, given: dict[str, Any]) -> Any:
    """Options that were given override the configuration's training section."""
    from lem.training.train import TrainingSettings

    defaults = config.training
    names = (
        "iters", "batch_size", "learning_rate", "num_layers", "rank", "scale", "dropout", "max_seq_length",
        "save_every", "grad_clip",
    )  # fmt: skip
    values = {name: getattr(defaults, name) if given.get(name) is None else given[name] for name in names}
    seed = config.seed if given.get("seed") is None else given["seed"]
    return TrainingSettings(**values, seed=seed, mask_prompt=given.get("mask_prompt", True))


def train_with_progress(base: str, data: Path, output: Path, settings: Any) -> Any:
    """Load the model and train with a progress bar that shows loss and speed."""
    from lem.chat.load import load
    from lem.training.train import refuse_occupied, train

    refuse_occupied(output)
    chat = load(base)
    state = {"step": 0, "valid": ""}
    with progress("training", settings.iters, "steps") as advance:

        def on_metric(metric: dict[str, Any]) -> None:
            if metric["kind"] == "valid":
                state["valid"] = f"valid {metric['loss']:.3f}"
                advance(0, note=state["valid"])
                return
            note = f"loss {metric['loss']:.3f}  {metric['tokens_per_s']:.0f} tok/s  {state['valid']}"
            advance(metric["iteration"] - state["step"], note=note)
            state["step"] = metric["iteration"]

        try:
            return train(chat, data, output, settings, on_metric)
        except KeyboardInterrupt:
            raise Incomplete(
                f"interrupted after iteration {state['step']}; checkpoints so far are in {display_path(output)}. "
                "Training cannot go on from them yet: start again with a new --adapter-path."
            ) from None


def describe(report: Any) -> str:
    """Two sentences about a finished training."""
    dropped = f", {report.n_dropped} dropped, {report.n_truncated} cut" if report.n_dropped + report.n_truncated else ""
    valid = ""
    if report.valid_before is not None:
        valid = f"validation loss {report.valid_before:.4f} -> {report.valid_after:.4f} nats per reply token, "
    return (
        f"adapter: {display_path(Path(report.adapter_path))} ({report.num_layers} layers, "
        f"{report.n_trainable:,} trainable parameters, {report.n_train} examples{dropped})\n"
        f"{valid}{report.tokens_per_s:.0f} reply tokens/s"
    )


@click.command("fuse")
@model_option
@click.option("--adapter", required=True, metavar="DIR", help="Adapter to merge.")
@click.option("--output", required=True, metavar="DIR", help="Folder for the fused model; must be new.")
def fuse(model: str | None, adapter: str, output: str) -> None:
    """Merge an adapter into its base (through mlx-lm; quantised bases may lose the adapter when requantised)."""
    from lem.config import load_config, resolve_model
    from lem.training.fuse import fuse_adapter

    target = existing_path(output)
    quantised = fuse_adapter(resolve_model(load_config(), model), existing_path(adapter), target)
    click.echo(f"fused model: {display_path(target)}")
    if quantised:
        click.echo("Warning: the base is quantised; rounding can undo the adapter. Compare with --adapter.", err=True)


@click.command("convert")
@model_option
@click.option("--output", required=True, metavar="DIR", help="Folder for the converted model; must be new.")
@click.option("--to", "target", type=click.Choice(["mlx"]), default="mlx", show_default=True, help="Target format.")
@click.option(
    "-q", "--quantize", "bits", type=click.Choice(["2", "3", "4", "6", "8"]), help="Quantise to this many bits."
)
def convert(model: str | None, output: str, target: str, bits: str | None) -> None:
    """Convert a model to MLX format (through mlx-lm), optionally quantised."""
    from lem.config import load_config, resolve_model
    from lem.training.fuse import convert_model

    folder = existing_path(output)
    if folder.exists():
        raise UserError(f"{folder} exists; choose a new --output, nothing was touched.")
    convert_model(resolve_model(load_config(), model), folder, None if bits is None else int(bits))
    click.echo(f"converted model: {display_path(folder)}")
