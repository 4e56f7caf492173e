"""The answers of a run made ready for its page: in the page while they are few megabytes, else in files beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from lem.data.items import Item
from lem.records import RunContents
from lem.reports import parts
from lem.reports.viewer import Grid, Highlights, ViewedMetric, as_json, probe_entries, viewer_index


@dataclass(frozen=True)
class Answers:
    """The packed index, the parts inside the page, and the folder that holds them instead ("" for none)."""

    index: Markup
    blobs: tuple[Markup, ...]
    folder: str


def pack_answers(
    contents: RunContents, viewed: Sequence[ViewedMetric], baseline: str | None, highlights: Highlights, page: Path,
    items: Mapping[str, Item] | None = None,
) -> Answers:  # fmt: skip
    """Pack the answers for `page`; a large run's are written beside it, and files of an earlier one taken away."""
    grid = Grid(contents, items)
    index = viewer_index(grid, viewed, baseline, highlights)
    told = f"{contents.info.run_id} {contents.info.updated} {as_json(index)}"
    index["id"] = report_id = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    embedded = _embedded(contents, grid, viewed)
    if embedded is None:
        entries = probe_entries(contents, grid, viewed)
        found = parts.make_parts(entries, parts.PAGED_PART_CHARACTERS, level=parts.PAGED_LEVEL)
        index["starts"] = parts.write_parts(page, report_id, found)
        index["folder"] = parts.data_folder(page).name
    else:
        index["starts"] = [part.first for part in embedded]
    parts.remove_other_parts(page, 0 if embedded is not None else len(index["starts"]))
    blobs = tuple(Markup(part.blob) for part in embedded or ())
    return Answers(Markup(parts.packed(index)), blobs, index.get("folder", ""))


def _embedded(contents: RunContents, grid: Grid, viewed: Sequence[ViewedMetric]) -> list[parts.Part] | None:
    """The parts that go into the page; None when they are too large for it."""
    if sum(len(record.response or "") for record in contents.records) > parts.MOST_EMBEDDED_CHARACTERS:
        return None
    found = list(parts.make_parts(probe_entries(contents, grid, viewed), parts.EMBEDDED_PART_CHARACTERS))
    return found if sum(len(part.blob) for part in found) <= parts.MOST_EMBEDDED_BYTES else None
