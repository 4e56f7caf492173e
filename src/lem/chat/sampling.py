"""Row-keyed sampling: every row draws from its own random stream, whatever else is in the batch.

A row's key is a hash of (run seed, probe, repeat); the key of its n-th token is (word 0, word 1 + n) of
that hash. One vectorised call serves the whole batch. Tokens are ranked by probability, the nucleus is cut, and
Gumbel noise, drawn by rank, picks one of it (Gumbel-max): a row's draw depends on its own logits and its own key
only, and MLX's global random state is neither read nor moved.

Sorting a whole vocabulary costs more than the network itself on a small model. On the CPU only the `CANDIDATES` most
likely tokens of a row are therefore ranked; a row whose nucleus reaches further, which is checked at every token, is
ranked in full. The noise of the first ranks is the same either way, so the two paths draw the same token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import mlx.core as mx

CANDIDATES = 256
_LATE_RANKS = 0x80000000  # flips a key bit for the noise of the ranks from CANDIDATES on


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
        self._few = mx.default_device() == mx.cpu

    def keep(self, indices: Sequence[int]) -> None:
        """Forget all rows but these positions."""
        self._keys = self._keys[mx.array(list(indices), dtype=mx.uint32)]

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Draw one token per row.   Args: logprobs (B, V), normalised.   Returns: (B,) token ids."""
        if self._temperature == 0:
            return mx.argmax(logprobs, axis=-1)
        if logprobs.shape[0] != self._keys.shape[0]:
            raise RuntimeError(f"{logprobs.shape[0]} rows to sample but {self._keys.shape[0]} keys")
        logprobs = logprobs.astype(mx.float32)
        keys = self._keys + mx.array([0, self._step], dtype=mx.uint32)
        self._step += 1
        if not self._few or logprobs.shape[1] <= CANDIDATES:
            return self._draw(logprobs, None, keys)[0]
        likely = mx.argpartition(-logprobs, kth=CANDIDATES - 1, axis=-1)[:, :CANDIDATES]
        tokens, mass = self._draw(logprobs, likely, keys)
        masses: Any = mass.tolist()
        wide = [row for row, held in enumerate(masses) if self._top_p >= 1 or held < self._top_p]
        if wide:
            rows = mx.array(wide)
            tokens[rows] = self._draw(logprobs[rows], None, keys[rows])[0]
        return tokens

    def _draw(self, logprobs: mx.array, tokens: mx.array | None, keys: mx.array) -> tuple[mx.array, mx.array]:
        """Draw from the nucleus of the given tokens (all if None); returns tokens (B,) and the mass they hold (B,)."""
        tokens, values = _rank(logprobs, tokens)
        through = mx.cumsum(mx.exp(values), axis=-1)
        scaled = values / self._temperature + _noise(keys, values.shape[1])
        if self._top_p < 1:
            before = through - mx.exp(values)
            scaled = mx.where(before < self._top_p, scaled, -mx.inf)
        chosen = mx.argmax(scaled, axis=-1, keepdims=True)
        return mx.take_along_axis(tokens, chosen, axis=-1).squeeze(-1), through[:, -1]


def _rank(logprobs: mx.array, tokens: mx.array | None) -> tuple[mx.array, mx.array]:
    """Sort tokens (all if None) by falling log-probability; both results are (B, n)."""
    values = logprobs if tokens is None else mx.take_along_axis(logprobs, tokens, axis=-1)
    order = mx.argsort(-values, axis=-1)
    ranked = order if tokens is None else mx.take_along_axis(tokens, order, axis=-1)
    return ranked, mx.take_along_axis(values, order, axis=-1)


def _noise(keys: mx.array, n: int) -> mx.array:
    """Gumbel noise (B, n) by rank; the first CANDIDATES ranks get the same noise however many follow."""
    early = _gumbel(keys, min(n, CANDIDATES))
    if n <= CANDIDATES:
        return early
    late = _gumbel(keys ^ mx.array([_LATE_RANKS, 0], dtype=mx.uint32), n - CANDIDATES)
    return mx.concatenate([early, late], axis=-1)


def _gumbel(keys: mx.array, n: int) -> mx.array:
    """Standard Gumbel noise (B, n), row by row from its own key (B, 2)."""
    noise: mx.array = mx.vmap(lambda key: mx.random.gumbel((n,), key=key))(keys)
    return noise
