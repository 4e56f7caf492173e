"""Texts packed for the page: compressed parts, embedded in it, or in script files beside it when they are many.

A page opened from disk may not fetch a file but may load a script, so each file calls the page with its part. The
folder beside the page is ours alone: a file in it that we did not make stops the writing before anything is touched.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lem.errors import UserError
from lem.paths import display_path
from lem.records import write_atomic
from lem.reports.viewer import ProbeTexts, as_json

EMBEDDED_PART_CHARACTERS = 400_000
PAGED_PART_CHARACTERS = 3_000_000
PAGED_LEVEL = 6
MOST_EMBEDDED_BYTES = 4_000_000
MOST_EMBEDDED_CHARACTERS = 20_000_000
_PER_CELL = 80  # characters of a cell beside its texts, about
_HEADER = "/* LEM report data */"


@dataclass(frozen=True)
class Part:
    """A group of probes, from the `first` one on, as base64 of deflated JSON."""

    first: int
    blob: str


def packed(data: Any, level: int = 9) -> str:
    """Base64 of deflated JSON, which a browser unpacks by itself."""
    return base64.b64encode(zlib.compress(as_json(data).encode("utf-8"), level)).decode("ascii")


def make_parts(entries: Iterable[ProbeTexts], characters: int, level: int = 9) -> Iterator[Part]:
    """Cut probes into parts of about so many characters of new text; a probe is never split."""
    texts: dict[str, int] = {}
    probes: list[dict[str, Any]] = []
    first = size = 0
    for number, entry in enumerate(entries):
        before = len(texts)
        probes.append(entry.numbered(texts))
        size += sum(len(text) for text in islice(reversed(texts), len(texts) - before)) + _PER_CELL * len(entry.cells)
        if size >= characters:
            yield Part(first, packed({"texts": list(texts), "probes": probes}, level))
            texts, probes, first, size = {}, [], number + 1, 0
    if probes:
        yield Part(first, packed({"texts": list(texts), "probes": probes}, level))


def data_folder(page: Path) -> Path:
    """Where the files of a page lie: `report-data` beside `report.html`."""
    return page.with_name(f"{page.stem}-data")


def file_name(number: int) -> str:
    """Name of a part's file, counted from 1."""
    return f"{number:04d}.js"


def refuse_foreign(page: Path) -> None:
    """Raise UserError when the page's data folder, or something in it, is not ours to replace."""
    folder = data_folder(page)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{display_path(folder)} is in the way of the report's data; move it, or choose an --output.")
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not _is_ours(file):
            raise UserError(
                f"{display_path(file)} was not made by a report; move it, or choose another --output, nothing was "
                "touched."
            )


def write_parts(page: Path, report_id: str, parts: Iterable[Part]) -> list[int]:
    """Write each part into its file beside the page and return the first probe of each."""
    folder = data_folder(page)
    starts = []
    for number, part in enumerate(parts, start=1):
        call = f'lemReportPart("{report_id}",{number - 1},"{part.blob}");'
        write_atomic(folder / file_name(number), f"{_HEADER}\n{call}\n")
        starts.append(part.first)
    return starts


def remove_other_parts(page: Path, n_used: int) -> None:
    """Take away files of an earlier report beyond the first `n_used`, and the folder when nothing is left in it."""
    folder = data_folder(page)
    if not folder.is_dir():
        return
    used = {file_name(number) for number in range(1, n_used + 1)}
    for file in folder.iterdir():
        if file.name not in used and _is_ours(file):
            file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_ours(file: Path) -> bool:
    if not file.is_file() or file.is_symlink():
        return False
    with file.open("rb") as opened:
        return opened.read(len(_HEADER)) == _HEADER.encode()
