"""Reply-token cross-entropy whose logits exist for one block of the vocabulary at a time.

The head is frozen, so its gradient has a closed form. With z = cap(W h) and p = softmax(z),

    dL/dh = W^T ((p - onehot(target)) * cap'(W h)),

which is computed beside the loss in one pass over blocks of W, as attention is over blocks of keys: log sum exp and
W^T p of the blocks so far are rescaled when a block adds to them (source: Milakov and Gimelshein 2018, online softmax;
Dao et al. 2022, FlashAttention). Two matrix products over the reply positions is the least that a loss and a
gradient take; every weight is read once for each; prompt positions never reach the head, and nothing of the size
(tokens x vocabulary) ever exists. Everything stays lazy: an evaluation in the middle of a gradient would keep every
intermediate of the body alive (2.6 times the memory, measured).

Losses are sums, not means. Their gradients are added up over the micro-batches and ranks of an optimiser step and then
divided by its reply tokens, so any split gives what one large batch would give.
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
    """Over some blocks: largest logit; sum of exp(logit - largest) but the target's; the target's logit, all (N, 1).

    `pulled` is W^T (exp(..) * cap') but the target's, (N, H), or None where no gradient is wanted. The target stands
    apart because p - 1, where it is almost certain, must not be the difference of two rounded numbers.
    """

    largest: mx.array
    others: mx.array
    chosen: mx.array
    pulled: mx.array | None


def _block_sums(head: Head, hidden: mx.array, targets: mx.array, block: slice, pull: bool) -> _Sums:
    logits = head.logits(hidden, block)
    largest = logits.max(axis=-1, keepdims=True)
    inside = (targets >= block.start) & (targets < block.stop)
    place = mx.clip(targets - block.start, 0, logits.shape[-1] - 1)
    found = mx.take_along_axis(logits, place, axis=-1)
    weight = mx.exp(logits - largest)
    weight = mx.put_along_axis(weight, place, mx.where(inside, 0.0, mx.exp(found - largest)), axis=-1)
    # A product with ones: BLAS adds in many lanes, where MLX's own float32 sum loses three digits at 262,144 terms.
    others = weight @ mx.ones((weight.shape[-1], 1))
    pulled = head.pull_back(head.through_cap(weight, logits), hidden, block) if pull else None
    return _Sums(largest, others, mx.where(inside, found, 0.0), pulled)


def _join(left: _Sums, right: _Sums) -> _Sums:
    largest = mx.maximum(left.largest, right.largest)
    shrink, other = mx.exp(left.largest - largest), mx.exp(right.largest - largest)
    pulled = None
    if left.pulled is not None and right.pulled is not None:
        pulled = left.pulled * shrink + right.pulled * other
    return _Sums(largest, left.others * shrink + right.others * other, left.chosen + right.chosen, pulled)


def _all_sums(head: Head, hidden: mx.array, targets: mx.array, pull: bool) -> _Sums:
    first, *rest = _blocks(hidden.shape[0], head)
    sums = _block_sums(head, hidden, targets, first, pull)
    for block in rest:
        # The order of evaluation is free but for this dependency; without it all blocks live at once.
        done = [sums.others] if sums.pulled is None else [sums.others, sums.pulled]
        sums = _join(sums, _block_sums(head, mx.depends([hidden], done)[0], targets, block, pull))
    return sums


def _loss_and_gradient(
    head: Head, hidden: mx.array, targets: NDArray[np.int32], pull: bool = True
) -> tuple[mx.array, mx.array]:
    """Loss of each position, (N,), and the gradient of their sum in the hidden states, (N, H), empty unless `pull`."""
    place = mx.array(targets)
    sums = _all_sums(head, hidden, place[:, None], pull)
    gap = sums.largest - sums.chosen
    total = mx.exp(-gap) + sums.others
    losses = (gap + mx.log(total))[:, 0]
    if sums.pulled is None:
        return losses, mx.array([])
    return losses, (sums.pulled - head.through_cap(sums.others, sums.chosen) * head.rows(place)) / total


def head_loss(head: Head, hidden: mx.array, targets: NDArray[np.int32]) -> mx.array:
    """Summed loss in nats over (N, H) hidden states and (N,) targets, differentiable in the hidden states only."""

    @mx.custom_function
    def loss_and_gradient(hidden: mx.array) -> tuple[mx.array, mx.array]:
        losses, gradient = _loss_and_gradient(head, hidden, targets)
        return losses.sum(), gradient

    @loss_and_gradient.vjp
    def _pull_back(primals: Any, cotangents: Any, outputs: Any) -> Any:
        return (outputs[1] * cotangents[0]).astype(hidden.dtype)

    outputs: Any = loss_and_gradient(hidden)
    loss: mx.array = outputs[0]
    return loss


def objective(model: Any, head: Head | None, batch: Batch) -> mx.array:
    """The trainer's objective: summed reply loss in nats; whoever adds up the gradients divides them by the count.

    Dividing last keeps the gradients inside a float16 body large enough for that type.
    Args:  head: from `split_head`; None goes through the full logits.
    """
    if head is None:
        return _full_losses(model, batch).sum()
    return head_loss(head, hidden_states(model, head, batch), target_tokens(batch))


def _full_losses(model: Any, batch: Batch) -> mx.array:
    """Loss per counted token through the full logits: (N,) float32."""
    cache = None
    if batch.segments is not None:
        cache = [PackedCache(batch.segments[:, :-1])] * len(model.layers)
    logits = model(mx.array(batch.tokens[:, :-1]), cache)
    positions = mx.array(np.flatnonzero(batch.targets).astype(np.int32))
    chosen = logits.reshape(-1, logits.shape[-1])[positions].astype(mx.float32)
    shifted = chosen - mx.stop_gradient(chosen.max(axis=-1, keepdims=True))  # differences first: logits may be large
    return nn.losses.cross_entropy(shifted, mx.array(target_tokens(batch)))


def token_losses(model: Any, head: Head | None, batch: Batch) -> NDArray[np.float64]:
    """Loss in nats of each counted token, (N,) in batch order, no gradient."""
    if head is None:
        losses = _full_losses(model, batch)
    else:
        losses = _loss_and_gradient(head, hidden_states(model, head, batch), target_tokens(batch), pull=False)[0]
    return np.array(losses, dtype=np.float64)


def batch_loss(model: Any, head: Head | None, batch: Batch) -> float:
    """Summed loss of a batch in nats, no gradient."""
    return float(token_losses(model, head, batch).sum())


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
    n_tokens = sum(sum(row.reply[1:]) for row in rows)
    return evaluate_sum(model, split_head(model, for_gradient=False), rows, batch_size) / n_tokens


def row_losses(model: Any, rows: Sequence[TrainingRow]) -> list[float]:
    """Mean loss of each row by itself (nats per reply token), in the order given, in evaluation mode."""
    was_training = model.training
    model.eval()
    head = split_head(model, for_gradient=False)
    losses = [batch_loss(model, head, make_batch([row])) / sum(row.reply[1:]) for row in rows]
    model.train(was_training)
    return losses
