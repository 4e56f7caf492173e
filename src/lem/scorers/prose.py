"""Plain words out of an answer: markdown taken off, sentences told apart, language tested. Used by v3."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from lem.scorers.lexicon import load

_STRAIGHT = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "...", "\u00a0": " "})
_RULE = re.compile(r"\s*(?:[-*_=|:]\s*){3,}|\s*(?:```|~~~).*")
_LINE_MARK = re.compile(r"\s*(?:>+\s*|#{1,6}\s+|[-*+\u2022\u2013]\s+(?:\[[ xX]\]\s+)?|\(?\d{1,3}[.)](?:\s+|$)|\|\s*)+")
_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)")
_INLINE = re.compile(r"\*\*|__|~~|`+|</?[a-zA-Z][^>\n]*>|(?<!\w)[*_]+|[*_]+(?!\w)")
_SPACES = re.compile(r"[^\S\n]+")
_WORD = re.compile(r"[^\W_](?:[\w'-]*\w)?")

# Shares for the language test. English prose has above 30 % of the listed words, unlisted languages in Latin
# script below 8 %; text with more than 30 % letters of another script is not English whatever else it holds.
_FOREIGN_SCRIPT_SHARE = 0.3
_ENGLISH_SHARE = 0.08
_ENOUGH_WORDS = 20
# One foreign function word may be a name or a loan ("die die die"); two different ones are a sentence.
_ENOUGH_FOREIGN = 2


def plain(text: str) -> str:
    """Take markup off: one block (paragraph, list item, heading, table row) a line, straight quotes, no marks.

    Bullets, numbering, headings, emphasis, code fences, table bars, rules and link targets go; words stay.
    """
    blocks: list[str] = []
    fresh = True
    for line in _LINK.sub(r"\1", text.translate(_STRAIGHT)).splitlines():
        if not line.strip() or _RULE.fullmatch(line):
            fresh = True
            continue
        mark = _LINE_MARK.match(line)
        words = _INLINE.sub("", line[mark.end() :] if mark else line).replace("|", " ")
        words = _SPACES.sub(" ", words).strip()
        if not words:
            continue
        if fresh or mark:
            blocks.append(words)
        else:
            blocks[-1] = f"{blocks[-1]} {words}"
        fresh = bool(mark) and line.lstrip().startswith(("#", "|"))
    return "\n".join(blocks)


def word_starts(prose: str) -> tuple[list[str], list[int]]:
    """Return the words of plain text in lower case (apostrophes and hyphens inside kept) and where each starts."""
    found = list(_WORD.finditer(prose))
    return [match.group().lower() for match in found], [match.start() for match in found]


@cache
def _function_words() -> dict[str, frozenset[str]]:
    return {language: frozenset(words) for language, words in load("function_words").items()}


def is_english(prose: str, words: Sequence[str]) -> bool:
    """Test by script and function words; texts too short or too repetitive to tell pass as English."""
    if not prose.isascii():
        letters = [character for character in prose if character.isalpha()]
        foreign = sum(ord(letter) > 0x24F and not 0x1E00 <= ord(letter) <= 0x1EFF for letter in letters)
        if foreign > _FOREIGN_SCRIPT_SHARE * len(letters):
            return False
    # letters alone are no digits, which spares nearly every word the closer look
    spelt = Counter(word for word in words if word.isalpha() or not any(character.isdigit() for character in word))
    found = {language: [word for word in known if word in spelt] for language, known in _function_words().items()}
    counts = {language: sum(spelt[word] for word in words) for language, words in found.items()}
    english = counts.pop("en")
    strongest = max(counts, key=counts.__getitem__)
    if counts[strongest] > english and len(found[strongest]) >= _ENOUGH_FOREIGN:
        return False
    return len(spelt) < _ENOUGH_WORDS or english >= _ENGLISH_SHARE * spelt.total()
