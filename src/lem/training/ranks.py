"""The processes of a data-parallel training (`mlx.launch`): who writes, and how all of them learn the same.

Rank 0 alone reads and writes the adapter directory; the others need the model and the data, but no common disk.
"""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import numpy as np

from lem.training.step import broadcast


class Ranks:
    """This process among those of the training; alone it is `first` and everything here costs nothing."""

    def __init__(self, group: Any) -> None:
        self.rank: int = group.rank()
        self.size: int = group.size()
        self.group: Any = group if self.size > 1 else None
        self.first = self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.group is None:
            return flag
        return bool(mx.distributed.all_sum(mx.array(float(flag)), group=self.group, stream=mx.cpu).item())

    def from_first(self, value: Any) -> Any:
        """The first process's value in all of them; anything that JSON can hold."""
        if self.group is None:
            return value
        text = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32) if self.first else np.zeros(0)
        size = self._sum(np.array([len(text)]))[0]
        whole = self._sum(text if self.first else np.zeros(size))
        return json.loads(bytes(whole.astype(np.uint8)).decode())

    def _sum(self, values: Any) -> Any:
        return np.array(
            mx.distributed.all_sum(mx.array(values.astype(np.int32)), group=self.group, stream=mx.cpu)
        )  # fmt: skip

    def share_weights(self, model: Any, optimizer: Any) -> None:
        """Give every process the first one's trainable weights and optimiser state."""
        if self.group is not None:
            broadcast(model, optimizer, self.group)


def here() -> Ranks:
    """This process: one of those that `mlx.launch` started, or alone."""
    return Ranks(mx.distributed.init())
