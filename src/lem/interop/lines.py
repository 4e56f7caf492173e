"""Lines of other people's JSON Lines files, read strictly: every complaint names the file, the line and the field.

A foreign file is not a store of ours: a last line without a newline is an ordinary line if it parses. Blank lines
are skipped and still counted, so that numbers agree with an editor's.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError


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


def read_bytes(path: Path) -> bytes:
    """Read a file.   Raises: UserError if there is none, if it is a directory or unreadable."""
    if path.is_dir():
        raise UserError(f"{path} is a directory; give a .jsonl file of answers.")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def read_lines(path: Path, *, allow_torn: bool = False) -> tuple[list[Line], bool]:
    """Read every non-blank line of a JSON Lines file as an object.

    Args:  allow_torn: leave out a last line that lacks both its newline and its end (an interrupted write).
    Returns: the lines, and whether a torn one was left out.
    Raises: UserError for a missing file; DataError for an empty or binary one, or a line that is no JSON object.
    """
    texts = _decode(path).split("\n")
    lines: list[Line] = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            if allow_torn and lines and number == len(texts):
                return lines, True
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply or an endless number"
            raise DataError(
                f"{path} line {number}: not valid JSON ({reason}); a file of answers is JSON Lines, one object a line."
            ) from None
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number}: not a JSON object; a file of answers has one object a line.")
        lines.append(Line(path, number, row))
    if not lines:
        raise DataError(f"{path}: the file is empty; it should hold one JSON object a line.")
    return lines, False


def _decode(path: Path) -> str:
    data = read_bytes(path)
    if b"\0" in data:
        raise DataError(f"{path}: a binary file (it holds zero bytes), not JSON Lines in UTF-8.")
    try:
        # Our own files may hold lone surrogates as they came from a tokenizer.
        return data.decode("utf-8", "surrogatepass").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}), so not JSON Lines.") from None


def file_sha(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    return hashlib.sha256(read_bytes(path)).hexdigest()
