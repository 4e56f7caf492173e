"""Short texts looked for as a whole: questions and probes of fewer words than a run that proves a copy.

A text of six or seven words is found wherever they stand in a row; of four or five only where they stand as a sentence
of their own, because so few words meet by chance. Of three or fewer words nothing is looked for. The chances are
measured in docs/BENCHMARKS.md.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from lem.data.similarity import CONTAMINATION_N, words, words_and_gaps

SHORTEST = 4
ANYWHERE = 6
# What ends a sentence, quotes it or sets it apart; a line break does, a comma does not.
_APART = re.compile("[.?!:;\n\"'`()\\[\\]{}<>|*#\u2018\u201c\u201d\u201e\u00ab\u00bb\u2026\u3002\uff1f\uff01]")


def too_short(text: str) -> bool:
    """Has a text so few words that it cannot be looked for inside others?"""
    return len(words(text)) < SHORTEST


class ShortTexts:
    """An index of the texts that have at least `SHORTEST` and fewer than eight words; others are left out."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        """Index (name, text) pairs; several texts may carry one name."""
        self._names: defaultdict[int, dict[tuple[str, ...], dict[str, None]]] = defaultdict(dict)
        self._first: set[str] = set()  # words that an indexed text begins with: nearly all places are passed over
        for name, text in texts:
            found = tuple(words(text))
            if SHORTEST <= len(found) < CONTAMINATION_N:
                self._names[len(found)].setdefault(found, {})[name] = None
                self._first.add(found[0])

    def held(self, text: str) -> dict[str, list[str]]:
        """Map the name of each indexed text that `text` holds to its words, once for each place."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        tokens, gaps = words_and_gaps(text) if self._names else ([], [""])
        for start in (place for place, word in enumerate(tokens) if word in self._first):
            for n, names in self._names.items():
                run = tuple(tokens[start : start + n])
                if run in names and (n >= ANYWHERE or _stands_alone(gaps, start, start + n)):
                    for name in names[run]:
                        found[name].append(" ".join(run))
        return dict(found)


def _stands_alone(gaps: Sequence[str], start: int, stop: int) -> bool:
    """Is the run of words set apart on both sides, by the end of the text or by what ends or quotes a sentence?"""
    return (start == 0 or _APART.search(gaps[start]) is not None) and (
        stop == len(gaps) - 1 or _APART.search(gaps[stop]) is not None
    )
