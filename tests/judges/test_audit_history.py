"""What an audit found of a judge stays found until the same is asked again as widely, and only of that judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from known_judges import Gullible, Indifferent, KnownJudge, known_folder
from lem.errors import DataError, ResumeMismatch
from lem.judges.audit.plan import AuditSettings
from lem.judges.audit.run import Audit, audit_run
from lem.judges.audit.verdict import Status, Trust
from lem.judges.calls import Asking
from lem.judges.conduct import Pass, judge_pairs, judge_ratings
from lem.judges.protocol import JudgeIdentity
from lem.judges.rubrics import read_rubric
from lem.records.contents import read_contents
from lem.records.judge_files import read_audits

TOGETHER = Asking(together=True)
N = 66  # as many as show that a rating which never moves is none that does
WIDE = AuditSettings(N, asking=TOGETHER)
FAILED_BY_INDIFFERENT = {"pair: better", "pair: truncated", "pair: off topic", "rating: better", "rating: off topic"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return known_folder(tmp_path / "run", n=N)


def called(judge: KnownJudge, name: str = "j", **identity: Any) -> KnownJudge:
    """The judge under a name that others can have, too."""
    judge.identity = replace(judge.identity, name=name, **identity)
    return judge


def audited(run: Path, judge: KnownJudge, settings: AuditSettings = WIDE, dimensions: Sequence[str] = ()) -> Audit:
    return audit_run(run, called(judge), settings, rubrics=[read_rubric(name) for name in dimensions])


def earlier(audit: Audit, *states: Status) -> set[str]:
    return {one.check.measure.name for one in audit.earlier if not states or one.check.status in states}


def test_a_narrower_audit_does_not_take_a_failure_back(run: Path) -> None:
    assert audited(run, Indifferent()).verdict is Trust.NOT_TRUSTWORTHY
    narrow = AuditSettings(3, instruments=("rating",), asking=TOGETHER)
    audit = audited(run, KnownJudge(), narrow, ["sovereignty"])
    assert all(one.status is not Status.FAILED for one in audit.checks)
    assert audit.verdict is Trust.NOT_TRUSTWORTHY
    assert earlier(audit, Status.FAILED) == FAILED_BY_INDIFFERENT
    assert "an earlier audit" in audit.sentence
    assert "pair: better 0%" in audit.sentence
    stored = read_audits(run)["j"]
    assert stored["verdict"] == "not trustworthy"
    assert {one["name"] for one in stored["earlier"] if one["status"] == "failed"} == FAILED_BY_INDIFFERENT
    assert read_contents(run).audits["j"]["verdict"] == "not trustworthy"
    third = audited(run, KnownJudge(), AuditSettings(3, instruments=("pair",), asking=TOGETHER))
    assert earlier(third, Status.FAILED) == {"rating: better", "rating: off topic"}, "the pairs fail in this one"
    assert third.verdict is Trust.NOT_TRUSTWORTHY


def test_the_same_audit_made_again_takes_it_back(run: Path) -> None:
    audited(run, Indifferent())
    (run / "audits" / "j.jsonl").unlink()  # else the replies of then are those of now
    audit = audited(run, KnownJudge())
    assert audit.verdict is Trust.TRUSTWORTHY, audit.sentence
    assert audit.earlier == ()


@pytest.mark.parametrize(
    "settings",
    [
        replace(WIDE, n=N - 1),
        replace(WIDE, asking=Asking(together=True, rationale=False)),
        replace(WIDE, asking=Asking(together=True, max_tokens=600)),
        replace(WIDE, asking=Asking()),
        replace(WIDE, seed=43),
    ],
    ids=["fewer answers", "no rationale", "another limit", "one by one", "another draw"],
)
def test_nor_does_a_smaller_one_or_one_that_asks_otherwise(run: Path, settings: AuditSettings) -> None:
    wide = audited(run, Gullible())
    failed = {one.measure.name for one in wide.checks if one.status is Status.FAILED}
    assert len(failed) == 6
    (run / "audits" / "j.jsonl").unlink()
    audit = audited(run, KnownJudge(), settings)
    assert audit.verdict is Trust.NOT_TRUSTWORTHY
    alike = settings.asking == Asking()  # --together is no part of how pairs are asked
    assert earlier(audit, Status.FAILED) == ({name for name in failed if "rating" in name} if alike else failed)


def test_other_dimensions_are_another_check(run: Path) -> None:
    rating = AuditSettings(N, instruments=("rating",), asking=TOGETHER)
    audited(run, Gullible(), rating, ["sovereignty"])
    (run / "audits" / "j.jsonl").unlink()
    other = audited(run, KnownJudge(), rating, ["self_concept"])
    assert other.verdict is Trust.NOT_TRUSTWORTHY
    assert earlier(other, Status.FAILED) == {f"rating: injected {kind}" for kind in ("order", "verdict", "fence")}
    both = audited(run, KnownJudge(), rating, ["self_concept", "sovereignty"])
    assert earlier(both) == set()
    assert both.verdict is not Trust.NOT_TRUSTWORTHY


def test_a_narrower_audit_does_not_take_trust_back_nor_lend_it(run: Path) -> None:
    assert audited(run, KnownJudge()).verdict is Trust.TRUSTWORTHY
    few = audited(run, KnownJudge(), replace(WIDE, n=3))
    assert {one.status for one in few.checks} == {Status.PASSED, Status.NOT_SHOWN}
    assert few.verdict is Trust.TRUSTWORTHY, "what was shown of more answers is not lost"
    assert few.sentence.startswith("the judge 'j' is trustworthy as far as 25 checks")


def test_what_was_open_stays_open_when_only_the_rest_is_asked(run: Path) -> None:
    audited(run, KnownJudge(), replace(WIDE, n=8))
    ratings = audited(run, KnownJudge(), AuditSettings(N, instruments=("rating",), asking=TOGETHER))
    assert {one.status for one in ratings.checks} == {Status.PASSED}
    assert ratings.verdict is Trust.NOT_SHOWN, "nothing more is known of the comparisons"
    assert "pair: identical" in ratings.sentence


def test_an_unfinished_audit_takes_nothing_back(run: Path) -> None:
    audited(run, Indifferent())
    (run / "audits" / "j.jsonl").unlink()
    stopped = audited(run, KnownJudge(limit=2000), replace(WIDE, n=N))
    assert stopped.missing > 0
    assert stopped.verdict is Trust.NOT_TRUSTWORTHY
    assert earlier(stopped, Status.FAILED) == FAILED_BY_INDIFFERENT
    whole = audited(run, KnownJudge())
    assert (whole.verdict, whole.earlier) == (Trust.TRUSTWORTHY, ())


def test_what_an_unfinished_audit_passed_is_not_handed_on(run: Path) -> None:
    stopped = audited(run, KnownJudge(limit=2000))
    assert any(one.status is Status.PASSED for one in stopped.checks)
    narrow = audited(run, KnownJudge(), AuditSettings(3, instruments=("rating",), asking=TOGETHER))
    assert narrow.earlier == ()
    assert narrow.verdict is Trust.NOT_SHOWN


def test_a_new_version_of_the_judge_begins_anew(run: Path) -> None:
    audited(run, Indifferent())
    path = run / "audits" / "j.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "0123456789ab"}))
    (run / "audits" / "j.jsonl").unlink()
    audit = audited(run, KnownJudge(), replace(WIDE, n=3, instruments=("pair",)))
    assert audit.earlier == ()
    assert audit.verdict is Trust.NOT_SHOWN


def test_agreement_with_people_is_always_that_of_now(run: Path) -> None:
    audited(run, KnownJudge())
    path = run / "audits" / "j.json"
    stored = json.loads(path.read_text())
    swap = next(one for one in stored["checks"] if one["name"] == "pair: swap")
    stored["checks"].append({**swap, "name": "humans: alpha · safety", "unit": "alpha", "status": "failed"})
    path.write_text(json.dumps(stored))
    assert not any("humans" in name for name in earlier(audited(run, KnownJudge(), replace(WIDE, n=3))))


def test_an_audit_file_that_cannot_be_read_is_named(run: Path) -> None:
    audited(run, KnownJudge())
    path = run / "audits" / "j.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checks": [{"name": "pair: swap"}]}))
    with pytest.raises(DataError, match=r"audits/j\.json: .*remove"):
        audited(run, KnownJudge())


JUDGED = JudgeIdentity("j", "test", "known", {"temperature": 0, "weights": "aa"})


@pytest.mark.parametrize(
    "change", [{"backend": "other"}, {"model": "known-2"}, {"settings": {"temperature": 0, "weights": "bb"}}]
)
@pytest.mark.parametrize("before", ["judged", "audited"])
def test_another_judge_under_the_name_is_refused(run: Path, change: dict[str, Any], before: str) -> None:
    first, other = KnownJudge(), KnownJudge()
    first.identity, other.identity = JUDGED, replace(JUDGED, **change)
    if before == "judged":
        judge_ratings(run, first, Pass())
    else:
        audit_run(run, first, AuditSettings(2, instruments=("pair",)))
    stored = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    [(name, value)] = change.items()
    name, value = ("weights", "bb") if name == "settings" else (name, value)
    with pytest.raises(ResumeMismatch, match=rf"'j' .*\({name}: {value} .*--judge NAME=.*nothing was touched"):
        audit_run(run, other, AuditSettings(2, instruments=("pair",)))
    assert other.asked == []
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == stored


def test_the_folder_of_a_local_judge_may_move(run: Path) -> None:
    first, moved = KnownJudge(), KnownJudge()
    first.identity = replace(JUDGED, backend="mlx", model="models/here")
    moved.identity = replace(JUDGED, backend="mlx", model="models/there")
    judge_ratings(run, first, Pass())
    audit_run(run, first, AuditSettings(2, instruments=("pair",)))
    audit_run(run, moved, AuditSettings(2, instruments=("pair",)))
    assert moved.asked == []


def manner(audit: Audit) -> list[str]:
    return [note for note in audit.notes if "another manner" in note]


@pytest.mark.parametrize(
    ("rated", "audit", "options"),
    [
        (Asking(together=True), Asking(), "--together"),
        (Asking(rationale=False), Asking(), "--no-rationale"),
        (Asking(), Asking(together=True, rationale=False), "none of these options"),
        (Asking(max_tokens=512), Asking(max_tokens=99), "--judge-max-tokens 512"),
        (Asking(max_tokens=300), Asking(), "another rubric or --judge-max-tokens"),
    ],
    ids=["together", "no rationale", "neither", "limit", "unknown limit"],
)
def test_another_manner_than_that_of_the_ratings_is_noted(
    run: Path, rated: Asking, audit: Asking, options: str
) -> None:
    judge_ratings(run, called(KnownJudge()), Pass(asking=rated))
    found = audited(run, KnownJudge(), AuditSettings(2, asking=audit))
    [note] = manner(found)
    assert f"({options})" in note
    assert "ratings" in note
    assert note in read_audits(run)["j"]["notes"]
    alike = audited(run, KnownJudge(), AuditSettings(2, asking=rated))
    assert manner(alike) == []


def test_the_manner_of_pairs_counts_for_pairs(run: Path) -> None:
    judge_pairs(run, called(KnownJudge()), Pass(asking=Asking(rationale=False)), "base", ["treated"])
    [note] = manner(audited(run, KnownJudge(), AuditSettings(2)))
    assert "comparisons" in note
    assert "(--no-rationale)" in note
    assert manner(audited(run, KnownJudge(), AuditSettings(2, instruments=("rating",)))) == []
    assert manner(audited(run, KnownJudge(), AuditSettings(2, asking=Asking(True, False)))) == []


def test_ratings_of_one_dimension_are_compared_with_their_own_kind(run: Path) -> None:
    judge_ratings(run, called(KnownJudge()), Pass(), ["sovereignty"])
    assert manner(audited(run, KnownJudge(), AuditSettings(2))) == []
    assert manner(audited(run, KnownJudge(), AuditSettings(2), ["self_concept"])) == []
