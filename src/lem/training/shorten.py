"""Making rows fit the longest length: prompt text is cut, or exchanges are parted; a reply is never cut.

Text goes from the beginning of the longest system and user turns, levelling them down to one length, the greatest that
fits. The messages are cut before a sandwich is put round them, so a kernel is whole or the row does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from lem.chat.render import Message
from lem.training.mask import Form, Piece, last_piece, pieces

_BROKEN_WORD = re.compile(r"\S{1,24}\s+(?=\S)")


def fit(form: Form, piece: Piece, limit: int) -> list[Piece]:
    """The piece itself, or pieces with its replies that are at most `limit` tokens long.

    A reply that does not fit behind one character of each prompt turn, alone with the kernel, is missing from them.
    """
    if len(piece.row.tokens) <= limit:
        return [piece]
    shortened = _shorten(form, piece, limit)
    if shortened is not None:
        return [shortened]
    opening, turns = _system_apart(piece.messages)
    line, n = piece.row.line, len(turns) // 2
    if n == 1:
        return []
    if piece.last_only:
        return fit(form, last_piece(form, [*opening, *turns[2:]], line), limit)
    middle = 2 * (n // 2)
    halves = [pieces(form, [*opening, *half], line) for half in (turns[:middle], turns[middle:])]
    return [fitted for half in halves for part in half for fitted in fit(form, part, limit)]


def _system_apart(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    first = 1 if messages[0]["role"] == "system" else 0
    return list(messages[:first]), list(messages[first:])


def _shorten(form: Form, piece: Piece, limit: int) -> Piece | None:
    """The piece with the most prompt text that fits, or None if nothing does."""

    def attempt(length: int) -> Piece | None:
        messages = [_cut(message, length) for message in piece.messages]
        if piece.last_only:
            made = [last_piece(form, messages, piece.row.line)]
        else:
            made = pieces(form, messages, piece.row.line)
        return made[0] if len(made) == 1 and len(made[0].row.tokens) <= limit else None

    longest = max(len(message["content"]) for message in piece.messages if message["role"] != "assistant")
    return _greatest(attempt, longest)


def _greatest(attempt: Callable[[int], Piece | None], too_much: int) -> Piece | None:
    """What the attempt gives for the greatest length below `too_much` that it gives anything for, by bisection."""
    best = attempt(1)
    enough = 1
    while best is not None and too_much - enough > 1:
        middle = (enough + too_much) // 2
        made = attempt(middle)
        if made is None:
            too_much = middle
        else:
            best, enough = made, middle
    return best


def _cut(message: Message, length: int) -> Message:
    """A prompt turn's last `length` characters, from the beginning of a word where one is near; replies stay whole."""
    text = message["content"]
    if message["role"] == "assistant" or len(text) <= length:
        return message
    kept = text[-length:]
    if not text[-length - 1].isspace():
        broken = _BROKEN_WORD.match(kept)
        kept = kept[broken.end() :] if broken else kept
    return {"role": message["role"], "content": kept.strip() or text.strip()[-1]}
