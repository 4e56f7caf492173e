"""What a training would do: rows, steps, tokens, parameters and memory, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lem.chat.device import free_memory_bytes
from lem.chat.load import ChatModel
from lem.training.dataset import Sandwich
from lem.training.head import split_head
from lem.training.memory import estimate
from lem.training.methods import apply_method
from lem.training.prepare import make_schedule, read_data
from lem.training.settings import TrainingSettings, as_json


def preview(
    chat: ChatModel, data: Path, settings: TrainingSettings, sandwich: Sandwich | None, seeds: Sequence[Path] = ()
) -> dict[str, Any]:
    """Counts and estimates of a training; the model's module is changed, nothing is written.

    Raises: what `train` would raise for the same input.
    """
    found = read_data(chat, data, settings, sandwich, seeds)
    schedule, settings = make_schedule(found.train, settings)
    applied = apply_method(chat, settings)
    head = split_head(chat.model)
    rows, width = schedule.longest_batch().tokens.shape
    needed = estimate(chat.model, head, settings, rows, width)
    return {
        "model": chat.name,
        "method": settings.method,
        "trainable": applied.n_trainable,
        "parameters": applied.n_total,
        "layers": applied.num_layers,
        "head_in_blocks": head is not None,
        **schedule.describe(),
        "dropped": found.train.n_dropped,
        "too_long": found.train.n_too_long,
        "truncated": found.train.n_truncated,
        "valid_rows": 0 if found.valid is None else len(found.valid.rows),
        "tokens": sum(len(row.tokens) for row in found.train.rows),
        "trained_tokens": sum(row.n_reply for row in found.train.rows),
        "longest_batch": [rows, width],
        "iterations": settings.iters,
        "memory_gb": needed.total / 1e9,
        "free_gb": free_memory_bytes() / 1e9,
        "settings": as_json(settings),
    }
