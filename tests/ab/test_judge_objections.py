"""What stands against a judged verdict: kinship, an audit that failed or is missing, and one judge's doing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lem.ab.compare import compare
from lem.ab.judge_objections import judge_objections
from lem.judges.panel import panel_judgements
from lem.records import Judgement, RunContents
from lem.records.metrics import COMPOSITES, metrics_of
from made_runs import made_run

Ratings = Mapping[str, Sequence[float]]
PLAIN = {"base": [5.0] * 6, "kernel": [7.0, 6.0, 8.0, 7.0, 9.0, 6.0]}


def by_judges(ratings: Mapping[str, Ratings], dimensions: Sequence[str] = ("safety",), **facts: Any) -> RunContents:
    """A run rated 1 to 10 by these judges, with their panel if they are several."""
    run = made_run({"base": [0.0] * 6, "kernel": [0.5] * 6})
    rows = [
        Judgement(arm, run.info.probes[i]["id"], 0, judge, dimension, value, low=1.0, high=10.0)
        for judge, of_arm in ratings.items()
        for dimension in dimensions
        for arm, column in of_arm.items()
        for i, value in enumerate(column)
    ]
    run = replace(run, judgements=rows, judges={judge: {"judge": judge} for judge in ratings}, **facts)
    return replace(run, judgements=[*rows, *panel_judgements(run)])


def codes(run: RunContents) -> dict[str, list[str]]:
    """The codes of the objections against each judged contrast of kernel with base, by metric."""
    judged = [metric for metric in metrics_of(run) if metric.source != "scorer"]
    contrasts: dict[str, Any] = {
        metric.name: SimpleNamespace(metric=metric.name, source=metric.source, treatment="kernel", baseline="base")
        for metric in judged
    }
    return {name: sorted(one.code for one in judge_objections(run, [one])) for name, one in contrasts.items()}


def test_a_judge_without_an_audit_is_marked() -> None:
    assert codes(by_judges({"j": PLAIN})) == {"safety": ["judge-not-audited"]}


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [("trustworthy", []), ("not trustworthy", ["judge-untrustworthy"]), ("not shown", ["judge-not-shown"])],
)
def test_an_audit_speaks(verdict: str, expected: list[str]) -> None:
    assert codes(by_judges({"j": PLAIN}, audits={"j": {"judge": "j", "verdict": verdict}})) == {"safety": expected}


def test_ratings_that_others_brought_have_no_manifest_and_no_objection() -> None:
    assert codes(replace(by_judges({"j": PLAIN}), judges={})) == {"safety": []}


@pytest.mark.parametrize(("arm", "marked"), [("base", True), ("kernel", True), ("another", False)])
def test_kinship_with_either_side_marks_the_contrast(arm: str, marked: bool) -> None:
    run = by_judges({"j": PLAIN}, audits={"j": {"judge": "j", "verdict": "trustworthy"}})
    run = replace(run, judges={"j": {"judge": "j", "kin": [{"arm": arm, "why": "weights"}]}})
    assert codes(run) == {"safety": ["self-judged"] if marked else []}


TRUSTED = {judge: {"judge": judge, "verdict": "trustworthy"} for judge in ("one", "two", "three")}
RAISED = {"base": [4.0, 5.0, 6.0, 4.0, 5.0, 6.0], "kernel": [7.0, 8.0, 9.0, 7.0, 8.0, 8.0]}
LOWERED = {"base": [6.0, 5.0, 6.0, 6.0, 5.0, 6.0], "kernel": [5.0, 5.0, 5.0, 6.0, 5.0, 5.0]}


def test_a_panel_is_as_good_as_its_worst_judge() -> None:
    run = by_judges({"one": RAISED, "two": RAISED}, audits=TRUSTED)
    panel = "safety · panel"
    assert codes(run)[panel] == []
    bad = {**TRUSTED, "two": {"judge": "two", "verdict": "not trustworthy"}}
    assert codes(replace(run, audits=bad))[panel] == ["judge-untrustworthy"]
    assert codes(replace(run, audits={"one": TRUSTED["one"]}))[panel] == ["judge-not-audited"]
    kin = {"one": {"judge": "one"}, "two": {"judge": "two", "kin": [{"arm": "base", "why": "w"}]}}
    assert codes(replace(run, judges=kin))[panel] == ["self-judged"]


def test_a_judge_that_sits_on_no_panel_of_the_dimension_does_not_mark_it() -> None:
    run = by_judges({"one": RAISED, "two": RAISED}, audits=TRUSTED)
    other = Judgement("base", "P000", 0, "three", "nuance", 5.0, low=1.0, high=10.0)
    kin = {**run.judges, "three": {"judge": "three", "kin": [{"arm": "base", "why": "w"}]}}
    run = replace(run, judgements=[*run.judgements, other], judges=kin)
    assert codes(run)["safety · panel"] == []


def test_a_difference_that_hangs_on_one_judge_is_said_to() -> None:
    run = by_judges({"one": RAISED, "two": LOWERED}, audits=TRUSTED)
    assert "judge-dependent" in codes(run)["safety · panel"]
    assert "judge-dependent" not in codes(by_judges({"one": RAISED, "two": RAISED}, audits=TRUSTED))["safety · panel"]


def test_a_composite_of_a_panel_is_compared_with_the_objections_of_its_parts() -> None:
    run = by_judges({"one": RAISED, "two": LOWERED}, COMPOSITES["ethics"], audits=TRUSTED)
    found = codes(run)
    assert "judge-dependent" in found["ethics · panel"]
    same = codes(by_judges({"one": RAISED, "two": RAISED}, COMPOSITES["ethics"], audits=TRUSTED))
    assert same["ethics · panel"] == []


def test_a_comparison_carries_them_for_every_metric() -> None:
    run = by_judges({"one": RAISED, "two": LOWERED}, COMPOSITES["ethics"], audits=TRUSTED)
    kin = {"one": {"judge": "one", "kin": [{"arm": "kernel", "why": "w"}]}, "two": {"judge": "two"}}
    found = compare(replace(run, judges=kin)).objections
    assert {"self-judged", "judge-dependent"} <= {one.code for one in found}
    [sentence] = [one.sentence for one in found if one.code == "self-judged"]
    assert "'one' is of one lineage with 'kernel'" in sentence


def test_a_panel_that_others_brought_is_no_panel_of_ours() -> None:
    run = by_judges({"panel": PLAIN})
    assert codes(replace(run, judges={}))["safety"] == []


def test_kin_of_one_treatment_marks_that_contrast_alone_and_kin_of_all_is_said_once() -> None:
    run = by_judges({"j": PLAIN}, audits={"j": {"judge": "j", "verdict": "trustworthy"}})
    pairs: list[Any] = [
        SimpleNamespace(metric="safety", source="j", treatment=arm, baseline="base") for arm in ("kernel", "other")
    ]
    some = replace(run, judges={"j": {"judge": "j", "kin": [{"arm": "kernel", "why": "w"}]}})
    (one,) = judge_objections(some, pairs)
    assert (set(one.arms), one.metrics) == ({"kernel", "base"}, ("safety",))
    every = replace(run, judges={"j": {"judge": "j", "kin": [{"arm": "base", "why": "w"}]}})
    (one,) = judge_objections(every, pairs)
    assert (one.arms, one.metrics) == ((), ("safety",))
