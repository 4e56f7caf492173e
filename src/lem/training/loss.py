"""Reply-token cross-entropy: the sum over counted targets divided by their number, over the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from lem.training.dataset import Batch, TrainingRow, make_batch


def reply_loss(model: Any, tokens: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Mean negative log-likelihood (nats) per counted token.

    Args:  tokens (B, T) int32, right-padded.  targets (B, T-1), 1 where token t+1 counts.
    Returns: (mean loss, number of counted tokens), both scalars; float32 whatever the model's type.
    """
    logits = model(tokens[:, :-1]).astype(mx.float32)
    losses = nn.losses.cross_entropy(logits, tokens[:, 1:]) * targets
    count = targets.sum()
    return losses.sum() / count, count


def batch_arrays(batch: Batch) -> tuple[mx.array, mx.array]:
    """Move a batch to MLX: int32 tokens and float32 target mask."""
    return mx.array(batch.tokens), mx.array(batch.targets.astype("float32"))


def number(scalar: mx.array) -> float:
    """Read a real scalar from the device."""
    value: Any = scalar.item()
    return float(value)


def evaluate_loss(model: Any, rows: Sequence[TrainingRow], batch_size: int) -> float:
    """Token-weighted mean loss (nats per reply token) over all rows, in evaluation mode."""
    was_training = model.training
    model.eval()
    ordered = sorted(rows, key=lambda row: len(row.tokens))
    total, count = 0.0, 0.0
    for start in range(0, len(ordered), batch_size):
        loss, n = reply_loss(model, *batch_arrays(make_batch(ordered[start : start + batch_size])))
        total, count = total + number(loss * n), count + number(n)
        mx.clear_cache()
    model.train(was_training)
    return total / count


def row_losses(model: Any, rows: Sequence[TrainingRow]) -> list[float]:
    """Mean loss of each row by itself (nats per reply token), in the order given, in evaluation mode."""
    model.eval()
    return [number(reply_loss(model, *batch_arrays(make_batch([row])))[0]) for row in rows]
