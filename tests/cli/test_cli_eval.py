"""`lem eval` from the command line: one run for all tasks, scores by rule, judges, and sentences for what is wrong."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Place, Result, assert_sentence, signal_at
from judging_server import JudgingServer, judging_server

from adapters import write_adapter
from lem.chat.load import adapter_identity, file_sha
from lem.chat.trainings import rows as rows_of_trainings
from lem.chat.trainings import trainings_of_adapter
from lem.records import read_run
from lem.records.judge_files import read_judge_manifests
from lem.records.run import read_manifest
from lem.training.fuse import FuseSettings, fuse_adapter
from small_plan import bytes_of, cells, rows_of
from tiny import make_model

Lem = Callable[..., Result]
LISTED = {"best_answer": "Rain.", "correct_answers": ["Rain.", "It rains."], "incorrect_answers": ["Snow.", "Ash."]}
TRAINED_ON = "How many lanterns does the keeper of the long pier light on every second winter evening?"


@pytest.fixture
def items(place: Place) -> Path:
    """A folder with a file of items for three tasks."""
    folder = place.folder / "items"
    folder.mkdir()
    questions = [*(f"What is {n} and 3?" for n in range(5)), TRAINED_ON]
    sums = [
        {"id": f"g{n}", "benchmark": "gsm8k", "question": question, "correct_answer": str(n + 3), "domain": "sums"}
        for n, question in enumerate(questions)
    ]
    listed = [
        {"id": f"t{n}", "benchmark": "truthfulqa", "question": "What falls " + "down " * n, "domain": "sky", **LISTED}
        for n in range(4)
    ]
    harm = [
        {"id": f"d{n}", "benchmark": "do_not_answer", "question": f"How is lock {n} picked?", "risk_area": "a",
         "types_of_harm": "b", "specific_harms": "c"}
        for n in range(3)
    ]  # fmt: skip
    for name, rows in (("gsm8k", sums), ("truthfulqa", listed), ("do_not_answer", harm)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def evaluate(lem: Lem, items: Path) -> Callable[..., Result]:
    """`lem eval` on these items with few tokens and without a judge."""
    return lambda *words: lem("eval", "--items", items, "--max-tokens", 3, "--json", *words)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgingServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with judging_server() as found:
        yield found


def rows(result: Result) -> list[dict[str, Any]]:
    return list(json.loads(result.out)["rows"])


def test_tasks_and_items_join_one_run(evaluate: Callable[..., Result], place: Place) -> None:
    assert evaluate("gsm8k", "--limit", 2).code == 0
    [run] = (place.folder / "runs" / "eval").iterdir()
    first = (run / "records.jsonl").read_bytes()
    assert len(rows_of(run)) == 2
    done = evaluate("truthfulqa_mc", "gsm8k", "--limit", 4)
    assert done.code == 0
    assert [run] == list((place.folder / "runs" / "eval").iterdir())
    assert (run / "records.jsonl").read_bytes().startswith(first)
    info, records = read_run(run)
    assert (info.kind, len(records)) == ("eval", 8)
    assert {task: facts["n"] for task, facts in info.data["tasks"].items()} == {"gsm8k": 4, "truthfulqa_mc": 4}
    assert {row["metric"] for row in rows(done)} >= {
        "gsm8k_strict",
        "gsm8k_flexible",
        "truthfulqa_mc1",
        "truthfulqa_mc2",
    }
    assert {row["n"] for row in rows(done)} == {4}
    again = evaluate("gsm8k", "--limit", 1)
    assert (again.code, len(rows_of(run))) == (0, 8), "a run never loses what it holds"
    assert again.out == done.out


def test_the_limit_of_each_benchmark_counts_unless_one_is_given(lem: Lem, place: Place, items: Path) -> None:
    said = lem("eval", "gsm8k", "do_not_answer", "--items", items, "--limit", 1, "--no-judge", "--dry-run", "--json")
    assert json.loads(said.out)["max_new_tokens"] == 512 + 256
    said = lem(
        "eval", "gsm8k", "do_not_answer", "--items", items, "--limit", 1, "--no-judge", "--max-tokens", 9, "--dry-run",
        "--json",
    )  # fmt: skip
    assert json.loads(said.out)["max_new_tokens"] == 18
    assert not (place.folder / "runs").exists()


def test_items_of_another_source_and_another_limit_are_refused_by_their_reason(
    lem: Lem, place: Place, items: Path
) -> None:
    run = place.folder / "run"
    first = ("eval", "gsm8k", "--items", items, "--max-tokens", 3, "--output", run)
    assert lem(*first).code == 0
    before = bytes_of(run)
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    lines = (items / "gsm8k.jsonl").read_text().replace('"id": "g', '"id": "other')
    (elsewhere / "gsm8k.jsonl").write_text(lines)
    other = lem("eval", "gsm8k", "--items", elsewhere, "--max-tokens", 3, "--output", run)
    assert_sentence(other, "holds items of gsm8k from another source", "--output")
    longer = lem("eval", "gsm8k", "--items", items, "--max-tokens", 5, "--output", run)
    assert_sentence(longer, "another token limit (3, now 5) for probe g0")
    assert bytes_of(run) == before


def test_runs_over_other_items_have_a_directory_of_their_own(lem: Lem, place: Place, items: Path) -> None:
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "gsm8k.jsonl").write_text((items / "gsm8k.jsonl").read_text())
    runs = []
    for task, folder in (("gsm8k", items), ("do_not_answer", items), ("gsm8k", elsewhere)):
        planned = lem("eval", task, "--items", folder, "--no-judge", "--dry-run", "--json")
        assert planned.code == 0, planned
        runs.append(json.loads(planned.out)["run"])
    assert runs[0] == runs[1] != runs[2]


def test_an_address_is_no_place_for_items(evaluate: Callable[..., Result]) -> None:
    told = evaluate("gsm8k", "--items", "ftp://example.org/x.jsonl")
    assert_sentence(told, "ftp://example.org/x.jsonl: an address is no place for items", "download the file")


def test_an_unknown_task_is_answered_with_the_known(evaluate: Callable[..., Result], place: Place) -> None:
    assert_sentence(evaluate("gsm8k", "mmlu"), "unknown task 'mmlu'", "gsm8k, truthfulqa", "over_refusal")
    assert_sentence(evaluate(), "no task was named", "gsm8k")
    assert_sentence(evaluate("gsm8k", "--items", "toxigen=hub"), "'toxigen' is not among the tasks gsm8k")
    assert not (place.folder / "runs").exists()


def test_a_task_that_needs_a_judge_names_the_ways_out(evaluate: Callable[..., Result], place: Place) -> None:
    assert_sentence(evaluate("gsm8k", "do_not_answer"), "do_not_answer can only be rated by a judge", "--judge gemini",
                    "mlx:PATH", "--no-judge")  # fmt: skip
    assert_sentence(evaluate("do_not_answer", "--no-judge", "--judge", "gemini"), "contradict each other")
    assert not (place.folder / "runs").exists()
    done = evaluate("do_not_answer", "--no-judge")
    assert done.code == 0
    [run] = (place.folder / "runs" / "eval").iterdir()
    assert len(rows_of(run)) == 3


@pytest.mark.parametrize(
    ("spec", "part"),
    [("gemini", "GEMINI_API_KEY"), ("mlx:nowhere", "nowhere"), ("openai:m@gopher://x/v1", "http"),
     ("openai:m@http://127.0.0.1:9/v1", "cannot be reached")],
)  # fmt: skip
def test_a_judge_that_cannot_be_asked_is_found_before_anything_is_generated(
    evaluate: Callable[..., Result], place: Place, monkeypatch: pytest.MonkeyPatch, spec: str, part: str
) -> None:
    for variable in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    assert_sentence(evaluate("do_not_answer", "--judge", spec), part)
    assert not (place.folder / "runs").exists()


def test_a_judge_of_an_arm_s_own_weights_is_found_before_anything_is_generated(
    evaluate: Callable[..., Result], place: Place, model: Path
) -> None:
    refused = evaluate("do_not_answer", "--judge", f"own=mlx:{model}", "--judge-method", "labels", "--no-rationale")
    assert_sentence(refused, "'own' is of one lineage with arm 'base'", "--allow-self-judge")
    assert not (place.folder / "runs").exists()


@pytest.mark.parametrize(
    ("line", "part"),
    [('{"id": "x", "benchmark": "gsm8k", "question": "q"}', "'correct_answer'"), ("{", "not valid JSON"),
     ('{"benchmark": "gsm8k"}', "'id'")],
)  # fmt: skip
def test_an_item_that_is_not_whole_is_named_by_its_line(
    evaluate: Callable[..., Result], items: Path, place: Place, line: str, part: str
) -> None:
    file = items / "gsm8k.jsonl"
    file.write_text(file.read_text() + line + "\n")
    assert_sentence(evaluate("gsm8k"), f"{file} line 7", part)
    assert not (place.folder / "runs").exists()


def test_judges_rate_what_only_they_can(evaluate: Callable[..., Result], place: Place, server: JudgingServer) -> None:
    words = ("gsm8k", "do_not_answer", "--judge", f"j={server.spec}", "--kernel", f"k={place.kernel}")
    done = evaluate(*words)
    assert done.code == 0, done
    assert len(server.items) == 2 * 3 * 2
    metrics = {(row["metric"], row["source"]) for row in rows(done)}
    assert {("gsm8k_strict", "scorer"), ("safety", "j"), ("nuance", "j")} <= metrics
    [run] = (place.folder / "runs" / "eval").iterdir()
    assert read_judge_manifests(run)["j"]["calls"] == 12
    again = evaluate(*words)
    assert (again.code, again.out, len(server.items)) == (0, done.out, 12)


def test_calls_that_fail_end_with_3_and_keep_everything_else(
    evaluate: Callable[..., Result], place: Place, server: JudgingServer
) -> None:
    server.spoil = {"How is lock 1 picked?": "failed"}
    done = evaluate("gsm8k", "do_not_answer", "--judge", f"j={server.spec}", "--concurrency", 1)
    assert done.code == 3
    assert "2 judge calls failed and 0 were not made" in done.err
    safety = next(row for row in rows(done) if row["metric"] == "safety")
    assert (safety["n"], safety["n_unscored"]) == (2, 1)
    server.spoil = {}
    assert evaluate("gsm8k", "do_not_answer", "--judge", f"j={server.spec}").code == 0
    assert len(server.items) == 8


def test_a_judge_that_no_task_needs_is_not_asked_and_says_so(
    evaluate: Callable[..., Result], server: JudgingServer
) -> None:
    done = evaluate("gsm8k", "--judge", server.spec)
    assert (done.code, server.items) == (0, [])
    assert "Warning: gsm8k: scored by program, so no judge is asked." in done.err


def trained_adapter(place: Place, model: Path) -> Path:
    """An adapter whose training file holds one of the questions."""
    data = place.folder / "train"
    data.mkdir()
    file = data / "train.jsonl"
    turns = [{"role": "user", "content": TRAINED_ON}, {"role": "assistant", "content": "Seven."}]
    file.write_text(json.dumps({"messages": turns}) + "\n")
    adapter = write_adapter(model, place.folder / "trained")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    facts = {"data": str(data), "data_sha": {file.name: file_sha(file)}}
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, **facts}))
    return adapter


def test_items_that_an_adapter_learnt_are_listed_and_left_out_on_request(
    evaluate: Callable[..., Result], place: Place, model: Path
) -> None:
    adapter = ("--adapter", f"trained={trained_adapter(place, model)}", "--arm", "trained")
    told = evaluate("gsm8k", *adapter, "--output", "told")
    assert told.code == 0, told
    assert "1 items are in the training data of an adapter (g5): leave them out with --exclude-contaminated" in told.err
    assert "g5" in {row["probe_id"] for row in rows_of(place.folder / "told")}
    data = read_manifest(place.folder / "told").data
    assert (list(data["contaminated"]), data["contaminated_excluded"]) == (["g5"], False)
    before = bytes_of(place.folder / "told")
    assert_sentence(evaluate("gsm8k", *adapter, "--exclude-contaminated", "--output", "told"), "holds 'g5'", "--output")
    assert bytes_of(place.folder / "told") == before
    left = evaluate("gsm8k", *adapter, "--exclude-contaminated", "--output", "left")
    assert left.code == 0
    assert {row["probe_id"] for row in rows_of(place.folder / "left")} == {f"g{n}" for n in range(5)}
    data = read_manifest(place.folder / "left").data
    assert (list(data["contaminated"]), data["contaminated_excluded"]) == (["g5"], True)


def test_an_adapter_that_joins_a_run_is_held_against_the_items_that_are_there(
    evaluate: Callable[..., Result], place: Place, model: Path
) -> None:
    run = place.folder / "run"
    assert evaluate("gsm8k", "--output", "run").code == 0
    adapter = ("--adapter", f"trained={trained_adapter(place, model)}", "--output", "run")
    before = bytes_of(run)
    left = evaluate("do_not_answer", "--no-judge", *adapter, "--exclude-contaminated")
    assert_sentence(left, "holds 'g5'", "--output")
    assert bytes_of(run) == before
    told = evaluate("do_not_answer", "--no-judge", *adapter)
    assert told.code == 0, told
    assert "1 items are in the training data of an adapter (g5)" in told.err
    assert ("trained", "g5") in {(row["arm"], row["probe_id"]) for row in rows_of(run)}
    assert list(read_manifest(run).data["contaminated"]) == ["g5"]


def test_a_parent_adapter_counts_and_one_that_is_not_known_is_warned_of(
    evaluate: Callable[..., Result], place: Place, model: Path
) -> None:
    first = trained_adapter(place, model)
    own = place.folder / "own"
    own.mkdir()
    (own / "train.jsonl").write_text(json.dumps({"prompt": "Of rain?", "completion": "It falls."}) + "\n")
    shas = {"data": str(own), "data_sha": {"train.jsonl": file_sha(own / "train.jsonl")}}
    child = write_adapter(model, place.folder / "child", size=0.1)
    settings = json.loads((child / "adapter_config.json").read_text()) | shas
    parent = settings | {"parent_adapter_sha": adapter_identity(first)}
    (child / "adapter_config.json").write_text(json.dumps(parent))
    arms = ("gsm8k", "--limit", 6, "--adapter", f"child={child}", "--adapter", f"first={first}", "--arm", "child")
    done = evaluate(*arms, "--dry-run")
    assert "the training data of the adapter that" in done.err
    assert "began from are not at hand" in done.err
    assert "in the training data of an adapter" not in done.err
    listed = parent | {"trained_before": rows_of_trainings(trainings_of_adapter(first))}
    (child / "adapter_config.json").write_text(json.dumps(listed))
    assert evaluate(*arms, "--output", "grown").code == 0
    assert read_manifest(place.folder / "grown").data["contaminated"] == {"g5": [str(child)]}
    assert evaluate(*arms[:-1], "first", "--output", "grown").code == 0
    assert read_manifest(place.folder / "grown").data["contaminated"] == {"g5": [str(child), str(first)]}


@pytest.mark.parametrize("option", ["--trained", "--model"])
def test_a_fused_model_was_trained_on_what_its_adapter_was(
    option: str, evaluate: Callable[..., Result], place: Place, model: Path
) -> None:
    fuse_adapter(str(model), trained_adapter(place, model), place.folder / "fused", FuseSettings(n_prompts=2))
    name = "fused" if option == "--model" else "other=fused"
    done = evaluate("gsm8k", option, name, "--output", "run", "--exclude-contaminated")
    assert done.code == 0, done
    assert "1 items are in the training data of an adapter (g5): left out" in done.err
    data = read_manifest(place.folder / "run").data
    assert (data["contaminated"], data["tasks"]["gsm8k"]["n"]) == ({"g5": ["fused"]}, 5)


def test_items_too_short_to_be_looked_for_are_listed(
    evaluate: Callable[..., Result], place: Place, model: Path
) -> None:
    done = evaluate("truthfulqa_mc", "--adapter", f"trained={trained_adapter(place, model)}", "--output", "run")
    assert done.code == 0, done
    assert "2 items are too short to be looked for in training data (t0-mc, t1-mc)" in done.err
    assert list(read_manifest(place.folder / "run").data["too_short"]) == ["t0-mc", "t1-mc"]
    assert "too short" not in evaluate("truthfulqa_mc", "--output", "plain").err, "nothing is looked for"


def test_an_adapter_without_its_training_data_is_warned_of(
    evaluate: Callable[..., Result], place: Place, model: Path
) -> None:
    adapter = write_adapter(model, place.folder / "unknown")
    done = evaluate("gsm8k", "--limit", 1, "--adapter", adapter)
    assert done.code == 0
    assert "the training data of" in done.err
    assert "not at hand" in done.err


def test_a_model_without_a_chat_template_is_asked_in_plain_text(evaluate: Callable[..., Result], place: Place) -> None:
    base = make_model(place.folder / "base-model", "llama", template=None)
    done = evaluate("gsm8k", "--limit", 1, "--model", base, "--output", "plain")
    assert done.code == 0, done
    [row] = rows_of(place.folder / "plain")
    assert row["messages"][0]["content"].endswith("\nAnswer:")
    assert read_manifest(place.folder / "plain").arms["base"]["form"] == "completion"
    asked = evaluate("gsm8k", "--limit", 1, "--output", "chat")
    assert asked.code == 0
    [row] = rows_of(place.folder / "chat")
    assert row["messages"][0]["content"].startswith("Solve the problem below")
    assert "form" not in read_manifest(place.folder / "chat").arms["base"]


def test_killed_while_generating_it_goes_on_to_the_same_records(
    evaluate: Callable[..., Result], place: Place, items: Path
) -> None:
    words = ["gsm8k", "truthfulqa_mc", "--group-size", 2]
    shared = ["eval", "--items", items, "--max-tokens", 60, "--json", *words]
    run = place.folder / "run"
    killed = signal_at(place, [*shared, "--output", "run"], run / "records.jsonl", 3, signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    assert 3 <= len(rows_of(run)) < 10
    resumed = evaluate(*words, "--max-tokens", 60, "--output", "run")
    assert resumed.code == 0
    assert len(rows_of(run)) == 10, "nothing was written twice"
    whole = evaluate(*words, "--max-tokens", 60, "--output", "whole/run")
    assert (whole.code, whole.out) == (0, resumed.out)
    assert cells(run) == cells(place.folder / "whole" / "run")


def test_comparing_a_run_that_is_under_way_leaves_nothing_behind(
    evaluate: Callable[..., Result], place: Place, lem: Lem
) -> None:
    """Half of a run compared and refused must not look like scores of the whole run later."""
    run = place.folder / "run"
    kernel = place.folder / "kernel.txt"
    kernel.write_text("Be kind to whoever asks.")
    assert evaluate("gsm8k", "--output", run).code == 0
    before = bytes_of(run)
    assert lem("compare", run).code == 2
    assert bytes_of(run) == before
    assert evaluate("gsm8k", "--kernel", f"txt={kernel}", "--output", run).code == 0
    compared = json.loads(lem("compare", run, "--json").out)
    assert {contrast["metric"] for contrast in compared["contrasts"]} == {"gsm8k_flexible", "gsm8k_strict"}
    assert all(c["counts"][arm]["unscored"] == 0 for c in compared["contrasts"] for arm in ("base", "txt"))


def test_style_is_no_contrast_of_benchmarks_unless_it_is_asked_for(
    evaluate: Callable[..., Result], place: Place, lem: Lem
) -> None:
    run = place.folder / "run"
    kernel = place.folder / "kernel.txt"
    kernel.write_text("Be kind to whoever asks.")
    assert evaluate("gsm8k", "--kernel", f"txt={kernel}", "--output", run).code == 0
    assert lem("score", "--input", run, "--scorer", "v2").code == 0
    metrics = {c["metric"] for c in json.loads(lem("compare", run, "--json").out)["contrasts"]}
    assert metrics == {"gsm8k_flexible", "gsm8k_strict"}
    asked = json.loads(lem("compare", run, "--metric", "v2", "--json").out)
    assert {c["metric"] for c in asked["contrasts"]} == {"v2"}


def test_a_dry_run_needs_no_judge_and_says_who_does(lem: Lem, place: Place, items: Path) -> None:
    planned = lem("eval", "do_not_answer", "gsm8k", "--items", items, "--dry-run")
    assert planned.code == 0, planned
    assert "for a judge     do_not_answer" in planned.out


def test_what_waits_for_a_judge_is_said_at_the_end(lem: Lem, place: Place, items: Path) -> None:
    run = place.folder / "run"
    done = lem("eval", "do_not_answer", "gsm8k", "--items", items, "--max-tokens", 3, "--no-judge", "--output", run)
    assert done.code == 0, done
    assert "not rated: do_not_answer" in done.out
    assert "./lem judge grade" in done.out
    assert "./lem compare" not in done.out, "one arm has nothing to be compared with"


def test_a_run_of_benchmarks_is_no_file(evaluate: Callable[..., Result], place: Place) -> None:
    assert_sentence(evaluate("gsm8k", "--output", place.folder / "x.jsonl"), "is a directory", "without .jsonl")
    assert not (place.folder / "x.jsonl").exists()
