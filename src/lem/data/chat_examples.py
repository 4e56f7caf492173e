"""Chat examples for training: one JSON object a line, a conversation that ends with the assistant.

Three shapes are read: `{"messages": [{"role", "content"}, ...]}`, mlx-lm's `{"prompt", "completion"}`, and ShareGPT's
`{"conversations": [{"from", "value"}, ...]}` with `human` and `gpt`. What would be lost in training is refused, never
dropped: a role other than system, user and assistant (tool output, say), a message with further fields that hold
something, thoughts or tools beside the messages. Other fields of a row (id, source, category) are its own affair.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lem.errors import DataError, UserError

ROLES = ("system", "user", "assistant")
SHAPES = "{'messages': [...]}, {'prompt', 'completion'} or ShareGPT's {'conversations': [...]}"
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
_LOST_ROW_FIELDS = ("reasoning", "reasoning_content", "thinking", "system", "tools", "functions", "images")
_THOUGHTS = ("reasoning", "reasoning_content", "thinking")


@dataclass(frozen=True)
class ChatExample:
    """One training conversation; `line` is its line number in the file it came from, `id` its id there, if any."""

    messages: tuple[dict[str, str], ...]
    line: int
    id: str | None = None

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
        raise UserError(f"{path}: no example in the file; add lines of {SHAPES}.")
    return examples


def _example(line: str, number: int, path: Path) -> ChatExample:
    row = _parse(line)
    if isinstance(row, LineProblem):
        raise DataError(f"{path} line {number}: {row.what}.")
    messages = _messages(row)
    if isinstance(messages, LineProblem):
        raise DataError(f"{path} line {number}: {messages.what}.")
    name = row.get("id")
    return ChatExample(messages, number, str(name) if isinstance(name, str | int) and name != "" else None)


def parse_chat_line(line: str) -> tuple[dict[str, str], ...] | LineProblem:
    """Return the messages of one line of a chat file, or the first thing that is wrong with it."""
    row = _parse(line)
    return row if isinstance(row, LineProblem) else _messages(row)


def _parse(line: str) -> dict[str, Any] | LineProblem:
    try:
        row: Any = json.loads(line.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        return LineProblem("schema", f"not valid JSON ({error.msg})")
    except RecursionError:
        return LineProblem("schema", "not valid JSON (nested too deeply)")
    return row if isinstance(row, dict) else LineProblem("schema", f"not an object; a line is {SHAPES}")


def _messages(row: dict[str, Any]) -> tuple[dict[str, str], ...] | LineProblem:
    raw = _raw_messages(row)
    if isinstance(raw, LineProblem):
        return raw
    messages: list[dict[str, str]] = []
    for number, entry in enumerate(raw, start=1):
        message = _message(entry, number)
        if isinstance(message, LineProblem):
            return message
        messages.append(message)
    return _check_order([message["role"] for message in messages]) or tuple(messages)


def _raw_messages(row: dict[str, Any]) -> list[Any] | LineProblem:
    """The messages of a row, whatever its shape."""
    found: list[str] = [name for name in ("messages", "conversations") if name in row]
    pair: list[str] = [name for name in ("prompt", "completion") if name in row]
    if len(found) + (len(pair) == 2) > 1:
        names = ", ".join(found + (pair if len(pair) == 2 else []))
        return LineProblem("schema", f"the fields {names} are two conversations on one line; keep one of them")
    lost = [name for name in _LOST_ROW_FIELDS if row.get(name)]
    if lost:
        return LineProblem("schema", f"field '{lost[0]}' would be lost; {_remedy(lost[0])}")
    if found:
        messages = row[found[0]]
        if isinstance(messages, list) and messages:
            return messages
        return LineProblem("schema", f"field '{found[0]}' is not a list of messages, or empty")
    if len(pair) == 2:
        return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    if pair:
        missing = "completion" if pair == ["prompt"] else "prompt"
        return LineProblem("schema", f"field '{missing}' is missing beside '{pair[0]}'")
    has = f"it has {', '.join(list(row)[:5])}" if row else "it is empty"
    return LineProblem("schema", f"field 'messages' is missing: a line is {SHAPES}, and {has}")


def _remedy(name: str) -> str:
    if name in _THOUGHTS:
        return "write thoughts into the assistant's text, between the marks that the model's template knows"
    return "make it the first message" if name == "system" else "only text is trained on: delete it, or the line"


def _message(entry: Any, number: int) -> dict[str, str] | LineProblem:
    """One message as {role, content}; ShareGPT's names are translated."""
    if not isinstance(entry, dict):
        return LineProblem("schema", f"message {number} is no object with role and content")
    names = ("from", "value") if "from" in entry and "role" not in entry else ("role", "content")
    role, content = entry.get(names[0]), entry.get(names[1])
    role = _SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        shown = f"the role '{role}'" if isinstance(role, str) else "no role"
        return LineProblem("roles", f"message {number} has {shown}; a role is one of {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        return LineProblem("empty", f"message {number} ({role}) has no text in '{names[1]}'")
    further = [str(name) for name, value in entry.items() if name not in names and value not in (None, "", [], {})]
    if further:
        return LineProblem("schema", f"message {number} ({role}): field '{further[0]}' would be lost; "
                           + _remedy(further[0]))  # fmt: skip
    if any("\ud800" <= character <= "\udfff" for character in content):
        return LineProblem("schema", f"message {number} ({role}) holds half a surrogate pair, which is no character")
    return {"role": role, "content": content}


def _check_order(roles: list[str]) -> LineProblem | None:
    turns = roles[1:] if roles[0] == "system" else roles
    if turns and turns == ["user", "assistant"] * (len(turns) // 2):
        return None
    shown = ", ".join(roles if len(roles) <= 8 else [*roles[:8], "..."])
    return LineProblem(
        "roles",
        f"roles are {shown}; after an optional system turn, user and assistant must alternate and the "
        "assistant must speak last",
    )
