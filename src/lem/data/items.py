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
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            item = Item(**json.loads(line))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} line {number}: not an item ({error}); restore the file from a copy.") from None
        found[item.id] = item
    return found


def grow_items(known: dict[str, Item], items: Sequence[Item], where: Path) -> list[Item]:
    """The items of a run together with new ones.   Raises: ResumeMismatch for an id with another content."""
    for item in items:
        if item.id in known and known[item.id] != item:
            raise ResumeMismatch(f"{where} holds another item '{item.id}'; give a new --output, nothing was touched.")
    return list({**known, **{item.id: item for item in items}}.values())
