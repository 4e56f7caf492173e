"""Log-likelihoods against the definition: one row at a time, no cache, the whole forward pass in float64."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from lem.chat import branching, likelihood, token_logprobs
from lem.chat.branching import partition
from lem.chat.generate import Prefix, Request
from lem.chat.likelihood import Continuation, choice_loglikelihoods, decode_choices, fit_left, score
from lem.chat.load import ChatModel, load
from lem.chat.render import conversation, render
from lem.chat.token_logprobs import normalisers
from lem.data import read_kernel
from lem.errors import LemError, UserError
from tiny import FAMILIES, random_model

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = 259
Tokens = tuple[int, ...]


def bare(family: str) -> ChatModel:
    """A tiny model without a tokenizer: these tests speak in tokens."""
    model, config = random_model(family)
    return ChatModel("tiny", Path("tiny"), model, None, config, "")


def longhand(chat: ChatModel, context: Tokens, tokens: Tokens) -> tuple[float, bool]:
    """One row, no cache, log-softmax in float64; mlx has no float64 for mixtures of experts."""
    logits = np.array(chat.model(mx.array([(context + tokens)[:-1]]))[0]).astype(np.float64)
    rows = logits[len(context) - 1 :]
    rows -= rows.max(axis=-1, keepdims=True)
    values = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    total = float(values[np.arange(len(tokens)), list(tokens)].sum())
    return total, bool((values.argmax(axis=-1) == list(tokens)).all())


def in_float64(chat: ChatModel, requests: Sequence[Request]) -> list[list[tuple[float, bool]]]:
    """`longhand` of every choice by the same model in float64; leaves the model in float32."""
    if chat.config["model_type"] != "mixtral":
        chat.model.set_dtype(mx.float64)
    with mx.stream(mx.cpu):
        found = [[longhand(chat, request.tokens, choice) for choice in request.choices] for request in requests]
    chat.model.set_dtype(mx.float32)
    return found


def questions(shared: int = 0, seed: int = 0) -> list[Request]:
    """Contexts of many lengths, shorter and longer than the sliding windows; choices of every awkward kind."""
    draw = np.random.default_rng(seed)

    def some(n: int) -> Tokens:
        return tuple(int(token) for token in draw.integers(0, VOCABULARY, n))

    start = some(shared)
    stem = some(4)
    choices = [
        (some(1), some(1), some(1)),  # one token each: one row
        ((*stem, 7), (*stem, 8), (*stem[:1], 9, 10)),  # same input; same first token
        (some(6),),  # one choice
        (stem, stem[:2], stem),  # one begins another, one twice
        (some(1), some(30), some(3)),
        (some(2), some(9)),
    ]
    lengths = [5, 1, 40, 40, 23, 2]
    contexts = [start + some(length) for length in lengths]
    return [Request(f"q{n}", tokens, 0, choices=kind) for n, (tokens, kind) in enumerate(zip(contexts, choices))]  # noqa: B905


def check(found: Iterator[tuple[int, list[Any]]], expected: list[list[tuple[float, bool]]], within: float) -> None:
    got = dict(found)
    assert sorted(got) == list(range(len(expected)))
    for number, choices in enumerate(expected):
        assert [choice.total for choice in got[number]] == pytest.approx([total for total, _ in choices], abs=within)
        assert [choice.greedy for choice in got[number]] == [greedy for _, greedy in choices]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_gives_the_definition_in_any_grouping(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = bare(family)
    for shared in (0, 50):
        requests = questions(shared)
        expected = in_float64(chat, requests)
        prefixes = [None, Prefix(()), Prefix(requests[0].tokens[:shared])]
        # (rows, what a pass costs, tokens a step reads, bytes of logits): cut everywhere, in places, and never
        for size, cost, step, n_bytes in ((16, 50, 2048, 2**28), (2, 0, 3, 4 * VOCABULARY), (64, 10_000, 2048, 2**28)):
            for module in (likelihood, branching, token_logprobs):
                monkeypatch.setattr(module, "PASS_TOKENS", cost)
            monkeypatch.setattr(branching, "PREFILL_STEP", step)
            monkeypatch.setattr(token_logprobs, "LOGIT_BYTES", n_bytes)
            for prefix in prefixes:
                check(choice_loglikelihoods(chat, requests, lambda _, n=size: n, prefix=prefix), expected, 2e-4)


@pytest.mark.parametrize("kernel", [None, "axioms.json"])
def test_lem_nano_gives_the_definition(kernel: str | None) -> None:
    chat = load(str(ROOT / "models" / "lem-nano"))
    text = read_kernel(ROOT / "kernel" / kernel).text if kernel else None
    asked = {
        "Why repair a bridge?": ["To cross it.", "Because.", "So that people can cross the river again."],
        "What is a lantern for, when nights are long and the ferry is late?": ["To see by.", "Rowing."],
    }
    requests = [
        Request(
            question,
            render(chat, conversation(question, text, "system")).tokens,
            0,
            choices=tuple(tuple(chat.tokenizer.encode(choice, add_special_tokens=False)) for choice in choices),
        )
        for question, choices in asked.items()
    ]
    check(choice_loglikelihoods(chat, requests, lambda _: 8), in_float64(chat, requests), 1e-3)


def test_the_models_own_next_tokens_are_called_greedy() -> None:
    chat = bare("gemma3_text")
    context, own = (5, 6, 7), ()
    for _ in range(4):
        own += (int(mx.argmax(chat.model(mx.array([context + own]))[0, -1])),)
    other = (*own[:-1], (own[-1] + 1) % VOCABULARY)
    request = Request("q", context, 0, choices=(own, own[:1], other))
    ((_, found),) = choice_loglikelihoods(chat, [request], lambda _: 8)
    assert [choice.greedy for choice in found] == [True, True, False]


def test_the_order_of_questions_changes_nothing_and_their_grouping_next_to_nothing() -> None:
    chat = bare("gemma3_text")
    requests = [*questions(30), *questions(30, seed=1)[1:]]
    first = dict(choice_loglikelihoods(chat, requests, lambda _: 16))
    turned = dict(choice_loglikelihoods(chat, requests[::-1], lambda _: 16))
    assert [turned[len(requests) - 1 - number] for number in range(len(requests))] == [first[n] for n in sorted(first)]
    for size in (1, 3, 64):
        for number, choices in choice_loglikelihoods(chat, requests, lambda _, n=size: n):
            assert [c.total for c in choices] == pytest.approx([c.total for c in first[number]], abs=1e-4)


class Counting:
    """A model that writes down the shape of each of its passes."""

    def __init__(self, chat: ChatModel) -> None:
        self._model, self.shapes = chat.model, list[tuple[int, int]]()
        self.layers, self.make_cache = chat.model.layers, chat.model.make_cache

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        self.shapes.append(inputs.shape)
        return self._model(inputs, cache=cache)


def counting(family: str) -> tuple[ChatModel, Counting]:
    chat = bare(family)
    counter = Counting(chat)
    return ChatModel("tiny", Path("tiny"), counter, None, chat.config, ""), counter


def test_contexts_are_read_once_and_no_pass_is_wider_than_allowed() -> None:
    chat, counter = counting("gemma3_text")
    prefix, draw = tuple(range(30)), np.random.default_rng(0)
    requests = [
        Request(n, (*prefix, *draw.integers(0, 259, 20).tolist()), 0, choices=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
        for n in range(4)
    ]
    assert len(list(choice_loglikelihoods(chat, requests, lambda _: 32, prefix=Prefix(prefix)))) == 4
    # the prefix; each context but its last token; that token and two of its choice's three
    assert counter.shapes == [(1, 30), (4, 19), (12, 3)]
    counter.shapes.clear()
    list(choice_loglikelihoods(chat, requests, lambda _: 8, prefix=Prefix(prefix)))
    assert max(rows for rows, _ in counter.shapes) == 4
    assert sum(rows * length for rows, length in counter.shapes) == 30 + 4 * 19 + 12 * 3


def test_the_group_size_is_asked_for_the_longest_row() -> None:
    asked: list[int] = []

    def group_size(longest: int) -> int:
        asked.append(longest)
        return 64

    list(choice_loglikelihoods(bare("llama"), questions(), group_size))
    assert asked == [40 + 30]


def test_partitions_are_the_cheapest_of_all() -> None:
    draw = np.random.default_rng(0)
    for n in range(1, 8):
        lengths = sorted(draw.integers(1, 40, n).tolist())

        def cost(first: int, last: int, lengths: list[int] = lengths) -> float:
            return 20.0 + (last - first) * lengths[last - 1]

        for limit in (2, n):
            cuts = [
                list(itertools.pairwise([0, *inner, n]))
                for k in range(n)
                for inner in itertools.combinations(range(1, n), k)
            ]
            allowed = [runs for runs in cuts if all(last - first <= limit for first, last in runs)]
            runs = partition(n, cost, limit)
            assert runs in allowed
            assert sum(cost(*run) for run in runs) == min(sum(cost(*run) for run in each) for each in allowed)
    assert partition(0, lambda first, last: 1.0, 3) == []


@pytest.mark.parametrize("device", [mx.cpu, mx.gpu])
def test_normalisers_are_numpys(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(0, 30, (3, 4, 50)).astype(np.float32)
    monkeypatch.setattr(mx, "default_device", lambda: device)  # both ways to compute run on the CPU's stream
    norms, best = normalisers(mx.array(logits), [(0, 1), (0, 3), (2, 0)])
    wide = logits.astype(np.float64)
    for row, position in ((0, 1), (0, 2), (0, 3), (2, 0)):
        assert norms[row, position] == pytest.approx(np.log(np.exp(wide[row, position]).sum()), abs=1e-5)
        assert best[row, position] == wide[row, position].argmax()


def test_a_model_that_gives_no_number_is_an_error() -> None:
    chat = bare("llama")
    chat.model.model.norm.weight = chat.model.model.norm.weight * float("nan")
    with pytest.raises(LemError, match="no finite number; check model and adapter with `lem doctor`"):
        list(decode_choices(chat, questions(), Prefix(())))


def test_a_group_becomes_completions() -> None:
    chat = bare("gemma3_text")
    requests = questions(20)
    expected = in_float64(chat, requests)
    done = {completion.id: completion for completion in decode_choices(chat, requests, Prefix(requests[0].tokens[:20]))}
    for request, choices in zip(requests, expected, strict=True):
        completion = done[request.id]
        assert (completion.finish_reason, completion.error, completion.tokens) == ("likelihood", None, ())
        assert completion.n_prompt_tokens == len(request.tokens)
        response = json.loads(completion.response or "")
        assert response["loglikelihoods"] == pytest.approx([total for total, _ in choices], abs=2e-4)
        assert response["greedy"] == [greedy for _, greedy in choices]
        assert response["n_tokens"] == [len(choice) for choice in request.choices]


def test_a_prefix_as_long_as_a_prompt_leaves_its_last_token() -> None:
    chat = bare("gemma3_text")
    request = questions(20)[2]
    for prefix in (Prefix(request.tokens), Prefix(request.tokens[:-1])):
        check(choice_loglikelihoods(chat, [request], lambda _: 8, prefix=prefix), in_float64(chat, [request]), 2e-4)


def test_what_breaks_inside_the_model_goes_into_the_rows_that_have_no_result() -> None:
    _, counter = counting("llama")
    requests = questions()

    def fail(inputs: mx.array, cache: Any = None) -> mx.array:
        if len(counter.shapes) > 2:
            raise RuntimeError("out of memory")
        return Counting.__call__(counter, inputs, cache)

    broken = ChatModel("tiny", Path("tiny"), type("Broken", (), {"__call__": staticmethod(fail)})(), None, {}, "")
    broken.model.layers, broken.model.make_cache = counter.layers, counter.make_cache
    done = list(decode_choices(broken, requests, Prefix(())))
    assert sorted(completion.id for completion in done) == sorted(request.id for request in requests)
    failed = [completion for completion in done if completion.error]
    assert 0 < len(failed) < len(done)
    assert {(c.response, c.error) for c in failed} == {(None, "RuntimeError: out of memory")}


def test_requests_that_cannot_be_scored_are_refused() -> None:
    chat = bare("llama")
    for request in (Request("q", (1, 2), 0), Request("q", (1, 2), 0, choices=((3,), ()))):
        with pytest.raises(ValueError, match="request q needs choices"):
            list(choice_loglikelihoods(chat, [request], lambda _: 4))
    with pytest.raises(ValueError, match="at least one token before it"):
        list(score(chat, [Continuation((), (1,))], lambda _: 4))
    with pytest.raises(ValueError, match="does not begin with the shared prefix"):
        list(score(chat, [Continuation((1, 2), (1,))], lambda _: 4, prefix=Prefix((2,))))


def test_an_empty_continuation_is_certain() -> None:
    found = dict(score(bare("llama"), [Continuation((1,), ()), Continuation((1,), (2,))], lambda _: 4))
    assert (found[0].total, found[0].greedy) == (0.0, True)
    assert found[1].total < 0


def test_a_pair_that_is_too_long_loses_its_beginning_but_no_scored_token() -> None:
    assert fit_left(Continuation((1, 2, 3), (4, 5)), 4) == (Continuation((1, 2, 3), (4, 5)), 0)
    assert fit_left(Continuation((1, 2, 3), (4, 5)), 3) == (Continuation((2, 3), (4, 5)), 1)
    with pytest.raises(UserError, match="a continuation of 2 tokens does not fit a model that reads 1"):
        fit_left(Continuation((1, 2, 3), (4, 5)), 1)
