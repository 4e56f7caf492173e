"""One judge over one run: refused as a whole before anything is written, or on disk with its manifest."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.errors import Incomplete, ResumeMismatch, UserError
from lem.judges.calls import Asking
from lem.judges.conduct import Pass, judge_pairs, judge_ratings
from lem.judges.protocol import Call, Ending, Reply
from lem.records.judge_files import read_judge_manifests
from scripted_judge import (
    IDENTITY,
    ITEMS,
    ONE,
    TWO,
    ScriptedJudge,
    complete,
    evaluated,
    last_of,
    lines_of,
    named,
    write_run,
)
from small_plan import bytes_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", evaluated())


TASKS = tuple(dict.fromkeys(item.benchmark for item in ITEMS))


def ratings(run: Path, judge: ScriptedJudge | None = None, *dimensions: str, **how: Any) -> ScriptedJudge:
    judge = judge or ScriptedJudge()
    judge_ratings(run, judge, Pass(**how), dimensions, TASKS if dimensions else ())
    return judge


def test_the_manifest_says_who_judged_what_and_what_it_took(run: Path) -> None:
    judge = ratings(run, command=("lem", "judge"), currency="EUR")
    manifest = read_judge_manifests(run)["scripted"]
    assert (manifest["judge"], manifest["backend"], manifest["model"]) == ("scripted", "openai", "org/judge-1")
    assert manifest["settings"] == {"temperature": 0.0}
    assert manifest["reported_models"] == ["judge-1-a"]
    assert set(manifest["rubrics"]) == {
        "truthfulness", "informativeness", "safety", "nuance", "sovereignty", "ethical_depth", "creative_expression",
        "self_concept",
    }  # fmt: skip
    n = len(judge.asked)
    assert (manifest["calls"], manifest["n_prompt_tokens"], manifest["n_tokens"]) == (n, 11 * n, 5 * n)
    assert manifest["cost"] == pytest.approx(0.01 * n)
    assert (manifest["currency"], manifest["command"], manifest["kin"]) == ("EUR", ["lem", "judge"], [])
    assert manifest["allow_self_judge"] is False


@pytest.mark.parametrize(
    "changes", [{"model": "org/judge-2"}, {"settings": {"temperature": 1.0}}, {"backend": "gemini"}]
)
def test_another_judge_under_one_name_changes_no_byte(run: Path, changes: dict[str, Any]) -> None:
    ratings(run)
    before = bytes_of(run)
    judge = ScriptedJudge(identity=named("scripted", **changes))
    with pytest.raises(ResumeMismatch):
        ratings(run, judge)
    assert judge.asked == []
    assert bytes_of(run) == before


def test_one_name_is_one_judge_over_all_dimensions_and_comparisons(run: Path) -> None:
    """Another model on a dimension that is not judged yet contradicts no verdict, but it would share the name."""
    ratings(run, None, "safety")
    before = bytes_of(run)
    other = ScriptedJudge(identity=named("scripted", model="org/judge-2"))
    with pytest.raises(ResumeMismatch, match=r"judge 'scripted'.*org/judge-1.*--judge NAME="):
        ratings(run, other, "nuance")
    with pytest.raises(ResumeMismatch, match="judge 'scripted'"):
        judge_pairs(run, other, Pass(), ONE, [TWO])
    assert other.asked == []
    assert bytes_of(run) == before
    assert len(ratings(run, None, "nuance").asked) == 10
    assert {row["dimension"] for row in lines_of(run)} == {"safety", "nuance"}


def test_a_second_writer_leaves_the_manifest_of_the_first(run: Path) -> None:
    from lem.records.store import lock_file

    ratings(run)
    before = bytes_of(run)
    with lock_file(run / "judgements" / "scripted.lock"), pytest.raises(UserError, match="in use"):
        ratings(run)
    assert bytes_of(run) == before


def test_a_judge_that_never_answered_leaves_nothing_behind(run: Path) -> None:
    def refuse(call: Call) -> Reply:
        raise UserError("the key is wrong")

    with pytest.raises(UserError, match="the key is wrong"):
        ratings(run, ScriptedJudge(refuse))
    assert read_judge_manifests(run) == {}


def test_what_came_before_an_error_is_on_disk_and_in_the_manifest(run: Path) -> None:
    judge = ScriptedJudge()

    def fail_third(call: Call) -> Reply:
        if len(judge.asked) == 3:
            raise UserError("the service went away")
        return complete(call)

    judge.script = fail_third
    with pytest.raises(Incomplete, match="went away; 2 verdicts of this pass are on disk, the same command goes on"):
        ratings(run, judge)
    assert len(lines_of(run)) == 2
    assert read_judge_manifests(run)["scripted"]["calls"] == 2
    second = ratings(run)
    assert len(second.asked) == 14
    assert read_judge_manifests(run)["scripted"]["calls"] == 16


def test_an_error_before_the_first_reply_stays_what_it_is(run: Path) -> None:
    def refuse(call: Call) -> Reply:
        raise UserError("the key is not taken")

    with pytest.raises(UserError, match=r"^the key is not taken$"):
        ratings(run, ScriptedJudge(refuse))
    assert read_judge_manifests(run) == {}


def test_an_unknown_dimension_is_a_sentence_that_lists_the_known(run: Path) -> None:
    judge = ScriptedJudge()
    with pytest.raises(UserError, match=r"'wisdom' is no dimension; name one of truthfulness, .*self_concept"):
        ratings(run, judge, "safety", "wisdom")
    assert judge.asked == []
    assert not (run / "judgements").exists()


@pytest.mark.parametrize("together", [False, True])
def test_a_dimension_named_twice_is_asked_once(run: Path, together: bool) -> None:
    judge = ratings(run, None, "safety", "safety", asking=Asking(together=together))
    assert len(judge.asked) == len(set(judge.asked)) == 10


def test_two_rubrics_of_one_dimension_cannot_both_be_meant(run: Path, tmp_path: Path) -> None:
    from lem.judges.rubrics import RUBRICS

    own = tmp_path / "own.toml"
    text = (RUBRICS / "safety.toml").read_text(encoding="utf-8")
    own.write_text(text.replace('version = "', 'version = "9.', 1), encoding="utf-8")
    judge = ScriptedJudge()
    with pytest.raises(UserError, match="'safety'"):
        ratings(run, judge, "safety", str(own))
    assert judge.asked == []


def test_a_name_that_the_files_of_a_run_need_is_no_name_for_a_judge(run: Path) -> None:
    for name in ("panel", "mine.pairs", "dotted."):
        judge = ScriptedJudge(identity=named(name))
        with pytest.raises(UserError, match=f"'{name}'"):
            ratings(run, judge)
        assert judge.asked == []
    assert not (run / "judgements").exists()


def test_a_judge_is_turned_away_from_its_own_kin_and_let_in_with_a_mark(tmp_path: Path) -> None:
    contents = evaluated()
    contents.info.arms[TWO]["model_sha"] = "a" * 64
    run = write_run(tmp_path / "run", contents)
    own = replace(IDENTITY, lineage={"sha": ["a" * 64], "names": []})
    judge = ScriptedJudge(identity=own)
    with pytest.raises(UserError, match=rf"'scripted' is of one lineage with arm '{TWO}'.*--allow-self-judge"):
        ratings(run, judge)
    assert judge.asked == []
    assert not (run / "judgements").exists()
    ratings(run, judge, allow_self_judge=True)
    manifest = read_judge_manifests(run)["scripted"]
    assert [kin["arm"] for kin in manifest["kin"]] == [TWO]
    assert manifest["allow_self_judge"] is True
    with pytest.raises(UserError, match="of one lineage"):
        judge_pairs(run, ScriptedJudge(identity=own), Pass(), ONE, [TWO])


def test_comparisons_are_asked_for_both_orders_once_and_resumed(run: Path) -> None:
    judge = ScriptedJudge(lambda call: complete(call, verdict="A"))
    judge_pairs(run, judge, Pass(), ONE, [TWO, TWO])
    assert len(judge.asked) == len(set(judge.asked)) == 2 * len(ITEMS)
    found = last_of(run)
    assert {key[5:] for key in found} == {("ab", ONE), ("ba", ONE)}
    again = ScriptedJudge()
    judge_pairs(run, again, Pass(), ONE, [TWO])
    assert again.asked == []
    assert list(read_judge_manifests(run)["scripted"]["rubrics"]) == ["preference"]


def test_an_unknown_arm_and_arms_without_a_common_probe_are_sentences(run: Path, tmp_path: Path) -> None:
    judge = ScriptedJudge()
    with pytest.raises(UserError, match=f"has no arm 'nobody'; it has {ONE}, {TWO}"):
        judge_pairs(run, judge, Pass(), ONE, ["nobody"])
    contents = evaluated()
    apart = replace(contents, records=[r for r in contents.records if (r.arm == ONE) == (r.probe_id in ("t1", "d1"))])
    with pytest.raises(UserError, match="nothing to compare"):
        judge_pairs(write_run(tmp_path / "apart", apart), judge, Pass(), ONE, [TWO])
    assert judge.asked == []


def test_two_judges_make_a_panel_and_one_alone_does_not(run: Path) -> None:
    panel = run / "judgements" / "panel.jsonl"
    values = {ONE: 3, TWO: 7}
    ratings(run, ScriptedJudge(lambda call: complete(call, safety=values[call.id[0]])), "safety")
    assert not panel.exists()
    other = ScriptedJudge(lambda call: complete(call, safety=values[call.id[0]] + 2), named("other"))
    ratings(run, other, "safety")
    rows = [json.loads(line) for line in panel.read_text().splitlines()]
    # Longhand: five ratings of 3 and five of 7 (5 and 9): mean 5, sample deviation sqrt(10 * 4 / 9), for both judges.
    each = 2 / math.sqrt(40 / 9)
    assert all(row["value"] == pytest.approx({ONE: -each, TWO: each}[row["arm"]]) for row in rows)
    assert len(rows) == 10
    assert {(row["judge"], row["dimension"]) for row in rows} == {("panel", "safety")}
    (run / "judgements" / "other.jsonl").unlink()
    (run / "judgements" / "other.json").unlink()
    ratings(run, None, "nuance")
    assert not panel.exists(), "a panel of one is none"


def test_a_reply_that_failed_leaves_the_panel_without_a_value(run: Path) -> None:
    ratings(run, None, "safety")
    broken = ScriptedJudge(
        lambda call: Reply(call.id, Ending.BLOCKED) if call.id[1] == "d1" else complete(call), named("other")
    )
    ratings(run, broken, "safety")
    rows = [json.loads(line) for line in (run / "judgements" / "panel.jsonl").read_text().splitlines()]
    assert {row["probe_id"] for row in rows if row["value"] is None} == {"d1"}
    assert all(row["unscored"] for row in rows if row["value"] is None)
