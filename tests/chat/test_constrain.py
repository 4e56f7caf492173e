"""Constrained decoding: masks against enumeration of the language, texts against `re`, `json` and longhand."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lem.chat.constrain import ConstrainedSampler, GrammarState, lltokenizer, matcher, text_of
from lem.chat.generate import GenerationSettings, Request, generate
from lem.chat.grammar import Grammar
from lem.chat.load import ChatModel, load
from lem.chat.render import conversation, render
from lem.chat.sampling import RowSampler, row_seed
from lem.errors import UserError

NANO = Path(__file__).resolve().parents[2] / "models" / "lem-nano"
RATING = {
    "type": "object",
    "properties": {
        "item": {"const": "7f3a91"},
        "why": {"type": "string", "maxLength": 12},
        "rating": {"type": "integer", "minimum": 1, "maximum": 10},
        "tags": {"type": "array", "items": {"enum": ["a", "b/c", None]}, "maxItems": 3},
    },
    "required": ["item", "why", "rating", "tags"],
    "additionalProperties": False,
}
GBNF = r"""root ::= "caf\u00e9 \x41" ("-" [\u00e8-\u00ea])? yes-no  # a comment
yes-no ::= "yes" | "no"{1,3} "."
"""
LARK = 'start: "Rating: " NUMBER ("." | "!")\nNUMBER: /[1-9][0-9]{0,2}/'


def is_rating(text: str) -> bool:
    """The schema RATING, spelled out."""
    found = json.loads(text)
    assert list(found) == ["item", "why", "rating", "tags"]
    assert found["item"] == "7f3a91"
    assert isinstance(found["why"], str)
    assert len(found["why"]) <= 12
    assert type(found["rating"]) is int
    assert 1 <= found["rating"] <= 10
    return len(found["tags"]) <= 3 and all(tag in ("a", "b/c", None) for tag in found["tags"])


def matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


# Each grammar with an independent judgement of a text; the regular expressions end after different numbers of tokens.
CASES: tuple[tuple[Grammar | None, Callable[[str], bool]], ...] = (
    (Grammar("json_schema", json.dumps(RATING)), is_rating),
    (Grammar("regex", " ?[a-z]{3}/(yes|no)"), matches(" ?[a-z]{3}/(yes|no)")),
    (None, lambda text: True),
    (Grammar("gbnf", GBNF), matches("café A(-[è-ê])?(yes|(no){1,3}[.])")),
    (Grammar("lark", LARK), matches("Rating: [1-9][0-9]{0,2}[.!]")),
    (Grammar("regex", "[A-C]"), matches("[A-C]")),
    (Grammar("json_schema", json.dumps(RATING)), is_rating),
)


@pytest.fixture(scope="module")
def nano() -> ChatModel:
    return load(str(NANO))


@pytest.fixture(params=["lem-nano", "llama"])
def any_chat(request: pytest.FixtureRequest, nano: ChatModel, model_folders: dict[str, Path]) -> ChatModel:
    return nano if request.param == "lem-nano" else load(str(model_folders["llama"]))


def token_bytes(chat: ChatModel) -> list[bytes | None]:
    """What each token of a byte-level vocabulary writes, from GPT-2's table; None for special tokens."""
    tokenizer = chat.tokenizer._tokenizer
    table = {character: byte for byte, character in bytes_to_unicode().items()}
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [None if i in special else bytes(table[c] for c in name) for i, name in enumerate(names)]


def state_of(chat: ChatModel, grammar: Grammar) -> GrammarState:
    tokenizer = lltokenizer(chat)
    return GrammarState(tokenizer, matcher(tokenizer, grammar))


def ask(chat: ChatModel, index: int, grammar: Grammar | None, max_tokens: int | None = None) -> Request:
    tokens = render(chat, conversation(f"Question {index}?", None, "user")).tokens
    return Request(index, tokens, row_seed(5, f"P{index}", 0), max_tokens, grammar=grammar)


def test_the_mask_allows_exactly_the_tokens_that_can_still_lead_to_a_text_of_the_grammar(any_chat: ChatModel) -> None:
    language = [f"{word}{a}{b}".encode() for word in ("yes", "no", "naïve") for a, b in itertools.product("0123", "xy")]
    language += [text + b"!" for text in language]
    writes = token_bytes(any_chat)
    state, written = state_of(any_chat, Grammar("regex", "(yes|no|naïve)[0-3][xy]!?")), b""
    rng, branchings = np.random.default_rng(3), 0
    for _ in range(20):
        allowed = set(np.flatnonzero(state.allowed(len(writes))).tolist())
        wanted = {
            token
            for token, more in enumerate(writes)
            if more and any(text.startswith(written + more) for text in language)
        }
        next_bytes = {text[len(written)] for text in language if text.startswith(written) and text != written}
        assert state.accepts == (written in language)
        if len(next_bytes) == 1 and not state.accepts:  # no choice: the tokenizer's own way to write what must follow
            assert allowed <= wanted
            assert allowed
        else:
            branchings += 1
            assert allowed == wanted | (set(any_chat.stop_token_ids) if state.accepts else set())
        chosen = int(rng.choice(sorted(allowed)))
        state.read(chosen)
        if chosen in any_chat.stop_token_ids:
            break
        written += writes[chosen] or b""
    assert written in language
    assert branchings >= 4


def test_forbidden_tokens_get_probability_zero_and_the_rest_keeps_its_proportions(nano: ChatModel) -> None:
    grammars = [Grammar("regex", "(yes|no)[0-9]"), None, Grammar("regex", "[ab]+")]
    sampler = ConstrainedSampler(lltokenizer(nano), grammars, RowSampler([1, 2, 3], 1.0, 1.0))
    logits = mx.random.normal((3, 5632), key=mx.random.key(4)) * 4
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    found, before = np.array(sampler.constrain(logprobs)), np.array(logprobs)
    assert np.array_equal(found[1], before[1])
    starts = (("y", "n"), ("a", "b"))
    for row, letters in zip((0, 2), starts, strict=True):
        probabilities = np.exp(found[row].astype(np.float64))
        allowed = [
            token
            for token, more in enumerate(token_bytes(nano))
            if more and (set(more.decode("latin1")) <= {"a", "b"} if row else b"yes".startswith(more) or more == b"no"
                         or b"no".startswith(more))
        ]  # fmt: skip
        assert {chr((token_bytes(nano)[token] or b"?")[0]) for token in allowed} == set(letters)
        assert np.flatnonzero(probabilities).tolist() == allowed
        original = np.exp(before[row].astype(np.float64))[allowed]
        np.testing.assert_allclose(probabilities[allowed], original / original.sum(), rtol=1e-5)


@pytest.mark.parametrize("width", [5632 + 45, 5600])
def test_a_head_wider_or_narrower_than_the_vocabulary(nano: ChatModel, width: int) -> None:
    state = state_of(nano, Grammar("regex", "(?s:.)*"))
    found = state.allowed(width)
    writes = token_bytes(nano)
    special = [token for token, more in enumerate(writes) if more is None]
    assert not found[5632:].any()
    assert all(found[token] for token, more in enumerate(writes[:width]) if more and more.isascii())
    assert set(np.flatnonzero(found)) & set(special) == set(nano.stop_token_ids)
    sampler = ConstrainedSampler(
        lltokenizer(nano), [Grammar("regex", "[a-z]{40}")], RowSampler([1], temperature=1.0, top_p=1.0)
    )
    logits = mx.zeros((1, width))
    logits[:, 5632:] = 30.0  # what stands beyond the vocabulary is by far the most likely
    for _ in range(5):
        assert int(sampler(logits - mx.logsumexp(logits))[0].item()) < 5632


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_answer_of_a_mixed_batch_obeys_its_own_grammar(any_chat: ChatModel, temperature: float) -> None:
    requests = [ask(any_chat, i, CASES[i % len(CASES)][0]) for i in range(3 * len(CASES))]
    settings = GenerationSettings(max_tokens=220, temperature=temperature, top_p=1.0)
    found = {answer.id: answer for answer in generate(any_chat, [requests[:14], requests[14:]], settings)}
    assert len(found) == len(requests)
    for request in requests:
        answer, judge = found[request.id], CASES[request.id % len(CASES)][1]
        assert answer.error is None
        if request.grammar is not None:
            assert answer.finish_reason == "stop", answer
            assert judge(answer.response or ""), answer.response
            assert answer.thinking is None


def test_rows_that_end_at_every_step_leave_the_others_on_their_way(any_chat: ChatModel) -> None:
    lengths = [7, 1, 4, 2, 9, 3, 3, 8]
    requests = [ask(any_chat, n, Grammar("regex", f"[x-z]{{{length}}}")) for n, length in enumerate(lengths)]
    settings = GenerationSettings(max_tokens=20, temperature=1.0, top_p=1.0)
    found = {answer.id: answer.response for answer in generate(any_chat, [requests], settings)}
    assert all(matches(f"[x-z]{{{length}}}")(found[n] or "") for n, length in enumerate(lengths))
    assert len(set(found.values())) > 5


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_free_rows_write_what_they_write_without_neighbours_under_a_grammar(
    any_chat: ChatModel, temperature: float
) -> None:
    # Equally long answers: a batch that shrinks at another step changes floating-point sums, grammar or not.
    settings = GenerationSettings(max_tokens=24, temperature=temperature, top_p=0.95, stop=False)
    free = [ask(any_chat, n, None) for n in range(6)]
    mixed = [replace(row, grammar=Grammar("regex", "[a-d]{60}")) if row.id % 2 else row for row in free]
    plain = {answer.id: answer.tokens for answer in generate(any_chat, [free], settings)}
    found = {answer.id: answer.tokens for answer in generate(any_chat, [mixed], settings)}
    assert all(found[n] == plain[n] for n in (0, 2, 4))
    assert all(found[n] != plain[n] for n in (1, 3, 5))


def test_without_stop_tokens_a_finished_text_is_followed_by_nothing_readable(any_chat: ChatModel) -> None:
    settings = GenerationSettings(max_tokens=12, temperature=1.0, stop=False)
    (answer,) = generate(any_chat, [[ask(any_chat, 0, Grammar("regex", "[0-9]{3}"))]], settings)
    assert (answer.finish_reason, len(answer.tokens)) == ("length", 12)
    assert matches("[0-9]{3}")(answer.response or "")


def test_an_answer_cut_by_its_own_limit_says_so(any_chat: ChatModel) -> None:
    rows = [ask(any_chat, 0, Grammar("regex", "[a-z]{300}"), 4), ask(any_chat, 1, Grammar("regex", "[a-z]"), 9)]
    found = {answer.id: answer for answer in generate(any_chat, [rows], GenerationSettings(max_tokens=50))}
    assert (found[0].finish_reason, len(found[0].tokens)) == ("length", 4)
    assert found[1].finish_reason == "stop"


def test_a_text_under_a_grammar_is_not_trimmed_but_cut_before_a_stop_string(any_chat: ChatModel) -> None:
    whole = ask(any_chat, 0, Grammar("regex", "  [ab]{3}#[cd] "))
    cut = replace(whole, id=1, stop_strings=("#",))
    found = {answer.id: answer for answer in generate(any_chat, [[whole, cut]], GenerationSettings(max_tokens=40))}
    assert matches("  [ab]{3}#[cd] ")(found[0].response or "")
    assert matches("  [ab]{3}")(found[1].response or "")
    assert found[1].finish_reason == "stop"


def test_a_stop_token_is_allowed_exactly_where_the_text_is_whole(llama: ChatModel) -> None:
    llama.tokenizer._eos_token_ids = {257, 258, int(llama.tokenizer.encode("b", add_special_tokens=False)[0])}
    stops = llama.stop_token_ids
    a = int(llama.tokenizer.encode("a", add_special_tokens=False)[0])
    state = state_of(llama, Grammar("regex", "(a[ab])*"))
    for step in range(5):
        allowed = state.allowed(259)
        assert allowed[a]
        assert all(allowed[stop] == (step % 2 == 0) for stop in stops), "also a stop token that is a letter"
        state.read(a)
    state.read(a)
    state.read(257)
    assert np.flatnonzero(state.allowed(259)).tolist() == stops


def sentencepiece_like() -> ChatModel:
    """A tokenizer of Llama 2's kind: blanks as ▁, unknown characters as byte tokens, the leading blank dropped."""
    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abc", "▁a", "é"]
    made = Tokenizer(
        models.BPE({word: i for i, word in enumerate(words)}, [("▁", "a")], unk_token="<unk>", byte_fallback=True)
    )
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "</s>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")
    wrapper = TokenizerWrapper(fast, eos_token_ids=[1])
    return ChatModel("pieces", Path("pieces"), None, wrapper, {}, "pieces")


def test_byte_tokens_write_what_the_vocabulary_has_no_word_for() -> None:
    chat = sentencepiece_like()
    names = chat.tokenizer._tokenizer.get_vocab()
    state = state_of(chat, Grammar("regex", "( a|b)(é|日)[bc]"))
    written = []
    for wanted in (
        {"▁", "▁a", "<0x20>", "b", "<0x62>"}, {"é", "<0xC3>", "<0xE6>"}, {"<0x97>"}, {"<0xA5>"},
        {"c", "b", "<0x62>", "<0x63>"}, {"</s>"},
    ):  # fmt: skip
        assert set(np.flatnonzero(state.allowed(300)).tolist()) == {names[name] for name in wanted}
        written.append(names["<0xE6>" if "<0xE6>" in wanted else max(wanted)])
        state.read(written[-1])
    assert text_of(chat, written) == " a日c"
    assert chat.tokenizer.decode(written[:-1]) == "a日c", "the tokenizer's own decoding drops the first blank"


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("regex", "(ab"),
        Grammar("regex", "(?=a)b"),
        Grammar("lark", "start: nothing"),
        Grammar("lark", "start: ???"),
        Grammar("gbnf", 'root ::= "a" more'),
        Grammar("gbnf", 'root ::= "a'),
        Grammar("gbnf", 'root ::= "a\\'),
        Grammar("gbnf", "root ::= [\\ud800]"),
        Grammar("gbnf", ""),
        Grammar("json_schema", '{"type": "obj'),
        Grammar("json_schema", "[1]"),
        Grammar("json_schema", '{"type": "thing"}'),
        Grammar("json_schema", '{"type": "string", "not": {"const": "a"}}'),
        Grammar("json_schema", '{"$ref": "#/nowhere"}'),
    ],
    ids=lambda grammar: f"{grammar.kind}:{grammar.text[:20]}",
)
def test_a_bad_grammar_is_one_sentence(llama: ChatModel, grammar: Grammar) -> None:
    with pytest.raises(UserError) as caught:
        list(generate(llama, [[ask(llama, 0, None), ask(llama, 1, grammar)]], GenerationSettings(max_tokens=3)))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("correct the grammar.")
    assert len(message) < 400


def test_a_demand_that_no_token_can_meet_fails_the_answer_and_not_the_run() -> None:
    chat = sentencepiece_like()
    words = {word: i for i, word in enumerate(["</s>", "a", "b"])}
    bare = Tokenizer(models.BPE(words, [], unk_token=None))
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens(["</s>"])
    wrapper = TokenizerWrapper(PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>"), eos_token_ids=[0])
    chat = replace(chat, tokenizer=wrapper, model_sha="bare")
    state = state_of(chat, Grammar("regex", "a[bz]z"))
    state.read(1)
    state.read(2)
    with pytest.raises(RuntimeError, match="cannot be followed"):
        state.allowed(3)


def test_a_model_without_a_stop_token_or_a_fast_tokenizer_is_refused(llama: ChatModel) -> None:
    slow, endless = SimpleNamespace(eos_token_ids={1}, _tokenizer=object()), SimpleNamespace(eos_token_ids=set())
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        lltokenizer(replace(llama, tokenizer=slow, model_sha="slow"))
    with pytest.raises(UserError, match="no token of this model ends"):
        lltokenizer(replace(llama, tokenizer=endless, model_sha="endless"))
