"""Where things are: the repository's folders, run directories, and the way a user's path is resolved.

Relative paths in options count from the working directory; relative paths in `lem.config.json` count
from the folder that holds it. Nothing is read from the environment when this module is imported.
"""

from __future__ import annotations

import re
from pathlib import Path


def repository_root() -> Path:
    """Return the checkout that holds this package (`src/lem/paths.py` -> two folders above `src`)."""
    return Path(__file__).resolve().parents[2]


def slug(name: str) -> str:
    """Turn a model path or hub id into one safe folder name: `mlx-community/gemma-3` -> `gemma-3`.

    Keeps letters, digits, dot, dash and underscore; any other run of characters becomes one dash.
    """
    last = str(name).rstrip("/").split("/")[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "model"


def display_path(path: Path) -> str:
    """Shorten a path for people: relative to the working directory when it lies inside it."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
