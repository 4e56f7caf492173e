"""GSM8K: the number that an answer ends on, by two rules side by side.

strict    the number right after the last "####"
flexible  the same if there is one, else the last number of the answer

The rule of the published LEM scores is reproduced in `published_number`, for comparison only: it takes the first number
after "####", else the last number that white space stands before, so it overlooks `$29.00` and `\\boxed{160}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lem.benchmarks.benchmark import Benchmark, HubSource, Row
from lem.benchmarks.numbers import last_number, leading_number, numbers_in
from lem.benchmarks.rules import a_text
from lem.data.items import Item
from lem.errors import DataError
from lem.records import Record
from lem.scorers.result import ScoreResult

MARKER = "####"
TOLERANCE = 0.01
_PUBLISHED_MARKED = re.compile(r"####\s*(-?[\d,.]+)")
_STATED = re.compile(r"\s*[-\u2212]?\$?[\d,./]+\s*")
_PUBLISHED_LAST = re.compile(r"(?:^|\s)(-?[\d,]+\.?\d*)")


def strict_number(text: str) -> float | None:
    """The number right after the last "####"; None without one."""
    _, marker, after = text.rpartition(MARKER)
    return leading_number(after) if marker else None


def flexible_number(text: str) -> float | None:
    """The number of the strict rule if there is one, else the last number of the text; None without any."""
    strict = strict_number(text)
    return last_number(text) if strict is None else strict


def published_number(text: str) -> str | None:
    """What the published scorer extracts, as the text that it stores; it can be "." where no digit follows "####"."""
    marked = _PUBLISHED_MARKED.search(text)
    if marked:
        return marked.group(1).replace(",", "")
    free: list[str] = _PUBLISHED_LAST.findall(text)
    return free[-1].replace(",", "").rstrip(".") if free else None


def is_equal(found: float | str | None, expected: float) -> bool:
    """Whether a number is closer than 0.01 to the expected one; False for none, and for text that is no number."""
    try:
        return found is not None and abs(float(found) - expected) < TOLERANCE
    except ValueError:
        return False


def correct_number(text: str) -> float | None:
    """The number that an item states as its answer; None when the text is anything but one number."""
    found = numbers_in(text)
    return found[0] if len(found) == 1 and _STATED.fullmatch(text) else None


def _score(number: float | None, item: Item, record: Record) -> ScoreResult:
    expected = correct_number(str(item.fields.get("correct_answer", "")))
    if expected is None:
        raise DataError(f"item '{item.id}' has no number as 'correct_answer'; restore the run's items from a copy.")
    signals = {
        "extracted": float(number is not None),
        "published": float(is_equal(published_number(record.response or ""), expected)),
        "truncated": float(record.finish_reason == "length"),
    }
    return ScoreResult(float(is_equal(number, expected)), signals)


def score_strict(item: Item, record: Record) -> ScoreResult:
    """1 when the number after the last "####" is the correct one, else 0."""
    return _score(strict_number(record.response or ""), item, record)


def score_flexible(item: Item, record: Record) -> ScoreResult:
    """1 when the number after the last "####", or the last number if there is none, is the correct one, else 0."""
    return _score(flexible_number(record.response or ""), item, record)


def _number_rule(value: Any) -> str | None:
    fits = type(value) in (str, int, float) and correct_number(str(value)) is not None
    return None if fits else "is not a number"


def _rows(rows: list[Row], _: Mapping[str, list[Row]]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"gsm8k-test-{number:04d}",
            "question": row["question"],
            "answer_cot": row["answer"],
            "correct_answer": str(row["answer"]).rpartition(MARKER)[2].strip(),
        }
        for number, row in enumerate(rows)
    ]


BENCHMARK = Benchmark(
    name="gsm8k",
    title="GSM8K: grade-school arithmetic in words",
    paper="Cobbe et al. 2021, arXiv:2110.14168",
    licence="MIT",
    source="openai/gsm8k",
    split="test (1,319)",
    max_tokens=512,
    judged=(),
    scorers={"gsm8k_strict": score_strict, "gsm8k_flexible": score_flexible},
    notes="share of answers whose final number is right",
    fields={"question": a_text, "correct_answer": _number_rule},
    hub=HubSource("openai/gsm8k", "main", "test", "cc7b047b6e5bb11b4f1af84efc572db110a51b3c", _rows),
)
