"""The one door for answers made elsewhere: decide what a file or folder is, by what stands in it, and read it.

A folder is known by the files in it, a file by its ending where that says enough (`.eval`), else by the keys of its
first object:

    run.json                                  a run directory
    standard_scores.json, results/*.jsonl     published standard benchmarks
    samples_*.jsonl                           output of lm-eval
    *.eval, or {version, status, eval}        a log of Inspect
    {"scores": {benchmark: ...}}              published scores, with the responses beside them
    doc_id, resps, arguments                  samples of lm-eval
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

from lem.errors import DataError, UserError
from lem.interop.imported import Imported
from lem.interop.imported_run import read_published_scores
from lem.interop.lines import LineStream, read_object
from lem.interop.published import read_ab, read_answers, read_standard_results
from lem.interop.standard import is_standard_folder, read_standard
from lem.interop.standard_scores import is_score_table
from lem.records import read_contents

RUN = "LEM run"
ACCEPTED = (
    "published A/B results (type, id, category, prompt, conditions)",
    "published standard results (id, benchmark, model, prompt, response)",
    "published standard benchmarks (a folder with results/ and standard_scores.json, or that file)",
    "answers (id, response; optionally arm or model, prompt, domain)",
    "logs of Inspect (.eval, .json)",
    "samples of lm-eval (samples_*.jsonl, or the folder that holds them)",
    "a run directory (run.json, records.jsonl)",
)


def read_answers_file(path: Path) -> Imported:
    """Read answers from a run directory or from a file or folder of any accepted format.

    Raises: UserError if there is nothing at `path`; DataError for a directory that is no run, an empty or binary
    file, a format that is not accepted (with the formats that are, and the keys found), or a malformed line.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix == ".eval":
        return _read_inspect(path)
    if path.suffix == ".json" and not _has_object_a_line(path):
        return _read_json(path)
    return _read_rows(path, LineStream(path).first().row)


def _read_rows(path: Path, row: dict[str, Any]) -> Imported:
    if row.get("type") in ("probe", "summary"):
        return read_ab(path)
    if {"arm", "probe_id", "fingerprint"} <= row.keys():
        return _read_run_directory(path.parent)
    if {"doc_id", "resps", "arguments"} <= row.keys():
        return _read_harness(path)
    if {"id", "response"} <= row.keys():
        return read_standard_results(path) if "benchmark" in row else read_answers(path)
    keys = ", ".join(list(row)[:12]) or "none"
    raise DataError(f"{path} line 1 has the keys {keys}, which is no format LEM reads; it reads {'; '.join(ACCEPTED)}.")


def _read_folder(path: Path) -> Imported:
    if (path / "run.json").is_file():
        return _read_run_directory(path)
    if is_standard_folder(path):
        return read_standard(path)
    if any(path.rglob("samples_*.jsonl")):
        return _read_harness(path)
    logs = sorted(path.glob("*.eval"))
    if len(logs) == 1:
        return _read_inspect(logs[0])
    if logs:
        raise UserError(f"{path} holds {len(logs)} logs of Inspect; give them one by one.")
    raise DataError(
        f"{path} holds no run.json, so it is not a run directory, and no other format's files; give a run, or a file."
    )


def _has_object_a_line(path: Path) -> bool:
    """Whether a .json file is JSON Lines after all: its first line is an object of its own, and not its last line."""
    try:
        stream = iter(LineStream(path))
        next(stream)
        return next(stream, None) is not None
    except DataError:
        return False


def _read_json(path: Path) -> Imported:
    try:
        found = read_object(path, "an object")
    except DataError:
        LineStream(path).first()  # its complaint says what a file of answers is
        raise
    if is_score_table(found):
        return read_standard(path)
    if {"version", "status", "eval"} <= found.keys():
        return _read_inspect(path)
    if {"results", "configs"} <= found.keys():
        return _read_harness(path)
    return _read_rows(path, found)


def _read_inspect(path: Path) -> Imported:
    from lem.interop.inspect_logs import read_inspect

    return read_inspect(path)


def _read_harness(path: Path) -> Imported:
    from lem.interop.harness_logs import read_harness

    return read_harness(path)


def _read_run_directory(path: Path) -> Imported:
    if not (path / "run.json").is_file():
        raise DataError(f"{path} holds no run.json, so it is not a run directory; give one, or a .jsonl file.")
    contents = read_contents(path)
    notes = [*contents.notes, *(note for note in _kept_notes(contents.info.data) if note not in contents.notes)]
    published = read_published_scores(path)
    return Imported(
        contents.info, contents.records, RUN, notes, published, contents.scores, contents.judgements, contents.judges,
        contents.audits,
    )  # fmt: skip


def _kept_notes(data: Mapping[str, Any]) -> list[str]:
    """What the importer of an imported run had to say."""
    notes = data.get("notes", [])
    return [str(note) for note in notes] if isinstance(notes, list) else []
