"""Memory: an estimate before the first step, advice when it does not fit, and gradient checkpointing.

The estimate counts float32 activations of the lazy forward and backward pass and is calibrated on measurements
(tests compare it with the peak on several shapes); it is meant to be within a factor of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from lem.errors import UserError
from lem.training.head import Head
from lem.training.loss import BLOCK_BYTES
from lem.training.methods import flat
from lem.training.settings import TrainingSettings

_BLOCKS_IN_FLIGHT = 8  # buffers of a block's size that the scheduler keeps at one time, measured


@dataclass(frozen=True)
class Shape:
    """What the activations of a model are made of: blocks, hidden size, sum of linear outputs per block, heads."""

    n_layers: int
    hidden: int
    linear_outputs: int
    n_heads: int
    vocabulary: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes needed beyond the loaded weights: activations, output head, gradients with optimiser state."""

    activations: int
    head: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.activations + self.head + self.optimizer


def shape_of(model: Any) -> Shape:
    """Read a model's shape from its first block and configuration."""
    block = model.layers[0]
    outputs = 0
    for _, module in block.named_modules():
        weight = module.get("weight") if hasattr(module, "get") else None
        if weight is not None and weight.ndim == 2:
            outputs += int(weight.shape[0])
    args = getattr(getattr(model, "language_model", model), "args", None)
    hidden = int(getattr(args, "hidden_size", 0)) or outputs // 10
    return Shape(
        len(model.layers), hidden, outputs, int(getattr(args, "num_attention_heads", 1)),
        int(getattr(args, "vocab_size", 0)),
    )  # fmt: skip


def estimate(model: Any, head: Head | None, settings: TrainingSettings, rows: int, width: int) -> MemoryEstimate:
    """Estimate one step on a micro-batch of `rows` sequences of `width` tokens."""
    shape = shape_of(model)
    tokens = rows * width
    per_token = 2.5 * shape.linear_outputs + 6 * shape.hidden + 2 * shape.n_heads * width
    block = 4 * tokens * per_token
    layers = shape.n_layers
    if settings.method != "full":
        layers = shape.n_layers if settings.num_layers == -1 else min(settings.num_layers, shape.n_layers)
    stored = 4 * tokens * shape.hidden * layers + 2 * block if settings.grad_checkpoint else block * layers
    block_bytes = min(BLOCK_BYTES, 4 * tokens * shape.vocabulary)
    in_head = _BLOCKS_IN_FLIGHT * block_bytes if head is not None else 5 * 4 * tokens * shape.vocabulary
    trainable = sum(value.nbytes for _, value in flat(model.trainable_parameters()))
    return MemoryEstimate(int(stored), int(in_head), 4 * trainable)


def refuse_too_large(
    model: Any, head: Head | None, settings: TrainingSettings, rows: int, width: int, free_bytes: int
) -> MemoryEstimate:
    """Return the estimate, or refuse with what would fit.   Raises: UserError."""
    needed = estimate(model, head, settings, rows, width)
    if needed.total <= free_bytes:
        return needed
    saving = replace(settings, grad_checkpoint=True)
    smaller = (
        ("--grad-checkpoint", saving, rows, width),
        ("--batch-size 1", settings, 1, width),
        ("--batch-size 1 --grad-checkpoint", saving, 1, width),
        (f"--max-seq-length {width // 2} --batch-size 1 --grad-checkpoint", saving, 1, width // 2),
    )
    sizes = [(advice, estimate(model, head, other, n, longest).total) for advice, other, n, longest in smaller]
    fitting = [f"use {advice} (about {size / 1e9:.1f} GB)" for advice, size in sizes if size <= free_bytes]
    remedy = fitting[0] if fitting else "use a smaller model or a machine with more memory"
    raise UserError(
        f"training needs about {needed.total / 1e9:.1f} GB beyond the weights for {rows} rows of {width} tokens, and "
        f"{free_bytes / 1e9:.1f} GB are free; {remedy}."
    )


@contextmanager
def gradient_checkpointing(model: Any, enabled: bool) -> Iterator[None]:
    """Recompute each block in the backward pass instead of keeping its activations, inside the context only."""
    kinds = {type(layer) for layer in model.layers} if enabled else set()
    originals = {kind: kind.__call__ for kind in kinds}
    try:
        for kind in kinds:
            kind.__call__ = _checkpointed(originals[kind])
        yield
    finally:
        for kind, call in originals.items():
            kind.__call__ = call


def _checkpointed(call: Any) -> Any:
    def checkpointed(block: Any, *args: Any, **kwargs: Any) -> Any:
        if not block.training:
            return call(block, *args, **kwargs)

        def inner(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            block.update(parameters)
            return call(block, *args, **kwargs)

        return mx.checkpoint(inner)(block.trainable_parameters(), *args, **kwargs)

    return checkpointed
