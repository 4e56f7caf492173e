"""Several benchmarks as one run: tasks and items are added, answers and measured choices resume to the same records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lem.ab.arms import build_arms
from lem.ab.values import arm_values
from lem.benchmarks.plan import MAX_TOKENS, benchmark_plan, check_tasks, judged_tasks, run_benchmarks
from lem.benchmarks.scoring import score_benchmarks
from lem.chat.generate import GenerationSettings
from lem.data.items import Item, read_run_items
from lem.errors import ResumeMismatch, UserError
from lem.judges.calls import judged_records
from lem.judges.pairwise.pairs import pairs_of
from lem.records import metrics_of, read_run
from lem.records.cells import Outcome
from lem.records.contents import read_contents
from lem.records.model import LIKELIHOOD
from lem.runs.conduct import count_cells
from lem.runs.plan import RunPlan
from lem.scorers.passes import score_run
from small_plan import cells, rows_of
from tiny import make_model

LISTED = {"best_answer": "Rain.", "correct_answers": ["Rain.", "It rains."], "incorrect_answers": ["Snow.", "Ash."]}
ITEMS = {
    "gsm8k": [Item(f"g{n}", "gsm8k", f"What is {n} + 3?", "sums", {"correct_answer": str(n + 3)}) for n in range(3)],
    "truthfulqa_mc": [
        Item(f"m{n}-mc", "truthfulqa_mc", "What falls " + "down " * n + "there?", "sky", LISTED) for n in range(5)
    ],
    "ethics": [Item(f"e{n}", "ethics", f"What is owed to {n} strangers?", "care") for n in range(2)],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("plan") / "tiny-llama", "llama")


def a_plan(
    model: Path, items: Mapping[str, Sequence[Item]] = ITEMS, max_tokens: int | None = 4, **rest: Any
) -> RunPlan:
    sources = {task: {"source": "ours", "path": f"{task}.jsonl"} for task in items}
    settings = GenerationSettings(max_tokens or MAX_TOKENS, 0.9)
    return benchmark_plan(
        build_arms(str(model)), items, sources=sources, settings=settings, max_tokens=max_tokens,
        **{"group_size": 2, **rest},
    )  # fmt: skip


def only(*tasks: str) -> dict[str, list[Item]]:
    return {task: ITEMS[task] for task in tasks}


def test_an_unknown_task_is_a_sentence_with_the_known() -> None:
    with pytest.raises(UserError) as refused:
        check_tasks(["gsm8k", "mmlu"])
    for word in (
        "'mmlu'",
        "gsm8k",
        "truthfulqa",
        "truthfulqa_mc",
        "do_not_answer",
        "toxigen",
        "ethics",
        "over_refusal",
    ):
        assert word in str(refused.value)
    with pytest.raises(UserError, match="no task was named"):
        check_tasks([])
    assert check_tasks(["toxigen", "gsm8k", "toxigen"]) == ["toxigen", "gsm8k"]
    assert judged_tasks(["gsm8k", "toxigen", "truthfulqa_mc", "truthfulqa", "over_refusal"]) == [
        "toxigen",
        "truthfulqa",
    ]


def test_every_item_has_the_limit_of_its_benchmark_unless_one_is_given(model: Path) -> None:
    own = {probe.id: probe.max_tokens for probe in a_plan(model, max_tokens=None).probes}
    assert own["g0"] == 512
    assert own["e0"] is None, "the limit in the settings"
    given = a_plan(model, max_tokens=7)
    assert {probe.max_tokens for probe in given.probes if not probe.choices} == {7}
    assert given.settings.max_tokens == 7


def test_an_id_of_two_items_is_refused(model: Path) -> None:
    twin = Item("g1", "ethics", "Another question?")
    with pytest.raises(UserError, match="'g1' stands for an item of gsm8k and one of ethics"):
        a_plan(model, {**only("gsm8k"), "ethics": [twin]})


def test_the_default_folder_is_the_same_for_any_tasks_and_items(model: Path) -> None:
    hashes = {a_plan(model, only(task)).short_hash for task in ITEMS}
    assert len(hashes) == 1
    assert a_plan(model, max_tokens=5).short_hash not in hashes


def test_tasks_join_one_run_and_keep_what_was_there(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_benchmarks(a_plan(model, only("gsm8k")), run)
    first = (run / "records.jsonl").read_bytes()
    outcome = run_benchmarks(a_plan(model, only("truthfulqa_mc", "ethics")), run)
    assert (outcome.written, outcome.failed) == (7, 0)
    assert (run / "records.jsonl").read_bytes().startswith(first)
    info, records = read_run(run)
    assert (info.kind, info.status) == ("eval", "done")
    assert [entry["id"] for entry in info.probes] == [item.id for found in ITEMS.values() for item in found]
    assert {entry["benchmark"] for entry in info.probes} == set(ITEMS)
    assert list(read_run_items(run)) == [entry["id"] for entry in info.probes]
    assert {task: facts["n"] for task, facts in info.data["tasks"].items()} == {
        "gsm8k": 3, "truthfulqa_mc": 5, "ethics": 2,
    }  # fmt: skip
    assert count_cells(info, records)["missing"] == 0
    again = run_benchmarks(a_plan(model, only("gsm8k")), run)
    assert (again.written, again.reused) == (0, 10)


def test_more_items_of_a_task_join_and_fewer_take_nothing_away(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_benchmarks(a_plan(model, {"gsm8k": ITEMS["gsm8k"][:1]}), run)
    run_benchmarks(a_plan(model, only("gsm8k")), run)
    assert len(rows_of(run)) == 3
    whole = read_run(run)[0].data["tasks"]["gsm8k"]
    assert whole["n"] == 3
    run_benchmarks(a_plan(model, {"gsm8k": ITEMS["gsm8k"][:1]}), run)
    info = read_run(run)[0]
    assert len(info.probes) == len(read_run_items(run)) == 3
    assert info.data["tasks"]["gsm8k"] == whole, "the manifest tells of all items that the run holds"


def test_another_content_of_an_item_is_refused_and_changes_nothing(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_benchmarks(a_plan(model, only("gsm8k")), run)
    files = {file.name: file.read_bytes() for file in run.iterdir() if file.name != ".lock"}
    other = {"gsm8k": [Item("g0", "gsm8k", "What is 0 + 3?", "sums", {"correct_answer": "4"})]}
    with pytest.raises(ResumeMismatch, match="another item 'g0'"):
        run_benchmarks(a_plan(model, other), run)
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.name != ".lock"} == files


def test_what_was_met_in_training_is_remembered_when_the_run_grows(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = a_plan(model, only("gsm8k"))
    first.data.update({"contaminated": {"g1": ["adapters/a"]}, "contaminated_excluded": False})
    run_benchmarks(first, run)
    run_benchmarks(a_plan(model, only("ethics")), run)
    assert read_run(run)[0].data["contaminated"] == {"g1": ["adapters/a"]}


def test_items_cannot_be_excluded_that_were_answered_already(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_benchmarks(a_plan(model, only("gsm8k")), run)
    without = a_plan(model, {"gsm8k": ITEMS["gsm8k"][:1]})
    without.data.update({"contaminated": {"g1": ["adapters/a"]}, "contaminated_excluded": True})
    before = (run / "run.json").read_bytes()
    with pytest.raises(ResumeMismatch, match=r"holds 'g1'.*--output"):
        run_benchmarks(without, run)
    assert (run / "run.json").read_bytes() == before


def test_choices_are_measured_once_for_all_repeats(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_benchmarks(a_plan(model, repeats=2), run)
    counts: dict[str, int] = {}
    for row in rows_of(run):
        counts[row["probe_id"]] = counts.get(row["probe_id"], 0) + 1
        if row["finish_reason"] == LIKELIHOOD:
            found = json.loads(row["response"])
            assert len(found["loglikelihoods"]) == len(found["n_tokens"]) == 4
            assert all(value < 0 for value in found["loglikelihoods"])
    assert counts == {**{f"g{n}": 2 for n in range(3)}, **{f"m{n}-mc": 1 for n in range(5)}, "e0": 2, "e1": 2}
    info, records = read_run(run)
    assert count_cells(info, records)["missing"] == 0
    groups = [group["probes"] for group in info.groups.values()]
    assert all(len({"-mc" in probe for probe in probes}) == 1 for probes in groups), "measured apart from answered"


class Stop(Exception):
    """Ends a run between two records."""


def test_broken_off_after_every_record_a_run_ends_as_an_undisturbed_one(model: Path, tmp_path: Path) -> None:
    run_benchmarks(a_plan(model), tmp_path / "whole" / "run")
    run, attempts = tmp_path / "broken" / "run", 0

    def stop(record: Any) -> None:
        raise Stop

    while True:
        attempts += 1
        try:
            outcome = run_benchmarks(a_plan(model), run, on_record=stop)
        except Stop:
            continue
        break
    assert (attempts, outcome.written) == (11, 0)
    assert len(rows_of(run)) == 10
    assert cells(run) == cells(tmp_path / "whole" / "run")


def test_a_half_measured_group_is_measured_again_to_the_last_bit(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_benchmarks(a_plan(model, only("truthfulqa_mc"), group_size=5), run)
    whole = cells(run)
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    (run / "records.jsonl").write_text("".join(lines[1:3]))
    assert run_benchmarks(a_plan(model, only("truthfulqa_mc"), group_size=5), run).written == 3
    assert cells(run) == whole


def test_measured_choices_are_no_answer_to_any_scorer_of_words(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_benchmarks(a_plan(model), run)
    scored = {**score_run(run, ["v2", "v3"]), **score_benchmarks(run)}
    measured = {row["probe_id"] for row in rows_of(run) if row["finish_reason"] == LIKELIHOOD}
    assert len(measured) == 5
    for name in ("v2", "v3"):
        assert not {score.probe_id for score in scored[name]} & measured
    for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
        assert {score.probe_id for score in scored[name]} == measured
        assert all(score.value is not None for score in scored[name])
    contents = read_contents(run)
    metrics = {metric.name: metric for metric in metrics_of(contents)}
    for cell in metrics["truthfulqa_mc2"].cells:
        assert cell.outcome is Outcome.SCORED
    for cell in metrics["v2"].cells:
        assert cell.key.probe_id not in measured, "an item that a scorer is not meant for is not unscored by it"
    assert not {record.probe_id for record in judged_records(contents)} & measured
    assert not {ours.probe_id for ours, _ in pairs_of(contents, "base", "base")} & measured
    assert not set(arm_values(metrics["truthfulqa_mc1"])["base"].words) & measured


def test_a_disk_that_was_full_before_the_first_answer_leaves_a_run_that_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, run = a_plan(model, only("gsm8k")), tmp_path / "run"

    def full(path: Path, content: str | bytes) -> None:
        raise UserError(f"{path}: could not write (the disk is full); make room and run the same command again.")

    with monkeypatch.context() as patched:
        patched.setattr("lem.runs.conduct.write_atomic", full)
        with pytest.raises(UserError, match="the disk is full"):
            run_benchmarks(plan, run)
    assert not (run / "items.jsonl").exists()
    run_benchmarks(plan, run)
    assert len(read_run(run)[1]) == len(read_run_items(run)) == 3
