"""One optimiser step: gradients over micro-batches and ranks, the norm, the clip, and a verdict on finiteness."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from lem.training.batches import Batch
from lem.training.head import Head
from lem.training.loss import number, objective
from lem.training.methods import flat

CACHE_BYTES = 512 * 2**20  # of freed buffers that MLX may hold on to; batches of many shapes would fill the memory


@dataclass(frozen=True)
class Gradient:
    """Gradient of the mean loss over a step's counted tokens, clipped; `loss_sum` is over all ranks, in nats."""

    values: Any
    loss_sum: float
    norm: float

    @property
    def finite(self) -> bool:
        """Whether loss and norm are numbers that an update may be made from."""
        return math.isfinite(self.loss_sum) and math.isfinite(self.norm)


def step_seed(seed: int, step: int, micro: int = 0, rank: int = 0) -> int:
    """Seed of the random numbers (dropout) of one micro-batch, so that no random state need be saved."""
    return hash((seed, step, micro, rank)) & 0x7FFFFFFFFFFFFFFF


def gradient(
    model: Any, head: Head | None, batches: Sequence[Batch], n_tokens: int, clip: float,
    seed_of: Callable[[int], int], group: Any = None,
) -> Gradient:  # fmt: skip
    """Sum the gradient over micro-batches and ranks.

    Args:  n_tokens: counted tokens of the step over all ranks.  seed_of: micro-batch number -> random seed.
           group: a distributed group of more than one rank, else None.
    """
    value_and_grad = nn.value_and_grad(model, objective)
    total: Any = None
    loss_sum = 0.0
    for micro, batch in enumerate(batches):
        mx.random.seed(seed_of(micro))
        loss, values = value_and_grad(model, head, batch)
        total = values if total is None else tree_map(mx.add, total, values)
        mx.eval(loss, total)
        loss_sum += number(loss)
        if mx.get_cache_memory() > CACHE_BYTES:
            mx.clear_cache()
    if total is None:  # this rank has no row of a short last batch
        total = tree_map(mx.zeros_like, model.trainable_parameters())
    if group is not None:
        # In few large messages, where one an array would cost a round trip each.
        mean = nn.average_gradients(total, group, communication_stream=mx.default_stream(mx.cpu))
        total = tree_map(lambda value: value * group.size(), mean)
        loss_sum = number(mx.distributed.all_sum(mx.array(loss_sum), group=group, stream=mx.cpu))
    clipped, norm = optim.clip_grad_norm(tree_map(lambda value: value / n_tokens, total), clip)
    mx.eval(clipped, norm)
    return Gradient(clipped, loss_sum, number(norm))


def apply_gradient(model: Any, optimizer: Any, found: Gradient, learning_rate: float) -> None:
    """Update the weights in place with this learning rate."""
    optimizer.learning_rate = learning_rate
    optimizer.update(model, found.values)
    mx.eval(model.trainable_parameters(), optimizer.state)


def all_finite(model: Any) -> bool:
    """Whether every trainable weight is a finite number."""
    return all(bool(mx.all(mx.isfinite(value)).item()) for _, value in flat(model.trainable_parameters()))
