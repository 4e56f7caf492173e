"""Batched, prefix-shared decoding against a longhand loop: one row, no cache, a full forward pass per token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper

from lem.chat import generate as engine
from lem.chat.generate import Completion, GenerationSettings, Prefix, Request, generate, prefix_of, split_thinking
from lem.chat.load import ChatModel
from lem.chat.render import conversation, render
from lem.chat.sampling import row_seed
from lem.errors import LemError

KERNEL = "Guidance is offered only where it prevents harm to oneself, and always with consent. " * 2
PROBES = (
    "Why?",
    "What is owed to a stranger who asks for help at night?",
    "Name a virtue.",
    "Tell me of the sea.",
    "Go.",
)
NEAR_TIE = 2e-3


def longhand(chat: ChatModel, request: Request, settings: GenerationSettings) -> tuple[list[int], list[float]]:
    """Tokens (the stop token included) and how clearly each was chosen, from the definitions alone."""
    tokens, margins, eos = list(request.tokens), [], set(chat.stop_token_ids)
    for step in range(settings.max_tokens):
        logits = np.array(chat.model(mx.array([tokens]))[0, -1].astype(mx.float32), dtype=np.float64)
        logprobs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        ranked = np.argsort(-logprobs, kind="stable")
        value = logprobs[ranked]
        if settings.temperature > 0:
            before = np.exp(value).cumsum() - np.exp(value)
            key = mx.array([request.seed >> 32, (request.seed + step) & 0xFFFFFFFF], dtype=mx.uint32)
            early = np.array(mx.random.gumbel((256,), key=key))
            late_key = mx.array([request.seed >> 32 ^ 0x80000000, (request.seed + step) & 0xFFFFFFFF], dtype=mx.uint32)
            late = np.array(mx.random.gumbel((len(value) - 256,), key=late_key))
            value = np.where(before < settings.top_p, value / settings.temperature, -np.inf)
            value = value + np.concatenate([early, late])
        best, second = np.argsort(-value)[:2]
        margins.append(float(value[best] - value[second]))
        tokens.append(int(ranked[best]))
        if settings.stop and tokens[-1] in eos:
            break
    return tokens[len(request.tokens) :], margins


def requests(chat: ChatModel, kernel: str | None) -> list[Request]:
    return [
        Request(i, render(chat, conversation(probe, kernel, "system")).tokens, row_seed(3, f"P{i}", 0))
        for i, probe in enumerate(PROBES)
    ]


def with_many_stops(chat: ChatModel) -> ChatModel:
    """A third of the vocabulary ends an answer, so that rows end at many different steps."""
    chat.tokenizer._eos_token_ids = set(range(0, 259, 17)) | {258}
    return chat


def assert_same(found: Completion, tokens: list[int], margins: list[float], eos: set[int]) -> bool:
    """The whole row agrees, or parts ways at a token that was nearly a tie; True for the former."""
    ended = bool(tokens) and tokens[-1] in eos
    wanted = tokens[:-1] if ended else tokens
    if found.tokens == tuple(wanted):
        assert found.finish_reason == ("stop" if ended else "length")
        return True
    pairs = enumerate(zip(found.tokens, wanted, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(len(found.tokens), len(wanted)))
    assert margins[first] < NEAR_TIE, f"row {found.id} differs at token {first}, which was clear by {margins[first]}"
    return False


@pytest.mark.parametrize("kernel", [KERNEL, "Be kind.", None], ids=["prefix>window", "prefix<window", "no prefix"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_prefix_cached_batch_decodes_what_each_row_decodes_alone(
    chat: ChatModel, temperature: float, kernel: str | None
) -> None:
    """Gemma's window is 24 tokens, far shorter than the longest prefix and some prompts."""
    settings = GenerationSettings(max_tokens=20, temperature=temperature, top_p=0.95)
    rows = requests(with_many_stops(chat), kernel)
    shared = prefix_of([row.tokens for row in rows])
    assert (len(shared) > 150, len(shared) > 0) == (kernel == KERNEL, kernel is not None)
    done = {completion.id: completion for completion in generate(chat, [rows[:3], rows[3:]], settings)}
    eos = set(chat.stop_token_ids)
    exact = [assert_same(done[row.id], *longhand(chat, row, settings), eos) for row in rows]
    assert sum(exact) >= len(rows) - 1
    if temperature:
        assert {completion.finish_reason for completion in done.values()} == {"stop", "length"} or len(
            {len(completion.tokens) for completion in done.values()}
        ) > 2, "rows should end at different steps, or the test shows little"


def test_the_same_seed_repeats_and_other_repeats_differ(chat: ChatModel) -> None:
    settings = GenerationSettings(max_tokens=12, temperature=0.9)
    tokens = requests(chat, None)[1].tokens
    rows = [Request(repeat, tokens, row_seed(1, "P01", repeat)) for repeat in range(4)]
    first = {c.id: c.tokens for c in generate(chat, [rows], settings)}
    mx.random.seed(12345)
    assert {c.id: c.tokens for c in generate(chat, [rows], settings)} == first
    assert len(set(first.values())) == 4
    greedy = {c.id: c.tokens for c in generate(chat, [rows], replace(settings, temperature=0.0))}
    assert len(set(greedy.values())) == 1


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(llama: ChatModel) -> None:
    row = requests(llama, None)[0]
    settings = GenerationSettings(max_tokens=10, temperature=0.0)
    free = next(iter(generate(llama, [[row]], settings)))
    assert (free.finish_reason, len(free.tokens), free.n_prompt_tokens) == ("length", 10, len(row.tokens))
    stop = free.tokens[4]
    first = free.tokens.index(stop)
    llama.tokenizer._eos_token_ids = {stop}
    stopped = next(iter(generate(llama, [[row]], settings)))
    assert (stopped.finish_reason, stopped.tokens) == ("stop", free.tokens[:first])
    assert stopped.response == llama.tokenizer.decode(list(free.tokens[:first])).strip()
    ignored = next(iter(generate(llama, [[row]], replace(settings, stop=False))))
    assert (ignored.finish_reason, ignored.tokens) == ("length", free.tokens)


def test_a_turn_that_ends_at_once_is_an_empty_answer(llama: ChatModel) -> None:
    row = requests(llama, None)[0]
    settings = GenerationSettings(max_tokens=4, temperature=0.0)
    llama.tokenizer._eos_token_ids = {next(iter(generate(llama, [[row]], settings))).tokens[0]}
    done = next(iter(generate(llama, [[row]], settings)))
    assert (done.response, done.tokens, done.finish_reason, done.error) == ("", (), "stop", None)


def test_a_prefix_is_not_changed_by_the_rows_that_use_it(gemma: ChatModel) -> None:
    rows = requests(gemma, KERNEL)
    prefix = Prefix(prefix_of([row.tokens for row in rows]))
    settings = GenerationSettings(max_tokens=8, temperature=0.0)
    first = {c.id: c.tokens for c in generate(gemma, [rows], settings, prefix=prefix)}
    cache = prefix.cache(gemma)
    assert {c.id: c.tokens for c in generate(gemma, [rows], settings, prefix=prefix)} == first
    assert prefix.cache(gemma) is cache, "prefilled once"


def test_a_prefix_leaves_every_prompt_a_token() -> None:
    assert prefix_of([[1, 2, 3], [1, 2, 3]], minimum=1) == (1, 2)
    assert prefix_of([[1, 2, 3, 4], [1, 2, 3], [1, 2, 9]], minimum=1) == (1, 2)
    assert prefix_of([[1, 2], [1]], minimum=1) == ()
    assert prefix_of([[5] * 30], minimum=16) == (5,) * 29
    assert prefix_of([[5] * 16, [5] * 16]) == (), "too short to be worth a cache"
    assert prefix_of([]) == ()


def test_a_group_that_breaks_becomes_failed_completions_and_the_next_group_runs(
    gemma: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = requests(gemma, KERNEL)
    settings = GenerationSettings(max_tokens=6, temperature=0.0)
    healthy = {c.id: c for c in generate(gemma, [rows[:3], rows[3:]], settings)}
    real = engine.BatchGenerator.next_generated

    steps: list[int] = []

    def break_at_the_third_step(self: Any, *args: Any) -> Any:
        steps.append(len(steps) + 1)
        if steps[-1] == 3:
            raise RuntimeError("[metal::malloc] out of memory\nsecond line")
        return real(self, *args)

    monkeypatch.setattr(engine.BatchGenerator, "next_generated", break_at_the_third_step)
    done = {c.id: c for c in generate(gemma, [rows[:3], rows[3:]], settings)}
    assert set(done) == {0, 1, 2, 3, 4}
    for row in rows[:3]:
        failed = done[row.id]
        assert failed.error is not None
        assert failed.error.startswith("RuntimeError: [metal::malloc] out of memory")
        assert (failed.response, failed.tokens, failed.finish_reason) == (None, (), None)
    assert (done[3], done[4]) == (healthy[3], healthy[4])


@pytest.mark.parametrize("error", [KeyboardInterrupt, LemError])
def test_interrupts_and_our_own_errors_pass_through(
    gemma: ChatModel, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def broken(*args: Any) -> Any:
        raise error("stop")

    monkeypatch.setattr(engine.BatchGenerator, "next_generated", broken)
    with pytest.raises(error):
        list(generate(gemma, [requests(gemma, None)], GenerationSettings(max_tokens=3)))


def test_a_prompt_without_the_shared_prefix_never_gets_an_answer(gemma: ChatModel) -> None:
    row = requests(gemma, None)[0]
    with pytest.raises(ValueError, match="does not begin with the shared prefix"):
        list(generate(gemma, [[row]], GenerationSettings(max_tokens=3), prefix=Prefix((1, 2, 3))))


def thinking_tokenizer() -> TokenizerWrapper:
    """mlx-lm's wrapper with a thinking block between the tokens 100 101 and 102."""
    tokenizer = TokenizerWrapper.__new__(TokenizerWrapper)
    tokenizer.__dict__.update(
        _think_start="<t>", _think_end="</t>", _think_start_tokens=(100, 101), _think_end_tokens=(102,)
    )
    return tokenizer


@pytest.mark.parametrize(
    ("prompt", "generated", "thinking", "answer"),
    [
        ([1, 2], [100, 101, 7, 8, 102, 9], [7, 8], [9]),
        ([1, 2], [100, 101, 102, 9], [], [9]),
        ([1, 2], [100, 101, 7, 8], [7, 8], []),
        ([1, 100, 101], [7, 8, 102, 9], [7, 8], [9]),
        ([1, 100, 101], [7, 8], [7, 8], []),
        ([1, 100, 101, 5, 102, 6], [7, 8], None, [7, 8]),
        ([1, 2], [7, 100, 8], None, [7, 100, 8]),
        ([1, 2], [], None, []),
        ([1, 100, 101], [], [], []),
    ],
    ids=["closed", "empty", "unclosed", "opened in the prompt", "opened in the prompt, unclosed",
         "an earlier turn thought", "half a marker", "nothing", "opened in the prompt, nothing"],
)  # fmt: skip
def test_thinking_is_split_from_the_answer(
    prompt: list[int], generated: list[int], thinking: list[int] | None, answer: list[int]
) -> None:
    assert split_thinking(thinking_tokenizer(), prompt, generated) == (thinking, answer)


def test_a_model_without_thinking_has_none(llama: ChatModel) -> None:
    assert split_thinking(llama.tokenizer, [1], [100, 101, 7]) == (None, [100, 101, 7])
    assert next(iter(generate(llama, [requests(llama, None)[:1]], GenerationSettings(max_tokens=2)))).thinking is None
