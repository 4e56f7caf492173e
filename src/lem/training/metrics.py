"""`metrics.jsonl`: one flat row per event of a training, cut back to a checkpoint's length when it resumes there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError
from lem.records import JsonlStore, read_jsonl, write_atomic

Metric = dict[str, Any]
NAME = "metrics.jsonl"


class Pace:
    """Reply tokens per second of training itself, for the time since the last report and for all of it."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 0, 0.0
        self._lap_tokens, self._lap_seconds = 0, 0.0

    def add(self, n_tokens: int, seconds: float) -> None:
        """Count a step."""
        self._lap_tokens, self._lap_seconds = self._lap_tokens + n_tokens, self._lap_seconds + seconds
        self._tokens, self._seconds = self._tokens + n_tokens, self._seconds + seconds

    def lap(self) -> float | None:
        """Tokens per second since the last call; None without a step."""
        rate = self._lap_tokens / self._lap_seconds if self._lap_seconds else None
        self._lap_tokens, self._lap_seconds = 0, 0.0
        return rate

    @property
    def mean(self) -> float | None:
        """Tokens per second in all; None without a step."""
        return self._tokens / self._seconds if self._seconds else None


class Metrics:
    """Append-only rows of a training; `n_rows` counts those in the file."""

    def __init__(self, output: Path, keep: int) -> None:
        self._path = output / NAME
        self._store: JsonlStore | None = None
        self.n_rows = 0
        self.cut(keep)

    def append(self, row: Metric) -> None:
        """Write one row.   Raises: UserError if the disk is full."""
        assert self._store is not None
        try:
            self._store.append(row)
        except UserError:
            raise UserError(
                f"{self._path}: could not write (no room); make room on the disk and go on with --resume."
            ) from None
        self.n_rows += 1

    def sync(self) -> None:
        """Flush to the disk, so that a checkpoint that counts the rows never has more than the file."""
        assert self._store is not None
        self._store.sync()

    def cut(self, keep: int) -> None:
        """Keep the first rows only: what came after a checkpoint will be written again.

        Raises: DataError if there are fewer.
        """
        self.close()
        rows, whole = read_jsonl(self._path) if self._path.exists() else ([], 0)
        if len(rows) < keep:
            raise DataError(f"{self._path}: {len(rows)} of {keep} rows are left; restore the file or start again.")
        if len(rows) > keep or (self._path.exists() and whole != self._path.stat().st_size):
            lines = self._path.read_bytes()[:whole].splitlines(keepends=True)
            write_atomic(self._path, b"".join(lines[:keep]).decode("utf-8"))
        self._store = JsonlStore(self._path)
        self.n_rows = keep

    def close(self) -> None:
        """Close the file; the last checkpoint flushed what counts."""
        if self._store is not None:
            self._store.close()
            self._store = None
