"""The record files of a run that several ranks write: one writer each, joined by key into `records.jsonl`.

    records.jsonl          rank 0's rows, in the end everybody's
    records.rank1.jsonl    rank 1's rows; gone once they are in records.jsonl

A rank file that a killed run left is as good as records.jsonl: whoever opens the run next reads it first.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lem.errors import DataError, LemError, UserError
from lem.records.model import Key, Record
from lem.records.store import is_locked, iter_jsonl

if TYPE_CHECKING:
    from lem.records.run import RunDirectory

_PREFIX, _SUFFIX = "records.rank", ".jsonl"


def rank_file(run: Path, rank: int) -> Path:
    """Where a rank other than the first writes its records."""
    return run / f"{_PREFIX}{rank}{_SUFFIX}"


def rank_files(run: Path) -> list[Path]:
    """The rank files of a run directory, by rank."""
    found = {file.name.removeprefix(_PREFIX).removesuffix(_SUFFIX): file for file in run.glob(f"{_PREFIX}*{_SUFFIX}")}
    return [found[number] for number in sorted((name for name in found if name.isdecimal()), key=int)]


def read_records(file: Path) -> Iterator[Record]:
    """Yield the records of one file line by line; a torn last line is left out.

    A message that many records share (a kernel, say) is held once.   Raises: DataError naming the line.
    """
    known: dict[Any, dict[str, str]] = {}
    for number, row in enumerate(iter_jsonl(file), start=1):
        try:
            row["messages"] = [
                known.setdefault(tuple(message.items()), message) for message in row.get("messages") or ()
            ]
            yield Record.from_row(row)
        except (AttributeError, TypeError, KeyError) as error:
            raise DataError(f"{file} line {number}: not a record of this schema ({error}).") from None


def replaces(new: Record, stored: Record | None) -> bool:
    """Whether a rank's row says more than what is stored: a first row, or one that follows a stored error."""
    return stored is None or (stored.failed and new != stored)


def read_all_records(run: Path) -> dict[Key, Record]:
    """All records of a run by key: the last line of a key in `records.jsonl`, and what rank files add to it."""
    # Rank files first: what a living rank 0 merges and drops meanwhile is then found in records.jsonl.
    others = [record for file in rank_files(run) for record in _read_if_there(file)]
    found = {record.key: record for record in _read_if_there(run / "records.jsonl")}
    for record in others:
        if replaces(record, found.get(record.key)):
            found[record.key] = record
    return found


def _read_if_there(file: Path) -> Iterator[Record]:
    with suppress(FileNotFoundError):
        yield from read_records(file)


def read_rank_files(run: RunDirectory) -> list[Record]:
    """Read what the rank files add to `records.jsonl`, into `run.records`; nothing is written.

    Returns: the added rows, for `merge_rank_files`.   Raises: UserError if a rank of an earlier start still writes;
    LemError if a rank's answer differs from the stored one; DataError for an unreadable line.
    """
    added = []
    for file in rank_files(run.path):
        if is_locked(file):
            raise UserError(f"{file} is in use by another process (a rank of an earlier start); wait for it or end it.")
        if _is_torn(file):
            warnings.warn(f"{file}: left out a torn last line (an interrupted write).", stacklevel=2)
        for record in read_records(file):
            if replaces(record, run.records.get(record.key)):
                run.records[record.key] = record
                added.append(record)
            else:
                _refuse_difference(file, record, run.records)
    return added


def _is_torn(file: Path) -> bool:
    with file.open("rb") as bytes_of:
        length = bytes_of.seek(0, os.SEEK_END)
        bytes_of.seek(max(0, length - 1))
        return bytes_of.read(1) not in (b"", b"\n")


def _refuse_difference(file: Path, record: Record, stored: Mapping[Key, Record]) -> None:
    kept = stored[record.key]
    if record.failed or kept.failed:
        return
    if (record.fingerprint, record.response) != (kept.fingerprint, kept.response):
        arm, probe, repeat = record.key
        raise LemError(
            f"{file}: arm '{arm}', probe {probe}, repeat {repeat} differs from the answer in records.jsonl; move that "
            "file out of the run, its other rows are then made again."
        )


def merge_rank_files(run: RunDirectory, added: list[Record]) -> None:
    """Append the rows that `read_rank_files` found to `records.jsonl`, flush them to disk, then drop the rank files."""
    for record in added:
        run.append(record)
    run.store.sync()
    for file in rank_files(run.path):
        file.unlink()
