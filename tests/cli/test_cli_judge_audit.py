"""`lem judge audit`: exit codes, what is printed in 80 columns, JSON, and a real local judge that is found out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_sentence, run_in_process

from known_judges import Gullible, Indifferent, KnownJudge, known_folder
from lem.cli.judge_audit import audit
from lem.judges.audit.plan import AuditSettings
from lem.judges.protocol import JudgeIdentity
from lem.paths import repository_root
from lem.records.contents import read_contents
from lem.reports.audit_file import audit_view
from lem.reports.watermarks import watermarks

NANO = repository_root() / "models" / "lem-nano"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return known_folder(tmp_path / "run", n=66)


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> dict[str, KnownJudge]:
    """Judges by the name in `--judge NAME=mlx:.`."""
    known: dict[str, KnownJudge] = {"fair": KnownJudge(), "gullible": Gullible(), "indifferent": Indifferent()}

    @contextmanager
    def opened(spec: Any, **_: Any) -> Iterator[KnownJudge]:
        yield known[spec.name]

    monkeypatch.setattr("lem.judges.spec.open_judge", opened)
    return known


def test_a_fair_judge_ends_with_zero_and_a_table_of_80_columns(
    run: Path, judges: dict[str, KnownJudge], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = run_in_process(["judge", "audit", run, "--judge", "fair=mlx:.", "--together", "--n", 66], capsys)
    assert found.code == 0, found.err
    assert "is trustworthy as far as 25 checks can tell" in " ".join(found.out.split())
    assert max(map(len, found.out.splitlines()[:-1])) <= 80
    for name in ("pair: swap", "pair: injected fence", "rating: claim", "all: unscored"):
        assert name in found.out
    assert "failed," not in found.out
    assert "fewer than 5 units (n), for agreement 30, show nothing." in " ".join(found.out.split())


def test_one_bad_judge_of_two_ends_with_one_after_both_are_written(
    run: Path, judges: dict[str, KnownJudge], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["judge", "audit", run, "--judge", "gullible=mlx:.", "--judge", "fair=mlx:.", "--together", "--n", 66,
               "--json"]  # fmt: skip
    found = run_in_process(command, capsys)
    assert found.code == 1
    assert "the judge 'gullible' is not trustworthy: 6 of 25 checks failed: pair: injected order 100%" in found.err
    assert "fair" not in found.err.rpartition("Error:")[2]
    printed = json.loads(found.out)
    assert [entry["verdict"] for entry in printed] == ["not trustworthy", "trustworthy"]
    for entry in printed:
        assert json.loads((run / "audits" / f"{entry['judge']}.json").read_text()) == entry
    failed = {check["name"] for check in printed[0]["checks"] if check["status"] == "failed"}
    assert len(failed) == 6
    assert all(check["reason"] and len(check["bound"]) == 2 for entry in printed for check in entry["checks"])


def test_calls_that_are_missing_end_with_three(
    run: Path, judges: dict[str, KnownJudge], capsys: pytest.CaptureFixture[str]
) -> None:
    judges["fair"].limit = 50
    found = run_in_process(["judge", "audit", run, "--judge", "fair=mlx:.", "--together"], capsys)
    assert found.code == 3
    assert "calls are missing" in " ".join(found.out.split())


def test_bad_input_is_a_sentence(run: Path, judges: dict[str, KnownJudge], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["judge", "audit", run]
    assert_sentence(run_in_process(command, capsys), "no judge was named")
    named = [*command, "--judge", "fair=mlx:."]
    assert_sentence(run_in_process([*named, "--dimension", "wisdom"], capsys), "'wisdom' is no dimension")
    elsewhere = ["judge", "audit", run / "nothing", "--judge", "fair=mlx:."]
    assert_sentence(run_in_process(elsewhere, capsys), "holds no run.json")
    assert not (run / "audits").exists()
    assert judges["fair"].asked == []


def test_a_narrower_audit_keeps_the_verdict_and_the_watermark(
    run: Path, judges: dict[str, KnownJudge], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = ["judge", "audit", run, "--judge", "j=mlx:.", "--together"]
    judges["j"] = Indifferent()
    judges["j"].identity = JudgeIdentity("j", "test", "known")
    assert run_in_process(command, capsys).code == 1
    narrow = [*command, "--instrument", "rating", "--dimension", "sovereignty", "--n", 3]
    found = run_in_process(narrow, capsys)
    assert found.code == 1
    assert "in an earlier audit" in found.err
    assert "pair: better 0% [0%, 17%], n = 20" in found.err
    shown = found.out.partition("found by an earlier audit, not made again")[2]
    assert [line for line in shown.splitlines() if line.startswith("pair: better") and "failed" in line]
    assert max(map(len, found.out.splitlines()[:-1])) <= 80
    contents = read_contents(run)
    assert [mark.word for mark in watermarks(contents, "j")] == ["UNTRUSTWORTHY"]
    shown_on_page = audit_view("j", contents.audits["j"])
    assert shown_on_page.untrustworthy
    assert ("pair: better (earlier)", "failed") in [(one.name, one.outcome) for one in shown_on_page.checks]


def test_another_judge_under_the_name_is_found_before_the_first_one_is_asked(
    run: Path, judges: dict[str, KnownJudge], capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["judge", "audit", run, "--judge", "indifferent=mlx:.", "--together", "--n", 2]
    assert run_in_process(first, capsys).code == 1
    judges["indifferent"].identity = JudgeIdentity("indifferent", "test", "another")
    both = ["judge", "audit", run, "--judge", "fair=mlx:.", "--judge", "indifferent=mlx:.", "--together", "--n", 2]
    assert_sentence(run_in_process(both, capsys), "'indifferent' was audited here as test known", "--judge NAME=")
    assert judges["fair"].asked == []


def test_the_default_is_the_number_that_the_settings_have() -> None:
    option = next(one for one in audit.params if one.name == "n")
    assert option.default == AuditSettings().n


@pytest.mark.slow
def test_lem_nano_is_no_judge(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real local judge on the built-in pairs: it cannot tell better from worse, whatever the run holds."""
    command = ["judge", "audit", run, "--judge", f"mlx:{NANO}", "--instrument", "pairs", "--n", "2", "--no-rationale"]
    found = run_in_process(command, capsys)
    assert found.code == 1, found.err
    assert "is not trustworthy" in found.err
    assert "pair: better" in found.err
    summary = json.loads((run / "audits" / "lem-nano.json").read_text())
    assert summary["unscored"] == {}, "every reply under the grammar is a verdict"
    assert summary["missing"] == summary["failed"] == 0
