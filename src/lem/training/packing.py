"""Proof that a model can be trained on packed rows: a row must lose the same in company as alone."""

from __future__ import annotations

from collections.abc import Sequence

from lem.chat.load import ChatModel
from lem.errors import UserError
from lem.training.batches import make_batch, make_packed_batch
from lem.training.dataset import TrainingRow
from lem.training.head import Head
from lem.training.loss import batch_loss

TOLERANCE = 1e-2  # relative, of a summed loss; a row that sees its neighbour is off by far more, bfloat16 by less


def check_packing(chat: ChatModel, head: Head | None, rows: Sequence[TrainingRow]) -> None:
    """Compare the loss of the two shortest rows packed and alone.   Raises: UserError if they differ."""
    two = sorted(rows, key=lambda row: len(row.tokens))[:2]
    if len(two) < 2:
        return
    was_training = chat.model.training
    chat.model.eval()
    try:
        alone = sum(batch_loss(chat.model, head, make_batch([row])) for row in two)
        packed = batch_loss(chat.model, head, make_packed_batch([two]))
    except (TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{chat.name}: this architecture cannot be packed ({error}); leave out --pack.") from None
    finally:
        chat.model.train(was_training)
    if abs(packed - alone) > TOLERANCE * abs(alone):
        raise UserError(
            f"{chat.name}: rows that are packed together change each other here (loss {packed:.4f} against "
            f"{alone:.4f}); leave out --pack."
        )
