"""The options that make a recipe, and how configuration, preset and options become one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from lem.config import Config
    from lem.training.dataset import Sandwich
    from lem.training.settings import TrainingSettings

Command = TypeVar("Command", bound=Callable[..., Any])
_AT_LEAST_1 = click.IntRange(min=1)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)
_SHARE = click.FloatRange(min=0, max=1, max_open=True)

# name, type, help: every one overrides the preset, which overrides lem.config.json.
_OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("--method", click.Choice(["lora", "dora", "qlora", "full"]), "What is trained; qlora asks for a quantised base."),
    ("--iters", _AT_LEAST_1, "Optimiser steps.  [default: config, 200]"),
    ("--epochs", _AT_LEAST_1, "Passes over the data, instead of --iters."),
    ("--batch-size", _AT_LEAST_1, "Conversations of a micro-batch.  [default: config, 2]"),
    ("--accumulation", _AT_LEAST_1, "Micro-batches of a step; equals one large batch.  [default: 1]"),
    ("--learning-rate", _ABOVE_0, "Peak rate of AdamW.  [default: config, 1e-5]"),
    ("--schedule", click.Choice(["constant", "linear", "cosine"]), "Rate after the warm-up.  [default: constant]"),
    ("--warmup", _SHARE, "Share of the steps over which the rate rises.  [default: 0]"),
    ("--weight-decay", _SHARE, "Decoupled weight decay.  [default: 0]"),
    ("--grad-clip", _ABOVE_0, "Largest norm of a gradient.  [default: config, 1]"),
    ("--num-layers", int, "Blocks from the top; -1 is all; clamped.  [default: config, -1]"),
    ("--rank", _AT_LEAST_1, "LoRA rank.  [default: config, 8]"),
    ("--scale", float, "LoRA scale, used as is.  [default: config, 20]"),
    ("--alpha", float, "LoRA alpha, instead of --scale: scale = alpha / rank."),
    ("--dropout", _SHARE, "LoRA dropout.  [default: config, 0]"),
    ("--max-seq-length", click.IntRange(min=8), "Longest row in tokens.  [default: config, 2048]"),
    ("--too-long", click.Choice(["truncate", "drop"]), "Shorten a longer prompt, or drop it.  [default: truncate]"),
    ("--save-every", _AT_LEAST_1, "Steps between checkpoints.  [default: config, 50]"),
    ("--report-every", _AT_LEAST_1, "Steps between reports.  [default: 10]"),
    ("--validate-every", _AT_LEAST_1, "Steps between validations.  [default: 50]"),
    ("--patience", click.IntRange(min=0), "Stop after so many validations without a better one.  [default: 0, never]"),
    ("--eval-every", click.IntRange(min=0), "Steps between answers to probes on the way.  [default: 0, never]"),
)  # fmt: skip
_FLAGS: tuple[tuple[str, str], ...] = (
    ("--mask-prompt/--no-mask-prompt", "Loss on the replies only.  [default: --mask-prompt]"),
    ("--pack/--no-pack", "Several rows in one sequence, each seeing itself only.  [default: --no-pack]"),
    ("--grad-checkpoint/--no-grad-checkpoint", "Less memory, a third more time.  [default: --no-grad-checkpoint]"),
    ("--bias-correction/--no-bias-correction", "Of AdamW; mlx-lm's Adam has none.  [default: --bias-correction]"),
)


def recipe_options(command: Command) -> Command:
    """Add the options of a recipe; those that were not given arrive as None."""
    help_text = "Module to adapt, as q_proj or mlp.up_proj; repeatable.  [default: every linear layer]"
    command = click.option("--target", "targets", multiple=True, metavar="NAME", help=help_text)(command)
    for declaration, text in reversed(_FLAGS):
        command = click.option(declaration, default=None, help=text)(command)
    for declaration, kind, text in reversed(_OPTIONS):
        command = click.option(declaration, type=kind, help=text)(command)
    return command


def recipe(config: Config, preset: str | None, given: dict[str, Any]) -> TrainingSettings:
    """Settings from the configuration's training section, then the preset, then the options given."""
    from lem.training.settings import make_settings, read_preset

    section = {name: value for name, value in config.training.model_dump().items() if name != "adapter_path"}
    chosen = {name: value for name, value in given.items() if value not in (None, ())}
    chosen.setdefault("seed", config.seed)
    published = read_preset(preset, Path(config.training_dir) / "presets").settings if preset else {}
    return make_settings(section, published, chosen, where="options")


def read_sandwich(config: Config, settings: TrainingSettings, kernel: str | None) -> Sandwich | None:
    """Kernel and signature of the sandwich format; None for freeflow.   Raises: UserError for a kernel without use."""
    from lem.data import read_kernel
    from lem.errors import UserError
    from lem.training.dataset import Sandwich

    if settings.format != "sandwich":
        if kernel is not None:
            raise UserError("--kernel is for --format sandwich; leave it out or give that format.")
        return None
    text = read_kernel(Path(kernel or config.default_kernel).expanduser(), "kernel").text
    return Sandwich(text, read_signature(config))


def read_signature(config: Config) -> str:
    """The quote that closes a sandwich.   Raises: UserError if the file is missing."""
    from lem.errors import UserError

    path = Path(config.kernel_dir) / "lek-1-sig.txt"
    if not path.is_file():
        raise UserError(f"{path}: no signature for the sandwich format; put one there or set kernel_dir.")
    return path.read_text(encoding="utf-8").strip()
