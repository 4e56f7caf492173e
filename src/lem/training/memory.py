"""Memory: an estimate before the first step, advice when it does not fit, and gradient checkpointing.

The estimate counts activations of the lazy forward and backward pass and is calibrated on measurements (tests compare
it with the peak on several shapes); it is meant to be within a factor of two. Attention scores count in full: MLX
trains through unfused attention on every device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from lem.errors import UserError
from lem.training.head import Head
from lem.training.loss import BLOCK_BYTES
from lem.training.methods import flat
from lem.training.settings import TrainingSettings

_BLOCKS_IN_FLIGHT = 4  # buffers of a block's size that the scheduler keeps at one time, measured
_LOGIT_COPIES = 6  # of all logits, where they go through autograd, measured
_HALF_SHARE = 0.7  # of the float32 activations, on a base in half precision; the adapter's own stay float32


@dataclass(frozen=True)
class Shape:
    """What the activations of a model are made of, `linear_outputs` and `unpacked` on average over the blocks.

    `linear_outputs`: outputs per token of a block's linear layers.  `unpacked`: weights of a block that are stored
    quantised.  `half`: whether the base computes in 16 bits.
    """

    n_layers: int
    hidden: int
    linear_outputs: float
    n_heads: int
    vocabulary: int
    unpacked: float
    half: bool


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
    """Read a model's shape from its blocks and configuration."""
    args = getattr(getattr(model, "language_model", model), "args", None)
    chosen_experts = int(getattr(args, "num_experts_per_tok", 1))
    outputs = unpacked = 0
    for _, module in _modules(model):
        weight = module.get("weight")
        if weight is None or weight.ndim < 2:
            continue
        outputs += int(weight.shape[-2]) * (chosen_experts if weight.ndim == 3 else 1)
        if "scales" in module:
            unpacked += weight.size * 32 // module.bits
    depth = len(model.layers)
    hidden = int(getattr(args, "hidden_size", 0)) or outputs // (10 * depth)
    return Shape(
        depth, hidden, outputs / depth, int(getattr(args, "num_attention_heads", 1)),
        int(getattr(args, "vocab_size", 0)), unpacked / depth, _is_half(model),
    )  # fmt: skip


def _modules(model: Any) -> list[tuple[str, Any]]:
    return [pair for layer in model.layers for pair in layer.named_modules()]


def _is_half(model: Any) -> bool:
    """Whether the blocks' vectors (norms, biases), which no method but `full` changes, are all 16-bit floats."""
    vectors = [value for layer in model.layers for _, value in flat(layer.parameters()) if value.ndim == 1]
    trained = {id(value) for layer in model.layers for _, value in flat(layer.trainable_parameters())}
    kinds = {value.dtype for value in vectors if id(value) not in trained}
    return bool(kinds) and kinds <= {mx.bfloat16, mx.float16}


def estimate(model: Any, head: Head | None, settings: TrainingSettings, rows: int, width: int) -> MemoryEstimate:
    """Estimate one step on a micro-batch of `rows` sequences of `width` tokens."""
    shape = shape_of(model)
    tokens = rows * width
    size = 4 * (_HALF_SHARE if shape.half else 1)
    per_token = 2.5 * shape.linear_outputs + 6 * shape.hidden + 2 * shape.n_heads * width
    block = size * tokens * per_token + (size * shape.unpacked if settings.method == "dora" else 0)
    layers = shape.n_layers
    if settings.method != "full":
        layers = shape.n_layers if settings.num_layers == -1 else min(settings.num_layers, shape.n_layers)
    if head is None:
        in_head = _LOGIT_COPIES * 4 * tokens * shape.vocabulary
    else:
        logits = min(BLOCK_BYTES, 4 * tokens * shape.vocabulary)
        in_head = _BLOCKS_IN_FLIGHT * logits + 6 * 4 * tokens * shape.hidden
    stored = block * layers
    if settings.grad_checkpoint:  # a block is computed again after the head is done with
        stored = size * tokens * shape.hidden * layers + max(0.0, 2 * block - in_head)
    trainable = sum(value.nbytes for _, value in flat(model.trainable_parameters()))
    return MemoryEstimate(int(stored), int(in_head), 4 * trainable)


def refuse_too_large(
    model: Any, head: Head | None, settings: TrainingSettings, rows: int, width: int, free_bytes: int
) -> MemoryEstimate:
    """Return the estimate, or refuse with what would fit.   Raises: UserError."""
    needed = estimate(model, head, settings, rows, width)
    if needed.total <= free_bytes:
        return needed
    remedy = "use a smaller model or a machine with more memory"
    for advice, other, n_rows, longest in _remedies(settings, rows, width):
        size = estimate(model, head, other, n_rows, longest).total
        if size <= free_bytes:
            remedy = f"use {advice} (about {size / 1e9:.1f} GB)"
            break
    raise UserError(
        f"training needs about {needed.total / 1e9:.1f} GB beyond the weights for {rows} rows of {width} tokens, and "
        f"{free_bytes / 1e9:.1f} GB are free; {remedy}."
    )


def _remedies(settings: TrainingSettings, rows: int, width: int) -> Sequence[tuple[str, TrainingSettings, int, int]]:
    """Options that take less memory, the least harmful first, with what they lead to; none that is in force."""
    saving = replace(settings, grad_checkpoint=True)
    checkpoint = [] if settings.grad_checkpoint else ["--grad-checkpoint"]
    # The same rows a step, so the same training.
    single = [] if rows == 1 else [f"--batch-size 1 --accumulation {settings.accumulation * settings.batch_size}"]
    found: list[tuple[list[str], TrainingSettings, int, int]] = []
    if single:
        found.append((single, settings, 1, width))
    if checkpoint:
        found.append((checkpoint, saving, rows, width))
    found.append((single + checkpoint, saving, 1, width))
    for shorter in (width // 2, width // 4, width // 8):
        found.append(([f"--max-seq-length {shorter}", *single, *checkpoint], saving, 1, shorter))
    return [(" ".join(flags), other, n_rows, longest) for flags, other, n_rows, longest in found if flags]


@contextmanager
def gradient_checkpointing(model: Any, enabled: bool) -> Iterator[None]:
    """Recompute each block in the backward pass instead of keeping its activations, inside the context only."""
    kinds = {type(layer) for layer in model.layers} if enabled else set()
    originals = {kind: kind.__dict__.get("__call__") for kind in kinds}
    draws = any(isinstance(module, nn.Dropout) and module._p_1 < 1 for _, module in _modules(model))
    try:
        for kind, call in {kind: kind.__call__ for kind in kinds}.items():
            kind.__call__ = _checkpointed(call, draws)
        yield
    finally:
        for kind, own in originals.items():
            if own is None:
                del kind.__call__
            else:
                kind.__call__ = own


def _checkpointed(call: Any, draws: bool) -> Any:
    """A block's call that runs a second time in the backward pass, with the same weights and the same dropout."""

    def checkpointed(block: Any, *args: Any, **kwargs: Any) -> Any:
        if not block.training:
            return call(block, *args, **kwargs)
        # The second run would go on in the stream of random numbers and drop other activations than the first.
        seed = int(mx.random.randint(0, 2**31 - 1).item()) if draws else None  # type: ignore[arg-type]

        def inner(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            before = block.trainable_parameters()
            block.update(parameters)
            if seed is not None:
                mx.random.seed(seed)
            try:
                return call(block, *args, **kwargs)
            finally:
                block.update(before)

        return mx.checkpoint(inner)(block.trainable_parameters(), *args, **kwargs)

    return checkpointed
