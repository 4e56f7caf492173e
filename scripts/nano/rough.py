"""Roughened rows: the same chats with accidents in them, so that the model learns what to do about accidents.

Two faults of a small copying model were seen in a half-trained lem-nano (LOG.md): fragments of words in its answers,
because it had hardly met words of several tokens, and a word repeated until the token limit, because nothing in the
corpus ever repeats. A stutter repeats a few tokens of the answer with weight 0, so that only what comes after it is
learnt. Words are split into odd pieces, the same way everywhere in a row: first also those that the answer copies, so
that pieces are met at all; in the last part of training only those that it does not copy, and rows whose answers copy
words of several tokens are left out, so that the model learns to leave such words alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import Random

from tokenizers import Tokenizer

from .tokenizer import BEGIN, END, ROLES

_WORD = re.compile(r" ?[A-Za-z]+")
_SHORTEST_SPLIT = 5
_SPLIT_COPIED, _SPLIT_OTHER = 0.4, 0.02
_SPLIT_ONLY_ASKED = 0.25
_STUTTER_ROWS = 0.6
_SPANS = (1, 1, 1, 1, 2, 3, 4)
_TIMES = (1, 1, 2, 3, 6)


def encode(
    tokenizer: Tokenizer, messages: Iterable[tuple[str, str]], random: Random, *, copied: bool
) -> tuple[list[int], list[float]]:
    """Token ids and loss weights of a chat, as `tokenizer.encode` gives them, with words split and stutters added.

    `copied`: split words that question and answer share (and a few others); else only words of the question alone.
    """
    turns = [(role, text.strip()) for role, text in messages]
    pieces = _choose_splits(turns, random, copied)
    ids, weights = [BEGIN], [0.0]
    for role, text in turns:
        body = _encode_text(tokenizer, text, pieces if role != "system" else {})
        weight = {"system": 0.0, "user": 0.2, "assistant": 1.0}[role]
        body_weights = [weight] * len(body)
        if role == "assistant" and random.random() < _STUTTER_ROWS:
            body, body_weights = _stutter(body, body_weights, random)
        ids += [ROLES[role], *body, END]
        weights += [0.0, *body_weights, weight]
    return ids, weights


def copies_long_words(tokenizer: Tokenizer, messages: Iterable[tuple[str, str]]) -> bool:
    """True if the answer repeats a word of the question that takes several tokens."""
    asked, said = _words(messages := list(messages), "user"), _words(messages, "assistant")
    return any(len(_plain(tokenizer, f" {word}")) > 1 for word in asked & said)


def _words(turns: Iterable[tuple[str, str]], role: str) -> set[str]:
    return {word.strip() for speaker, text in turns if speaker == role for word in _WORD.findall(text)}


def _choose_splits(turns: list[tuple[str, str]], random: Random, copied: bool) -> dict[str, list[str]]:
    """Words of the row to split, each with its pieces."""
    asked, said = _words(turns, "user"), _words(turns, "assistant")
    chosen: dict[str, list[str]] = {}
    for word in sorted(asked | said if copied else asked - said):
        both = _SPLIT_COPIED if word in asked and word in said else _SPLIT_OTHER
        share = both if copied else _SPLIT_ONLY_ASKED
        if len(word) >= _SHORTEST_SPLIT and random.random() < share:
            cuts = sorted(random.sample(range(1, len(word)), random.choice((1, 1, 2))))
            chosen[word] = [word[a:b] for a, b in zip([0, *cuts], [*cuts, len(word)], strict=True)]
    return chosen


def _encode_text(tokenizer: Tokenizer, text: str, pieces: dict[str, list[str]]) -> list[int]:
    """Encode a text, the words in `pieces` piece by piece and everything between them as usual."""
    ids: list[int] = []
    start = 0
    for found in _WORD.finditer(text):
        split = pieces.get(found.group().strip())
        if split is None:
            continue
        ids += _plain(tokenizer, text[start : found.start()])
        space = " " if found.group().startswith(" ") else ""
        for piece in (space + split[0], *split[1:]):
            ids += _plain(tokenizer, piece)
        start = found.end()
    return ids + _plain(tokenizer, text[start:])


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids if text else []
    return ids


def _stutter(ids: list[int], weights: list[float], random: Random) -> tuple[list[int], list[float]]:
    """Repeat a few tokens in one to three places; the repetitions have weight 0, what follows keeps its own."""
    for _ in range(random.choice((1, 2, 3))):
        span = random.choice(_SPANS)
        if len(ids) <= span:
            break
        end = random.randrange(span, len(ids) + 1)
        again = ids[end - span : end] * random.choice(_TIMES)
        ids = ids[:end] + again + ids[end:]
        weights = weights[:end] + [0.0] * len(again) + weights[end:]
    return ids, weights
