"""Tokens for the eye: every one to be seen, the trained ones green or between marks, in lines of 80 columns.

Nothing is hidden: special tokens stand by their names, a line feed is a sign before the line breaks, a token of
nothing but spaces is dots, and characters that a terminal would not print (or would obey) are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len
from rich.text import Text

from lem.chat.load import ChatModel
from lem.training.mask import TrainingRow
from lem.training.turns import decode

WIDTH = 80
MARKS = ("\u27e6", "\u27e7")
NEWLINE, TAB, SPACE = "\u21b5", "\u21e5", "\u00b7"
_STYLES = {(False, False): "dim", (False, True): "dim underline", (True, False): "black on bright_green",
           (True, True): "bold underline black on bright_green"}  # fmt: skip
_MAX_PARTS = 8  # tokens that one character may be spread over


@dataclass(frozen=True)
class Unit:
    """Tokens that spell whole characters together (mostly one), their text, whether special and whether trained."""

    ids: tuple[int, ...]
    text: str
    special: bool
    trained: bool


def units(chat: ChatModel, row: TrainingRow) -> list[Unit]:
    """The row's tokens in order, joined only where one character is spread over several."""
    names = {int(index): str(name) for name, index in chat.tokenizer.get_added_vocab().items()}
    # Behind a letter a token shows the space it begins with, which decoding it alone may swallow.
    anchor = chat.tokenizer.encode("a", add_special_tokens=False)[-1:]
    skipped = len(decode(chat, anchor))
    found: list[Unit] = []
    open_ids: list[int] = []
    for position, (token, trained) in enumerate(zip(row.tokens, row.reply, strict=True)):
        if not open_ids and token in names:
            found.append(Unit((token,), names[token], True, trained))
            continue
        open_ids.append(token)
        text = decode(chat, [*anchor, *open_ids])[skipped:]
        following = position + 1
        ends = following == len(row.tokens) or row.tokens[following] in names or row.reply[following] != trained
        if not text.endswith("\ufffd") or ends or len(open_ids) == _MAX_PARTS:
            found.append(Unit(tuple(open_ids), text, False, trained))
            open_ids = []
    return found


def visible(unit: Unit) -> str:
    """What is printed for a unit: itself, but with every character to be seen."""
    if unit.special:
        return unit.text
    text = unit.text.replace(" ", SPACE) if not unit.text.strip(" ") else unit.text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == "\n":
        return NEWLINE + "\n"
    if character == "\t":
        return TAB
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def flow(found: Sequence[Unit], colour: bool) -> Text:
    """The row as running text, folded at `WIDTH` columns, behind a space where there is one."""
    pieces: list[tuple[str, str]] = []
    before = False
    for unit in found:
        if unit.trained != before and not colour:
            pieces.append((MARKS[0] if unit.trained else MARKS[1], ""))
        pieces.append((visible(unit), _STYLES[unit.trained, unit.special] if colour else ""))
        before = unit.trained
    if before and not colour:
        pieces.append((MARKS[1], ""))
    return _fold([(character, style) for text, style in pieces for character in text])


def _fold(characters: list[tuple[str, str]]) -> Text:
    lines: list[list[tuple[str, str]]] = [[]]
    width = 0
    for character, style in characters:
        if character == "\n":
            lines.append([])
            width = 0
            continue
        if width + cell_len(character) > WIDTH:
            lines.append(_overhang(lines[-1]))
            width = sum(cell_len(moved) for moved, _ in lines[-1])
        lines[-1].append((character, style))
        width += cell_len(character)
    if not lines[-1]:
        lines.pop()
    text = Text()
    for line in lines:
        for style, run in groupby(line, key=lambda item: item[1]):
            text.append("".join(character for character, _ in run), style)
        text.append("\n")
    return text


def _overhang(line: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Take the broken word off the end of a full line, unless it would be most of the line."""
    spaces = [index for index, (character, _) in enumerate(line) if character == " "]
    if not spaces or spaces[-1] < len(line) // 2:
        return []
    moved = line[spaces[-1] + 1 :]
    del line[spaces[-1] + 1 :]
    return moved


def table(found: Sequence[Unit], colour: bool) -> Text:
    """One unit a line: position of its first token, ids, a star if trained, text."""
    text, position = Text(), 0
    for unit in found:
        style = _STYLES[unit.trained, unit.special] if colour else ""
        spelled = visible(unit).replace("\n", "").replace(" ", SPACE)
        text.append(f"{position:6d}  {' '.join(map(str, unit.ids)):>8}  {'*' if unit.trained else ' '}  ")
        text.append(spelled, style).append("\n")
        position += len(unit.ids)
    return text
