"""Batches: which rows go together at which step, a pure function of the rows, the settings and the seed.

Rows of like length meet in a batch (little padding), in an order that is shuffled anew every epoch. The first batch
of all is made of the longest rows: whatever does not fit into memory fails at once and not hours later. Because a
step's batch is computed from its number, the data cursor of a checkpoint is the number of steps done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lem.training.dataset import TrainingRow

IntArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]
PAD_TO = 32
POOL_BATCHES = 16  # batches per pool of sorted rows: enough for little padding, few enough to mix neighbours


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: `tokens` (B, T) int32; `targets` (B, T-1), true where the next token counts.

    `segments` (B, T) int32 numbers the rows packed into one sequence, padding -1; None where nothing is packed.
    """

    tokens: IntArray
    targets: BoolArray
    segments: IntArray | None = None

    @property
    def n_targets(self) -> int:
        """Tokens that the loss counts."""
        return int(self.targets.sum())


def _padded(length: int, pad_to: int = PAD_TO) -> int:
    """Width of a batch whose longest row has `length` tokens: the model reads all but the last."""
    return 1 + -(-(length - 1) // pad_to) * pad_to


def make_batch(rows: Sequence[TrainingRow], pad_to: int = PAD_TO) -> Batch:
    """Right-pad rows so that the model reads a multiple of `pad_to` tokens; padding is never a target."""
    width = _padded(max(len(row.tokens) for row in rows), pad_to)
    tokens = np.zeros((len(rows), width), dtype=np.int32)
    targets = np.zeros((len(rows), width - 1), dtype=np.bool_)
    for index, row in enumerate(rows):
        tokens[index, : len(row.tokens)] = row.tokens
        targets[index, : len(row.tokens) - 1] = row.reply[1:]
    return Batch(tokens, targets)


def make_packed_batch(bins: Sequence[Sequence[TrainingRow]]) -> Batch:
    """One sequence per bin, its rows end to end; the token after a row's end is never a target."""
    joined = [
        TrainingRow(
            tuple(token for row in rows for token in row.tokens),
            tuple(flag and index > 0 for row in rows for index, flag in enumerate(row.reply)),
        )
        for rows in bins
    ]
    batch = make_batch(joined)
    segments = np.full(batch.tokens.shape, -1, dtype=np.int32)
    for index, rows in enumerate(bins):
        numbers = np.repeat(np.arange(len(rows)), [len(row.tokens) for row in rows])
        segments[index, : len(numbers)] = numbers
    return Batch(batch.tokens, batch.targets, segments)


class PackedCache:
    """Stands where a model expects its key/value cache, only to give it a block-diagonal causal mask.

    Positions go on counting across the rows of a sequence; rotary positions are relative, so a row sees what it
    would see alone. `check_packing` proves that for the model at hand.
    """

    offset = 0

    def __init__(self, segments: IntArray) -> None:
        self._segments = mx.array(segments)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Keep nothing: the keys and values of the call are all there are."""
        return keys, values

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """(B, 1, T, T): true where query and key belong to one row, the key is not later, and within the window."""
        place = mx.arange(n)
        mask = place[:, None] >= place[None]
        if window_size is not None:
            mask = mask & (place[:, None] < place[None] + window_size)
        same = self._segments[:, :, None] == self._segments[:, None, :]
        return (mask[None] & same)[:, None]


def pack(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """First-fit decreasing: row indices per bin of at most `limit` tokens (a longer row has a bin of its own)."""
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for number, free in enumerate(room):
            if lengths[index] <= free:
                bins[number].append(index)
                room[number] -= lengths[index]
                break
        else:
            bins.append([index])
            room.append(limit - lengths[index])
    return bins


class Schedule:
    """The batches of a training: `micro_batches(step)` for steps from 1, the same in every process.

    A step takes `batch_size * accumulation` rows (bins if packed); the last step of an epoch may take fewer.
    """

    def __init__(
        self, rows: Sequence[TrainingRow], batch_size: int, accumulation: int, seed: int, pack_to: int | None = None
    ) -> None:
        self._rows = rows
        self._batch_size, self._seed = batch_size, seed
        lengths = [len(row.tokens) for row in rows]
        self._bins = [[index] for index in range(len(rows))] if pack_to is None else pack(lengths, pack_to)
        self._packed = pack_to is not None
        self._lengths = [sum(lengths[index] for index in unit) for unit in self._bins]
        self._per_step = batch_size * accumulation
        self.steps_per_epoch = -(-len(self._bins) // self._per_step)
        self._epoch = lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> list[list[int]]:
        """The units of every step of an epoch."""
        generator = np.random.default_rng((self._seed, epoch))
        units = [int(unit) for unit in generator.permutation(len(self._bins))]
        first: list[int] = []
        if epoch == 0:
            first = sorted(units, key=lambda unit: -self._lengths[unit])[: self._per_step]
            taken = set(first)
            units = [unit for unit in units if unit not in taken]
        steps: list[list[int]] = []
        pool = self._per_step * POOL_BATCHES
        for start in range(0, len(units), pool):
            near = sorted(units[start : start + pool], key=lambda unit: self._lengths[unit])
            steps += [near[at : at + self._per_step] for at in range(0, len(near), self._per_step)]
        shuffled = [steps[int(index)] for index in generator.permutation(len(steps))]
        return [first, *shuffled] if first else shuffled

    def row_indices(self, step: int) -> list[list[list[int]]]:
        """Rows of a step: micro-batches of units of row indices."""
        return [[self._bins[unit] for unit in cut] for cut in self._cuts(step)]

    def _cuts(self, step: int) -> list[list[int]]:
        """Units of a step by micro-batch."""
        epoch, index = divmod(step - 1, self.steps_per_epoch)
        units = self._epoch(epoch)[index]
        return [units[start : start + self._batch_size] for start in range(0, len(units), self._batch_size)]

    def n_targets(self, step: int) -> int:
        """Counted tokens of a step, over all micro-batches and ranks."""
        rows = (row for cut in self.row_indices(step) for unit in cut for row in unit)
        return sum(sum(self._rows[row].reply[1:]) for row in rows)

    def micro_batches(self, step: int, rank: int = 0, n_ranks: int = 1) -> list[Batch]:
        """The batches of a step that this rank computes; a rank may have fewer than another, even none."""
        batches: list[Batch] = []
        for cut in self.row_indices(step):
            mine = cut[rank::n_ranks]
            if not mine:
                continue
            if self._packed:
                batches.append(make_packed_batch([[self._rows[row] for row in unit] for unit in mine]))
            else:
                batches.append(make_batch([self._rows[unit[0]] for unit in mine]))
        return batches

    def longest_batch(self) -> Batch:
        """The largest micro-batch of the whole training, which is also the first."""
        return self.micro_batches(1)[0]

    def describe(self) -> dict[str, Any]:
        """Rows, sequences, steps an epoch, and the share of padding in the first epoch."""
        cuts = [cut for step in range(1, self.steps_per_epoch + 1) for cut in self._cuts(step)]
        read = sum(len(cut) * _padded(max(self._lengths[unit] for unit in cut)) for cut in cuts)
        filled = sum(self._lengths)
        return {
            "rows": len(self._rows),
            "sequences": len(self._bins),
            "steps_per_epoch": self.steps_per_epoch,
            "padding": 1 - filled / read if read else 0.0,
        }
