"""Decoding groups: which rows are decoded together, chosen once and kept for the life of a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lem.records import Key

MAX_GROUP = 64
MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class Row:
    """A cell of the plan, the length of its prompt in tokens, and whether choices are measured instead of answered."""

    key: Key
    n_prompt_tokens: int
    measured: bool = False


def cut_groups(rows: Sequence[Row], existing: Mapping[str, Mapping[str, Any]], size: int) -> dict[str, dict[str, Any]]:
    """Put rows that belong to no group yet into new ones, leaving the existing groups as they are.

    Rows of one (arm, repeat), answered ones apart from measured ones, are sorted by prompt length, then probe id, and
    cut into equal parts of at most `size`.
    Returns: all groups, `name -> {"arm", "repeat", "probes"}`, in a stable order.
    Raises: ValueError if size < 1.
    """
    if size < 1:
        raise ValueError(f"group size must be at least 1, got {size}")
    groups = {name: dict(group) for name, group in existing.items()}
    placed = {Key(g["arm"], probe, g["repeat"]) for g in groups.values() for probe in g["probes"]}
    taken = Counter((group["arm"], group["repeat"]) for group in groups.values())
    loose: dict[tuple[str, int, bool], list[Row]] = {}
    for row in rows:
        if row.key not in placed:
            loose.setdefault((row.key.arm, row.key.repeat, row.measured), []).append(row)
    for (arm, repeat, _), members in loose.items():
        members.sort(key=lambda row: (row.n_prompt_tokens, row.key.probe_id))
        first = taken[arm, repeat]
        n_parts = math.ceil(len(members) / size)
        for part in range(n_parts):
            low, high = part * len(members) // n_parts, (part + 1) * len(members) // n_parts
            name = f"{arm}/r{repeat}/g{first + part:03d}"
            probes = [row.key.probe_id for row in members[low:high]]
            groups[name] = {"arm": arm, "repeat": repeat, "probes": probes}
        taken[arm, repeat] += n_parts
    return groups


def choose_group_size(config: Mapping[str, Any], longest_tokens: int, free_bytes: int) -> int:
    """Rows that fit into half of the free memory: key/value cache plus four copies of the logits per row.

    Args:  config: the model's config.json.  longest_tokens: longest prompt plus the token limit.
    Returns: 1 .. 64.
    """
    text = {**config, **config.get("text_config", {})}
    heads = int(text.get("num_key_value_heads") or text.get("num_attention_heads") or 8)
    head_dim = int(
        text.get("head_dim") or int(text.get("hidden_size", 4096)) // int(text.get("num_attention_heads", 32))
    )
    layers, vocabulary = int(text.get("num_hidden_layers", 32)), int(text.get("vocab_size", 262_144))
    bytes_per_row = 4 * (2 * layers * heads * head_dim * longest_tokens + 4 * vocabulary)
    return max(1, min(MAX_GROUP, int(MEMORY_SHARE * free_bytes / bytes_per_row)))
