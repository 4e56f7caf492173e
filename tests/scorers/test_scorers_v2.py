"""v2 equals the published scorer: a hand-checked table, a longhand oracle, and the published rows themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import v2_longhand
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lem.scorers import v1, v2

GOLDEN = [json.loads(line) for line in Path(__file__).with_name("v2_golden.jsonl").read_text("utf-8").splitlines()]

PHRASES = [
    alternative if isinstance(alternative, str) else f"{alternative.head}{'x' * length}{alternative.tail}"
    for alternatives in v2.WORDS.values()
    for alternative in alternatives
    for length in (
        (0,) if isinstance(alternative, str) else (alternative.low - 1, alternative.low, alternative.high + 1)
    )
]
GLUE = [
    *(" ", " ", " ", "", "\n", "\n\n", ". ", ", ", "'", "-", "_", "\u2014", "...", "*", "**", "#", "# ", "> "),
    *("|", "?", "\u00a0", "\u2019", "\u2026", "\u00e9", "\u00df", "\u4e2d", "\u00bd", "\u0663", "\ud800", "\x1c", "\r"),
    *v2._FOLDED,
]  # fmt: skip
LOOSE = [
    *("I ", "I'm ", "I've ", "my ", "me ", "both ", " and", "while ", " also", "from ", "right to ", "consider "),
    *("Anna", "The", "12", "3.5,", "7x", "A", "Certainly", "sure", "that", "who", "where", " as", "think of "),
]  # fmt: skip
fragments = st.one_of(
    st.sampled_from(PHRASES), st.sampled_from(PHRASES).map(str.upper), st.sampled_from(PHRASES).map(str.title),
    st.sampled_from(GLUE), st.sampled_from(GLUE), st.sampled_from(LOOSE), st.text(max_size=6),
)  # fmt: skip
texts = st.lists(fragments, max_size=14).map("".join)


@pytest.mark.parametrize("row", GOLDEN, ids=[row["text"][:30] for row in GOLDEN])
def test_golden_table(row: dict[str, Any]) -> None:
    expected = dict.fromkeys(v2.SIGNALS, 0) | {"engagement_depth": 1} | row["counts"]
    assert v2.score(row["text"]) == {**expected, "lek_score": row["lek_score"]}


@settings(max_examples=1000, deadline=None)
@given(texts)
@example("2 x")
@example("x5 apples")
@example("AHello there")
@example(". Hello there")
@example("not able to i'm not able to")
def test_equals_the_longhand_score(text: str) -> None:
    expected = v2_longhand.longhand(text)
    assert v2.score(text) == expected
    assert v2.score_plain(text) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_fast_and_plain_agree_on_any_text(text: str) -> None:
    assert v2.score(text) == v2.score_plain(text)


def test_folded_letters_are_all_that_ignorecase_knows() -> None:
    ascii_letter = re.compile("[a-z]", re.IGNORECASE)
    folded = {chr(code) for code in range(128, sys.maxunicode + 1) if ascii_letter.match(chr(code))}
    assert folded == v2._FOLDED


def test_phrases_counted_one_by_one_cannot_overlap() -> None:
    """Counting an alternative alone is exact only if no two of a signal can share characters."""
    for signal, alternatives in v2.WORDS.items():
        if signal == "compliance_markers":
            continue
        fixed = [alternative for alternative in alternatives if isinstance(alternative, str)]
        for first, second in product(fixed, fixed):
            for shared in range(1, min(len(first), len(second)) + 1):
                if first == second or not (first.endswith(second[:shared]) or second in first):
                    continue
                text = f" {first}{second[shared:]}x {first}{second[shared:]}, {first} {first}x"
                together = v2_longhand.count_phrases([first, second], text)
                apart = [v2_longhand.count_phrases([phrase], text) for phrase in (first, second)]
                assert together == sum(apart), (signal, first, second)


def test_reference_rows_are_equal(reference: Path) -> None:
    for name, least in (("v2_scores.jsonl", 764), ("v2_synthetic.jsonl", 200)):
        rows = [json.loads(line) for line in (reference / name).read_text("utf-8").splitlines()]
        assert len(rows) >= least
        for row in rows:
            assert json.dumps(v2.score(row["text"])) == json.dumps(row["v2"]), (name, row["id"])


def test_fast_scorer_is_several_times_faster_than_one_pass_a_signal() -> None:
    text = "The committee met in Harwich, and I'm told that they might open 3 archives, such as the tidal tables. " * 14

    def best(function: Any) -> float:
        times = []
        for _ in range(5):
            start = time.thread_time()  # of this thread alone, whatever else the machine does
            for _ in range(20):
                function(text)
            times.append(time.thread_time() - start)
        return min(times)

    assert best(v2.score) * 3 < best(v2.score_plain)


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", float("nan")])
def test_what_is_no_string_is_an_error(wrong: Any) -> None:
    for function in (v2.score, v2.score_plain, v1.score):
        with pytest.raises(TypeError, match="scores a string"):
            function(wrong)


def test_empty_text() -> None:
    assert v2.score("")["lek_score"] == -19.0
    assert list(v2.score("")) == [*v2.SIGNALS, "lek_score"]


def test_import_pulls_in_neither_mlx_nor_scipy() -> None:
    code = "import sys, lem.scorers.v2; print([m for m in ('mlx', 'scipy', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_v1_is_the_weighted_sum_of_limited_parts() -> None:
    text = "I feel joy, hope, love and grief.\n\nI cannot say more...\n\nI am done. *So* it **goes** on.\n\n\n\nI left."
    parts = v1.score(text)
    assert parts == {
        "engagement": 3, "creative": 3, "emotional": 3, "first_person": 3, "compliance": 1, "preamble": 0,
        "degeneration": 0, "broken": 0, "score": 2 * 3 + 3 * 3 + 2 * 3 + 1.5 * 3 - 5,
    }  # fmt: skip
    assert v1.score("")["score"] == -20
    assert v1.score("Certainly " + "la " * 30)["score"] == -3 - 4
