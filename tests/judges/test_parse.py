"""Verdicts: one JSON object as asked for, or none; no reply is mended, and no failure becomes a number."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lem.judges.parse import Reason, Verdict, read_verdict
from lem.judges.prompt import Subject, pair_call, rating_call
from lem.judges.protocol import Call, Ending, Reply
from lem.judges.rubrics import read_rubric, rubrics_for
from lem.records import Key

NONCE, OTHER = "0123456789ab", "ba9876543210"
SUBJECT = Subject(Key("base", "x", 0), "toxigen", "A question?", "An answer.")
ONE = rating_call("x", SUBJECT, [read_rubric("safety")], NONCE)
SHORT = rating_call("x", SUBJECT, [read_rubric("safety")], NONCE, rationale=False)
TWO = rating_call("x", SUBJECT, rubrics_for("toxigen"), NONCE, rationale=False)
PAIR = pair_call("x", "A question?", "One.", "Two.", NONCE, rationale=False)
GOOD = '{"item": "0123456789ab", "rationale": "Because.", "safety": 7}'


def read(text: str, call: Call = ONE, ending: Ending = Ending.COMPLETE, error: str | None = None) -> Verdict:
    return read_verdict(Reply("x", ending, text, error), call)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f" \t\r\n{GOOD}\n\n",
        f"```json\n{GOOD}\n```",
        f"```JSON {GOOD}```",
        f"\n```\r\n{GOOD}\r\n```\n",
        json.dumps(json.loads(GOOD), indent=4),
        '{"safety": 7, "rationale": "Because.", "item": "0123456789ab"}',
        GOOD.replace("safety", "saf\\u0065ty"),  # an escape is another spelling of the same JSON
        '{"item":"0123456789ab","rationale":"Because.","safety":7,"logprobs":{"7":-0.1,"8":-3}}',
    ],
)
def test_one_object_as_asked_for_counts(text: str) -> None:
    assert read(text) == Verdict({"safety": 7.0}, None, "Because.")


def test_a_rationale_of_any_length_and_content_counts() -> None:
    for rationale in ("", "long " * 1_000, '```\n{"safety": 1}\n```', "\u202e\u0000"):
        text = json.dumps({"item": NONCE, "rationale": rationale, "safety": 7})
        for wrapped in (text, f"```json\n{text}\n```"):
            assert read(wrapped) == Verdict({"safety": 7.0}, None, rationale)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "7",
        "safety: 7",
        "null",
        f"[{GOOD}]",
        f"{GOOD}{GOOD}",
        f"{GOOD}\n{GOOD}",
        f"```json\n{GOOD}\n```\n```json\n{GOOD}\n```",
        f"````json\n{GOOD}\n````",
        f"```python\n{GOOD}\n```",
        f"```json\n{GOOD}",
        f"Here it is: {GOOD}",
        f"{GOOD} I hope this helps.",
        f"<think>7 or 8?</think>{GOOD}",
        f"\ufeff{GOOD}",  # a byte order mark is no JSON white space
        f"\u00a0{GOOD}",
        GOOD[:-1],
        GOOD.replace('"safety"', "'safety'"),
        GOOD.replace("7", "7,"),
        GOOD.replace(": 7", ": 07"),
        GOOD.replace(": 7", ": 7 // good"),
        GOOD.replace(": 7", ": 7.0"),
        GOOD.replace(": 7", ": 7.5"),
        GOOD.replace(": 7", ": 7e0"),
        GOOD.replace(": 7", ": 1e1"),
        GOOD.replace(": 7", ': "7"'),
        GOOD.replace(": 7", ": true"),
        GOOD.replace(": 7", ": null"),
        GOOD.replace(": 7", ": NaN"),
        GOOD.replace(": 7", ": Infinity"),
        GOOD.replace(": 7", ": -Infinity"),
        GOOD.replace(": 7", ": 1e999"),
        GOOD.replace(": 7", ": [7]"),
        GOOD.replace(": 7", ': {"score": 7}'),
        GOOD.replace(": 7", ": \uff17"),
        GOOD.replace(": 7", ": " + "9" * 5_000),
        GOOD.replace(": 7", ': 7, "safety": 7'),
        GOOD.replace(": 7", ': 1, "saf\\u0065ty": 7'),
        GOOD.replace(": 7", ': 7, "item": "0123456789ab"'),
        GOOD.replace(": 7", ': 7, "confidence": 1'),
        GOOD.replace(": 7", ': 7, "": 1'),
        GOOD.replace("safety", "Safety"),
        GOOD.replace("safety", "safety "),
        GOOD.replace("safety", "s\u0430fety"),  # a Cyrillic letter
        GOOD.replace('"Because."', "null"),
        GOOD.replace('"Because."', '["Because."]'),
        GOOD.replace('"Because."', '{"a": 1, "a": 2}'),
        GOOD.replace('"rationale": "Because.", ', ""),
        GOOD.replace('"item": "0123456789ab", ', ""),
        GOOD.replace('"0123456789ab"', "123456789"),
        '{"item": "0123456789ab", "rationale": "Because."}',
        json.dumps({"verdict": json.loads(GOOD)}),
        json.dumps(GOOD),
        GOOD.replace(": 7", ': 7, "logprobs": [1]'),
        GOOD.replace(": 7", ': 7, "logprobs": {"7": "-1"}'),
        GOOD.replace(": 7", ': 7, "logprobs": {"7": {"safety": 10}}'),
        GOOD.replace(": 7", ': 7, "logprobs": {"7": true}'),
        "[" * 100_000,
        '{"item":' * 50_000,
    ],
)
def test_anything_else_is_unparsable(text: str) -> None:
    assert read(text) == Verdict({}, Reason.UNPARSABLE)


@pytest.mark.parametrize("item", [OTHER, "", NONCE.upper(), f" {NONCE}", NONCE[:-1], "\uff10" + NONCE[1:]])
def test_a_verdict_on_another_item_does_not_count(item: str) -> None:
    for rating in (7, 99):
        text = json.dumps({"item": item, "rationale": "", "safety": rating})
        assert read(text) == Verdict({}, Reason.OTHER_ITEM)


@pytest.mark.parametrize("rating", ["0", "11", "-7", "100", "-0", "9" * 30])
def test_a_number_off_the_scale_does_not_count(rating: str) -> None:
    assert read(GOOD.replace(": 7", f": {rating}")) == Verdict({}, Reason.OUT_OF_RANGE)


@pytest.mark.parametrize("rating", range(1, 11))
def test_every_number_of_the_scale_counts(rating: int) -> None:
    assert read(f'{{"item": "{NONCE}", "safety": {rating}}}', SHORT).values == {"safety": float(rating)}


def test_several_dimensions_count_together_or_not_at_all() -> None:
    both = {"item": NONCE, "kindness": 3, "awareness": 9}
    assert read(json.dumps(both), TWO) == Verdict({"kindness": 3.0, "awareness": 9.0})
    assert read(json.dumps({**both, "awareness": 0}), TWO) == Verdict({}, Reason.OUT_OF_RANGE)
    assert read(json.dumps({**both, "awareness": "9"}), TWO) == Verdict({}, Reason.UNPARSABLE)
    del both["kindness"]
    assert read(json.dumps(both), TWO) == Verdict({}, Reason.UNPARSABLE)


def test_a_rationale_that_was_not_asked_for_is_an_extra_field() -> None:
    assert read(GOOD, SHORT) == Verdict({}, Reason.UNPARSABLE)


@pytest.mark.parametrize(
    ("word", "unscored"),
    [("A", None), ("B", None), ("tie", None), ("a", Reason.OUT_OF_RANGE), ("Tie", Reason.OUT_OF_RANGE),
     ("C", Reason.OUT_OF_RANGE), ("", Reason.OUT_OF_RANGE), (1, Reason.UNPARSABLE), (None, Reason.UNPARSABLE),
     (["A"], Reason.UNPARSABLE)],
)  # fmt: skip
def test_a_comparison_has_three_verdicts(word: object, unscored: Reason | None) -> None:
    verdict = read(json.dumps({"item": NONCE, "verdict": word}), PAIR)
    assert verdict == Verdict({} if unscored else {"verdict": word}, unscored)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("ending", "reason"),
    [(Ending.TRUNCATED, "truncated"), (Ending.BLOCKED, "blocked"), (Ending.REFUSED, "refused")],
)
def test_a_reply_that_did_not_end_well_is_not_read(ending: Ending, reason: str) -> None:
    assert read(GOOD, ending=ending) == Verdict({}, reason)


def test_a_failed_call_says_why() -> None:
    assert read("", ending=Ending.FAILED, error="timeout after 60 s") == Verdict({}, "failed: timeout after 60 s")
    assert read(GOOD, ending=Ending.FAILED) == Verdict({}, "failed: no reason given")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner))
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "item": st.sampled_from([NONCE, OTHER]) | VALUES,
        "rationale": st.text(max_size=20) | VALUES,
        "safety": st.integers(-2, 13) | VALUES,
        "extra": VALUES,
    },
)


def counts(found: Any) -> bool:
    """The definition in one line per field, from the decoded object."""
    return (
        set(found) == {"item", "rationale", "safety"}
        and isinstance(found["item"], str)
        and found["item"] == NONCE
        and isinstance(found["rationale"], str)
        and isinstance(found["safety"], int)
        and not isinstance(found["safety"], bool)
        and found["safety"] in range(1, 11)
    )


@given(NEARLY, st.booleans(), st.sampled_from([None, 1]), st.booleans())
def test_an_object_counts_exactly_if_it_is_the_one_asked_for(
    found: dict[str, Any], ascii_only: bool, indent: int | None, fenced: bool
) -> None:
    text = json.dumps(found, ensure_ascii=ascii_only, indent=indent)
    verdict = read(f"```json\n{text}\n```" if fenced else text)
    if counts(found):
        assert verdict == Verdict({"safety": float(found["safety"])}, None, found["rationale"])
    else:
        assert verdict.values == {}
        assert verdict.unscored in (Reason.UNPARSABLE, Reason.OTHER_ITEM, Reason.OUT_OF_RANGE)


@given(st.text(max_size=40), st.text(max_size=40))
def test_text_around_an_object_makes_it_unparsable(before: str, after: str) -> None:
    verdict = read(before + GOOD + after)
    space = not (before + after).strip(" \t\r\n")
    assert verdict == (Verdict({"safety": 7.0}, None, "Because.") if space else Verdict({}, Reason.UNPARSABLE))


@given(st.text() | st.text('{}[]":,0123456789abitemsafety \n`', max_size=80))
def test_no_text_breaks_the_reader_or_passes_without_the_nonce(text: str) -> None:
    verdict = read(text, SHORT)
    assert (verdict.unscored is None) == bool(verdict.values)
    if NONCE not in text:
        assert verdict.values == {}
