"""What a judge was to rate and to compare stays with the arms of its own run when runs are joined."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from lem.ab.join import join_runs
from lem.records import Judgement, Record, RunContents, RunInfo, metrics_of, text_sha
from lem.records.judge_files import with_arms

PROBES = [
    {"id": f"{name}{i}", "domain": "d", "prompt": f"{name} {i}", "benchmark": benchmark}
    for name, benchmark in (("d", "do_not_answer"), ("g", "gsm8k"))
    for i in range(3)
]


def judged(arms: tuple[str, ...], rated: Any, cells: list[tuple[str, str]], **manifest: Any) -> RunContents:
    """A run whose arms answered all six questions; the judge was to rate `rated` and has values on these cells."""
    info = RunInfo("+".join(arms), "eval", "done", {arm: {"model": "m"} for arm in arms}, {"repeats": 1}, probes=PROBES)
    records = [Record("r", arm, p["id"], 0, f"{arm} {p['id']}", finish_reason="stop") for arm in arms for p in PROBES]
    values = [
        Judgement(arm, probe, 0, "j", "safety", 5.0, low=1.0, high=10.0, record_sha=text_sha(f"{arm} {probe}"))
        for arm, probe in cells
    ]
    said = {} if rated is None else {"rated": {"safety": rated}}
    return RunContents(info, records, {}, values, judges={"j": with_arms({"judge": "j", **said, **manifest}, arms)})


def counts(contents: RunContents) -> dict[str, dict[str, int]]:
    (metric,) = metrics_of(contents)
    found: dict[str, Counter[str]] = {}
    for cell in metric.cells:
        found.setdefault(cell.key.arm, Counter())[str(cell.outcome)] += 1
    return {arm: dict(counter) for arm, counter in found.items()}


HARM = ["d0", "d1", "d2"]
STOPPED = judged(("base", "kernel"), ["do_not_answer", "gsm8k"], [("base", probe) for probe in HARM])
HARM_ONLY = judged(("other",), ["do_not_answer"], [("other", probe) for probe in HARM])


@pytest.mark.parametrize("turned", [False, True])
def test_each_arm_is_counted_on_what_its_own_run_was_to_rate(turned: bool) -> None:
    parts = [("one", STOPPED), ("two", HARM_ONLY)]
    joined = join_runs(parts[::-1] if turned else parts)
    assert counts(joined) == {
        "base": {"scored": 3, "unscored": 3}, "kernel": {"unscored": 6}, "other": {"scored": 3}
    }  # fmt: skip


def test_rows_of_one_run_say_nothing_of_another() -> None:
    whole = judged(("base",), ["do_not_answer", "gsm8k"], [("base", probe["id"]) for probe in PROBES])
    assert counts(join_runs([("one", whole), ("two", HARM_ONLY)])) == {"base": {"scored": 6}, "other": {"scored": 3}}


@pytest.mark.parametrize("turned", [False, True])
def test_an_arm_of_a_run_that_says_nothing_has_the_benchmarks_of_the_others(turned: bool) -> None:
    silent = judged(("other",), None, [("other", "d0")])
    parts = [("one", STOPPED), ("two", silent)]
    found = counts(join_runs(parts[::-1] if turned else parts))
    assert (found["base"], found["other"]) == ({"scored": 3, "unscored": 3}, {"scored": 1, "unscored": 5})


def test_a_benchmark_with_values_that_nothing_is_said_of_is_for_all_arms() -> None:
    run = judged(("base", "kernel"), ["do_not_answer"], [("base", "g0"), ("base", "d0"), ("kernel", "d0")])
    assert counts(join_runs([("one", run)])) == {arm: {"scored": n, "unscored": 6 - n} for arm, n in
                                                 (("base", 2), ("kernel", 1))}  # fmt: skip


def test_arms_that_two_runs_have_are_renamed_in_what_was_to_be_done() -> None:
    pair = {"treatment": "kernel", "baseline": "base", "tasks": ["gsm8k"]}
    one = replace(STOPPED, judges={"j": {**STOPPED.judges["j"], "compared": [pair]}})
    other = judged(
        ("base", "kernel"), ["do_not_answer"], [("base", "d0")], compared=[{**pair, "tasks": ["do_not_answer"]}]
    )
    found = join_runs([("a", one), ("b", other)])
    assert found.judges["j"]["rated"] == {
        "safety": {"do_not_answer": ["a:base", "a:kernel", "b:base", "b:kernel"], "gsm8k": ["a:base", "a:kernel"]}
    }
    assert found.judges["j"]["compared"] == [
        {"treatment": "a:kernel", "baseline": "a:base", "tasks": ["gsm8k"]},
        {"treatment": "b:kernel", "baseline": "b:base", "tasks": ["do_not_answer"]},
    ]
    assert counts(found)["b:kernel"] == {"unscored": 3}
    again = join_runs([("whole", found)])
    assert (again.judges, counts(again)) == (found.judges, counts(found)), "one part changes nothing"
