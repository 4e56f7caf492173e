"""The three shapes of a chat line, and what is said about lines that would lose something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lem.data import read_chat_examples
from lem.data.chat_examples import LineProblem, parse_chat_line
from lem.errors import DataError, UserError

U, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "The tide."}
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "The tide."}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [U, A]},
        {"prompt": "Why?", "completion": "The tide."},
        {"conversations": [HUMAN, GPT]},
        {"conversations": [U, A]},
        {"messages": [HUMAN, A]},
        {"id": "x-1", "source": "own", "category": "sea", "messages": [U, {**A, "tool_calls": None, "name": ""}]},
        {"prompt": "Why?", "prompt_id": "7", "messages": [U, A]},
        {"conversations": [HUMAN, GPT], "system": "", "reasoning": None},
    ],
)
def test_each_shape_is_the_same_conversation(row: dict[str, Any]) -> None:
    assert parse_chat_line(json.dumps(row)) == (U, A)


def test_a_system_turn_and_several_exchanges() -> None:
    system = {"from": "system", "value": "Be kind."}
    found = parse_chat_line(json.dumps({"conversations": [system, HUMAN, GPT, HUMAN, GPT]}))
    assert found == ({"role": "system", "content": "Be kind."}, U, A, U, A)


@pytest.mark.parametrize(
    ("row", "kind", "what"),
    [
        ({"text": "a"}, "schema", r"field 'messages' is missing: a line is .*ShareGPT.*, and it has text$"),
        ({}, "schema", "and it is empty"),
        ([], "schema", "not an object; a line is"),
        ({"prompt": "a"}, "schema", "field 'completion' is missing beside 'prompt'"),
        ({"completion": "a"}, "schema", "field 'prompt' is missing beside 'completion'"),
        ({"prompt": "a", "completion": ["b"]}, "empty", r"message 2 \(assistant\) has no text"),
        ({"prompt": " ", "completion": "b"}, "empty", r"message 1 \(user\) has no text"),
        ({"messages": []}, "schema", "field 'messages' is not a list of messages, or empty"),
        ({"conversations": "x"}, "schema", "field 'conversations' is not a list"),
        ({"messages": ["x"]}, "schema", "message 1 is no object"),
        ({"messages": [U, A], "conversations": [HUMAN, GPT]}, "schema", "are two conversations on one line"),
        ({"messages": [U, A], "prompt": "a", "completion": "b"}, "schema", "two conversations on one line"),
        ({"messages": [U, {"role": "tool", "content": "7"}, A]}, "roles", "message 2 has the role 'tool'"),
        ({"conversations": [HUMAN, {"from": "ipython", "value": "7"}, GPT]}, "roles", "has the role 'ipython'"),
        ({"messages": [{"content": "a"}]}, "roles", "message 1 has no role; a role is one of system, user, assistant"),
        ({"messages": [U]}, "roles", "roles are user; after an optional system turn"),
        ({"messages": [A, U]}, "roles", "roles are assistant, user;"),
        ({"messages": [U, A] * 5 + [U]}, "roles", r"assistant, \.\.\.;"),
        ({"messages": [U, {**A, "content": None}]}, "empty", r"message 2 \(assistant\) has no text in 'content'"),
        ({"conversations": [HUMAN, {"from": "gpt"}]}, "empty", "has no text in 'value'"),
        ({"messages": [U, {**A, "reasoning_content": "hm"}]}, "schema",
         r"message 2 \(assistant\): field 'reasoning_content' would be lost; write thoughts into the assistant's text"),
        ({"messages": [U, {**A, "weight": 0}]}, "schema", "field 'weight' would be lost"),
        ({"messages": [U, {**A, "tool_calls": [{}]}]}, "schema", "field 'tool_calls' would be lost; only text"),
        ({"conversations": [HUMAN, GPT], "reasoning": "hm"}, "schema", "'reasoning' would be lost; write thoughts"),
        ({"conversations": [HUMAN, GPT], "system": "x"}, "schema", "'system' would be lost; make it the first message"),
        ({"messages": [U, A], "tools": [{}]}, "schema", "field 'tools' would be lost"),
        ({"messages": [U, {"role": "assistant", "content": "\ud83d"}]}, "schema", "half a surrogate pair"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(row: Any, kind: str, what: str) -> None:
    import re

    found = parse_chat_line(json.dumps(row))
    assert isinstance(found, LineProblem)
    assert found.kind == kind
    assert re.search(what, found.what), found.what


def test_files_with_a_mark_at_the_start_crlf_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [{"id": "a", "messages": [U, A]}, {"id": 7, "messages": [U, A]}, {"prompt": "Why?", "completion": "x"}]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(json.dumps(row) for row in rows).encode() + b"\r\n\r\n")
    assert [(example.line, example.id) for example in read_chat_examples(path)] == [(1, "a"), (2, "7"), (3, None)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no example in the file; add lines of"),
        (b'{"messages": [{"role": "user"}]}\n', r"line 1: message 1 \(user\) has no text"),
        (b'\n{"messages": \n', "line 2: not valid JSON"),
        (b"\n\n" + b"[" * 100_000, r"line 3: not valid JSON \(nested too deeply\)"),
        (b'{"text": "a"}', "line 1: field 'messages' is missing"),
        (b"\xff\xfe{", "not UTF-8"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises((UserError, DataError), match=message):
        read_chat_examples(path)
