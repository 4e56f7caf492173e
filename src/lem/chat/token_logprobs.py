"""Log-probabilities of single tokens: one batch of rows through the model, on top of what its cache has read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from lem.chat.branching import PASS_TOKENS, read_tokens
from lem.chat.load import ChatModel

LOGIT_BYTES = 256 * 2**20
Values = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Wanted:
    """One token to score: its row of the batch, the position whose logits predict it, the token, its pair."""

    row: int
    position: int
    token: int
    pair: int


def logprobs(
    chat: ChatModel, rows: Sequence[Sequence[int]], wanted: Sequence[Wanted], cache: Sequence[Any]
) -> Iterator[tuple[Wanted, float, int]]:
    """Run one batch; yields what is wanted with its log-probability (float64) and the position's most likely token.

    Rows are padded on the right: what stands right of a row's end cannot reach it in a causal model.
    """
    length = max(len(row) for row in rows)
    padded = np.zeros((len(rows), length), dtype=np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    first = min(entry.position for entry in wanted)
    if first < PASS_TOKENS:  # too few to be worth a pass of their own
        first = 0
    read_tokens(chat, cache, padded[:, :first])
    config = {**chat.config, **chat.config.get("text_config", {})}
    step = max(1, LOGIT_BYTES // (4 * len(rows) * int(config.get("vocab_size", 262_144))))
    for low in range(first, length, step):
        logits = chat.model(mx.array(padded[:, low : low + step]), cache=cache)
        here = [entry for entry in wanted if low <= entry.position < low + step]
        if not here:
            mx.eval([layer.state for layer in cache])
            continue
        norms, best = normalisers(logits, [(entry.row, entry.position - low) for entry in here])
        at = [[entry.row for entry in here], [entry.position - low for entry in here]]
        picked = logits[mx.array(at[0]), mx.array(at[1]), mx.array([entry.token for entry in here])]
        values = np.array(picked.astype(mx.float32)).astype(np.float64) - norms[at[0], at[1]]
        yield from zip(here, values.tolist(), best[at[0], at[1]].tolist(), strict=True)


def normalisers(logits: mx.array, wanted: Iterable[tuple[int, int]]) -> tuple[Values, Values]:
    """Log of the sum of exponentials and most likely token, each (rows, length), of logits (rows, length, vocabulary).

    Only what is `wanted`, (row, position), is sure to be filled in. On a CPU this is NumPy's work, row by row: its
    exponential is some ten times faster there than MLX's.
    """
    if mx.default_device() != mx.cpu:
        wide = logits.astype(mx.float32)
        return np.array(mx.logsumexp(wide, axis=-1)), np.array(mx.argmax(wide, axis=-1))
    table = np.array(logits.astype(mx.float32), copy=False)
    norms, best = np.zeros(table.shape[:2]), np.zeros(table.shape[:2], dtype=np.int64)
    spans: dict[int, list[int]] = {}
    for row, position in wanted:
        spans.setdefault(row, []).append(position)
    for row, positions in spans.items():
        here = np.s_[row, min(positions) : max(positions) + 1]
        best[here] = table[here].argmax(axis=-1)
        highest = table[here].max(axis=-1)
        shifted = table[here] - highest[:, None]
        norms[here] = highest + np.log(np.exp(shifted, out=shifted).sum(axis=-1, dtype=np.float64))
    return norms, best
