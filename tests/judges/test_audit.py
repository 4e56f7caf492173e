"""An audit finds in each judge the fault that it has and no other, on a run of known answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from known_judges import (
    Dice,
    FirstSlot,
    Flattered,
    Gullible,
    Indifferent,
    KnownJudge,
    Longest,
    Silent,
    known_folder,
    known_run,
    material,
)
from lem.errors import DataError, UserError
from lem.judges.audit.plan import AuditSettings, plan_audit
from lem.judges.audit.replies import audit_file, read_audit
from lem.judges.audit.run import Audit, audit_run
from lem.judges.audit.verdict import BOUNDS, Status, Trust
from lem.judges.calls import Asking
from lem.judges.protocol import Call, Ending, Reply
from lem.judges.rubrics import rubrics_for
from lem.records.judge_files import read_audits
from lem.stats import rate

ENOUGH = 66  # answers of which a rating may never move and still be shown not to: 9 (1 - 0.025^(1/66)) < 0.5
SETTINGS = AuditSettings(ENOUGH, asking=Asking(together=True))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return known_folder(tmp_path / "run", n=ENOUGH)


def failed(audit: Audit) -> set[str]:
    return {one.measure.name for one in audit.checks if one.status is Status.FAILED}


def value(audit: Audit, name: str) -> float:
    return next(one.measure.estimate.value for one in audit.checks if one.measure.name == name)


def test_a_fair_judge_is_trustworthy(run: Path) -> None:
    judge = KnownJudge()
    audit = audit_run(run, judge, SETTINGS)
    assert audit.verdict is Trust.TRUSTWORTHY, audit.sentence
    assert {one.status for one in audit.checks} == {Status.PASSED}
    assert value(audit, "pair: identical") == 1
    assert value(audit, "pair: first slot") == 0.5
    assert value(audit, "rating: padded") == 0
    assert value(audit, "rating: off topic") < -3
    names = {one.measure.name for one in audit.checks}
    assert len(names) == len(audit.checks) == 25
    summary = read_audits(run)["fair"]
    assert summary["verdict"] == "trustworthy"
    assert summary["calls"] == len(judge.asked) == len(read_audit(run, "fair"))
    assert summary["cost"] == pytest.approx(0.001 * len(judge.asked))


@pytest.mark.parametrize(
    ("judge", "faults"),
    [
        (FirstSlot, {"pair: swap", "pair: first slot", "pair: identical", "pair: better", "pair: truncated",
                     "pair: off topic"}),
        (Flattered, {"pair: opening", "pair: claim", "rating: opening", "rating: claim"}),
        (Gullible, {f"{instrument}: injected {kind}" for instrument in ("pair", "rating")
                    for kind in ("order", "verdict", "fence")}),
        (Indifferent, {"pair: better", "pair: truncated", "pair: off topic", "rating: better", "rating: off topic"}),
    ],
)  # fmt: skip
def test_each_fault_is_found_and_no_other(run: Path, judge: type[KnownJudge], faults: set[str]) -> None:
    audit = audit_run(run, judge(), SETTINGS)
    assert audit.verdict is Trust.NOT_TRUSTWORTHY
    assert failed(audit) == faults
    for name in faults:
        assert name in audit.sentence


def test_a_judge_of_length_is_found_out(run: Path) -> None:
    audit = audit_run(run, Longest(), SETTINGS)
    assert {"pair: padded", "pair: claim", "rating: padded"} <= failed(audit)
    assert value(audit, "pair: better") == 0.5, "half of the worse reference answers are the longer ones"


def test_a_judge_that_throws_dice_fails_what_takes_judgement(run: Path) -> None:
    audit = audit_run(run, Dice(), SETTINGS)
    assert audit.verdict is Trust.NOT_TRUSTWORTHY
    assert {"pair: swap", "pair: identical", "pair: better", "pair: retest", "rating: retest"} <= failed(audit)
    first_slot = next(one for one in audit.checks if one.measure.name == "pair: first slot")
    assert first_slot.status is not Status.FAILED
    shifts = [one for one in audit.checks if one.measure.unit == "points" and one.measure.name != "rating: off topic"]
    assert len(shifts) == 7
    assert all(one.status is not Status.FAILED for one in shifts), "noise is no bias"


def test_silence_is_counted_by_reason(run: Path) -> None:
    audit = audit_run(run, Silent(), SETTINGS)
    assert "all: unscored" in failed(audit)
    assert value(audit, "all: unscored") == pytest.approx(1 / 3, abs=0.01)
    assert audit.unscored.keys() == {"blocked", "truncated", "unparsable"}
    assert audit.failed == audit.missing == 0


def test_too_few_canaries_show_nothing(run: Path) -> None:
    audit = audit_run(run, KnownJudge(), AuditSettings(8, asking=Asking(together=True)))
    assert audit.verdict is Trust.NOT_SHOWN
    open_ = {one.measure.name for one in audit.checks if one.status is Status.NOT_SHOWN}
    assert "pair: identical" in open_, "eight out of eight leave 63% possible"
    assert "pair: better" not in open_
    assert "--n" in audit.sentence


def interval(audit: Audit, name: str) -> tuple[float, float, Status]:
    found = next(one for one in audit.checks if one.measure.name == name)
    return found.measure.estimate.low, found.measure.estimate.high, found.status


@pytest.mark.parametrize(
    ("n", "shift"), [(6, Status.NOT_SHOWN), (64, Status.NOT_SHOWN), (65, Status.PASSED), (ENOUGH, Status.PASSED)]
)
def test_what_never_varies_is_known_as_well_as_its_number_says(tmp_path: Path, n: int, shift: Status) -> None:
    """By hand: at most u = 1 - 0.025^(1/n) of all answers differ, and by no more than the scale from 1 to 10 allows."""
    run = known_folder(tmp_path / "run", n=n)
    audit = audit_run(run, Indifferent(), AuditSettings(n, asking=Asking(together=True)))
    ties = next(one.measure.estimate.n for one in audit.checks if one.measure.name == "pair: first slot")
    slot, u = 1 - 0.025 ** (1 / ties), 1 - 0.025 ** (1 / n)
    assert interval(audit, "pair: first slot")[:2] == pytest.approx((0.5 - slot / 2, 0.5 + slot / 2))
    assert interval(audit, "rating: padded")[:2] == pytest.approx((-9 * u, 9 * u))
    assert interval(audit, "rating: padded")[2] is shift


def test_pairs_alone_and_ratings_alone(run: Path) -> None:
    pairs = audit_run(run, KnownJudge(), AuditSettings(20, instruments=("pair",)))
    assert pairs.verdict is Trust.TRUSTWORTHY
    assert {one.measure.name.partition(":")[0] for one in pairs.checks} == {"all", "pair"}
    ratings = audit_run(run, KnownJudge(), AuditSettings(ENOUGH, instruments=("rating",), asking=Asking(together=True)))
    assert ratings.verdict is Trust.TRUSTWORTHY
    assert {one.measure.name.partition(":")[0] for one in ratings.checks} == {"all", "rating"}


def test_a_killed_audit_goes_on_where_it_stopped(run: Path, tmp_path: Path) -> None:
    first = KnownJudge(limit=100)
    stopped = audit_run(run, first, SETTINGS)
    assert stopped.verdict is Trust.NOT_SHOWN
    assert stopped.missing > 0
    assert "calls are missing" in stopped.sentence
    with audit_file(run, "fair").open("a") as file:
        file.write('{"id": "torn')
    second = KnownJudge()
    with pytest.warns(UserWarning, match="torn last line"):
        whole = audit_run(run, second, SETTINGS)
    assert not set(first.asked) & set(second.asked)
    assert whole.verdict is Trust.TRUSTWORTHY
    unbroken = audit_run(known_folder(tmp_path / "other", n=ENOUGH), KnownJudge(), SETTINGS)
    assert [one.measure for one in unbroken.checks] == [one.measure for one in whole.checks]
    third = KnownJudge()
    audit_run(run, third, SETTINGS)
    assert third.asked == []


class Flaky(KnownJudge):
    """Loses every other call of the first ten on the network."""

    def reply(self, call: Call) -> Reply:
        if len(self.asked) < 10 and len(self.asked) % 2:
            return Reply(call.id, Ending.FAILED, error="timeout")
        return super().reply(call)


def test_a_failed_call_is_no_verdict_and_is_asked_again(run: Path) -> None:
    first = audit_run(run, Flaky(), SETTINGS)
    assert first.failed == 5
    assert first.unscored == {"failed: timeout": 5}
    assert first.verdict is Trust.NOT_SHOWN
    assert value(first, "all: unscored") == 0
    again = KnownJudge()
    assert audit_run(run, again, SETTINGS).verdict is Trust.TRUSTWORTHY
    assert len(again.asked) == 5


def test_another_setting_asks_anew_and_keeps_what_was_there(run: Path) -> None:
    audit_run(run, KnownJudge(), SETTINGS)
    before = audit_file(run, "fair").read_bytes()
    judge = KnownJudge()
    audit_run(run, judge, AuditSettings(ENOUGH, asking=Asking(together=True, rationale=False)))
    assert len(judge.asked) == read_audits(run)["fair"]["calls"]
    assert audit_file(run, "fair").read_bytes().startswith(before)


def test_replies_are_kept_whole_and_bad_lines_are_named(run: Path) -> None:
    audit_run(run, KnownJudge(), SETTINGS)
    path = audit_file(run, "fair")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(json.loads(row["raw"])["rationale"] == "because" for row in rows)
    assert {row["model"] for row in rows} == {"known-1"}
    path.write_text(path.read_text() + '{"id": 3}\n')
    with pytest.raises(DataError, match=rf"line {len(rows) + 1}: not a reply of an audit"):
        audit_run(run, KnownJudge(), SETTINGS)


def test_the_judge_is_blind_and_each_copy_is_what_it_says() -> None:
    contents = known_run()
    rubrics = {"ethics": rubrics_for("ethics")}
    plan = plan_audit(contents, {}, rubrics, AuditSettings(20, asking=Asking(together=True)), KnownJudge().identity)
    assert len({one.call.id for one in plan.calls}) == len(plan.calls)
    for one in plan.calls:
        shown = one.call.system + one.call.user
        assert "treated" not in shown.replace("The treated account", "")
        texts = material(one.call)
        if one.variant == "identical":
            assert texts["answer A"] == texts["answer B"]
        if one.variant.startswith("injected") and one.instrument == "pair":
            mine = texts["answer A" if one.order == "ab" else "answer B"]
            assert len(mine) > len(texts["answer B" if one.order == "ab" else "answer A"])
    assert (plan.n_answers, plan.n_pairs) == (20, 20)
    assert len({one.probe_id for one in plan.calls if one.probe_id.startswith("P")}) == 20, "a probe each"
    arms = {one.unit.partition("/")[0] for one in plan.calls if one.variant == "original"}
    assert arms == {"base", "treated"}


def test_asked_again_means_the_same_call_for_a_service_and_another_for_a_local_judge() -> None:
    contents, rubrics = known_run(), {"ethics": rubrics_for("ethics")}
    for backend, same in (("gemini", True), ("mlx", False)):
        plan = plan_audit(contents, {}, rubrics, SETTINGS, KnownJudge(backend=backend).identity)
        first = {one.unit: one.call for one in plan.calls if one.variant == "original"}
        again = {one.unit: one.call for one in plan.calls if one.instrument == "rating" and one.variant == "again"}
        assert first.keys() == again.keys()
        for unit in first:
            assert (first[unit].user == again[unit].user) is same
            assert first[unit].schema["properties"].keys() == again[unit].schema["properties"].keys()
            order = [name for name in again[unit].schema["properties"] if name not in ("item", "rationale")]
            expected = [rubric.dimension for rubric in rubrics["ethics"]]
            assert order == (expected if same else expected[::-1])


def test_gibberish_does_not_fail_a_fair_judge_for_want_of_content(tmp_path: Path) -> None:
    """Answers that are worth nothing lose nothing by being cut or off topic; the reference answers decide."""
    run = known_folder(tmp_path / "run", n=ENOUGH)
    text = (run / "records.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    for number, row in enumerate(rows):
        row["response"] = f"blue the of of {number} soup is is is is the running of and of the."
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    audit = audit_run(run, KnownJudge(), SETTINGS)
    assert failed(audit) == set()
    assert audit.verdict is not Trust.NOT_TRUSTWORTHY
    indifferent = audit_run(run, Indifferent(), SETTINGS)
    assert indifferent.verdict is Trust.NOT_TRUSTWORTHY


def test_a_run_without_answers_is_refused(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run", n=ENOUGH)
    (run / "records.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no answer"):
        audit_run(run, KnownJudge(), SETTINGS)


def test_a_run_that_needs_no_judge_has_its_pairs_audited(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run", n=ENOUGH, benchmark="gsm8k")
    audit = audit_run(run, KnownJudge(), SETTINGS)
    assert audit.verdict is Trust.TRUSTWORTHY
    assert any("ratings were not audited" in note for note in audit.notes)


def test_one_arm_has_no_real_pairs(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run", n=ENOUGH, arms=("base",))
    audit = audit_run(run, KnownJudge(), SETTINGS)
    assert any("no real pairs" in note for note in audit.notes)
    assert "pair: swap" not in {one.measure.name for one in audit.checks}


def slips_once_pass(n: int) -> bool:
    """Whether n - 1 of n lie at 80% or more with the whole interval, and 1 of n at 20% or less."""
    return rate(n - 1, n).low >= BOUNDS["pair: swap"].low and rate(1, n).high <= BOUNDS["pair: padded"].high


def test_by_default_one_slip_in_a_check_can_still_pass() -> None:
    """The interval is Clopper and Pearson's, worked out here from the beta distribution."""
    n = AuditSettings().n
    assert rate(n - 1, n).low == pytest.approx(stats.beta.ppf(0.025, n - 1, 2), abs=1e-9)
    assert rate(1, n).high == pytest.approx(stats.beta.ppf(0.975, 2, n - 1), abs=1e-9)
    assert slips_once_pass(n)
    assert not any(slips_once_pass(fewer) for fewer in range(1, n)), "no smaller sample would do"
    ends = {bound.low for name, bound in BOUNDS.items() if name.startswith("pair")} - {0.0}
    assert max(ends) == 0.8, "the bounds that the default goes by are the narrowest"


class SlipsOnce(KnownJudge):
    """Fair but for one unit of each kind of canary, where it gives the verdict that costs most."""

    def __init__(self) -> None:
        super().__init__()
        self.slipped: set[str] = set()

    def reply(self, call: Call) -> Reply:
        instrument, variant, *rest = str(call.id).split("|")
        found = super().reply(call)
        if instrument == "rating" or (variant == "again" and rest[-1] != "ab"):
            return found
        first = f"{variant} {rest[0]}"
        if first not in self.slipped and any(one.startswith(f"{variant} ") for one in self.slipped):
            return found
        self.slipped.add(first)
        wrong = {"better": "B", "real": "A", "identical": "A", "again": "B"}.get(variant, "A")
        if variant != "real" and rest[-1] == "ba":
            wrong = {"A": "B", "B": "A"}[wrong]
        verdict = {**json.loads(found.text), "verdict": wrong}
        return replace(found, text=json.dumps(verdict))


def test_a_judge_that_slips_once_in_every_check_of_pairs_passes_the_default_audit(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run", n=30)
    audit = audit_run(run, SlipsOnce(), AuditSettings(instruments=("pair",)))
    slips = {one.measure.name: one.measure.estimate for one in audit.checks if one.measure.unit == "share"}
    for name in ("pair: swap", "pair: identical", "pair: padded", "pair: injected fence", "pair: better"):
        assert min(slips[name].value, 1 - slips[name].value) == pytest.approx(1 / slips[name].n), name
    assert audit.verdict is Trust.TRUSTWORTHY, audit.sentence
    few = audit_run(run, SlipsOnce(), AuditSettings(25, instruments=("pair",), asking=Asking(rationale=False)))
    assert "pair: identical" in few.sentence


@pytest.mark.parametrize("benchmark", ["truthfulqa", "do_not_answer", "toxigen", "ethics"])
def test_every_judged_benchmark_alone_can_show_a_judge_trustworthy(tmp_path: Path, benchmark: str) -> None:
    run = known_folder(tmp_path / "run", n=ENOUGH, benchmark=benchmark)
    audit = audit_run(run, KnownJudge(), AuditSettings(ENOUGH, instruments=("rating",), asking=Asking(together=True)))
    assert audit.verdict is Trust.TRUSTWORTHY, audit.sentence


class Slips(KnownJudge):
    """Takes the worse of two reference answers for the better one, twice."""

    def prefer(self, question: str, first: str, second: str) -> str:
        verdict = super().prefer(question, first, second)
        slips = question.startswith(("Why does pasta", "Can I mix"))
        return {"A": "B", "B": "A"}.get(verdict, verdict) if slips else verdict


def test_more_answers_are_not_advised_where_they_would_not_help(run: Path) -> None:
    audit = audit_run(run, Slips(), AuditSettings(20, instruments=("pair",)))
    assert audit.verdict is Trust.NOT_SHOWN
    assert "pair: better" in audit.sentence
    assert "--n" not in audit.sentence
