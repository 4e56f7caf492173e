"""The published formats of LEM, read into runs; `write_ab` (from `published_writer`) is the way back.

A/B results      {"type": "probe", "id", "category", "prompt", "conditions": {name: {"response", "lek_score",
                 "heuristic", "chars", "time_s"}}, "ts"}, one line per probe, then one {"type": "summary", ...};
                 of ours also "source" beside the prompt of a rephrased probe
standard results {"id", "benchmark", "model", "prompt", "response", "elapsed_seconds"}
answers          {"id", "response"} and optionally arm or model, prompt, domain, repeat, error

The published condition "baseline" is our arm "base"; every other name is kept. In all three a failed row has
`"response": null` and an `"error"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.interop.imported import Answer, Imported, Origin, assemble
from lem.interop.lines import Line, LineStream, file_sha
from lem.interop.published_writer import BASE, PUBLISHED_BASE, write_ab

AB = "published A/B results"
STANDARD = "published standard results"
ANSWERS = "answers"

__all__ = ["AB", "ANSWERS", "STANDARD", "read_ab", "read_answers", "read_standard_results", "write_ab"]


def read_ab(path: Path) -> Imported:
    """Read published A/B results; the published v2 scores are kept in `published_scores`.

    A missing summary or a torn last line is an interrupted run: a note and status "incomplete".
    Raises: UserError if the file is missing; DataError with the line for anything malformed, for a probe given
    twice, or for lines after the summary.
    """
    stream = LineStream(path, allow_torn=True)
    summary: Line | None = None
    cells: list[tuple[Answer, float | None]] = []
    for line in stream:
        if summary is not None:
            raise line.error(
                "it follows the summary, so the file holds more than one run; split it into one file each."
            )
        kind = line.text("type")
        if kind not in ("probe", "summary"):
            raise line.error(f"type '{kind}' is neither probe nor summary.")
        if kind == "summary":
            summary = line
        else:
            cells.extend(_conditions(line))
    if not cells:
        raise DataError(f"{path}: it holds a summary and no probe; there is nothing to import.")
    answers = [answer for answer, _ in cells]
    notes = _ab_notes(path, summary, stream.torn, len({answer.probe_id for answer in answers}))
    return assemble(
        Origin(path.stem, AB, _sources(path), _ab_arms(answers, summary), _ab_settings(summary)),
        answers,
        notes=notes,
        interrupted=bool(notes),
        scores={answer.key: score for answer, score in cells if score is not None},
    )


def _conditions(line: Line) -> list[tuple[Answer, float | None]]:
    probe_id, prompt, domain = line.identifier(), line.text_or_none("prompt"), line.text_or_none("category")
    if prompt is None:
        raise line.error("field 'prompt' is missing.")
    conditions = line.row.get("conditions")
    if not isinstance(conditions, dict) or not conditions:
        raise line.error("field 'conditions' is missing or empty; it maps each condition to its response.")
    if PUBLISHED_BASE in conditions and BASE in conditions:
        raise line.error(f"conditions '{PUBLISHED_BASE}' and '{BASE}' are both the base arm; rename one of them.")
    cells = []
    for name, raw in conditions.items():
        if not name.strip():
            raise line.error("a condition has an empty name.")
        cell = line.nested(raw, f"condition '{name}'")
        response, error = cell.outcome()
        arm = BASE if name == PUBLISHED_BASE else name
        answer = Answer(
            arm,
            probe_id,
            response,
            error,
            source=str(line.path),
            line=line.number,
            prompt=prompt,
            domain=domain or "",
            rephrases=line.text_or_none("source") or "",
            ts=line.text_or_none("ts") or "",
            thinking=cell.text_or_none("thinking"),
            finish_reason=cell.text_or_none("finish_reason"),
        )
        cells.append((answer, cell.number_or_none("lek_score")))
    return cells


def _ab_notes(path: Path, summary: Line | None, torn: bool, n_probes: int) -> list[str]:
    notes = []
    if torn:
        notes.append(f"the last line of {path} is torn (an interrupted write) and was left out.")
    if summary is None:
        notes.append(f"{path} has no summary line: its run was interrupted, so probes may be missing.")
        return notes
    total = summary.whole_number("total_probes")
    if total is not None and total != n_probes:
        notes.append(f"{path} announces {total} probes and holds {n_probes}.")
    return notes


def _ab_settings(summary: Line | None) -> dict[str, Any]:
    limit = summary.whole_number("max_tokens") if summary else None
    return {} if limit is None else {"max_tokens": limit}


def _ab_arms(answers: Sequence[Answer], summary: Line | None) -> dict[str, dict[str, Any]]:
    model = summary.text_or_none("model") if summary else None
    models: dict[str, str] = {}
    listed = (summary.row.get("conditions") if summary else None) or []
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("model"), str):
            models[str(entry.get("name"))] = entry["model"]
    names = {answer.arm: PUBLISHED_BASE if answer.arm == BASE else answer.arm for answer in answers}
    return {arm: {"model": models.get(name, model), "published_name": name} for arm, name in names.items()}


def standard_answer(line: Line) -> Answer:
    """One line of published standard results; the arm is the model's label.   Raises: DataError naming the line."""
    response, error = line.outcome()
    return Answer(
        line.text("model"), line.identifier(), response, error, source=str(line.path), line=line.number,
        prompt=line.text("prompt"), benchmark=line.text("benchmark"),
    )  # fmt: skip


def read_standard_results(path: Path) -> Imported:
    """Read published standard-benchmark results: the arm is the model's label, the domain the benchmark.

    Raises: UserError if the file is missing; DataError with the line for anything malformed or given twice.
    """
    found = [standard_answer(line) for line in LineStream(path)]
    answers = [replace(answer, domain=answer.benchmark, benchmark="") for answer in found]
    arms = {answer.arm: {"model": answer.arm} for answer in answers}
    benchmarks = list(dict.fromkeys(answer.domain for answer in answers))
    return assemble(Origin(path.stem, STANDARD, _sources(path), arms, data={"benchmarks": benchmarks}), answers)


def read_answers(path: Path) -> Imported:
    """Read plain answers, one `{"id", "response"}` a line.

    The arm is the field `arm`, else the field `model`, else the file's stem; a label on one line must be on every
    line. `prompt`, `domain`, `repeat` (from 0) and `error` may be given too.
    Raises: UserError if the file is missing; DataError with the line for anything malformed or given twice.
    """
    labels: list[str] | None = None
    first = 0
    answers = []
    models: dict[str, str] = {}
    for line in LineStream(path):
        if labels is None:
            labels, first = _labels(line), line.number
        if _labels(line) != labels:
            raise line.error(
                f"its labels ({', '.join(_labels(line)) or 'none'}) are not those of line {first} "
                f"({', '.join(labels) or 'none'}); give 'arm' or 'model' on every line or on none."
            )
        arm = line.text(labels[0]) if labels else path.stem
        model = line.text("model") if "model" in labels else None
        if model and models.setdefault(arm, model) != model:
            raise line.error(f"arm '{arm}' has the models '{models[arm]}' and '{model}'; an arm has one model.")
        answers.append(_answer(line, arm))
    arms = {answer.arm: {"model": models.get(answer.arm)} for answer in answers}
    return assemble(Origin(path.stem, ANSWERS, _sources(path), arms), answers)


def _labels(line: Line) -> list[str]:
    return [name for name in ("arm", "model") if name in line.row]


def _answer(line: Line, arm: str) -> Answer:
    response, error = line.outcome()
    return Answer(
        arm,
        line.identifier(),
        response,
        error,
        source=str(line.path),
        line=line.number,
        repeat=line.whole_number("repeat") or 0,
        prompt=line.text_or_none("prompt") or "",
        domain=line.text_or_none("domain") or "",
    )


def _sources(path: Path) -> list[dict[str, str]]:
    return [{"path": str(path), "sha256": file_sha(path)}]
