"""Read what rows share once and go on from there: key/value caches that branch from contexts to continuations.

    contexts, by length   |--cut--|--cut--|---->        one pass between two cuts, for all contexts that long
    rows to score                 `-- tail + continuation   each with a copy of its context's cache

At a cut every cache has read equally many tokens, so no row is padded on the left, and every kind of cache that mlx-lm
has (sliding windows, recurrent states) goes on from it as if it had read the row alone. The few tokens between the last
cut and the end of a context are read once for each row instead; where to cut is weighed by `partition`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models.cache import make_prompt_cache

from lem.chat.generate import PREFILL_STEP, Prefix
from lem.chat.load import ChatModel

# What starting a pass costs, in tokens of a full one: 3-4 ms against 0.07 ms a token for lem-nano on a CPU. A GPU hides
# more tokens behind the start of a pass and would bear a higher figure.
PASS_TOKENS = 50


def partition(n: int, cost: Callable[[int, int], float], limit: int) -> list[tuple[int, int]]:
    """Cut 0..n-1 into runs [first, last) of at most `limit` so that the sum of `cost(first, last)` is least."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for last in range(1, n + 1):
        starts = range(max(0, last - limit), last)
        best.append(min((best[first][0] + cost(first, last), first) for first in starts))
    runs, last = [], n
    while last:
        runs.append((best[last][1], last))
        last = best[last][1]
    return runs[::-1]


def copies(chat: ChatModel, cache: Sequence[Any] | None, rows: Sequence[int]) -> list[Any]:
    """A new cache whose rows are copies of these rows of `cache`, or an empty one for None."""
    picked = mx.array(list(rows))

    def of_rows(part: Any) -> Any:
        return part[picked] if isinstance(part, mx.array) else part

    fresh: list[Any] = make_prompt_cache(chat.model)
    for layer, read in zip(fresh, cache or (), strict=False):
        layer.state = tree_map(of_rows, read.state)
    return fresh


def read_tokens(chat: ChatModel, cache: Sequence[Any], rows: np.ndarray[Any, np.dtype[np.int32]]) -> None:
    """Run tokens (rows, length) through the model for what they leave in the cache; their logits are never computed."""
    for start in range(0, rows.shape[1], PREFILL_STEP):
        chat.model(mx.array(rows[:, start : start + PREFILL_STEP]), cache=cache)
        mx.eval([layer.state for layer in cache])


def read_contexts(
    chat: ChatModel, contexts: Sequence[Sequence[int]], n_rows: Sequence[int], prefix: Prefix
) -> Iterator[tuple[range, int, list[Any]]]:
    """Read contexts of rising length up to cuts; every one leaves at least its last token to be read for its logits.

    Args:  n_rows: how many rows go on from each context.  prefix: what all contexts begin with, shorter than they are.
    Yields: (positions of the contexts cut here, tokens read, a cache with one row for each of them, to be copied).
    """
    lengths = [len(context) - 1 for context in contexts]
    rows_before = [0, *accumulate(n_rows)]
    tokens_before = [0, *accumulate(rows * length for rows, length in zip(n_rows, lengths, strict=True))]

    def cost(first: int, last: int) -> float:
        tails = tokens_before[last] - tokens_before[first] - lengths[first] * (rows_before[last] - rows_before[first])
        return 2 * PASS_TOKENS + (last - first) * lengths[first] + tails

    cache = copies(chat, prefix.cache(chat), [0] * len(contexts))
    read = len(prefix.tokens)
    for first, last in partition(len(contexts), cost, len(contexts)):
        cut = lengths[first]
        if cut > read:
            read_tokens(chat, cache, np.array([context[read:cut] for context in contexts[first:]], dtype=np.int32))
        read = cut
        yield range(first, last), cut, cache
        if last < len(contexts):
            cache = copies(chat, cache, range(last - first, len(contexts) - first))
