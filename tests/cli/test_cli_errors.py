"""Wrong input ends with exit code 2 and one sentence that says what, where and what to do; nothing is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Place, Result, assert_sentence

from lem.cli.main import COMMANDS, main
from lem.errors import UserError
from small_plan import bytes_of
from tiny import make_model

Lem = Callable[..., Result]


def test_an_unknown_command_is_answered_with_the_known_ones(lem: Lem) -> None:
    assert_sentence(lem("benchmrk"), "no command 'benchmrk'; there are", *COMMANDS)


def test_help_and_version_end_well(lem: Lem) -> None:
    listed = lem("--help")
    assert listed.code == 0
    assert all(name in listed.out for name in COMMANDS)
    assert lem("--version").out.startswith("lem, version ")
    assert lem("ab", "--help").out == lem("benchmark", "--help").out.replace("lem benchmark", "lem ab")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_of_the_table_can_be_imported(lem: Lem, command: str) -> None:
    if command == "test":
        return  # hands everything to pytest, --help included
    assert lem(command, "--help").code == 0


@pytest.mark.parametrize(
    ("limit", "message"), [("0", "--limit must be at least 1 (got 0)"), ("-3", "--limit must be at least 1 (got -3)")]
)
def test_a_limit_of_nothing(lem: Lem, limit: str, message: str) -> None:
    assert_sentence(lem("benchmark", "--limit", limit), message)


PROBE = {"id": "P01", "domain": "care", "prompt": "Why?"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"id": "P01",\n oops}]', "p.json line 3: not valid JSON"),
        ("[]", "is a non-empty JSON array"),
        (json.dumps(PROBE), "is a non-empty JSON array"),
        (json.dumps([PROBE, {"id": "P02", "prompt": "Why?"}]), "entry 2 (P02): field 'domain' is missing"),
        (json.dumps([{**PROBE, "prompt": " "}]), "entry 1 (P01): field 'prompt' is empty or not a string"),
        (json.dumps([{**PROBE, "id": 7}]), "entry 1: field 'id' is empty or not a string"),
        (json.dumps(["Why?"]), "entry 1: not an object"),
        (json.dumps([PROBE, {**PROBE, "prompt": "How?"}]), "entry 2: id 'P01' was already used by entry 1"),
    ],
    ids=["json", "empty", "object", "missing field", "empty field", "number", "text", "duplicate"],
)
def test_probe_files_that_cannot_be_used(lem: Lem, place: Place, content: str, message: str) -> None:
    (place.folder / "p.json").write_text(content)
    assert_sentence(lem("benchmark", "--prompts", "p.json"), message)
    assert not (place.folder / "runs").exists()


def test_a_missing_probe_file(lem: Lem) -> None:
    assert_sentence(lem("benchmark", "--prompts", "none.json"), "none.json: no such probe file; give --prompts FILE")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("k.txt", " \n", "k.txt: the kernel is empty"),
        ("k.json", '{"a":\n}', "k.json line 2: not valid JSON"),
        ("missing/k.txt", None, "missing/k.txt: no such kernel file"),
    ],
)
def test_kernels_that_cannot_be_used(lem: Lem, place: Place, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (place.folder / name).write_text(content)
    assert_sentence(lem("benchmark", "--kernel", name), message)


def test_arms_that_cannot_be(lem: Lem, place: Place) -> None:
    kernel = f"json={place.kernel}"
    assert_sentence(lem("benchmark", "--kernel", kernel, "--arm", "txt"), "unknown arm; this run has base, json.")
    assert_sentence(lem("benchmark", "--kernel", kernel, "--kernel", kernel), "two arms are named 'json'")
    assert_sentence(lem("benchmark", "--kernel", f"a b={place.kernel}"), "'a b' is not an arm name")


@pytest.mark.parametrize("named", ["nothing", "./nothing", "a/b/c"])
def test_a_missing_model(lem: Lem, place: Place, named: str) -> None:
    assert_sentence(lem("benchmark", "--model", named, "--output", "run"), f"{named}: no such model")
    assert lem("benchmark", "--output", "run").code == 0, "a typing error must not spoil the run's directory"


def test_a_model_without_template(lem: Lem, place: Place) -> None:
    make_model(place.folder / "plain", "llama", template=None)
    assert_sentence(lem("benchmark", "--model", "plain", "--dry-run"), "plain: the tokenizer has no chat template")
    assert_sentence(lem("doctor", "plain"), "no chat template")


def test_an_adapter_that_is_none(lem: Lem, place: Place) -> None:
    assert_sentence(lem("benchmark", "--adapter", "trained=nowhere"), "nowhere: no such adapter directory")
    (place.folder / "empty").mkdir()
    assert_sentence(lem("benchmark", "--adapter", "empty"), "empty: no adapter_config.json here")


def test_outputs_that_belong_to_others_are_refused_untouched(lem: Lem, place: Place) -> None:
    (place.folder / "thesis").mkdir()
    (place.folder / "thesis" / "chapter.txt").write_text("mine")
    (place.folder / "answers").write_text("mine")
    (place.folder / "ab.jsonl").write_text('{"mine": 1}\n')
    before = bytes_of(place.folder)
    assert_sentence(lem("benchmark", "--output", "thesis"), "thesis is not empty and holds no run.json")
    assert_sentence(lem("benchmark", "--output", "answers"), "answers is a file; give a directory for the run")
    assert_sentence(lem("benchmark", "--output", "ab.jsonl"), "ab.jsonl exists and no run of ours made it")
    assert bytes_of(place.folder) == before
    assert sorted(p.name for p in (place.folder / "thesis").iterdir()) == ["chapter.txt"]


def test_another_plan_for_the_same_run_is_refused_untouched(lem: Lem, place: Place) -> None:
    assert lem("benchmark", "--output", "run").code == 0
    before = bytes_of(place.folder)
    assert_sentence(
        lem("benchmark", "--output", "run", "--max-tokens", "5"), "run holds another run", "nothing was touched"
    )
    assert bytes_of(place.folder) == before


@pytest.mark.parametrize(
    "arguments",
    [("--repeats", "0"), ("--max-tokens", "0"), ("--temperature", "-1"), ("--top-p", "0"), ("--top-p", "1.5"),
     ("--inject", "nowhere"), ("--group-size", "0"), ("--seed", "x"), ("--no-such-option",)],
)  # fmt: skip
def test_option_values_out_of_range(lem: Lem, place: Place, arguments: tuple[str, ...]) -> None:
    assert_sentence(lem("benchmark", *arguments), arguments[0])


def test_debug_shows_where_a_sentence_came_from(place: Place) -> None:
    with pytest.raises(UserError, match="--limit"):
        main(["benchmark", "--limit", "0", "--debug"])


def test_a_folder_that_is_no_model(lem: Lem, place: Place) -> None:
    Path("emptyfolder").mkdir()
    assert_sentence(lem("doctor", "emptyfolder"), "holds no config.json, so it is not a model")
