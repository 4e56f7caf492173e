"""Samples of lm-eval: what its own evaluator wrote reads as it stands there, and what we write its tools read."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exported_run import PROBES, SETTINGS, make_contents
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.errors import DataError, UserError
from lem.interop.harness_logs import read_harness
from lem.interop.harness_write import write_harness
from lem.records import Key, RunContents, metrics_of

pytest.importorskip("lm_eval")
pytest.importorskip("datasets")

STAMP = "2025-03-01T10-00-00.000001"
GENERATION = """
task: small_gen
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {folder}/cache}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_target: "{{{{answer}}}}"
repeats: 2
generation_kwargs: {{until: ["\\n"], max_gen_toks: 16, do_sample: false}}
filter_list:
  - name: strict-match
    filter: [{{function: regex, regex_pattern: "(l.l)"}}, {{function: take_first}}]
  - name: loose
    filter: [{{function: take_first}}]
metric_list: [{{metric: exact_match}}]
metadata: {{version: 2.0}}
"""
CHOICE = """
task: small_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {folder}/cache}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list: [{{metric: acc}}, {{metric: mcc}}]
metadata: {{version: 1.0}}
"""


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The output folder of a real evaluation of two small tasks with lm-eval's dummy model, and its results."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("harness")
    rows = [
        {
            "question": f"What is {i} and {i}?",
            "answer": "lol" if i == 2 else str(2 * i),
            "choices": ["-1", str(2 * i), "x"],
            "gold": i % 2,
            "subject": "sums" if i < 2 else "more",
        }
        for i in range(4)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in {"generation": GENERATION, "choice": CHOICE}.items():
        (folder / f"{name}.yaml").write_text(text.format(file=folder / "items.jsonl", folder=folder))
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    tracker.general_config_tracker.log_experiment_args("dummy", "pretrained=some/model", "Be kind.", None, False)
    results = simple_evaluate(
        model="dummy", tasks=["small_gen", "small_choice"], bootstrap_iters=0, log_samples=True,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False), system_instruction="Be kind.",
    )  # fmt: skip
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in ("small_gen", "small_choice"):
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return folder / "out", results["results"]


def row(number: int = 0, text: str | list[str] = "four", **more: Any) -> dict[str, Any]:
    texts = [text] if isinstance(text, str) else text
    sent = {"gen_args_0": {"arg_0": f"Question {number}?", "arg_1": {"max_gen_toks": 8, "temperature": 0.0}}}
    first = {"doc_id": number, "doc": {}, "target": "4", "arguments": sent, "resps": [texts]}
    return {**first, "filtered_resps": texts[:1], "filter": "none", "metrics": ["acc"], "acc": 1.0, **more}


def choice(number: int, likelihoods: list[str], **more: Any) -> dict[str, Any]:
    sent = {f"gen_args_{i}": {"arg_0": f"Question {number}?", "arg_1": f" {i}"} for i in range(len(likelihoods))}
    return row(number, arguments=sent, resps=[[[value, "False"]] for value in likelihoods], **more)


def write_samples(folder: Path, rows: list[Any], task: str = "sums", end: str = "\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_{task}_{STAMP}.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + end, encoding="utf-8")
    return path


# --- what lm-eval wrote ----------------------------------------------------------------------------------------


def test_a_real_evaluation_reads_as_it_stands_there(evaluated: tuple[Path, dict[str, Any]]) -> None:
    folder, results = evaluated
    imported = read_harness(folder)
    assert list(imported.info.arms) == ["some/model"]
    assert imported.info.arms["some/model"]["system_instruction"] == "Be kind."
    assert {p["id"] for p in imported.info.probes} == {
        f"{t}/{i}" for t in ("small_gen", "small_choice") for i in range(4)
    }
    probe = next(p for p in imported.info.probes if p["id"] == "small_gen/1")
    # The question alone: the system instruction and the form around it are no part of the probe.
    assert probe == {
        "id": "small_gen/1",
        "domain": "sums",
        "prompt": "Q: What is 1 and 1?\nA:",
        "benchmark": "small_gen",
    }
    answers = {record.key: record for record in imported.records}
    assert len(answers) == 4 * 2 + 4
    assert answers[Key("some/model", "small_gen/1", 1)].response == "lol"
    assert answers[Key("some/model", "small_gen/1", 0)].messages == (
        {"role": "user", "content": "Be kind.Q: What is 1 and 1?\nA:"},
    )
    assert imported.info.settings["by_task"] == {
        "small_choice": {},
        "small_gen": {"max_tokens": 16, "temperature": 0.0, "stop_seqs": ["\n"]},
    }
    for scorer, task, name in (
        ("exact_match,strict-match", "small_gen", "exact_match,strict-match"),
        ("exact_match,loose", "small_gen", "exact_match,loose"),
        ("acc", "small_choice", "acc,none"),
    ):
        values = [score.value for score in imported.scores[scorer] if score.unscored is None]
        assert len(values) == 4
        assert sum(values) / 4 == pytest.approx(results[task][name])
        assert {score.version for score in imported.scores[scorer]} == {
            f"lm-eval {task} {2.0 if task == 'small_gen' else 1.0}"
        }
    assert sum(score.unscored is not None for score in imported.scores["exact_match,loose"]) == 4  # second repeats
    assert "mcc" not in imported.scores
    outcomes = {metric.name: Counter(cell.outcome for cell in metric.cells) for metric in metrics_of(imported.contents)}
    assert outcomes["acc"] == {"scored": 4}  # a choice has one repeat, and none of it is missing
    assert outcomes["exact_match,loose"] == {"scored": 4, "unscored": 4}
    assert any("left out: mcc" in note for note in imported.notes)


def test_the_chosen_option_is_the_one_that_lm_eval_scored(evaluated: tuple[Path, dict[str, Any]]) -> None:
    imported = read_harness(evaluated[0])
    right = {i: ["-1", str(2 * i)][i % 2] for i in range(4)}
    found = {record.probe_id: record.response for record in imported.records}
    for score in imported.scores["acc"]:
        number = int(score.probe_id.partition("/")[2])
        assert score.value == float(found[score.probe_id] == right[number])


def test_a_results_file_and_one_samples_file_read_alike(evaluated: tuple[Path, dict[str, Any]]) -> None:
    folder = evaluated[0]
    whole = read_harness(folder)
    [results] = folder.glob("*/results_*.json")
    assert read_harness(results).records == [
        r.__class__(**{**r.__dict__, "run_id": results.stem}) for r in whole.records
    ]
    one = read_harness(next(folder.glob("*/samples_small_choice_*.jsonl")))
    assert {record.key for record in one.records} == {r.key for r in whole.records if "choice" in r.probe_id}


def test_samples_without_results_take_their_name_from_the_folder(tmp_path: Path) -> None:
    imported = read_harness(write_samples(tmp_path / "org__model", [row(0), row(1)]))
    assert list(imported.info.arms) == ["org__model"]
    assert [p["prompt"] for p in imported.info.probes] == ["Question 0?", "Question 1?"]
    assert imported.info.settings == {"max_tokens": 8, "temperature": 0.0, "repeats": 1}
    assert imported.info.status == "done"


def test_a_chat_that_was_sent_is_kept_turn_by_turn(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Well?"}]
    sent = {"gen_args_0": {"arg_0": json.dumps(turns), "arg_1": {}}}
    imported = read_harness(write_samples(tmp_path, [row(arguments=sent)]))
    assert list(imported.records[0].messages) == turns
    assert imported.info.probes[0]["prompt"] == "Well?"


def test_lines_of_older_versions_without_metrics_and_filter(tmp_path: Path) -> None:
    old = {name: value for name, value in row(acc=0.0, em=True).items() if name not in ("metrics", "filter")}
    imported = read_harness(write_samples(tmp_path, [{**old, "arguments": [["Question?", {"until": ["."]}]]}]))
    assert {name: rows[0].value for name, rows in imported.scores.items()} == {"acc": 0.0, "em": 1.0}
    assert imported.info.probes[0]["prompt"] == "Question?"


def test_the_latest_samples_of_a_folder_are_taken_and_the_others_named(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "model", [row(text="new")])
    path.with_name("samples_sums_2024-01-01T00-00-00.jsonl").write_text(json.dumps(row(text="old")) + "\n")
    imported = read_harness(tmp_path)
    assert [record.response for record in imported.records] == ["new"]
    assert any("1 older samples files" in note for note in imported.notes)


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=2, max_size=5))
@settings(deadline=None, max_examples=60)
def test_the_highest_likelihood_wins_and_a_missing_one_is_a_failure(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    path = write_samples(tmp_path_factory.mktemp("choice"), [choice(0, [str(value) for value in values])])
    imported = read_harness(path)
    [record] = imported.records
    if any(math.isnan(value) for value in values) or max(values) == -math.inf:
        assert record.error == "a log-likelihood is not a number"
        assert imported.scores == {}
    else:
        assert record.response == str(next(i for i, value in enumerate(values) if value == max(values)))


def test_nan_and_null_values_are_unscored_and_missing_texts_failed(tmp_path: Path) -> None:
    rows = [row(0, acc=math.nan), row(1, acc=None), row(2, [None], acc=0.0), row(3, "", acc=0.0)]
    imported = read_harness(write_samples(tmp_path, rows))
    found = {score.probe_id: (score.value, score.unscored) for score in imported.scores["acc"]}
    assert found == {
        "sums/0": (None, "the scorer marked the answer as unscored"),
        "sums/1": (None, "the scorer gave no value"),
        "sums/3": (0.0, None),
    }
    assert [record.error for record in imported.records] == [None, None, "lm-eval stored no response", None]


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([row(0), row(0)], "line 2: document 0 stands twice under the filter 'none'"),
        ([{**row(0), "doc_id": None}], "line 1: field 'doc_id' is missing"),
        ([{**row(0), "doc_id": -1}], "line 1: field 'doc_id' is -1"),
        ([{**row(0), "arguments": {}}], "line 1: field 'arguments' holds no request"),
        ([{**row(0), "resps": []}], "line 1: field 'resps' does not hold"),
        ([{**row(0), "resps": [[4]]}], "response 1 of field 'resps' is not a text"),
        ([{**choice(0, ["-1", "-2"]), "resps": [["-1"], ["-2"]]}], "no pair of log-likelihood and greedy flag"),
        ([row(0, arguments={"gen_args_0": {"arg_0": "All of Hamlet"}}, resps=[["-1234.5"]])], "perplexity request"),
        ([row(0), row(1, arguments={"gen_args_0": {"arg_0": "q", "arg_1": {"temperature": 1.0}}})], "line 2: its gen"),
        ([row(0), "{", row(1)], "line 2: not valid JSON"),
        ([row(0, lem={"repeats": 3})], "field 'lem' does not hold the repeats"),
        ([row(0, lem={"repeats": []})], "it holds 1 texts and names 0 repeats"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, rows: list[Any], sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        read_harness(write_samples(tmp_path, rows))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    imported = read_harness(write_samples(tmp_path, [row(0), '{"doc_id": 1, "do'], end=""))
    assert [record.probe_id for record in imported.records] == ["sums/0"]
    assert imported.info.status == "incomplete"
    assert any("torn" in note for note in imported.notes)


def test_nothing_there_and_no_samples_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_harness(tmp_path / "none")
    with pytest.raises(DataError, match="--log_samples"):
        read_harness(tmp_path)
    results = tmp_path / f"results_{STAMP}.json"
    results.write_text(json.dumps({"results": {}, "configs": {}}))
    with pytest.raises(DataError, match="--log_samples"):
        read_harness(results)
    write_samples(tmp_path, [row(0)])
    results.write_text('{"results": ')
    with pytest.raises(DataError, match="not valid JSON"):
        read_harness(results)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*row(), "lem"]), json_values, min_size=1, max_size=3))
@settings(deadline=None, max_examples=200)
def test_any_fields_read_or_are_a_sentence(tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any]) -> None:
    path = write_samples(tmp_path_factory.mktemp("any"), [{**row(0), **change}])
    sentence, found = "", []
    try:
        found = [score for scores in read_harness(path).scores.values() for score in scores]
    except DataError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert all((score.value is None) != (score.unscored is None) for score in found)


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    """40 MB of which 40 kB are kept; the peak stays far below the file's size."""
    path = tmp_path / f"samples_sums_{STAMP}.jsonl"
    with path.open("w") as file:
        for number in range(400):
            file.write(json.dumps(row(number, doc={"passage": "x" * 100_000})) + "\n")
    assert path.stat().st_size > 4e7
    read_harness(write_samples(tmp_path / "warm", [row(0)]))
    tracemalloc.start()
    imported = read_harness(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(imported.records) == 400
    assert peak < 6e6


# --- what we write ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunContents, Path]:
    contents, output = make_contents(), tmp_path_factory.mktemp("export") / "harness"
    write_harness(contents, output)
    return contents, output


def test_what_was_written_comes_back(exported: tuple[RunContents, Path]) -> None:
    contents, output = exported
    back = read_harness(output)
    answered = [record for record in contents.records if not record.failed]
    kept = ("response", "finish_reason", "messages")
    assert {r.key: [getattr(r, name) for name in kept] for r in back.records} == {
        r.key: [getattr(r, name) for name in kept] for r in answered
    }
    assert back.info.probes == PROBES
    assert {name: back.info.settings[name] for name in SETTINGS} == SETTINGS
    assert back.info.arms["txt"]["kernel"] == "lek-1"
    for name in ("v2", "v3"):
        given = {s.key: (s.value, s.unscored, s.version, s.record_sha) for s in contents.scores[name]}
        assert {s.key: (s.value, s.unscored, s.version, s.record_sha) for s in back.scores[name]} == given
    given = {j.key: (j.value, j.unscored) for j in contents.judgements}
    assert {s.key: (s.value, s.unscored) for s in back.scores["truth"]} == given


def test_the_tools_of_lm_eval_read_what_we_write(exported: tuple[RunContents, Path], tmp_path: Path) -> None:
    from datasets import load_dataset
    from lm_eval.utils import (
        get_file_datetime,
        get_file_task_name,
        get_results_filenames,
        get_sample_results_filenames,
        hash_string,
        make_table,
    )

    contents, output = exported
    names = [str(path) for path in sorted(output.rglob("*.json*"))]
    results, samples = get_results_filenames(names), get_sample_results_filenames(names)
    assert len(results) == len(samples) == 2
    assert {get_file_task_name(Path(name).name) for name in samples} == {"lem"}
    assert len({get_file_datetime(name).removesuffix(".json") for name in names}) == 1
    table = json.loads(Path(results[0]).read_text())
    assert "|v2    |" in make_table(table)
    assert table["n-samples"] == {"lem": {"original": 3, "effective": 3}}
    assert table["lem"]["n_failed"] == 1
    by_probe: dict[str, list[float]] = {}
    for score in contents.scores["v2"]:
        if score.arm == "base":
            by_probe.setdefault(score.probe_id, []).append(score.value)
    means = [sum(values) / len(values) for values in by_probe.values()]
    centre = sum(means) / 3
    assert table["results"]["lem"]["v2,none"] == pytest.approx(centre)
    stderr = math.sqrt(sum((mean - centre) ** 2 for mean in means) / 2 / 3)
    assert table["results"]["lem"]["v2_stderr,none"] == pytest.approx(stderr)
    loaded = load_dataset("json", data_files=samples[0], split="train", cache_dir=str(tmp_path))
    assert loaded["doc_id"] == [0, 1, 2]
    for one in loaded:
        assert one["prompt_hash"] == hash_string(one["arguments"]["gen_args_0"]["arg_0"])
        doc = json.dumps(one["doc"], indent=2, ensure_ascii=False)
        assert one["doc_hash"] == hash_string(doc)
    assert loaded[2]["resps"] == [["base on P03, time 1"]]  # the other repeat failed
    hashes = "".join(one["doc_hash"] + one["prompt_hash"] + one["target_hash"] for one in loaded)
    assert table["task_hashes"] == {"lem": hash_string(hashes)}


def test_occupied_folders_and_runs_without_answers_are_refused(tmp_path: Path) -> None:
    contents = make_contents()
    (tmp_path / "kept").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        write_harness(contents, tmp_path)
    with pytest.raises(DataError, match="holds no answers"):
        write_harness(RunContents(contents.info, []), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
