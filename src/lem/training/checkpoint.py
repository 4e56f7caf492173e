"""Checkpoints: everything a training needs to go on as if nothing had happened.

    0000050_adapters.safetensors    trainable weights, mlx-lm's name, kept
    0000050_optimizer.safetensors   optimiser state; only the last two are kept
    0000035_best.safetensors        weights of the best validation loss, where early stopping watches
    checkpoint.json                 the commit marker: step, counters, identity, and the hashes of these files

Each file is written beside its place, flushed, and moved into it; the marker comes last. A kill at any moment leaves
the marker of one whole checkpoint and the files it names. Random numbers need no state: every step seeds its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from lem.chat.load import file_sha
from lem.errors import DataError, ResumeMismatch, UserError
from lem.training.methods import flat

MARKER = "checkpoint.json"
FINAL = "adapters.safetensors"
SCHEMA = 1
_NUMBERED = re.compile(r"(\d{7})_(adapters|optimizer|best)\.safetensors")


@dataclass
class Progress:
    """Counters of a running training; all of them are in the checkpoint, so that they resume exactly.

    `loss_sum`, `n_tokens`: nats and reply tokens since the last report.  `rate_factor`: halved by every return.
    `best_*`, `n_worse`: early stopping, None without it.  `metric_rows`: lines of metrics.jsonl written so far.
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
    best_step: int | None = None
    n_worse: int = 0
    stopped_early: bool = False
    metric_rows: int = 0
    finished: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """What `checkpoint.json` holds: `identity` decides the result, by name; `machine` decides its last bits."""

    progress: Progress
    identity: Mapping[str, Any]
    machine: Mapping[str, Any]


def numbered(step: int, kind: str) -> str:
    """File name of a step's `adapters`, `optimizer` or `best`."""
    return f"{step:07d}_{kind}.safetensors"


def files_of(progress: Progress) -> list[str]:
    """Names of the files that a checkpoint consists of, beside the marker."""
    names = [numbered(progress.step, "adapters"), numbered(progress.step, "optimizer")]
    if progress.finished:
        return [*names, FINAL]
    return names if progress.best_step is None else [*names, numbered(progress.best_step, "best")]


def save_checkpoint(output: Path, model: Any, optimizer: Any, checkpoint: Checkpoint) -> None:
    """Write and commit a checkpoint.   Raises: UserError if the disk is full; the checkpoint before stays whole."""
    step = checkpoint.progress.step
    state = {name: value for name, value in flat(optimizer.state) if name != "learning_rate"}
    write_weights(output / numbered(step, "adapters"), model)
    write_tensors(output / numbered(step, "optimizer"), state)
    commit(output, checkpoint)


def commit(output: Path, checkpoint: Checkpoint) -> None:
    """Write the marker: from here on this is the checkpoint that a resume finds; what it outdates is removed."""
    marker = {
        "schema": SCHEMA,
        "config_sha": _sha(checkpoint.identity),
        "progress": asdict(checkpoint.progress),
        "identity": dict(checkpoint.identity),
        "files": {name: file_sha(output / name) for name in files_of(checkpoint.progress)},
        "machine": dict(checkpoint.machine),
    }
    text = json.dumps({**marker, "sha": _sha(marker)}, indent=1) + "\n"
    _replace(output / MARKER, lambda path: _write_text(path, text))
    tidy(output, checkpoint.progress)


def write_weights(path: Path, model: Any) -> None:
    """Write a model's trainable weights as `write_tensors` does."""
    write_tensors(path, dict(flat(model.trainable_parameters())))


def write_tensors(path: Path, tensors: Mapping[str, mx.array]) -> None:
    """Write a safetensors file in one step, the same bytes for the same tensors.

    Raises: UserError if it cannot be written whole; the file that was there before stays.
    """
    ordered = dict(sorted(tensors.items()))

    def write(temporary: Path) -> None:
        mx.save_safetensors(str(temporary), ordered, metadata={"format": "mlx"})
        _check_whole(temporary, sum(value.nbytes for value in ordered.values()))

    _replace(path, write)


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the place, flush, move into it, and flush the folder: a crash leaves the old file or the new."""
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")  # MLX insists on the suffix
    try:
        write(temporary)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:160]
        raise UserError(f"{path}: could not write ({reason}); make room on the disk and go on with --resume.") from None


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_whole(path: Path, n_bytes: int) -> None:
    """Compare the size on disk with header and tensors.   Raises: OSError for a short write that went unreported."""
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if path.stat().st_size != 8 + header + n_bytes:
        raise OSError("the file is shorter than its content")


def read_checkpoint(output: Path) -> Checkpoint | None:
    """The last whole checkpoint of an adapter directory, or None if there is none yet.

    Raises: DataError if the marker or a file it names is damaged.
    """
    path = output / MARKER
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            raise ValueError(f"schema {raw['schema']}")
        if raw.pop("sha") != _sha(raw):
            raise ValueError("changed since it was written")
        found = Checkpoint(Progress(**raw["progress"]), raw["identity"], raw["machine"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a checkpoint of this version ({error}); start again elsewhere.") from None
    for name in files_of(found.progress):
        file = output / name
        if not file.is_file() or file_sha(file) != raw["files"][name]:
            raise DataError(f"{file}: missing or changed since the checkpoint was written; restore it or start again.")
    return found


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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


def tidy(output: Path, progress: Progress) -> None:
    """Remove what a checkpoint has no use for.

    That is what an interrupted save left, tensors of later steps (they will be written again), all but the last two
    optimiser states, and weights that are not the best any more.
    """
    kept = files_of(progress)
    older = sorted(output.glob("[0-9]*_optimizer.safetensors"))[:-2]
    for path in sorted(output.iterdir()):
        match = _NUMBERED.fullmatch(path.name)
        later = match is not None and int(match[1]) > progress.step
        outdated = path in older or (match is not None and match[2] == "best")
        if is_temporary(path.name) or (path.name not in kept and (later or outdated)):
            path.unlink()


def is_temporary(name: str) -> bool:
    """Whether a name is that of a file on its way into its place."""
    return re.fullmatch(r"\..+\.tmp(\..+)?", name) is not None


def restore(output: Path, model: Any, optimizer: Any, step: int) -> None:
    """Put the weights and the optimiser's state of a checkpoint's step back into model and optimiser."""
    load_weights(output / numbered(step, "adapters"), model)
    state = mx.load(str(output / numbered(step, "optimizer")))
    assert isinstance(state, dict)
    rate = optimizer.state["learning_rate"]
    optimizer.state = tree_unflatten(list(state.items()))
    optimizer.state["learning_rate"] = rate
    mx.eval(optimizer.state)


def load_weights(path: Path, model: Any) -> None:
    """Put stored trainable weights into a model."""
    weights = mx.load(str(path))
    assert isinstance(weights, dict)
    model.load_weights(list(weights.items()), strict=False)
    mx.eval(model.parameters())
