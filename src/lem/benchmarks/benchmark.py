"""What a benchmark is: facts about it, the fields of its items, where the hub has it, and its scorers by rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lem.data.items import Item
from lem.records import Record
from lem.scorers.result import ScoreResult

Row = Mapping[str, Any]
# A rule for one field of an item: what is wrong with its value, as a clause, or None.
FieldRule = Callable[[Any], str | None]
ItemScorer = Callable[[Item, Record], ScoreResult]


@dataclass(frozen=True)
class HubSource:
    """A data set on the Hugging Face hub: repository, configuration, split, and the commit it is pinned to.

    `to_rows` turns its rows into objects with the fields of our item files. `also` names configurations that
    `to_rows` needs besides, and gets as a mapping from configuration to rows. `gated` data sets ask for an account.
    """

    path: str
    config: str | None
    split: str
    revision: str
    to_rows: Callable[[list[Row], Mapping[str, list[Row]]], list[dict[str, Any]]]
    also: tuple[str, ...] = ()
    gated: bool = False


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    `question` is the field of an item file that holds the question, `domain` the fields of which the first that is
    there becomes the item's cluster, `fields` the fields that an item must have, `check` what must hold between them.
    `items_of` is the name that item files carry in `benchmark`, where it is not the task's. `kind` gives the benchmark
    of a single item, `id_suffix` keeps ids of two tasks over the same file apart. `judged` are the dimensions that a
    judge rates, `scorers` the scorers by rule. `choices` are the answers that are measured in place of generating.
    """

    name: str
    title: str
    paper: str
    licence: str
    source: str
    split: str
    max_tokens: int | None
    judged: tuple[str, ...]
    scorers: Mapping[str, ItemScorer]
    notes: str = ""
    question: str = "question"
    domain: tuple[str, ...] = ("domain",)
    fields: Mapping[str, FieldRule] = field(default_factory=dict)
    items_of: str = ""
    check: Callable[[Row], str | None] = lambda row: None
    kind: Callable[[Row], str] | None = None
    id_suffix: str = ""
    hub: HubSource | None = None
    choices: Callable[[Item], tuple[str, ...]] = lambda item: ()
    stop_strings: tuple[str, ...] = ("\nQuestion:",)

    @property
    def file_name(self) -> str:
        """What item files call the benchmark, and the stem of our own item file."""
        return self.items_of or self.name
