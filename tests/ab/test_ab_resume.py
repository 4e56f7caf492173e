"""A run is resumed, grown, or refused: never mixed, and never touched when refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.ab.benchmark import run_benchmark
from lem.chat import generate as engine
from lem.chat.sampling import row_seed
from lem.errors import LemError, ResumeMismatch, UserError
from lem.records import Key, lock_directory, read_run
from lem.records.run import read_manifest
from lem.runs.conduct import count_cells
from small_plan import bytes_of, cells, rows_of, small_plan, write_kernel, write_probes
from tiny import make_model


def drop_lines(run: Path, keep: Any) -> list[str]:
    """Keep the lines of records.jsonl for whose row `keep` is true; return the dropped ones."""
    file = run / "records.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if keep(json.loads(line))))
    return [line for line in lines if not keep(json.loads(line))]


def test_a_finished_run_is_complete_and_running_it_again_adds_nothing(
    tmp_path: Path, model: Path, probes: Path, kernel: Path
) -> None:
    plan = small_plan(model, probes, kernels=(f"json={kernel}",), repeats=2)
    run = tmp_path / "run"
    started: list[tuple[int, int]] = []
    outcome = run_benchmark(plan, run, on_start=lambda *counts: started.append(counts))
    assert (outcome.written, outcome.reused, outcome.failed) == (32, 0, 0)
    assert set(cells(run)) == {(arm, f"P{i:02d}", r) for arm in ("base", "json") for i in range(8) for r in range(2)}
    before = (run / "records.jsonl").read_bytes()
    again = run_benchmark(plan, run, on_start=lambda *counts: started.append(counts))
    assert (again.written, again.reused) == (0, 32)
    assert started == [(32, 32), (32, 0)]
    assert (run / "records.jsonl").read_bytes() == before
    info, records = read_run(run)
    assert info.status == "done"
    assert count_cells(info, records) == {
        "planned": 32, "answered": 32, "failed": 0, "missing": 0,
        "truncated": sum(row["finish_reason"] == "length" for row in rows_of(run)), "duplicate_repeats": 0,
        "incomplete_arms": [],
    }  # fmt: skip


def test_seeds_are_those_of_probe_and_repeat_and_equal_across_arms(
    tmp_path: Path, model: Path, probes: Path, kernel: Path
) -> None:
    run = tmp_path / "run"
    run_benchmark(small_plan(model, probes, kernels=(f"json={kernel}",), repeats=3, seed=7), run)
    found = cells(run)
    for (_, probe, repeat), row in found.items():
        assert row["seed"] == f"{row_seed(7, probe, repeat):016x}"
    assert all(found["base", p, r]["seed"] == found["json", p, r]["seed"] for _, p, r in found)
    assert len({row["seed"] for row in found.values()}) == 8 * 3
    answers = Counter(row["response"] for (arm, probe, _), row in found.items() if (arm, probe) == ("base", "P01"))
    assert len(answers) == 3


def test_any_set_of_lost_lines_is_made_again_and_the_kept_ones_stay(
    tmp_path: Path, model: Path, probes: Path, kernel: Path
) -> None:
    plan = small_plan(model, probes, kernels=(f"json={kernel}",))
    run_benchmark(plan, tmp_path / "whole" / "run")
    whole = cells(tmp_path / "whole" / "run")
    for number, lost in enumerate([{"P00"}, {"P01", "P06"}, {f"P{i:02d}" for i in range(1, 8)}]):
        run = tmp_path / str(number) / "run"
        shutil.copytree(tmp_path / "whole" / "run", run)
        dropped = drop_lines(run, lambda row, lost=lost: row["probe_id"] not in lost)
        kept = (run / "records.jsonl").read_bytes()
        outcome = run_benchmark(plan, run)
        assert outcome.written == len(dropped) == 2 * len(lost)
        assert (run / "records.jsonl").read_bytes().startswith(kept)
        assert cells(run) == whole


def test_an_interrupted_run_says_incomplete_and_goes_on(tmp_path: Path, model: Path, probes: Path) -> None:
    plan = small_plan(model, probes)
    run_benchmark(plan, tmp_path / "whole" / "run")
    run = tmp_path / "cut" / "run"
    seen: list[str] = []

    def interrupt(record: Any) -> None:
        seen.append(record.probe_id)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(plan, run, on_record=interrupt)
    assert read_manifest(run).status == "incomplete"
    assert len(rows_of(run)) == 4
    run_benchmark(plan, run)
    assert read_manifest(run).status == "done"
    assert cells(run) == cells(tmp_path / "whole" / "run")


def other_text(plan: Any, tmp_path: Path) -> Any:
    changed = [replace(probe, prompt=probe.prompt + " now") if probe.id == "P03" else probe for probe in plan.probes]
    return replace(plan, probes=tuple(changed))


def other_kernel(plan: Any, tmp_path: Path) -> Any:
    arms = [
        replace(arm, kernel=replace(arm.kernel, text="Another kernel.")) if arm.kernel else arm for arm in plan.arms
    ]
    return replace(plan, arms=tuple(arms))


def other_weights(plan: Any, tmp_path: Path) -> Any:
    model = make_model(tmp_path / "other", "llama", seed=3)
    return replace(plan, arms=tuple(replace(arm, model=str(model)) for arm in plan.arms))


CONTRADICTIONS: dict[str, Any] = {
    "max_tokens": lambda plan, _: replace(plan, settings=replace(plan.settings, max_tokens=7)),
    "temperature": lambda plan, _: replace(plan, settings=replace(plan.settings, temperature=0.8)),
    "top_p": lambda plan, _: replace(plan, settings=replace(plan.settings, top_p=0.9)),
    "seed": lambda plan, _: replace(plan, seed=43),
    "injection": lambda plan, _: replace(plan, inject="user"),
    "probe text": other_text,
    "probe domain": lambda plan, _: replace(plan, probes=(replace(plan.probes[0], domain="x"), *plan.probes[1:])),
    "kernel text": other_kernel,
    "weights": other_weights,
    "group size": lambda plan, _: replace(plan, group_size=1),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "begun"])
def test_a_plan_that_contradicts_a_run_is_refused_and_touches_nothing(
    tmp_path: Path, model: Path, probes: Path, kernel: Path, what: str, finished: bool
) -> None:
    plan = small_plan(model, probes, kernels=(f"json={kernel}",), max_tokens=3, limit=4)
    run = tmp_path / "run"
    run_benchmark(plan, run)
    if not finished:
        drop_lines(run, lambda row: row["arm"] == "base" or row["probe_id"] == "P02")
    before = bytes_of(run)
    with pytest.raises(ResumeMismatch, match="give a new --output, nothing was touched"):
        run_benchmark(CONTRADICTIONS[what](plan, tmp_path), run)
    assert bytes_of(run) == before
    run_benchmark(plan, run)
    assert read_manifest(run).status == "done"


def test_an_arm_of_one_name_with_other_weights_is_refused_before_its_first_record(
    tmp_path: Path, model: Path, probes: Path
) -> None:
    plan = small_plan(model, probes, max_tokens=2)
    run = tmp_path / "run"
    run_benchmark(plan, run)
    drop_lines(run, lambda row: False)
    before = bytes_of(run)
    with pytest.raises(
        ResumeMismatch, match=r"arm 'base' was made with other weights .*; give a new --output, nothing was touched"
    ):
        run_benchmark(other_weights(plan, tmp_path), run)
    assert bytes_of(run) == before


def test_greedy_runs_do_not_depend_on_the_seed(tmp_path: Path, model: Path, probes: Path) -> None:
    plan = small_plan(model, probes, temperature=0.0, max_tokens=3)
    run_benchmark(plan, tmp_path / "run")
    assert run_benchmark(replace(plan, seed=43), tmp_path / "run").written == 0


def test_a_row_that_comes_out_differently_is_an_error(tmp_path: Path, model: Path, probes: Path) -> None:
    plan = small_plan(model, probes)
    run = tmp_path / "run"
    run_benchmark(plan, run)
    group = next(group for group in read_manifest(run).groups.values() if len(group["probes"]) == 3)
    tampered, lost = group["probes"][0], group["probes"][1]
    rows = [row for row in rows_of(run) if row["probe_id"] != lost]
    for row in rows:
        if row["probe_id"] == tampered:
            row["response"] = "Something the model never said."
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(LemError, match=rf"arm 'base', probe {tampered}, repeat 0 came out differently"):
        run_benchmark(plan, run)
    assert read_manifest(run).status == "incomplete"
    kept = {row["probe_id"]: row["response"] for row in rows_of(run)}
    assert kept[tampered] == "Something the model never said."


def test_failed_rows_are_retried_and_healed(
    tmp_path: Path, model: Path, probes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_plan(model, probes)
    run_benchmark(plan, tmp_path / "whole" / "run")
    run = tmp_path / "broken" / "run"
    groups: list[int] = []
    real = engine._decode

    def broken_second_group(*args: Any) -> Any:
        groups.append(1)
        if len(groups) == 2:
            raise RuntimeError("out of memory")
        return real(*args)

    monkeypatch.setattr(engine, "_decode", broken_second_group)
    outcome = run_benchmark(plan, run)
    assert (outcome.written, outcome.failed) == (8, 3)
    failed = [row for row in rows_of(run) if row["error"]]
    assert {row["error"] for row in failed} == {"RuntimeError: out of memory"}
    assert {(row["response"], row["n_tokens"], row["finish_reason"]) for row in failed} == {(None, None, None)}
    info, records = read_run(run)
    assert info.status == "incomplete"
    counts = count_cells(info, records)
    assert (counts["failed"], counts["answered"], counts["missing"]) == (3, 5, 0)
    assert run_benchmark(plan, run).written == 3
    assert cells(run) == cells(tmp_path / "whole" / "run")
    assert read_manifest(run).status == "done"


def test_growing_keeps_every_old_row_byte_for_byte(tmp_path: Path, model: Path, probes: Path, kernel: Path) -> None:
    run = tmp_path / "run"
    json_arm = (f"json={kernel}",)
    steps = [
        (small_plan(model, probes, limit=4), 4),
        (small_plan(model, probes, limit=8), 4),
        (small_plan(model, probes, limit=8, repeats=2), 8),
        (small_plan(model, probes, kernels=json_arm), 16),
        (small_plan(model, probes, kernels=json_arm, limit=2), 0),
        (small_plan(model, probes, kernels=json_arm, group_size=None), 0),
    ]
    held, groups = b"", {}
    for plan, added in steps:
        assert run_benchmark(plan, run).written == added
        now = (run / "records.jsonl").read_bytes()
        assert now.startswith(held)
        info = read_manifest(run)
        assert {name: info.groups[name] for name in groups} == groups
        assert info.group_size == 3
        held, groups = now, info.groups
    assert len(cells(run)) == 32
    assert len(read_manifest(run).probes) == 8
    assert count_cells(*read_run(run))["missing"] == 0
    assert {group["repeat"] for group in groups.values() if group["arm"] == "json"} == {0, 1}


def test_probes_of_another_file_are_added(tmp_path: Path, model: Path, probes: Path) -> None:
    run = tmp_path / "run"
    run_benchmark(small_plan(model, probes, limit=3, max_tokens=2), run)
    more = json.loads(write_probes(tmp_path / "more.json", 3, "say").read_text())
    (tmp_path / "more.json").write_text(json.dumps([{**probe, "id": f"X{probe['id']}"} for probe in more]))
    assert run_benchmark(small_plan(model, tmp_path / "more.json", max_tokens=2), run).written == 3
    assert {probe for _, probe, _ in cells(run)} == {"P00", "P01", "P02", "XP00", "XP01", "XP02"}


def test_each_set_of_weights_is_loaded_once(tmp_path: Path, model: Path, probes: Path, kernel: Path) -> None:
    text = write_kernel(tmp_path / "lek.txt")
    loaded: list[str] = []
    plan = small_plan(model, probes, kernels=(str(kernel), str(text)), max_tokens=2, repeats=2)
    run_benchmark(plan, tmp_path / "run", on_load=loaded.append)
    assert loaded == [str(model)]
    run_benchmark(plan, tmp_path / "run", on_load=loaded.append)
    assert loaded == [str(model)], "nothing missing, nothing loaded"


def test_a_run_in_use_is_refused(tmp_path: Path, model: Path, probes: Path) -> None:
    with lock_directory(tmp_path / "run"), pytest.raises(UserError, match="in use by another process"):
        run_benchmark(small_plan(model, probes), tmp_path / "run")


def test_a_first_attempt_with_a_wrong_model_does_not_block_the_second(
    tmp_path: Path, model: Path, probes: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="no such model"):
        run_benchmark(small_plan(tmp_path / "nothing", probes), run)
    assert run_benchmark(small_plan(model, probes, max_tokens=2), run).written == 8


def test_records_hold_what_was_asked_and_what_came_back(
    tmp_path: Path, model: Path, probes: Path, kernel: Path
) -> None:
    run = tmp_path / "run"
    run_benchmark(small_plan(model, probes, kernels=(f"json={kernel}",), limit=3), run)
    info, records = read_run(run)
    for record in records:
        prompt = next(probe["prompt"] for probe in info.probes if probe["id"] == record.probe_id)
        system = [{"role": "system", "content": kernel.read_text().strip()}] if record.arm == "json" else []
        assert list(record.messages) == [*system, {"role": "user", "content": prompt}]
        assert record.key in {Key(g["arm"], p, g["repeat"]) for g in [info.groups[record.group]] for p in g["probes"]}
        assert record.n_tokens is not None
        assert record.n_tokens <= 6
        assert (record.finish_reason == "length") == (record.n_tokens == 6)
        assert record.run_id == "run"
    assert info.arms["json"]["kernel_sha"]
    assert info.arms["base"]["model_sha"] == info.arms["json"]["model_sha"]
    assert len({record.fingerprint for record in records}) == 6


def test_cells_are_counted_by_outcome(tmp_path: Path, model: Path, probes: Path) -> None:
    run = tmp_path / "run"
    run_benchmark(small_plan(model, probes, repeats=3), run)
    rows = rows_of(run)
    lost, broken, doubled = rows[0], rows[1], rows[5]
    twin = next(row for row in rows[6:] if row["probe_id"] == doubled["probe_id"])
    broken.update(response=None, error="RuntimeError: out of memory", finish_reason=None)
    doubled["response"] = twin["response"]
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row is not lost))
    left = [row for row in rows if row is not lost]
    assert count_cells(*read_run(run)) == {
        "planned": 24, "answered": 22, "failed": 1, "missing": 1, "duplicate_repeats": 1,
        "incomplete_arms": ["base"],
        "truncated": sum(row["finish_reason"] == "length" for row in left),
    }  # fmt: skip


def test_equal_greedy_repeats_are_no_duplicates(tmp_path: Path, model: Path, probes: Path) -> None:
    run_benchmark(small_plan(model, probes, repeats=2, temperature=0.0, max_tokens=2), tmp_path / "run")
    info, records = read_run(tmp_path / "run")
    assert len({(record.probe_id, record.response) for record in records}) == 8
    assert count_cells(info, records)["duplicate_repeats"] == 0
