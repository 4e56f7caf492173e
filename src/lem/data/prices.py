"""The price table that the user keeps: what a million tokens read and written cost, per judge.

No prices ship with the program, because they change; a judge without a price has an unknown cost, never a cost of 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError

KEYS = ("input", "output", "currency", "date")
EXAMPLE = "NAME: {input: 1.0, output: 4.0, currency: USD, date: 2026-01-31}"


@dataclass(frozen=True)
class Price:
    """Price of a million tokens read and a million written, in `currency`, as it was on `date` (ISO)."""

    input: float
    output: float
    currency: str
    date: str


def read_prices(path: Path) -> dict[str, Price]:
    """Read a price table, YAML or JSON: judge -> {input, output, currency, date}, prices per million tokens.

    Raises: UserError if the file is missing; DataError naming the judge and field that is wrong.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such price table; write one with lines like {EXAMPLE}")
    try:
        raw = _parse(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    if not isinstance(raw, dict) or not raw:
        raise DataError(f"{path}: a price table is a mapping with entries like {EXAMPLE}")
    return {str(name): _price(path, str(name), entry) for name, entry in raw.items()}


def _parse(path: Path) -> Any:
    import yaml

    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            return json.loads(text, object_pairs_hook=lambda pairs: _refuse_twice(path, pairs))
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {error.lineno}: not valid JSON ({error.msg}); mend the file.") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(path, [(key.value, None) for key, _ in node.value])
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())[:120]
        raise DataError(f"{path}{where}: not valid YAML ({reason}); mend the file.") from None


def _refuse_twice(path: Path, pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    names = [str(name) for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: '{name}' is written twice; leave one of them.")
    return dict(pairs)


def _price(path: Path, judge: str, entry: Any) -> Price:
    if not isinstance(entry, dict) or set(entry) != set(KEYS):
        raise DataError(f"{path}: judge '{judge}' needs exactly the keys {', '.join(KEYS)}; write {EXAMPLE}")
    for key in ("input", "output"):
        value = entry[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise DataError(
                f"{path}: judge '{judge}', {key}: must be a price per million tokens, 0 or more (got {value!r})."
            )
    if not isinstance(entry["currency"], str) or not entry["currency"].strip():
        raise DataError(f"{path}: judge '{judge}', currency: must be a name such as USD (got {entry['currency']!r}).")
    try:
        day = date.fromisoformat(str(entry["date"]))
    except ValueError:
        raise DataError(
            f"{path}: judge '{judge}', date: must be a day such as 2026-01-31 (got {str(entry['date'])!r})."
        ) from None
    return Price(float(entry["input"]), float(entry["output"]), entry["currency"].strip(), day.isoformat())
