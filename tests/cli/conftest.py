"""The command line as a person uses it: a config of one's own, a tiny model, and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Place, Result, make_place, run_in_process

from tiny import make_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("cli") / "tiny-llama", "llama")


@pytest.fixture
def place(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A working directory with a config, probes and kernels; the config names the model `tiny`."""
    made = make_place(tmp_path, model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEM_CONFIG", str(made.config))
    return made


@pytest.fixture
def lem(place: Place, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Call `lem ARGUMENTS` in this process."""
    return lambda *arguments: run_in_process(arguments, capsys)


@pytest.fixture
def configure(place: Place) -> Callable[..., None]:
    """Change keys of the config."""

    def change(**keys: object) -> None:
        place.config.write_text(json.dumps({**json.loads(place.config.read_text()), **keys}))

    return change
