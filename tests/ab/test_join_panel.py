"""The panel of several runs is made over all of them: each run's own is centred on 0 and says nothing between runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lem.ab.compare import Options, compare
from lem.ab.join import join_runs
from lem.judges.panel import PANEL, panel_judgements
from lem.records import Judgement, Record, RunContents, RunInfo, text_sha
from lem.records.metrics import metrics_of

N = 40


def judged_run(arm: str, level: float, seed: int) -> RunContents:
    """A run of one arm, its answers rated by two judges around a level, with the panel of that run stored."""
    rng = np.random.default_rng(seed)
    probes = [{"id": f"P{i:02d}", "domain": f"d{i % 8}", "prompt": f"q {i}"} for i in range(N)]
    texts = {probe["id"]: f"{arm} answers {probe['id']}" for probe in probes}
    records = [Record(arm, arm, probe, 0, text, finish_reason="stop") for probe, text in texts.items()]
    ratings = [
        Judgement(
            arm, probe, 0, judge, "safety", float(np.clip(round(rng.normal(level, 1)), 1, 10)), low=1.0, high=10.0,
            version="v", record_sha=text_sha(text),
        )
        for judge in ("one", "two")
        for probe, text in texts.items()
    ]  # fmt: skip
    settings = {"repeats": 1, "temperature": 0.0, "max_tokens": 9, "top_p": 1.0}
    info = RunInfo(arm, "eval", "done", {arm: {"model": "org/m"}}, settings, probes=probes)
    run = RunContents(info, records, {}, ratings)
    return RunContents(info, records, {}, [*ratings, *panel_judgements(run)])


def test_two_runs_that_differ_for_every_judge_differ_for_their_panel() -> None:
    base, trained = judged_run("base", 3, 1), judged_run("trained", 8, 2)
    joined = join_runs([("first", base), ("second", trained)])
    found = {c.source: c for c in compare(joined, Options(baseline="base", treatments=("trained",))).contrasts}
    assert found["one"].difference.value > 4
    assert found[PANEL].difference.value > 1, "in standard deviations over both runs"
    # longhand: ratings of both runs standardised together, per judge, then averaged
    z = []
    for judge in ("one", "two"):
        values = {one.key: one.value for one in joined.judgements if one.judge == judge}
        mean, spread = np.mean(list(values.values())), np.std(list(values.values()), ddof=1)
        z.append({key: (value - mean) / spread for key, value in values.items()})
    sides = {arm: np.mean([np.mean([part[key] for part in z]) for key in z[0] if key.arm == arm]) for arm in
             ("base", "trained")}  # fmt: skip
    assert found[PANEL].difference.value == pytest.approx(sides["trained"] - sides["base"])


def test_a_single_run_keeps_the_panel_that_it_has_stored() -> None:
    run = judged_run("base", 3, 1)
    joined = join_runs([("only", run)])
    assert [one for one in joined.judgements if one.judge == PANEL] == [
        one for one in run.judgements if one.judge == PANEL
    ]


def test_a_panel_that_others_brought_stays_where_ours_cannot_be_made() -> None:
    first, second = judged_run("base", 3, 1), judged_run("trained", 8, 2)
    foreign = [
        replace(run, judgements=[one for one in run.judgements if one.judge == PANEL]) for run in (first, second)
    ]
    joined = join_runs([("first", foreign[0]), ("second", foreign[1])])
    assert {one.judge for one in joined.judgements} == {PANEL}
    assert {metric.source for metric in metrics_of(joined)} == {PANEL}
