"""`lem train`: LoRA on the kernel set with the published defaults, in a plain loop of our own.

Adapter directory (mlx-lm reads it): adapter_config.json, adapters.safetensors, 0000050_adapters.safetensors, ...
and metrics.jsonl. The configuration carries provenance: base weights, template, data and seed.
Source of the recipe: the published LEM training runs (200 iterations, batch 2, 1e-5, rank 8, scale 20).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from lem.chat.load import ChatModel, file_sha
from lem.errors import LemError, UserError
from lem.records import JsonlStore, lock_directory, write_atomic
from lem.training.dataset import RowSet, batches, encode_file
from lem.training.loss import batch_arrays, evaluate_loss, number, reply_loss


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe. `num_layers` counts from the top, -1 is all, more than the model has is clamped to all."""

    iters: int = 200
    batch_size: int = 2
    learning_rate: float = 1e-5
    num_layers: int = 16
    rank: int = 8
    scale: float = 20.0
    dropout: float = 0.0
    max_seq_length: int = 2048
    mask_prompt: bool = True
    grad_clip: float = 1.0
    save_every: int = 50
    report_every: int = 10
    eval_every: int = 50
    seed: int = 42


@dataclass(frozen=True)
class TrainingReport:
    """What a run of the trainer did: layers used, rows used and dropped, first and last validation loss.

    The losses are None when the data have no valid.jsonl.
    """

    adapter_path: str
    num_layers: int
    n_trainable: int
    n_train: int
    n_dropped: int
    n_truncated: int
    valid_before: float | None
    valid_after: float | None
    tokens_per_s: float


Metric = dict[str, Any]


def clamp_layers(wanted: int, depth: int) -> int:
    """Layers to adapt: -1 or more than the model has means all.   Raises: UserError for 0 or below -1."""
    if wanted == 0 or wanted < -1:
        raise UserError(f"--num-layers must be -1 (all) or at least 1 (got {wanted}).")
    return depth if wanted == -1 else min(wanted, depth)


def train(
    chat: ChatModel,
    data: Path,
    output: Path,
    settings: TrainingSettings,
    on_metric: Callable[[Metric], None] = lambda metric: None,
) -> TrainingReport:
    """Train a LoRA adapter on `data`/train.jsonl (validated on valid.jsonl if there) into the empty `output`.

    Args:  chat: a model loaded without adapter; its module is changed.  on_metric: called with each metrics row.
    Raises: UserError if `output` is not empty or the data are unusable; LemError on a non-finite loss or gradient,
            after which the last checkpoint is still on disk.
    """
    refuse_occupied(output)
    train_rows = encode_file(chat, data / "train.jsonl", settings.max_seq_length, mask_prompt=settings.mask_prompt)
    valid_rows = None
    if (data / "valid.jsonl").exists():
        valid_rows = encode_file(chat, data / "valid.jsonl", settings.max_seq_length, mask_prompt=settings.mask_prompt)
    layers = clamp_layers(settings.num_layers, len(chat.model.layers))
    with lock_directory(output):
        n_trainable = _add_lora(chat.model, settings, layers)
        write_atomic(output / "adapter_config.json", _adapter_config(chat, data, settings, layers))
        with JsonlStore(output / "metrics.jsonl") as metrics:

            def report(metric: Metric) -> None:
                metrics.append(metric)
                on_metric(metric)

            before = _validate(chat.model, valid_rows, output, settings, 0, report)
            rate = _loop(chat.model, train_rows, valid_rows, output, settings, report)
            after = _validate(chat.model, valid_rows, output, settings, settings.iters, report)
        save_adapter(chat.model, output / "adapters.safetensors")
    return TrainingReport(
        str(output), layers, n_trainable, len(train_rows.rows), train_rows.n_dropped, train_rows.n_truncated,
        before, after, rate,
    )  # fmt: skip


def refuse_occupied(output: Path) -> None:
    """Refuse to train into a directory that holds anything.   Raises: UserError."""
    if output.exists() and (not output.is_dir() or any(entry.name != ".lock" for entry in output.iterdir())):
        raise UserError(f"{output} is not empty; choose another --adapter-path or remove it, nothing was touched.")


def _add_lora(model: Any, settings: TrainingSettings, layers: int) -> int:
    """Freeze the model and put seeded LoRA layers on its last `layers` blocks; return the trainable parameters."""
    mx.random.seed(settings.seed)
    model.freeze()
    parameters = {"rank": settings.rank, "scale": settings.scale, "dropout": settings.dropout}
    linear_to_lora_layers(model, layers, parameters)
    mx.eval(model.parameters())
    weights = dict(tree_flatten(model.trainable_parameters()))
    return sum(int(value.size) for value in weights.values())


def _loop(
    model: Any, train_rows: RowSet, valid_rows: RowSet | None, output: Path, settings: TrainingSettings,
    report: Callable[[Metric], None],
) -> float:  # fmt: skip
    """Run the optimiser steps, report, validate and save checkpoints; return the mean trained tokens per second."""
    optimizer = optim.Adam(learning_rate=settings.learning_rate)
    value_and_grad = nn.value_and_grad(model, reply_loss)
    stream = batches(train_rows.rows, settings.batch_size, settings.seed)
    model.train()
    losses, tokens, seconds, all_tokens, all_seconds = [], 0.0, 0.0, 0.0, 0.0
    for step in range(1, settings.iters + 1):
        start = perf_counter()
        mx.random.seed(step_seed(settings.seed, step))
        (loss, count), gradient = value_and_grad(model, *batch_arrays(next(stream)))
        gradient, norm = optim.clip_grad_norm(gradient, settings.grad_clip)
        mx.eval(loss, norm, gradient)
        value, weight, gradient_norm = number(loss), number(count), number(norm)
        if not (math.isfinite(value) and math.isfinite(gradient_norm)):
            raise _not_finite("loss or gradient", output, step)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state)
        losses.append((value, weight))
        seconds, tokens = seconds + perf_counter() - start, tokens + weight
        if step % settings.report_every == 0 or step == settings.iters:
            mean = sum(loss_ * n for loss_, n in losses) / sum(n for _, n in losses)
            report({"kind": "train", "iteration": step, "loss": mean, "grad_norm": gradient_norm,
                    "tokens_per_s": tokens / seconds, "peak_memory_gb": mx.get_peak_memory() / 1e9})  # fmt: skip
            all_tokens, all_seconds = all_tokens + tokens, all_seconds + seconds
            losses, tokens, seconds = [], 0.0, 0.0
        if step % settings.save_every == 0:
            save_adapter(model, output / f"{step:07d}_adapters.safetensors")
        if step % settings.eval_every == 0 and step != settings.iters:
            _validate(model, valid_rows, output, settings, step, report)
    return all_tokens / all_seconds


def step_seed(seed: int, step: int) -> int:
    """Seed of one optimiser step's random numbers (dropout), so that no random state need be saved."""
    return hash((seed, step)) & 0x7FFFFFFFFFFFFFFF


def _validate(
    model: Any, rows: RowSet | None, output: Path, settings: TrainingSettings, step: int,
    report: Callable[[Metric], None],
) -> float | None:  # fmt: skip
    if rows is None:
        return None
    loss = evaluate_loss(model, rows.rows, settings.batch_size)
    if not math.isfinite(loss):
        raise _not_finite("validation loss", output, step)
    report({"kind": "valid", "iteration": step, "loss": loss})
    return loss


def _not_finite(what: str, output: Path, step: int) -> LemError:
    return LemError(
        f"{output}: the {what} is not finite at iteration {step}; lower --learning-rate. Earlier checkpoints are kept."
    )


def save_adapter(model: Any, path: Path) -> None:
    """Write the trainable weights to a safetensors file, moved into place when whole.   Raises: LemError for NaN."""
    weights = dict(tree_flatten(model.trainable_parameters()))
    if not all(mx.all(mx.isfinite(value)).item() for value in weights.values()):
        raise LemError(
            f"{path}: the weights are not finite any more; lower --learning-rate. Earlier checkpoints are kept."
        )
    temporary = path.with_name(f".{path.stem}.tmp.safetensors")
    try:
        mx.save_safetensors(str(temporary), weights, metadata={"format": "mlx"})
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: could not write the checkpoint ({error}); make room on the disk.") from None


def _adapter_config(chat: ChatModel, data: Path, settings: TrainingSettings, layers: int) -> str:
    """The adapter's configuration: mlx-lm's keys, our settings, and where everything came from."""
    files = {name: file_sha(data / name) for name in ("train.jsonl", "valid.jsonl") if (data / name).is_file()}
    config = {
        "fine_tune_type": "lora",
        "num_layers": layers,
        "lora_parameters": {"rank": settings.rank, "scale": settings.scale, "dropout": settings.dropout},
        "model": chat.name,
        "base_model_sha": chat.model_sha,
        "data": str(data),
        "data_sha": files,
        "training": asdict(settings),
    }
    return json.dumps(config, indent=1) + "\n"
