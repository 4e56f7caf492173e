"""Kernels: a text that is injected into the conversation, and the rule that names its arm."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from lem.errors import DataError, UserError


@dataclass(frozen=True)
class Kernel:
    """A kernel (or placebo) text as read from its file, under the name of its arm."""

    name: str
    path: str
    text: str

    @property
    def sha(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


def default_name(path: Path) -> str:
    """The arm name of a bare path: `json` or `txt` from its suffix, otherwise its stem (a folder's whole name)."""
    suffix = path.suffix.lower().lstrip(".")
    if suffix in ("json", "txt"):
        return suffix
    return path.stem if path.is_file() else path.name


def read_kernel(path: Path, name: str | None = None) -> Kernel:
    """Read a kernel file; a .json file must parse, no file may be empty.

    Raises: UserError if the file is missing; DataError if it is empty or malformed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such kernel file; give --kernel NAME=PATH, for example json=kernel/axioms.json.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    if not text.strip():
        raise DataError(f"{path}: the kernel is empty, so its arm would be the base arm again; write its text.")
    if path.suffix.lower() == ".json":
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {error.lineno}: not valid JSON ({error.msg}); mend the kernel.") from None
    return Kernel(name or default_name(path), str(path), text.strip())
