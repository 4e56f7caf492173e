"""`metrics.jsonl`: one flat row per event of a training, cut back to a checkpoint's length when it resumes there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lem.records import JsonlStore, read_jsonl, write_atomic

Metric = dict[str, Any]
NAME = "metrics.jsonl"


class Metrics:
    """Append-only rows of a training; `n_rows` counts those in the file."""

    def __init__(self, output: Path, keep: int) -> None:
        self._path = output / NAME
        self._store: JsonlStore | None = None
        self.n_rows = 0
        self.cut(keep)

    def append(self, row: Metric) -> None:
        """Write one row."""
        assert self._store is not None
        self._store.append(row)
        self.n_rows += 1

    def cut(self, keep: int) -> None:
        """Keep the first rows only: what came after a checkpoint will be written again."""
        self.close()
        if self._path.exists():
            rows, whole = read_jsonl(self._path)
            if len(rows) > keep or whole != self._path.stat().st_size:
                lines = self._path.read_bytes()[:whole].splitlines(keepends=True)
                write_atomic(self._path, b"".join(lines[:keep]).decode("utf-8"))
        self._store = JsonlStore(self._path)
        self.n_rows = len(self._store.rows)

    def close(self) -> None:
        """Flush to the disk and close."""
        if self._store is not None:
            self._store.sync()
            self._store.close()
            self._store = None
