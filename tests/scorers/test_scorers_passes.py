"""Scoring passes: what gets a row, what is unscored, what is an error, and that files and processes agree."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lem.errors import DataError, LemError, UserError
from lem.records import Record, open_run, text_sha
from lem.scorers import passes, v2
from lem.scorers.passes import score_records, score_run

ANSWER = "However it turns out, I hope that they ask the community first."


def record(probe: str, response: str | None = ANSWER, **fields: object) -> Record:
    base = Record(run_id="r", arm="base", probe_id=probe, repeat=0, response=response, finish_reason="stop")
    return replace(base, **fields)  # type: ignore[arg-type]


def test_scores_follow_the_records_and_name_their_text() -> None:
    first, second = score_records([record("P00"), record("P01", "ok", repeat=2)], "v2")
    assert first.key == ("base", "P00", 0)
    assert (first.scorer, first.version, first.unscored) == ("v2", v2.VERSION, None)
    assert first.value == v2.score(ANSWER)["lek_score"]
    assert first.signals["nuance"] == 1
    assert first.record_sha == text_sha(ANSWER)
    assert second.key == ("base", "P01", 2)
    assert second.value == -19.0


def test_a_failed_record_has_no_score() -> None:
    assert score_records([record("P00", None, error="out of memory")], "v2") == []


def test_a_record_without_response_and_error_is_a_bug() -> None:
    with pytest.raises(ValueError, match="neither a response nor an error"):
        score_records([record("P00", None)], "v2")


def test_cut_off_while_thinking_is_unscored_but_an_empty_answer_is_not() -> None:
    cut = record("P00", "", thinking="I wonder", finish_reason="length")
    silent = record("P01", "", thinking="I wonder", finish_reason="stop")
    short = record("P02", "", finish_reason="length")
    unscored, *scored = score_records([cut, silent, short], "v2")
    assert (unscored.value, unscored.unscored, unscored.signals) == (None, "truncated while thinking", {})
    assert [score.value for score in scored] == [-19.0, -19.0]
    assert [score.unscored for score in scored] == [None, None]


def test_worker_processes_give_the_same_scores_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(passes, "POOL_FROM_S", float("inf"))
    records = [record(f"P{number}", f"{ANSWER} {'more ' * (number % 7)}") for number in range(450)]
    alone = score_records(records, "v3")
    monkeypatch.setattr(passes, "POOL_FROM_S", 0.0)
    pools: list[int] = []
    real = passes.ProcessPoolExecutor
    monkeypatch.setattr(passes, "ProcessPoolExecutor", lambda n, **options: pools.append(n) or real(n, **options))
    assert score_records(records, "v3") == alone
    assert pools == [2]


def die(text: str) -> None:
    os._exit(3)


def test_a_scoring_process_that_dies_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(passes, "POOL_FROM_S", 0.0)
    monkeypatch.setattr(passes, "partial", lambda function, scorer: die)  # what the workers are given to do
    with pytest.raises(LemError, match="a scoring process died"):
        score_records([record(f"P{number}") for number in range(150)], "v2")


def write_run(path: Path, records: list[Record]) -> None:
    with open_run(path, "benchmark", "r") as run:
        for one in records:
            run.append(one)
        run.save("done")


def test_score_run_replaces_the_files_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    german = "Die W\u00fcrde ist nicht verhandelbar, und das wissen wir."
    write_run(path, [record("P00"), record("P01", german), record("P02", None, error="x")])
    stale = path / "scores" / "v3.jsonl"
    stale.parent.mkdir()
    stale.write_text("stale\n")
    scored = score_run(path, ["v2", "v3", "v2"])
    assert list(scored) == ["v2", "v3"]
    rows = [json.loads(line) for line in stale.read_text("utf-8").splitlines()]
    assert rows == [score.to_row() for score in scored["v3"]]
    assert [row["unscored"] for row in rows] == [None, "language"]
    assert rows[1]["value"] is None
    assert sorted(entry.name for entry in stale.parent.iterdir()) == ["v2.jsonl", "v3.jsonl"]
    assert score_run(path, ["v2", "v3"]) == scored


def test_unknown_scorers_and_runs_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [record("P00")])
    with pytest.raises(UserError, match="unknown scorer 'v9'"):
        score_run(tmp_path / "run", ["v2", "v9"])
    assert not (tmp_path / "run" / "scores").exists()
    with pytest.raises(DataError, match=r"holds no run\.json"):
        score_run(tmp_path / "nowhere", ["v2"])
