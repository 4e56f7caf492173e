"""Lines of other people's JSON Lines files, read strictly: every complaint names the file, the line and the field.

A foreign file is not a store of ours: a last line without a newline is an ordinary line if it parses. Blank lines
are skipped and still counted, so that numbers agree with an editor's. Files are streamed: one line is in memory at a
time, besides what the caller keeps of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lem.errors import DataError, UserError

# No answer is this long, and a file of this size in one line is not JSON Lines.
MAX_LINE_BYTES = 256 * 2**20
_CHUNK = 2**20


@dataclass(frozen=True)
class Line:
    """One object of a JSON Lines file, or one object nested in it; `what` says which (" condition 'json'")."""

    path: Path
    number: int
    row: dict[str, Any]
    what: str = ""

    def error(self, complaint: str) -> DataError:
        """A DataError that opens with this line's place."""
        return DataError(f"{self.path} line {self.number}{self.what}: {complaint}")

    def text(self, name: str) -> str:
        """A string field that must be there and not blank.   Raises: DataError."""
        value = self.row.get(name)
        if not isinstance(value, str) or not value.strip():
            state = "empty or not a string" if name in self.row else "missing"
            raise self.error(f"field '{name}' is {state}.")
        return value

    def text_or_none(self, name: str) -> str | None:
        """A string field, or None for a missing or null one.   Raises: DataError for anything else."""
        value = self.row.get(name)
        if value is not None and not isinstance(value, str):
            raise self.error(f"field '{name}' is not a string.")
        return value

    def identifier(self) -> str:
        """The field `id`: a non-blank string, or a whole number, which becomes its decimal digits."""
        value = self.row.get("id")
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text("id")

    def whole_number(self, name: str) -> int | None:
        """An integer of at least 0, or None for a missing or null field.   Raises: DataError for anything else."""
        value = self.row.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(f"field '{name}' is {value!r}; it must be a whole number of at least 0.")
        return value

    def number_or_none(self, name: str) -> float | None:
        """A finite number; None for a missing field, null or NaN.   Raises: DataError for anything else."""
        value = self.row.get(name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        # The bound keeps out infinity and whole numbers too long for a float.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise self.error(f"field '{name}' is {value!r}; it must be a finite number or null.")
        return float(value)

    def nested(self, row: Any, what: str) -> Line:
        """An object inside this line.   Raises: DataError if it is no object."""
        if not isinstance(row, dict):
            raise self.error(f"{what} is not an object.")
        return Line(self.path, self.number, row, f" {what}")

    def outcome(self) -> tuple[str | None, str | None]:
        """The fields `response` and `error`: (text, None) for an answer, (None, error) for a failure.

        An empty response is an answer. Neither, or both, is a DataError: nothing is guessed about a lost answer.
        """
        if "response" not in self.row:
            raise self.error("field 'response' is missing.")
        response, error = self.row["response"], self.row.get("error") or None
        if response is not None and not isinstance(response, str):
            raise self.error("field 'response' is neither a string nor null.")
        if error is not None and not isinstance(error, str):
            raise self.error("field 'error' is not a string.")
        if response is None and error is None:
            raise self.error(
                "the response is null and no 'error' says why; give the text, or the error it failed with."
            )
        if response is not None and error is not None:
            raise self.error('it has a response and an error; a failed row has "response": null.')
        return response, error


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading.   Raises: UserError if there is none, if it is a directory or unreadable."""
    if path.is_dir():
        raise UserError(f"{path} is a directory; give a file.")
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


class LineStream:
    """The non-blank lines of a JSON Lines file as objects, read one at a time; every iteration opens the file anew.

    After a whole iteration `torn` says whether a last line without newline and without end (an interrupted write)
    was left out, which happens only with `allow_torn`.
    Iterating raises: UserError for a missing file; DataError for an empty or binary one, or a line that is no JSON
    object.
    """

    def __init__(self, path: Path, *, allow_torn: bool = False) -> None:
        self.path = path
        self.torn = False
        self._allow_torn = allow_torn

    def __iter__(self) -> Iterator[Line]:
        self.torn, found, offset = False, False, 0
        with open_bytes(self.path) as file:
            for number, raw in enumerate(_raw_lines(file), start=1):
                text = self._decode(raw, number, offset)
                offset += len(raw)
                if not text.strip():
                    continue
                row = self._parse(text, number, may_be_torn=found and not raw.endswith(b"\n"))
                if row is None:
                    self.torn = True
                    return
                found = True
                yield Line(self.path, number, row)
        if not found:
            raise DataError(f"{self.path}: the file is empty; it should hold one JSON object a line.")

    def first(self) -> Line:
        """The first line, without reading further.   Raises: as iterating does."""
        return next(iter(self))

    def _decode(self, raw: bytes, number: int, offset: int) -> str:
        if b"\0" in raw:
            raise DataError(f"{self.path}: a binary file (it holds zero bytes), not JSON Lines in UTF-8.")
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(
                f"{self.path} line {number}: longer than {MAX_LINE_BYTES // 2**20} MiB, so this is no file of answers; "
                "JSON Lines has one object a line."
            )
        try:
            # Our own files may hold lone surrogates as they came from a tokenizer.
            text = raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: not UTF-8 text (byte {offset + error.start}), so not JSON Lines.") from None
        return text.removeprefix("\ufeff") if number == 1 else text

    def _parse(self, text: str, number: int, *, may_be_torn: bool) -> dict[str, Any] | None:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            if self._allow_torn and may_be_torn:
                return None
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply or an endless number"
            raise DataError(
                f"{self.path} line {number}: not valid JSON ({reason}); a file of answers is JSON Lines, one object a "
                "line."
            ) from None
        if not isinstance(row, dict):
            raise DataError(f"{self.path} line {number}: not a JSON object; a file of answers has one object a line.")
        return row


def _raw_lines(file: BinaryIO) -> Iterator[bytes]:
    while raw := file.readline(MAX_LINE_BYTES + 1):
        yield raw


def read_lines(path: Path, *, allow_torn: bool = False) -> tuple[list[Line], bool]:
    """Read every line of a `LineStream`, and whether a torn one was left out; for files that are small."""
    stream = LineStream(path, allow_torn=allow_torn)
    return list(stream), stream.torn


def read_object(path: Path, what: str) -> dict[str, Any]:
    """Read a whole file as one JSON object; `what` names in a complaint what it should be ("a table of scores").

    Raises: UserError for a missing file; DataError for anything but a JSON object in UTF-8, or one with a key twice.
    """
    with open_bytes(path) as file:
        data = file.read()
    try:
        found = json.loads(data.decode("utf-8", "surrogatepass").removeprefix("\ufeff"), object_pairs_hook=_no_twins)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}), so not {what}.") from None
    except _KeyTwice as error:
        raise DataError(f"{path}: the key '{error}' stands twice in one object; keep one of the two.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno}: not valid JSON ({error.msg}), so not {what}.") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: nested too deeply or an endless number, so not {what}.") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a JSON object, so not {what}.")
    return found


class _KeyTwice(Exception):
    """A JSON object names one key twice, of which a plain reader would silently keep the last."""


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _KeyTwice(next(name for name in names if names.count(name) > 1))
    return found


def file_sha(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with open_bytes(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
