"""Probe files: a JSON array of `{id, domain, prompt}` objects; a rephrased probe also names its `source`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError


@dataclass(frozen=True)
class Probe:
    """One evaluation prompt; `domain` is the cluster it belongs to in the statistics.

    `source` is the id of the probe that this one rephrases, None for a probe of its own: the variants of one source
    are one observation, a cluster inside the domain. An item of a benchmark has the rest: the name of its `benchmark`,
    what is sent in place of the prompt, to a chat model (`asks`) and to a model without a chat template (`completes`),
    its own token limit, the strings that end a completion, and the `choices` that are measured instead of answered.
    """

    id: str
    domain: str
    prompt: str
    source: str | None = None
    benchmark: str | None = None
    asks: str | None = None
    completes: str | None = None
    max_tokens: int | None = None
    stop_strings: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    def to_entry(self) -> dict[str, Any]:
        """The probe as an object of a probe file or a manifest; what it does not have is left out."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if name in ("id", "domain", "prompt") or value not in (None, ())
        }

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Probe:
        """The probe of a manifest's entry."""
        lists = {name: tuple(entry[name]) for name in ("stop_strings", "choices") if name in entry}
        return cls(**{**entry, **lists})


def read_probes(path: Path, limit: int | None = None) -> list[Probe]:
    """Read and validate a probe file; `limit` keeps the first probes only.

    Raises: UserError if the file is missing or the limit below 1; DataError with the entry's number and field.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1 (got {limit}); leave it out to use every probe.")
    if not path.is_file():
        raise UserError(f"{path}: no such probe file; give --prompts FILE, for example seeds/P01-P20.json.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno}: not valid JSON ({error.msg}); mend the file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    if not isinstance(raw, list) or not raw:
        raise DataError(f"{path}: a probe file is a non-empty JSON array of {{id, domain, prompt}} objects.")
    probes = [_probe(entry, number, path) for number, entry in enumerate(raw, start=1)]
    _refuse_duplicates(probes, path)
    return probes[:limit]


def _probe(entry: Any, number: int, path: Path) -> Probe:
    if not isinstance(entry, dict):
        raise DataError(f"{path} entry {number}: not an object with id, domain and prompt.")
    for name in ("id", "domain", "prompt"):
        value = entry.get(name)
        if not isinstance(value, str) or not value.strip():
            shown = f" ({entry['id']})" if isinstance(entry.get("id"), str) and name != "id" else ""
            state = "missing" if name not in entry else "empty or not a string"
            raise DataError(f"{path} entry {number}{shown}: field '{name}' is {state}; every probe needs it.")
    return Probe(entry["id"], entry["domain"], entry["prompt"], _source(entry, number, path))


def _source(entry: dict[str, Any], number: int, path: Path) -> str | None:
    source = entry.get("source")
    if source is not None and (not isinstance(source, str) or not source.strip()):
        raise DataError(
            f"{path} entry {number} ({entry['id']}): field 'source' is empty or not a string; give the id of the "
            "probe that it rephrases, or leave the field out."
        )
    return source


def refuse_variants(probes: Sequence[Probe], path: Path) -> None:
    """Refuse rephrased probes where every probe counts as an observation.   Raises: UserError naming the first."""
    for probe in probes:
        if probe.source is not None:
            raise UserError(
                f"{path}: {probe.id} is a rephrasing of {probe.source}, and its variants are no separate observations; "
                "give the probes themselves here, and the rephrased ones to `lem benchmark`."
            )


def _refuse_duplicates(probes: list[Probe], path: Path) -> None:
    seen: dict[str, int] = {}
    for number, probe in enumerate(probes, start=1):
        if probe.id in seen:
            raise DataError(f"{path} entry {number}: id '{probe.id}' was already used by entry {seen[probe.id]}.")
        seen[probe.id] = number
