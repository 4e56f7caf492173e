"""A run directory: `run.json` (what was asked for, by which weights, with which data) beside `records.jsonl`.

    runs/<kind>/<name>/run.json
                       records.jsonl
                       scores/<scorer>.jsonl      derived, remade by `lem score`
                       judgements/<judge>.jsonl   one judge's verdicts
                       summary.json               derived

`run.json` keeps the decoding groups, because the same rows must be decoded together on a resume: batch
composition changes floating-point sums, and so now and then a token.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any

from lem.errors import DataError, UserError
from lem.records.contaminated import contaminated_items
from lem.records.model import Key, Kinds, Record, field_kinds, misfit, shown
from lem.records.rank_files import read_all_records
from lem.records.store import JsonlStore, lock_directory, write_atomic

RUN_SCHEMA = 1
_VERSIONED = ("mlx", "mlx-lm", "numpy", "scipy", "transformers", "tokenizers")


@dataclass
class RunInfo:
    """The manifest of a run; `arms` maps an arm's name to its model, adapter, kernel and identity hashes.

    An entry of `probes` has `id`, `domain` and `prompt`, and where they apply `source` (the probe that it rephrases),
    `benchmark` (the set of items it belongs to) and the other fields of `lem.data.Probe`. `plan` is the whole plan
    file that the run was made under, with its hash as `sha`; {} when there was none.
    """

    run_id: str
    kind: str
    status: str = "new"
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    probes: list[dict[str, Any]] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    group_size: int | None = None
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    created: str = ""
    updated: str = ""
    schema: int = RUN_SCHEMA


_HALF_PAIR = re.compile("[\ud800-\udfff]")
MOST_REPEATS = 1_000_000
_MANIFEST = field_kinds(RunInfo)
_NUMBER = (int, float)
_SENT = ("prompt", "asks", "completes", "choices", "stop_strings")  # may hold what no terminal can print
_AMOUNT: frozenset[type] = frozenset((int, float, NoneType))
_OBJECT: frozenset[type] = frozenset((dict, NoneType))
_TEXT: frozenset[type] = frozenset((str, NoneType))
# What may be left out, and is counted with or looked into where it is there.
_FACTS: Kinds = {
    "model": _TEXT, "adapter": _TEXT, "settings": _OBJECT, "identity": _OBJECT, "adapter_scale": _AMOUNT,
    "bits": _AMOUNT, "trained_on": frozenset((list,)),
}  # fmt: skip
_SETTINGS: Kinds = {"temperature": _AMOUNT, "top_p": _AMOUNT, "max_tokens": _AMOUNT}
_PLAN: Kinds = {
    **dict.fromkeys(("primary", "exclusions", "arms", "probes"), frozenset((list,))),
    **dict.fromkeys(("margins", "settings"), frozenset((dict,))),
    **dict.fromkeys(("repeats", "n_probes"), frozenset((int,))),
}


def now() -> str:
    """The current time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that can change a completion."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}"}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


class RunDirectory:
    """A run opened for writing: the manifest, the records so far by key, and the append-only store."""

    def __init__(self, path: Path, info: RunInfo, store: JsonlStore) -> None:
        self.path = path
        self.info = info
        self.store = store
        self.records: dict[Key, Record] = {}
        for record in _records(store.rows, store.path):
            self.records[record.key] = record

    def append(self, record: Record) -> None:
        """Write one record and remember it; the last line of a key wins."""
        self.store.append(record.to_row())
        self.records[record.key] = record

    def save(self, status: str | None = None) -> None:
        """Write `run.json` atomically, optionally with a new status (running, incomplete, done)."""
        self.info.status = status or self.info.status
        self.info.updated = now()
        write_atomic(self.path / "run.json", json.dumps(self.info.__dict__, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def open_run(path: Path, kind: str, run_id: str) -> Iterator[RunDirectory]:
    """Open a run directory for writing, locked; create it if it is new or empty.

    Raises: UserError if the path is a file, is in use, or is a non-empty directory that is no run.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; give a directory for the run.")
    fresh = not (path / "run.json").exists()
    if fresh and path.is_dir() and not all(_is_remnant(entry) for entry in path.iterdir()):
        raise UserError(f"{path} is not empty and holds no run.json; choose another --output, nothing was touched.")
    with lock_directory(path):
        if fresh:
            info = RunInfo(run_id=run_id, kind=kind, created=now(), versions=versions())
        else:
            info = read_manifest(path)
            if info.kind != kind:
                raise UserError(f"{path} holds a '{info.kind}' run, not a '{kind}' run; choose another --output.")
        with JsonlStore(path / "records.jsonl") as store:
            yield RunDirectory(path, info, store)


def _is_remnant(entry: Path) -> bool:
    """True for what a start that ended before the first manifest leaves: it holds no work, so it is no obstacle."""
    unused = entry.name == "records.jsonl" and entry.is_file() and entry.stat().st_size == 0
    return unused or entry.name == ".lock" or (entry.name.startswith(".run.json.") and entry.suffix == ".tmp")


def read_manifest(path: Path) -> RunInfo:
    """Read `run.json`.   Raises: DataError if it is missing, malformed, of another shape or of a newer schema."""
    file = path / "run.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} holds no run.json, so it is not a run directory; check the path.") from None
    except (OSError, RecursionError, ValueError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _unreadable(file, str(error)) from None
    if not isinstance(raw, dict):
        raise _unreadable(file, "it is no JSON object")
    schema = raw.get("schema", RUN_SCHEMA)
    if type(schema) is int and schema > RUN_SCHEMA:
        raise DataError(f"{file}: schema {schema} is newer than this version reads ({RUN_SCHEMA}); update LEM.")
    try:
        info = RunInfo(**raw)
    except TypeError as error:
        raise _unreadable(file, str(error)) from None
    fault = misfit(raw, _MANIFEST) or next(_faults(info), None) or plan_fault(info.plan)
    if fault is not None:
        raise _unreadable(file, fault)
    return info


def _unreadable(file: Path, fault: str) -> DataError:
    return DataError(f"{file}: not a readable manifest ({fault}); restore it from a copy.")


def _faults(info: RunInfo) -> Iterator[str]:
    """What is wrong below the top level of a manifest."""
    if not all(type(facts) is dict for facts in info.arms.values()):
        yield "every entry of 'arms' must be an object"
    for arm, facts in info.arms.items():
        yield from _prefixed(f"arm '{arm}': ", facts, _FACTS)
    yield from _prefixed("settings: ", info.settings, _SETTINGS)
    repeats = info.settings.get("repeats", 1)
    if type(repeats) is not int or not 1 <= repeats <= MOST_REPEATS:
        yield f"settings: 'repeats' must be a whole number from 1 to {MOST_REPEATS:,}, not {shown(repeats)}"
    for number, probe in enumerate(info.probes, start=1):
        if not _texts_of(probe, "id", "domain") or not all(_fits(name, value) for name, value in probe.items()):
            yield f"entry {number} of 'probes' must be an object of texts with an 'id' and a 'domain'"
    for name, group in info.groups.items():
        if not _is_group(group):
            yield f"group '{name}' must have an 'arm', a 'repeat' and a list of 'probes'"
    named = [{name: text for name, text in probe.items() if name not in _SENT} for probe in info.probes]
    if _HALF_PAIR.search(json.dumps({**info.__dict__, "probes": named}, ensure_ascii=False)):
        yield "it holds half of a surrogate pair, which cannot be printed"
    if not all(type(part) is str for part in info.command):
        yield "field 'command' must be a list of texts"
    notes = info.data.get("notes", [])
    if type(notes) is not list:
        yield f"data: 'notes' must be a list of texts, not {shown(notes)}"
    try:
        contaminated_items(info.data)
    except ValueError as fault:
        yield f"data: {fault}"


def plan_fault(plan: dict[str, Any]) -> str | None:
    """What is wrong with the shape of a plan that a run was made under; None for {} and for a sound one."""
    return next(_plan_faults(plan), None) if plan else None


def _plan_faults(plan: dict[str, Any]) -> Iterator[str]:
    try:
        json.dumps(plan, allow_nan=False)
    except ValueError:
        yield "plan: it holds a number that is not finite"
    for name in ("sha", "baseline"):
        if type(plan.get(name)) is not str:
            yield f"plan: '{name}' must be a text"
    yield from _prefixed("plan: ", plan, _PLAN)
    entries = {
        "primary": all(_is_pair(entry) for entry in plan.get("primary", [])),
        "margins": all(type(value) in _NUMBER and value > 0 for value in plan.get("margins", {}).values()),
        "exclusions": all(_texts_of(entry, "probe_id", "reason") for entry in plan.get("exclusions", [])),
        "arms": all(_texts_of(entry, "name") for entry in plan.get("arms", [])),
        "probes": all(_texts_of(entry, "id", "domain", "sha") for entry in plan.get("probes", [])),
    }
    yield from (f"plan: '{name}' has an entry of another form" for name, good in entries.items() if not good)


def _prefixed(place: str, found: dict[str, Any], kinds: Kinds) -> Iterator[str]:
    fault = misfit({name: value for name, value in found.items() if name in kinds}, kinds)
    if fault is not None:
        yield f"{place}{fault}"


def _fits(name: str, value: Any) -> bool:
    """Whether a field of a probe's entry has the type that it must have."""
    if name == "max_tokens":
        return type(value) is int and value > 0
    if name in ("choices", "stop_strings"):
        return type(value) is list and all(type(text) is str for text in value)
    return type(value) is str


def _texts_of(entry: Any, *names: str) -> bool:
    return type(entry) is dict and all(type(entry.get(name)) is str for name in names)


def _is_pair(entry: Any) -> bool:
    return type(entry) is list and len(entry) == 2 and all(type(part) is str for part in entry)


def _is_group(group: Any) -> bool:
    if not _texts_of(group, "arm") or type(group.get("repeat")) is not int:
        return False
    return type(group.get("probes")) is list and all(type(probe) is str for probe in group["probes"])


def read_run(path: Path) -> tuple[RunInfo, list[Record]]:
    """Read a run without locking or changing it; the last line of a key wins, a torn last line is left out.

    What ranks wrote that a killed run left unmerged counts as well.   Raises: DataError for whatever cannot be read.
    """
    info = read_manifest(path)
    with reading(path / "records.jsonl"):
        return info, list(read_all_records(path).values())


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """What the file system or the JSON parser refuses of this file becomes a DataError."""
    try:
        yield
    except (OSError, RecursionError, ValueError) as error:
        raise DataError(f"{file}: not readable ({error}); restore it from a copy.") from None


def nth_line(file: Path, index: int) -> str:
    """Name the line (FILE line N) of the row with this index (from 0); blank lines are lines and no rows."""
    with file.open("rb") as lines:
        filled = (number for number, line in enumerate(lines, start=1) if line.strip())
        return f"{file} line {next(islice(filled, index, None))}"


def _records(rows: list[dict[str, Any]], path: Path) -> Iterator[Record]:
    for index, row in enumerate(rows):
        try:
            yield Record.from_row(row)
        except (TypeError, KeyError) as error:
            raise DataError(f"{nth_line(path, index)}: not a record of this schema ({error}).") from None
