"""Gemma 2's attention in mlx-lm mixes the rows of a batch, so its rows are decoded one by one."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from lem.chat import generate as engine
from lem.chat.generate import Completion, GenerationSettings, Request, decodes_together, generate
from lem.chat.load import ChatModel, load
from lem.chat.render import conversation, render
from tiny import make_model

GREEDY = GenerationSettings(max_tokens=12, temperature=0.0, stop=False)


@pytest.fixture
def gemma2(tmp_path: Path) -> ChatModel:
    return load(str(make_model(tmp_path / "gemma2", "gemma2-grouped")))


def rows_of(chat: ChatModel, n: int) -> list[Request]:
    """Rows of different lengths with a start in common that is long enough for a cache."""
    texts = [render(chat, conversation("Ask " * (1 + 5 * i), "A note about lamps.", "system")).tokens for i in range(n)]
    return [Request(index, tokens, 0) for index, tokens in enumerate(texts)]


def longhand(chat: ChatModel, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """Greedy tokens by a full forward pass over everything so far: no cache, no batch."""
    tokens = list(prompt)
    for _ in range(GREEDY.max_tokens):
        tokens.append(int(mx.argmax(chat.model(mx.array([tokens]))[0, -1]).item()))
    return tuple(tokens[len(prompt) :])


def decode(chat: ChatModel, rows: list[Request]) -> dict[int, Completion]:
    return {done.id: done for done in generate(chat, [rows], GREEDY)}


@pytest.mark.parametrize("n", [2, 3])
def test_every_row_of_a_group_is_what_the_model_says_to_it_alone(gemma2: ChatModel, n: int) -> None:
    rows = rows_of(gemma2, n)
    found = decode(gemma2, rows)
    assert {index: done.tokens for index, done in found.items()} == {
        row.id: longhand(gemma2, row.tokens) for row in rows
    }
    assert all(done.error is None for done in found.values())


def test_as_a_batch_it_would_be_wrong_without_an_error(gemma2: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the exception exists; when this fails after an update of mlx-lm, the exception can go."""
    monkeypatch.setattr(engine, "_ONE_BY_ONE", frozenset())
    rows = rows_of(gemma2, 2)  # as many rows as key/value heads
    found = decode(gemma2, rows)
    assert [found[row.id].error for row in rows] == [None, None]
    assert any(found[row.id].tokens != longhand(gemma2, row.tokens) for row in rows)


def test_the_exception_is_for_gemma_2_alone() -> None:
    assert not decodes_together({"model_type": "gemma2"})
    assert not decodes_together({"model_type": "wrapper", "text_config": {"model_type": "gemma2"}})
    assert decodes_together({"model_type": "gemma3_text"})
    assert decodes_together({"model_type": "gemma3", "text_config": {}})
