"""Word lists and texts of the scorers, as JSON files beside this module, read when first needed."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def load(name: str) -> dict[str, Any]:
    """Return the content of `<name>.json` without its "about" line; do not change what is returned."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8"))
    content.pop("about")
    return content
