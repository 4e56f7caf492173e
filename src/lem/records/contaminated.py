"""Which items of a run its weights were trained on, as the manifest says: `data.contaminated`, item -> weights.

Weights are named as the arm names them: by an adapter's folder, or by the model that an adapter was fused into.
`data.too_short` has the items whose questions were too short to be looked for in training data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

CONTAMINATED = "contaminated"
TOO_SHORT = "too_short"


def contaminated_items(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """The adapters whose training data hold an item, by item; {} where none is known to.

    Args:  data: of a manifest.   Raises: ValueError for an entry of another form.
    """
    found = data.get(CONTAMINATED, {})
    if not isinstance(found, dict) or not all(_is_list_of_names(adapters) for adapters in found.values()):
        raise ValueError(f"the field '{CONTAMINATED}' does not list adapters by item")
    return found


def joined_contaminated(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The field for runs joined into one, from the `data` of each; {} where no item is known to be contaminated."""
    joined: dict[str, list[str]] = {}
    for data in parts:
        for item, adapters in contaminated_items(data).items():
            known = joined.setdefault(item, [])
            known.extend(adapter for adapter in adapters if adapter not in known)
    return {CONTAMINATED: joined} if joined else {}


def _is_list_of_names(adapters: Any) -> bool:
    return isinstance(adapters, list) and bool(adapters) and all(isinstance(name, str) for name in adapters)
