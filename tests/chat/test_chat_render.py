"""Rendering: where kernels go, what a template keeps, and exactly one beginning-of-text token."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lem.chat.load import ChatModel, load
from lem.chat.render import (
    Rendered,
    after_thinking,
    choose_injection,
    conversation,
    render,
    shared_prefix,
    supports_system,
)
from lem.errors import UserError
from lem.records import text_sha
from tiny import CHATML, NO_SYSTEM, make_model

REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    + ("<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}<|turn|>assistant\n")
)


def chat_with(folder: Path, template: str) -> ChatModel:
    return load(str(make_model(folder / "model", "llama", template=template)), weights=False)


def test_injection_variants_are_exactly_these_messages() -> None:
    user = {"role": "user"}
    assert conversation("Q", None, "sandwich", "S") == [{**user, "content": "Q"}]
    assert conversation("Q", "K", "system", "S") == [{"role": "system", "content": "K"}, {**user, "content": "Q"}]
    assert conversation("Q", "K", "user", "S") == [{**user, "content": "K\n\nQ"}]
    assert conversation("Q", "K", "sandwich", "S") == [{**user, "content": "K\n\nQ\n\nS"}]
    assert conversation("Q", "K", "sandwich") == [{**user, "content": "K\n\nQ"}]


@pytest.mark.parametrize(("template", "kept"), [(CHATML, True), (NO_SYSTEM, False), (REFUSES_SYSTEM, False)])
def test_system_support_is_shown_by_what_the_template_prints(tmp_path: Path, template: str, kept: bool) -> None:
    chat = chat_with(tmp_path, template)
    assert supports_system(chat) is kept
    assert choose_injection(chat, None) == ("system" if kept else "user")
    assert choose_injection(chat, "sandwich") == "sandwich"
    if kept:
        assert choose_injection(chat, "system") == "system"
    else:
        with pytest.raises(UserError, match=r"drops system turns; use --inject user"):
            choose_injection(chat, "system")


def test_a_prompt_is_the_template_filled_in(tmp_path: Path) -> None:
    chat = chat_with(tmp_path, CHATML)
    found = render(chat, conversation("Why?", "Be kind.", "system"))
    assert found.text == "<|turn|>system\nBe kind.<|end|>\n<|turn|>user\nWhy?<|end|>\n<|turn|>assistant\n"
    assert chat.tokenizer.decode(list(found.tokens)) == found.text
    assert found.sha == text_sha(found.text)


@pytest.mark.parametrize("prefix", ["<|bos|>", "{{ bos_token }}"])
def test_a_template_that_prints_the_beginning_of_text_gets_exactly_one(tmp_path: Path, prefix: str) -> None:
    chat = chat_with(tmp_path, prefix + CHATML)
    tokens = render(chat, conversation("Why?", None, "system")).tokens
    assert tokens.count(chat.tokenizer.bos_token_id) == 1
    assert tokens[0] == chat.tokenizer.bos_token_id


def test_a_template_without_beginning_of_text_gets_none(tmp_path: Path) -> None:
    chat = chat_with(tmp_path, CHATML)
    assert chat.tokenizer.bos_token_id not in render(chat, conversation("Why?", None, "system")).tokens


def test_a_template_that_refuses_roles_is_a_sentence(tmp_path: Path) -> None:
    chat = chat_with(tmp_path, REFUSES_SYSTEM)
    with pytest.raises(UserError, match=r"refuses the roles system, user \(no system here\)"):
        render(chat, conversation("Q", "K", "system"))


@pytest.mark.parametrize(
    ("prompts", "length"),
    [([], 0), ([[1, 2, 3]], 2), ([[1, 2], [1, 3], [1, 2, 4]], 1), ([[1], [2]], 0), ([[1, 2], [1, 2, 3]], 1),
     ([[7, 7, 7, 1], [7, 7, 7, 2], [7, 7, 9, 9]], 2)],
)  # fmt: skip
def test_the_shared_prefix_leaves_a_token_to_decode_from(prompts: list[list[int]], length: int) -> None:
    assert shared_prefix(prompts) == length


class _Thinks:
    """A tokenizer whose thinking stands between the tokens 1 and 2, one token a word."""

    has_thinking = True
    think_end = "</t>"

    def rfind_think_start(self, tokens: list[int]) -> int:
        return max((i for i, token in enumerate(tokens) if token == 1), default=-1)

    def rfind_think_end(self, tokens: list[int]) -> int:
        return max((i for i, token in enumerate(tokens) if token == 2), default=-1)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert (text, add_special_tokens) == ("</t>\n\n", False)
        return [2, 9]


@pytest.mark.parametrize(
    ("tokens", "closed"), [((5, 1), True), ((5, 1, 7, 2), False), ((5, 1, 7, 2, 1), True), ((5, 6), False)]
)
def test_thinking_that_the_prompt_opened_is_closed_before_choices(tokens: tuple[int, ...], closed: bool) -> None:
    chat = SimpleNamespace(tokenizer=_Thinks())
    before = Rendered("text", tokens, "sha")
    after = after_thinking(chat, before)
    if not closed:
        assert after == before
        return
    assert (after.text, after.tokens) == ("text</t>\n\n", (*tokens, 2, 9))
    assert after.sha == text_sha(after.text)
