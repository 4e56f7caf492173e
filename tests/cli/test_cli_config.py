"""The configuration: option over environment over file over default, and every mistake named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Place, Result

from lem.config import Config, load_config, resolve_model
from lem.errors import UserError

Lem = Callable[..., Result]


def limit_of(result: Result) -> int:
    """The token limit in force, read from a dry run of five probes."""
    assert result.code == 0, result
    facts = json.loads(result.out)
    return int(facts["max_new_tokens"]) // int(facts["n_requests"])


def test_option_over_environment_over_file_over_default(
    lem: Lem, configure: Callable[..., None], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = ("benchmark", "--dry-run", "--json")
    assert limit_of(lem(*dry)) == 4, "the file"
    monkeypatch.setenv("LEM_MAX_TOKENS", "9")
    assert limit_of(lem(*dry)) == 9, "the environment over the file"
    assert limit_of(lem(*dry, "--max-tokens", "11")) == 11, "the option over the environment"
    monkeypatch.delenv("LEM_MAX_TOKENS")
    keys = json.loads(place.config.read_text())
    place.config.write_text(json.dumps({key: value for key, value in keys.items() if key != "max_tokens"}))
    assert limit_of(lem(*dry)) == Config().max_tokens == 1024, "the default"


def test_zero_is_a_value_of_its_own(lem: Lem, place: Place, configure: Callable[..., None]) -> None:
    configure(temperature=0.9, seed=5)
    assert lem("benchmark", "--temperature", "0", "--seed", "0", "--output", "run").code == 0
    settings = json.loads((place.folder / "run" / "run.json").read_text())["settings"]
    assert (settings["temperature"], settings["seed"]) == (0.0, 0)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"max_token": 5}, ["unknown key 'max_token'; known keys here:", "max_tokens", "default_model", "training"]),
        ({"training": {"lr": 1}}, ["unknown key 'training.lr'; known keys here: iters, batch_size, learning_rate"]),
        ({"max_tokens": "many"}, ["key 'max_tokens'", "valid integer", "'many'"]),
        ({"max_tokens": 0}, ["key 'max_tokens'", "greater than or equal to 1"]),
        ({"training": {"learning_rate": -1}}, ["key 'training.learning_rate'", "greater than 0"]),
        ({"models": ["a"]}, ["key 'models'"]),
        ({"models": {"x": 3}}, ["key 'models.x'"]),
    ],
)
def test_mistakes_in_the_file_are_named(
    lem: Lem, place: Place, configure: Callable[..., None], keys: dict[str, object], parts: list[str]
) -> None:
    configure(**keys)
    result = lem("benchmark", "--dry-run")
    assert result.code == 2
    for part in ["lem.config.json", *parts]:
        assert part in result.err


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"seed": 1,\n}', "line 2: not valid JSON"), (b"[1]", "must be one JSON object"), (b"\xff\xfe", "not UTF-8")],
)
def test_a_file_that_cannot_be_read(lem: Lem, place: Place, content: bytes, message: str) -> None:
    place.config.write_bytes(content)
    result = lem("benchmark", "--dry-run")
    assert (result.code, "Traceback" in result.err) == (2, False)
    assert "lem.config.json" in result.err
    assert message in result.err


def test_a_mistake_in_the_environment_names_the_variable(lem: Lem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEM_MAX_TOKENS", "many")
    result = lem("benchmark", "--dry-run")
    assert result.code == 2
    assert "LEM_MAX_TOKENS" in result.err
    assert "'many'" in result.err


def test_a_config_that_is_not_there(lem: Lem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEM_CONFIG", "nowhere.json")
    result = lem("benchmark", "--dry-run")
    assert result.code == 2
    assert "LEM_CONFIG names nowhere.json, which is not a file" in result.err


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "models" / "here").mkdir(parents=True)
    file = tmp_path / "lem.config.json"
    file.write_text(
        json.dumps({"runs_dir": "out", "models": {"a": "models/here", "b": "owner/hub"}, "default_model": "a"})
    )
    config = load_config(file, {})
    assert config.runs_dir == str(tmp_path / "out")
    assert config.models == {"a": str(tmp_path / "models" / "here"), "b": "owner/hub"}
    assert config.training.adapter_path == str(tmp_path / "adapters" / "lek")
    assert resolve_model(config, None) == resolve_model(config, "a") == str(tmp_path / "models" / "here")
    assert resolve_model(config, "b") == "owner/hub"
    assert resolve_model(config, "models/here") == "models/here", "options count from the working directory"


def test_the_published_config_of_the_repository_is_valid() -> None:
    config = load_config(environ={})
    assert (config.max_tokens, config.temperature, config.seed, config.training.iters) == (1024, 0.7, 42, 200)


def test_the_environment_is_checked_like_the_file(tmp_path: Path) -> None:
    none = tmp_path / "none.json"
    ours = {"LEM_CI": "1", "LEM_PYTHON": "python3", "LEM_NO_OPENBLAS": "1", "LEM_REFERENCE": "x"}
    assert load_config(none, {**ours, "LEM_SEED": "7", "SEED": "8"}).seed == 7
    with pytest.raises(UserError, match="LEM_TOP_P"):
        load_config(none, {"LEM_TOP_P": "2"})
    for name in ("LEM_MAXTOKENS", "LEM_TRAINING"):
        with pytest.raises(UserError, match=rf"{name} is unknown; known ones are .*LEM_MAX_TOKENS"):
            load_config(none, {name: "5"})
