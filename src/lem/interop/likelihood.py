"""Log-likelihoods of continuations: what a model gives to each next token of a text, summed over its second part.

    context + continuation[:-1] --model--> logits of each position --log-softmax--> sum over the continuation

What all contexts share (a kernel, worked examples) is computed once. Contexts run through the cache without their
logits, so memory goes with the continuations and not with length x vocabulary. Requests whose input is the same
(one-token choices of one question) share a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lem.errors import LemError, UserError

if TYPE_CHECKING:
    from lem.chat.load import ChatModel

PREFILL_STEP = 2048
LOGIT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Continuation:
    """Tokens to condition on, at least one, and the tokens to score after them."""

    context: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Likelihood:
    """Natural log-probability of a continuation, and whether greedy decoding would have written it."""

    total: float
    greedy: bool


@dataclass(frozen=True)
class _Wanted:
    """One token to score: its row of the batch, the position whose logits predict it, the token, its request."""

    row: int
    position: int
    token: int
    request: int


def fit_left(pair: Continuation, max_length: int) -> tuple[Continuation, int]:
    """Drop tokens from the left until the model can read what it must; returns the pair and how many were dropped.

    The last token of a continuation is predicted and not read, so `max_length + 1` tokens fit.
    Raises: UserError if the continuation alone is too long, because then scored tokens would be lost.
    """
    excess = max(0, len(pair.context) + len(pair.tokens) - max_length - 1)
    if excess >= len(pair.context):
        raise UserError(
            f"a continuation of {len(pair.tokens)} tokens does not fit a model that reads {max_length}; shorten the "
            "task's answers or raise max_length."
        )
    return Continuation(pair.context[excess:], pair.tokens), excess


def score(
    chat: ChatModel, pairs: Sequence[Continuation], group_size: Callable[[int], int]
) -> Iterator[tuple[int, Likelihood]]:
    """Score continuations in groups of like length, longest first; yields (position in `pairs`, likelihood).

    Args:  group_size: rows that fit together, from the longest row's tokens.
    Raises: LemError when a log-probability is not a finite number.
    """
    from lem.chat.generate import Prefix, prefix_of
    from lem.runs.workers import one_blas_thread

    askers: dict[tuple[int, ...], list[int]] = {}
    for index, pair in enumerate(pairs):
        if not pair.context:
            raise ValueError("a continuation needs at least one token before it")
        if pair.tokens:
            askers.setdefault((pair.context + pair.tokens)[:-1], []).append(index)
        else:
            yield index, Likelihood(0.0, True)
    inputs = sorted(askers, key=lambda tokens: (-len(tokens), tokens))
    shared = prefix_of(inputs) if len(inputs) > 1 else ()
    # The logits of a context's last token are needed, so that token stays outside the prefix.
    prefix = Prefix(shared[: min((len(pair.context) for pair in pairs), default=1) - 1])
    start = 0
    while start < len(inputs):
        rows = inputs[start : start + group_size(len(inputs[start]))]
        start += len(rows)
        wanted = [
            _Wanted(row, len(pairs[index].context) - 1 + offset, token, index)
            for row, tokens in enumerate(rows)
            for index in askers[tokens]
            for offset, token in enumerate(pairs[index].tokens)
        ]
        with one_blas_thread():
            found = list(_logprobs(chat, rows, wanted, prefix))
        yield from _sums(found)


def _sums(found: Sequence[tuple[_Wanted, float, int]]) -> Iterator[tuple[int, Likelihood]]:
    totals: dict[int, float] = {}
    greedy: dict[int, bool] = {}
    for wanted, value, best in found:
        if not np.isfinite(value):
            raise LemError(
                f"the model gives token {wanted.token} at position {wanted.position} the log-probability {value}, "
                "which is no finite number; check model and adapter with `lem doctor`."
            )
        totals[wanted.request] = totals.get(wanted.request, 0.0) + value
        greedy[wanted.request] = greedy.get(wanted.request, True) and best == wanted.token
    for request, total in totals.items():
        yield request, Likelihood(total, greedy[request])


def _logprobs(
    chat: ChatModel, rows: Sequence[tuple[int, ...]], wanted: Sequence[_Wanted], prefix: Any
) -> Iterator[tuple[_Wanted, float, int]]:
    """Run one batch; yields what is wanted with its log-probability (float64) and the position's most likely token.

    Rows are padded on the right: what stands right of a row's end cannot reach it in a causal model.
    """
    import mlx.core as mx

    skipped, length = len(prefix.tokens), max(len(row) for row in rows)
    padded = np.zeros((len(rows), length - skipped), dtype=np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row) - skipped] = row[skipped:]
    cache = _cache_for(chat, prefix, len(rows))
    first = min(entry.position for entry in wanted)
    for low in range(skipped, first, PREFILL_STEP):
        chat.model(mx.array(padded[:, low - skipped : min(first, low + PREFILL_STEP) - skipped]), cache=cache)
        mx.eval([layer.state for layer in cache])
    config = {**chat.config, **chat.config.get("text_config", {})}
    step = max(1, LOGIT_BYTES // (4 * len(rows) * int(config.get("vocab_size", 262_144))))
    for low in range(first, length, step):
        logits = chat.model(mx.array(padded[:, low - skipped : low + step - skipped]), cache=cache).astype(mx.float32)
        here = [entry for entry in wanted if low <= entry.position < low + step]
        if not here:
            mx.eval([layer.state for layer in cache])
            continue
        row_of, at = mx.array([entry.row for entry in here]), mx.array([entry.position - low for entry in here])
        values = logits[row_of, at, mx.array([entry.token for entry in here])]
        values = np.array(values - mx.logsumexp(logits, axis=-1)[row_of, at], dtype=np.float64)
        best = np.array(mx.argmax(logits, axis=-1)[row_of, at])
        yield from zip(here, values.tolist(), best.tolist(), strict=True)
    mx.clear_cache()


def _cache_for(chat: ChatModel, prefix: Any, n_rows: int) -> list[Any]:
    """A cache for a batch in which every row has read the prefix."""
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.models.cache import make_prompt_cache

    def repeated(part: Any) -> Any:
        return mx.repeat(part, n_rows, axis=0) if isinstance(part, mx.array) else part

    cache: list[Any] = make_prompt_cache(chat.model)
    for layer, read in zip(cache, prefix.cache(chat) or (), strict=False):
        layer.state = tree_map(repeated, read.state)
    return cache
