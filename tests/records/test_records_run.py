"""Run directories and the record model: keys, fingerprints, and what may be opened as a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lem.errors import DataError, UserError
from lem.records import Key, Record, Score, fingerprint, lock_directory, open_run, read_run, text_sha

RECORD = Record(
    run_id="r", arm="base", probe_id="P01", repeat=0, response="An answer.", fingerprint="f" * 16,
    messages=({"role": "user", "content": "Why?"},), n_tokens=3, finish_reason="stop", ts="2026-01-01",
)  # fmt: skip


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def make_run(path: Path, *records: Record) -> None:
    with open_run(path, "benchmark", "r") as run:
        for record in records:
            run.append(record)
        run.save("done")


def test_records_come_back_as_they_were_and_the_last_line_of_a_key_wins(tmp_path: Path) -> None:
    failed = replace(RECORD, response=None, error="RuntimeError: out of memory", finish_reason=None)
    other = replace(RECORD, arm="json", repeat=1)
    make_run(tmp_path / "run", failed, other, RECORD)
    info, records = read_run(tmp_path / "run")
    assert {record.key: record for record in records} == {RECORD.key: RECORD, other.key: other}
    assert (info.status, info.kind, info.run_id) == ("done", "benchmark", "r")
    assert len((tmp_path / "run" / "records.jsonl").read_text().splitlines()) == 3
    with open_run(tmp_path / "run", "benchmark", "r") as run:
        assert run.records[Key("base", "P01", 0)] == RECORD


def test_a_line_holds_exactly_the_fields_of_the_contract() -> None:
    assert list(RECORD.to_row())[:6] == ["schema", "run_id", "arm", "probe_id", "repeat", "turn"]
    assert set(RECORD.to_row()) == {
        "schema", "run_id", "arm", "probe_id", "repeat", "turn", "fingerprint", "group", "messages", "prompt_sha",
        "response", "thinking", "finish_reason", "n_prompt_tokens", "n_tokens", "seed", "error", "ts",
    }  # fmt: skip
    assert list(RECORD.to_row())[-1] == "ts"


def test_reading_a_run_leaves_a_torn_line_where_it_is(tmp_path: Path) -> None:
    make_run(tmp_path / "run", RECORD, replace(RECORD, repeat=1))
    file = tmp_path / "run" / "records.jsonl"
    torn = file.read_bytes()[:-5]
    file.write_bytes(torn)
    assert [record.repeat for record in read_run(tmp_path / "run")[1]] == [0]
    assert file.read_bytes() == torn


@pytest.mark.parametrize(
    ("row", "place"),
    [({"arm": "base"}, "line 2"), ({**RECORD.to_row(), "colour": "red"}, r"line 2.*colour")],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, row: dict[str, object], place: str) -> None:
    make_run(tmp_path / "run", RECORD)
    with (tmp_path / "run" / "records.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=place):
        read_run(tmp_path / "run")


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("mine")
    with (
        pytest.raises(UserError, match="is a file; give a directory"),
        open_run(tmp_path / "answers", "benchmark", "r"),
    ):
        pytest.fail("opened a file as a run")
    assert (tmp_path / "answers").read_text() == "mine"


def test_a_directory_of_other_things_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and holds no run"), open_run(tmp_path / "run", "benchmark", "r"):
        pytest.fail("opened somebody's folder as a run")
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_records_without_their_manifest_are_not_taken_for_a_fresh_run(tmp_path: Path) -> None:
    make_run(tmp_path / "run", RECORD)
    (tmp_path / "run" / "run.json").unlink()
    before = bytes_below(tmp_path)
    with pytest.raises(UserError, match="holds no run"), open_run(tmp_path / "run", "benchmark", "r"):
        pytest.fail("opened records that belong to no manifest")
    assert bytes_below(tmp_path) == before


def test_a_run_that_ended_before_its_manifest_was_written_can_be_started_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_run(tmp_path / "run", "benchmark", "r"):
        raise RuntimeError("the model did not load")
    (tmp_path / "run" / ".run.json.x1y2.tmp").write_text('{"half')  # a kill during the first atomic write
    make_run(tmp_path / "run", RECORD)
    assert len(read_run(tmp_path / "run")[1]) == 1


def test_a_run_of_another_kind_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", RECORD)
    with (
        pytest.raises(UserError, match="holds a 'benchmark' run, not a 'redteam' run"),
        open_run(tmp_path / "run", "redteam", "r"),
    ):
        pytest.fail("mixed two kinds")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"run_id": "r"', "not a readable manifest"),
        ('{"run_id": "r", "kind": "benchmark", "flavour": 1}', "not a readable manifest"),
        ("[1]", "not a readable manifest"),
        ('{"run_id": "r", "kind": "benchmark", "schema": 99}', "schema 99 is newer"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_so(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_run(tmp_path)


def test_a_missing_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no run\.json"):
        read_run(tmp_path / "nowhere")


def test_a_run_in_use_is_refused_to_a_second_writer(tmp_path: Path) -> None:
    make_run(tmp_path / "run", RECORD)
    before = bytes_below(tmp_path)
    with (
        lock_directory(tmp_path / "run"),
        pytest.raises(UserError, match="in use by another process"),
        open_run(tmp_path / "run", "benchmark", "r"),
    ):
        pytest.fail("two writers")
    assert bytes_below(tmp_path) == before


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_texts_have_one_hash_each(left: str, right: str) -> None:
    assert (text_sha(left) == text_sha(right)) == (left == right)


def test_the_fingerprint_sees_values_and_not_their_order() -> None:
    settings = {"max_tokens": 8, "temperature": 0.7}
    identity = {"model": "m", "adapter": None}
    same = fingerprint("p", dict(reversed(settings.items())), identity)
    assert same == fingerprint("p", settings, identity)
    changed = [
        fingerprint("q", settings, identity),
        fingerprint("p", {**settings, "max_tokens": 9}, identity),
        fingerprint("p", settings, {**identity, "adapter": "a"}),
    ]
    assert len({same, *changed}) == 4


def test_an_undefined_score_is_written_as_null() -> None:
    score = Score("base", "P01", 0, "v2", "2", float("nan"), {}, "empty")
    assert score.to_row()["value"] is None
    assert json.dumps(score.to_row(), allow_nan=False)
