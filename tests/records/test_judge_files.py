"""What a run directory says of its judges is read strictly: another file is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lem.errors import DataError
from lem.records.judge_files import judge_notes, read_audits, read_judge_manifests, read_pair_results, self_judged

MANIFEST = {"judge": "org/one", "model": "m", "kin": [{"arm": "base", "why": "weights", "kind": "weights"}]}


def put(run: Path, name: str, content: object) -> Path:
    file = run / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_a_run_without_judges_has_none(tmp_path: Path) -> None:
    assert (read_judge_manifests(tmp_path), read_pair_results(tmp_path), read_audits(tmp_path)) == ({}, [], {})


def test_manifests_and_win_rates_lie_side_by_side(tmp_path: Path) -> None:
    put(tmp_path, "judgements/one.json", MANIFEST)
    put(tmp_path, "judgements/one.pairs.json", [{"judge": "org/one"}])
    put(tmp_path, "judgements/two.json", {"judge": "two"})
    put(tmp_path, "judgements/two.pairs.json", [{"judge": "two"}, {"judge": "two", "n": 1}])
    put(tmp_path, "judgements/one.jsonl", "")
    manifests = read_judge_manifests(tmp_path)
    assert manifests == {"org/one": MANIFEST, "two": {"judge": "two"}}
    assert read_pair_results(tmp_path) == [{"judge": "org/one"}, {"judge": "two"}, {"judge": "two", "n": 1}]
    assert {judge: self_judged(manifest) for judge, manifest in manifests.items()} == {"org/one": ["base"], "two": []}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", "null", "{}", '{"judge": 3}', '{"judge": "a", "kin": 3}', '{"judge": "a", "kin": ["b"]}',
     '{"judge": "a", "kin": [{"arm": 3}]}', '{"judge": "a", "compared": 3}', '{"judge": "a", "compared": ["b"]}',
     '{"judge": "a", "compared": [{"treatment": "b", "tasks": []}]}',
     '{"judge": "a", "compared": [{"treatment": "b", "baseline": "c", "tasks": "d"}]}',
     '{"judge": "a", "rated": []}', '{"judge": "a", "rated": {"safety": "gsm8k"}}', "[" * 20_000, "\udcff",
     '{"judge": "a", "rated": {"safety": [["gsm8k"]]}}', '{"judge": "a", "rated": {"safety": {"gsm8k": "base"}}}',
     '{"judge": "a", "rated": {"safety": {"gsm8k": [1]}}}',
     '{"judge": "a", "compared": [{"treatment": "b", "baseline": "c", "tasks": [[]]}]}'],
)  # fmt: skip
def test_what_is_no_manifest_is_named(tmp_path: Path, content: str) -> None:
    file = put(tmp_path, "judgements/one.json", "")
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"one\.json: .*restore it from a copy or judge again"):
        read_judge_manifests(tmp_path)


@pytest.mark.parametrize("content", ["{", "{}", "[3]", "null"])
def test_what_is_no_list_of_win_rates_is_named(tmp_path: Path, content: str) -> None:
    put(tmp_path, "judgements/one.pairs.json", content)
    with pytest.raises(DataError, match=r"one\.pairs\.json"):
        read_pair_results(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"judge": "a"}', '{"judge": "a", "verdict": "fine"}', '{"judge": 1}'])
def test_what_is_no_audit_is_named(tmp_path: Path, content: str) -> None:
    put(tmp_path, "audits/one.json", content)
    with pytest.raises(DataError, match=r"one\.json"):
        read_audits(tmp_path)


@pytest.mark.parametrize("verdict", ["trustworthy", "not trustworthy", "not shown"])
def test_an_audit_has_one_of_three_verdicts(tmp_path: Path, verdict: str) -> None:
    put(tmp_path, "audits/one.json", {"judge": "one", "verdict": verdict})
    assert read_audits(tmp_path) == {"one": {"judge": "one", "verdict": verdict}}


def test_notes_are_said_of_kin_and_of_failed_audits_alone() -> None:
    judges = {"org/one": {**MANIFEST, "kin": [*MANIFEST["kin"], *MANIFEST["kin"]]}, "two": {"judge": "two"}}
    audits = {name: {"judge": name, "verdict": "not trustworthy"} for name in ("two", "gone")}
    assert judge_notes(judges, {}) == [
        "SELF-JUDGED: the judge 'org/one' is of one lineage with 'base'; its ratings rank nothing."
    ]
    assert judge_notes(judges, audits)[1:] == ["the audit found the judge 'two' not trustworthy."]
    assert judge_notes({}, audits) == []
