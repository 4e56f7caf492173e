"""Read what lm-eval wrote with `--log_samples` as a run: one arm per model, streamed line by line.

    task/doc_id              probe id; the task is its benchmark
    arguments                the prompt: the question alone where the task's template stands in it, else all that
                             was sent; what was sent is kept as the record's messages
    resps                    the answers, one per repeat; for multiple choice the chosen option
    metrics                  scores; `exact_match` under filter `strict-match` is `exact_match,strict-match`; those
                             that an export of ours says are a judge's become its judgements again

A metric that is no number for one document (a perplexity, a corpus score) is not kept, and a note names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lem.interop.harness_documents import Document, read_document
from lem.interop.harness_files import (
    SampleFile,
    about_task,
    arm_of,
    contaminated_of,
    facts_of,
    judged_of,
    judges_of,
    sample_files,
)
from lem.interop.harness_rows import Mark
from lem.interop.imported import Answer, Imported, Origin, assemble
from lem.interop.judges_kept import Verdict
from lem.interop.lines import Line, LineStream, file_sha
from lem.records import Judgement, Key, Score, text_sha

HARNESS = "lm-eval samples"


@dataclass
class _Reading:
    """What has been read so far; scores wait for their version, which names all tasks that a scorer was used in."""

    notes: list[str]
    answers: list[Answer] = field(default_factory=list)
    messages: list[tuple[dict[str, str], ...]] = field(default_factory=list)
    marks: dict[str, list[tuple[Key, Mark, str, str]]] = field(default_factory=dict)
    judged: dict[tuple[str, str], Verdict | None] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    chosen: int = 0
    torn: bool = False


def read_harness(path: Path) -> Imported:
    """Read samples, results or an output folder of lm-eval, with the metrics as scores.

    Raises: UserError if there is nothing at `path`; DataError, with the line, for anything malformed, for a document
    given twice, for perplexity requests, or if no samples were logged.
    """
    files, notes = sample_files(path)
    reading = _Reading(notes)
    for file in files:
        _read_file(file, reading)
    arms = {arm: facts_of(file for file in files if arm_of(file) == arm) for arm in map(arm_of, files)}
    sources = [{"path": str(file.path), "sha256": file_sha(file.path)} for file in files]
    data = {"benchmarks": list(dict.fromkeys(file.task for file in files)), **contaminated_of(files)}
    origin = Origin(path.stem, HARNESS, sources, arms, _settings(reading, files), data)
    imported = assemble(origin, reading.answers, notes=[*notes, *_notes(reading)], interrupted=reading.torn)
    records = [replace(r, messages=sent) for r, sent in zip(imported.records, reading.messages, strict=True)]
    info = replace(imported.info, groups=_groups(reading.answers))
    scores, judgements = _scores(reading)
    judges, audits = judges_of(files)
    return replace(
        imported, info=info, records=records, scores=scores, judgements=judgements, judges=judges, audits=audits
    )


def _read_file(file: SampleFile, reading: _Reading) -> None:
    arm = arm_of(file)
    reading.judged |= {(arm, scorer): verdict for scorer, verdict in judged_of(file).items()}
    filters: dict[int, list[str]] = {}
    stream = LineStream(file.path, allow_torn=True)
    for line in stream:
        document = read_document(line, file)
        seen = filters.setdefault(document.number, [])
        if document.filtered in seen:
            raise line.error(
                f"document {document.number} stands twice under the filter '{document.filtered}'; keep one of the two."
            )
        if not seen:
            _keep_answers(line, arm, file, document, reading)
        seen.append(document.filtered)
        _keep_marks(arm, file, document, reading)
    if stream.torn:
        reading.torn = True
        reading.notes.append(f"the last line of {file.path} is torn (an interrupted write) and was left out.")


def _keep_answers(line: Line, arm: str, file: SampleFile, document: Document, reading: _Reading) -> None:
    for text in document.texts:
        answer = Answer(
            arm,
            document.probe_id,
            text.response,
            text.error,
            source=str(file.path),
            line=line.number,
            repeat=text.repeat,
            prompt=document.prompt,
            domain=document.domain,
            benchmark=document.benchmark,
            finish_reason=text.finish_reason,
        )
        reading.answers.append(answer)
        reading.messages.append(document.sent)
    reading.chosen += document.chosen
    if reading.settings.setdefault(file.task, document.settings) != document.settings:
        raise line.error("its generation settings are not those of its task's first document; LEM reads one a task.")


def _keep_marks(arm: str, file: SampleFile, document: Document, reading: _Reading) -> None:
    reading.left_out |= document.left_out
    shas = {text.repeat: text_sha(text.response) for text in document.texts if text.response is not None}
    for mark in document.marks:
        if mark.repeat in shas:
            key, version = Key(arm, document.probe_id, mark.repeat), _version(mark.scorer, file)
            reading.marks.setdefault(mark.scorer, []).append((key, mark, shas[mark.repeat], version))


def _settings(reading: _Reading, files: Iterable[SampleFile]) -> dict[str, Any]:
    """Settings that all tasks share; else those of each task; and the number of examples, where there are any."""
    shots = {file.task: about_task(file, "n-shot") for file in files}
    extra = {"num_fewshot": shots} if any(shots.values()) else {}
    first = next(iter(reading.settings.values()), {})
    if all(given == first for given in reading.settings.values()):
        return {**first, **extra}
    return {"by_task": dict(reading.settings), **extra}


def _groups(answers: Iterable[Answer]) -> dict[str, dict[str, Any]]:
    """The planned cells where tasks differ in their repeats; {} where every probe has the same number of them."""
    asked: dict[int, dict[str, None]] = {}
    arms: dict[str, None] = {}
    for answer in answers:
        asked.setdefault(answer.repeat, {})[answer.probe_id] = None
        arms[answer.arm] = None
    if len({len(probes) for probes in asked.values()}) < 2:
        return {}
    return {
        f"{arm}/{repeat}": {"arm": arm, "repeat": repeat, "probes": list(probes)}
        for arm in arms
        for repeat, probes in sorted(asked.items())
    }


def _notes(reading: _Reading) -> Iterator[str]:
    if reading.chosen:
        yield f"{reading.chosen} answers are options chosen by log-likelihood; no text was generated for them."
    if reading.left_out:
        names = ", ".join(sorted(reading.left_out))
        yield f"metrics that are no number for one document were left out: {names}."


def _scores(reading: _Reading) -> tuple[dict[str, list[Score]], list[Judgement]]:
    """Scores by scorer, and judgements; a version names every task of its arm, so that other versions are told apart.

    A mean of several dimensions is left out: it is made of them anew.
    """
    found: dict[str, list[Score]] = {}
    judgements = []
    for scorer, marks in reading.marks.items():
        stamps: dict[str, dict[str, None]] = {}
        for key, _, _, stamp in marks:
            stamps.setdefault(key.arm, {})[stamp] = None
        versions = {arm: " + ".join(names) for arm, names in stamps.items()}
        for key, mark, sha, _ in marks:
            score = Score(*key, scorer, versions[key.arm], mark.value, {}, mark.unscored, sha)
            if (key.arm, scorer) not in reading.judged:
                found.setdefault(scorer, []).append(score)
            elif verdict := reading.judged[key.arm, scorer]:
                judgements.append(_judgement(score, verdict))
    return found, judgements


def _judgement(score: Score, by: Verdict) -> Judgement:
    return Judgement(
        *score.key, by.judge, by.dimension, score.value, unscored=score.unscored, low=by.low, high=by.high,
        version=score.version, record_sha=score.record_sha,
    )  # fmt: skip


def _version(scorer: str, file: SampleFile) -> str:
    ours = file.results.get("lem")
    kept = ours.get("versions") if isinstance(ours, dict) else None
    if isinstance(kept, dict) and scorer in kept:
        return str(kept[scorer])
    stamp = about_task(file, "versions")
    return f"lm-eval {file.task}" if stamp is None else f"lm-eval {file.task} {stamp}"
