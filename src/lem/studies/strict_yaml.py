"""YAML files of settings: a key written twice is refused, 1e-5 is a number, and errors name file and line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lem.errors import DataError


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key written twice, of which the plain loader silently keeps the last."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is written twice", key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return {loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value}


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1 takes 1e-5 for a text, because it has no dot.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_mapping(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Read a file that must hold one mapping.   Args: keys: what the error says it could hold.   Raises: DataError."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"{path} line {line}: not valid YAML ({error.problem}); mend the file.") from None
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not valid YAML ({' '.join(str(error).split())[:160]}); mend the file.") from None
    if not isinstance(raw, dict):
        raise DataError(f"{path}: must be one mapping with the keys {', '.join(keys)}.")
    return raw
