"""Independent definitions for the trainer's tests: losses and gradients longhand, and small models to try them on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from lem.chat.load import ChatModel
from lem.training.dataset import TrainingRow
from lem.training.methods import apply_method
from lem.training.settings import TrainingSettings
from tiny import random_model

Float64 = NDArray[np.float64]


def chat_of(model: Any, name: str = "tiny") -> ChatModel:
    """A model without files and tokenizer."""
    return ChatModel(name, Path(name), model, None, {}, "0" * 64)


def random_rows(
    n: int, seed: int = 0, shortest: int = 6, longest: int = 40, vocabulary: int = 259
) -> tuple[TrainingRow, ...]:
    """Rows of random tokens with one or two counted stretches each; unequal in length and in counted tokens."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        length = int(generator.integers(shortest, longest + 1))
        reply = np.zeros(length, dtype=bool)
        for _ in range(int(generator.integers(1, 3))):
            start = int(generator.integers(1, length - 1))
            reply[start : start + int(generator.integers(1, length))] = True
        tokens = tuple(int(token) for token in generator.integers(0, vocabulary, length))
        rows.append(TrainingRow(tokens, tuple(bool(flag) for flag in reply)))
    return tuple(rows)


def adapted(
    family: str, settings: TrainingSettings | None = None, *, seed: int = 1, dtypes: Sequence[mx.Dtype] = (),
    **model: Any,
) -> Any:  # fmt: skip
    """A tiny model in evaluation mode, carrying trainable layers whose weights are all away from zero.

    `dtypes`: the base is cast through these, one after the other, before it is adapted.
    """
    module, _ = random_model(family, **model)
    for dtype in dtypes:
        module.set_dtype(dtype)
    apply_method(chat_of(module), settings or TrainingSettings(rank=2, scale=2.0))
    mx.random.seed(seed)
    moved = [
        (name, value + 0.1 * mx.random.normal(value.shape))
        for name, value in tree_flatten(module.trainable_parameters())
    ]
    module.load_weights(moved, strict=False)
    module.eval()
    mx.eval(module.parameters())
    return module


def softmax64(logits: Float64) -> Float64:
    """Softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def cross_entropy64(logits: Float64, targets: NDArray[np.int32]) -> Float64:
    """Loss of each position in nats: log sum exp minus the target's logit, (N, V) and (N,) -> (N,)."""
    largest = logits.max(axis=-1, keepdims=True)
    chosen = logits[np.arange(len(targets)), targets]
    return np.log(np.exp(logits - largest).sum(axis=-1)) + (largest[:, 0] - chosen)


def row_loss(model: Any, row: TrainingRow) -> float:
    """Summed loss of a row by itself, unpadded: every counted token given all tokens before it."""
    logits = np.array(model(mx.array([row.tokens[:-1]]))[0].astype(mx.float32)).astype(np.float64)
    counted = [index for index in range(1, len(row.tokens)) if row.reply[index]]
    targets = np.array([row.tokens[index] for index in counted], dtype=np.int32)
    return float(cross_entropy64(logits[[index - 1 for index in counted]], targets).sum())


def total_loss(model: Any, rows: Sequence[TrainingRow]) -> float:
    """Summed loss of rows, each by itself."""
    return sum(row_loss(model, row) for row in rows)


def n_counted(rows: Sequence[TrainingRow]) -> int:
    """Counted tokens, one by one; nothing predicts a first token."""
    return sum(1 for row in rows for index, flag in enumerate(row.reply) if flag and index > 0)


def full_logit_gradient(model: Any, rows: Sequence[TrainingRow]) -> dict[str, Float64]:
    """Gradient of the mean loss through every logit of every row by itself, with mlx's own cross-entropy."""

    def loss(module: Any) -> mx.array:
        total = mx.array(0.0)
        for row in rows:
            logits = module(mx.array([row.tokens[:-1]]))[0].astype(mx.float32)
            each = nn.losses.cross_entropy(logits, mx.array(row.tokens[1:]))
            total = total + (each * mx.array(row.reply[1:])).sum()
        return total / n_counted(rows)

    return as_numpy(nn.value_and_grad(model, loss)(model)[1])


def as_numpy(tree: Any) -> dict[str, Float64]:
    """A tree of arrays as float64 by dotted name."""
    return {name: np.array(value.astype(mx.float32)).astype(np.float64) for name, value in tree_flatten(tree)}


def assert_same_gradients(found: dict[str, Float64], wanted: dict[str, Float64], tolerance: float) -> None:
    """Every array agrees within `tolerance` of its norm, and none is zero on one side only."""
    assert set(found) == set(wanted)
    assert wanted
    for name, value in wanted.items():
        size = np.linalg.norm(value)
        assert np.linalg.norm(found[name] - value) <= tolerance * size, (
            f"{name}: off by {np.linalg.norm(found[name] - value) / max(size, 1e-300):.2e}"
        )
