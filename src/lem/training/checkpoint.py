"""Checkpoints: everything a training needs to go on as if nothing had happened.

    0000050_adapters.safetensors    trainable weights, mlx-lm's name, kept
    0000050_optimizer.safetensors   optimiser state; only the last two are kept
    checkpoint.json                 the commit marker: step, counters, identity, and the hashes of the two files

Each file is written beside its place, flushed, and moved into it; the marker comes last. A kill at any moment leaves
the marker of one whole checkpoint and its two files. Random numbers need no state: every step seeds its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from lem.chat.load import file_sha
from lem.errors import DataError, LemError, ResumeMismatch, UserError
from lem.records import write_atomic
from lem.training.methods import flat

MARKER = "checkpoint.json"
SCHEMA = 1


@dataclass
class Progress:
    """Counters of a running training; all of them are in the checkpoint, so that they resume exactly.

    `loss_sum`, `n_tokens`: nats and reply tokens since the last report.  `rate_factor`: halved by every rollback.
    `best_*`, `n_worse`: early stopping.  `metric_rows`: lines of metrics.jsonl written so far.
    """

    step: int = 0
    loss_sum: float = 0.0
    n_tokens: int = 0
    trained_tokens: int = 0
    rate_factor: float = 1.0
    n_skipped: int = 0
    n_bad_in_row: int = 0
    n_rolled_back: int = 0
    valid_before: float | None = None
    valid_last: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    n_worse: int = 0
    stopped_early: bool = False
    metric_rows: int = 0
    finished: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """What `checkpoint.json` holds; `identity` is everything that decides the result, by name."""

    progress: Progress
    identity: Mapping[str, Any]
    files: Mapping[str, str]
    machine: Mapping[str, Any] = field(default_factory=dict)


def identity_hash(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity, the configuration hash of a training."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def save_checkpoint(
    output: Path, model: Any, optimizer: Any, progress: Progress, identity: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a checkpoint of this step.   Raises: LemError for weights that are not finite; UserError if the disk is
    full - the checkpoint before stays whole.
    """
    weights = dict(flat(model.trainable_parameters()))
    state = {name: value for name, value in flat(optimizer.state) if name != "learning_rate"}
    if not all(mx.all(mx.isfinite(value)).item() for value in weights.values()):
        raise LemError(f"{output}: the weights are not finite; lower --learning-rate. Earlier checkpoints are kept.")
    adapters = output / f"{progress.step:07d}_adapters.safetensors"
    moments = output / f"{progress.step:07d}_optimizer.safetensors"
    write_tensors(adapters, weights)
    write_tensors(moments, state)
    before = sorted(output.glob("[0-9]*_optimizer.safetensors"))
    write_marker(output, progress, identity, {path.name: file_sha(path) for path in (adapters, moments)}, machine)
    for old in [path for path in before if path != moments][:-1]:
        old.unlink(missing_ok=True)


def write_marker(
    output: Path, progress: Progress, identity: Mapping[str, Any], files: Mapping[str, str], machine: Mapping[str, Any]
) -> None:
    """Commit a checkpoint: from here on it is the one that a resume finds."""
    marker = {
        "schema": SCHEMA,
        "config_sha": identity_hash(identity),
        "progress": asdict(progress),
        "identity": dict(identity),
        "files": dict(files),
        "machine": dict(machine),
    }
    write_atomic(output / MARKER, json.dumps(marker, indent=1) + "\n")


def write_tensors(path: Path, tensors: dict[str, mx.array]) -> None:
    """Write a safetensors file in one step: a temporary neighbour, flushed to disk, moved into place.

    Raises: UserError if it cannot be written; the file that was there before stays.
    """
    temporary = path.with_name(f".{path.stem}.tmp.safetensors")
    try:
        mx.save_safetensors(str(temporary), tensors, metadata={"format": "mlx"})
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        _check_whole(temporary, tensors)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{path}: could not write the checkpoint ({reason}); make room on the disk and run again with --resume."
        ) from None


def _check_whole(path: Path, tensors: dict[str, mx.array]) -> None:
    """MLX does not report a short write: compare the size on disk with the tensors'.   Raises: OSError."""
    expected = sum(value.nbytes for value in tensors.values())
    if path.stat().st_size <= expected:
        raise OSError("the disk is full")


def read_checkpoint(output: Path) -> Checkpoint | None:
    """The last whole checkpoint of an adapter directory, or None if there is none yet.

    Raises: DataError if the marker or a file it names is damaged.
    """
    path = output / MARKER
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        checkpoint = Checkpoint(Progress(**raw["progress"]), raw["identity"], raw["files"], raw["machine"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a checkpoint of this version ({error}); start again elsewhere.") from None
    for name, sha in checkpoint.files.items():
        file = output / name
        if not file.is_file() or file_sha(file) != sha:
            raise DataError(f"{file}: missing or changed since the checkpoint was written; restore it or start again.")
    return checkpoint


def check_identity(output: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to resume another training.   Raises: ResumeMismatch naming the first thing that differs."""
    for name in sorted(set(stored) | set(wanted)):
        before, now = stored.get(name), wanted.get(name)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            key = next(k for k in sorted(set(before) | set(now)) if before.get(k) != now.get(k))
            name, before, now = f"{name}.{key}", before.get(key), now.get(key)
        raise ResumeMismatch(
            f"{output} was trained with another {name} ({_short(before)}, now {_short(now)}); give the same options "
            "and data, or a new --adapter-path, nothing was touched."
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else text[:15] + '..."'


def restore(output: Path, model: Any, optimizer: Any, progress: Progress) -> None:
    """Put the weights and the optimiser's state of a checkpoint's step back into model and optimiser."""
    weights = mx.load(str(output / f"{progress.step:07d}_adapters.safetensors"))
    state = mx.load(str(output / f"{progress.step:07d}_optimizer.safetensors"))
    assert isinstance(weights, dict)
    assert isinstance(state, dict)
    model.load_weights(list(weights.items()), strict=False)
    rate = optimizer.state["learning_rate"]
    optimizer.state = tree_unflatten(list(state.items()))
    optimizer.state["learning_rate"] = rate
    mx.eval(model.parameters(), optimizer.state)
