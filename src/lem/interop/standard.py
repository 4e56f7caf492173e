"""The published standard benchmarks as one run: items, responses and scores of all models, joined by model and id.

    FOLDER/gsm8k.jsonl truthfulqa.jsonl do_not_answer.jsonl toxigen.jsonl    items (optional: they give the domains)
    FOLDER/results/*.jsonl                                                   responses
    FOLDER/standard_scores.json                                              scores (optional)

Arms are the model labels, probes all items. A judge's ratings become judgements, GSM8K's verdicts scores of the
scorer "gsm8k". What one part has and another lacks is counted in the notes and never filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lem.errors import DataError, UserError
from lem.interop.imported import PUBLISHED, Answer, Imported, Listed, Origin, assemble
from lem.interop.lines import Line, LineStream, file_sha
from lem.interop.published import standard_answer
from lem.interop.standard_scores import BENCHMARKS, GSM8K, HIGH, INVENTED, LOW, Entry, ScoreTable, read_score_table
from lem.records import Judgement, Key, Score, text_sha

FORMAT = "published standard benchmarks"
SCORES_FILE = "standard_scores.json"
RESULTS = "results"
# The published judge was shown no more than this of a response.
SHOWN_CHARACTERS = 1500
NO_NUMBER = "the file gives no number"


def is_standard_folder(path: Path) -> bool:
    """Whether a folder holds published standard benchmarks: a scores file, or results/ named after a benchmark."""
    results = [file for name in BENCHMARKS for file in (path / RESULTS).glob(f"{name}*.jsonl")]
    return (path / SCORES_FILE).is_file() or bool(results)


def read_standard(path: Path) -> Imported:
    """Read a folder of published standard benchmarks, or the scores file in it (which may have another name).

    Raises: UserError if there is nothing at `path`; DataError for whatever is malformed, for an id or a model label
    that differs from another in case only, and for scores without any of the answers they rate.
    """
    folder, scores_file = (path, path / SCORES_FILE) if path.is_dir() else (path.parent, path)
    if not path.is_dir() and not path.is_file():
        raise UserError(f"{path}: no such file; check the path.")
    results = sorted((folder / RESULTS).glob("*.jsonl"))
    if not results:
        raise DataError(
            f"{folder}: it has no {RESULTS}/*.jsonl, so there are no answers that the scores could belong to; put the "
            "published responses there."
        )
    item_files = [folder / f"{name}.jsonl" for name in BENCHMARKS if (folder / f"{name}.jsonl").is_file()]
    listed = [item for file in item_files for item in _items(file)]
    answers = [answer for file in results for answer in _answers(file)]
    table = read_score_table(scores_file) if scores_file.is_file() else None
    _refuse_twins(path, listed, answers, table)
    sources = [*item_files, *results, *([scores_file] if table else [])]
    origin = Origin(
        path.stem if path.is_file() else path.resolve().name,
        FORMAT,
        [{"path": str(file), "sha256": file_sha(file)} for file in sources],
        {answer.arm: {"model": answer.arm} for answer in answers},
        data={"benchmarks": list(dict.fromkeys(answer.benchmark for answer in answers))},
    )
    imported = assemble(origin, answers, listed=listed)
    notes = [] if item_files else ["no item files beside the results: the probes have no domains."]
    if table is None:
        return replace(imported, notes=[*imported.notes, *notes, f"no {SCORES_FILE}: nothing here is scored yet."])
    joined = _join(scores_file, table, imported)
    return replace(
        imported,
        notes=[*imported.notes, *notes, *joined.notes(table)],
        scores={GSM8K: joined.scores} if joined.scores else {},
        judgements=joined.judgements,
    )


def _items(file: Path) -> list[Listed]:
    items = [_item(line) for line in LineStream(file)]
    seen: dict[str, Listed] = {}
    for item in items:
        first = seen.setdefault(item.probe_id, item)
        if first is not item:
            raise DataError(f"{file} lines {first.line} and {item.line}: item '{item.probe_id}' stands there twice.")
    return items


def _item(line: Line) -> Listed:
    benchmark = _benchmark(line)
    if benchmark != line.path.stem:
        raise line.error(f"an item of '{benchmark}' in the file of '{line.path.stem}'; put it into its own file.")
    domain_field = BENCHMARKS[benchmark].domain
    domain = (line.text_or_none(domain_field) or "") if domain_field else ""
    prompt = line.text("question" if "question" in line.row else "prompt")
    return Listed(line.identifier(), prompt, str(line.path), line.number, domain=domain, benchmark=benchmark)


def _answers(file: Path) -> list[Answer]:
    answers = []
    for line in LineStream(file):
        _benchmark(line)
        answers.append(standard_answer(line))
    return answers


def _benchmark(line: Line) -> str:
    name = line.text("benchmark")
    if name not in BENCHMARKS:
        raise line.error(f"unknown benchmark '{name}'; LEM knows {', '.join(BENCHMARKS)}.")
    return name


def _refuse_twins(path: Path, listed: Sequence[Listed], answers: Sequence[Answer], table: ScoreTable | None) -> None:
    entries = table.entries if table else []
    ids = [item.probe_id for item in listed] + [answer.probe_id for answer in answers]
    ids += [entry.probe_id for entry in entries]
    models = [answer.arm for answer in answers] + [entry.model for entry in entries]
    for what, names in (("ids", ids), ("models", models)):
        seen: dict[str, str] = {}
        for name in names:
            first = seen.setdefault(name.casefold(), name)
            if first != name:
                raise DataError(
                    f"{path}: the {what} '{first}' and '{name}' differ only in case, so it is not known whether they "
                    "are one; rename one of them."
                )


@dataclass
class _Joined:
    """Scores and judgements of the answers that are there, and counts of what did not fit."""

    scores: list[Score] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    n_judged: int = 0
    n_invented: int = 0
    n_beyond: int = 0
    n_no_number: int = 0
    stray: list[Entry] = field(default_factory=list)
    n_bare: int = 0

    def notes(self, table: ScoreTable) -> list[str]:
        """What a reader must know, the count of invented ratings always among it."""
        notes = [
            f"{self.n_invented} of {self.n_judged} judged answers have the reasoning '{INVENTED}': the published "
            "scorer had invented their ratings, and they are unscored here."
        ]
        if self.n_beyond:
            notes.append(
                f"{self.n_beyond} of {self.n_judged} judged answers are longer than the {SHOWN_CHARACTERS:,} "
                f"characters that the published scorer showed the judge ({table.judge})."
            )
        if self.n_no_number:
            notes.append(f"{self.n_no_number} scores are missing, null or not a number; they are unscored.")
        if self.stray:
            entry = self.stray[0]
            notes.append(
                f"{len(self.stray)} scores rate answers that are not there (the first: {entry.model}, "
                f"{entry.probe_id}); they were left out."
            )
        if self.n_bare:
            notes.append(f"{self.n_bare} answers have no score; they are unscored.")
        return notes


def _join(path: Path, table: ScoreTable, imported: Imported) -> _Joined:
    responses = {record.key: record.response for record in imported.records if record.response is not None}
    benchmarks = {probe["id"]: probe["benchmark"] for probe in imported.info.probes}
    joined = _Joined()
    rated: set[Key] = set()
    for entry in table.entries:
        known = benchmarks.get(entry.probe_id, entry.benchmark)
        if known != entry.benchmark:
            raise DataError(
                f"{path}: '{entry.probe_id}' is scored as {entry.benchmark} and is an item of {known}; correct one."
            )
        key = Key(entry.model, entry.probe_id, 0)
        response = responses.get(key)
        if response is None:
            joined.stray.append(entry)
            continue
        rated.add(key)
        _add(joined, table.judge, entry, key, response)
    if not rated:
        raise DataError(
            f"{path}: none of the {len(table.entries)} answers that it scores is in {RESULTS}/*.jsonl; put the "
            "responses of the same models there."
        )
    joined.n_bare = len(responses.keys() - rated)
    return joined


def _add(joined: _Joined, judge: str, entry: Entry, key: Key, response: str) -> None:
    sha = text_sha(response)
    if entry.benchmark == GSM8K:
        value = None if entry.correct is None else float(entry.correct)
        joined.n_no_number += value is None
        unscored = NO_NUMBER if value is None else None
        joined.scores.append(Score(*key, GSM8K, PUBLISHED, value, {}, unscored, sha))
        return
    joined.n_judged += 1
    joined.n_invented += entry.invented
    joined.n_beyond += len(response) > SHOWN_CHARACTERS
    for dimension, found in entry.values.items():
        value = None if entry.invented else found
        joined.n_no_number += found is None and not entry.invented
        joined.judgements.append(
            Judgement(
                *key,
                judge,
                dimension,
                value,
                unscored=INVENTED if entry.invented else NO_NUMBER if value is None else None,
                raw=entry.reasoning,
                low=LOW,
                high=HIGH,
                version=PUBLISHED,
                record_sha=sha,
            )
        )
