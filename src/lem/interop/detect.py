"""Decide what a file of answers is, by the keys of its first line, and read it.

    type = probe or summary                   published A/B results
    id, response, benchmark                   published standard results
    id, response                              answers
    arm, probe_id, fingerprint (our records)  the run directory that holds the file

Nothing else is accepted: a format that has to be guessed is a format that may be read wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.interop.imported import Imported
from lem.interop.lines import read_lines
from lem.interop.published import read_ab, read_answers, read_standard_results
from lem.records import read_run

RUN = "LEM run"
ACCEPTED = (
    "published A/B results (type, id, category, prompt, conditions)",
    "published standard results (id, benchmark, model, prompt, response)",
    "answers (id, response; optionally arm or model, prompt, domain)",
    "a run directory (run.json, records.jsonl)",
)


def read_answers_file(path: Path) -> Imported:
    """Read answers from a run directory or from a file of any accepted format.

    Raises: UserError if there is nothing at `path`; DataError for a directory that is no run, an empty or binary
    file, a format that is not accepted (with the formats that are, and the keys found), or a malformed line.
    """
    if path.is_dir():
        return _read_run_directory(path)
    row = read_lines(path, allow_torn=True)[0][0].row
    if row.get("type") in ("probe", "summary"):
        return read_ab(path)
    if _is_record(row):
        return _read_run_directory(path.parent)
    if {"id", "response"} <= row.keys():
        return read_standard_results(path) if "benchmark" in row else read_answers(path)
    found = ", ".join(list(row)[:12]) or "none"
    raise DataError(f"{path} line 1 has the keys {found}, which is no format LEM reads; it reads {_listed()}.")


def _is_record(row: Mapping[str, Any]) -> bool:
    return {"arm", "probe_id", "fingerprint"} <= row.keys()


def _read_run_directory(path: Path) -> Imported:
    if not (path / "run.json").is_file():
        raise DataError(f"{path} holds no run.json, so it is not a run directory; give one, or a .jsonl file.")
    info, records = read_run(path)
    notes = [] if info.status == "done" else [f"the run {path} is {info.status}; some of its cells may be missing."]
    return Imported(info, records, RUN, notes)


def _listed() -> str:
    return "; ".join(ACCEPTED)
