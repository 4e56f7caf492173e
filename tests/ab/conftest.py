"""A tiny model, probes and kernels for A/B runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_plan import write_kernel, write_probes
from tiny import make_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("ab") / "tiny-llama", "llama")


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    return write_probes(tmp_path / "probes.json", 8)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return write_kernel(tmp_path / "axioms.json")
