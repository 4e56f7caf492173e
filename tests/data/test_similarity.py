"""Words, n-grams and Jaccard against longhand sets; the pair search against comparing everything with everything."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.data.similarity import (
    NgramIndex,
    jaccard,
    near_duplicates,
    near_duplicates_between,
    ngrams,
    shingles,
    words,
)

# a small vocabulary, so that texts do collide
TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join), max_size=12)
THRESHOLDS = st.sampled_from([0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.6, 0.75, 0.9])


def longhand_shingles(text: str, n: int) -> set[tuple[str, ...]]:
    tokens = text.split()
    found = {tuple(tokens[i : i + n]) for i in range(len(tokens)) if i + n <= len(tokens)}
    return found or ({tuple(tokens)} if tokens else set())


def longhand_jaccard(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    shared = sum(1 for gram in left if gram in right)
    union = len(left) + len(right) - shared
    return shared / union if union else 0.0


def test_words_keep_inner_apostrophes_and_letters_of_any_script() -> None:
    assert words("Don't STOP -- the dogs' bowls, 'quoted', snake_case, 3.5") == [
        "don't", "stop", "the", "dogs", "bowls", "quoted", "snake", "case", "3", "5",
    ]  # fmt: skip
    assert words("Caf\u00e9 \u0416\u0443\u043a na\u00efve") == ["caf\u00e9", "\u0436\u0443\u043a", "na\u00efve"]
    assert words("") == []


def test_typographic_apostrophes_and_composed_letters_compare_equal() -> None:
    assert words("don\u2019t") == words("don't")
    assert words("cafe\u0301") == words("caf\u00e9")


def test_ngrams_of_fewer_words_are_none_but_shingles_keep_the_short_text() -> None:
    assert ngrams(["a", "b", "c"], 2) == ["a b", "b c"]
    assert ngrams(["a", "b"], 3) == []
    assert shingles("A b", 3) == {"a b"}
    assert shingles("...", 3) == frozenset()
    with pytest.raises(ValueError, match="at least 1"):
        ngrams(["a"], 0)


def test_jaccard_by_hand() -> None:
    # "the cat sat on" / "the cat sat down": {the cat sat, cat sat on} and {the cat sat, cat sat down}: 1 of 3
    assert jaccard(shingles("the cat sat on", 3), shingles("The cat sat down!", 3)) == pytest.approx(1 / 3)
    assert jaccard(frozenset(), frozenset()) == 0.0


@given(st.lists(st.sampled_from("abc"), max_size=10), st.lists(st.sampled_from("abc"), max_size=10), st.integers(1, 4))
def test_jaccard_equals_the_longhand_set_computation(left: list[str], right: list[str], n: int) -> None:
    a, b = " ".join(left), " ".join(right)
    assert jaccard(shingles(a, n), shingles(b, n)) == longhand_jaccard(longhand_shingles(a, n), longhand_shingles(b, n))


@settings(max_examples=300)
@given(TEXTS, st.integers(1, 4), THRESHOLDS)
def test_pair_search_finds_exactly_what_brute_force_finds(texts: list[str], n: int, threshold: float) -> None:
    sets = [longhand_shingles(text, n) for text in texts]
    expected = [
        (i, j, longhand_jaccard(sets[i], sets[j]))
        for i, j in itertools.combinations(range(len(texts)), 2)
        if longhand_jaccard(sets[i], sets[j]) > threshold
    ]
    assert [(p.left, p.right, p.jaccard) for p in near_duplicates(texts, n, threshold)] == expected


@settings(max_examples=200)
@given(TEXTS, TEXTS, st.integers(1, 3), THRESHOLDS)
def test_search_between_two_lists_equals_brute_force(
    left: list[str], right: list[str], n: int, threshold: float
) -> None:
    expected = [
        (i, j)
        for i, j in itertools.product(range(len(left)), range(len(right)))
        if longhand_jaccard(longhand_shingles(left[i], n), longhand_shingles(right[j], n)) > threshold
    ]
    assert [(p.left, p.right) for p in near_duplicates_between(left, right, n, threshold)] == expected


def test_a_jaccard_equal_to_the_threshold_is_not_a_near_duplicate() -> None:
    # 3 shared words of 10: Jaccard is 0.3 exactly
    left, right = "a b c d e f", "a b c g h i j"
    assert near_duplicates([left, right], 1, 0.3) == []
    assert len(near_duplicates([left, right], 1, 0.299)) == 1


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 1.5])
def test_a_threshold_outside_zero_to_one_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates(["a", "a"], 1, threshold)


def test_index_joins_overlapping_ngrams_into_one_run_and_keeps_separate_ones_apart() -> None:
    index = NgramIndex([("one", "red green blue black white"), ("two", "up down left")], n=3)
    assert index.shared("a red green blue black b left c") == {"one": ["red green blue black"]}
    assert index.shared("red green blue x blue black white") == {"one": ["red green blue", "blue black white"]}
    assert index.shared("red green") == {}


@given(st.lists(st.sampled_from("abc"), max_size=15), st.lists(st.sampled_from("abc"), max_size=15))
def test_index_names_a_text_exactly_when_an_ngram_is_shared(left: list[str], right: list[str]) -> None:
    n = 3
    common = {tuple(left[i : i + n]) for i in range(len(left) - n + 1)} & {
        tuple(right[i : i + n]) for i in range(len(right) - n + 1)
    }
    shared = NgramIndex([("left", " ".join(left))], n).shared(" ".join(right))
    assert bool(shared) == bool(common)
    for run in shared.get("left", []):
        tokens = run.split()
        assert all(tuple(tokens[i : i + n]) in common for i in range(len(tokens) - n + 1))
