"""Rows of rank files end in records.jsonl, once each, whatever was killed when; nothing else changes there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.errors import DataError, LemError, UserError
from lem.records import JsonlStore, Key, Record, open_run
from lem.records.rank_files import (
    merge_rank_files,
    rank_file,
    rank_files,
    read_all_records,
    read_rank_files,
    read_records,
)
from lem.records.store import lock_file


def record(probe: int, response: str | None = "Yes.", **fields: Any) -> Record:
    base = Record(run_id="r", arm="base", probe_id=f"P{probe}", repeat=0, response=response, fingerprint="f")
    return replace(base, **fields)


FAILED = record(2, None, error="out of memory")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with P1 and a failed P2."""
    with open_run(tmp_path / "run", "benchmark", "r") as opened:
        opened.append(record(1))
        opened.append(FAILED)
        opened.save("running")
    return tmp_path / "run"


def write_rank(run: Path, rank: int, *records: Record) -> Path:
    file = rank_file(run, rank)
    with JsonlStore(file) as store:
        for one in records:
            store.append(one.to_row())
    return file


def merge(run: Path) -> list[Record]:
    with open_run(run, "benchmark", "r") as opened:
        added = read_rank_files(opened)
        merge_rank_files(opened, added)
        assert list(opened.records.values()) == list(read_all_records(run).values())
        return added


def test_rows_are_added_by_key_and_the_rank_files_go(run: Path) -> None:
    before = (run / "records.jsonl").read_bytes()
    write_rank(run, 10, record(5))
    write_rank(run, 2, record(1), record(2, "Better."), record(3, None, error="lost"))
    assert [file.name for file in rank_files(run)] == ["records.rank2.jsonl", "records.rank10.jsonl"]
    expected = {1: record(1), 2: record(2, "Better."), 3: record(3, None, error="lost"), 5: record(5)}
    whole = {one.key: one for one in expected.values()}
    assert read_all_records(run) == whole, "they are read before they are merged"
    assert merge(run) == [expected[2], expected[3], expected[5]]
    assert rank_files(run) == []
    assert (run / "records.jsonl").read_bytes().startswith(before)
    assert read_all_records(run) == whole
    assert len(list(read_records(run / "records.jsonl"))) == 5, "the failed row, and the one that follows it"


def test_a_merge_that_was_killed_half_way_is_finished_without_doubles(run: Path, tmp_path: Path) -> None:
    write_rank(run, 1, record(3), FAILED, record(4), record(5, None, error="lost"))
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    merge(run)
    lines = (run / "records.jsonl").read_bytes().splitlines(keepends=True)
    for n_done in range(2, len(lines) + 1):
        (copy / "records.jsonl").write_bytes(b"".join(lines[:n_done]))
        shutil.copy(rank_file(copy, 1), tmp_path / "kept")
        merge(copy)
        assert (copy / "records.jsonl").read_bytes() == b"".join(lines)
        shutil.copy(tmp_path / "kept", rank_file(copy, 1))


def test_a_good_answer_is_not_replaced_by_an_error(run: Path) -> None:
    write_rank(run, 1, record(1, None, error="lost"))
    assert merge(run) == []
    assert read_all_records(run)[Key("base", "P1", 0)] == record(1)


def test_a_torn_last_line_is_left_out_and_said(run: Path) -> None:
    file = write_rank(run, 1, record(3))
    file.write_bytes(file.read_bytes() + b'{"schema": 1, "run_id"')
    assert set(read_all_records(run)) == {Key("base", f"P{n}", 0) for n in (1, 2, 3)}
    with pytest.warns(UserWarning, match=r"records\.rank1\.jsonl: left out a torn last line"):
        assert merge(run) == [record(3)]


@pytest.mark.parametrize("other", [record(1, "No."), record(1, fingerprint="g")])
def test_another_answer_to_a_stored_cell_is_an_error_and_nothing_changes(run: Path, other: Record) -> None:
    file = write_rank(run, 1, record(3), other)
    before = (run / "records.jsonl").read_bytes(), file.read_bytes()
    with pytest.raises(LemError, match=r"rank1\.jsonl: arm 'base', probe P1, repeat 0 differs .*; move that file"):
        merge(run)
    assert ((run / "records.jsonl").read_bytes(), file.read_bytes()) == before


def test_a_file_that_a_living_rank_writes_is_not_taken(run: Path) -> None:
    file = write_rank(run, 1, record(3))
    with lock_file(file), pytest.raises(UserError, match="in use by another process"):
        merge(run)
    assert merge(run) == [record(3)]


@pytest.mark.parametrize(
    ("line", "said"), [('{"x": 1}\n', "line 2: not a record of this schema"), ("x\n{}\n", "line 2")]
)
def test_a_damaged_line_is_named(run: Path, line: str, said: str) -> None:
    file = write_rank(run, 1, record(3))
    file.write_text(file.read_text() + line)
    with pytest.raises(DataError, match=rf"records\.rank1\.jsonl {said}"):
        merge(run)


def test_other_files_are_no_rank_files(run: Path) -> None:
    for name in ("records.rank.jsonl", "records.rankx.jsonl", "records.rank1.jsonl.bak"):
        (run / name).write_text("mine")
    assert rank_files(run) == []


def test_a_message_that_records_share_is_held_once_and_is_the_same(run: Path) -> None:
    kernel = {"role": "system", "content": "Hold to consent."}
    asked = [(dict(kernel), {"role": "user", "content": f"{number}?"}) for number in range(3)]
    write_rank(run, 1, *(record(number, messages=messages) for number, messages in enumerate(asked)))
    found = list(read_records(rank_file(run, 1)))
    assert [one.messages for one in found] == asked
    assert len({id(one.messages[0]) for one in found}) == 1
