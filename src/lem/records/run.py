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
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError
from lem.records.model import Key, Record
from lem.records.rank_files import read_all_records
from lem.records.store import JsonlStore, lock_directory, write_atomic

RUN_SCHEMA = 1
_VERSIONED = ("mlx", "mlx-lm", "numpy", "scipy", "transformers", "tokenizers")


@dataclass
class RunInfo:
    """The manifest of a run; `arms` maps an arm's name to its model, adapter, kernel and identity hashes.

    An entry of `probes` has `id`, `domain` and `prompt`, and where they apply `source` (the probe that it rephrases)
    and `benchmark` (the set of items it belongs to). `plan` is the whole plan file that the run was made under, with
    its hash as `sha`; {} when there was none.
    """

    run_id: str
    kind: str
    status: str = "new"
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    probes: list[dict[str, str]] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    group_size: int | None = None
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    created: str = ""
    updated: str = ""
    schema: int = RUN_SCHEMA


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
        raise UserError(f"{path} is a file; give a directory for the run, or a name ending in .jsonl.")
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
    """Read `run.json`.   Raises: DataError if it is missing, malformed or of a newer schema."""
    file = path / "run.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        info = RunInfo(**raw)
    except FileNotFoundError:
        raise DataError(f"{path} holds no run.json, so it is not a run directory; check the path.") from None
    except (json.JSONDecodeError, TypeError) as error:
        raise DataError(f"{file}: not a readable manifest ({error}); restore it from a copy.") from None
    if info.schema > RUN_SCHEMA:
        raise DataError(f"{file}: schema {info.schema} is newer than this version reads ({RUN_SCHEMA}); update LEM.")
    return info


def read_run(path: Path) -> tuple[RunInfo, list[Record]]:
    """Read a run without locking or changing it; the last line of a key wins, a torn last line is left out.

    What ranks wrote that a killed run left unmerged counts as well.
    """
    info = read_manifest(path)
    return info, list(read_all_records(path).values())


def _records(rows: list[dict[str, Any]], path: Path) -> Iterator[Record]:
    for number, row in enumerate(rows, start=1):
        try:
            yield Record.from_row(row)
        except (TypeError, KeyError) as error:
            raise DataError(f"{path} line {number}: not a record of this schema ({error}).") from None
