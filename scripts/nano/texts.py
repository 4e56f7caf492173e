"""Reading the hand-written text that lem-nano's corpus is grown from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXT_DIR = Path(__file__).parent / "text"


@dataclass(frozen=True)
class Passage:
    """A hand-written question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Texts:
    """Everything under `text/`; `lexicon['deed']` holds (base, gerund) pairs."""

    lexicon: dict[str, Any]
    questions: tuple[tuple[str, str], ...]
    sentences: tuple[tuple[str, tuple[str, ...], str], ...]
    spans: tuple[tuple[str, str], ...]
    practice: tuple[tuple[str, str], ...]
    passages: tuple[Passage, ...]
    systems: tuple[str, ...]
    words: dict[str, list[str]]


def read_texts(folder: Path = TEXT_DIR) -> Texts:
    """Reads the folder; a malformed line is an error that names it."""
    sentences = [_columns(line, 3) for line in read_lines(folder / "sentences.txt")]
    return Texts(
        lexicon=json.loads((folder / "lexicon.json").read_text()),
        questions=tuple((c[0], c[1]) for c in (_columns(x, 2) for x in read_lines(folder / "questions.txt"))),
        sentences=tuple((role, tuple(kinds.split(",")), frame) for role, kinds, frame in sentences),
        spans=tuple((c[0], c[1]) for c in (_columns(x, 2) for x in read_lines(folder / "spans.txt"))),
        practice=tuple((c[0], c[1]) for c in (_columns(x, 2) for x in read_lines(folder / "practice.txt"))),
        passages=tuple(_passages(folder)),
        systems=tuple(_blocks((folder / "systems.txt").read_text())),
        words=_words(folder / "words.txt"),
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are neither blank nor comments."""
    return [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def _columns(line: str, n: int) -> list[str]:
    parts = line.split("\t")
    if len(parts) != n:
        raise ValueError(f"expected {n} columns separated by tabs: {line[:80]!r}")
    return parts


def _blocks(text: str) -> list[str]:
    return [block.strip() for block in re.split(r"(?m)^===.*$", text) if block.strip()]


def _passages(folder: Path) -> list[Passage]:
    found = []
    for path in sorted(folder.glob("passages*.txt")):
        for block in _blocks(path.read_text()):
            match = re.fullmatch(r"Q:\s*(.+?)\nA:\s*(.+)", block, re.S)
            if not match:
                raise ValueError(f"{path.name}: a block without Q: and A:, near {block[:60]!r}")
            found.append(Passage(match[1].strip(), match[2].strip()))
    return found


def _words(path: Path) -> dict[str, list[str]]:
    """`class<TAB>word word ...` lines; an absent file means no extra words."""
    if not path.exists():
        return {}
    return {kind: words.split() for kind, words in (_columns(line, 2) for line in read_lines(path))}
