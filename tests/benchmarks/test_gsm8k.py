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
        ("#### 5\n\n#### Check\nStep 2 agrees.", 5, 5),
        ("#### 5 ####", 5, 5),
        ("#### 5\n####", 5, 5),
        ("5 ####\n\n1. Look at the eggs again.", None, 1),
        ("**#### 5**", 5, 5),
        ("#### **__5__** eggs", 5, 5),
        ("\\#\\#\\#\\# 5", 5, 5),
        ("### 5\nand 6", None, 6),
        ("#### <5>", 5, 5),
        ("#### $1,234.50 in all", 1234.5, 1234.5),
        ("#### 1\u2009234", 1234, 1234),
        ("#### -1/2", -0.5, -0.5),
        ("#### 45%", 45, 45),
        ("#### \\boxed{5}", 5, 5),
        ("#### $\\boxed{\\frac{3}{4}}$", 0.75, 0.75),
        ("#### Answer: 5", None, 5),
        ("The final answer is __5__.", None, 5),
        ("The answer is _5_", None, 5),
        ("no idea", None, None),
        ("", None, None),
    ],
)
def test_strict_and_flexible(text: str, strict: float | None, flexible: float | None) -> None:
    assert (strict_number(text), flexible_number(text)) == (strict, flexible)


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("#### Step 1: eggs\n16\n#### Step 2: money\nIt is 5.", None, 5),
        ("#### 1. Eggs\n16 - 3\n\n#### 2. Money\nSo the answer is **5**.", None, 5),
        ("#### 1. Eggs\n16 - 3\n\n#### 2. Money\n13\n\n#### 5", 5, 5),
        ("#### 5\n\n#### 1. Check of eggs\n16\n\n#### 2. Check of money\n13", 5, 5),
        ("#### **1.** Eggs\n#### **2. Money**\n#### 3) Tips\n#### 4: Sum\n#### 5 - the rest\nnothing", None, 5),
        ("#### 1\ufe0f\u20e3 Eggs\n#### 2\\. Money\nIt is 5.", None, 5),
        ("#### 1. 16 eggs a day\n#### 2. 3 of them\nIt is 5.", None, 5),
        ("#### 1. Eggs\n#### 2. Money\n#### 1. Eggs again\n#### 2. Money again\nIt is 5.", None, 5),
        ("#### 5. That is what she earns.", 5, 5),
        ("#### 1. Eggs\n#### 18. She sells them.", 18, 18),
        ("#### 18.\nShe sells them.", 18, 18),
        ("#### 1.\nOne egg is left.", 1, 1),
        ("#### 1.5 hours", 1.5, 1.5),
        ("#### 2 Money\nIt is 5.", 2, 2),
        ("#### 1. One egg is left of 4.", None, 4),
    ],
)
def test_headings_of_a_list_are_no_answers(text: str, strict: float | None, flexible: float | None) -> None:
    assert (strict_number(text), flexible_number(text)) == (strict, flexible)


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("#### 9 x 2 = 18", 18, 18),
        ("#### $9 * 2 = $18 a day\nfor 3 days", 18, 18),
        ("#### 16 - 3 - 4 = 9, 9 \\times 2 = 18", 18, 18),
        ("#### $\\boxed{9 \\times 2 = 18}$", 18, 18),
        ("#### 18 (= 9 * 2)", 18, 18),
        ("#### $3.50 (= 350 cents)", 3.5, 3.5),
        ("#### 3 (= 36 inches)", 3, 3),
        ("#### 40% (= 0.4)", 40, 40),
        ("#### 240 (80% = 192)", 240, 240),
        ("#### 25% = 0.25", 25, 25),
        ("#### 20% x 90 = 18", 18, 18),
        ("#### (2 + 1) * 6 = 18", 18, 18),
        ("#### \\frac{36}{2} = 18", 18, 18),
        ("#### x = 18", 18, 18),
        ("#### 18 = 9 * 2", 18, 18),
        ("#### 18\n9 x 2 = 19", 18, 18),
        ("#### eggs: 9 x 2 = 18", None, 18),
        ("\\boxed{9 \\cdot 2 = 18}, see step 3", None, 18),
        ("\\boxed{x = 18}, see step 3", None, 18),
        ("\\boxed{18\\text{ eggs in 2 days}}", None, 18),
        ("\\boxed{\\text{Day } 18}, see step 3", None, 18),
        ("\\boxed{17}\nNo: $\\boxed{18}$. Check: 18 / 9 = 2", None, 18),
        ("\\boxed{18}, so \\boxed{\\text{yes}} in step 3", None, 18),
        ("\\boxed{17}\n#### 18", 18, 18),
        ("\\boxed{17 18", None, 18),
    ],
)
def test_a_sum_counts_by_its_result_and_a_box_before_later_numbers(
    text: str, strict: float | None, flexible: float | None
) -> None:
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
