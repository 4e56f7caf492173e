"""Proof that a model can be trained on packed rows: a row must lose the same in company as alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lem.chat.load import ChatModel
from lem.errors import UserError
from lem.training.batches import make_batch, make_packed_batch
from lem.training.dataset import TrainingRow
from lem.training.head import Head
from lem.training.loss import token_losses

# Of the norm of the losses of single tokens; sums would not do, since what a neighbour changes has both signs and a
# full leak moves the sum of a trained model by only a thousandth (lem-nano: 4e-2 of the norm, bfloat16 by itself 5e-3).
SHIFT_TOLERANCE = {mx.float32: 1e-3, mx.float16: 5e-3, mx.bfloat16: 2e-2}
LEAK_TOLERANCE = 2e-3  # other tokens in a neighbour of the same length must change nothing, whatever the precision


def check_packing(chat: ChatModel, head: Head | None, rows: Sequence[TrainingRow]) -> None:
    """Compare the two shortest rows alone, packed, and packed behind another neighbour.   Raises: UserError.

    Two sequences of unlike layout go in one batch, because a model may spread the mask over another axis than rows.
    """
    two = sorted(rows, key=lambda row: len(row.tokens))[:2]
    if len(two) < 2:
        return
    was_training = chat.model.training
    chat.model.eval()
    try:
        alone, packed, beside_other = _losses(chat.model, head, two)
        shift_tolerance = SHIFT_TOLERANCE[chat.model(mx.array([[1]])).dtype]
    except (TypeError, AttributeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{chat.name}: this architecture cannot be packed ({reason}); leave out --pack.") from None
    finally:
        chat.model.train(was_training)
    behind = sum(two[0].reply[1:])
    leak = _distance(packed[behind:], beside_other[behind:])
    shift = _distance(alone, packed)
    if not (leak <= LEAK_TOLERANCE and shift <= shift_tolerance):
        raise UserError(
            f"{chat.name}: rows that are packed together change each other here (losses of single tokens move by "
            f"{max(leak, shift):.1%}); leave out --pack."
        )


def _losses(model: Any, head: Head | None, two: Sequence[TrainingRow]) -> list[NDArray[np.float64]]:
    """Losses of first, second, second: each alone; the first two in one sequence; there with the first reversed."""
    first, second = two
    reversed_first = TrainingRow(first.tokens[::-1], first.reply)
    alone = [token_losses(model, head, make_batch([row])) for row in (first, second, second)]
    return [
        np.concatenate(alone),
        token_losses(model, head, make_packed_batch([[first, second], [second]])),
        token_losses(model, head, make_packed_batch([[reversed_first, second], [second]])),
    ]


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))
