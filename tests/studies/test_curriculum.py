"""The curriculum's decisions, its resume after a kill at any moment, and its refusals; the slow parts only pretend."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_curriculum import Killed, Pretence, decisions, phase, without_times

from lem.ab.benchmark import run_benchmark
from lem.config import load_config
from lem.errors import DataError, Incomplete, ResumeMismatch, UserError
from lem.records import read_jsonl
from lem.runs.plan import RunPlan
from lem.studies.curriculum import run_curriculum
from lem.studies.curriculum_arms import arms_of, evaluate
from lem.studies.curriculum_plan import CurriculumPlan, make_plan
from lem.studies.curriculum_state import Attempt, Position, decide, replay

ROOT = Path(__file__).resolve().parents[2]
PlanOf = Callable[..., CurriculumPlan]
BITING = {"gate": "biting-point", "phase": 2, "margin": 1, "on_fail": "back-to-diverged"}
TARGET = {"value": 18}
SIX = [
    phase(0, "sandwich", target=TARGET, max_attempts=3, on_fail="repeat", repeat={"iters": {"times": 1.5}}),
    phase(1, max_attempts=2),
    phase(2, "sandwich", max_attempts=2),
    phase(3, gates=[BITING], max_attempts=2),
    phase(4, gates=[{"gate": "creative-lock", "margin": 1}]),
]
# Phase 0 needs a second attempt; phase 1 falls by 3, which phase 3 pays for: back to 1, after which all is well.
LEVELS = {
    "base": 15.0, "base+sandwich": 16.0,
    "phase-0.1": 17.0, "phase-0.1+sandwich": 17.5, "phase-0.2": 18.0, "phase-0.2+sandwich": 18.5,
    "phase-1.1": 15.0, "phase-2.1": 16.0, "phase-2.1+sandwich": 19.0, "phase-3.1": 16.5,
    "phase-1.2": 18.0, "phase-2.2": 18.5, "phase-2.2+sandwich": 19.0, "phase-3.2": 19.0, "phase-4.1": 19.0,
}  # fmt: skip
STORY = [
    ("0.1", "repeat"), ("0.2", "go-on"), ("1.1", "go-on"), ("2.1", "go-on"), ("3.1", "back"), ("1.2", "go-on"),
    ("2.2", "go-on"), ("3.2", "go-on"), ("4.1", "go-on"),
]  # fmt: skip


def log_of(plan: CurriculumPlan) -> list[dict[str, Any]]:
    return without_times(read_jsonl(plan.output / "curriculum.jsonl")[0])


def test_repeat_and_back_to_where_the_scores_fell(plan_of: PlanOf) -> None:
    plan, pretence = plan_of(*SIX), Pretence(LEVELS)
    outcome = run_curriculum(plan, pretence.stages())
    assert decisions(outcome.rows) == STORY
    assert outcome.position.finished
    assert [attempt.label for attempt in outcome.position.chain] == ["0.2", "1.2", "2.2", "3.2", "4.1"]
    parents = {(row["phase"], row["attempt"]): row["parent"] for row in outcome.rows if row["kind"] == "decision"}
    assert parents[(0, 1)] == parents[(0, 2)] == "base"
    assert parents[(1, 1)] == parents[(1, 2)] == "0.2"
    assert parents[(2, 1)] == "1.1"
    assert parents[(2, 2)] == "1.2"
    fell = next(row for row in outcome.rows if row.get("action") == "back")
    assert fell["next_phase"] == 1
    assert "back" not in fell["sentence"]
    weights = (plan.folder(Attempt(4, 1)) / "adapters.safetensors").read_text()
    assert weights == (
        "base > phase 0.2 p0 6 43 > phase 1.2 p1 4 43 > phase 2.2 p2 4 43 > phase 3.2 p3 4 43 > phase 4.1 p4 4 42"
    )


def test_each_training_gets_its_form_data_and_seed(plan_of: PlanOf) -> None:
    plan, pretence = plan_of(*SIX), Pretence(LEVELS)
    run_curriculum(plan, pretence.stages())
    first, again = pretence.jobs[0], pretence.jobs[1]
    assert first.sandwich is not None
    assert first.sandwich.kernel == plan.kernel.text  # type: ignore[union-attr]
    assert first.sandwich.signature == "So it was said."
    assert (first.settings.iters, first.settings.seed, first.settings.format) == (4, 42, "sandwich")
    assert (again.settings.iters, again.settings.seed) == (6, 43)
    assert pretence.jobs[2].sandwich is None
    assert sorted(file.name for file in first.data.iterdir()) == ["train.jsonl", "valid.jsonl"]
    assert (first.data / "train.jsonl").read_bytes() == plan.data[0].train.read_bytes()
    assert [file.name for file in pretence.jobs[2].data.iterdir()] == ["train.jsonl"]  # phase 1 names a file


def test_every_arm_is_asked_once_and_the_base_first(plan_of: PlanOf) -> None:
    plan, pretence = plan_of(*SIX), Pretence(LEVELS)
    run_curriculum(plan, pretence.stages())
    assert pretence.asked[0] == ["base", "base+sandwich"]
    asked = [name for names in pretence.asked for name in names]
    assert sorted(asked) == sorted(LEVELS)


# Both turns of the story above, in fewer steps.
SHORT = [
    phase(0, "sandwich", target=TARGET, max_attempts=2, on_fail="repeat"),
    phase(1, max_attempts=2),
    phase(2, gates=[{**BITING, "phase": 0}], max_attempts=2),
]
SHORT_LEVELS = {
    "base": 15.0, "base+sandwich": 16.0, "phase-0.1": 16.0, "phase-0.1+sandwich": 17.0, "phase-0.2": 18.0,
    "phase-0.2+sandwich": 18.0, "phase-1.1": 15.0, "phase-2.1": 16.0, "phase-1.2": 18.0, "phase-2.2": 18.0,
}  # fmt: skip


def test_a_kill_at_any_moment_changes_nothing_in_the_end(
    plan_of: PlanOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lem.studies.curriculum_summary.draw_curriculum", lambda *_: None)  # half a second each
    whole, undisturbed = plan_of(*SHORT), Pretence(SHORT_LEVELS)
    run_curriculum(whole, undisturbed.stages())
    expected, files = log_of(whole), _files(whole.output)
    assert [action for _, action in decisions(expected)] == ["repeat", "go-on", "go-on", "back", "go-on", "go-on"]
    for moment in range(1, undisturbed.moments + 1):
        plan = replace(whole, output=tmp_path / f"killed-{moment}")
        with pytest.raises(Killed):
            run_curriculum(plan, Pretence(SHORT_LEVELS, kill_at=moment).stages())
        run_curriculum(plan, Pretence(SHORT_LEVELS).stages())
        assert log_of(plan) == expected, f"killed at moment {moment}"
        assert _files(plan.output) == files, f"killed at moment {moment}"


def _files(folder: Path) -> dict[str, bytes]:
    kept = ("adapters.safetensors", "train.jsonl", "curriculum.md")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.name in kept}


def test_killed_again_and_again_it_still_arrives(plan_of: PlanOf) -> None:
    plan, starts = plan_of(*SHORT), 0
    position = Position(next=Attempt(0, 1))
    while not position.finished and starts < 100:
        starts += 1
        with suppress(Killed):  # every start gets a few moments further and dies
            position = run_curriculum(plan, Pretence(SHORT_LEVELS, kill_at=8).stages()).position
    assert starts > 5
    assert position.finished


def test_a_stop_is_final_and_says_which_gate(plan_of: PlanOf) -> None:
    plan = plan_of(phase(0, target={"value": 18}, max_attempts=2, on_fail="repeat"), phase(1))
    levels = {"base": 15.0, "phase-0.1": 17.0, "phase-0.2": 17.5}
    outcome = run_curriculum(plan, Pretence(levels).stages())
    assert decisions(outcome.rows) == [("0.1", "repeat"), ("0.2", "stop")]
    assert outcome.position.stopped
    assert "target" in outcome.rows[-1]["sentence"]
    assert "no attempt left of 2" in outcome.rows[-1]["sentence"]
    again = Pretence(levels)
    assert run_curriculum(plan, again.stages()).position.stopped
    assert (again.jobs, again.asked) == ([], [])


def test_back_stops_before_it_trains_when_a_phase_on_the_way_has_no_attempt_left(plan_of: PlanOf) -> None:
    phases = [{**one, "max_attempts": 1} if one["number"] == 2 else one for one in SIX]
    outcome = run_curriculum(plan_of(*phases), Pretence(LEVELS).stages())
    assert decisions(outcome.rows)[-1] == ("3.1", "stop")
    assert "sends the run back to phase 1" in outcome.rows[-1]["sentence"]
    assert "phase 2 has no attempt left of 1" in outcome.rows[-1]["sentence"]


def test_where_nothing_fell_the_phase_itself_is_repeated(plan_of: PlanOf) -> None:
    levels = {**LEVELS, "phase-1.1": 18.0, "phase-2.1": 18.0, "phase-2.1+sandwich": 21.0, "phase-3.1": 18.2}
    outcome = run_curriculum(plan_of(*SIX), Pretence({**levels, "phase-3.2": 20.5}).stages())
    assert decisions(outcome.rows)[3:6] == [("2.1", "go-on"), ("3.1", "repeat"), ("3.2", "go-on")]


def test_the_creative_lock_stops_a_run(plan_of: PlanOf) -> None:
    lock = phase(0, gates=[{"gate": "creative-lock", "margin": 1}])
    fell = run_curriculum(plan_of(lock), Pretence({"base": 15.0, "phase-0.1": 13.5}).stages())
    assert decisions(fell.rows) == [("0.1", "stop")]


def test_degeneration_counts_in_the_worst_form_of_asking(plan_of: PlanOf) -> None:
    plan = plan_of(phase(0, "sandwich", gates=[{"gate": "degeneration", "at_most": 0.3}]))
    levels = {"base": 1.0, "base+sandwich": 1.0, "phase-0.1": 1.0, "phase-0.1+sandwich": 1.0}
    outcome = run_curriculum(plan, Pretence(levels, degenerate={"phase-0.1": 2}).stages())
    (gate,) = outcome.rows[-1]["gates"]
    assert not gate["passed"]
    assert gate["estimate"]["value"] == pytest.approx(2 / 6)
    assert decisions(outcome.rows) == [("0.1", "stop")]


def test_chosen_phases_run_alone_and_need_the_ones_before(plan_of: PlanOf) -> None:
    plan, levels = plan_of(phase(0), phase(1), phase(2)), {"base": 1.0} | {f"phase-{n}.1": 2.0 for n in range(3)}
    with pytest.raises(UserError, match="phase 1 continues phase 0, which has not passed"):
        run_curriculum(plan, Pretence(levels).stages(), only=[1])
    with pytest.raises(UserError, match="--phase 9: no such phase"):
        run_curriculum(plan, Pretence(levels).stages(), only=[9])
    first = run_curriculum(plan, Pretence(levels).stages(), only=[0])
    assert decisions(first.rows) == [("0.1", "go-on")]
    assert first.position.next == Attempt(1, 1)
    rest = run_curriculum(plan, Pretence(levels).stages(), only=[1, 2])
    assert rest.position.finished


def test_a_way_back_to_a_phase_that_was_not_chosen_is_incomplete(plan_of: PlanOf) -> None:
    plan = plan_of(*SIX)
    for only in ([0], [1], [2]):
        run_curriculum(plan, Pretence(LEVELS).stages(), only=only)
    with pytest.raises(Incomplete, match=r"phase 1 is to be trained again \(attempt 2\)"):
        run_curriculum(plan, Pretence(LEVELS).stages(), only=[3])
    assert run_curriculum(plan, Pretence(LEVELS).stages()).position.finished


@pytest.mark.parametrize(
    ("file", "word", "part"),
    [
        ("data/train.jsonl", "Aye", "data of phase 0"),
        ("data/valid.jsonl", "Aye", "validation data of phase 0"),
        ("axioms.json", "Hold", "kernel"),
        ("sig.txt", "said", "signature"),
        ("probes.json", "ask", "set of probes"),
    ],
)
def test_a_changed_file_is_refused_by_name(plan_of: PlanOf, world: Path, file: str, word: str, part: str) -> None:
    phases = [phase(0, "sandwich"), phase(1)]
    levels = {"base": 1.0, "base+sandwich": 1.0, "phase-0.1": 1.0, "phase-0.1+sandwich": 1.0, "phase-1.1": 1.0}
    plan = plan_of(*phases)
    run_curriculum(plan, Pretence(levels).stages(), only=[0])
    before = log_of(plan)
    path = world / file
    path.write_text(path.read_text().replace(word, "now", 1))
    pretence = Pretence(levels)
    with pytest.raises(ResumeMismatch, match=f"started with another version of {part};"):
        run_curriculum(plan_of(*phases), pretence.stages())
    assert pretence.moments == 0
    assert log_of(plan) == before


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"max_tokens": 9}, "settings of generation"),
        ({"limit": 5}, "set of probes"),
        ({"quick": True}, "--quick"),
        ({"keys": {"seed": 1, "quick": {"iters": 1, "probes": "probes.json"}}}, "curriculum file"),
    ],
)
def test_changed_options_are_refused_by_name(plan_of: PlanOf, options: dict[str, Any], part: str) -> None:
    quick = {"quick": {"iters": 1, "probes": "probes.json"}}
    run_curriculum(plan_of(phase(0), keys=quick), Pretence({"base": 1.0, "phase-0.1": 1.0}).stages())
    with pytest.raises(ResumeMismatch, match=part):
        run_curriculum(plan_of(phase(0), **{"keys": quick, **options}), Pretence({}).stages())


def test_another_base_model_is_refused(plan_of: PlanOf) -> None:
    plan = plan_of(phase(0))
    run_curriculum(plan, Pretence({"base": 1.0, "phase-0.1": 1.0}).stages())
    other = replace(plan, identity={**plan.identity, "the base model": "0" * 64})
    with pytest.raises(ResumeMismatch, match="another version of base model"):
        run_curriculum(other, Pretence({}).stages())


def test_an_output_that_holds_something_else_is_left_alone(plan_of: PlanOf, world: Path) -> None:
    (world / "run").mkdir()
    (world / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds no curriculum\.jsonl"):
        run_curriculum(plan_of(phase(0)), Pretence({}).stages())
    assert [entry.name for entry in (world / "run").iterdir()] == ["notes.txt"]


def test_a_log_of_something_else_is_left_alone(plan_of: PlanOf, world: Path) -> None:
    (world / "run").mkdir()
    (world / "run" / "curriculum.jsonl").write_text('{"kind": "train"}\n')
    with pytest.raises(UserError, match="is not the log of a curriculum"):
        run_curriculum(plan_of(phase(0)), Pretence({}).stages())
    assert (world / "run" / "curriculum.jsonl").read_text() == '{"kind": "train"}\n'


def test_missing_answers_are_incomplete_and_go_on(plan_of: PlanOf) -> None:
    plan = plan_of(phase(0, "sandwich"))

    def some(asked: RunPlan, run: Path) -> None:
        run_benchmark(replace(asked, probes=asked.probes[:4]), run)

    with pytest.raises(Incomplete, match="2 of 6 answers of arm 'base' failed or are missing"):
        evaluate(plan, arms_of(plan, None), some)
    measures = evaluate(plan, arms_of(plan, None))
    assert {name: found.n_answers for name, found in measures.items()} == {"base": 6, "base+sandwich": 6}


@pytest.mark.parametrize("name", ["curriculum.yaml", "curriculum.nano.yaml"])
def test_the_files_that_ship_are_ready_to_run(name: str, tmp_path: Path) -> None:
    config = load_config(ROOT / "lem.config.json", {})
    seeds = [Path(config.seeds_dir)]
    plan = make_plan(config, ROOT / "training" / name, config.default_model, tmp_path / "run", seeds=seeds)
    assert {number: data.n_examples for number, data in plan.data.items()} == {0: 160, 1: 6, 2: 24, 3: 24, 4: 24, 5: 24}
    assert len(plan.probes) == (21 if "nano" in name else 101)
    assert not plan.output.exists()


def test_probes_in_training_data_are_found_before_anything_starts(plan_of: PlanOf, world: Path) -> None:
    prompt = json.loads((world / "probes.json").read_text())[2]["prompt"]
    line = {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": "Aye."}]}
    with (world / "first.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=r"first\.jsonl line 5 shares 6 words in a row with evaluation probe P02"):
        plan_of(phase(0), phase(1))


def test_rephrased_probes_are_refused_before_anything_starts(plan_of: PlanOf, world: Path) -> None:
    entries = json.loads((world / "probes.json").read_text())
    (world / "probes.json").write_text(json.dumps([{**entries[0], "source": "P00"}, *entries[1:]]))
    with pytest.raises(UserError, match="is a rephrasing of P00"):
        plan_of(phase(0))


def test_too_few_probes_for_a_gate_are_found_before_anything_starts(plan_of: PlanOf) -> None:
    with pytest.raises(UserError, match="one probe gives no interval"):
        plan_of(phase(0), limit=1)
    with pytest.raises(UserError, match="needs two probes of the domain 'creative', and these 5 probes have 1"):
        plan_of(phase(0, gates=[{"gate": "creative-lock", "margin": 1}]), limit=5)
    with pytest.raises(UserError, match="no section 'quick'"):
        plan_of(phase(0), quick=True)


def test_the_strictest_wish_of_several_failed_gates_counts() -> None:
    at = Position(chain=(Attempt(0, 1), Attempt(1, 1)), made={0: 1, 1: 1}, next=Attempt(2, 1))
    limits = {0: 2, 1: 2, 2: 2}

    def action(*failed: Any, diverged: int | None = 1) -> tuple[str, int | None]:
        decision = decide(at, [0, 1, 2], limits, failed, diverged)
        return decision.action, decision.phase

    assert action() == ("go-on", None)
    assert action(("a", "repeat")) == ("repeat", 2)
    assert action(("a", "repeat"), ("b", "back-to-diverged")) == ("back", 1)
    assert action(("a", "back-to-diverged"), diverged=None) == ("repeat", 2)
    assert action(("a", "stop"), ("b", "back-to-diverged")) == ("stop", None)


def test_the_log_alone_says_where_a_run_stands() -> None:
    def row(label: str, action: str, following: int | None) -> dict[str, Any]:
        number, attempt = map(int, label.split("."))
        return {"phase": number, "attempt": attempt, "action": action, "next_phase": following}

    rows = [row("0.1", "go-on", 1), row("1.1", "repeat", 1), row("1.2", "go-on", 5), row("5.1", "back", 0)]
    assert replay([], [0, 1, 5]).next == Attempt(0, 1)
    assert replay(rows[:2], [0, 1, 5]).next == Attempt(1, 2)
    assert replay(rows[:3], [0, 1, 5]).chain == (Attempt(0, 1), Attempt(1, 2))
    assert replay(rows, [0, 1, 5]).next == Attempt(0, 2)
    assert replay(rows, [0, 1, 5]).chain == ()
    ended = replay([*rows, row("0.2", "stop", None)], [0, 1, 5])
    assert (ended.next, ended.stopped, ended.finished) == (None, True, False)
