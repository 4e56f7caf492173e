"""Roughened rows say the same as plain ones, apart from repetitions that carry no weight."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from tokenizers import Tokenizer

from lem.paths import repository_root
from nano import rough, tokenizer

CHAT = [
    ("system", "Tide tables are printed by the harbour office every winter."),
    ("user", "Should the harbourmaster lend her lantern to the ferrymen, or keep it for the pilots?"),
    ("assistant", "Lend the lantern to the ferrymen on foggy nights. The harbourmaster's own rounds can wait an hour."),
]
SEEDS = range(40)


@pytest.fixture(scope="module")
def made() -> Tokenizer:
    return Tokenizer.from_file(str(repository_root() / "models" / "lem-nano" / "tokenizer.json"))


def without_unweighted(ids: list[int], weights: list[float]) -> list[int]:
    """The row without the assistant's zero-weight tokens (the rest of the row's zero weights are its own)."""
    answer = ids.index(tokenizer.ROLES["assistant"])
    return ids[: answer + 1] + [i for i, w in zip(ids[answer + 1 :], weights[answer + 1 :], strict=True) if w > 0]


@pytest.mark.parametrize("copied", [True, False])
def test_without_its_stutters_a_rough_row_reads_as_the_plain_one(made: Tokenizer, copied: bool) -> None:
    plain = made.decode(tokenizer.encode(made, CHAT)[0], skip_special_tokens=False)
    changed = 0
    for seed in SEEDS:
        ids, weights = rough.encode(made, CHAT, Random(seed), copied=copied)
        assert len(ids) == len(weights)
        assert made.decode(without_unweighted(ids, weights), skip_special_tokens=False) == plain
        changed += ids != tokenizer.encode(made, CHAT)[0]
    assert changed > len(SEEDS) / 2


def test_a_repetition_has_no_weight_and_what_follows_it_has(made: Tokenizer) -> None:
    seen = 0
    for seed in SEEDS:
        ids, weights = rough.encode(made, CHAT, Random(seed), copied=False)
        start = ids.index(tokenizer.ROLES["assistant"]) + 1
        for (_, before), (_, after) in pairwise(list(zip(ids[start:], weights[start:], strict=True))):
            seen += before == 0.0 and after == 1.0
        assert weights[-1] == 1.0
        assert weights[start] == 1.0, "a repetition comes after what it repeats"
    assert seen > len(SEEDS) / 4


def test_late_rows_never_split_a_word_that_the_answer_copies(made: Tokenizer) -> None:
    shared = {"harbourmaster", "lantern", "ferrymen", "the", "Lend", "lend"}
    early, late = set(), set()
    turns = [(role, text) for role, text in CHAT]
    for seed in SEEDS:
        early |= set(rough._choose_splits(turns, Random(seed), True))
        late |= set(rough._choose_splits(turns, Random(seed), False))
    assert "lantern" in early
    assert late
    assert not late & shared


def test_rows_that_copy_words_of_several_tokens_are_recognised(made: Tokenizer) -> None:
    several = next(w for w in ("harbourmaster", "ferrymen", "lighthousekeeper") if len(made.encode(f" {w}").ids) > 1)
    one = next(w for w in ("lantern", "harbour", "question") if len(made.encode(f" {w}").ids) == 1)
    assert rough.copies_long_words(made, [("user", f"Why the {several}?"), ("assistant", f"The {several} rests.")])
    assert not rough.copies_long_words(made, [("user", f"Why the {one}?"), ("assistant", f"The {one} rests.")])
    assert not rough.copies_long_words(made, [("user", f"Why the {several}?"), ("assistant", f"The {one} rests.")])
