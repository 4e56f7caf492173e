"""`lem train`: check everything, then train into an adapter directory that mlx-lm reads at every checkpoint.

adapter_config.json  checkpoint.json  metrics.jsonl  0000050_adapters.safetensors ...  adapters.safetensors (at the end)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lem.chat.device import free_memory_bytes
from lem.chat.load import ChatModel, adapter_identity
from lem.records import lock_directory
from lem.training.checkpoint import Checkpoint, Progress, check_identity, read_checkpoint
from lem.training.dataset import Sandwich
from lem.training.head import split_head
from lem.training.loop import Hooks, Training
from lem.training.memory import gradient_checkpointing, refuse_too_large
from lem.training.methods import Applied, apply_method, load_start
from lem.training.packing import check_packing
from lem.training.prepare import (
    TrainingData,
    adapter_config,
    identity_of,
    make_schedule,
    read_data,
    refuse_occupied,
)
from lem.training.ranks import Ranks, here
from lem.training.settings import TrainingSettings

__all__ = ["Hooks", "TrainingReport", "train"]


@dataclass(frozen=True)
class TrainingReport:
    """What a training did, over all its parts; the losses are nats per reply token, None without a valid.jsonl.

    `valid_after` is the loss of adapters.safetensors, which early stopping takes from `best_iteration`.
    `was_finished`: it was resumed with nothing left to do.
    """

    adapter_path: str
    method: str
    num_layers: int
    n_trainable: int
    n_train: int
    n_dropped: int
    n_too_long: int
    n_truncated: int
    valid_before: float | None
    valid_after: float | None
    best_iteration: int | None
    tokens_per_s: float | None
    iterations: int
    trained_tokens: int
    stopped_early: bool
    n_skipped: int
    n_rolled_back: int
    was_finished: bool


def train(
    chat: ChatModel,
    data: Path,
    output: Path,
    settings: TrainingSettings,
    *,
    resume: bool = False,
    from_adapter: Path | None = None,
    sandwich: Sandwich | None = None,
    seeds: Sequence[Path] = (),
    hooks: Hooks | None = None,
) -> TrainingReport:
    """Train on `data`/train.jsonl (validated on valid.jsonl if there) into `output`.

    Args:  chat: a model loaded without adapter; afterwards it carries the trained layers.
           output: a new or empty folder; with `resume`, one that an interrupted training left.
           from_adapter: begin with this adapter's weights instead of fresh ones.  sandwich: for that format.
           seeds: probe files or folders; their probes must not be in the data.
    Raises: UserError or DataError before anything is written for unusable input; ResumeMismatch for another training's
            folder; Incomplete after Ctrl-C (a checkpoint was written); LemError when it cannot stay finite.
    """
    ranks = here()
    if ranks.first:
        refuse_occupied(output, resume)
    found = read_data(chat, data, settings, sandwich, seeds)
    schedule, settings = make_schedule(found.train, settings)
    parent = None if from_adapter is None else adapter_identity(from_adapter)
    identity = identity_of(chat, found, settings, sandwich, parent)
    applied = apply_method(chat, settings)
    if from_adapter is not None:
        load_start(chat, from_adapter, settings)
    head = split_head(chat.model)
    rows, width = schedule.longest_batch().tokens.shape
    refuse_too_large(chat.model, head, settings, rows, width, free_memory_bytes())
    if settings.pack:
        check_packing(chat, head, found.train.rows)
    with ExitStack() as stack:
        if ranks.first:
            stack.enter_context(lock_directory(output))
        before = _checkpoint_of(output, identity, ranks) if resume else None
        stack.enter_context(gradient_checkpointing(chat.model, settings.grad_checkpoint))
        training = Training(chat, head, found, schedule, output, settings, identity, hooks or Hooks(), ranks)
        training.run(before, adapter_config(chat, data, found.shas, settings, applied, parent, from_adapter))
    was_finished = before is not None and before.progress.finished
    return _report(output, settings, applied, found, training.progress, training.pace.mean, was_finished)


def _checkpoint_of(output: Path, identity: dict[str, Any], ranks: Ranks) -> Checkpoint | None:
    """The checkpoint to go on from, read by the first process for all; None if there is none yet."""
    found = read_checkpoint(output) if ranks.first else None
    if found is not None:
        check_identity(output, found.identity, identity)
    raw = ranks.from_first(None if found is None else asdict(found))
    return None if raw is None else Checkpoint(Progress(**raw["progress"]), raw["identity"], raw["machine"])


def _report(
    output: Path, settings: TrainingSettings, applied: Applied, data: TrainingData, progress: Progress,
    rate: float | None, was_finished: bool,
) -> TrainingReport:  # fmt: skip
    rows = data.train
    return TrainingReport(
        adapter_path=str(output), method=settings.method, num_layers=applied.num_layers,
        n_trainable=applied.n_trainable, n_train=len(rows.rows), n_dropped=rows.n_dropped, n_too_long=rows.n_too_long,
        n_truncated=rows.n_truncated, valid_before=progress.valid_before,
        valid_after=progress.valid_last if progress.best_loss is None else progress.best_loss,
        best_iteration=progress.best_step, tokens_per_s=rate, iterations=progress.step,
        trained_tokens=progress.trained_tokens, stopped_early=progress.stopped_early, n_skipped=progress.n_skipped,
        n_rolled_back=progress.n_rolled_back, was_finished=was_finished,
    )  # fmt: skip
