"""Data sets of the Hugging Face hub, pinned to a commit, and copies of them in folders.

`datasets` caches what it loads, so a second run needs no network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lem.benchmarks.benchmark import HubSource, Row
from lem.errors import UserError

_COMMIT = re.compile(r"[0-9a-f]{40}")


def hub_rows(
    hub: HubSource, folder: Path | None = None, revision: str | None = None
) -> tuple[list[Row], Mapping[str, list[Row]]]:
    """The rows of a data set, and those of the further configurations it needs.

    Args:  folder: a copy of the data set's repository, read instead of the hub.  revision: another commit than ours.
    Raises: UserError when the data set cannot be loaded, with what to do.
    """
    commit = None if folder else resolved(hub, revision)["revision"]
    place = str(folder) if folder else hub.path
    return _load(hub, place, hub.config, commit), {name: _load(hub, place, name, commit) for name in hub.also}


def resolved(hub: HubSource, revision: str | None = None) -> dict[str, Any]:
    """The data set with the commit that a revision stands for; a full commit hash is taken as it is.

    Raises: UserError when a branch or tag cannot be looked up.
    """
    commit = revision or hub.revision
    if not _COMMIT.fullmatch(commit):
        from huggingface_hub import HfApi

        try:
            commit = str(HfApi().dataset_info(hub.path, revision=commit).sha)
        except (OSError, ValueError) as error:
            raise UserError(f"{hub.path}: revision '{commit}' cannot be looked up ({_first(error)}).") from None
    return {"path": hub.path, "config": hub.config, "split": hub.split, "revision": commit}


def _load(hub: HubSource, place: str, config: str | None, commit: str | None) -> list[Row]:
    import datasets  # type: ignore[import-untyped]

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(place, config, split=hub.split, revision=commit)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        what = f"{place} (configuration {config or 'default'}, split {hub.split}"
        remedy = "go online once or give --items with a file or a copy of the data set"
        if hub.gated:
            remedy += f"; it is gated: accept its terms on huggingface.co/datasets/{hub.path} and set HF_TOKEN"
        raise UserError(f"{what}, revision {commit or 'none'}) cannot be loaded ({_first(error)}); {remedy}.") from None
    return [dict(row) for row in loaded]


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
