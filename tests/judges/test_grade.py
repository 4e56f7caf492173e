"""The judging pass: what is stored is kept, what is missing is asked, and nothing but a verdict becomes a value."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.errors import ResumeMismatch, UserError
from lem.judges.calls import Asking, PlannedCall, pair_calls
from lem.judges.grade import PAIR_VALUES, grade
from lem.judges.protocol import Call, Ending, Reply
from lem.records import metrics_of
from lem.records.cells import Outcome
from lem.records.contents import read_contents
from lem.records.store import lock_file
from scripted_judge import (
    IDENTITY,
    ONE,
    TWO,
    ScriptedJudge,
    complete,
    evaluated,
    last_of,
    lines_of,
    named,
    planned_for,
    verdict_of,
    write_run,
)
from small_plan import bytes_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", evaluated())


def by_hash(call: Call) -> Reply:
    """A rating that follows from the id, so that a mix-up of calls would be seen."""
    values = {name: 1 + sum(map(ord, str(call.id) + name)) % 10 for name in call.schema["properties"]}
    return complete(call, **{name: value for name, value in values.items() if name not in ("item", "rationale")})


def test_every_verdict_is_one_line_with_all_that_it_rests_on(run: Path) -> None:
    planned, judge = planned_for(run), ScriptedJudge(by_hash)
    graded = grade(run, judge, planned)
    n = len(planned)
    assert (graded.planned, graded.reused, graded.asked, graded.unscored, graded.failed, graded.missing) == (
        n, 0, n, 0, 0, 0,
    )  # fmt: skip
    assert graded.cost == pytest.approx(0.01 * n)
    assert Counter(judge.asked) == Counter(one.call.id for one in planned)
    rows = {(row["arm"], row["probe_id"], row["dimension"]): row for row in lines_of(run)}
    assert len(rows) == len(lines_of(run)) == n
    for one in planned:
        row = rows[one.key.arm, one.key.probe_id, one.dimensions[0]]
        assert row["value"] == json.loads(by_hash(one.call).text)[one.dimensions[0]]
        assert (row["low"], row["high"], row["order"], row["against"]) == (1.0, 10.0, "", "")
        assert (row["unscored"], row["error"], row["model"]) == (None, None, "judge-1-a")
        assert (row["raw"], row["version"], row["prompt_sha"], row["record_sha"]) == (
            by_hash(one.call).text, one.versions[0], one.prompt_sha, one.record_sha,
        )  # fmt: skip


ENDINGS: dict[str, tuple[Any, str]] = {
    "prose": (lambda c: Reply(c.id, Ending.COMPLETE, "I would give it a 7."), "unparsable"),
    "empty": (lambda c: Reply(c.id, Ending.COMPLETE, ""), "unparsable"),
    "other item": (lambda c: Reply(c.id, Ending.COMPLETE, verdict_of(c, item="0" * 12)), "other item"),
    "eleven": (lambda c: Reply(c.id, Ending.COMPLETE, verdict_of(c, **dict.fromkeys(c.schema["properties"].keys()
                - {"item", "rationale"}, 11))), "out of range"),
    "cut": (lambda c: Reply(c.id, Ending.TRUNCATED, verdict_of(c)[:-4]), "truncated"),
    "blocked": (lambda c: Reply(c.id, Ending.BLOCKED), "blocked"),
    "refused": (lambda c: Reply(c.id, Ending.REFUSED, "I'd rather not."), "refused"),
    "timed out": (lambda c: Reply(c.id, Ending.FAILED, error="no reply within 60 s"), "failed: no reply within 60 s"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDINGS)
def test_whatever_is_no_verdict_is_unscored_with_its_reason_and_never_a_number(run: Path, kind: str) -> None:
    """One arm's truthfulness goes wrong; the mean of it is that of the others, and the arm counts it."""
    spoil, reason = ENDINGS[kind]
    planned = planned_for(run)

    def script(call: Call) -> Reply:
        wrong = call.id[0] == TWO and call.id[3] == "truthfulness"
        return spoil(call) if wrong else complete(call, truthfulness=9)

    graded = grade(run, ScriptedJudge(script), planned)
    failed = kind == "timed out"
    assert (graded.unscored, graded.failed) == (0 if failed else 1, 1 if failed else 0)
    row = last_of(run)[TWO, "t1", 0, "scripted", "truthfulness", "", ""]
    assert (row["value"], row["unscored"]) == (None, reason)
    assert row["error"] == ("no reply within 60 s" if failed else None)
    metric = {one.name: one for one in metrics_of(read_contents(run))}["truthfulness"]
    cells = {cell.key.arm: cell for cell in metric.cells}
    assert {cell.key.probe_id for cell in metric.cells} == {"t1"}
    assert (cells[ONE].outcome, cells[ONE].value) == (Outcome.SCORED, 9.0)
    assert (cells[TWO].outcome, cells[TWO].value, cells[TWO].reason) == (Outcome.UNSCORED, None, reason)
    assert sum(other.cells[0].value is not None for other in metrics_of(read_contents(run)))


def test_errors_are_asked_again_and_what_is_unscored_is_not(run: Path) -> None:
    planned = planned_for(run)
    kinds = [spoil for spoil, _ in ENDINGS.values()]
    spoilt = {one.call.id: kinds[number] for number, one in enumerate(planned[: len(kinds)])}
    first = grade(run, ScriptedJudge(lambda call: spoilt.get(call.id, complete)(call)), planned)
    assert (first.unscored, first.failed) == (len(kinds) - 1, 1)
    assert first.cost is None, "replies that say nothing of tokens have no known cost"
    judge = ScriptedJudge()
    again = grade(run, judge, planned)
    assert judge.asked == [planned[len(kinds) - 1].call.id]
    assert (again.reused, again.asked, again.failed, again.missing) == (len(planned) - 1, 1, 0, 0)
    assert len(lines_of(run)) == len(planned) + 1
    assert (
        last_of(run)[(*planned[len(kinds) - 1].key, "scripted", *planned[len(kinds) - 1].dimensions, "", "")]["error"]
        is None
    )
    silent = ScriptedJudge()
    assert (grade(run, silent, planned).reused, silent.asked) == (len(planned), [])


class Killed(BaseException):
    """Stands for the end of the process between two replies."""


@pytest.mark.parametrize("asking", [Asking(), Asking(together=True)])
def test_broken_off_anywhere_a_pass_loses_and_repeats_nothing(tmp_path: Path, asking: Asking) -> None:
    whole = write_run(tmp_path / "whole", evaluated())
    grade(whole, ScriptedJudge(by_hash), planned_for(whole, asking))
    broken = write_run(tmp_path / "broken", evaluated())
    planned = planned_for(broken, asking)
    asked: Counter[Any] = Counter()
    for _ in planned:
        judge = ScriptedJudge(by_hash)

        def stop(one: PlannedCall, reply: Reply) -> None:
            raise Killed

        with pytest.raises(Killed):
            grade(broken, judge, planned, on_reply=stop)
        assert judge.closed, "what is under way is ended"
        asked.update(judge.asked)
    assert grade(broken, ScriptedJudge(), planned).asked == 0
    assert asked == Counter(one.call.id for one in planned)
    assert last_of(broken) == last_of(whole)
    assert len(lines_of(broken)) == len(last_of(broken))


def test_a_torn_last_line_is_asked_again_and_nothing_else(run: Path) -> None:
    planned = planned_for(run)
    grade(run, ScriptedJudge(by_hash), planned)
    whole, file = last_of(run), run / "judgements" / "scripted.jsonl"
    content = file.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last + 1, last + 30, len(content) - 1):
        file.write_bytes(content[:cut])
        judge = ScriptedJudge(by_hash)
        with pytest.warns(UserWarning, match="torn last line"):
            assert grade(run, judge, planned).asked == 1
        assert judge.asked == [planned[-1].call.id]
        assert last_of(run) == whole


def test_a_call_of_which_one_dimension_is_missing_is_asked_whole(run: Path) -> None:
    """A kill can fall between the lines of one reply."""
    planned = planned_for(run, Asking(together=True))
    grade(run, ScriptedJudge(by_hash), planned)
    whole, file = last_of(run), run / "judgements" / "scripted.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    judge = ScriptedJudge(by_hash)
    assert grade(run, judge, planned).asked == 1
    assert last_of(run) == whole


def test_an_answer_made_anew_is_judged_anew(run: Path) -> None:
    grade(run, ScriptedJudge(), planned_for(run))
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    rows[0]["response"] = "Another answer."
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stale = {one.name: one for one in metrics_of(read_contents(run))}["truthfulness"].cells[0]
    assert (stale.outcome, stale.value) == (Outcome.UNSCORED, None), "the old verdict is not one on the new answer"
    judge = ScriptedJudge(lambda call: complete(call, truthfulness=2, informativeness=3))
    graded = grade(run, judge, planned_for(run))
    assert {(id[0], id[1]) for id in judge.asked} == {(ONE, "t1")}
    assert graded.asked == 2
    assert last_of(run)[ONE, "t1", 0, "scripted", "truthfulness", "", ""]["value"] == 2.0


@pytest.mark.parametrize(
    ("asking", "identity"),
    [
        (Asking(rationale=False), IDENTITY),
        (Asking(max_tokens=99), IDENTITY),
        (Asking(together=True), IDENTITY),
        (Asking(), replace(IDENTITY, model="org/judge-2")),
        (Asking(), replace(IDENTITY, settings={"temperature": 1.0})),
    ],
)
def test_another_model_or_way_of_asking_under_one_name_is_refused_before_a_call(
    run: Path, asking: Asking, identity: Any
) -> None:
    grade(run, ScriptedJudge(), planned_for(run))
    before = bytes_of(run)
    judge = ScriptedJudge(identity=identity)
    with pytest.raises(ResumeMismatch, match=r"another model, rubric, prompt or setting.*--judge NAME=") as refused:
        grade(run, judge, planned_for(run, asking, identity))
    assert str(refused.value).count("\n") == 0
    assert judge.asked == []
    assert bytes_of(run) == before
    other = ScriptedJudge(identity=replace(identity, name="other"))
    assert grade(run, other, planned_for(run, asking, replace(identity, name="other"))).missing == 0
    assert bytes_of(run)["judgements/scripted.jsonl"] == before["judgements/scripted.jsonl"]


def test_another_rubric_under_one_name_is_refused(run: Path, tmp_path: Path) -> None:
    from lem.judges.rubrics import RUBRICS

    text = (RUBRICS / "nuance.toml").read_text(encoding="utf-8")
    own = tmp_path / "own.toml"
    own.write_text(text.replace('version = "', 'version = "9.', 1), encoding="utf-8")
    grade(run, ScriptedJudge(), planned_for(run, dimensions=["nuance"]))
    judge = ScriptedJudge()
    with pytest.raises(ResumeMismatch, match="'nuance'"):
        grade(run, judge, planned_for(run, dimensions=[str(own)]))
    assert judge.asked == []


def test_a_reply_on_several_dimensions_costs_once(run: Path) -> None:
    planned = planned_for(run, Asking(together=True))
    graded = grade(run, ScriptedJudge(), planned)
    rows = lines_of(run)
    assert len(rows) == sum(len(one.dimensions) for one in planned) > len(planned)
    for name, each in (("n_prompt_tokens", 11), ("n_tokens", 5), ("cost", 0.01)):
        assert sum(row[name] or 0 for row in rows) == pytest.approx(each * len(planned))
    assert graded.cost == pytest.approx(0.01 * len(planned))
    assert graded.asked == len(planned)


def test_a_stream_that_ends_early_leaves_the_rest_missing(run: Path) -> None:
    planned = planned_for(run)

    class Short(ScriptedJudge):
        def replies(self, calls: Any, wanted: Any) -> Any:
            for number, reply in enumerate(super().replies(calls, wanted)):
                if number == 3:
                    return
                yield reply

    graded = grade(run, Short(), planned)
    assert (graded.asked, graded.missing) == (3, len(planned) - 3)
    assert grade(run, ScriptedJudge(), planned).asked == len(planned) - 3


def test_on_start_tells_what_is_left_and_on_reply_comes_after_the_line(run: Path) -> None:
    planned, started, seen = planned_for(run), [], []

    def on_reply(one: PlannedCall, reply: Reply) -> None:
        seen.append(len(lines_of(run)))

    grade(run, ScriptedJudge(), planned[:4], on_start=lambda *counts: started.append(counts), on_reply=on_reply)
    grade(run, ScriptedJudge(), planned, on_start=lambda *counts: started.append(counts))
    assert started == [(4, 4), (len(planned), len(planned) - 4)]
    assert seen == [1, 2, 3, 4]


def test_two_passes_of_one_judge_do_not_write_at_once_and_two_judges_may(run: Path) -> None:
    (run / "judgements").mkdir()
    judge = ScriptedJudge()
    with lock_file(run / "judgements" / "scripted.lock"):
        with pytest.raises(UserError, match="in use by another process"):
            grade(run, judge, planned_for(run))
        assert judge.asked == []
        other = named("other")
        assert grade(run, ScriptedJudge(identity=other), planned_for(run, identity=other)).missing == 0


def test_a_comparison_has_the_value_of_the_arm_whatever_the_order(run: Path) -> None:
    """Longhand: in "ab" the arm's own answer is A, in "ba" it is B."""
    assert len(PAIR_VALUES) == 6
    for (order, verdict), value in PAIR_VALUES.items():
        own = "A" if order == "ab" else "B"
        assert value == (0.5 if verdict == "tie" else 1.0 if verdict == own else 0.0)
    planned = pair_calls(read_contents(run), ONE, TWO, Asking(), IDENTITY)
    grade(run, ScriptedJudge(lambda call: complete(call, verdict="A")), planned)
    for row in lines_of(run):
        assert (row["arm"], row["against"], row["low"], row["high"]) == (TWO, ONE, 0.0, 1.0)
        assert row["value"] == (1.0 if row["order"] == "ab" else 0.0)
        assert row["dimension"] == "preference"
    assert metrics_of(read_contents(run)) == [], "a comparison is no rating"
