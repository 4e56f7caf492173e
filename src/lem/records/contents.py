"""`RunContents`: a run as it stands, read whole; a foreign log takes the same shape without ever being written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lem.errors import DataError
from lem.records.cells import read_scores
from lem.records.model import Judgement, Record, Score
from lem.records.run import RunInfo, read_run
from lem.records.store import read_jsonl


@dataclass(frozen=True)
class RunContents:
    """Manifest, records, scores by scorer, and judgements; `notes` says what a reader of foreign data must know."""

    info: RunInfo
    records: list[Record]
    scores: dict[str, list[Score]] = field(default_factory=dict)
    judgements: list[Judgement] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def read_contents(path: Path) -> RunContents:
    """Read everything of a run directory, changing nothing.

    Scores are read before records: a run that is still growing may then have more records than scores, never fewer.
    Raises: DataError for whatever cannot be read, with its file and line.
    """
    scores, judgements = read_scores(path), read_judgements(path)
    info, records = read_run(path)
    unfinished = f"the run {path.name} is {info.status}; some of its cells may be missing."
    notes = [] if info.status == "done" else [unfinished]
    notes += [str(note) for note in info.data.get("notes", [])]  # what the importer of a foreign log had to say
    return RunContents(info, records, scores, judgements, tuple(notes))


def read_judgements(run: Path) -> list[Judgement]:
    """Read every `judgements/<judge>.jsonl` of a run, files by name; the last line of a judgement's key wins.

    Raises: DataError naming the file and line of a row that is no judgement.
    """
    found: dict[tuple[str, str, int, str, str, str], Judgement] = {}
    for file in sorted((run / "judgements").glob("*.jsonl")):
        for number, row in enumerate(read_jsonl(file)[0], start=1):
            try:
                judgement = Judgement(**row)
            except TypeError as error:
                raise DataError(f"{file} line {number}: not a judgement ({error}); restore it from a copy.") from None
            found[judgement.full_key] = judgement
    return list(found.values())
