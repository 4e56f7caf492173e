"""Append-only JSONL with crash-safe resume, atomic whole-file writes, and directory locks.

One record is one `write()` of one line that ends in a newline, so a kill leaves at most one torn line at
the end; the next opening cuts it off and says so. A line that cannot be read anywhere else means that
something other than a crash happened to the file, and is an error. A full disk takes the half-written line
back before the error is reported.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from lem.errors import DataError, UserError


def read_jsonl(path: Path, *, allow_torn: bool = True) -> tuple[list[dict[str, Any]], int]:
    """Read every complete line of a JSONL file.

    Returns: the rows, and the byte length of the part that is whole (shorter than the file when the last
    line is torn).   Raises: DataError for an unreadable line anywhere else, or for a torn one if not allowed.
    """
    rows: list[dict[str, Any]] = []
    whole = 0
    for row, end in _lines(path, allow_torn):
        whole = end
        if row is not None:
            rows.append(row)
    return rows, whole


def iter_jsonl(path: Path, *, allow_torn: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file one by one, as `read_jsonl` reads them; the file is never in memory as a whole."""
    return (row for row, _ in _lines(path, allow_torn) if row is not None)


def _lines(path: Path, allow_torn: bool) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Every complete line (None for a blank one) with the byte offset of its end; a torn last line is left out."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            torn = not line.endswith(b"\n")
            row = None if (torn and allow_torn) else _parse(line)
            if row is None and line.strip():
                if allow_torn and not file.read(1):
                    return
                raise DataError(f"{path} line {number}: not a JSON object; restore the file or remove that line.")
            offset += len(line)
            yield row, offset


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # also numbers of thousands of digits, and nesting without end
        return None
    return row if isinstance(row, dict) else None


class JsonlStore:
    """An append-only file of JSON objects, opened for writing by one process at a time.

    `rows` holds what was in the file at opening. `append` writes one line; `sync` makes it durable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._cut_at: int | None = None  # the torn end goes with the first append, so that a refusal changes nothing
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self.rows, whole = read_jsonl(path)
            torn = path.stat().st_size - whole
            if torn:
                warnings.warn(f"{path}: cut off {torn} bytes of a torn last line (an interrupted write).", stacklevel=2)
                self._cut_at = whole
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, row: dict[str, Any]) -> None:
        """Write one row as one line.   Raises: UserError if the disk is full (nothing half-written stays)."""
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")
        if self._cut_at is not None:
            os.ftruncate(self._fd, self._cut_at)
            self._cut_at = None
        before = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, "short write")
        except OSError as error:
            os.ftruncate(self._fd, before)
            raise _disk_error(self.path, error) from None

    def sync(self) -> None:
        """Flush everything appended so far to the disk itself."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _disk_error(self.path, error) from None

    def close(self) -> None:
        """Close the file; further appends are a bug."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> JsonlStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _disk_error(path: Path, error: OSError) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(
            f"{path}: could not write (the disk is full); make room and run the same command again, it resumes."
        )
    # lexists and isdir, because they answer for a place below a file or a forbidden folder as well
    taken = next((place for place in path.parents if os.path.lexists(place) and not os.path.isdir(place)), None)
    reason = f"{taken} is not a folder" if taken is not None else error.strerror or error
    return UserError(
        f"{path}: could not write ({reason}); clear the way or name another place, and run the same command again."
    )


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a whole file in one step: write a temporary neighbour, fsync, move it into place.

    Args:  content: text is written as UTF-8 (lone surrogates kept), bytes as they are.
    Raises: UserError if it cannot be written (disk full, a file in the way of a folder, a folder that is forbidden);
    what was there stays.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _disk_error(path, error) from None
        raise


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Hold the directory's `.lock` for the duration; the kernel drops it when the process dies.

    Raises: UserError if another process holds it, or if the directory cannot be made or written to.
    """
    path = directory / ".lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _disk_error(path, error) from None
    try:
        if not _lock(fd):
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"{directory} is in use by another process (pid {holder}); wait for it or choose another directory."
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold a lock on the file itself, made empty if it is not there; the kernel drops it when the process dies.

    Raises: UserError if another process holds it, or if the file cannot be made.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _disk_error(path, error) from None
    try:
        if not _lock(fd):
            raise UserError(f"{path} is in use by another process; wait for it or end it.")
        yield
    finally:
        os.close(fd)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the file by `lock_file`; False for a file that is not there."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
