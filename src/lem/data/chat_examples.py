"""Chat examples for training: JSONL of `{"messages": [{"role", "content"}, ...]}` that end with the assistant."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lem.errors import DataError, UserError

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class ChatExample:
    """One training conversation; `line` is its line number in the file it came from."""

    messages: tuple[dict[str, str], ...]
    line: int

    @property
    def prompt(self) -> str:
        """Everything the user says, joined by blank lines."""
        return "\n\n".join(m["content"] for m in self.messages if m["role"] == "user")

    @property
    def answer(self) -> str:
        """Everything the assistant says, joined by blank lines."""
        return "\n\n".join(m["content"] for m in self.messages if m["role"] == "assistant")


@dataclass(frozen=True)
class LineProblem:
    """Why one line is no chat example; `what` is a clause without a full stop."""

    kind: Literal["schema", "roles", "empty"]
    what: str


def read_chat_examples(path: Path) -> list[ChatExample]:
    """Read and validate a chat file.

    Each conversation may open with one system turn, then alternates user and assistant and ends with the assistant.
    Raises: UserError if the file is missing or has no example; DataError with the line and what is wrong with it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such training file; a data directory holds train.jsonl and valid.jsonl.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    examples: list[ChatExample] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            examples.append(_example(line, number, path))
    if not examples:
        raise UserError(f"{path}: no example in the file; add lines of {{'messages': [...]}} objects.")
    return examples


def _example(line: str, number: int, path: Path) -> ChatExample:
    parsed = parse_chat_line(line)
    if isinstance(parsed, LineProblem):
        raise DataError(f"{path} line {number}: {parsed.what}.")
    return ChatExample(parsed, number)


def parse_chat_line(line: str) -> tuple[dict[str, str], ...] | LineProblem:
    """Return the messages of one line of a chat file, or the first thing that is wrong with it."""
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        return LineProblem("schema", f"not valid JSON ({error.msg})")
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        return LineProblem("schema", "field 'messages' is missing or empty")
    for index, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return LineProblem("roles", f"message {index} has no role of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            return LineProblem("empty", f"message {index} ({message['role']}) has no text")
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        return LineProblem(
            "roles",
            f"roles are {', '.join(roles)}; after an optional system turn, user and assistant must alternate and the "
            "assistant must speak last",
        )
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)
