"""`comparison.json`: a comparison as one JSON object, derived from a run and remade at any time."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lem.ab.compare import Comparison
from lem.ab.contrast import Contrast
from lem.ab.verdict import Verdict
from lem.errors import UserError
from lem.records import write_atomic
from lem.records.run import now

COMPARISON_SCHEMA = 1
COMPARISON_NAME = "comparison.json"


def to_json(comparison: Comparison, runs: Sequence[Mapping[str, str]], command: Sequence[str]) -> dict[str, Any]:
    """The comparison as the object of `comparison.json`; NaN becomes null."""
    declared = comparison.declared
    pairs = zip(comparison.contrasts, comparison.verdicts, strict=True)
    document: dict[str, Any] = {
        "schema": COMPARISON_SCHEMA,
        "kind": "comparison",
        "created": now(),
        "command": list(command),
        "runs": [dict(run) for run in runs],
        "baseline": comparison.baseline,
        "treatments": list(comparison.treatments),
        "level": 0.95,
        "declared": None if declared is None else {**dataclasses.asdict(declared)},
        "deviations": list(comparison.deviations),
        "n_primary": comparison.n_primary,
        "n_exploratory": comparison.n_exploratory,
        "objections": [dataclasses.asdict(objection) for objection in comparison.objections],
        "arms": [dataclasses.asdict(arm) for arm in comparison.arms],
        "contrasts": [_contrast_json(found, said) for found, said in pairs],
    }
    cleaned: dict[str, Any] = _without_nan(document)
    return cleaned


def _contrast_json(found: Contrast, said: Verdict) -> dict[str, Any]:
    row = {
        entry.name: getattr(found, entry.name)
        for entry in dataclasses.fields(found)
        if entry.name not in ("changes", "length", "counts")
    }
    row = {name: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for name, v in row.items()}  # type: ignore[arg-type]
    primary = found.family == "primary"
    if said.code == "refused":
        return _without_numbers(row | _derived(found, primary)) | {"verdict": dataclasses.asdict(said)}
    return row | _derived(found, primary) | {"verdict": dataclasses.asdict(said)}


def _derived(found: Contrast, primary: bool) -> dict[str, Any]:
    return {
        "counts": {arm: dataclasses.asdict(counts) for arm, counts in found.counts.items()},
        "p_adjusted": found.p_holm if primary else found.p_bh,
        "correction": "Holm" if primary else "Benjamini-Hochberg",
        "length_controlled": dataclasses.asdict(found.length.effect) if found.length else None,
        "length_slope": dataclasses.asdict(found.length.slope) if found.length else None,
        "worst": [dataclasses.asdict(change) for change in found.listed(best=False)],
        "best": [dataclasses.asdict(change) for change in found.listed(best=True)],
        "differences": {change.probe_id: change.difference for change in found.changes},
    }


def _without_numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """A refused contrast as it is written: what was compared and what was counted, and no effect or test."""
    kept = ("metric", "source", "kind", "version", "treatment", "baseline", "n", "n_missing", "counts", "family",
            "n_tests", "correction", "lower_is_better", "margin")  # fmt: skip
    return {name: value if name in kept else _blank(value) for name, value in row.items()}


def _blank(value: Any) -> Any:
    """An estimate keeps its fields without what they say; lists and objects of probes are emptied."""
    if isinstance(value, dict):
        return {name: _blank(entry) for name, entry in value.items()} if "method" in value else {}
    if isinstance(value, list | tuple):
        return []
    return value if isinstance(value, str) else None


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return value


def write_comparison(document: Mapping[str, Any], path: Path) -> None:
    """Write `comparison.json`; an older one of ours is replaced.   Raises: UserError if another file is in the way."""
    if path.exists():
        try:
            ours = json.loads(path.read_text(encoding="utf-8")).get("kind") == "comparison"
        except (ValueError, AttributeError, OSError):
            ours = False
        if not ours:
            raise UserError(
                f"{path} exists and is no comparison of ours; choose another --output, nothing was touched."
            )
    write_atomic(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
