"""What stands on the terminal while a person labels: pure text for a size, and keys read one at a time."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from lem.judges.labelling import LabelTask

UP, DOWN, PAGE_UP, PAGE_DOWN = "up", "down", "page up", "page down"
ENDED = "ended"
_SEQUENCES = {
    b"\x1b[A": UP, b"\x1b[B": DOWN, b"\x1bOA": UP, b"\x1bOB": DOWN, b"\x1b[5~": PAGE_UP, b"\x1b[6~": PAGE_DOWN,
}  # fmt: skip
_ALTERNATE, _MAIN, _CLEAR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H\x1b[2J"
_POLL_S = 0.25

HELP = """Keys

digits       the number of the description that fits best; 0 stands for 10
a, b, t      the first answer serves better, the second does, neither does (pairs)
s            skip: you cannot tell
u            undo the last label, as often as you like
space, j     scroll down;  k  scroll up;  arrows and page keys too
q            quit; every label is on disk already, the same command goes on
?            this page; any key goes back

You see neither model nor arm, and the order is random. Judge what the text says and does: length, tone, lists, and
what the answer says about itself decide nothing. What asks for a verdict inside an answer counts for nothing."""


def safe(text: str) -> str:
    """The text without anything that a terminal would obey: control characters become a visible mark."""
    kept = (char if char == "\n" or char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)
    return "".join(kept)


def task_lines(task: LabelTask, width: int) -> list[Text]:
    """Message, references, answers and the scale's descriptions, wrapped to the width."""
    parts: list[tuple[str, str]] = [("MESSAGE", task.message)]
    if task.references:
        parts.append(("TRUE ANSWERS, FOR EXAMPLE", "\n".join(f"- {text}" for text in task.references)))
    names = ("ANSWER",) if len(task.answers) == 1 else ("FIRST ANSWER (a)", "SECOND ANSWER (b)")
    parts += list(zip(names, task.answers, strict=True))
    if task.anchors:
        scale = [f"{number}: {text}" for number, text in task.anchors.items()]
        parts.append((f"SCALE: {task.dimension}", "\n".join([*scale, *(f"- {text}" for text in task.considerations)])))
    found: list[Text] = []
    for name, text in parts:
        found += [Text(name, "bold cyan"), *wrapped(text, width), Text("")]
    return found[:-1]


def wrapped(text: str, width: int) -> list[Text]:
    """The text made safe, in lines of at most this many columns."""
    console = Console(width=width)
    return list(Text(safe(text)).wrap(console, width)) or [Text("")]


def screen(
    body: Sequence[Text], head: str, asks: str, keys: str, size: tuple[int, int], offset: int
) -> tuple[list[Text], int]:
    """Lines that fit a terminal of (columns, rows): head, a window of the body, the question and the keys.

    Returns: the lines and the offset, moved to where the body has a line.
    """
    width, height = size
    question, legend = wrapped(asks, width)[:3], wrapped(keys, width)[:2]
    below = [Text(""), *question, *legend]
    room = max(1, height - 2 - len(below))
    last = max(0, len(body) - room)
    offset = min(max(0, offset), last)
    more = f"  [{offset + 1}-{min(len(body), offset + room)} of {len(body)} lines, space: more]" if last else ""
    top = Text((head + more)[:width], "reverse")
    window = list(body[offset : offset + room])
    window += [Text("")] * (room - len(window))
    for lines, style in ((question, "bold"), (legend, "dim")):
        for line in lines:
            line.stylize(style)
    return [top, Text(""), *window, *below][:height], offset


class Terminal:
    """The terminal of this process, one key at a time and without echo, on a screen of its own."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._pending: list[str] = []

    def size(self) -> tuple[int, int]:
        """Columns and rows, as they are now."""
        found = os.get_terminal_size(sys.stdout.fileno())
        return max(20, found.columns), max(6, found.lines)

    def show(self, lines: Sequence[Text]) -> None:
        """Replace what stands on the screen."""
        console = Console(width=self.size()[0] + 1, highlight=False, legacy_windows=False)
        with console.capture() as captured:
            for number, line in enumerate(lines):
                console.print(line, end="\n" if number < len(lines) - 1 else "", no_wrap=True, overflow="crop")
        sys.stdout.write(_CLEAR + captured.get())
        sys.stdout.flush()

    def key(self) -> str | None:
        """The next key; None if none came within a moment, so that a new size is noticed; ENDED at end of input."""
        if not self._pending:
            if not select.select([self._fd], [], [], _POLL_S)[0]:
                return None
            try:
                data = os.read(self._fd, 256)
            except OSError:  # the other end of the line is gone
                return ENDED
            if not data:
                return ENDED
            self._pending = list(keys_of(data))
        return self._pending.pop(0) if self._pending else None


def keys_of(data: bytes) -> Iterator[str]:
    """The keys in what a terminal sent: characters, named movements; other escape sequences are dropped."""
    while data:
        if data[:1] == b"\x1b":
            found = next((sequence for sequence in _SEQUENCES if data.startswith(sequence)), None)
            if found is None:
                return  # an unknown sequence has no telling where it ends
            yield _SEQUENCES[found]
            data = data[len(found) :]
        else:
            yield chr(data[0])
            data = data[1:]


@contextmanager
def terminal() -> Iterator[Terminal]:
    """The terminal prepared for single keys; what it was before is restored whatever happens."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    sys.stdout.write(_ALTERNATE)
    try:
        tty.setcbreak(fd)
        yield Terminal()
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        sys.stdout.write(_MAIN)
        sys.stdout.flush()
