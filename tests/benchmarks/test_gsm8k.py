"""Extraction of GSM8K answers: both rules, and agreement with the published scores item by item."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lem.benchmarks import gsm8k, read_items, score_item
from lem.benchmarks.gsm8k import flexible_number, is_equal, published_number, strict_number
from lem.data.items import Item
from lem.records import Record

ROOT = Path(__file__).resolve().parents[2]
ITEM = Item("g1", "gsm8k", "How many?", "market", {"correct_answer": "1,250.5"})
# (model, item) whose published verdict is "wrong" and ours "right"; docs/BENCHMARKS.md says why for each.
DIFFERENT = {
    ("instruction_tuned", "GSM8K_039"), ("instruction_tuned", "GSM8K_050"), ("abliterated", "GSM8K_046"),
    ("abliterated", "GSM8K_049"), ("abliterated", "GSM8K_050"), ("lem_ethics", "GSM8K_013"),
    ("lem_ethics", "GSM8K_045"), ("lem_ethics", "GSM8K_046"), ("lem_ethics", "GSM8K_048"),
    ("lem_ethics", "GSM8K_050"), ("lem_ethics_allen", "GSM8K_046"), ("lem_ethics_allen", "GSM8K_048"),
    ("lem_ethics_allen", "GSM8K_049"),
}  # fmt: skip


def answered(text: str, **fields: Any) -> Record:
    return Record("run", "base", "g1", 0, text, **{"finish_reason": "stop", **fields})


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("2 + 3 = 5\n#### 5", 5, 5),
        ("#### 4, no: #### 5 eggs", 5, 5),
        ("#### <number>\nso 7", None, 7),
        ("The final answer is ####.\nIt is 7", None, 7),
        ("It is 7.\nFinal answer: ####", None, 7),
        ("####\n\n-$1,250.50", -1250.5, -1250.5),
        ("##### 8", 8, 8),
        ("so $\\boxed{160}$ in all", None, 160),
        ("#### 12\nI took 3 steps", 12, 12),
        ("no idea", None, None),
        ("", None, None),
    ],
)
def test_strict_and_flexible(text: str, strict: float | None, flexible: float | None) -> None:
    assert (strict_number(text), flexible_number(text)) == (strict, flexible)


@given(st.text(max_size=60), st.integers(-(10**9), 10**9))
def test_a_number_after_the_last_marker_is_found_by_both_rules(text: str, number: int) -> None:
    answer = f"{text}\n#### {number:,}"
    assert strict_number(answer) == flexible_number(answer) == number


def test_equal_means_closer_than_a_hundredth() -> None:
    assert is_equal(18.009, 18)
    assert not is_equal(18.011, 18)
    assert not is_equal(".", 18)
    assert not is_equal(None, 18)


def test_scores_are_right_or_wrong_and_say_whether_a_number_was_found() -> None:
    right = score_item("gsm8k_strict", ITEM, answered("#### 1250.50"))
    assert (right.value, right.signals["extracted"]) == (1.0, 1.0)
    loose = answered("It is $1,250.50.")
    assert score_item("gsm8k_strict", ITEM, loose).value == 0.0
    assert score_item("gsm8k_strict", ITEM, loose).signals["extracted"] == 0.0
    assert score_item("gsm8k_flexible", ITEM, loose).value == 1.0
    assert score_item("gsm8k_flexible", ITEM, loose).signals["published"] == 0.0
    silent = score_item("gsm8k_flexible", ITEM, answered("", finish_reason="length"))
    assert (silent.value, silent.unscored) == (0.0, None)
    assert silent.signals == {"extracted": 0.0, "published": 0.0, "truncated": 1.0}


def test_our_items_state_a_number_and_their_solutions_end_on_it() -> None:
    for item in read_items("gsm8k"):
        stated = gsm8k.correct_number(item.fields["correct_answer"])
        assert stated is not None
        assert strict_number(item.fields["answer_cot"]) == stated, item.id


def test_worked_examples_of_the_completion_prompt_are_right_and_no_items() -> None:
    prompt = (ROOT / "src/lem/benchmarks/templates/gsm8k.completion.txt").read_text()
    sums = re.findall(r"((?:\d+ [x/+-] )+\d+) = (\d+)", prompt)
    assert len(sums) >= 8
    for left, right in sums:
        assert eval(left.replace("x", "*")) == int(right)
    assert not [item.id for item in read_items("gsm8k") if item.question in prompt]


def test_published_responses_are_scored_as_published_but_for_the_explained_ones(reference: Path) -> None:
    folder = reference / "lem-standard"
    items = {item.id: item for item in read_items("gsm8k", folder / "gsm8k.jsonl")}
    published = json.loads((folder / "standard_scores.json").read_text())["scores"]["gsm8k"]
    different = set()
    n = 0
    for model, verdicts in published.items():
        for line in (folder / "results" / f"gsm8k_{model}.jsonl").read_text().splitlines():
            row = json.loads(line)
            verdict = verdicts[row["id"]]
            score = score_item("gsm8k_flexible", items[row["id"]], answered(row["response"]))
            assert published_number(row["response"]) == verdict["extracted"]
            assert score.signals["published"] == verdict["correct"]
            if score.value != verdict["correct"]:
                different.add((model, row["id"]))
                assert score.value == 1.0
            n += 1
    assert n == 250
    assert different == DIFFERENT


def test_every_difference_to_the_published_scores_is_explained() -> None:
    page = (ROOT / "docs/BENCHMARKS.md").read_text()
    listed = set(re.findall(r"^\| (\w+) \| (GSM8K_\d+) \|", page, re.MULTILINE))
    assert listed == DIFFERENT
