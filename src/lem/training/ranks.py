"""The processes of a data-parallel training (`mlx.launch`): who writes, and how all of them learn the same.

Rank 0 alone reads and writes the adapter directory; the others need the model and the data, but no common disk.
"""

from __future__ import annotations

import json
import signal
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_unflatten

from lem.runs.ring import sum_over_ranks
from lem.training.methods import flat


class Ranks:
    """This process among those of the training; alone it is `first` and everything here costs nothing."""

    def __init__(self, group: Any) -> None:
        self.rank: int = group.rank()
        self.size: int = group.size()
        self.group: Any = group if self.size > 1 else None
        self.first = self.rank == 0

    @property
    def signals(self) -> tuple[signal.Signals, ...]:
        """The signals on which a training ends with a checkpoint, after the step."""
        if self.group is None:
            return (signal.SIGINT, signal.SIGTERM)
        # mlx.launch sends SIGTERM to those that wait for one that died; their step would never end.
        return (signal.SIGINT,)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process.   Raises: Incomplete if one of them is gone."""
        if self.group is None:
            return flag
        return bool(sum_over_ranks(np.array([flag]), self.group)[0])

    def check(self) -> None:
        """Make sure that all processes are there: a sum of gradients or losses does not say so itself.

        Raises: Incomplete if one is gone.
        """
        self.any(False)

    def from_first(self, value: Any) -> Any:
        """The first process's value in all of them; anything that JSON can hold.   Raises: Incomplete as `any`."""
        if self.group is None:
            return value
        text = np.frombuffer(json.dumps(value).encode(), np.uint8) if self.first else np.zeros(0)
        size = sum_over_ranks(np.array([len(text)]), self.group)[0]
        whole = sum_over_ranks(text if self.first else np.zeros(size), self.group)
        return json.loads(bytes(whole.astype(np.uint8)).decode())

    def share_weights(self, model: Any, optimizer: Any) -> None:
        """Give every process the first one's trainable weights and optimiser state."""
        if self.group is not None:
            model.update(self._shared(model.trainable_parameters()))
            optimizer.state = self._shared(optimizer.state)

    def _shared(self, tree: Any) -> Any:
        """A tree of arrays, one after the other by name: in two processes they need not stand in the same order."""
        pairs = []
        for name, value in sorted(flat(tree)):
            mine = value if self.first else mx.zeros_like(value)
            number = mine.astype(mx.int32) if mine.dtype == mx.uint64 else mine  # the step counter; no sum of its type
            total = mx.distributed.all_sum(number, group=self.group, stream=mx.cpu).astype(value.dtype)
            mx.eval(total)
            pairs.append((name, total))
        return tree_unflatten(pairs)


def here() -> Ranks:
    """This process: one of those that `mlx.launch` started, or alone."""
    return Ranks(mx.distributed.init())
