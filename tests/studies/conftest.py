"""A small world for curricula: a tiny model, probes, a kernel, data, and curriculum files made from dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_curriculum import write_pairs

from lem.config import Config
from lem.studies.curriculum_plan import CurriculumPlan, make_plan
from small_plan import write_kernel, write_probes
from tiny import make_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("studies") / "tiny-llama", "llama")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with probes, kernel, signature and training data."""
    write_probes(tmp_path / "probes.json", 6)
    write_kernel(tmp_path / "axioms.json")
    (tmp_path / "sig.txt").write_text("So it was said.\n")
    (tmp_path / "data").mkdir()
    for name in ("first.jsonl", "data/train.jsonl", "data/valid.jsonl"):
        write_pairs(tmp_path / name)
    return tmp_path


@pytest.fixture
def write_file(world: Path) -> Callable[..., Path]:
    """Write a curriculum file of these phases; further keys override the defaults, None leaves one out."""

    def write(*phases: dict[str, Any], **keys: Any) -> Path:
        content = {
            "kernel": "axioms.json", "signature": "sig.txt", "probes": "probes.json", "phases": list(phases),
            "settings": {"iters": 4}, "generation": {"max_tokens": 5}, **keys,
        }  # fmt: skip
        path = world / "curriculum.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


@pytest.fixture
def plan_of(world: Path, model: Path, write_file: Callable[..., Path]) -> Callable[..., CurriculumPlan]:
    """The plan of these phases on the tiny model, with OUTPUT `run`; `keys` go into the file."""

    def make(*phases: dict[str, Any], keys: dict[str, Any] | None = None, **options: Any) -> CurriculumPlan:
        return make_plan(Config(), write_file(*phases, **(keys or {})), str(model), world / "run", **options)

    return make
