"""The mask covers the assistant's words and stop tokens, nothing else; the loss is their mean, longhand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.chat.load import ChatModel, load
from lem.data import ChatExample, read_chat_examples
from lem.errors import DataError, UserError
from lem.training.dataset import TrainingRow, batches, encode, encode_file, make_batch
from lem.training.loss import batch_arrays, evaluate_loss, number, reply_loss, row_losses
from tiny import CHATML, make_model

U, A, S = "user", "assistant", "system"
# The generation prompt opens a block that finished conversations do not have, so it is no prefix of them.
THINKING = CHATML.replace("<|turn|>assistant\n{% endif %}", "<|turn|>assistant\n[think]\n{% endif %}")
# Earlier answers are shortened to three characters, as templates do that strip old thoughts.
REWRITES = CHATML.replace(
    "{{ m['content'] }}", "{{ m['content'] if loop.last or m['role'] != 'assistant' else m['content'][:3] }}"
)


def example(*turns: tuple[str, str]) -> ChatExample:
    return ChatExample(tuple({"role": role, "content": content} for role, content in turns), 1)


def with_template(folder: Path, template: str) -> ChatModel:
    return load(str(make_model(folder / "model", "llama", template=template)), weights=False)


def replies(chat: ChatModel, row: TrainingRow) -> list[str]:
    """The text of each unbroken stretch of counted tokens."""
    found, current = [], []
    for token, counted in [*zip(row.tokens, row.reply, strict=True), (0, False)]:
        if counted:
            current.append(token)
        elif current:
            found.append(chat.tokenizer.decode(current))
            current = []
    return found


@pytest.mark.parametrize(
    ("turns", "counted"),
    [
        ([(U, "Why?"), (A, "Because.")], ["Because.<|end|>"]),
        ([(S, "Be kind."), (U, "Why?"), (A, "So.")], ["So.<|end|>"]),
        ([(U, "a"), (A, "First."), (U, "b"), (A, "Second, longer.")], ["First.<|end|>", "Second, longer.<|end|>"]),
        ([(U, "Say assistant"), (A, "assistant\nassistant")], ["assistant\nassistant<|end|>"]),
    ],
    ids=["one turn", "system", "two turns", "words of the template"],
)
def test_the_reply_and_its_stop_token_count_and_nothing_else(
    chat: ChatModel, turns: list[tuple[str, str]], counted: list[str]
) -> None:
    row = encode(chat, example(*turns))
    assert replies(chat, row) == counted
    assert chat.tokenizer.decode(list(row.tokens)) == "".join(f"<|turn|>{r}\n{c}<|end|>\n" for r, c in turns)
    assert row.n_reply == sum(len(chat.tokenizer.encode(text, add_special_tokens=False)) for text in counted)


def test_a_generation_prompt_that_is_no_prefix_masks_no_reply_and_counts_no_prompt(tmp_path: Path) -> None:
    chat = with_template(tmp_path, THINKING)
    assert replies(chat, encode(chat, example((U, "Why?"), (A, "Because.")))) == ["Because.<|end|>"]


def test_a_reply_that_opens_like_the_generation_prompt_loses_that_opening_only(tmp_path: Path) -> None:
    """What the prompt already holds is given, not learned."""
    chat = with_template(tmp_path, THINKING)
    row = encode(chat, example((U, "Why?"), (A, "[think]\nhm[/think]Because.")))
    assert replies(chat, row) == ["hm[/think]Because.<|end|>"]


def test_a_template_that_rewrites_history_never_counts_a_prompt_token(tmp_path: Path) -> None:
    chat = with_template(tmp_path, REWRITES)
    row = encode(chat, example((U, "a"), (A, "First answer."), (U, "b"), (A, "Second.")))
    assert replies(chat, row) == ["Fir", "Second.<|end|>"]


words = st.text("abc .?", min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=3), st.none() | words)
def test_any_conversation_counts_exactly_its_answers(
    base: Path, pairs: list[tuple[str, str]], system: str | None
) -> None:
    chat = load(str(base), weights=False)
    turns = [turn for question, answer in pairs for turn in ((U, question), (A, answer))]
    row = encode(chat, example(*([(S, system)] if system else []), *turns))
    assert replies(chat, row) == [f"{answer}<|end|>" for _, answer in pairs]


def test_without_the_mask_everything_but_the_first_token_counts(chat: ChatModel) -> None:
    row = encode(chat, example((U, "Why?"), (A, "Because.")), mask_prompt=False)
    assert row.reply == (False,) + (True,) * (len(row.tokens) - 1)


def longhand_loss(model: Any, row: TrainingRow) -> tuple[float, int]:
    """Sum of -log p(token) in float64 over the counted tokens of one unpadded row, and their number."""
    logits = np.array(model(mx.array([row.tokens]))[0].astype(mx.float32), dtype=np.float64)
    total = 0.0
    for position, counted in enumerate(row.reply):
        if counted:
            before = logits[position - 1]
            total -= before[row.tokens[position]] - np.log(np.exp(before - before.max()).sum()) - before.max()
    return total, sum(row.reply)


def test_the_loss_is_the_mean_over_the_counted_tokens_of_all_rows(chat: ChatModel) -> None:
    """Rows of different lengths weigh by their tokens, and padding weighs nothing, whatever it is."""
    turns = [[(U, "Why?"), (A, "B.")], [(U, "a"), (A, "A far longer answer, twice."), (U, "b"), (A, "Yes.")]]
    rows = [encode(chat, example(*conversation)) for conversation in turns]
    sums = [longhand_loss(chat.model, row) for row in rows]
    for row, (total, count) in zip(rows, sums, strict=True):
        loss, n = reply_loss(chat.model, *batch_arrays(make_batch([row])))
        assert (number(loss), number(n)) == (pytest.approx(total / count, rel=1e-5), count)
    together = sum(total for total, _ in sums) / sum(count for _, count in sums)
    batch = make_batch(rows)
    loss, n = reply_loss(chat.model, *batch_arrays(batch))
    assert number(loss) == pytest.approx(together, rel=1e-5)
    assert number(n) == sum(count for _, count in sums)
    assert abs(together - np.mean([total / count for total, count in sums])) > 0.01, "weights would not show"
    padded = batch.tokens.copy()
    for index, row in enumerate(rows):
        padded[index, len(row.tokens) :] = 77
    other = reply_loss(chat.model, mx.array(padded), mx.array(batch.targets.astype("float32")))[0]
    assert number(other) == pytest.approx(number(loss), rel=1e-6)


def test_evaluation_weighs_tokens_across_batches(chat: ChatModel) -> None:
    rows = [encode(chat, example((U, "q"), (A, "x" * n))) for n in (1, 30, 2, 9, 4)]
    sums = [longhand_loss(chat.model, row) for row in rows]
    mean = sum(total for total, _ in sums) / sum(count for _, count in sums)
    for batch_size in (1, 2, 5):
        assert evaluate_loss(chat.model, rows, batch_size) == pytest.approx(mean, rel=1e-5)
    assert row_losses(chat.model, rows) == pytest.approx([total / count for total, count in sums], rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=2, max_size=70), min_size=1, max_size=5))
def test_a_batch_holds_its_rows_and_padding_is_no_target(masks: list[list[bool]]) -> None:
    rows = [TrainingRow(tuple(range(1, len(m) + 1)), (False, *m[1:])) for m in masks]
    batch = make_batch(rows)
    width = batch.tokens.shape[1]
    assert width % 32 == 0
    assert width - 32 < max(len(m) for m in masks) <= width
    assert batch.targets.shape == (len(rows), width - 1)
    for index, row in enumerate(rows):
        n = len(row.tokens)
        assert tuple(batch.tokens[index, :n]) == row.tokens
        assert tuple(batch.targets[index, : n - 1]) == row.reply[1:]
        assert not batch.targets[index, n - 1 :].any()


def test_every_epoch_sees_every_row_once_in_another_order() -> None:
    rows = [TrainingRow((i, i + 1), (False, True)) for i in range(1, 8)]
    stream = batches(rows, 3, seed=4)
    epochs = [[int(t) for _ in range(3) for t in next(stream).tokens[:, 0]] for _ in range(3)]
    assert all(sorted(epoch) == list(range(1, 8)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = batches(rows, 3, seed=4)
    assert [int(t) for _ in range(3) for t in next(again).tokens[:, 0]] == epochs[0]
    other = batches(rows, 3, seed=5)
    assert [int(t) for _ in range(3) for t in next(other).tokens[:, 0]] != epochs[0]


def test_cut_and_dropped_rows_are_counted(chat: ChatModel, tmp_path: Path, line: Callable[..., str]) -> None:
    short, long_answer, long_question = line("Hi?", "Yes."), line("Hi?", "y" * 200), line("h" * 200, "Yes.")
    path = tmp_path / "train.jsonl"
    path.write_text(short + long_answer + long_question)
    found = encode_file(chat, path, 60)
    assert [len(row.tokens) for row in found.rows] == [len(encode(chat, read_chat_examples(path)[0]).tokens), 60]
    assert (found.n_dropped, found.n_truncated) == (1, 2)
    assert encode_file(chat, path, 1000).n_truncated == 0
    path.write_text(long_question)
    with pytest.raises(UserError, match="no row keeps a reply within 60 tokens; raise --max-seq-length"):
        encode_file(chat, path, 60)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no example in the file"),
        (b'{"messages": [{"role": "user"}]}\n', r"line 1: message 1 \(user\) has no text"),
        (b'\n{"messages": \n', "line 2: not valid JSON"),
        (json.dumps({"messages": [{"role": "user", "content": "a"}]}).encode(), "line 1: roles are user"),
        (b'{"text": "a"}', "line 1: field 'messages' is missing"),
        (b"\xff\xfe{", "not UTF-8"),
    ],
)
def test_training_files_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises((UserError, DataError), match=message):
        read_chat_examples(path)
