"""The doctor finds a healthy model healthy, and every broken one broken for the right reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lem.chat import doctor
from lem.chat.doctor import examine
from lem.chat.load import ChatModel, load
from tiny import CHATML, make_model


def verdicts(chat: ChatModel) -> dict[str, bool | None]:
    return {check.name: check.ok for check in examine(chat)}


def failed(chat: ChatModel) -> set[str]:
    return {name for name, ok in verdicts(chat).items() if ok is False}


def test_a_healthy_model_passes_every_check(chat: ChatModel) -> None:
    found = verdicts(chat)
    assert set(found.values()) == {True, None}
    assert {name for name, ok in found.items() if ok is None} == {"system turn", "thinking"}


def test_a_turn_without_its_stop_token_is_found(tmp_path: Path) -> None:
    template = CHATML.replace(
        "<|end|>\n{% endfor %}", "{% if m['role'] != 'assistant' %}<|end|>{% endif %}\n{% endfor %}"
    )
    assert failed(load(str(make_model(tmp_path / "m", "llama", template=template)))) == {"stop tokens"}


def test_a_template_that_loses_the_question_is_found(tmp_path: Path) -> None:
    template = CHATML.replace("{{ m['content'] }}", "{{ m['content'][:9] }}")
    assert "chat template" in failed(load(str(make_model(tmp_path / "m", "llama", template=template))))


def test_two_beginnings_of_text_are_found(tmp_path: Path) -> None:
    assert failed(load(str(make_model(tmp_path / "m", "llama", template="<|bos|><|bos|>" + CHATML)))) == {
        "chat template"
    }


class Forgetful(list[Any]):
    """A prompt cache that is empty again whenever a forward pass begins to read it."""

    def __init__(self, remake: Any) -> None:
        super().__init__(remake())
        self.remake = remake

    def __iter__(self) -> Any:
        self[:] = self.remake()
        return super().__iter__()


def test_a_cache_that_loses_the_prefix_is_found(llama: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.make_prompt_cache
    llama.model.model.norm.weight = llama.model.model.norm.weight * 8  # a model that is sure of its next token
    assert failed(llama) == set()
    monkeypatch.setattr(doctor, "make_prompt_cache", lambda model: Forgetful(lambda: real(model)))
    assert failed(llama) == {"prefix cache"}


def test_a_batch_that_differs_from_its_rows_is_found(llama: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.generate

    def shifted(chat: ChatModel, groups: Any, *args: Any, **kwargs: Any) -> Any:
        for done in real(chat, groups, *args, **kwargs):
            if len(groups[0]) > 1:
                object.__setattr__(done, "tokens", (0, *done.tokens[1:]))
            yield done

    monkeypatch.setattr(doctor, "generate", shifted)
    assert "batch = alone" in failed(llama)


def test_a_check_that_breaks_is_a_failed_check_with_its_error(
    llama: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(doctor, "generate", broken)
    found = {check.name: check for check in examine(llama)}
    assert found["batch = alone"].ok is False
    assert found["batch = alone"].detail == "RuntimeError: out of memory"
    assert found["prefix cache"].ok is True
