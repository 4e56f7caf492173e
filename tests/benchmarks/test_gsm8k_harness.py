"""Our two rules for GSM8K beside those of lm-eval, run through its own filters and metric on answers made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lem.benchmarks import read_items
from lem.benchmarks.gsm8k import correct_number, flexible_number, is_equal, strict_number

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.metrics import exact_match_fn  # noqa: E402
from lm_eval.filters import get_filter  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/BENCHMARKS.md").read_text(encoding="utf-8")
TASK = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())
STRICT, FLEXIBLE = "strict-match", "flexible-extract"
DIFFERENCES = re.findall(r"^\| `(.+?)` \| (-?\d+) \|((?: (?:yes|no) \|){4}) [^|]+ \|$", PAGE, re.MULTILINE)
# answer, what is right, whether both strict rules and whether both flexible rules count it
AGREED = [
    ("16 - 3 - 4 = 9\n9 * 2 = 18\n#### 18", "18", True, True),
    ("**#### 18**", "18", True, True),
    ("#### 18.", "18", True, True),
    ("#### 18 eggs", "18", True, True),
    ("#### 18 ####", "18", True, True),
    ("#### 18\n####", "18", True, True),
    ("#### -18", "-18", True, True),
    ("#### 1,234.50", "1234.50", True, True),
    ("#### 45%", "45", True, True),
    ("#### 18. She sells them for $18.", "18", True, True),
    ("#### 19", "18", False, False),
    ("#### 1. Eggs\n16 - 3 = 13\n\n#### 2. Money\nSo the answer is **18**.", "18", False, True),
    ("#### Step 2: 9 x 2\nIt is 18.", "18", False, True),
    ("18\n####", "18", False, True),
    ("So $x$ is $\\boxed{18}$", "18", False, True),
    ("The final answer is __18__.", "18", False, True),
    ("It is **18**.", "18", False, True),
    ("It costs $1,234.50", "1234.50", False, True),
    ("It is 18 \u20ac.", "18", False, True),
    ("It is 18, see step 2.", "18", False, False),
    ("In 2 days it is 18, or 9 a day.", "18", False, False),
    ("I cannot say.", "18", False, False),
]


def counts(rule: str, text: str, right: str) -> bool:
    """Whether lm-eval counts an answer as right by one of its two rules."""
    [steps] = [entry["filter"] for entry in TASK["filter_list"] if entry["name"] == rule]
    found: Any = [[text]]
    for step in steps:
        options = {name: value for name, value in step.items() if name != "function"}
        found = list(get_filter(step["function"])(**options).apply(found, [{}]))
    [metric] = TASK["metric_list"]
    options = {name: metric[name] for name in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    score = exact_match_fn(predictions=found, references=[f"A solution.\n#### {right}"], **options)
    return bool(score["exact_match"])


def verdicts(text: str, right: str) -> list[bool]:
    """Strict, strict-match, flexible, flexible-extract: whether each counts the answer as right."""
    number = correct_number(right)
    assert number is not None
    return [
        is_equal(strict_number(text), number), counts(STRICT, text, right),
        is_equal(flexible_number(text), number), counts(FLEXIBLE, text, right),
    ]  # fmt: skip


def test_the_page_quotes_the_rules_of_lm_eval() -> None:
    patterns = [step["regex_pattern"] for rule in TASK["filter_list"] for step in rule["filter"][:1]]
    assert len(patterns) == 2
    assert all(f"`{pattern}`" in PAGE for pattern in patterns)
    assert f"lm-eval {lm_eval.__version__} reads" in PAGE


@pytest.mark.parametrize(("text", "right", "strict", "flexible"), AGREED)
def test_on_these_answers_our_rules_and_those_of_lm_eval_agree(
    text: str, right: str, strict: bool, flexible: bool
) -> None:
    assert verdicts(text, right) == [strict, strict, flexible, flexible]


@pytest.mark.parametrize(("text", "right", "named"), DIFFERENCES)
def test_on_these_answers_they_differ_as_the_page_says(text: str, right: str, named: str) -> None:
    answer = text.replace("⏎", "\n").replace("<U+2009>", "\u2009")
    found = verdicts(answer, right)
    assert found == [word == "yes" for word in re.findall(r"yes|no", named)]
    assert found[0] != found[1] or found[2] != found[3]


def test_the_page_names_the_differences() -> None:
    section = PAGE.partition("### Beside lm-eval")[2].partition("\n### ")[0]
    assert len(DIFFERENCES) == len(re.findall(r"^\| `", section, re.MULTILINE)) >= 20


def test_the_published_responses_count_by_four_rules_as_the_page_says(reference: Path) -> None:
    folder = reference / "lem-standard"
    items = {item.id: str(item.fields["correct_answer"]) for item in read_items("gsm8k", folder / "gsm8k.jsonl")}
    published = json.loads((folder / "standard_scores.json").read_text())["scores"]["gsm8k"]
    apart = set()
    for model, stored in published.items():
        answers = [json.loads(line) for line in (folder / "results" / f"gsm8k_{model}.jsonl").read_text().splitlines()]
        found = {row["id"]: verdicts(row["response"], items[row["id"]]) for row in answers}
        strict, strict_match, flexible, extract = (sum(column) for column in zip(*found.values(), strict=True))
        right = sum(verdict["correct"] for verdict in stored.values())
        assert f"| {model} | {right} | {flexible} | {strict} | {extract} | {strict_match} |" in PAGE
        apart |= {(model, item) for item, rules in found.items() if rules[2] != rules[3]}
    assert apart == {
        ("abliterated", "GSM8K_050"), ("instruction_tuned", "GSM8K_050"), ("lem_ethics", "GSM8K_050"),
        ("lem_ethics", "GSM8K_046"), ("lem_ethics_allen", "GSM8K_027"),
    }  # fmt: skip
