"""`plan.json`: what was decided before a run, written once, with a hash that shows whether anybody changed it since.

The hash covers the canonical JSON (sorted keys, no spaces, ASCII) of everything in the file but the hash itself.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from lem.errors import DataError, UserError
from lem.paths import display_path
from lem.records import text_sha, write_atomic

PLAN_SCHEMA = 1
KIND = "plan"
# Key -> what must stand there. "probes" and "arms" are lists of objects with at least an id or a name.
_FIELDS: dict[str, type] = {
    "arms": list,
    "baseline": str,
    "primary": list,
    "margins": dict,
    "exclusions": list,
    "n_probes": int,
    "probes": list,
    "probe_file": str,
    "probe_sha": str,
    "repeats": int,
    "settings": dict,
    "expected": dict,
    "mde": dict,
    "cost": dict,
    "created": str,
}
_KINDS = {list: "a list", str: "a text", dict: "an object", int: "a whole number"}
# What two plans may differ in and still be the same plan: when, how and with how much free memory it was made.
_INCIDENTAL = ("created", "command", "sha")


def plan_sha(plan: dict[str, Any]) -> str:
    """SHA-256 of a plan's canonical JSON, its own `sha` left out; 64 hex digits.   Raises: ValueError for a NaN."""
    content = {key: value for key, value in plan.items() if key != "sha"}
    return text_sha(json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False))


def write_plan(path: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Write a plan with its hash; a file that holds the same plan already is left as it is.

    Returns: the plan that the file holds now, with `sha`; its `created` is then that of the first writing.
    Raises: UserError if the path holds anything else; nothing is touched.
    """
    if path.exists() or path.is_symlink():
        return _same_plan(path, plan)
    whole = {**plan, "sha": plan_sha(plan)}
    write_atomic(path, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return whole


def _same_plan(path: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """The plan in the file, if it says the same as this one.   Raises: UserError otherwise."""
    try:
        stored = read_plan(path)
    except DataError as error:
        raise UserError(
            f"{display_path(path)} exists and holds no plan of ours that is whole ({_reason(error, path)}); choose "
            "another --output, nothing was touched."
        ) from None
    if _content(stored) != _content(json.loads(json.dumps(plan))):
        raise UserError(
            f"{display_path(path)} holds another plan (made {stored['created']}, hash {stored['sha'][:12]}); a plan is "
            "never replaced: choose another --output, or --dry-run to only look."
        )
    return stored


def _reason(error: DataError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").partition(";")[0].rstrip(".")


def _content(plan: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in plan.items() if key not in _INCIDENTAL}
    expected = {key: value for key, value in plan["expected"].items() if key != "memory"}
    return {**kept, "expected": expected}


def read_plan(path: Path) -> dict[str, Any]:
    """Read a plan with its `sha`.

    Raises: DataError if the file is missing, is no plan, is of a newer schema, or was changed after it was written.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise DataError(f"{path}: no such plan; make one with `./lem plan --output {path.name}`.") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; give the plan file in it.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON (line {error.lineno}: {error.msg}); restore it from a copy.") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: not readable as a plan ({error}); restore it from a copy.") from None
    _check(raw, path)
    if raw.get("sha") != plan_sha(raw):
        raise DataError(
            f"{path}: the plan was changed after it was written (its content does not fit its sha); restore it from a "
            "copy, or make a new plan."
        )
    return dict(raw)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


def _check(raw: Any, path: Path) -> None:
    """Check that every field is there and of its kind.   Raises: DataError naming the first that is not."""
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise DataError(f'{path}: not a plan (it has no "kind": "plan"); give a file that `./lem plan` wrote.')
    schema = raw.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise DataError(f"{path}: field 'schema' must be a whole number from 1; restore the file from a copy.")
    if schema > PLAN_SCHEMA:
        raise DataError(f"{path}: schema {schema} is newer than this version reads ({PLAN_SCHEMA}); update LEM.")
    for key, kind in _FIELDS.items():
        if not isinstance(raw.get(key), kind) or isinstance(raw.get(key), bool):
            raise DataError(f"{path}: field '{key}' must be {_KINDS[kind]}; restore the file from a copy.")
    entries = {
        "primary": all(_is_pair(entry) for entry in raw["primary"]),
        "exclusions": all(_has_texts(entry, "probe_id", "reason") for entry in raw["exclusions"]),
        "arms": all(_has_texts(entry, "name") for entry in raw["arms"]),
        "probes": all(_has_texts(entry, "id", "domain", "sha") for entry in raw["probes"]),
        "margins": all(_is_margin(value) for value in raw["margins"].values()),
    }
    for key, good in entries.items():
        if not good:
            raise DataError(f"{path}: field '{key}' has an entry of another form; restore the file from a copy.")


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def _has_texts(entry: Any, *keys: str) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in keys)


def _is_margin(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0
