"""The mask covers the assistant's words and stop tokens, nothing else, whatever the template does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import template_models as like
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.chat.load import ChatModel, load
from lem.chat.render import conversation, render
from lem.data import ChatExample
from lem.errors import DataError, UserError
from lem.paths import repository_root
from lem.training.dataset import Outcome, Sandwich, TrainingRow, encode, encode_example
from lem.training.mask import make_form

U, A, S = "user", "assistant", "system"
Turns = Sequence[tuple[str, str]]
Make = Callable[..., ChatModel]
END = like.END


def example(*turns: tuple[str, str]) -> ChatExample:
    return ChatExample(tuple({"role": role, "content": content} for role, content in turns), 1)


def spell(chat: ChatModel, tokens: Sequence[int]) -> str:
    return str(chat.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))


def runs(chat: ChatModel, row: TrainingRow) -> list[tuple[bool, str]]:
    """The row as stretches of counted and uncounted text."""
    found: list[tuple[bool, list[int]]] = []
    for token, counted in zip(row.tokens, row.reply, strict=True):
        if not found or found[-1][0] != counted:
            found.append((counted, []))
        found[-1][1].append(token)
    return [(counted, spell(chat, tokens)) for counted, tokens in found]


def replies(chat: ChatModel, row: TrainingRow) -> list[str]:
    """The text of each unbroken stretch of counted tokens."""
    return [text for counted, text in runs(chat, row) if counted]


def rows_of(chat: ChatModel, *turns: tuple[str, str]) -> Outcome:
    return encode_example(make_form(chat), example(*turns), 10_000)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A model with one of the templates of `template_models` by name, made once."""
    made: dict[tuple[str, str], ChatModel] = {}

    def model(template: str, tokenizer: str = "newlines") -> ChatModel:
        key = (template, tokenizer)
        if key not in made:
            stops = (like.USER_TOKEN,) if template == "GLM" else (END,)
            folder = tmp_path_factory.mktemp("templates")
            made[key] = like.chat_with(folder, getattr(like, template), tokenizer, stops)
        return made[key]

    return model


@pytest.mark.parametrize(
    ("turns", "counted"),
    [
        ([(U, "Why?"), (A, "Because.")], ["Because.<|end|>"]),
        ([(S, "Be kind."), (U, "Why?"), (A, "So.")], ["So.<|end|>"]),
        ([(U, "a"), (A, "First."), (U, "b"), (A, "Second, longer.")], ["First.<|end|>", "Second, longer.<|end|>"]),
        ([(U, "Say assistant"), (A, "assistant\nassistant")], ["assistant\nassistant<|end|>"]),
        ([(U, "<|end|>\n<|turn|>assistant\nYes"), (A, "No , sir .")], ["No , sir .<|end|>"]),
        ([(U, "a"), (A, "  two  spaces \t")], ["  two  spaces \t<|end|>"]),
        ([(U, "ä"), (A, "naïve 🚣\u200d♂️ 漢字")], ["naïve 🚣\u200d♂️ 漢字<|end|>"]),
    ],
    ids=["one turn", "system", "two turns", "words of the template", "its tokens in a question", "spaces", "unicode"],
)
def test_the_reply_and_its_stop_token_count_and_nothing_else(
    make: Make, turns: list[tuple[str, str]], counted: list[str]
) -> None:
    chat = make("PLAIN", "bytes")
    row = encode(chat, example(*turns))
    assert replies(chat, row) == counted
    assert spell(chat, row.tokens) == "".join(f"<|turn|>{r}\n{c}<|end|>\n" for r, c in turns)
    assert row.n_reply == sum(len(text.removesuffix(END).encode()) + 1 for text in counted), "one token a byte"


def test_the_tokens_are_those_of_the_template(make: Make) -> None:
    for name in ("PLAIN", "LLAMA", "QWEN3", "FOOTER"):
        chat = make(name)
        messages = example((S, "Be kind."), (U, "Why the haste?"), (A, "The tide.\n\nIt turns.")).messages
        whole = chat.tokenizer.apply_chat_template(list(messages), tokenize=True)
        assert list(encode(chat, ChatExample(messages, 1)).tokens) == list(whole), name


ASKED = [(S, "Be kind."), (U, "Why?"), (A, "The tide.")]
THOUGHT = "<think>\nIt turns.\n</think>\n\nThe tide."


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("LLAMA", [(False, "<|bos|><|turn|>system<|turn|>\n\nBe kind.<|end|><|turn|>user<|turn|>\n\nWhy?<|end|>"
                           "<|turn|>assistant<|turn|>\n\n"), (True, "The tide.<|end|>")]),
        ("GEMMA", [(False, "<|bos|><|turn|>user\nBe kind.\n\nWhy?<|end|>\n<|turn|>model\n"),
                   (True, "The tide.<|end|>"), (False, "\n")]),
        ("DROPS_SYSTEM", [(False, "<|turn|>user\nBe kind.\n\nWhy?<|end|>\n<|turn|>assistant\n"),
                          (True, "The tide.<|end|>"), (False, "\n")]),
        ("QWEN3", [(False, "<|turn|>system\nBe kind.<|end|>\n<|turn|>user\nWhy?<|end|>\n<|turn|>assistant\n"),
                   (True, "<think>\n\n</think>\n\nThe tide.<|end|>"), (False, "\n")]),
        ("QWEN3_THINKS", [(False, "<|turn|>system\nBe kind.<|end|>\n<|turn|>user\nWhy?<|end|>\n<|turn|>assistant\n"
                                  "<think>\n"), (True, "\n</think>\n\nThe tide.<|end|>"), (False, "\n")]),
        ("GLM", [(False, "<|user|>\nBe kind.<|user|>\nWhy?<|assistant|>"), (True, "\nThe tide.<|user|>")]),
        ("FOOTER", [(False, "<|turn|>system\nBe kind.<|end|>\n<|turn|>user\nWhy?<|end|>\n<|turn|>assistant\n"),
                    (True, "The tide.<|end|>"), (False, "\n-- printed on Monday --")]),
    ],
)  # fmt: skip
def test_what_each_style_of_template_trains(make: Make, template: str, expected: list[tuple[bool, str]]) -> None:
    chat = make(template)
    found = rows_of(chat, *ASKED)
    assert [runs(chat, row) for row in found.rows] == [expected]
    assert (found.as_generated, found.stops, found.truncated, found.too_long) == (True, True, False, False)


@pytest.mark.parametrize("template", ["QWEN3", "QWEN3_THINKS", "R1", "STRIPS", "PLAIN", "OWN_MARKS"])
def test_thoughts_in_the_reply_are_trained_also_where_the_template_removes_them(make: Make, template: str) -> None:
    chat = make(template)
    thought = THOUGHT.replace("think>", "muse>") if template == "OWN_MARKS" else THOUGHT
    found = rows_of(chat, (U, "Why?"), (A, thought))
    given = {"QWEN3_THINKS": "<think>\n", "R1": "<think>\n", "OWN_MARKS": "<muse>\n"}.get(template, "")
    assert [runs(chat, row) for row in found.rows] == [
        [(False, f"<|turn|>user\nWhy?<|end|>\n<|turn|>assistant\n{given}"),
         (True, thought.removeprefix(given) + END), (False, "\n")]
    ]  # fmt: skip
    assert found.as_generated


@pytest.mark.parametrize("template", ["R1", "OTHER_HEADER"])
def test_a_prompt_that_opens_what_the_conversation_lacks_is_told(make: Make, template: str) -> None:
    """Only the reply counts, and training differs from generation: the outcome says so."""
    chat = make(template)
    found = rows_of(chat, (U, "Why?"), (A, "think again, nowhere"))
    before = (False, "<|turn|>user\nWhy?<|end|>\n<|turn|>assistant\n")
    assert [runs(chat, row) for row in found.rows] == [[before, (True, f"think again, nowhere{END}"), (False, "\n")]]
    assert not found.as_generated


@pytest.mark.parametrize("reply", [" now\nor never", "now", "assistant now"])
def test_a_reply_that_begins_as_the_generation_prompt_ends_loses_nothing(make: Make, reply: str) -> None:
    """OTHER_HEADER prints ' now' where conversations have none: a reply that begins so is a reply all the same."""
    chat = make("OTHER_HEADER")
    assert replies(chat, encode(chat, example((U, "When?"), (A, reply)))) == [reply + END]


@pytest.mark.parametrize("template", ["QWEN3", "QWEN3_THINKS", "R1", "SHORTENS_HISTORY"])
def test_replies_that_history_changes_have_a_row_each(make: Make, template: str) -> None:
    chat = make(template)
    turns = [(U, "a"), (A, "<think>\none\n</think>\n\nFirst"), (U, "b"), (A, "<think>\ntwo\n</think>\n\nSecond")]
    found = rows_of(chat, *turns)
    assert len(found.rows) == 2
    for row, n in zip(found.rows, (2, 4), strict=True):
        messages = list(example(*turns[: n - 1]).messages)
        prompt = render(chat, messages)
        start = row.reply.index(True)
        assert row.tokens[:start] == prompt.tokens, "what generation would have met"
        assert replies(chat, row) == [
            turns[n - 1][1].removeprefix("<think>\n" * prompt.text.endswith("<think>\n")) + END
        ]
    assert encode(chat, example(*turns)) == found.rows[-1], "as one row, only the last counts"


def test_a_line_feed_that_merges_with_the_prompts_is_cut_as_generation_cuts_it(make: Make) -> None:
    chat = make("PLAIN", "newlines")
    row = encode(chat, example((U, "Why?"), (A, "\n\nBecause.")))
    prompt = render(chat, conversation("Why?", None, "system")).tokens
    assert row.tokens[: len(prompt)] == prompt
    assert replies(chat, row) == [f"\n\nBecause.{END}"]
    text = "<|turn|>user\nWhy?<|end|>\n<|turn|>assistant\n\n\nBecause.<|end|>\n"
    assert spell(chat, row.tokens) == text
    joined = chat.tokenizer.encode(text, add_special_tokens=False)
    assert list(row.tokens) != list(joined), "the tokenizer alone would join the three"


def test_where_no_cut_is_possible_the_joined_token_counts_and_is_told(make: Make) -> None:
    """A space that the prompt ends with becomes part of the reply's first piece, and cannot be had apart."""
    chat = make("NO_STOP", "spaces")
    found = rows_of(chat, (U, "Why?"), (A, "the tide"))
    assert "".join(replies(chat, found.rows[0])).strip() == "the tide"
    assert (found.as_generated, found.stops) == (False, False)


@pytest.mark.parametrize(("template", "stops"), [("NO_STOP", False), ("GLM", True), ("PLAIN", True)])
def test_a_turn_without_a_stop_token_is_told(make: Make, template: str, stops: bool) -> None:
    assert rows_of(make(template), (U, "Why?"), (A, "Because.")).stops is stops


def test_a_turn_that_the_next_one_ends_is_ended_by_it(make: Make) -> None:
    chat = make("GLM")
    found = rows_of(chat, (U, "a"), (A, "First."), (U, "b"), (A, "Second."))
    assert [replies(chat, row) for row in found.rows] == [["\nFirst.<|user|>", "\nSecond.<|user|>"]]


@pytest.mark.parametrize(
    ("template", "reply", "why"),
    [
        ("SHORTENS", "Because.", "does not print the reply"),
        ("DROPS_REPLY", "assistant", "does not print the reply"),
        ("PLAIN", "Stop <|end|> here", r"holds the text of the stop token <\|end\|>"),
    ],
)
def test_a_reply_that_cannot_be_found_is_left_out_with_the_reason(
    make: Make, template: str, reply: str, why: str
) -> None:
    chat = make(template)
    found = rows_of(chat, (U, "Why?"), (A, reply))
    assert found.rows == ()
    with pytest.raises(DataError, match=f"line 1: .*{why}"):
        encode(chat, example((U, "Why?"), (A, reply)))


def test_a_reply_that_brings_its_own_stop_token_stops_once(make: Make) -> None:
    chat = make("PLAIN")
    assert replies(chat, encode(chat, example((U, "Why?"), (A, "Because.<|end|>")))) == ["Because.<|end|>"]


def test_a_template_that_refuses_the_roles_is_a_sentence(make: Make, tmp_path: Path) -> None:
    refuses = like.PLAIN.replace("{{ m['role'] }}", "{{ raise_exception('no') if m['role'] == 'assistant' else 'x' }}")
    chat = like.chat_with(tmp_path / "refuses", refuses)
    with pytest.raises(UserError, match=r"the chat template refuses the roles user, assistant \(no\)"):
        encode(chat, example((U, "Why?"), (A, "So.")))


def test_a_sandwich_stands_round_the_first_turn_only_as_in_generation(make: Make) -> None:
    sandwich = Sandwich("Kernel text.", "A signature.")
    turns = [(U, "a"), (A, "First."), (U, "b"), (A, "Second.")]
    chat = make("PLAIN")
    row = encode(chat, example(*turns), sandwich=sandwich)
    prompt = render(chat, conversation("a", "Kernel text.", "sandwich", "A signature."))
    assert row.tokens[: len(prompt.tokens)] == prompt.tokens
    assert replies(chat, row) == ["First.<|end|>", "Second.<|end|>"]
    assert spell(chat, row.tokens).count("Kernel text.") == 1
    folded = spell(make("GEMMA"), encode(make("GEMMA"), example((S, "Be kind."), *turns), sandwich=sandwich).tokens)
    assert folded.startswith("<|bos|><|turn|>user\nBe kind.\n\nKernel text.\n\na\n\nA signature.<|end|>")


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() and "\u2581" not in text
)
plain = st.text("abc .?\n", min_size=1, max_size=8).filter(str.strip)
pairs = st.lists(st.tuples(plain | texts, plain | texts), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(pairs, st.none() | texts, st.sampled_from(["PLAIN", "FOOTER", "LLAMA", "GEMMA", "SHORTENS_HISTORY"]))
@pytest.mark.parametrize("tokenizer", ["bytes", "newlines", "spaces"])
def test_any_conversation_counts_exactly_its_replies(
    make: Make, tokenizer: str, exchanges: list[tuple[str, str]], system: str | None, template: str
) -> None:
    """Behind the very tokens that generation would start from, the counted tokens spell reply and stop token."""
    chat = make(template, tokenizer)
    trimmed = template in ("LLAMA", "GEMMA")
    turns = [turn for question, answer in exchanges for turn in ((U, question), (A, answer))]
    found = rows_of(chat, *([(S, system)] if system else []), *turns)
    spelled = [text for row in found.rows for text in replies(chat, row)]
    wanted = [(answer.strip() if trimmed else answer) + END for _, answer in exchanges]
    if tokenizer == "spaces":  # it puts spaces of its own before texts, and takes the first away when decoding
        spelled, wanted = ([text.replace(" ", "") for text in list_] for list_ in (spelled, wanted))
    assert spelled == wanted
    assert found.as_generated
    start = found.rows[0].reply.index(True)
    opening = [(S, system), turns[0]] if system else [turns[0]]
    if system and template == "GEMMA":
        opening = [(U, f"{system}\n\n{turns[0][1]}")]
    assert found.rows[0].tokens[:start] == render(chat, list(example(*opening).messages)).tokens
    if tokenizer == "bytes":
        assert sum(row.n_reply for row in found.rows) == sum(
            len(text.removesuffix(END).encode()) + 1 for text in wanted
        )


@settings(max_examples=150, deadline=None)
@given(pairs, st.sampled_from(["QWEN3", "QWEN3_THINKS", "R1"]), st.booleans())
def test_any_conversation_counts_its_replies_behind_thinking_templates(
    make: Make, exchanges: list[tuple[str, str]], template: str, with_thoughts: bool
) -> None:
    chat = make(template)
    thought = "<think>\nhm\n</think>\n\n" if with_thoughts else ""
    turns = [turn for q, a in exchanges for turn in ((U, q), (A, thought + a.strip()))]
    found = rows_of(chat, *turns)
    spelled = [text for row in found.rows for text in replies(chat, row)]
    empty = "" if template == "R1" else "\n</think>\n\n" if template == "QWEN3_THINKS" else "<think>\n\n</think>\n\n"
    given = "hm\n</think>\n\n" if template in ("QWEN3_THINKS", "R1") else thought
    assert spelled == [(given if with_thoughts else empty) + a.strip() + END for _, a in exchanges]


@pytest.mark.parametrize("template", ["PLAIN", "LLAMA", "FOOTER", "QWEN3", "QWEN3_THINKS"])
def test_the_first_counted_token_is_where_mlx_lm_puts_it(make: Make, template: str) -> None:
    """For one exchange behind a prompt that is a prefix; mlx-lm also counts what stands behind the stop token."""
    from mlx_lm.tuner.datasets import ChatDataset

    chat = make(template, "bytes")
    turns = example((U, "Why?"), (A, "The tide.\n\nIt turns."))
    peer = ChatDataset([{"messages": list(turns.messages)}], chat.tokenizer, mask_prompt=True)
    tokens, offset = peer.process(peer[0])
    row = encode(chat, turns)
    assert (list(row.tokens), row.reply.index(True)) == (list(tokens), offset)


def test_without_the_mask_everything_but_the_first_token_counts(make: Make) -> None:
    row = encode(make("PLAIN"), example((U, "Why?"), (A, "Because.")), mask_prompt=False)
    assert row.reply == (False,) + (True,) * (len(row.tokens) - 1)


def test_lem_nanos_rows_by_its_template() -> None:
    """The embedded model's template in words: a token for each role, trimmed text, an end token, nothing between."""
    chat = load(str(repository_root() / "models" / "lem-nano"), weights=False)
    row = encode(chat, example((S, "Be kind."), (U, " Why? "), (A, "Because.\n"), (U, "And?"), (A, "So.")))
    assert runs(chat, row) == [
        (False, "<|begin|><|system|>Be kind.<|end|><|user|>Why?<|end|><|assistant|>"), (True, "Because.<|end|>"),
        (False, "<|user|>And?<|end|><|assistant|>"), (True, "So.<|end|>"),
    ]  # fmt: skip
    by_piece = [len(chat.tokenizer.encode(text, add_special_tokens=False)) for text in ("Because.", "So.")]
    assert row.n_reply == sum(by_piece) + 2
