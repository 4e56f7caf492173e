"""Read a log of Inspect (`.eval` or `.json`) as a run with one arm, through the library's own reader.

A sample's id becomes the probe id and its epoch, less one, the repeat. The arm is named by the log's metadata or task
arguments (`arm` or `condition`) if they name one, else by the model. A sample that ended in an error, or that has no
output, failed. Tool calls, events, explanations of scores and attachments other than text are not kept.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError
from lem.interop.imported import Answer, Imported, Origin, assemble
from lem.interop.inspect_values import Marks, fill_gaps, marks_of, ours_of
from lem.interop.judges_kept import read_contaminated, read_judges
from lem.interop.lines import file_sha
from lem.interop.optional import load_library
from lem.records import Key, Record, Score

INSPECT = "Inspect log"
FINISH = {"stop": "stop", "tool_calls": "stop", "max_tokens": "length", "model_length": "length"}
# Everything of a generation config that can change an answer; waiting, retrying and caching cannot.
DECODING = (
    "max_tokens", "temperature", "top_p", "top_k", "seed", "stop_seqs", "best_of", "frequency_penalty",
    "presence_penalty", "logit_bias", "num_choices", "effort", "reasoning_effort", "reasoning_mode",
    "reasoning_tokens", "verbosity",
)  # fmt: skip
SKIPPED = {"events", "events_data", "store", "timelines"}


def read_inspect(path: Path) -> Imported:
    """Read one Inspect log with its scores; `info.status` is "incomplete" when the log says so.

    Raises: UserError if the file is missing or inspect-ai is; DataError for a log that is empty, truncated, damaged,
    of a newer version than the installed library reads, or that answers one cell twice.
    """
    log = _read(path)
    arm, version = _arm(log), f"inspect task version {log.eval.task_version}"
    ours = _ours(log)
    answers = [_answer(sample, arm, path, is_ours=bool(ours)) for sample in log.samples]
    domains = {answer.domain for answer in answers}
    data = {"task": log.eval.task, **read_contaminated(path, [ours])}
    origin = Origin(path.stem, INSPECT, _source(path), {arm: _facts(log)}, _settings(log), data)
    notes = _notes(log, path)
    if domains == {""}:
        notes.append("its samples name no domain, so all uncertainty is counted between samples.")
    imported = assemble(origin, answers, notes=notes, interrupted=_is_incomplete(log))
    records = [_with_request(record, sample) for record, sample in zip(imported.records, log.samples, strict=True)]
    marks = [_marks(record, sample, version) for record, sample in zip(records, log.samples, strict=True)]
    benchmarks = {probe["id"]: probe.get("benchmark", "") for probe in imported.info.probes}
    scores = fill_gaps([score for one in marks for score in one.scores], _texts(records), benchmarks)
    judges, audits = read_judges(path, ours, arm)
    return replace(
        imported,
        records=records,
        scores=_by_scorer(scores),
        judgements=[judgement for one in marks for judgement in one.judgements],
        judges=judges,
        audits=audits,
    )


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a log of Inspect, a file ending in .eval or .json.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; an evaluation that crashed may be recovered with `inspect log`.")
    library = load_library("inspect_ai.log", f"{path}: reading a log of Inspect")
    known = library.EvalLog.model_fields["version"].default
    try:
        if path.suffix == ".eval":
            _check_sums(path)
        log = library.read_eval_log(path, resolve_attachments="core", exclude_fields=SKIPPED)
    except Exception as error:  # the library raises whatever its readers of zip, zstd and JSON raise
        raise _unreadable(path, error) from None
    if log.version > known:
        raise DataError(_newer(path, log.version))
    if not log.samples:
        raise DataError(f"{path}: the log ({log.status}) holds no samples; there is nothing to import.")
    return log


def _check_sums(path: Path) -> None:
    """Compare every member with its checksum, which Inspect's own reader does not.   Raises: what zipfile raises."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of its member {damaged} is wrong")


def _unreadable(path: Path, error: Exception) -> DataError:
    text = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
    if text.startswith("Unable to read version"):
        return DataError(_newer(path, text.split()[4]))
    return DataError(f"{path}: not a whole log of Inspect ({text[:120]}); it is truncated, damaged or something else.")


def _newer(path: Path, version: object) -> str:
    return f"{path}: log format {version} is newer than the installed inspect-ai reads; update inspect-ai."


def _source(path: Path) -> list[dict[str, str]]:
    return [{"path": str(path), "sha256": file_sha(path)}]


def _arm(log: Any) -> str:
    for place in (log.metadata or {}, log.eval.task_args or {}):
        for name in ("arm", "condition"):
            if isinstance(place.get(name), str) and place[name].strip():
                return str(place[name])
    return str(log.eval.model)


def _facts(log: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"model": log.eval.model, "task": log.eval.task}
    kept = log.metadata.get("facts") if isinstance(log.metadata, dict) else None
    system = log.plan.config.system_message or log.eval.model_generate_config.system_message
    if system:
        facts["system_message"] = system
    if log.eval.model_args:
        facts["model_args"] = dict(log.eval.model_args)
    return {**facts, **kept} if isinstance(kept, dict) else facts


def _ours(log: Any) -> dict[str, Any]:
    """The metadata of a log that we wrote; {} for others, who may mean anything by the names in it."""
    kept: dict[str, Any] = log.metadata or {}
    return kept if "lem" in log.eval.packages and {"arm", "run", "facts"} <= kept.keys() else {}


def _settings(log: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for config in (log.eval.model_generate_config, log.plan.config):
        given = config.model_dump(exclude_none=True)
        settings |= {name: given[name] for name in DECODING if name in given}
    return settings


def _is_incomplete(log: Any) -> bool:
    return log.status != "success" or (log.results is not None and log.results.total_samples > len(log.samples))


def _notes(log: Any, path: Path) -> list[str]:
    notes = []
    if log.status != "success":
        notes.append(f"the log {path.name} has the status '{log.status}'; samples may be missing.")
    total = log.results.total_samples if log.results else 0
    if total > len(log.samples):
        notes.append(f"the log {path.name} counts {total} samples with repeats and holds {len(log.samples)}.")
    invalid = sum(sample.invalidation is not None for sample in log.samples)
    if invalid:
        notes.append(f"{invalid} samples were invalidated in the log and are unscored.")
    several = sum(len(sample.output.choices) > 1 for sample in log.samples)
    if several:
        notes.append(f"{several} samples hold several choices; the first was taken.")
    return notes


def _answer(sample: Any, arm: str, path: Path, *, is_ours: bool) -> Answer:
    response, error = _outcome(sample)
    named = {name: text for name, text in (sample.metadata or {}).items() if isinstance(text, str)}
    choice = sample.output.choices[0] if sample.output.choices else None
    return Answer(
        arm,
        str(sample.id),
        response,
        error,
        source=str(path),
        repeat=sample.epoch - 1,
        prompt=_text(sample.input),
        domain=named.get("domain") or named.get("category") or "",
        benchmark=named.get("benchmark", ""),
        rephrases=named.get("rephrases", ""),
        ts=str(sample.completed_at or ""),
        thinking=_thinking(choice) if choice and error is None else None,
        finish_reason=_ending(sample.output, is_ours) if choice and error is None else None,
    )


def _ending(output: Any, is_ours: bool) -> str | None:
    kept = ours_of(output.metadata).get("finish_reason") if is_ours else None
    return kept if isinstance(kept, str) else FINISH.get(output.choices[0].stop_reason)


def _outcome(sample: Any) -> tuple[str | None, str | None]:
    if sample.error is not None:
        return None, sample.error.message or "the sample ended in an error"
    completion = sample.output.completion
    if not completion and sample.output.error:
        return None, str(sample.output.error)
    if not sample.output.choices and not completion:
        limit = f" (it reached its {sample.limit.type} limit)" if sample.limit else ""
        return None, f"the log holds no output for this sample{limit}"
    return completion, None


def _thinking(choice: Any) -> str | None:
    if isinstance(choice.message.content, str):
        return None
    parts = [part for part in choice.message.content if part.type == "reasoning"]
    texts = [part.summary or "" if part.redacted else part.reasoning for part in parts]
    return "\n".join(text for text in texts if text) or None


def _text(given: Any) -> str:
    """The prompt that all arms share: a sample's input without system messages, roles named if there are several."""
    if isinstance(given, str):
        return given
    messages = [message for message in given if message.role != "system"]
    if len(messages) == 1:
        return str(messages[0].text)
    return "\n\n".join(f"{message.role}: {message.text}" for message in messages)


def _with_request(record: Record, sample: Any) -> Record:
    messages = list(sample.messages)
    if messages and messages[-1].role == "assistant":
        messages.pop()
    if not messages and not isinstance(sample.input, str):
        messages = list(sample.input)
    sent = tuple({"role": str(message.role), "content": str(message.text)} for message in messages)
    usage = sample.output.usage
    return replace(
        record,
        messages=sent,
        n_prompt_tokens=usage.input_tokens if usage else None,
        n_tokens=usage.output_tokens if usage else None,
    )


def _marks(record: Record, sample: Any, version: str) -> Marks:
    if record.response is None:
        return Marks([], [])
    return marks_of(record.key, record.response, sample.scores or {}, version, sample.invalidation is not None)


def _texts(records: Iterable[Record]) -> dict[Key, str]:
    return {record.key: record.response for record in records if record.response is not None}


def _by_scorer(scores: Iterable[Score]) -> dict[str, list[Score]]:
    found: dict[str, list[Score]] = {}
    for score in scores:
        found.setdefault(score.scorer, []).append(score)
    return found
