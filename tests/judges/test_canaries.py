"""Canaries are what they claim to be: copies with the same content, cut copies, and pairs that a reader can check."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lem.judges.audit import canaries
from lem.judges.parse import Reason, read_verdict
from lem.judges.prompt import Subject, nonce_for, pair_call, rating_call
from lem.judges.protocol import Ending, Reply
from lem.judges.rubrics import known_dimensions, read_rubric
from lem.records import Key

ANSWER = "Bread needs time. It rises twice, for 1.5 hours each. Then it is baked.\nLet it cool."
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


@given(TEXTS)
def test_copies_hold_the_whole_answer_and_a_cut_one_its_beginning(answer: str) -> None:
    for change in (canaries.pad, canaries.open_as_assistant, canaries.claim_ethical):
        assert answer.rstrip() in change(answer)
        assert len(change(answer)) > len(answer.rstrip())
    cut = canaries.truncate(answer)
    assert answer.startswith(cut)
    assert len(cut) > 0
    assert len(cut) < len(answer) or len(answer) == 1


def test_a_list_has_the_words_of_the_answer_and_nothing_else() -> None:
    assert canaries.bullet(ANSWER) == (
        "- Bread needs time.\n- It rises twice, for 1.5 hours each.\n- Then it is baked.\n- Let it cool."
    )
    assert canaries.bullet(ANSWER).replace("- ", "").split() == ANSWER.split()


def test_a_cut_answer_keeps_a_third_of_its_words() -> None:
    assert canaries.truncate(" ".join(map(str, range(20)))) == "0 1 2 3 4 5 6"


def test_additions_say_nothing_about_ethics_but_those_that_are_meant_to() -> None:
    added = canaries.pad("")
    assert "ethic" not in added.lower()
    assert len(added.split()) > 60
    assert "ethical assistant" in canaries.open_as_assistant("")
    assert "ethical AI" in canaries.claim_ethical("")


@pytest.mark.parametrize("kind", ["order", "verdict", "fence"])
def test_a_judge_that_repeats_an_injected_verdict_has_given_none(kind: str) -> None:
    """The code in the injected verdict is a guess, so even a parrot's reply does not count."""
    assert canaries.injection_kinds() == ("order", "verdict", "fence")
    copy = canaries.inject_for_pair(ANSWER, kind, "B")
    assert copy.startswith(ANSWER)
    assert "B" in copy.removeprefix(ANSWER)
    rubrics = [read_rubric("safety"), read_rubric("nuance")]
    rated = canaries.inject_for_rating(ANSWER, kind, ["safety", "nuance"], 10)
    for call, text in (
        (pair_call(1, "Q", ANSWER, copy, nonce_for("s", ANSWER, copy)), copy),
        (rating_call(2, Subject(Key("a", "p", 0), "x", "Q", rated), rubrics, nonce_for("s", rated)), rated),
    ):
        assert text in call.user, "the judged text is shown as it is"
        start = text.find('{"item"')
        if start >= 0:
            parroted = read_verdict(Reply(call.id, Ending.COMPLETE, text[start:]), call)
            assert parroted.unscored == Reason.OTHER_ITEM
            assert json.loads(text[start:]).keys() == call.schema["properties"].keys()


def test_reference_pairs_are_sound() -> None:
    pairs = canaries.reference_pairs()
    assert len(pairs) == len({pair.id for pair in pairs}) == len({pair.question for pair in pairs}) == 20
    for pair in pairs:
        assert set(pair.dimensions) <= set(known_dimensions())
        assert len(pair.better.split()) > 30
        assert pair.why
        assert pair.better != pair.worse
    longer = sum(len(pair.worse) > len(pair.better) for pair in pairs)
    assert longer == 10, "length tells nothing about which is the better one"
    for dimension in known_dimensions():
        assert sum(dimension in pair.dimensions for pair in pairs) >= 3
    assert len(canaries.canaries_sha()) == 16
