"""Write what was imported as a run directory, so that `lem score`, `compare` and `report` find it like one of ours.

run.json  records.jsonl  scores/  judgements/     as in every run; the importer's notes are `data.notes` of run.json
audits/                                           what the audits of its judges found, as in every run
published_scores.jsonl                            the v2 scores that a published A/B file gave, {arm, probe_id,
                                                  repeat, lek_score}: for comparison with what `lem score` counts
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.interop.imported import Imported
from lem.interop.judges_kept import judge_file_names
from lem.interop.lines import LineStream
from lem.paths import slug
from lem.records import Key, Score
from lem.records.run import now, versions
from lem.records.staged import staged_folder

PUBLISHED_SCORES = "published_scores.jsonl"


def write_run(imported: Imported, output: Path) -> None:
    """Write an import as a new run directory, in one step.

    Raises: UserError if `output` is occupied or cannot be written, DataError for two scorers that would share a file;
    nothing is kept then.
    """
    contents = imported.contents
    info = contents.info
    data = {**info.data, "notes": list(imported.notes)} if imported.notes else info.data
    stamp = now()
    info = replace(info, data=data, created=info.created or stamp, updated=stamp, versions=info.versions or versions())
    with staged_folder(output) as work:
        (work / "run.json").write_text(json.dumps(asdict(info), indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
        _write_rows(work / "records.jsonl", (record.to_row() for record in contents.records))
        for name, scores in _by_file_name(contents.scores).items():
            _write_rows(work / "scores" / f"{name}.jsonl", (score.to_row() for score in scores))
        if imported.published_scores:
            _write_rows(work / PUBLISHED_SCORES, _published_rows(imported.published_scores))
        judges = {slug(judgement.judge) for judgement in contents.judgements}
        for judge in sorted(judges):
            rows = (one.to_row() for one in contents.judgements if slug(one.judge) == judge)
            _write_rows(work / "judgements" / f"{judge}.jsonl", rows)
        _write_entries(work / "judgements", contents.judges)
        _write_entries(work / "audits", contents.audits)


def _write_entries(folder: Path, entries: Mapping[str, dict[str, Any]]) -> None:
    for judge, name in judge_file_names(entries).items():
        folder.mkdir(exist_ok=True)
        text = json.dumps(entries[judge], indent=1, ensure_ascii=True) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def _published_rows(published: Mapping[Key, float]) -> Iterator[dict[str, Any]]:
    for key, value in published.items():
        yield {**key._asdict(), "lek_score": value}


def read_published_scores(run: Path) -> dict[Key, float]:
    """The published v2 scores that an imported run keeps; empty if it keeps none.

    Raises: DataError naming the line that is none.
    """
    file, found = run / PUBLISHED_SCORES, {}
    for line in LineStream(file) if file.is_file() else ():
        repeat, value = line.whole_number("repeat"), line.number_or_none("lek_score")
        if repeat is None or value is None:
            raise line.error("fields 'repeat' and 'lek_score' must be numbers.")
        found[Key(line.text("arm"), line.text("probe_id"), repeat)] = value
    return found


def _by_file_name(scores: Mapping[str, list[Score]]) -> dict[str, list[Score]]:
    """Scores under names that can be files: a reader takes the scorer's name from its file.

    Raises: DataError for two scorers that a file system without capitals would not tell apart.
    """
    found: dict[str, list[Score]] = {}
    owners: dict[str, str] = {}
    for scorer, rows in scores.items():
        name = scorer.replace("/", "-")
        owner = owners.setdefault(name.casefold(), scorer)
        if owner != scorer:
            raise DataError(f"the scorers '{owner}' and '{scorer}' would share one file; rename one of them.")
        found[name] = rows if name == scorer else [replace(row, scorer=name) for row in rows]
    return found


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
