"""Log-likelihoods of continuations: what a model gives to each next token of a text, summed over its second part.

    context + continuation[:-1] --model--> logits of each position --log-softmax--> sum over the continuation

What all contexts share (a kernel, worked examples) is computed once, and so is each context of its own for all of its
continuations (the choices of one question). Contexts run through the cache without their logits, so memory goes with
the continuations and not with length x vocabulary. Continuations whose input is the same (choices of one token, or
that differ in their last) share a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import mlx.core as mx
import numpy as np

from lem.chat.branching import PASS_TOKENS, copies, partition, read_contexts
from lem.chat.generate import Completion, Prefix, Request, prefix_of
from lem.chat.load import ChatModel
from lem.chat.token_logprobs import Wanted, logprobs
from lem.errors import LemError, UserError

Tokens = tuple[int, ...]
GroupSize = Callable[[int], int]


@dataclass(frozen=True)
class Continuation:
    """Tokens to condition on, at least one, and the tokens to score after them."""

    context: Tokens
    tokens: Tokens


@dataclass(frozen=True)
class Likelihood:
    """Natural log-probability of a continuation, and whether greedy decoding would have written it."""

    total: float
    greedy: bool


@dataclass(frozen=True)
class _Row:
    """What is read after a context's cut (its tail and a continuation without its last token), and for which pairs."""

    context: int
    tokens: Tokens
    pairs: tuple[int, ...]


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


def choice_loglikelihoods(
    chat: ChatModel, requests: Sequence[Request], group_size: GroupSize, *, prefix: Prefix | None = None
) -> Iterator[tuple[int, list[Likelihood]]]:
    """Score every choice after its request's prompt; yields (position in `requests`, one likelihood for each choice).

    Choices are the tokens that follow the rendered prompt; nothing is put between the two, and no end is added.
    Args and errors: as of `score`; ValueError also for a request without choices or with an empty one.
    """
    pairs, owners = [], []
    for position, request in enumerate(requests):
        if not request.choices or not all(request.choices):
            raise ValueError(f"request {request.id} needs choices of at least one token")
        pairs += [Continuation(request.tokens, choice) for choice in request.choices]
        owners += [(position, number) for number in range(len(request.choices))]
    found: dict[int, dict[int, Likelihood]] = {}
    for index, likelihood in score(chat, pairs, group_size, prefix=prefix):
        position, number = owners[index]
        choices = found.setdefault(position, {})
        choices[number] = likelihood
        if len(choices) == len(requests[position].choices):
            yield position, [choices[number] for number in range(len(choices))]
            del found[position]


def decode_choices(chat: ChatModel, rows: Sequence[Request], prefix: Prefix) -> Iterator[Completion]:
    """Score the choices of one group of requests; each completion's response is a JSON object with three lists.

    `loglikelihoods` (natural, whole choice), `n_tokens` and `greedy`, one entry for each choice, in their order.
    `finish_reason` is "likelihood". What fails inside (out of memory, a model's own error) becomes completions with
    `error`; a log-probability that is no finite number is a LemError.
    """
    done: set[int] = set()
    try:
        for position, found in choice_loglikelihoods(chat, rows, lambda _: len(rows), prefix=prefix):
            done.add(position)
            yield _completion(rows[position], found)
    except LemError:
        raise
    except Exception as error:  # as in `generate`: the failure goes into the records, not over the run
        message = f"{type(error).__name__}: {str(error).strip()[:300]}"
        for position, row in enumerate(rows):
            if position not in done:
                yield Completion(row.id, None, None, (), None, len(row.tokens), error=message)
    finally:
        mx.clear_cache()


def _completion(row: Request, found: Sequence[Likelihood]) -> Completion:
    response = {
        "loglikelihoods": [likelihood.total for likelihood in found],
        "n_tokens": [len(choice) for choice in row.choices],
        "greedy": [likelihood.greedy for likelihood in found],
    }
    return Completion(row.id, json.dumps(response), None, (), "likelihood", len(row.tokens))


def score(
    chat: ChatModel, pairs: Sequence[Continuation], group_size: GroupSize, *, prefix: Prefix | None = None
) -> Iterator[tuple[int, Likelihood]]:
    """Score continuations in groups of contexts, longest first; yields (position in `pairs`, likelihood).

    Args:  group_size: rows that fit together, from the longest row's tokens; half of them hold contexts, half their
           continuations.  prefix: the start that every context shares, kept by the caller across calls; default: what
           these contexts share.
    Raises: LemError when a log-probability is not a finite number; ValueError for a pair without context or prefix.
    """
    askers: dict[Tokens, dict[Tokens, list[int]]] = {}
    for index, pair in enumerate(pairs):
        if not pair.context:
            raise ValueError("a continuation needs at least one token before it")
        if prefix is not None and pair.context[: len(prefix.tokens)] != prefix.tokens:
            raise ValueError(f"pair {index} does not begin with the shared prefix")
        if pair.tokens:
            askers.setdefault(pair.context, {}).setdefault(pair.tokens[:-1], []).append(index)
        else:
            yield index, Likelihood(0.0, True)
    contexts = sorted(askers, key=lambda tokens: (-len(tokens), tokens))
    prefix = _usable(prefix, contexts)
    longest = max((len(pair.tokens) for pair in pairs), default=0)
    start = 0
    while start < len(contexts):
        size = max(1, group_size(len(contexts[start]) + longest) // 2)
        n_left = len(contexts) - start
        group = contexts[start : start + ceil(n_left / ceil(n_left / size))]
        start += len(group)
        yield from _score_group(chat, pairs, {context: askers[context] for context in group[::-1]}, prefix, size)
        mx.clear_cache()


def _usable(prefix: Prefix | None, contexts: Sequence[Tokens]) -> Prefix:
    """The prefix, or a shorter one: a context's last token stays outside, because its logits are needed."""
    tokens = prefix_of(contexts) if prefix is None and len(contexts) > 1 else prefix.tokens if prefix else ()
    room = min((len(context) for context in contexts), default=1) - 1
    return prefix if prefix is not None and len(tokens) <= room else Prefix(tokens[:room])


def _score_group(
    chat: ChatModel,
    pairs: Sequence[Continuation],
    askers: dict[Tokens, dict[Tokens, list[int]]],
    prefix: Prefix,
    size: int,
) -> Iterator[tuple[int, Likelihood]]:
    contexts = list(askers)
    for members, cut, cache in read_contexts(chat, contexts, [len(askers[c]) for c in contexts], prefix):
        rows = [
            _Row(number, contexts[member][cut:] + tokens, tuple(indices))
            for number, member in enumerate(members)
            for tokens, indices in askers[contexts[member]].items()
        ]
        rows.sort(key=lambda row: (len(row.tokens), row.tokens, row.context))
        lengths = [len(row.tokens) for row in rows]
        runs = partition(len(rows), lambda i, j, n=lengths: PASS_TOKENS + (j - i) * n[j - 1], size)  # type: ignore[misc]
        for first, last in runs:
            batch = rows[first:last]
            branched = copies(chat, cache, [row.context for row in batch])
            yield from _sums(list(logprobs(chat, [row.tokens for row in batch], _wanted(pairs, batch, cut), branched)))


def _wanted(pairs: Sequence[Continuation], rows: Sequence[_Row], cut: int) -> list[Wanted]:
    return [
        Wanted(number, len(pairs[pair].context) - 1 - cut + offset, token, pair)
        for number, row in enumerate(rows)
        for pair in row.pairs
        for offset, token in enumerate(pairs[pair].tokens)
    ]


def _sums(found: Sequence[tuple[Wanted, float, int]]) -> Iterator[tuple[int, Likelihood]]:
    totals: dict[int, float] = {}
    greedy: dict[int, bool] = {}
    for wanted, value, best in found:
        if not np.isfinite(value):
            raise LemError(
                f"the model gives token {wanted.token} the log-probability {value}, which is no finite number; check "
                "model and adapter with `lem doctor`."
            )
        totals[wanted.pair] = totals.get(wanted.pair, 0.0) + value
        greedy[wanted.pair] = greedy.get(wanted.pair, True) and best == wanted.token
    for pair, total in totals.items():
        yield pair, Likelihood(total, greedy[pair])
