"""One judge over one run: refused as a whole before anything is written, or on disk with its manifest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.errors import Incomplete, ResumeMismatch, UserError
from lem.judges.calls import Asking
from lem.judges.conduct import Pass, judge_pairs, judge_ratings
from lem.judges.protocol import Call, Ending, Reply
from lem.records.cells import Outcome
from lem.records.contents import read_contents
from lem.records.judge_files import read_judge_manifests
from lem.records.metrics import metrics_of
from lem.reports.watermarks import watermarks
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
TO_RATE = {task: [ONE, TWO] for task in TASKS}


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


def failing_at_the_third() -> ScriptedJudge:
    judge = ScriptedJudge()

    def script(call: Call) -> Reply:
        if len(judge.asked) == 3:
            raise UserError("the service went away")
        return complete(call)

    judge.script = script
    return judge


def test_what_came_before_an_error_is_on_disk_and_in_the_manifest(run: Path) -> None:
    judge = failing_at_the_third()
    with pytest.raises(Incomplete, match="went away; 2 verdicts of this pass are on disk, the same command goes on"):
        ratings(run, judge)
    assert len(lines_of(run)) == 2
    assert read_judge_manifests(run)["scripted"]["calls"] == 2
    second = ratings(run)
    assert len(second.asked) == 14
    assert read_judge_manifests(run)["scripted"]["calls"] == 16


def test_benchmarks_that_a_pass_did_not_reach_stay_in_the_counts(run: Path) -> None:
    judge = failing_at_the_third()
    with pytest.raises(Incomplete):
        ratings(run, judge, "safety")
    assert read_judge_manifests(run)["scripted"]["rated"] == {"safety": TO_RATE}
    (metric,) = (one for one in metrics_of(read_contents(run)) if one.name == "safety")
    assert len(metric.cells) == 2 * len(ITEMS)
    assert [cell.outcome for cell in metric.cells].count(Outcome.SCORED) == 2
    assert [cell.outcome for cell in metric.cells].count(Outcome.UNSCORED) == 8
    ratings(run, None, "nuance")
    assert read_judge_manifests(run)["scripted"]["rated"] == {"safety": TO_RATE, "nuance": TO_RATE}


def meant(run: Path) -> tuple[Any, Any]:
    manifest = read_judge_manifests(run)["scripted"]
    return manifest["rated"], manifest["compared"]


@pytest.mark.parametrize("script", ["raises", "ends"])
def test_a_pass_without_a_verdict_was_to_rate_and_compare_nothing(run: Path, script: str) -> None:
    class Silent(ScriptedJudge):
        def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Iterator[Reply]:
            if script == "raises":
                raise UserError("the key is wrong")
            yield from ()

    judge_ratings(run, ScriptedJudge(), Pass(), ["safety"], ["do_not_answer"])
    judge_pairs(run, ScriptedJudge(), Pass(), ONE, [TWO], ["do_not_answer"])
    before = meant(run)
    with pytest.raises(UserError) if script == "raises" else nullcontext():
        judge_ratings(run, Silent(), Pass(), ["safety"], ["gsm8k"])
    with pytest.raises(UserError) if script == "raises" else nullcontext():
        judge_pairs(run, Silent(), Pass(), ONE, [TWO])
    assert meant(run) == before
    (metric,) = (one for one in metrics_of(read_contents(run)) if one.name == "safety")
    assert [cell.outcome for cell in metric.cells] == [Outcome.SCORED] * 2


def test_what_a_pass_is_to_rate_is_on_disk_before_its_first_verdict(run: Path) -> None:
    """A kill after any verdict leaves the benchmarks that it did not reach known."""
    seen: list[Any] = []

    class Looking(ScriptedJudge):
        def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Iterator[Reply]:
            for reply in super().replies(calls, wanted):
                seen.append(meant(run)[0])
                yield reply

    ratings(run, Looking(), "safety")
    assert seen[:2] == [{}, {"safety": TO_RATE}]


def test_a_finished_pass_that_is_repeated_says_what_it_was_to_rate(run: Path) -> None:
    """As of a judge whose manifest is of before there was the field."""
    ratings(run, None, "safety")
    file = run / "judgements" / "scripted.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "rated"}))
    assert ratings(run, None, "safety").asked == []
    assert meant(run)[0] == {"safety": TO_RATE}


def test_benchmarks_listed_without_arms_are_for_all_arms_of_the_run(run: Path) -> None:
    judge_ratings(run, ScriptedJudge(), Pass(), ["safety"], ["do_not_answer"])
    file = run / "judgements" / "scripted.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rated": {"safety": ["do_not_answer", "gsm8k"]}}))
    (metric,) = (one for one in metrics_of(read_contents(run)) if one.name == "safety")
    assert sorted((cell.key.arm, cell.key.probe_id, str(cell.outcome)) for cell in metric.cells) == [
        (ONE, "d1", "scored"), (ONE, "g1", "unscored"), (TWO, "d1", "scored"), (TWO, "g1", "unscored")
    ]  # fmt: skip
    judge_ratings(run, ScriptedJudge(), Pass(), ["safety"], ["ethics"])
    assert meant(run)[0] == {"safety": {name: [ONE, TWO] for name in ("do_not_answer", "gsm8k", "ethics")}}


def test_a_panel_was_to_rate_what_any_of_its_judges_was(run: Path) -> None:
    def stopping(name: str) -> ScriptedJudge:
        judge = ScriptedJudge(identity=named(name))

        def fail_third(call: Call) -> Reply:
            if len(judge.asked) == 3:
                raise UserError("the service went away")
            return complete(call, safety=len(judge.asked))

        judge.script = fail_third
        return judge

    for name, tasks in (("one", ["do_not_answer", "ethics", "gsm8k"]), ("two", ["do_not_answer", "ethics"])):
        with pytest.raises(Incomplete):
            judge_ratings(run, stopping(name), Pass(), ["safety"], tasks)
    metrics = {one.source: one for one in metrics_of(read_contents(run))}
    probes = {source: {cell.key.probe_id for cell in metric.cells} for source, metric in metrics.items()}
    assert probes == {"one": {"d1", "e1", "g1"}, "two": {"d1", "e1"}, "panel": {"d1", "e1", "g1"}}
    assert [cell.outcome for cell in metrics["panel"].cells].count(Outcome.UNSCORED) == 6 - 2


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


def test_what_was_asked_again_stays_in_what_a_judge_cost(run: Path) -> None:
    """Every answer is made anew, so that every call is paid for twice, and the lines on disk say so."""
    ratings(run, None, "safety")
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    anew = [json.dumps({**row, "response": row["response"] + " Anew."}) + "\n" for row in rows]
    (run / "records.jsonl").write_text("".join(anew))
    assert len(ratings(run, None, "safety").asked) == 10
    manifest = read_judge_manifests(run)["scripted"]
    assert len(lines_of(run)) == manifest["calls"] == 20
    assert (manifest["n_prompt_tokens"], manifest["n_tokens"]) == (20 * 11, 20 * 5)
    assert manifest["cost"] == pytest.approx(sum(line["cost"] for line in lines_of(run))) == pytest.approx(0.2)
    assert manifest["cost_cut_off"] == 0.0


def test_what_a_killed_pass_cost_is_counted_by_the_next(run: Path) -> None:
    """A kill leaves the lines that came and the manifest of the start, which knows nothing of them."""
    manifest = run / "judgements" / "scripted.json"
    started: list[str] = []
    ratings(run, None, "safety", on_start=lambda total, missing: started.append(manifest.read_text()))
    lines = (run / "judgements" / "scripted.jsonl").read_text().splitlines(keepends=True)
    (run / "judgements" / "scripted.jsonl").write_text("".join(lines[:7]) + lines[7][:40])
    manifest.write_text(started[0])
    assert json.loads(started[0])["cost"] == 0
    with pytest.warns(UserWarning, match="torn last line"):
        assert len(ratings(run, None, "safety").asked) == 3
    assert read_judge_manifests(run)["scripted"]["cost"] == pytest.approx(10 * 0.01)


def test_the_first_of_two_lines_of_a_key_is_what_failed_and_costs_too(run: Path) -> None:
    broken = ScriptedJudge(lambda call: Reply(call.id, Ending.FAILED, error="timeout", cost=0.5))
    ratings(run, broken, "safety")
    assert read_judge_manifests(run)["scripted"]["unscored"] == {"failed: timeout": 10}
    ratings(run, None, "safety")
    manifest = read_judge_manifests(run)["scripted"]
    assert manifest["cost"] == pytest.approx(10 * 0.5 + 10 * 0.01)
    assert (manifest["calls"], manifest["n_tokens"], manifest["unscored"]) == (20, 50, {})


class Charging(ScriptedJudge):
    """Has two calls of 0.3 under way, which are charged, whenever it is ended; a failed attempt of 0.2 had no reply."""

    @property
    def committed(self) -> float:
        return 0.01 * len(self.asked) + (0.2 + 2 * 0.3 if self.asked else 0.0)


@pytest.mark.parametrize("end", [UserError("the service went away"), KeyboardInterrupt()])
def test_what_was_under_way_when_a_pass_ended_stays_in_its_cost(run: Path, end: BaseException) -> None:
    judge = Charging()

    def stop(one: object, reply: Reply) -> None:
        if len(judge.asked) == 4:
            raise end

    with pytest.raises((Incomplete, KeyboardInterrupt)):
        ratings(run, judge, "safety", on_reply=stop)
    manifest = read_judge_manifests(run)["scripted"]
    assert manifest["cost_cut_off"] == pytest.approx(0.8)
    assert manifest["cost"] == pytest.approx(4 * 0.01 + 0.8)
    ratings(run, None, "safety")
    assert read_judge_manifests(run)["scripted"]["cost"] == pytest.approx(10 * 0.01 + 0.8)


def test_a_judge_that_was_charged_for_and_said_nothing_leaves_its_cost(run: Path) -> None:
    def refuse(call: Call) -> Reply:
        raise UserError("the service went away")

    with pytest.raises(UserError, match=r"^the service went away$"):
        ratings(run, Charging(refuse), "safety")
    assert read_judge_manifests(run)["scripted"]["cost"] == pytest.approx(0.01 + 0.8)


def alias(model: str, **changes: Any) -> ScriptedJudge:
    """A judge whose own name says nothing, behind which a model answers."""
    own = named("alias", model="default_model", lineage={"sha": [], "names": ["default_model"]}, **changes)
    return ScriptedJudge(lambda call: replace(complete(call), model=model), own)


@pytest.fixture
def gemmas(tmp_path: Path) -> Path:
    contents = evaluated()
    contents.info.arms[ONE]["model"] = "google/gemma-3-1b-it"
    return write_run(tmp_path / "run", contents)


def test_kin_that_shows_itself_in_a_reply_ends_the_pass_with_its_mark_on_disk(gemmas: Path) -> None:
    judge = alias("google/gemma-3-27b-it")
    with pytest.raises(UserError, match=rf"'alias' answers as google/gemma-3-27b-it, .* arm '{ONE}' .*gemma") as ended:
        ratings(gemmas, judge, "safety")
    assert (ended.value.exit_code, len(judge.asked), judge.closed) == (2, 1, True)
    assert "--allow-self-judge" in str(ended.value)
    assert "same command" not in str(ended.value), "which would be refused again"
    assert len(lines_of(gemmas, "alias")) == 1
    manifest = read_judge_manifests(gemmas)["alias"]
    assert ([kin["arm"] for kin in manifest["kin"]], manifest["allow_self_judge"]) == ([ONE], False)
    assert [mark.word for mark in watermarks(read_contents(gemmas), "alias")] == ["SELF-JUDGED"]
    again = alias("google/gemma-3-27b-it")
    with pytest.raises(UserError, match=f"'alias' is of one lineage with arm '{ONE}'"):
        ratings(gemmas, again, "safety")
    assert again.asked == []


def test_kin_that_shows_itself_in_a_reply_is_written_before_the_verdict_where_it_may_judge(gemmas: Path) -> None:
    marked: list[list[str]] = []

    def look(one: object, reply: Reply) -> None:
        marked.append([kin["arm"] for kin in read_judge_manifests(gemmas)["alias"]["kin"]])

    judge = ratings(gemmas, alias("google/gemma-3-27b-it"), "safety", allow_self_judge=True, on_reply=look)
    assert (len(judge.asked), marked) == (10, [[ONE]] * 10)
    assert read_judge_manifests(gemmas)["alias"]["allow_self_judge"] is True


def test_a_model_of_no_kin_behind_a_name_judges_to_the_end(gemmas: Path) -> None:
    assert len(ratings(gemmas, alias("org/nobodys-model"), "safety").asked) == 10
    assert read_judge_manifests(gemmas)["alias"]["kin"] == []


def test_another_model_at_a_local_server_is_refused_before_a_verdict_of_it_is_kept(run: Path) -> None:
    here = {"settings": {"temperature": 0.0, "service": "http://localhost:8080/v1"}}
    ratings(run, alias("org/strong", **here), "safety")
    kept = lines_of(run, "alias")
    judge = alias("org/weak", **here)
    with pytest.raises(
        UserError, match="as org/strong so far, and http://localhost:8080/v1 now answers as org/weak"
    ) as refused:
        ratings(run, judge, "nuance")
    assert "serve that model again, or, where it is gone, judge anew under another name" in str(refused.value)
    assert (len(judge.asked), lines_of(run, "alias")) == (1, kept)
    assert read_judge_manifests(run)["alias"]["reported_models"] == ["org/strong"]
    assert len(ratings(run, alias("org/strong", **here), "nuance").asked) == 10
    named_anew = alias("org/weak", **here)
    named_anew.identity = replace(named_anew.identity, name="weak")
    assert len(ratings(run, named_anew, "safety").asked) == 10, "the remedy holds"


def test_a_service_on_the_network_may_answer_under_a_new_version(run: Path) -> None:
    there = {"settings": {"temperature": 0.0, "service": "https://judges.test/v1"}}
    ratings(run, alias("org/strong-1", **there), "safety")
    ratings(run, alias("org/strong-2", **there), "nuance")
    assert read_judge_manifests(run)["alias"]["reported_models"] == ["org/strong-1", "org/strong-2"]


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
