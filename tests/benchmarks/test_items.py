"""Items: ours are whole, the published ones are read, and what is malformed is named by line and field."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lem.benchmarks import BENCHMARKS, ask, choices, find, probe, read_items, source_facts, stop_strings
from lem.data import Probe
from lem.data.items import items_text
from lem.data.similarity import PROMPT_JACCARD, PROMPT_N, NgramIndex, near_duplicates
from lem.errors import DataError, UserError

PUBLISHED = ("gsm8k", "truthfulqa", "truthfulqa_mc", "do_not_answer", "toxigen")
GOOD: dict[str, Any] = {
    "id": "x1", "benchmark": "gsm8k", "question": "How many are 2 and 3?", "correct_answer": "5", "domain": "sums",
}  # fmt: skip


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("task", BENCHMARKS)
def test_our_items_are_whole_and_become_probes(task: str) -> None:
    items = read_items(task)
    assert len(items) >= 40
    assert all(item.domain for item in items)
    assert 5 <= len({item.domain for item in items}) <= 20
    probes = [probe(item) for item in items]
    assert [Probe.from_entry(json.loads(json.dumps(one.to_entry()))) for one in probes] == probes
    for item, one in zip(items, probes, strict=True):
        sent = one.asks or one.prompt
        assert (one.id, one.prompt, sent) == (item.id, item.question, ask(item, "chat"))
        assert item.question.strip() in sent
        assert one.completes == ask(item, "completion")
        assert one.completes.endswith("\nAnswer:")
        assert one.choices == choices(item)
        assert bool(one.choices) == (task == "truthfulqa_mc")


def test_ids_are_unique_across_all_tasks() -> None:
    counts = Counter(item.id for task in BENCHMARKS for item in read_items(task))
    assert max(counts.values()) == 1


def test_over_refusal_has_safe_prompts_and_unsafe_contrasts_of_them() -> None:
    items = {item.id: item for item in read_items("over_refusal")}
    kinds = Counter(item.benchmark for item in items.values())
    assert kinds == {"over_refusal": 60, "unsafe_contrast": 40}
    for item in items.values():
        if item.benchmark == "unsafe_contrast":
            assert items[item.fields["contrast"]].benchmark == "over_refusal"
    assert find("unsafe_contrast").name == "over_refusal"


def test_our_questions_are_unlike_each_other() -> None:
    texts = [
        item.question for task in BENCHMARKS if task not in ("ethics", "truthfulqa_mc") for item in read_items(task)
    ]
    assert near_duplicates(texts, PROMPT_N, PROMPT_JACCARD) == []


def test_prompts_keep_braces_and_name_their_instruction(tmp_path: Path) -> None:
    row = {**GOOD, "question": "What is {question} in {0}?"}
    item = read_items("gsm8k", write(tmp_path / "gsm8k.jsonl", row))[0]
    assert ask(item, "completion").endswith("Question: What is {question} in {0}?\nAnswer:")
    assert "####" in ask(item, "chat")
    assert stop_strings("gsm8k", "completion") == ("\nQuestion:",)
    assert stop_strings("gsm8k", "chat") == ()


@pytest.mark.parametrize("task", BENCHMARKS)
def test_no_item_is_among_the_worked_examples(task: str) -> None:
    items = read_items(task)
    shown = ask(items[0], "completion").replace(items[0].question, "")
    assert not [item.id for item in items if item.question in shown]
    index = NgramIndex([("examples", shown)])
    assert not [item.id for item in items if index.shared(item.question)]


@pytest.mark.parametrize("task", ["do_not_answer", "toxigen", "ethics", "over_refusal"])
def test_judged_statements_are_sent_as_they_are(task: str) -> None:
    item = read_items(task)[0]
    assert ask(item, "chat") == item.question
    assert probe(item).asks is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: not a JSON object"),
        ({**GOOD, "id": ""}, "line 2: field 'id'"),
        ({key: GOOD[key] for key in GOOD if key != "question"}, "line 2 (x1): field 'question' is missing"),
        ({**GOOD, "question": " "}, "line 2 (x1): field 'question' is empty"),
        ({**GOOD, "correct_answer": "five"}, "line 2 (x1): field 'correct_answer' is not a number"),
        ({**GOOD, "correct_answer": "1,2"}, "line 2 (x1): field 'correct_answer' is not a number"),
        ({**GOOD, "correct_answer": True}, "line 2 (x1): field 'correct_answer' is not a number"),
        ({**GOOD, "benchmark": "toxigen"}, "line 2: an item of 'toxigen'"),
        ({**GOOD, "id": "first"}, "'first' stands there twice"),
    ],
)  # fmt: skip
def test_a_malformed_item_is_named(tmp_path: Path, row: object, words: str) -> None:
    path = write(tmp_path / "gsm8k.jsonl", {**GOOD, "id": "first"}, row)
    with pytest.raises(DataError) as error:
        read_items("gsm8k", path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "change", "words"),
    [
        ("toxigen", {"toxicity_label": 6}, "'toxicity_label' is not a number from 1 to 5"),
        ("over_refusal", {"label": "maybe"}, "'label' is none of safe, unsafe"),
        ("truthfulqa", {"incorrect_answers": []}, "'incorrect_answers' is not a list of texts"),
        ("do_not_answer", {"risk_area": None}, "'risk_area' is empty"),
    ],
)
def test_each_benchmark_checks_its_own_fields(tmp_path: Path, task: str, change: dict[str, Any], words: str) -> None:
    item = read_items(task)[0]
    row = {"id": item.id, find(task).question: item.question, "domain": item.domain, **item.fields, **change}
    with pytest.raises(DataError, match="line 1") as error:
        read_items(task, write(tmp_path / "items.jsonl", row))
    assert words in str(error.value)


def test_an_answer_cannot_be_correct_and_incorrect(tmp_path: Path) -> None:
    item = read_items("truthfulqa")[0]
    row = {"id": "t", "question": item.question, **item.fields}
    row["incorrect_answers"] = [*row["incorrect_answers"], row["best_answer"].upper().rstrip(".")]
    with pytest.raises(DataError, match="as correct and as incorrect"):
        read_items("truthfulqa", write(tmp_path / "items.jsonl", row))


def test_unknown_task_missing_file_and_limit_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known are gsm8k, truthfulqa, truthfulqa_mc, do_not_answer"):
        read_items("mmlu")
    with pytest.raises(UserError, match="no such item file"):
        read_items("gsm8k", tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no item in the file"):
        read_items("gsm8k", write(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="--limit must be at least 1"):
        read_items("gsm8k", limit=0)
    with pytest.raises(UserError, match="the hub has no such data set"):
        read_items("ethics", "hub")


def test_a_larger_limit_adds_to_a_smaller_one_and_keeps_the_order() -> None:
    items = [item.id for item in read_items("gsm8k")]
    chosen: set[str] = set()
    for limit in (1, 5, 20, 500):
        some = [item.id for item in read_items("gsm8k", limit=limit)]
        assert len(some) == min(limit, len(items))
        assert some == [name for name in items if name in some]
        assert chosen <= set(some)
        chosen = set(some)


def test_facts_name_the_file_and_its_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "gsm8k.jsonl", GOOD)
    facts = source_facts("gsm8k", path)
    assert facts["source"] == "file"
    assert facts["path"] == str(path)
    assert len(facts["sha256"]) == 64
    assert source_facts("gsm8k")["source"] == "ours"


def test_ethics_takes_another_probe_file(tmp_path: Path) -> None:
    path = tmp_path / "probes.json"
    path.write_text(json.dumps([{"id": "Q1", "domain": "care", "prompt": "Who decides?"}]))
    [item] = read_items("ethics", path)
    assert (item.id, item.benchmark, item.question, item.domain) == ("Q1", "ethics", "Who decides?", "care")


@pytest.mark.parametrize("task", PUBLISHED)
def test_the_published_items_are_read(reference: Path, task: str) -> None:
    items = read_items(task, reference / "lem-standard" / f"{find(task).file_name}.jsonl")
    assert len(items) == 50
    assert len(items_text(items).splitlines()) == 50
    assert all(len(probe(item).choices) >= 2 for item in items if task == "truthfulqa_mc")
