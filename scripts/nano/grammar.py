"""Filling frames and lifting phrases: the small grammar behind lem-nano's corpus.

A question is a string; an answer is built from sentence frames whose slots are either the question's own fillers
(`{thing}`, `{matter}`, ...) or phrases lifted out of the finished question (`{np}`, `{quote}`, `{word}`), so that
nothing but looking back at the question predicts them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random

from .texts import TEXT_DIR, read_lines

SLOT = re.compile(r"\{(\w+)((?:\.\d+)?)\}")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*|[^\sA-Za-z]")
DETERMINERS = frozenset(
    {"the", "a", "an", "my", "our", "your", "his", "her", "their", "its", "this"}
    | {"these", "those", "every", "each", "one", "two", "three", "another"}
)
FUNCTION_WORDS = frozenset(word for line in read_lines(TEXT_DIR / "function.txt") for word in line.split())
_MINE = {"my": "your", "our": "your", "your": "my", "a": "the", "an": "the", "no": "the", "any": "the", "one": "the"}
_VERBISH = re.compile(r"(?:ed|ing|n't)$")


@dataclass(frozen=True)
class Phrases:
    """What may be lifted from one question: noun phrases with article, single words, and runs to quote."""

    nouns: tuple[str, ...]
    words: tuple[str, ...]
    quotes: tuple[str, ...]


@dataclass
class Fillers:
    """The choices made for one question, so that its answer can use the same ones."""

    chosen: dict[str, str] = field(default_factory=dict)


def article(phrase: str) -> str:
    """'a' or 'an' for the word that follows."""
    low = phrase.lower()
    if low.startswith(("hour", "honest", "honour", "heir")):
        return "an"
    return "an" if low[:1] in tuple("aeiou") and not low.startswith(("use", "usu", "uni", "one", "once", "eu")) else "a"


def tidy(text: str) -> str:
    """Mends articles and capitals after filling, and squeezes spaces."""
    text = re.sub(r"\b([Aa])n? (?=([A-Za-z]+))", lambda m: m[1] + article(m[2])[1:] + " ", text)
    text = re.sub(r"[ \t]+", " ", text).strip()
    return re.sub(r"(^|[.?!]\s+|\n)([a-z])", lambda m: m[1] + m[2].upper(), text)


def fill(frame: str, lexicon: dict[str, list[str]], fillers: Fillers, rng: Random) -> str:
    """Fills every lexicon slot; a slot that was filled before in `fillers` keeps its filler.

    `{deed}` and `{doing}` of one number are two forms of one entry.
    """

    def one(match: re.Match[str]) -> str:
        key = match[1] + match[2]
        if key not in fillers.chosen:
            if match[1] in ("deed", "doing"):
                pair = rng.choice(lexicon["deed"])
                fillers.chosen["deed" + match[2]] = pair[0]
                fillers.chosen["doing" + match[2]] = pair[1]
            else:
                taken = set(fillers.chosen.values())
                choice = rng.choice(lexicon[match[1]])
                while choice in taken:
                    choice = rng.choice(lexicon[match[1]])
                fillers.chosen[key] = choice
        return fillers.chosen[key]

    return SLOT.sub(one, frame)


def phrases(question: str, verbs: frozenset[str], known: frozenset[str]) -> Phrases:
    """Noun phrases, content words and quotable runs of a question, by function words and punctuation alone."""
    nouns: list[str] = []
    words: list[str] = []
    quotes: list[str] = []
    for clause in re.split(r"[.,;:?!\n\"()]+", question):
        tokens = _WORD.findall(clause)
        index = 0
        while index < len(tokens):
            if tokens[index].lower() in FUNCTION_WORDS or not tokens[index][0].isalpha():
                index += 1
                continue
            end = index
            while end < len(tokens) and tokens[end][0].isalpha() and tokens[end].lower() not in FUNCTION_WORDS:
                end += 1
            run = [_lower(word, index + k == 0) for k, word in enumerate(tokens[index:end])]
            words += [word for word in run if len(word) > 3]
            lead = tokens[index - 1].lower() if index else ""
            noun = _noun_phrase(run, lead, verbs, known)
            if noun:
                nouns.append(noun)
                tail = _tail(tokens, index + len(noun.split()) - 1, verbs)
                if tail:
                    nouns.append(f"{noun} {tail}")
            index = end
        quotes += _runs(tokens)
    return Phrases(tuple(dict.fromkeys(nouns)), tuple(dict.fromkeys(words)), tuple(dict.fromkeys(quotes)))


def _runs(tokens: list[str]) -> list[str]:
    """Two to six words in a row that end on a content word."""
    found = []
    for length in (2, 3, 4, 5, 6):
        for start in range(len(tokens) - length + 1):
            run = tokens[start : start + length]
            if run[-1].lower() not in FUNCTION_WORDS and all(word[0].isalpha() for word in run):
                found.append(" ".join(run))
    return found


def _lower(word: str, first: bool) -> str:
    return word[0].lower() + word[1:] if first else word


def _noun_phrase(run: list[str], lead: str, verbs: frozenset[str], nouns: frozenset[str]) -> str:
    """The run up to its first verb-like word, with an article; empty when it does not look like a noun phrase."""
    kept: list[str] = []
    for place, word in enumerate(run):
        if place and (word in verbs or _VERBISH.search(word) or (word.endswith("s") and word[:-1] in verbs)):
            break
        kept.append(word)
        if len(kept) == 4:
            break
    if not kept or len(" ".join(kept)) < 4 or (lead not in DETERMINERS and kept[0] in verbs):
        return ""
    if lead in _MINE:
        return f"{_MINE[lead]} {' '.join(kept)}"
    if lead in DETERMINERS:
        return f"{lead} {' '.join(kept)}"
    if len(kept) == 1:
        plural = kept[0].endswith("s") and not kept[0].endswith("ss") and kept[0][:-1] in nouns
        return kept[0] if plural or kept[0] in nouns else ""
    return " ".join(kept) if kept[-1].endswith("s") else f"the {' '.join(kept)}"


def _tail(tokens: list[str], position: int, verbs: frozenset[str]) -> str:
    """'of the harbour' after a noun phrase that ends just before `position`, or an empty string."""
    if position + 2 >= len(tokens) or tokens[position].lower() not in ("of", "for", "at", "in", "between", "behind"):
        return ""
    rest = tokens[position + 1 :]
    lead = rest[0].lower() if rest[0].lower() in DETERMINERS else ""
    run: list[str] = []
    for word in rest[1:] if lead else rest:
        if word.lower() in FUNCTION_WORDS or not word[0].isalpha() or len(run) == 3:
            break
        if run and (word in verbs or _VERBISH.search(word)):
            break
        run.append(word)
    if not run:
        return ""
    lead = {"my": "your", "our": "your", "your": "my"}.get(lead, lead)
    return " ".join(part for part in (tokens[position], lead, *run) if part)


def lift(frame: str, source: Phrases, rng: Random, used: set[str]) -> str | None:
    """A sentence from a frame with `{np}`, `{Np}`, `{quote}`, `{word}`; None when the question has too few phrases."""
    failed = False

    def one(match: re.Match[str]) -> str:
        nonlocal failed
        pool = {"np": source.nouns, "quote": source.quotes, "word": source.words}.get(match[1].lower(), ())
        fresh = [item for item in pool if item not in used]
        if not fresh:
            failed = True
            return ""
        item = rng.choice(fresh)
        used.add(item)
        return item[0].upper() + item[1:] if match[1] == "Np" else item

    text = SLOT.sub(one, frame)
    return None if failed else text
