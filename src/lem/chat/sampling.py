"""Row-keyed sampling: every row draws from its own random stream, whatever else is in the batch.

A row's key is a hash of (run seed, probe, repeat); the key of its n-th token is (word 0, word 1 + n) of
that hash. One vectorised call serves the whole batch. Sampling is Gumbel-max over the nucleus, so a row's
draw depends on its own logits and its own key only, and MLX's global random state is neither read nor moved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import mlx.core as mx


def row_seed(run_seed: int, probe_id: str, repeat: int) -> int:
    """64-bit key of a row; the same across arms (common random numbers), never the same for two repeats."""
    digest = hashlib.sha256(f"lem-row\0{run_seed}\0{probe_id}\0{repeat}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


class RowSampler:
    """Samples the next token of every living row of one decoding group.

    Args:  seeds: 64-bit key per row, in batch order.  temperature: 0 is greedy.  top_p: nucleus mass in (0, 1].
    The caller reports rows that ended with `keep`, in the same order in which the batch drops them.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        words = [[seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF] for seed in seeds]
        self._keys = mx.array(words, dtype=mx.uint32)
        self._step = 0
        self._temperature = temperature
        self._top_p = top_p
        self._noise = mx.vmap(lambda row, key: mx.random.gumbel(row.shape, key=key), in_axes=(0, 0))

    def keep(self, indices: Sequence[int]) -> None:
        """Forget all rows but these positions."""
        self._keys = self._keys[mx.array(list(indices), dtype=mx.uint32)]

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Draw one token per row.   Args: logprobs (B, V), normalised.   Returns: (B,) token ids."""
        if self._temperature == 0:
            return mx.argmax(logprobs, axis=-1)
        if logprobs.shape[0] != self._keys.shape[0]:
            raise RuntimeError(f"{logprobs.shape[0]} rows to sample but {self._keys.shape[0]} keys")
        if self._top_p < 1:
            logprobs = nucleus(logprobs, self._top_p)
        step = mx.array([0, self._step], dtype=mx.uint32)
        self._step += 1
        scaled = logprobs.astype(mx.float32) / self._temperature
        return mx.argmax(scaled + self._noise(scaled, self._keys + step), axis=-1)


def nucleus(logprobs: mx.array, top_p: float) -> mx.array:
    """Set to -inf all but the smallest set of most likely tokens whose probability reaches `top_p`.

    Ties at the edge stay in. Applied before the temperature, as mlx-lm does.   Args: logprobs (B, V), normalised.
    """
    probabilities = mx.exp(logprobs)
    ascending = mx.sort(probabilities, axis=-1)
    below = mx.cumsum(ascending, axis=-1)
    # A token stays if the mass of everything at most as likely as it exceeds 1 - top_p.
    inside = mx.where(below > 1 - top_p, ascending, mx.inf)
    edge = mx.min(inside, axis=-1, keepdims=True)
    return mx.where(probabilities >= edge, logprobs, -mx.inf)
