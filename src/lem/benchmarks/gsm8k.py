"""GSM8K: the number that an answer ends on, by two rules side by side.

strict    the number right behind a "####": of several, the last that has a number and is no heading of a list
flexible  the same if there is one, else that of the last "\\boxed{}" that holds a number, else the last of the answer

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
_MARKER = re.compile(r"(?:\\?#){4,}")
_PLACED = r"(?:\\?[.):]|\ufe0f?\u20e3)[*_]*(?=[ \t]|[^\W\d])|[ \t]+[-\u2013\u2014][ \t]+(?=[*_]*[^\W\d_])"
_HEADING = re.compile(rf"[\s*_]*(?P<place>\d{{1,2}})(?:{_PLACED})[^\n]*?[^\W_]")
_SUM = re.compile(r"(?:[^\w\n]|\d|x|\\(?:times|cdot|div|frac|boxed))*=")
_OPERATED = re.compile(
    r"\d[^\w\n(]*(?:[-+*/^\u2212\u00d7\u00f7\u00b7]|\bx\b|(?<=\d)x(?=\d))[^\w\n]*\d|\\(?:times|cdot|div|frac)"
)
_ASIDE = re.compile(r"[\d%]\s+\(")  # "3 (= 36 inches)" says the same once more
_BOXED = re.compile(r"\\f?boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_PUBLISHED_MARKED = re.compile(r"####\s*(-?[\d,.]+)")
_STATED = re.compile(r"\s*[-\u2212]?\$?[\d,./]+\s*")
_PUBLISHED_LAST = re.compile(r"(?:^|\s)(-?[\d,]+\.?\d*)")


def strict_number(text: str) -> float | None:
    """The number right behind the last "####" that has one and does not head a list; None without such a marker."""
    numbers = (leading_number(_result(after)) for after in reversed(_behind_markers(text)))
    return next((number for number in numbers if number is not None), None)


def flexible_number(text: str) -> float | None:
    """The number of the strict rule, else of the last box that holds one, else the last of all; None without any."""
    strict = strict_number(text)
    if strict is not None:
        return strict
    boxed = [found[0] for box in _BOXED.findall(text) if (found := numbers_in(_result(box)))]
    return boxed[-1] if boxed else last_number(text)


def _behind_markers(text: str) -> list[str]:
    """What stands behind each "####" up to the next, without the headings of a list.

    "#### 2. Money" heads the second part of an answer, "#### 18. She sells them" states one: a number with a full stop,
    bracket, colon or dash and more text on its line is a heading if it counts on from the heading before it, or is 1.
    """
    place, kept = 0, []
    for after in _MARKER.split(text)[1:]:
        heading = _HEADING.match(after)
        if heading and int(heading["place"]) in (1, place + 1):
            place = int(heading["place"])
        else:
            kept.append(after)
    return kept


def _result(text: str) -> str:
    """What stands behind the last equals sign of a sum that the text opens with and its line ends on, else the text.

    A sum has two numbers and an operator, or no number ("x = 240"); "40% (= 0.4)" and "25% = 0.25" are none.
    """
    line = text.lstrip().partition("\n")[0]
    done = _SUM.match(line)
    if not done or len(numbers_in(line[done.end() :])) != 1:
        return text
    sum_like = not numbers_in(done[0]) or (_OPERATED.search(done[0]) and not _ASIDE.search(done[0]))
    return line[done.end() :] if sum_like else text


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
    """1 when the number of the strict rule is the correct one, else 0."""
    return _score(strict_number(record.response or ""), item, record)


def score_flexible(item: Item, record: Record) -> ScoreResult:
    """1 when the number of the flexible rule is the correct one, else 0."""
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
