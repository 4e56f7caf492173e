"""Items: the questions of a benchmark with what is needed to score their answers, kept whole in the run directory.

An item file has one JSON object a line. `id`, `benchmark` and the question are read here; everything else stays in
`fields` as it came, for the benchmark's own scoring and for judges (reference answers).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lem.errors import DataError, ResumeMismatch

RUN_ITEMS = "items.jsonl"


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    `question` is what a person asks or says, without instructions around it. `domain` is its cluster in the
    statistics ("" when the item has none). `fields` are the item's other fields.
    """

    id: str
    benchmark: str
    question: str
    domain: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """The item as a line of `items.jsonl`."""
        return {
            "id": self.id,
            "benchmark": self.benchmark,
            "question": self.question,
            "domain": self.domain,
            "fields": self.fields,
        }


def items_text(items: Iterable[Item]) -> str:
    """The content of `items.jsonl` for these items."""
    return "".join(json.dumps(item.to_row(), ensure_ascii=False, sort_keys=False) + "\n" for item in items)


def read_run_items(run: Path) -> dict[str, Item]:
    """The items of a run by id; {} for a run without a benchmark.

    Raises: DataError naming the line that is no item.
    """
    path = run / RUN_ITEMS
    if not path.is_file():
        return {}
    found: dict[str, Item] = {}
    try:
        text = path.read_bytes().decode("utf-8", "surrogatepass")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable ({error}); restore the file from a copy.") from None
    lines = text.split("\n")  # a question may hold what else ends a line
    for number, line in enumerate(lines if lines[-1] else lines[:-1], start=1):
        try:
            item = _read(json.loads(line))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} line {number}: not an item ({error}); restore the file from a copy.") from None
        found[item.id] = item
    return found


def _read(row: dict[str, Any]) -> Item:
    """The item of a line.   Raises: TypeError for what is none."""
    item = Item(**row)
    texts = (item.id, item.benchmark, item.question, item.domain)
    if not all(isinstance(text, str) for text in texts) or not isinstance(item.fields, dict):
        raise TypeError("a field of another type")
    return item


def grow_items(known: dict[str, Item], items: Sequence[Item], where: Path) -> list[Item]:
    """The items of a run together with new ones.   Raises: ResumeMismatch for an id with another content."""
    for item in items:
        if item.id in known and _content(known[item.id]) != _content(item):
            raise ResumeMismatch(f"{where} holds another item '{item.id}'; give a new --output, nothing was touched.")
    return list({**known, **{item.id: item for item in items}}.values())


def _content(item: Item) -> str:
    """The item as a text to compare: as JSON, because NaN equals nothing."""
    return json.dumps(item.to_row(), sort_keys=True)
