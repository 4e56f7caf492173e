"""Generate answers: fixed groups of rows over mlx-lm's `BatchGenerator`, shared prefix prefilled once.

    prefix (one row, cached) --copied per row--> rest of each prompt --batch--> tokens, one key per row

A group is decoded from start to end as one batch, because batch composition changes floating-point sums and so,
now and then, a token. Completions come out as their rows finish. Deliberately left out: continuous refilling of
a batch, which would tie a row's text to how long its neighbours happened to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from lem.chat.constrain import ConstrainedSampler, lltokenizer, text_of
from lem.chat.grammar import Grammar
from lem.chat.load import ChatModel
from lem.chat.render import shared_prefix
from lem.chat.sampling import RowSampler
from lem.errors import LemError

PREFILL_STEP = 2048
# mlx-lm's grouped attention of Gemma 2 spreads a batch's mask [rows, 1, ...] over scores [rows, heads, groups, ...], so
# that rows meet heads: an error, or with as many rows as key/value heads a wrong text (ml-explore/mlx-lm#1903).
_ONE_BY_ONE = frozenset({"gemma2"})


@dataclass(frozen=True)
class GenerationSettings:
    """What shapes the text of an answer: token limit, temperature (0 is greedy), nucleus mass, stop tokens on/off."""

    max_tokens: int = 1024
    temperature: float = 0.7
    top_p: float = 0.95
    stop: bool = True


@dataclass(frozen=True)
class Request:
    """One prompt to complete: any hashable id, the prompt's tokens, and the 64-bit key of its random stream.

    `max_tokens` is this row's own limit (None: that of the settings). The answer is cut before the first of its
    `stop_strings`. A row with a `grammar` can only write what the grammar allows. A row with `choices` writes nothing:
    the log-likelihood of each choice after the prompt is measured.
    """

    id: Any
    tokens: tuple[int, ...]
    seed: int
    max_tokens: int | None = None
    stop_strings: tuple[str, ...] = ()
    grammar: Grammar | None = None
    choices: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Completion:
    """What came back for one request; `error` is set and `response` None when decoding broke.

    `tokens` are the generated ids without the stop token; `finish_reason` is "stop" or "length".
    """

    id: Any
    response: str | None
    thinking: str | None
    tokens: tuple[int, ...]
    finish_reason: str | None
    n_prompt_tokens: int
    error: str | None = None


class Prefix:
    """A prompt prefix run through the model once, at first use; rows copy its cache and never change it."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tuple(tokens)
        self._cache: list[Any] | None = None

    def cache(self, chat: ChatModel) -> list[Any] | None:
        """The key/value cache after the prefix, or None for an empty prefix."""
        if self.tokens and self._cache is None:
            cache = make_prompt_cache(chat.model)
            for start in range(0, len(self.tokens), PREFILL_STEP):
                chat.model(mx.array([self.tokens[start : start + PREFILL_STEP]]), cache=cache)
                mx.eval([layer.state for layer in cache])
            mx.clear_cache()
            self._cache = cache
        return self._cache


def decodes_together(config: Mapping[str, Any]) -> bool:
    """Whether several rows of a model can be decoded as one batch; decided by the type in its configuration."""
    return not {config.get("model_type"), config.get("text_config", {}).get("model_type")} & _ONE_BY_ONE


def prefix_of(prompts: Sequence[Sequence[int]], minimum: int = 16) -> tuple[int, ...]:
    """The tokens that all prompts of an arm share, or none if they are too few to be worth a cache."""
    length = shared_prefix(prompts)
    return tuple(prompts[0][:length]) if length >= minimum else ()


def generate(
    chat: ChatModel,
    groups: Sequence[Sequence[Request]],
    settings: GenerationSettings,
    *,
    prefix: Prefix | None = None,
) -> Iterator[Completion]:
    """Decode the groups one after another and yield each completion as its row finishes.

    Args:  groups: rows decoded together, in this order.  prefix: the start that every prompt shares, kept by the
           caller across calls; default: what the prompts of these groups share.
    Rows of an architecture that cannot be batched (`decodes_together`) are decoded one by one.
    Failures inside one group (out of memory, a model's own error) become completions with `error`; the next
    group is still tried. Errors of the caller and Ctrl-C pass through.
    """
    prompts = [request.tokens for group in groups for request in group]
    shared = Prefix(prefix_of(prompts)) if prefix is None else prefix
    for request in (request for group in groups for request in group):
        if request.tokens[: len(shared.tokens)] != shared.tokens:
            raise ValueError(f"request {request.id} does not begin with the shared prefix")
    if not decodes_together(chat.config):
        groups = [[request] for group in groups for request in group]
    for group in groups:
        done: set[int] = set()
        try:
            for row, completion in _decode(chat, group, settings, shared):
                done.add(row)
                yield completion
        except LemError:
            raise
        except Exception as error:  # the per-request boundary: the failure goes into the record, not over the run
            message = f"{type(error).__name__}: {str(error).strip()[:300]}"
            for row, request in enumerate(group):
                if row not in done:
                    yield Completion(request.id, None, None, (), None, len(request.tokens), error=message)
        finally:
            mx.clear_cache()


def _decode(
    chat: ChatModel, group: Sequence[Request], settings: GenerationSettings, prefix: Prefix
) -> Iterator[tuple[int, Completion]]:
    start = len(prefix.tokens)
    rests = [list(request.tokens[start:]) for request in group]
    cache = prefix.cache(chat)
    # One sampler object for all rows makes BatchGenerator call it once per step on the whole batch. That needs
    # all rows to start together, hence batch sizes of the whole group and one prefill step.
    sampler: RowSampler | ConstrainedSampler
    sampler = RowSampler([request.seed for request in group], settings.temperature, settings.top_p)
    if any(request.grammar for request in group):
        sampler = ConstrainedSampler(lltokenizer(chat), [request.grammar for request in group], sampler)
    generator = BatchGenerator(
        chat.model,
        stop_tokens=[[token] for token in chat.stop_token_ids] if settings.stop else None,
        completion_batch_size=len(group),
        prefill_batch_size=len(group),
        prefill_step_size=max(PREFILL_STEP, *(len(rest) for rest in rests)),
    )
    try:
        uids = generator.insert(
            rests,
            max_tokens=[request.max_tokens or settings.max_tokens for request in group],
            caches=None if cache is None else [cache] * len(group),
            samplers=[sampler] * len(group),
        )
        yield from _collect(chat, generator, sampler, group, uids)
    finally:
        generator.close()


def _collect(
    chat: ChatModel,
    generator: BatchGenerator,
    sampler: RowSampler | ConstrainedSampler,
    group: Sequence[Request],
    uids: list[int],
) -> Iterator[tuple[int, Completion]]:
    """Step the batch until every row has ended, dropping the keys of rows as they end."""
    row_of = {uid: row for row, uid in enumerate(uids)}
    tokens: dict[int, list[int]] = {uid: [] for uid in uids}
    while responses := generator.next_generated():
        for answer in responses:
            if answer.finish_reason != "stop":
                tokens[answer.uid].append(answer.token)
        alive = [index for index, answer in enumerate(responses) if answer.finish_reason is None]
        if 0 < len(alive) < len(responses):
            sampler.keep(alive)
        for answer in responses:
            if answer.finish_reason is not None:
                row = row_of.pop(answer.uid)
                yield row, _completion(chat, group[row], tokens.pop(answer.uid), answer.finish_reason)
    if row_of:
        raise RuntimeError(f"{len(row_of)} rows never finished")


def _completion(chat: ChatModel, request: Request, tokens: list[int], finish_reason: str) -> Completion:
    decode = chat.tokenizer.decode
    thinking: list[int] | None = None
    if request.grammar is not None:  # its text is the grammar's to the last blank, and leaves no room for thinking
        text = text_of(chat, tokens)
    else:
        thinking, answer = split_thinking(chat.tokenizer, request.tokens, tokens)
        text = decode(answer, skip_special_tokens=True)
    ends = [at for at in (text.find(stop) for stop in request.stop_strings) if at >= 0]
    text = text[: min(ends, default=len(text))]
    return Completion(
        id=request.id,
        response=text if request.grammar is not None else text.strip(),
        thinking=None if thinking is None else decode(thinking, skip_special_tokens=True).strip(),
        tokens=tuple(tokens),
        finish_reason="stop" if ends else finish_reason,
        n_prompt_tokens=len(request.tokens),
    )


def split_thinking(tokenizer: Any, prompt: Sequence[int], tokens: list[int]) -> tuple[list[int] | None, list[int]]:
    """Split generated tokens into thinking and answer at token level.

    Returns: (None, tokens) for a model or answer without thinking; (tokens, []) when the thinking never ended.
    """
    if not tokenizer.has_thinking:
        return None, tokens
    begin, end = list(tokenizer.think_start_tokens), list(tokenizer.think_end_tokens)
    closed = tokenizer.find_think_end(tokens)
    opened = tokenizer.find_think_start(tokens)
    # Some templates open the thinking block inside the prompt.
    in_prompt = tokenizer.rfind_think_start(list(prompt)) > tokenizer.rfind_think_end(list(prompt))
    if closed >= 0:
        first = opened + len(begin) if 0 <= opened < closed else 0
        return tokens[first:closed], tokens[closed + len(end) :]
    if opened >= 0 or in_prompt:
        return tokens[opened + len(begin) if opened >= 0 else 0 :], []
    return None, tokens
