"""Items from files: our own, a user's, the published ones, or the hub's, all read into the same objects.

An item file has one JSON object a line, with the fields that `docs/BENCHMARKS.md` lists. A folder is read as a copy of
the hub's data set (parquet or CSV with its card). Probe files (a JSON array) are items of `ethics`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lem.benchmarks.benchmark import Benchmark
from lem.benchmarks.hub import hub_rows, resolved
from lem.benchmarks.table import find
from lem.config import load_config
from lem.data.items import Item
from lem.data.probes import read_probes
from lem.errors import DataError, UserError

Source = Literal["ours", "hub"] | Path


def read_items(task: str, source: Source = "ours", limit: int | None = None, revision: str | None = None) -> list[Item]:
    """The items of a benchmark, in the order of their source.

    Args:  source: our own items, the hub's data set at the pinned commit (or `revision`), a file, or a folder that
           holds a copy of the hub's data set.  limit: keep that many, chosen by a hash of their ids, so that they come
           from everywhere in the file and a larger limit only adds to a smaller one.
    Raises: UserError for an unknown task, a limit below 1, or a source that is not there; DataError with file, line
    and field for an item that is not whole.
    """
    benchmark = find(task)
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1 (got {limit}); leave it out to use every item.")
    items = _read(benchmark, source, revision)
    if limit is None:
        return items
    kept = {item.id for item in sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest())[:limit]}
    return [item for item in items if item.id in kept]


def source_facts(task: str, source: Source = "ours", revision: str | None = None) -> dict[str, Any]:
    """Where the items of a benchmark come from, for a run's manifest: path and hash, or data set and commit."""
    benchmark = find(task)
    if source == "hub":
        return {"source": "hub", **resolved(_hub(benchmark), revision)}
    path = _own_file(benchmark) if source == "ours" else Path(source)
    if path.is_dir():
        return {"source": "folder", "path": str(path)}
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"source": "ours" if source == "ours" else "file", "path": str(path), "sha256": sha}


def _read(benchmark: Benchmark, source: Source, revision: str | None) -> list[Item]:
    if isinstance(source, Path) and not source.is_dir():
        return read_file(benchmark, source)
    if source == "ours":
        return read_file(benchmark, _own_file(benchmark))
    hub = _hub(benchmark)
    folder = source if isinstance(source, Path) else None
    place = str(folder or hub.path)
    rows, also = hub_rows(hub, folder, revision)
    try:
        found = hub.to_rows(rows, also)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{place}: its rows are not those of {hub.path} ({error!r}); check the revision.") from None
    return _unique([_item(benchmark, row, f"{place} row {n}") for n, row in enumerate(found)], place)


def _own_file(benchmark: Benchmark) -> Path:
    config = load_config()
    if benchmark.name == "ethics":
        return Path(config.default_probes)
    return Path(config.benchmarks_dir) / "items" / f"{benchmark.file_name}.jsonl"


def _hub(benchmark: Benchmark) -> Any:
    if benchmark.hub is None:
        raise UserError(f"{benchmark.name}: the hub has no such data set; leave --items out for our own items.")
    return benchmark.hub


def read_file(benchmark: Benchmark, path: Path) -> list[Item]:
    """The items of one file.   Raises: UserError if it is missing; DataError with line and field."""
    if not path.is_file():
        raise UserError(f"{path}: no such item file; give --items FILE, or leave it out for our own items.")
    if benchmark.name == "ethics" and path.suffix == ".json":
        return [Item(probe.id, "ethics", probe.prompt, probe.domain) for probe in read_probes(path)]
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    places = [(f"{path} line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not places:
        raise DataError(f"{path}: no item in the file; write one JSON object a line.")
    return _unique([_item(benchmark, _object(line, place), place) for place, line in places], str(path))


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not valid JSON ({error.msg}).") from None
    if not isinstance(row, dict):
        raise DataError(f"{place}: not a JSON object.")
    return row


def _item(benchmark: Benchmark, row: Mapping[str, Any], place: str) -> Item:
    """One item of a benchmark.   Raises: DataError naming the place and the field."""
    name = row.get("id")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{place}: field 'id' is {_state(row, 'id')}; every item needs it.")
    if row.get("benchmark", benchmark.file_name) != benchmark.file_name:
        raise DataError(f"{place}: an item of '{row['benchmark']}', not of '{benchmark.file_name}'; mend --items.")
    for field, rule in benchmark.fields.items():
        fault = rule(row[field]) if field in row else "is missing"
        if fault:
            raise DataError(f"{place} ({name}): field '{field}' {fault}; every item of {benchmark.name} needs it.")
    fault = benchmark.check(row)
    if fault:
        raise DataError(f"{place} ({name}): {fault}; mend the item.")
    domain = next((row[field] for field in benchmark.domain if isinstance(row.get(field), str) and row[field]), "")
    kept = {key: row[key] for key in row if key not in ("id", "benchmark", "domain", benchmark.question)}
    kind = benchmark.kind(row) if benchmark.kind else benchmark.name
    return Item(name + benchmark.id_suffix, kind, row[benchmark.question], domain, kept)


def _state(row: Mapping[str, Any], name: str) -> str:
    return "empty or not a text" if name in row else "missing"


def _unique(items: list[Item], place: str) -> list[Item]:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"{place}: item '{item.id}' stands there twice; ids must differ.")
        seen.add(item.id)
    return items
