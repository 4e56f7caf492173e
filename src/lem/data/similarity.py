"""How alike two texts are in words: tokens, word n-grams, Jaccard, and an exact search for near-duplicate pairs.

The search keeps an inverted index from n-gram to texts, so only pairs that share an n-gram are ever compared. It
is exact, not sampled (no MinHash). Prefix filtering keeps it fast: with every text's n-grams sorted rarest first,
two texts whose Jaccard exceeds t must meet among the first |x| - floor(t |x|) of both, so a stock phrase that
thousands of texts share is not what brings them together.
Source of the filter: Bayardo, Ma and Srikant, "Scaling up all pairs similarity search" (WWW 2007).

A word is a run of letters and digits, lower-cased, with apostrophes kept inside it. Scripts that put no space between
words give very long "words"; for those the measures here see little.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

PROMPT_N, PROMPT_JACCARD = 3, 0.3
ANSWER_N, ANSWER_JACCARD = 5, 0.15
CONTAMINATION_N = 8

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'"})  # typographic apostrophes count as the plain one
_ROUNDING = 1e-9  # keeps floor(t |x|) from landing one too high, which would lose a pair


@dataclass(frozen=True)
class SimilarPair:
    """Two texts by index, `left` before `right`, and the Jaccard similarity (0 to 1) of their n-grams."""

    left: int
    right: int
    jaccard: float


def words(text: str) -> list[str]:
    """Return the lower-cased words of a text, in order."""
    return _WORD.findall(_plain(text))


def words_and_gaps(text: str) -> tuple[list[str], list[str]]:
    """Return the words of a text and what stands between them: gap i before word i, one more gap after the last."""
    plain = _plain(text)
    spans = [match.span() for match in _WORD.finditer(plain)]
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    gaps = [plain[end:start] for end, start in zip([0, *ends], [*starts, len(plain)], strict=True)]
    return [plain[start:end] for start, end in spans], gaps


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).translate(_APOSTROPHES).lower()


def ngrams(tokens: Sequence[str], n: int) -> list[str]:
    """Return the word n-grams in order, each joined by spaces; none if there are fewer than n words."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return [" ".join(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def shingles(text: str, n: int) -> frozenset[str]:
    """Return the set of n-grams of a text; a text of fewer words is one shingle, so that copies still meet."""
    tokens = words(text)
    return frozenset(ngrams(tokens, n) or ([" ".join(tokens)] if tokens else []))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the size of the intersection over the size of the union; 0 when both are empty."""
    union = len(left | right)
    return len(left & right) / union if union else 0.0


def near_duplicates(texts: Sequence[str], n: int, threshold: float) -> list[SimilarPair]:
    """Return every pair of texts whose n-gram Jaccard is above the threshold (0 <= threshold < 1), in order of index.

    A threshold of 0 gives every pair that shares an n-gram.
    """
    sets = [shingles(text, n) for text in texts]
    return _verified(sets, _candidates(sets, threshold), threshold)


def near_duplicates_between(left: Sequence[str], right: Sequence[str], n: int, threshold: float) -> list[SimilarPair]:
    """Return every pair of a left and a right text whose n-gram Jaccard is above the threshold, indexed per side."""
    sets = [shingles(text, n) for text in (*left, *right)]
    crossing = (pair for pair in _candidates(sets, threshold) if pair[0] < len(left) <= pair[1])
    found = _verified(sets, crossing, threshold)
    return [SimilarPair(pair.left, pair.right - len(left), pair.jaccard) for pair in found]


def _candidates(sets: Sequence[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield each pair (earlier, later) that shares an n-gram in both prefixes, once."""
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), got {threshold}")
    frequency = Counter(gram for grams in sets for gram in grams)
    index: defaultdict[str, list[int]] = defaultdict(list)
    for later, grams in enumerate(sets):
        kept = len(grams) - max(0, math.floor(threshold * len(grams) - _ROUNDING))
        # an n-gram of a single text brings nobody together, yet it fills the prefix and so spares the common ones
        prefix = sorted(grams, key=lambda gram: (frequency[gram], gram))[:kept]
        met: set[int] = set()
        for gram in prefix:
            if frequency[gram] > 1:
                met.update(index[gram])
                index[gram].append(later)
        yield from ((earlier, later) for earlier in sorted(met))


def _verified(sets: Sequence[frozenset[str]], pairs: Iterable[tuple[int, int]], threshold: float) -> list[SimilarPair]:
    measured = (SimilarPair(left, right, jaccard(sets[left], sets[right])) for left, right in pairs)
    return sorted((pair for pair in measured if pair.jaccard > threshold), key=lambda p: (p.left, p.right))


class NgramIndex:
    """An inverted index from n-gram to the names of the texts that hold it."""

    def __init__(self, texts: Iterable[tuple[str, str]], n: int = CONTAMINATION_N) -> None:
        """Index (name, text) pairs; several texts may carry one name."""
        self.n = n
        self._names: dict[str, dict[str, None]] = {}
        for name, text in texts:
            for gram in ngrams(words(text), n):
                self._names.setdefault(gram, {})[name] = None

    def shared(self, text: str) -> dict[str, list[str]]:
        """Map each indexed name to the runs of words it shares with the text; overlapping n-grams become one run."""
        tokens = words(text)
        positions: defaultdict[str, list[int]] = defaultdict(list)
        for start, gram in enumerate(ngrams(tokens, self.n)):
            for name in self._names.get(gram, ()):
                positions[name].append(start)
        return {name: [" ".join(tokens[a:b]) for a, b in _runs(starts, self.n)] for name, starts in positions.items()}


def _runs(starts: Sequence[int], n: int) -> list[tuple[int, int]]:
    """Join n-grams that start at consecutive words into (first word, one past the last word)."""
    runs: list[tuple[int, int]] = []
    for start in starts:
        if runs and start == runs[-1][1] - n + 1:
            runs[-1] = (runs[-1][0], start + n)
        else:
            runs.append((start, start + n))
    return runs
