"""Reply-token cross-entropy whose logits exist for one block of the vocabulary at a time.

The head is frozen, so its gradient has a closed form. With z = cap(W h) and p = softmax(z),

    dL/dh = W^T ((p - onehot(target)) * cap'(W h)),

which is computed beside the loss in one pass over blocks of W, as attention is over blocks of keys: log sum exp and
W^T p of the blocks so far are rescaled when a block adds to them (source: Milakov and Gimelshein 2018, online softmax;
Dao et al. 2022, FlashAttention). Two matrix products over the reply positions is the least that a loss and a
gradient take; every weight is read once for each; prompt positions never reach the head, and nothing of the size
(tokens x vocabulary) ever exists. Everything stays lazy: an evaluation in the middle of a gradient would keep every
intermediate of the body alive (2.6 times the memory, measured).

Sums are divided by a count that the caller gives: the reply tokens of the whole optimiser step. So micro-batches and
ranks add up to exactly what one large batch would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from lem.training.batches import Batch, PackedCache, make_batch
from lem.training.dataset import TrainingRow
from lem.training.head import Head, split_head

BLOCK_BYTES = 16 * 2**20  # of float32 logits at one time


def number(scalar: mx.array) -> float:
    """Read a real scalar from the device."""
    value: Any = scalar.item()
    return float(value)


def hidden_states(model: Any, head: Head, batch: Batch) -> mx.array:
    """Hidden states at the positions that predict a counted token: (N, H), in batch order."""
    tokens = mx.array(batch.tokens[:, :-1])
    cache = None
    if batch.segments is not None:
        cache = [PackedCache(batch.segments[:, :-1])] * len(model.layers)
    hidden = head.body(tokens, cache)
    positions = mx.array(np.flatnonzero(batch.targets).astype(np.int32))  # from the host: no gradient through indices
    return hidden.reshape(-1, hidden.shape[-1])[positions]


def target_tokens(batch: Batch) -> NDArray[np.int32]:
    """The counted tokens themselves, (N,), in the order of `hidden_states`."""
    return batch.tokens[:, 1:][batch.targets]


def _blocks(n_positions: int, head: Head) -> list[slice]:
    """Even blocks of the vocabulary whose logits take at most `BLOCK_BYTES`."""
    size = max(1, BLOCK_BYTES // (4 * n_positions))
    n_blocks = -(-head.n_vocabulary // size)
    even = -(-head.n_vocabulary // n_blocks)
    return [slice(start, min(start + even, head.n_vocabulary)) for start in range(0, head.n_vocabulary, even)]


@dataclass(frozen=True)
class _Sums:
    """Over some blocks: largest logit, sum of exp(logit - largest), both (N, 1), and W^T (exp(..) * cap'), (N, H)."""

    largest: mx.array
    total: mx.array
    pulled: mx.array


def _block_sums(head: Head, hidden: mx.array, block: slice) -> _Sums:
    logits = head.logits(hidden, block)
    largest = logits.max(axis=-1, keepdims=True)
    weight = mx.exp(logits - largest)
    # A product with ones: BLAS adds in many lanes, where MLX's own float32 sum loses three digits at 262,144 terms.
    total = weight @ mx.ones((weight.shape[-1], 1))
    return _Sums(
        largest, total, head.pull_back(weight if head.soft_cap is None else weight * head.slope(logits), block)
    )


def _join(left: _Sums, right: _Sums) -> _Sums:
    largest = mx.maximum(left.largest, right.largest)
    shrink, other = mx.exp(left.largest - largest), mx.exp(right.largest - largest)
    return _Sums(largest, left.total * shrink + right.total * other, left.pulled * shrink + right.pulled * other)


def _loss_and_gradient(head: Head, hidden: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Summed loss, and its gradient in the hidden states, (N, H) float32."""
    first, *others = _blocks(hidden.shape[0], head)
    sums = _block_sums(head, hidden, first)
    for block in others:
        # The order of evaluation is free but for this dependency; without it all blocks live at once.
        here = mx.depends([hidden], [sums.total, sums.pulled])[0]
        sums = _join(sums, _block_sums(head, here, block))
    chosen, rows = head.target_logits(hidden, targets), head.rows(targets)
    loss = (sums.largest + mx.log(sums.total) - chosen).sum()
    return loss, sums.pulled / sums.total - (rows if head.soft_cap is None else rows * head.slope(chosen))


def head_loss(head: Head, hidden: mx.array, targets: NDArray[np.int32]) -> mx.array:
    """Summed loss in nats over (N, H) hidden states and (N,) targets, differentiable in the hidden states only."""

    @mx.custom_function
    def loss_and_gradient(hidden: mx.array) -> tuple[mx.array, mx.array]:
        return _loss_and_gradient(head, hidden, mx.array(targets))

    @loss_and_gradient.vjp
    def _pull_back(primals: Any, cotangents: Any, outputs: Any) -> Any:
        return (outputs[1] * cotangents[0]).astype(hidden.dtype)

    outputs: Any = loss_and_gradient(hidden)
    loss: mx.array = outputs[0]
    return loss


def objective(model: Any, head: Head | None, batch: Batch, n_tokens: int) -> tuple[mx.array, mx.array]:
    """The trainer's objective: (summed reply loss / n_tokens, summed reply loss), in nats.

    Args:  n_tokens: the counted tokens of the whole optimiser step, over all micro-batches and ranks.
           head: from `split_head`; None goes through the full logits.
    """
    if head is None:
        loss = _full_losses(model, batch).sum()
    else:
        loss = head_loss(head, hidden_states(model, head, batch), target_tokens(batch))
    return loss / n_tokens, loss


def _full_losses(model: Any, batch: Batch) -> mx.array:
    """Loss per counted token through the full logits: (N,) float32."""
    cache = None
    if batch.segments is not None:
        cache = [PackedCache(batch.segments[:, :-1])] * len(model.layers)
    logits = model(mx.array(batch.tokens[:, :-1]), cache)
    positions = mx.array(np.flatnonzero(batch.targets).astype(np.int32))
    chosen = logits.reshape(-1, logits.shape[-1])[positions].astype(mx.float32)
    return nn.losses.cross_entropy(chosen, mx.array(target_tokens(batch)))


def batch_loss(model: Any, head: Head | None, batch: Batch) -> float:
    """Summed loss of a batch in nats, no gradient."""
    if head is None:
        return number(_full_losses(model, batch).sum())
    hidden, targets = hidden_states(model, head, batch), mx.array(target_tokens(batch))
    largest = total = None
    for block in _blocks(hidden.shape[0], head):
        here = hidden if total is None else mx.depends([hidden], [total])[0]
        logits = head.logits(here, block)
        top = (
            logits.max(axis=-1, keepdims=True)
            if largest is None
            else mx.maximum(largest, logits.max(-1, keepdims=True))
        )
        part = mx.exp(logits - top) @ mx.ones((logits.shape[-1], 1))
        total = part if total is None or largest is None else total * mx.exp(largest - top) + part
        largest = top
    assert total is not None
    assert largest is not None
    return number((largest + mx.log(total) - head.target_logits(hidden, targets)).sum())


def evaluate_sum(
    model: Any, head: Head | None, rows: Sequence[TrainingRow], batch_size: int, group: Any = None
) -> float:
    """Summed loss in nats over all rows, in evaluation mode, shared out over the ranks of a group."""
    was_training = model.training
    model.eval()
    ordered = sorted(rows, key=lambda row: len(row.tokens))
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    mine = batches if group is None else batches[group.rank() :: group.size()]
    total = 0.0
    for batch in mine:
        total += batch_loss(model, head, make_batch(batch))
    mx.clear_cache()
    model.train(was_training)
    return total if group is None else number(mx.distributed.all_sum(mx.array(total), group=group, stream=mx.cpu))


def evaluate_loss(model: Any, rows: Sequence[TrainingRow], batch_size: int) -> float:
    """Token-weighted mean loss (nats per reply token) over all rows, in evaluation mode."""
    return evaluate_sum(model, split_head(model), rows, batch_size) / sum(row.n_reply for row in rows)


def row_losses(model: Any, rows: Sequence[TrainingRow]) -> list[float]:
    """Mean loss of each row by itself (nats per reply token), in the order given, in evaluation mode."""
    was_training = model.training
    model.eval()
    head = split_head(model)
    losses = [batch_loss(model, head, make_batch([row])) / row.n_reply for row in rows]
    model.train(was_training)
    return losses
