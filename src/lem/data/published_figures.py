"""Figures that others have published (`benchmarks/published/*.json`), to stand beside ours and never to mix with them.

One file is one published table: {"schema": 1, "kind": "published figures", "published": true, "table", "title",
"source", "date", "n", "n_means", "quantity", "figures": [{"model", "arm", "benchmark", "metric", "value"}]}. A figure
may have a "quantity", "baseline", "n" or "unit" of its own. Percentages are written as published, with
"unit": "percent", and read as shares, which is the unit of our own metrics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError

KIND = "published figures"
SCHEMA = 1
MEAN, DIFFERENCE = "mean", "difference"
_HEAD = {"schema", "kind", "published", "table", "title", "source", "date", "n", "n_means", "quantity", "figures"}
_OPTIONAL_HEAD = {"baseline", "judge", "note"}
_FIGURE = {"model", "arm", "benchmark", "metric", "value"}
_OPTIONAL_FIGURE = {"quantity", "baseline", "n", "unit"}


@dataclass(frozen=True)
class PublishedFigure:
    """One published number: a mean over `n` items, or the difference of an arm from `baseline` ("" for a mean).

    `value` is in the unit of our metrics (a share for what was published in percent); `shown` is the number as it was
    published. No interval was published with it.
    """

    table: str
    model: str
    arm: str
    benchmark: str
    metric: str
    value: float
    n: int
    source: str
    date: str
    quantity: str
    baseline: str
    shown: str


def read_published(folder: Path) -> list[PublishedFigure]:
    """Read every table of a folder, files by name, figures in their order; a folder without any gives none.

    Raises: UserError if there is no such folder; DataError with file and figure for anything malformed, unknown or
    given twice.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of published figures; check benchmarks_dir in lem.config.json.")
    found: list[PublishedFigure] = []
    for file in sorted(folder.glob("*.json")):
        found.extend(_read_table(file))
    seen: set[tuple[str, ...]] = set()
    for figure in found:
        key = (figure.table, figure.model, figure.arm, figure.benchmark, figure.metric, figure.quantity)
        if key in seen:
            raise DataError(f"{folder}: {', '.join(key)} is given twice; keep one of the two.")
        seen.add(key)
    return found


def _read_table(file: Path) -> list[PublishedFigure]:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not valid JSON ({error}); mend the file.") from None
    if not isinstance(table, dict) or table.get("kind") != KIND or table.get("published") is not True:
        raise DataError(f'{file}: not a table of published figures; it needs "kind": "{KIND}" and "published": true.')
    if table.get("schema") != SCHEMA:
        raise DataError(f"{file}: schema {table.get('schema')!r} is not {SCHEMA}, the one this version reads.")
    _check_names(f"{file}", table, _HEAD, _OPTIONAL_HEAD)
    for name in ("table", "title", "source", "date", "n_means"):
        _text(f"{file}", table, name)
    if table["table"] != file.stem:
        raise DataError(f"{file}: its table is named '{table['table']}'; name the file after its table.")
    if not isinstance(table["figures"], list) or not table["figures"]:
        raise DataError(f"{file}: field 'figures' is not a list of figures, or empty.")
    return [_figure(f"{file} figure {number}", table, row) for number, row in enumerate(table["figures"], start=1)]


def _figure(where: str, table: Mapping[str, Any], row: Any) -> PublishedFigure:
    if not isinstance(row, dict):
        raise DataError(f"{where}: not an object.")
    _check_names(where, row, _FIGURE, _OPTIONAL_FIGURE)
    quantity = row.get("quantity", table["quantity"])
    if quantity not in (MEAN, DIFFERENCE):
        raise DataError(f"{where}: quantity '{quantity}' is neither '{MEAN}' nor '{DIFFERENCE}'.")
    baseline = row.get("baseline", table.get("baseline", ""))
    if quantity == DIFFERENCE and (not isinstance(baseline, str) or not baseline.strip()):
        raise DataError(f"{where}: a difference needs the field 'baseline', the arm that it is from.")
    unit = row.get("unit", "")
    if unit not in ("", "percent"):
        raise DataError(f"{where}: unit {unit!r} is unknown; leave it out, or write 'percent'.")
    value, n = _number(where, row["value"]), row.get("n", table["n"])
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise DataError(f"{where}: n is {n!r}; it must be a whole number of at least 1.")
    digits = f"{value:+g}" if quantity == DIFFERENCE else f"{value:g}"
    return PublishedFigure(
        table=table["table"],
        model=_text(where, row, "model"),
        arm=_text(where, row, "arm"),
        benchmark=_text(where, row, "benchmark"),
        metric=_text(where, row, "metric"),
        value=value / 100 if unit else value,
        n=n,
        source=table["source"],
        date=table["date"],
        quantity=quantity,
        baseline=baseline if quantity == DIFFERENCE else "",
        shown=f"{digits}%" if unit else digits,
    )


def _check_names(where: str, found: Mapping[str, Any], needed: set[str], optional: set[str]) -> None:
    missing, unknown = needed - found.keys(), found.keys() - needed - optional
    if missing or unknown:
        name, state = (min(missing), "missing") if missing else (min(unknown), "unknown")
        raise DataError(f"{where}: field '{name}' is {state}.")


def _text(where: str, found: Mapping[str, Any], name: str) -> str:
    value = found[name]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: field '{name}' is empty or not a string.")
    return value


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}: value {value!r} is not a finite number.")
    return float(value)
