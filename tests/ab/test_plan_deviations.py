"""Every way in which a run can differ from its plan is one sentence, and a run that keeps to it has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lem.ab.join import join_runs
from lem.ab.plan_deviations import deviations
from lem.records import RunContents, text_sha
from made_runs import made_run

PLAN: dict[str, Any] = {
    "created": "2026-01-05T11:00:00.000+00:00",
    "arms": [
        {"name": "base", "model": "m", "model_sha": "a"},
        {"name": "json", "model": "m", "model_sha": "a", "kernel": "k.json", "kernel_sha": "k", "inject": "system"},
    ],
    "baseline": "base",
    "primary": [["v2", "json"]],
    "margins": {"v2": 1.0},
    "exclusions": [{"probe_id": "P001", "reason": "seen in training"}],
    "probes": [{"id": f"P{i:03d}", "domain": "d", "sha": text_sha(f"q {i}")[:16]} for i in range(3)],
    "n_probes": 3,
    "probe_sha": "f",
    "repeats": 2,
    "settings": {"max_tokens": 64, "temperature": 0.7, "top_p": 0.95, "seed": 42},
    "sha": "5" * 64,
}


def run(values: dict[str, list[Any]] | None = None, **options: Any) -> RunContents:
    """A run as planned: two arms, three probes, two repeats."""
    arms = {
        "base": {"model_sha": "a"},
        "json": {"model_sha": "a", "kernel": "k.json", "kernel_sha": "k", "inject": "system"},
    }
    values = values or {arm: [[1.0, 2.0], [2.0, 3.0], [3.0, 5.0]] for arm in arms}
    settings = {"max_tokens": 64, "temperature": 0.7, "top_p": 0.95, "seed": 42}
    made = made_run(
        values, **{"scorer": "v2", "domains": ["d", "d", "d"], "arms": arms, "settings": settings, **options}
    )
    records = [replace(record, ts="2026-01-05T12:00:00.000+00:00") for record in made.records]
    return replace(made, records=records, info=replace(made.info, plan=PLAN))


def info(contents: RunContents, **changes: Any) -> RunContents:
    return replace(contents, info=replace(contents.info, **changes))


def facts(contents: RunContents, arm: str, **changes: Any) -> RunContents:
    return info(contents, arms={**contents.info.arms, arm: {**contents.info.arms[arm], **changes}})


def probe(contents: RunContents, **changes: str) -> RunContents:
    first, *rest = contents.info.probes
    return info(contents, probes=[{**first, **changes}, *rest])


def test_a_run_as_planned_has_none() -> None:
    assert deviations(PLAN, run()) == []
    assert deviations(PLAN, join_runs([("run", run())])) == []


ROWS = [[1.0, 2.0], [2.0, 3.0], [3.0, 5.0]]
CASES: list[tuple[Callable[[], RunContents], list[str]]] = [
    (lambda: info(run(), plan={}), ["The run was not made under a plan; this one was named afterwards."]),
    (
        lambda: info(run(), plan={**PLAN, "sha": "6" * 64}),
        ["The run was made under another plan (hash 666666666666, this one has 555555555555)."],
    ),
    (
        lambda: replace(run(), records=[replace(r, ts="2026-01-05T10:00:00+00:00") for r in run().records]),
        [
            "The plan was made on 2026-01-05T11:00:00.000+00:00, after the first answer "
            "(2026-01-05T10:00:00+00:00)."
        ],
    ),
    (
        lambda: run({"base": ROWS[:2], "json": ROWS[:2]}, domains=["d", "d"]),
        ["1 planned probe is not in the run: P002."],
    ),
    (
        lambda: run({"base": [*ROWS, [1, 1]], "json": [*ROWS, [1, 1]]}, domains=["d"] * 4),
        ["1 probe is in the run and not in the plan: P003."],
    ),
    (lambda: probe(run(), prompt="another"), ["1 probe is asked in another text than planned: P000."]),
    (lambda: probe(run(), domain="e"), ["1 probe is in another domain than planned: P000."]),
    (lambda: probe(run(), source="P002"), ["1 probe is a variant of another probe than planned: P000."]),
    (
        lambda: facts(run(), "json", model_sha="b"),
        ["Arm 'json': the weights are not as planned."],
    ),
    (lambda: facts(run(), "json", kernel_sha="x"), ["Arm 'json': the kernel text is not as planned."]),
    (
        lambda: facts(run(), "json", inject="user"),
        ["Arm 'json': the place of the kernel is not as planned (user, planned system)."],
    ),
    (lambda: facts(run(), "base", adapter="a", adapter_sha="z"), ["Arm 'base': it has an adapter, unlike the plan."]),
    (lambda: facts(run(), "base", adapter_scale=0.5), ["Arm 'base': the adapter scale is 0.5, 1 was planned."]),
    (
        lambda: info(run(), settings={**run().info.settings, "temperature": 0.0}),
        ["temperature was 0.0, 0.7 was planned."],
    ),
    (
        lambda: facts(run(), "json", settings={**run().info.settings, "max_tokens": 8}),
        ["Arm json: max-tokens was 8, 64 was planned."],
    ),
    (lambda: run({"base": [1, 2, 3], "json": [2, 3, 4]}), ["The run has 1 repeat, 2 were planned."]),
    (
        lambda: run({"base": [*ROWS[:2], "missing"], "json": [[1.0, 2.0], "failed", [3.0, 5.0]]}),
        [
            "Arm 'base': of 6 planned answers 2 missing.",
            "Arm 'json': of 6 planned answers 1 missing and 1 failed.",
        ],
    ),
    (
        lambda: run(scorer="v3"),
        [
            "The primary metric 'v2' was not computed.",
            "The margin of 'v2' is for a metric that was not computed.",
        ],
    ),
    (
        lambda: run({"base": ROWS, "json": [[None, None]] * 3}),
        ["The primary metric 'v2' has no value in arm 'json'."],
    ),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CASES)))
def test_each_deviation_is_a_sentence(number: int) -> None:
    make, sentences = CASES[number]
    assert deviations(PLAN, make()) == sentences


def test_arms_and_baseline_that_are_not_there() -> None:
    found = deviations(PLAN, run({"json": ROWS, "txt": ROWS}, arms={"json": run().info.arms["json"]}))
    assert found[:3] == [
        "Arm 'base' was planned and is not in the run.",
        "Arm 'txt' is in the run and was not planned.",
        "The declared baseline 'base' is not in the run.",
    ]


def test_an_excluded_probe_that_was_compared() -> None:
    assert deviations(PLAN, run(), compared=["P000", "P002"]) == []
    assert deviations(PLAN, run(), compared=["P000", "P001"]) == [
        "Probe P001 was to be excluded (seen in training), but it was compared."
    ]


def test_an_adapter_that_was_trained_after_the_plan_is_no_deviation() -> None:
    arms = [PLAN["arms"][0], {**PLAN["arms"][1], "adapter": "adapters/later"}]
    made = facts(run(), "json", adapter="adapters/later", adapter_sha="z")
    assert deviations({**PLAN, "arms": arms}, made) == []


def test_a_plan_without_its_probes_is_held_against_the_file() -> None:
    short = {key: value for key, value in PLAN.items() if key != "probes"}
    made = info(run(), data={"probe_sha": "e"})
    assert deviations(short, made) == ["The probe file has another content than planned."]
    assert deviations({**short, "n_probes": 4}, run()) == ["4 probes were planned and the run has 3."]


def test_long_lists_are_cut() -> None:
    probes = [*PLAN["probes"], *({"id": f"X{i}", "domain": "d", "sha": "0"} for i in range(8))]
    found = deviations({**PLAN, "probes": probes}, run())
    assert found == ["8 planned probes are not in the run: X0, X1, X2, X3, X4 and 3 more."]
