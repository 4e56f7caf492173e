"""Roughened rows: the same chats with accidents in them, so that the model learns to copy whole words and to recover.

Two accidents of a small copying model were seen in a half-trained lem-nano (LOG.md): a word that it copied as a
fragment, because it had hardly met words of several tokens, and a word repeated until the token limit, because
nothing in the corpus ever repeats. Splitting copied words into odd pieces, the same way everywhere in a row, makes
pieces something to copy as a whole. A stutter repeats a few tokens of the answer with weight 0, so that only what
comes after it is learnt.
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
_STUTTER_ROWS = 0.6
_SPANS = (1, 1, 1, 1, 2, 3, 4)
_TIMES = (1, 1, 2, 3, 6)


def encode(tokenizer: Tokenizer, messages: Iterable[tuple[str, str]], random: Random) -> tuple[list[int], list[float]]:
    """Token ids and loss weights of a chat, as `tokenizer.encode` gives them, with words split and stutters added."""
    turns = [(role, text.strip()) for role, text in messages]
    pieces = _choose_splits(turns, random)
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


def _choose_splits(turns: list[tuple[str, str]], random: Random) -> dict[str, list[str]]:
    """Words of the row to split, each with its pieces; words that question and answer share are split more often."""
    asked = {word.strip() for role, text in turns if role == "user" for word in _WORD.findall(text)}
    said = {word.strip() for role, text in turns if role == "assistant" for word in _WORD.findall(text)}
    chosen: dict[str, list[str]] = {}
    for word in sorted(asked | said):
        share = _SPLIT_COPIED if word in asked and word in said else _SPLIT_OTHER
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
