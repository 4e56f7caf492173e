"""Labels by people: kept apart from judgements, and agreement, error rates and corrections in longhand."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from known_judges import KnownJudge, known_folder, known_run
from lem.errors import DataError
from lem.judges.audit.agreement import conclusion, judge_agreement
from lem.judges.audit.measures import ALPHA, Measure
from lem.judges.audit.plan import AuditSettings
from lem.judges.audit.run import audit_run
from lem.judges.audit.verdict import HUMANS, Status, Trust, check, sentence
from lem.judges.calls import Asking
from lem.judges.human import human_agreement, label_file, read_labels
from lem.records import Judgement, metrics_of, read_contents, text_sha
from lem.stats import FEWEST_UNITS, Estimate, krippendorff_alpha, rate
from lem.stats.corrected import corrected_rate


def rated(judge: str, values: Sequence[float | None], arm: str = "base", **fields: object) -> list[Judgement]:
    rows = [
        Judgement(arm, f"P{i:02d}", 0, judge, "safety", value, low=1.0, high=10.0) for i, value in enumerate(values)
    ]
    return [replace(row, **fields) for row in rows]  # type: ignore[arg-type]


def write(run: Path, name: str, rows: Sequence[Judgement]) -> None:
    path = label_file(run, name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row.to_row()) + "\n" for row in rows))


HUMAN = [9.0, 8, 8, 7, 2, 3, 1, 9, 2, 6, 3, 10]
JUDGE = [8.0, 8, 9, 4, 2, 3, 7, 9, 1, 8, 2, 10]


def test_agreement_and_error_rates_in_longhand() -> None:
    """Positive is above 5.5: people say so of 7 answers, of which the judge finds 6; of the 5 others it finds 4."""
    everywhere = rated("j", JUDGE) + rated("j", [9.0] * 6 + [1.0] * 6, arm="treated")
    found = human_agreement(rated("human:ada", HUMAN), everywhere, {})
    assert len(found) == 1
    one = found[0]
    assert (one.judge, one.dimension, one.n, one.labellers) == ("j", "safety", 12, ("ada",))
    assert one.raw == rate(sum(a == b for a, b in zip(HUMAN, JUDGE, strict=True)), 12)
    assert one.prevalence == rate(7, 12)
    assert one.judged == rate(7, 12)
    assert one.kappa.value == pytest.approx(cohen_kappa_score(HUMAN, JUDGE, weights="quadratic", labels=range(1, 11)))
    assert one.alpha.value == krippendorff_alpha([HUMAN, JUDGE], "ordinal").value
    assert one.corrected["base"] == corrected_rate(7, 12, 6, 7, 4, 5)
    assert one.corrected["treated"] == corrected_rate(6, 12, 6, 7, 4, 5)
    assert one.corrected["treated"].corrected.value == pytest.approx((6 / 12 + 4 / 5 - 1) / (6 / 7 + 4 / 5 - 1))
    assert math.isnan(one.among_humans.value)


def test_labels_of_several_people_are_averaged_and_compared_with_each_other() -> None:
    other = [value - 2 if value > 2 else value for value in HUMAN[:6]]
    labels = rated("human:ada", HUMAN) + rated("human:ben", other)
    one = human_agreement(labels, rated("j", JUDGE), {})[0]
    means = [(a + b) / 2 for a, b in zip(HUMAN, other, strict=False)] + HUMAN[6:]
    assert one.alpha.value == krippendorff_alpha([means, JUDGE], "ordinal").value
    assert one.among_humans.value == krippendorff_alpha([HUMAN[:6], other], "ordinal").value
    assert one.among_humans.n == 6
    assert one.labellers == ("ada", "ben")


def test_an_answer_made_anew_and_what_cannot_be_told_count_for_nothing() -> None:
    labels = rated("human:ada", [*HUMAN[:10], None, None], record_sha=text_sha("old"))
    judged = rated("j", JUDGE, record_sha=text_sha("old"))
    judged[0] = replace(judged[0], record_sha=text_sha("new"))
    judged[1] = replace(judged[1], value=None, unscored="blocked")
    assert human_agreement(labels, judged, {})[0].n == 8
    assert human_agreement(labels, rated("j", [None] * 12), {}) == []


def test_a_pair_is_compared_with_both_orders_of_the_judge_joined() -> None:
    def pair(judge: str, values: Sequence[float], order: str) -> list[Judgement]:
        return [
            Judgement("t", f"P{i}", 0, judge, "preference", value, order=order, against="b", low=0.0, high=1.0)
            for i, value in enumerate(values)
        ]

    judged = pair("j", [1, 1, 0, 0.5, 1, 0], "ab") + pair("j", [1, 0, 0, 0.5, 1, 0], "ba")
    joined = [1, 0.5, 0, 0.5, 1, 0]
    labels = pair("human:ada", [1, 0.5, 0, 1, 1, 1], "ba")
    one = human_agreement(labels, judged, {})[0]
    assert one.against == "b"
    assert one.raw == rate(4, 6)
    expected = cohen_kappa_score([2, 1, 0, 2, 2, 2], [int(2 * value) for value in joined], weights="quadratic")
    assert one.kappa.value == pytest.approx(expected)
    assert one.prevalence == rate(4, 6), "a tie is no win"
    assert one.corrected["t"].observed == rate(2, 6)


def test_repeats_of_a_probe_are_no_independent_answers() -> None:
    judged = [
        Judgement("base", f"P{i}", repeat, "j", "safety", 9.0 if i % 2 else 2.0, low=1.0, high=10.0)
        for i in range(20)
        for repeat in range(4)
    ]
    labels = [replace(row, judge="human:ada") for row in judged if row.repeat == 0]
    found = human_agreement(labels, judged, {})[0].corrected["base"].corrected
    once = human_agreement(labels, [row for row in judged if row.repeat == 0], {})[0].corrected["base"].corrected
    assert found.n == 80
    assert found.width == pytest.approx(once.width, rel=0.1)


def test_labels_are_never_taken_for_judgements(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run")
    before = read_contents(run)
    write(run, "ada", rated("human:ada", HUMAN))
    after = read_contents(run)
    assert after.judgements == before.judgements == []
    assert [metric.name for metric in metrics_of(after)] == [metric.name for metric in metrics_of(before)]
    assert [label.value for label in read_labels(run)] == HUMAN


def test_the_last_label_counts_and_one_taken_back_does_not(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run")
    rows = rated("human:ada", [3.0, 4.0, 5.0])
    rows += [replace(rows[0], value=7.0), replace(rows[1], value=None, unscored="undone")]
    write(run, "ada", rows)
    assert {label.probe_id: label.value for label in read_labels(run)} == {"P00": 7.0, "P02": 5.0}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"judge": "gemini"}, "it is by 'gemini', which is no person"),
        ({"value": 11.0}, "outside its scale"),
        ({"low": None}, "its scale is missing"),
        ({"value": "9"}, "must be a number"),
    ],
)
def test_a_line_that_is_no_label_is_named(tmp_path: Path, change: dict[str, object], fault: str) -> None:
    run = known_folder(tmp_path / "run")
    write(run, "ada", rated("human:ada", [3.0, 4.0]))
    row = {**rated("human:ada", [3.0])[0].to_row(), **change}
    with label_file(run, "ada").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="line 3: not a label") as raised:
        read_labels(run)
    assert fault in str(raised.value)


def test_judges_agree_as_krippendorff_counts_it() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(1, 11, 60).astype(float)
    near = np.clip(truth + rng.integers(-1, 2, 60), 1, 10)
    rows = rated("one", list(truth)) + rated("two", list(near)) + rated("alone", [3.0], dimension="nuance")
    found = judge_agreement(rows, {})
    assert len(found) == 1
    assert found[0].judges == ("one", "two")
    assert found[0].alpha.value == krippendorff_alpha([truth, near], "ordinal").value
    assert found[0].conclusion == "conclude"
    random = judge_agreement(rated("one", list(truth)) + rated("two", list(rng.permutation(truth))), {})
    assert random[0].conclusion == "no headline"


def test_the_panel_and_a_judge_without_a_value_are_no_raters() -> None:
    truth = [1.0, 3.0, 5.0, 8.0, 9.0, 10.0]
    near = [2.0, 3.0, 5.0, 7.0, 9.0, 10.0]
    two = rated("one", truth) + rated("two", near)
    panel = rated("panel", [value / 10 for value in reversed(truth)])
    silent = rated("silent", [None] * 6)
    [alone] = judge_agreement(two, {})
    assert judge_agreement(two + panel + silent, {}) == [alone]
    assert judge_agreement(rated("one", truth) + panel + silent, {}) == []
    assert {one.judge for one in human_agreement(rated("human:ada", truth), two + panel, {})} == {"one", "two"}


@pytest.mark.parametrize(
    ("low", "said"), [(0.8, "conclude"), (0.79, "tentative"), (0.667, "tentative"), (0.66, "no headline")]
)
def test_the_lower_end_decides(low: float, said: str) -> None:
    assert conclusion(Estimate(0.95, 0.01, low, 0.97, 0.95, 50, 0, None, "")) == said
    few = Estimate(1.0, 0.0, 0.99, 1.0, 0.95, FEWEST_UNITS - 1, 0, None, "")
    assert conclusion(few) == "not shown", "however much they agree"
    assert conclusion(Estimate(math.nan, math.nan, math.nan, math.nan, 0.95, 0, 0, None, "")) == "not known"


def test_a_judge_that_people_contradict_is_not_trustworthy(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run")
    keys = [record.key for record in known_run().records]
    judged = [
        Judgement(*key, "fair", "sovereignty", float(1 + i % 10), low=1.0, high=10.0) for i, key in enumerate(keys)
    ]
    (run / "judgements" / "fair.jsonl").write_text("".join(json.dumps(row.to_row()) + "\n" for row in judged))
    settings = AuditSettings(20, asking=Asking(together=True))
    write(run, "ada", [replace(row, judge="human:ada") for row in judged])
    audit = audit_run(run, KnownJudge(), settings)
    humans = [one for one in audit.checks if one.measure.name.startswith("humans")]
    assert [one.status for one in humans] == [Status.PASSED]
    upside_down = [replace(row, judge="human:ada", value=11.0 - (row.value or 0)) for row in judged]
    write(run, "ada", upside_down)
    audit = audit_run(run, KnownJudge(), settings)
    assert audit.verdict == "not trustworthy"
    assert "humans: alpha · sovereignty" in audit.sentence
    assert audit.humans[0].corrected["base"].identified is False


TEN, FIVE = "a" * 12, "b" * 12  # the starts of the hashes of two rubrics


def test_labels_are_held_against_ratings_by_the_same_rubric_and_scale_only() -> None:
    """A judge that rates 1 to 5 and ranks as people do who rate 2, 4, .. 10 has no alpha with them, and no errors."""
    labels = rated("human:ada", [2.0 * value for value in (1, 2, 3, 4, 5)], version=TEN)
    judged = rated("five", [1.0, 2, 3, 4, 5], high=5.0) + rated("ten", [2.0, 4, 6, 8, 10])
    judged += rated("other", [2.0, 4, 6, 8, 10])
    rubrics = {"five": {"safety": FIVE}, "ten": {"safety": TEN}, "other": {"safety": FIVE}}
    assert [one.judge for one in human_agreement(labels, judged, rubrics)] == ["ten"]
    assert human_agreement(labels, judged[:5], {"five": {"safety": TEN}}) == [], "the ends of the scale differ"
    both = labels + rated("human:ben", [5.0, 4, 3, 2, 1], high=5.0, version=FIVE)
    found = {one.judge: one for one in human_agreement(both, judged, rubrics)}
    assert sorted(found) == ["five", "ten"]
    assert found["five"].labellers == ("ben",)
    assert found["five"].alpha.value < 0
    assert found["five"].prevalence == rate(2, 5), "the middle is that of the scale from 1 to 5"
    assert found["ten"].alpha.value == 1


def test_judges_by_different_rubrics_or_scales_are_not_compared() -> None:
    ranks = [1.0, 2, 3, 4, 5]
    rows = rated("five", ranks, high=5.0) + rated("ten", [2 * one for one in ranks]) + rated("twin", [9.0, 8, 7, 3, 1])
    rubrics = {"five": {"safety": FIVE}, "ten": {"safety": TEN}, "twin": {"safety": TEN}}
    assert [one.judges for one in judge_agreement(rows, rubrics)] == [("ten", "twin")]
    assert judge_agreement(rows, {**rubrics, "twin": {"safety": "c" * 12}}) == []


def test_what_is_not_compared_is_named(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run")
    judged = rated("fair", [1.0, 2, 3, 4, 5], high=5.0) + rated("ten", [2.0, 4, 6, 8, 10])
    for name, sha in (("fair", FIVE), ("ten", TEN)):
        identity = dataclasses.asdict(KnownJudge().identity)
        manifest = {**identity, "judge": name, "rubrics": {"safety": f"1 {sha}"}}
        (run / "judgements" / f"{name}.json").write_text(json.dumps(manifest))
        lines = [json.dumps(row.to_row()) + "\n" for row in judged if row.judge == name]
        (run / "judgements" / f"{name}.jsonl").write_text("".join(lines))
    write(run, "ada", rated("human:ada", [2.0, 4, 6, 8, 10], version=TEN))
    audit = audit_run(run, KnownJudge(), AuditSettings(3, asking=Asking(together=True)))
    assert (audit.humans, audit.judges) == ((), ())
    assert (
        f"5 labels of safety on 1 to 10 (rubric {TEN}) are not compared with 'fair', which judged it on 1 to 5 "
        f"(rubric {FIVE})"
    ) in audit.notes
    assert (
        f"safety was judged on 1 to 5 (rubric {FIVE}) by 'fair' and on 1 to 10 (rubric {TEN}) by 'ten', which are not "
        "compared"
    ) in audit.notes


@pytest.mark.parametrize(
    ("n", "low", "high", "status"),
    [
        (FEWEST_UNITS, 0.7, 1.0, Status.PASSED),
        (FEWEST_UNITS, 0.1, 0.6, Status.FAILED),
        (FEWEST_UNITS - 1, 0.7, 1.0, Status.NOT_SHOWN),
        (FEWEST_UNITS - 1, 0.1, 0.6, Status.NOT_SHOWN),
    ],
)
def test_few_labels_neither_pass_nor_fail_a_judge(n: int, low: float, high: float, status: Status) -> None:
    estimate = Estimate(low, 0.1, low, high, 0.95, n, 0, None, "")
    [found] = check([Measure(f"{HUMANS} · safety", "", estimate, ALPHA)])
    assert found.status is status
    asked = sentence("j", [found], Trust.NOT_SHOWN)
    assert ("more labels" in asked) == (status is Status.NOT_SHOWN)
    assert "more canaries" not in asked


def test_equal_labels_of_five_answers_prove_nothing(tmp_path: Path) -> None:
    run = known_folder(tmp_path / "run")
    judged = rated("fair", [9.0, 9, 9, 9, 2])
    (run / "judgements" / "fair.jsonl").write_text("".join(json.dumps(row.to_row()) + "\n" for row in judged))
    write(run, "ada", [replace(row, judge="human:ada") for row in judged])
    audit = audit_run(run, KnownJudge(), AuditSettings(3, asking=Asking(together=True)))
    assert audit.humans[0].alpha.value == 1
    assert [one.status for one in audit.checks if one.measure.name.startswith("humans")] == [Status.NOT_SHOWN]


def test_answers_to_one_probe_are_no_independent_labels() -> None:
    judged = [
        Judgement(arm, f"P{i:02d}", 0, "j", "safety", value, low=1.0, high=10.0)
        for arm in ("base", "treated", "third")
        for i, value in enumerate(JUDGE)
    ]
    labels = [
        replace(row, judge=f"human:{name}", value=value)
        for name in ("ada", "ben")
        for row, value in zip(judged, HUMAN * 3, strict=True)
    ]
    [one] = human_agreement(labels, judged, {})
    others = [replace(row, judge="k", value=value) for row, value in zip(judged, HUMAN * 3, strict=True)]
    for found in (one.alpha, one.kappa, one.among_humans, judge_agreement([*judged, *others], {})[0].alpha):
        assert (found.n, found.n_clusters) == (36, 12)


def test_labels_of_ties_belong_to_the_errors_that_wins_are_corrected_by() -> None:
    """30% of the pairs are won, 40% tied, 30% lost, and the judge calls 90%, 40% and 5% of them won."""
    rng = np.random.default_rng(5)
    truths = rng.choice([1.0, 0.5, 0.0], p=[0.3, 0.4, 0.3], size=3000)
    called = rng.random(3000) < np.vectorize({1.0: 0.9, 0.5: 0.4, 0.0: 0.05}.get)(truths)
    labels, verdicts = [], []
    for number, (truth, won) in enumerate(zip(truths, called, strict=True)):
        said = 1.0 if won else 0.0
        pair = {"low": 0.0, "high": 1.0, "against": "base"}
        if number < 1500:
            labels.append(
                Judgement("t", f"P{number}", 0, "human:ada", "preference", float(truth), order="ab", **pair)  # type: ignore[arg-type]
            )
        for order in ("ab", "ba"):
            verdicts.append(Judgement("t", f"P{number}", 0, "j", "preference", said, order=order, **pair))  # type: ignore[arg-type]
    found = human_agreement(labels, verdicts, {})[0].corrected["t"]
    assert found.observed.value > 0.4, "the judge sees many more wins than there are"
    assert found.corrected.low < 0.3 < found.corrected.high
    assert found.corrected.value == pytest.approx(0.3, abs=0.05)
