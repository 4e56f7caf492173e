"""Tiny models of the two families that matter here: sliding windows (Gemma 3) and plain attention (Llama)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lem.chat.load import ChatModel, load
from tiny import make_model


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: make_model(root / kind, kind) for kind in ("gemma3_text", "llama")}


@pytest.fixture
def gemma(model_folders: dict[str, Path]) -> ChatModel:
    return load(str(model_folders["gemma3_text"]))


@pytest.fixture
def llama(model_folders: dict[str, Path]) -> ChatModel:
    return load(str(model_folders["llama"]))


@pytest.fixture(params=["gemma3_text", "llama"])
def chat(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> ChatModel:
    return load(str(model_folders[request.param]))
