"""Seed prompts of a distillation: chat examples, `{"id", "prompt"}` lines, or a JSON array of probe shape.

Every prompt has an id that never moves: the one written in the file, or `<file stem>-<line number>` for a chat example.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lem.data import Probe, read_probes
from lem.data.chat_examples import LineProblem, parse_chat_line
from lem.data.contamination import refuse_probes
from lem.data.similarity import words
from lem.errors import DataError, UserError


def read_prompts(path: Path, limit: int | None = None) -> list[Probe]:
    """Read seed prompts; `limit` keeps the first ones only.

    A `.json` file is an array of `{id, domain, prompt}`. In any other file each line is a chat example, whose first
    user turn is the prompt (system turns and answers are left out), or `{"id", "prompt"}` with an optional "domain".
    Raises: UserError for a missing or empty file; DataError naming the line, also for an id or prompt used twice.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1 (got {limit}); leave it out to use every prompt.")
    if not path.is_file():
        raise UserError(f"{path}: no such prompt file; give --prompts FILE, for example training/train.jsonl.")
    if path.suffix == ".json":
        placed = [(f"entry {number}", probe) for number, probe in enumerate(read_probes(path), start=1)]
    else:
        placed = [(f"line {number}", _prompt(line, number, path)) for number, line in _lines(path)]
    if not placed:
        raise UserError(f"{path}: no prompt in the file; add chat examples or {{'id', 'prompt'}} lines.")
    _refuse_repeated(placed, path)
    return [probe for _, probe in placed][:limit]


def refuse_evaluation_prompts(prompts: Sequence[Probe], seeds: Sequence[Path]) -> None:
    """Refuse prompts that carry the id of an evaluation probe, name it as their source, or hold its text.

    Raises: DataError naming the prompt and the probe; UserError if there is no probe file to compare with.
    """
    ids = [(f"prompt {prompt.id}", prompt.id) for prompt in prompts]
    ids += [(f"prompt {prompt.id}, source", prompt.source) for prompt in prompts if prompt.source]
    refuse_probes([(f"prompt {prompt.id}", prompt.prompt) for prompt in prompts], seeds, ids)


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _prompt(line: str, number: int, path: Path) -> Probe:
    row = _parse(line)
    if not isinstance(row, dict) or "prompt" not in row:
        parsed = parse_chat_line(line)
        if isinstance(parsed, LineProblem):
            raise DataError(f"{path} line {number}: neither a prompt nor a chat example ({parsed.what}).")
        asked = next(message["content"] for message in parsed if message["role"] == "user")
        return Probe(f"{path.stem}-{number:04d}", "", asked)
    for name in ("id", "prompt"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise DataError(
                f"{path} line {number}: field '{name}' is missing, empty or no string; give each prompt one."
            )
    domain = row.get("domain", "")
    if not isinstance(domain, str):
        raise DataError(f"{path} line {number}: field 'domain' is no string; write a string or leave it out.")
    return Probe(row["id"], domain, row["prompt"])


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None  # parse_chat_line says what is wrong with it


def _refuse_repeated(placed: Sequence[tuple[str, Probe]], path: Path) -> None:
    ids: dict[str, str] = {}
    texts: dict[str, str] = {}
    for place, probe in placed:
        text = " ".join(words(probe.prompt)) or probe.prompt
        for seen, key, what in ((ids, probe.id, f"id '{probe.id}'"), (texts, text, "the same prompt")):
            if key in seen:
                raise DataError(f"{path} {place}: {what} was already used by {seen[key]}; remove one of them.")
            seen[key] = place
