"""A tiny model and a toy data set that it can learn by heart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lem.chat.load import ChatModel, load
from tiny import make_model

PAIRS = [
    ("One?", "Aye."),
    ("Two, then?", "Never."),
    ("And what of three?", "Perhaps, with consent."),
    ("Four?", "Ask."),
]


def chat_line(*turns: str, system: str | None = None) -> str:
    roles = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    opening = [{"role": "system", "content": system}] if system else []
    return json.dumps({"messages": [*opening, *roles]}) + "\n"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("training") / "tiny-llama", "llama", layers=3)


@pytest.fixture
def chat(base: Path) -> ChatModel:
    return load(str(base))


@pytest.fixture
def line() -> Callable[..., str]:
    return chat_line


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.jsonl", "valid.jsonl"):
        (folder / name).write_text("".join(chat_line(*pair) for pair in PAIRS))
    return folder
