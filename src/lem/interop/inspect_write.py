"""Write a run as logs of Inspect, one per arm, with the same sample ids, so that others can pair them.

    sample id, epoch       probe id, repeat + 1
    input, messages        the probe, and what was sent for it, the answer (with its thinking) last
    metadata               domain, benchmark, and the probe that it rephrases
    scores                 one per scorer and per dimension of a judge; unscored: NaN with the reason
    error                  of a failed answer, which has no scores

What Inspect has no field for (a scorer's version and signals, a judge's scale, what its call took) stands in the
metadata of the score under "lem", an ending that it has no name for in that of the output, what stands against the
judges in the log's under "judges" and "audits", from which `read_inspect` restores it. Probes that were never answered
are in the dataset's sample ids alone, and the log then has the status "cancelled". Half surrogate pairs become
backslash escapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lem import __version__
from lem.errors import DataError
from lem.interop.inspect_values import OURS, SPENT
from lem.interop.judges_kept import contaminated_kept, judges_of_arm
from lem.interop.optional import load_library
from lem.paths import slug
from lem.records import Judgement, Key, Record, RunContents, Score, text_sha
from lem.records.cells import arm_names, planned_keys
from lem.records.run import now
from lem.records.staged import staged_folder

STOP = {"stop": "stop", "length": "max_tokens"}
CONFIG = ("max_tokens", "temperature", "top_p", "top_k", "seed")
ROLES = {"system": "ChatMessageSystem", "user": "ChatMessageUser", "assistant": "ChatMessageAssistant"}

Marked = Mapping[Key, Sequence[tuple[str, Score | Judgement]]]


@cache
def _library() -> SimpleNamespace:
    purpose = "writing logs of Inspect"
    names = ("log", "model", "scorer")
    return SimpleNamespace(**{name: load_library(f"inspect_ai.{name}", purpose) for name in names})


def write_inspect(contents: RunContents, output: Path) -> list[Path]:
    """Write one `.eval` log per arm into a new folder, and return their paths.

    Raises: UserError if `output` is occupied or inspect-ai is not installed; DataError for a run without records.
    """
    arms = arm_names(contents.info, contents.records)
    if not contents.records:
        raise DataError(f"the run {contents.info.run_id} holds no records; there is nothing to export.")
    marked, stamp = _marks(contents), now()
    names = {arm: _file_name(contents, arm, stamp) for arm in arms}
    with staged_folder(output) as folder:
        for arm in arms:
            _library().log.write_eval_log(_log(contents, arm, marked, stamp), folder / names[arm])
    return [output / names[arm] for arm in arms]


def _file_name(contents: RunContents, arm: str, stamp: str) -> str:
    # Inspect takes such a name apart at its underscores: time, task, model, id.
    task, name = (part.replace("_", "-") for part in (_task(contents), slug(arm)))
    return f"{stamp[:19].replace(':', '-')}+00-00_{task}_{name}_{_id(contents, 'task', arm)}.eval"


def _task(contents: RunContents) -> str:
    return f"lem-{slug(contents.info.kind)}"


def _id(contents: RunContents, *parts: str) -> str:
    """An id of the length of Inspect's own, the same for the same run."""
    return text_sha("\0".join((contents.info.run_id, *parts)))[:22]


def _log(contents: RunContents, arm: str, marked: Marked, stamp: str) -> Any:
    info = contents.info
    records = sorted((record for record in contents.records if record.arm == arm), key=lambda record: record.repeat)
    probes = {probe["id"]: probe for probe in info.probes}
    ids = list(dict.fromkeys([*probes, *(record.probe_id for record in records)]))
    samples = [_sample(contents, record, probes, marked.get(record.key, ())) for record in records]
    missing = {key for key in planned_keys(info) if key.arm == arm} - {record.key for record in records}
    stamps = sorted(record.ts for record in records if record.ts)
    return _library().log.EvalLog(
        version=2,
        status="cancelled" if missing else "success",
        eval=_spec(contents, arm, ids, stamp),
        plan=_library().log.EvalPlan(steps=[_library().log.EvalPlanStep(solver="generate")]),
        results=_results(samples, len(samples) + len(missing)),
        stats=_library().log.EvalStats(
            started_at=stamps[0] if stamps else "", completed_at=stamps[-1] if stamps else "",
            model_usage={_model(contents, arm): _usage(records)} if any(r.n_tokens for r in records) else {},
        ),
        samples=samples,
    )  # fmt: skip


def _model(contents: RunContents, arm: str) -> str:
    return str(contents.info.arms.get(arm, {}).get("model") or "unknown")


def _spec(contents: RunContents, arm: str, ids: list[str], stamp: str) -> Any:
    info = contents.info
    facts = info.arms.get(arm, {})
    repeats = 1 + max((record.repeat for record in contents.records), default=0)
    return _library().log.EvalSpec(
        created=info.created or stamp,
        task=_task(contents),
        task_id=_id(contents, "task", arm),
        eval_id=_id(contents, "eval", arm),
        run_id=_id(contents, "run"),
        task_args={"condition": arm},
        model=_model(contents, arm),
        model_generate_config=_library().model.GenerateConfig(
            **{name: info.settings[name] for name in CONFIG if info.settings.get(name) is not None}
        ),
        dataset=_library().log.EvalDataset(name=info.run_id, samples=len(ids), sample_ids=ids, shuffled=False),
        config=_library().log.EvalConfig(epochs=repeats, epochs_reducer=["mean"]),
        packages={"inspect_ai": metadata.version("inspect-ai"), "lem": __version__},
        metadata={
            "arm": arm,
            "condition": arm,
            "run": info.run_id,
            "facts": facts,
            "settings": info.settings,
            **judges_of_arm(contents, arm),
            **contaminated_kept(contents),
        },
    )


def _sample(
    contents: RunContents, record: Record, probes: Mapping[str, dict[str, str]], marks: Sequence[tuple[str, Any]]
) -> Any:
    probe = probes.get(record.probe_id, {})
    sent = _messages(record)
    prompt = probe.get("prompt") or next((m.text for m in reversed(sent) if m.role == "user"), "")
    kept = {"domain": probe.get("domain"), "benchmark": probe.get("benchmark"), "rephrases": probe.get("source")}
    output = _output(record, _model(contents, record.arm))
    failed = record.failed or record.response is None
    error = record.error or "no answer is stored"
    return _library().log.EvalSample(
        id=record.probe_id,
        epoch=record.repeat + 1,
        input=prompt,
        target="",
        messages=[*sent, *(choice.message for choice in output.choices)],
        output=output,
        scores=None if failed else {name: _score(mark) for name, mark in marks},
        metadata={name: text for name, text in kept.items() if text},
        error=_library().log.EvalError(message=error, traceback="", traceback_ansi="") if failed else None,
        completed_at=record.ts or None,
        uuid=_id(contents, *map(str, record.key)),
    )


def _messages(record: Record) -> list[Any]:
    found = []
    for index, message in enumerate(record.messages):
        kind = getattr(_library().model, ROLES.get(message["role"], "ChatMessageUser"))
        found.append(kind(content=message["content"], id=f"m{index}"))
    return found


def _output(record: Record, name: str) -> Any:
    if record.failed or record.response is None:
        return _library().model.ModelOutput(model=name)
    content: Any = record.response
    if record.thinking is not None:
        content = [
            _library().model.ContentReasoning(reasoning=record.thinking),
            _library().model.ContentText(text=record.response),
        ]
    message = _library().model.ChatMessageAssistant(content=content, id="answer", model=name, source="generate")
    reason = STOP.get(record.finish_reason or "", "unknown")
    # "unknown" alone would make an answer in words of measured choices.
    kept = {OURS: {"finish_reason": record.finish_reason}} if record.finish_reason and reason == "unknown" else None
    choice = _library().model.ChatCompletionChoice(message=message, stop_reason=reason)
    usage = _usage([record]) if record.n_tokens is not None else None
    return _library().model.ModelOutput(model=name, choices=[choice], usage=usage, metadata=kept)


def _usage(records: Iterable[Record]) -> Any:
    known = list(records)
    sent, made = sum(r.n_prompt_tokens or 0 for r in known), sum(r.n_tokens or 0 for r in known)
    return _library().model.ModelUsage(input_tokens=sent, output_tokens=made, total_tokens=sent + made)


def _marks(contents: RunContents) -> dict[Key, list[tuple[str, Score | Judgement]]]:
    found: dict[Key, list[tuple[str, Score | Judgement]]] = {}
    for name, scores in contents.scores.items():
        for score in scores:
            found.setdefault(score.key, []).append((name, score))
    for judgement in contents.judgements:
        opponent = f" against {judgement.against}" if judgement.against else ""
        order = f" · {judgement.order}{opponent}" if judgement.order else ""
        name = f"{judgement.dimension} · {judgement.judge}{order}"
        found.setdefault(judgement.key, []).append((name, judgement))
    return found


def _score(mark: Score | Judgement) -> Any:
    if isinstance(mark, Judgement):
        names = ("judge", "model", "dimension", "order", "against", "low", "high", "version", "prompt_sha", "error",
                 "ts")  # fmt: skip
        spent = {name: getattr(mark, name) for name in SPENT}
        kept: dict[str, Any] = {name: getattr(mark, name) for name in names}
        kept |= {name: amount for name, amount in spent.items() if amount is not None}
        explanation = mark.raw or None
    else:
        kept, explanation = {"version": mark.version, "signals": mark.signals}, None
    if mark.unscored is not None or mark.value is None or math.isnan(mark.value):
        reason = mark.unscored or "no value and no reason stored"
        return _library().scorer.Score.unscored(reason=reason, explanation=explanation, metadata={OURS: kept})
    return _library().scorer.Score(value=mark.value, explanation=explanation, metadata={OURS: kept})


def _results(samples: Sequence[Any], planned: int) -> Any:
    names = list(dict.fromkeys(name for sample in samples for name in sample.scores or {}))
    completed = sum(sample.error is None for sample in samples)
    return _library().log.EvalResults(
        total_samples=planned,
        completed_samples=completed,
        scores=[_summary(name, samples) for name in names],
    )


def _summary(name: str, samples: Sequence[Any]) -> Any:
    """Counts over probes, and the mean and its standard error over probes of the means over repeats."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        if sample.scores and name in sample.scores:
            value = float(sample.scores[name].value)
            values.setdefault(str(sample.id), []).extend([] if math.isnan(value) else [value])
    means = [sum(found) / len(found) for found in values.values() if found]
    metrics = {}
    if means:
        metrics["mean"] = _library().log.EvalMetric(name="mean", value=sum(means) / len(means))
    if len(means) > 1:
        centre = sum(means) / len(means)
        variance = sum((mean - centre) ** 2 for mean in means) / (len(means) - 1)
        metrics["stderr"] = _library().log.EvalMetric(name="stderr", value=math.sqrt(variance / len(means)))
    return _library().log.EvalScore(
        name=name, scorer=name, reducer="mean", scored_samples=len(means), unscored_samples=len(values) - len(means),
        metrics=metrics,
    )  # fmt: skip
