"""How judges are named on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lem.errors import UserError
from lem.judges.backends.access import is_local, portable_schema
from lem.judges.backends.gemini import DEFAULT_MODEL
from lem.judges.spec import open_judge, parse_spec
from tiny import make_model


@pytest.mark.parametrize(
    ("text", "name", "backend", "model", "url"),
    [
        ("gemini", DEFAULT_MODEL, "gemini", DEFAULT_MODEL, None),
        ("gemini:gemini-2.5-pro", "gemini-2.5-pro", "gemini", "gemini-2.5-pro", None),
        ("gemini:gemma-3-27b-it", "gemini-gemma-3-27b-it", "gemini", "gemma-3-27b-it", None),
        ("strict=gemini", "strict", "gemini", DEFAULT_MODEL, None),
        (
            "openai:org/Model-X@http://127.0.0.1:8080/v1/", "org-Model-X", "openai", "org/Model-X",
            "http://127.0.0.1:8080/v1",
        ),
        ("o=openai:m@rev@https://x.test/v1", "o", "openai", "m@rev", "https://x.test/v1"),
        ("mlx:models/Llama-3.2-1B", "Llama-3.2-1B", "mlx", "models/Llama-3.2-1B", None),
        ("mlx:models/lem-nano/", "lem-nano", "mlx", "models/lem-nano/", None),
        ("n=mlx:a=b/c", "n", "mlx", "a=b/c", None),
        ("mlx:a=b/c", "c", "mlx", "a=b/c", None),
    ],
)  # fmt: skip
def test_the_three_forms(text: str, name: str, backend: str, model: str, url: str | None) -> None:
    spec = parse_spec(text)
    assert (spec.name, spec.backend, spec.model, spec.url, spec.text) == (name, backend, model, url, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write gemini, gemini:MODEL"),
        ("claude", "no judge of this form: 'claude'"),
        ("gemini:", "names no model"),
        ("mlx:", "mlx:PATH"),
        ("openai", "model and a URL"),
        ("openai:m", "model and a URL"),
        ("openai:m@x.test/v1", "model and a URL"),
        ("openai:m@ftp://x.test/v1", "must start with http:// or https://"),
        ("openai:m@file:///etc/passwd", "must start with http:// or https://"),
        ("openai:m@http://", "must start with http:// or https://"),
        ("openai:m@http://x.test:port/v1", "not a URL"),
        ("openai:@http://x.test/v1", "model and a URL"),
        ("=gemini", "a judge's name"),
        ("a/b=gemini", "a judge's name"),
        ("../x=gemini", "a judge's name"),
    ],
)
def test_what_is_none_of_them_is_a_sentence(text: str, words: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_spec(text)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://u:pa55@x.test/v1", "https://x.test/v1?key=pa55", "https://x.test/v1#pa55"])
def test_secrets_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UserError, match="leave user, password, query") as raised:
        parse_spec(f"openai:m@{url}")
    assert "pa55" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concurrency": 0}, "--concurrency"),
        ({"timeout_s": 0.0}, "--timeout"),
        ({"timeout_s": float("nan")}, "--timeout"),
        ({"method": "guess"}, "--judge-method must be one of grammar, labels"),
    ],
)
def test_limits_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as raised:
        open_judge(parse_spec("gemini"), **options)
    assert words in str(raised.value)


def test_open_judge_says_which_key_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="GEMINI_API_KEY"):
        open_judge(parse_spec("gemini"))
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        open_judge(parse_spec("openai:m@https://judges.test/v1"))


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://localhost/v1", True),
        ("https://127.0.0.1.x.test/v1", False),
        ("https://x.test/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_which_urls_are_of_this_machine(url: str, local: bool) -> None:
    assert is_local(url) is local


def test_a_schema_in_the_keywords_of_services_leaves_names_alone_and_the_original_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {
            "const": {"type": "integer", "const": 1},
            "pattern": {"type": "string", "pattern": "a", "minLength": 1, "maxLength": 9},
            "verdict": {"enum": ["A", "B", "tie"]},
            "list": {
                "type": "array",
                "items": {"anyOf": [{"type": "string", "const": "x"}, {"type": "integer", "minimum": 1}]},
            },
        },
        "required": ["const", "pattern"],
    }
    before = repr(schema)
    assert portable_schema(schema) == {
        "type": "object",
        "properties": {
            "const": {"type": "integer"},
            "pattern": {"type": "string"},
            "verdict": {"enum": ["A", "B", "tie"]},
            "list": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 1}]}},
        },
        "required": ["const", "pattern"],
    }
    assert repr(schema) == before


def test_a_local_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing: no such model") as raised:
        open_judge(parse_spec(f"mlx:{tmp_path / 'nothing'}"))
    assert "--model" not in str(raised.value)
    assert "give --judge mlx:PATH a folder, a hub id" in str(raised.value)
    with pytest.raises(UserError, match=r"holds no config\.json") as raised:
        open_judge(parse_spec(f"mlx:{tmp_path}"))
    assert str(raised.value).endswith("check --judge mlx:PATH.")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config whose table of models names a tiny one, which is the default, too."""
    model = make_model(tmp_path / "tiny-llama", "llama")
    path = tmp_path / "lem.config.json"
    path.write_text(json.dumps({"models": {"short": str(model)}, "default_model": "short"}))
    monkeypatch.setenv("LEM_CONFIG", str(path))
    return model


def test_a_short_name_of_the_config_is_the_model_behind_it(config: Path) -> None:
    specs = [parse_spec(text) for text in ("mlx:short", f"mlx:{config}", "mlx", "mine=mlx")]
    assert [spec.name for spec in specs] == ["short", "tiny-llama", "tiny-llama", "mine"]
    found = []
    for spec in specs:
        with open_judge(spec) as judge:
            found.append(judge.identity)
    assert len({one.settings["model"] for one in found}) == 1
    assert {one.model for one in found} == {found[1].model}


def test_a_name_that_the_config_lacks_is_a_sentence(config: Path) -> None:
    with pytest.raises(UserError, match=r"--judge mlx:shrt: shrt: no such model; give --judge mlx:PATH"):
        open_judge(parse_spec("mlx:shrt"))
