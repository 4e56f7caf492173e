"""`lem rephrase` as a command: the file it writes, what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command_line import Place
from command_line import Result as Done

from lem.cli.rephrase import rephrase
from lem.errors import UserError
from small_plan import bytes_of


def run(*arguments: object) -> Result:
    return CliRunner().invoke(rephrase, [str(argument) for argument in arguments])


def entries(path: Path) -> list[dict[str, str]]:
    content: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_it_writes_a_probe_file_for_the_probes_of_the_config(place: Place) -> None:
    result = run("--output", "runs/rephrased.json")
    assert result.exit_code == 0, result.output
    assert "5 probes x 3 kinds = 15 variants: runs/rephrased.json" in result.output
    assert "evaluation only" in result.output
    written = entries(place.folder / "runs" / "rephrased.json")
    prompts = {entry["id"]: entry["prompt"] for entry in entries(place.probes)}
    assert [e["id"] for e in written[:4]] == ["P00~perspective", "P00~urgency", "P00~culture", "P01~perspective"]
    assert all(prompts[entry["source"]] in entry["prompt"] for entry in written)
    assert len(written) == 15


def test_options_choose_kinds_probes_and_seed(place: Place) -> None:
    options = ("--prompts", place.probes, "--kinds", "culture,urgency", "--limit", "2", "--json")
    reports = [json.loads(run(*options, "--seed", n, "--output", f"{n}-{t}.json").stdout) for n in (1, 2) for t in "ab"]
    assert reports[0] == {
        "output": "1-a.json", "probe_file": str(place.probes), "n_probes": 2, "kinds": ["urgency", "culture"],
        "n_variants": 4, "seed": 1, "use": "evaluation only",
    }  # fmt: skip
    texts = [(place.folder / report["output"]).read_bytes() for report in reports]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    assert [e["id"] for e in entries(place.folder / "1-a.json")] == [
        "P00~urgency", "P00~culture", "P01~urgency", "P01~culture",
    ]  # fmt: skip


def test_a_run_over_variants_knows_their_sources_and_resumes(place: Place, lem: Callable[..., Done]) -> None:
    assert run("--output", "new.json", "--limit", "2").exit_code == 0
    benchmark = ("benchmark", "--prompts", "new.json", "--arm", "base", "--output", "run", "--json")
    short = lem(*benchmark, "--limit", "4")
    assert short.code == 0, short
    assert json.loads(lem(*benchmark).out)["answered"] == 6
    probes = json.loads((place.folder / "run" / "run.json").read_text())["probes"]
    assert [(p["id"], p["source"]) for p in probes[2:4]] == [("P00~culture", "P00"), ("P01~perspective", "P01")]


def test_the_manifest_of_plain_probes_names_no_source(place: Place, lem: Callable[..., Done]) -> None:
    assert lem("benchmark", "--arm", "base", "--limit", "2", "--output", "run").code == 0
    assert json.loads((place.folder / "run" / "run.json").read_text())["probes"] == entries(place.probes)[:2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no output named; give --output"),
        (("--output", "probes.json"), "exists and was not touched"),
        (("--output", "training/new.json"), "lies inside the training folder"),
        (("--output", "new.jsonl"), "ends in .json"),
        (("--output", "new.json", "--kinds", "tone"), "'tone' is no kind of rephrasing"),
        (("--output", "new.json", "--limit", "0"), "--limit must be at least 1"),
        (("--output", "new.json", "--prompts", "absent.json"), "no such probe file"),
        (("--output", "new.json", "--prompts", "broken.json"), "broken.json line 2: not valid JSON"),
        (("--output", "new.json", "--prompts", "latin.json"), "latin.json: not UTF-8"),
        (("--output", "new.json", "--prompts", "half.json"), "half.json entry 1 (P1): field 'prompt' is missing"),
        (("--output", "new.json", "--prompts", "again.json"), "P1~urgency is already a rephrasing of P1"),
        (("--output", "probes.json/new.json"), "could not write ("),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(
    place: Place, arguments: tuple[str, ...], message: str
) -> None:
    (place.folder / "broken.json").write_text('[{"id":\n]')
    (place.folder / "latin.json").write_bytes(b'["\xe9"]')
    (place.folder / "half.json").write_text('[{"id": "P1", "domain": "work"}]')
    again = {"id": "P1~urgency", "domain": "work", "prompt": "Argue.", "source": "P1"}
    (place.folder / "again.json").write_text(json.dumps([again]))
    before = bytes_of(place.folder)
    result = run(*arguments)
    assert isinstance(result.exception, UserError), result.exception
    assert result.exception.exit_code == 2
    text = str(result.exception)
    assert message in text
    assert text.endswith(".")
    assert "\n" not in text
    assert bytes_of(place.folder) == before
