"""Seed prompts: three kinds of file, ids that stay, and no evaluation probe among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lem.data import Probe
from lem.data.contamination import refuse_probes
from lem.errors import DataError, UserError
from lem.training.distil_prompts import read_prompts, refuse_evaluation_prompts

PROBE = "A ferry company wants to reserve its last lifeboat seats for passengers who paid for early boarding."
SHORT = "Is silence consent?"


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def chat(*turns: str, system: str | None = None) -> dict[str, Any]:
    opening = [{"role": "system", "content": system}] if system else []
    roles = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"messages": opening + roles}


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    folder = tmp_path / "seeds"
    folder.mkdir()
    probes = [{"id": "P07", "domain": "care", "prompt": PROBE}, {"id": "P08", "domain": "care", "prompt": SHORT}]
    (folder / "probes.json").write_text(json.dumps(probes))
    return folder


def test_chat_examples_give_their_first_user_turn_and_an_id_of_file_and_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl", chat("One?", "Aye.", system="Be brief."), "", chat("Two?", "No.", "Why?", "So.")
    )
    assert read_prompts(path) == [Probe("train-0001", "", "One?"), Probe("train-0003", "", "Two?")]
    assert read_prompts(path, 1) == [Probe("train-0001", "", "One?")]


def test_prompt_lines_keep_their_id_and_domain(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"id": "s1", "prompt": "One?"}, {"id": "s2", "prompt": "Two?", "domain": "care"})
    assert read_prompts(path) == [Probe("s1", "", "One?"), Probe("s2", "care", "Two?")]


def test_an_array_of_probe_shape_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"id": "s1", "domain": "care", "prompt": "One?"}]))
    assert read_prompts(path) == [Probe("s1", "care", "One?")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{oops"], r"p\.jsonl line 1: neither a prompt nor a chat example \(not valid JSON"),
        ([{"id": "a", "prompt": "One?"}, {"id": "b"}], r"line 2: neither a prompt nor a chat example \(field"),
        ([chat("One?")], r"line 1: neither a prompt nor a chat example \(roles are user"),
        ([{"id": "a", "prompt": " "}], r"line 1: field 'prompt' is missing, empty or no string"),
        ([{"prompt": "One?"}], r"line 1: field 'id' is missing, empty or no string"),
        ([{"id": "a", "prompt": "One?", "domain": 3}], r"line 1: field 'domain' is no string"),
        ([{"id": "a", "prompt": "One?"}, {"id": "a", "prompt": "Two?"}], r"line 2: id 'a' was already used by line 1"),
        ([chat("One two?", "A."), chat("one, TWO", "B.")], r"line 2: the same prompt was already used by line 1"),
        ([], r"p\.jsonl: no prompt in the file"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_prompts(write(tmp_path / "p.jsonl", *rows))


def test_a_missing_file_and_a_limit_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such prompt file; give --prompts FILE"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"--limit must be at least 1 \(got 0\)"):
        read_prompts(tmp_path / "none.jsonl", 0)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Probe("P07", "", "Something else entirely."), "prompt P07: id 'P07' is that of evaluation probe P07 of"),
        (Probe("s", "", "Another text.", source="P08"), "prompt s, source: id .P08. is that of evaluation probe P08"),
        (Probe("s", "", PROBE), r"prompt s shares 17 words in a row with evaluation probe P07"),
        (Probe("s", "", "We reserve its last LIFEBOAT seats for passengers who"), "prompt s shares 8 words in a row"),
        (Probe("s", "", "is silence CONSENT"), r"prompt s is near to evaluation probe P08 .*\(3-gram Jaccard 1\.00\)"),
        (Probe("s", "", "Is silence consent, Ann?"), r"prompt s is near to evaluation probe P08 .*Jaccard 0\.50\)"),
    ],
)  # fmt: skip
def test_evaluation_probes_are_refused(seeds: Path, prompt: Probe, message: str) -> None:
    clean = Probe("s0", "", "Who would reserve its last lifeboat seats for passengers, and which bridge would close?")
    refuse_evaluation_prompts([clean], [seeds])
    with pytest.raises(DataError, match=message):
        refuse_evaluation_prompts([clean, prompt], [seeds])


def test_the_first_place_is_named_whatever_its_kind_of_contact(seeds: Path) -> None:
    near, words = ("line 2 near", "Is silence consent"), ("line 3 words", PROBE)
    for texts, first in (([near, words], "line 2 near is near"), ([words, near], "line 3 words shares")):
        with pytest.raises(DataError, match=f"^{first} .*; probes are never trained on: remove it or write another"):
            refuse_probes([("line 1", "A clean text."), *texts], [seeds])


def test_nothing_to_compare_with_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no probe file here"):
        refuse_evaluation_prompts([Probe("s", "", "One?")], [tmp_path / "empty"])
