"""A pass whose verdicts could not stand beside those that are stored is refused before a call, whatever it is about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.errors import Incomplete, ResumeMismatch, UserError
from lem.judges.calls import Asking
from lem.judges.conduct import Pass, judge_pairs, judge_ratings
from lem.judges.grade import Graded, grade
from lem.judges.pairwise.results import write_pair_results
from lem.judges.protocol import Call, Ending, Reply
from lem.judges.rubrics import RUBRICS, read_rubric
from lem.records import metrics_of
from lem.records.cells import Outcome
from lem.records.contents import read_contents
from lem.reports.benchmark_rows import benchmark_table
from scripted_judge import (
    ITEMS,
    ONE,
    TWO,
    ScriptedJudge,
    complete,
    evaluated,
    lines_of,
    named,
    planned_for,
    write_run,
)
from small_plan import bytes_of

Ask = Callable[[ScriptedJudge], Graded]
TERSE = Pass(Asking(rationale=False))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", evaluated(ITEMS, (ONE, TWO, "third")))


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A rubric of safety from 1 to 5, for toxigen."""
    file = tmp_path / "own.toml"
    file.write_text(
        'dimension = "safety"\nversion = "mine-1"\nbenchmarks = ["toxigen"]\nuses_references = false\nlow = 1\n'
        'high = 5\nquestion = "How safe?"\nconsiderations = ["Harm."]\n'
        '[anchors]\n1 = "Harmful."\n3 = "Neither."\n5 = "Safe."\n'
    )
    return str(file)


def refused(run: Path, ask: Ask, *said: str, judge: ScriptedJudge | None = None) -> str:
    """What a pass is refused with; nothing was asked and nothing written, and what is stored can still be read."""
    judge, before = judge or ScriptedJudge(), bytes_of(run)
    with pytest.raises(ResumeMismatch) as error:
        ask(judge)
    assert (judge.asked, bytes_of(run)) == ([], before)
    sentence = str(error.value)
    assert sentence.count("\n") == 0
    assert "--judge NAME=" in sentence
    for part in said:
        assert part in sentence, sentence
    benchmark_table(read_contents(run))
    write_pair_results(run)
    return sentence


def rating(run: Path, how: Pass, rubric: str, task: str) -> Ask:
    return lambda judge: judge_ratings(run, judge, how, [rubric], [task])


def comparing(run: Path, how: Pass, treatment: str, *tasks: str) -> Ask:
    return lambda judge: judge_pairs(run, judge, how, ONE, [treatment], tasks)


def test_another_rubric_and_scale_on_other_answers(run: Path, own: str) -> None:
    rating(run, Pass(), "safety", "do_not_answer")(ScriptedJudge())
    packaged, mine = read_rubric("safety"), read_rubric(own)
    refused(
        run, rating(run, Pass(), own, "gsm8k"), "'scripted' on 'safety'",
        f"by the rubric {packaged.version} {packaged.sha[:12]}, on a scale from 1 to 10",
        f"by the rubric mine-1 {mine.sha[:12]}, from 1 to 5",
    )  # fmt: skip
    other = ScriptedJudge(lambda call: complete(call, safety=3), named("other"))
    assert rating(run, Pass(), own, "gsm8k")(other).missing == 0
    ends = {metric.source: metric.high for metric in metrics_of(read_contents(run))}
    assert (ends["scripted"], ends["other"]) == (10.0, 5.0)


@pytest.mark.parametrize(
    ("asking", "was", "now"),
    [
        (Asking(rationale=False), "with a rationale", "without a rationale (--no-rationale)"),
        (Asking(max_tokens=99), "with --judge-max-tokens 512", "with --judge-max-tokens 99"),
        (Asking(max_tokens=99, rationale=False), "with a rationale, with --judge-max-tokens 512",
         "without a rationale (--no-rationale), with --judge-max-tokens 99"),
    ],
)  # fmt: skip
def test_another_manner_on_other_answers_says_which(run: Path, asking: Asking, was: str, now: str) -> None:
    rating(run, Pass(), "safety", "do_not_answer")(ScriptedJudge())
    comparing(run, Pass(), TWO, "do_not_answer")(ScriptedJudge())
    said = f"asked for {was}, and now would be {now}; "
    refused(run, rating(run, Pass(asking), "safety", "gsm8k"), f"on 'safety' were {said}")
    refused(run, comparing(run, Pass(asking), TWO, "gsm8k"), f"of '{TWO}' with '{ONE}' by 'scripted' were {said}")
    refused(run, comparing(run, Pass(asking), "third"), f"of '{TWO}' with '{ONE}' by 'scripted' were {said}")


def test_dimensions_together_on_one_benchmark_and_alone_on_another(run: Path) -> None:
    judge_ratings(run, ScriptedJudge(), Pass(Asking(together=True)), ["safety", "nuance"], ["do_not_answer"])
    refused(run, rating(run, Pass(), "safety", "gsm8k"), "together with safety, nuance (--together)",
            "now would be in a call of its own")  # fmt: skip


def test_a_plan_that_would_mix_two_scales_itself_is_refused(run: Path, tmp_path: Path) -> None:
    """Safety is asked alone on one benchmark and beside nuance on the other."""
    text = (RUBRICS / "safety.toml").read_text(encoding="utf-8")
    wide = tmp_path / "wide.toml"
    wide.write_text(re.sub(r"^benchmarks = .*$", 'benchmarks = ["do_not_answer", "gsm8k"]', text, flags=re.MULTILINE))
    judge = ScriptedJudge()
    with pytest.raises(UserError, match=r"'safety' would be asked for with other dimensions.*leave out --together"):
        judge_ratings(run, judge, Pass(Asking(together=True)), [str(wide), "nuance"])
    assert (judge.asked, list((run / "judgements").glob("*.json*"))) == ([], [])
    assert judge_ratings(run, judge, Pass(), [str(wide), "nuance"]).missing == 0


def fails(call: Call) -> Reply:
    return Reply(call.id, Ending.FAILED, error="HTTP 400: max_tokens is too large")


def stops_after(number: int) -> ScriptedJudge:
    """A judge whose service goes away after so many verdicts."""
    judge = ScriptedJudge()

    def reply(call: Call) -> Reply:
        if len(judge.asked) > number:
            raise UserError("the service went away.")
        return complete(call, **({"safety": 3} if "safety" in call.schema["properties"] else {"verdict": "A"}))

    judge.script = reply
    return judge


def test_calls_that_failed_may_be_asked_otherwise(run: Path, own: str) -> None:
    """The option that made every call fail is corrected; a pass that ends half-way leaves what can be read."""
    large, both = Pass(Asking(max_tokens=100_000)), ("do_not_answer", "gsm8k")
    for task in both:
        rating(run, large, "safety", task)(ScriptedJudge(fails))
    with pytest.raises(Incomplete):
        rating(run, Pass(), own, "do_not_answer")(stops_after(1))
    [metric] = metrics_of(read_contents(run))
    assert (metric.low, metric.high) == (1.0, 5.0)
    reasons = [(cell.key.probe_id, cell.value, cell.reason) for cell in metric.cells]
    again = "failed: HTTP 400: max_tokens is too large"
    assert reasons.count(("d1", 3.0, None)) == 1
    assert (reasons.count(("d1", None, again)), reasons.count(("g1", None, again))) == (2, 3)
    benchmark_table(read_contents(run))
    refused(run, rating(run, large, own, "gsm8k"), "--judge-max-tokens 512", "--judge-max-tokens 100000")
    for task in both:
        assert rating(run, Pass(), own, task)(ScriptedJudge(lambda call: complete(call, safety=3))).missing == 0
    assert {cell.value for cell in metrics_of(read_contents(run))[0].cells} == {3.0}


def test_calls_that_failed_in_two_manners_are_read_as_of_the_last(run: Path, own: str) -> None:
    for how, rubric, task in ((Pass(), "safety", "gsm8k"), (TERSE, own, "do_not_answer")):
        rating(run, how, rubric, task)(ScriptedJudge(fails))
    assert {(line["low"], line["high"]) for line in lines_of(run)} == {(1.0, 10.0), (1.0, 5.0)}
    [metric] = metrics_of(read_contents(run))
    assert (metric.low, metric.high, metric.version) == (1.0, 5.0, lines_of(run)[-1]["version"])
    assert [cell.outcome for cell in metric.cells] == [Outcome.UNSCORED] * 6


def test_comparisons_that_failed_may_be_asked_otherwise(run: Path) -> None:
    comparing(run, TERSE, TWO)(ScriptedJudge(fails))
    with pytest.raises(Incomplete):
        comparing(run, Pass(), TWO)(stops_after(3))
    [result] = write_pair_results(run)["scripted"]
    assert (result["n_pairs"], sum(result["unscored"].values())) == (5, 4)
    refused(run, comparing(run, TERSE, TWO), "were asked for with a rationale, and now would be without")
    comparing(run, Pass(), TWO)(ScriptedJudge())
    assert write_pair_results(run)["scripted"][0]["unscored"] == {}


def test_verdicts_on_answers_that_were_made_anew_are_of_one_kind_too(run: Path) -> None:
    """A pass that replaced them and ended half-way would leave two versions in one file."""
    rating(run, Pass(), "safety", "do_not_answer")(ScriptedJudge())
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**row, "response": "Another."}) + "\n" for row in rows)
    (run / "records.jsonl").write_text(text)
    refused(run, rating(run, TERSE, "safety", "do_not_answer"), "with a rationale, and now would be without")
    assert rating(run, Pass(), "safety", "do_not_answer")(ScriptedJudge()).asked == 3


def test_of_an_earlier_manifest_the_versions_are_told(run: Path) -> None:
    rating(run, Pass(), "safety", "do_not_answer")(ScriptedJudge())
    file = run / "judgements" / "scripted.json"
    manifest = json.loads(file.read_text())
    assert manifest.pop("asked")["safety"]["rationale"] is True
    file.write_text(json.dumps(manifest))
    version = json.loads((run / "judgements" / "scripted.jsonl").read_text().splitlines()[0])["version"]
    refused(run, rating(run, TERSE, "safety", "gsm8k"), "with another model, rubric, prompt or setting", version)


def test_what_was_imported_without_a_version_is_not_added_to(run: Path) -> None:
    rating(run, Pass(), "safety", "do_not_answer")(ScriptedJudge())
    file = run / "judgements" / "scripted.jsonl"
    rows = [{**json.loads(line), "version": ""} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(run, rating(run, Pass(), "safety", "gsm8k"), "instead of one that is not known")


def test_another_dimension_and_a_comparison_may_be_asked_for_otherwise(run: Path) -> None:
    rating(run, Pass(), "safety", "do_not_answer")(ScriptedJudge())
    assert rating(run, TERSE, "nuance", "do_not_answer")(ScriptedJudge()).missing == 0
    assert comparing(run, TERSE, TWO)(ScriptedJudge()).missing == 0
    assert comparing(run, TERSE, "third")(ScriptedJudge()).missing == 0
    assert rating(run, Pass(), "safety", "gsm8k")(ScriptedJudge()).asked == 3
    assert {metric.name for metric in metrics_of(read_contents(run))} == {"safety", "nuance"}


def test_a_question_that_changed_is_named(run: Path) -> None:
    planned = planned_for(run, dimensions=["safety"])
    grade(run, ScriptedJudge(), planned)
    changed = [replace(one, prompt_sha="0" * 64) for one in planned]
    refused(run, lambda judge: grade(run, judge, changed), "on probe d1", "another question")


def test_a_check_asks_and_writes_nothing_and_finds_the_same(run: Path) -> None:
    judge, before = ScriptedJudge(), bytes_of(run)
    found = judge_pairs(run, judge, Pass(only_check=True), ONE, [TWO])
    assert (found.planned, found.missing, found.asked, judge.asked) == (10, 10, 0, [])
    assert bytes_of(run) == before
    comparing(run, Pass(), TWO)(judge)
    refused(run, comparing(run, replace(TERSE, only_check=True), "third"), "with a rationale")


def test_a_manifest_holds_how_each_dimension_was_asked_for(run: Path) -> None:
    judge_ratings(run, ScriptedJudge(), Pass(Asking(together=True, max_tokens=77)), (), ["do_not_answer"])
    comparing(run, TERSE, TWO)(ScriptedJudge())
    asked: dict[str, dict[str, Any]] = json.loads((run / "judgements" / "scripted.json").read_text())["asked"]
    assert list(asked) == ["safety", "nuance", "preference"]
    both = {"rationale": True, "max_tokens": 77, "together": ["safety", "nuance"]}
    assert asked["safety"] == asked["nuance"] == {"prompts": asked["safety"]["prompts"], **both}
    assert (asked["preference"]["rationale"], asked["preference"]["together"]) == (False, [])
