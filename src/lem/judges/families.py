"""Families of models by the names they go by: which names speak of the same lineage of weights (`families.toml`)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_name("families.toml")
_CACHE_FOLDER = "models--"  # how the hub's cache names the folder of owner/name


@dataclass(frozen=True)
class Family:
    """A lineage of weights: its name, who makes it, and what the names of its members look like."""

    name: str
    maker: str
    patterns: tuple[re.Pattern[str], ...]

    def holds(self, name: str) -> bool:
        """True if a short name (see `short_name`) is that of a member."""
        return any(pattern.search(name) for pattern in self.patterns)


@cache
def known_families() -> tuple[Family, ...]:
    """All families of the table, in its order."""
    with _TABLE.open("rb") as file:
        entries = tomllib.load(file)["family"]
    return tuple(
        Family(entry["name"], entry["maker"], tuple(re.compile(text) for text in entry["patterns"]))
        for entry in entries
    )


def short_name(name: str) -> str:
    """The part of a hub id, path or service's name that names the model, in small letters.

    The folder of a hub snapshot is named after a commit, so there it is the name in the cache's own folder.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    cached = [part for part in parts if part.startswith(_CACHE_FOLDER)]
    last = cached[-1].split("--")[-1] if cached else parts[-1] if parts else ""
    return last.lower()


def families_of(name: str) -> tuple[str, ...]:
    """Families that a name speaks of, in the order of the table; empty when it speaks of none that is known."""
    short = short_name(name)
    return tuple(family.name for family in known_families() if family.holds(short))


def maker_of(family: str) -> str:
    """Who makes a family.   Raises: KeyError for one that is not in the table."""
    return {known.name: known.maker for known in known_families()}[family]
