"""Write a run as lm-eval writes an evaluation: a folder per arm with `results_<time>.json` and samples per task.

A benchmark of the run is a task; probes without one form the task "lem". A probe is a document, its number the
probe's place in the run. lm-eval has one value of a metric per document, so a line holds the mean over the scored
repeats, and null if none was scored; every repeat's own values, with the reasons of the unscored, stand under "lem",
from which `read_harness` restores them. lm-eval knows no failure: failed answers are left out, and "lem" counts them.
Under "lem" the results of a run with judges also say which metrics are their verdicts, and what stands against them.
Thinking, signals of scorers, and the words of judges are not kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lem import __version__
from lem.errors import DataError
from lem.interop.inspect_values import scorer_name
from lem.interop.judges_kept import Verdict, contaminated_kept, judged_metrics, judges_of_arm
from lem.paths import slug
from lem.records import Key, Record, RunContents, Score, text_sha
from lem.records.cells import arm_names
from lem.records.metrics import Metric, metrics_of
from lem.records.staged import staged_folder

SETTINGS = {
    "max_tokens": "max_gen_toks", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "seed": "seed",
}  # fmt: skip
TASK = "lem"

Values = Mapping[str, Mapping[Key, Score]]


@dataclass(frozen=True)
class _Arm:
    """One arm's answers by probe, the values of all metrics by cell, and which of them are a judge's."""

    contents: RunContents
    name: str
    answers: dict[str, list[Record]]
    values: Values
    judged: dict[str, Verdict | None]
    n_failed: int


def write_harness(contents: RunContents, output: Path) -> list[Path]:
    """Write a folder per arm into a new folder, and return their paths.

    Raises: UserError if `output` is occupied; DataError for a run without answers.
    """
    info = contents.info
    metrics = metrics_of(contents)
    values = _values(metrics)
    judged = {scorer_name(name): verdict for name, verdict in judged_metrics(contents, metrics).items()}
    stamp = datetime.now(UTC).replace(tzinfo=None)
    paths = []
    if not any(record.response is not None for record in contents.records):
        raise DataError(f"the run {info.run_id} holds no answers; there is nothing to export.")
    with staged_folder(output) as folder:
        for place, name in enumerate(arm_names(info, contents.records)):
            arm = _arm(contents, name, values, judged)
            if arm.answers:
                path = folder / f"{place}-{slug(name)}"
                path.mkdir()
                _write_arm(arm, path, stamp)
                paths.append(output / path.name)
    return paths


def _values(metrics: Iterable[Metric]) -> Values:
    """Every metric's scores by cell: the scorers', and the dimensions of the judges."""
    return {
        scorer_name(metric.name): {cell.key: cell.score for cell in metric.cells if cell.score is not None}
        for metric in metrics
    }


def _arm(contents: RunContents, name: str, values: Values, judged: dict[str, Verdict | None]) -> _Arm:
    records = [record for record in contents.records if record.arm == name]
    answers: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.repeat):
        if record.response is not None and not record.failed:
            answers.setdefault(record.probe_id, []).append(record)
    return _Arm(contents, name, answers, values, judged, sum(record.failed for record in records))


def _write_arm(arm: _Arm, folder: Path, stamp: datetime) -> None:
    time = stamp.isoformat().replace(":", "-")
    tasks: dict[str, list[dict[str, Any]]] = {}
    for number, probe in enumerate(arm.contents.info.probes):
        if probe["id"] in arm.answers:
            row = _row(arm, number, probe)
            tasks.setdefault(_task(probe), []).append(row)
    for task, rows in tasks.items():
        lines = "".join(_dump(row) + "\n" for row in rows)
        (folder / f"samples_{task}_{time}.jsonl").write_text(lines, encoding="utf-8")
    results = _results(arm, tasks, stamp)
    text = json.dumps(results, indent=2, ensure_ascii=True, allow_nan=False)
    (folder / f"results_{time}.json").write_text(text + "\n", encoding="utf-8")


def _task(probe: Mapping[str, str]) -> str:
    return re.sub(r"[^\w-]+", "-", probe.get("benchmark") or TASK) or TASK


def _dump(row: dict[str, Any]) -> str:
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return json.dumps(row, allow_nan=False) if any("\ud800" <= letter <= "\udfff" for letter in line) else line


def _row(arm: _Arm, number: int, probe: Mapping[str, str]) -> dict[str, Any]:
    records = arm.answers[probe["id"]]
    doc = {name: probe.get(name, "") for name in ("id", "domain", "prompt")}
    context = _context(records[0], probe)
    metrics = {name: _mean(arm, name, records) for name in arm.values if _applies(arm, name, records)}
    row = {
        "doc_id": number,
        "doc": doc,
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": context, "arg_1": _settings(arm.contents)}},
        "resps": [[record.response for record in records]],
        "filtered_resps": [records[0].response],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": text_sha(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": text_sha(context),
        "target_hash": text_sha(""),
        "lem": {
            "probe_id": probe["id"],
            "benchmark": probe.get("benchmark", ""),
            "repeats": [_repeat(arm, record) for record in records],
        },
    }
    clash = row.keys() & metrics.keys()
    if clash:
        raise DataError(f"a metric is named '{min(clash)}', which is a field of lm-eval's samples; rename it.")
    return {**row, **metrics}


def _context(record: Record, probe: Mapping[str, str]) -> str:
    """What was sent: a single turn as its text, a chat as JSON, as lm-eval writes them."""
    if not record.messages:
        return probe.get("prompt", "")
    if len(record.messages) == 1 and record.messages[0]["role"] == "user":
        return record.messages[0]["content"]
    return json.dumps(list(record.messages), ensure_ascii=False)


def _settings(contents: RunContents) -> dict[str, Any]:
    settings = contents.info.settings
    found = {theirs: settings[ours] for ours, theirs in SETTINGS.items() if settings.get(ours) is not None}
    return {"until": [], **found, "do_sample": bool(settings.get("temperature"))}


def _applies(arm: _Arm, name: str, records: Sequence[Record]) -> bool:
    return any(record.key in arm.values[name] for record in records)


def _mean(arm: _Arm, name: str, records: Sequence[Record]) -> float | None:
    found = [_value(arm.values[name].get(record.key)) for record in records]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def _value(score: Score | None) -> float | None:
    if score is None or score.unscored is not None or score.value is None or math.isnan(score.value):
        return None
    return score.value


def _repeat(arm: _Arm, record: Record) -> dict[str, Any]:
    scores = {name: found[record.key] for name, found in arm.values.items() if record.key in found}
    reasons = {name: score.unscored for name, score in scores.items() if score.unscored is not None}
    return {
        "repeat": record.repeat,
        "finish_reason": record.finish_reason,
        "scores": {name: _value(score) for name, score in scores.items()},
        "unscored": reasons,
    }


def _results(arm: _Arm, tasks: Mapping[str, list[dict[str, Any]]], stamp: datetime) -> dict[str, Any]:
    info = arm.contents.info
    facts = info.arms.get(arm.name, {})
    planned = [_task(probe) for probe in info.probes]
    model = str(facts.get("model") or "unknown")
    config = {"output_type": "generate_until", "repeats": max(len(records) for records in arm.answers.values())}
    run = {"model": "lem", "model_args": {"model": model}, "gen_kwargs": _settings(arm.contents), "limit": None}
    return {
        "results": {task: _summary(arm, task, rows) for task, rows in tasks.items()},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {task: {"task": task, **config} for task in tasks},
        "versions": dict.fromkeys(tasks, 1),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: dict.fromkeys(arm.values) for task in tasks},
        "n-samples": {task: {"original": planned.count(task), "effective": len(rows)} for task, rows in tasks.items()},
        "config": run,
        "date": stamp.replace(tzinfo=UTC).timestamp(),
        "model_source": "lem",
        "model_name": model,
        "model_name_sanitized": slug(model),
        "task_hashes": {
            task: text_sha("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows))
            for task, rows in tasks.items()
        },
        "lem": {
            "version": __version__,
            "run": info.run_id,
            "arm": arm.name,
            "facts": facts,
            "n_failed": arm.n_failed,
            "versions": {name: next(iter(scores.values())).version for name, scores in arm.values.items() if scores},
            **judges_of_arm(arm.contents, arm.name),
            **contaminated_kept(arm.contents),
            **({"judged": {name: one and asdict(one) for name, one in arm.judged.items()}} if arm.judged else {}),
        },
    }


def _summary(arm: _Arm, task: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """lm-eval's table of a task: the mean over documents and its standard error ("N/A" below two documents)."""
    found: dict[str, Any] = {"alias": task, "sample_len": len(rows)}
    for name in arm.values:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            centre = sum(values) / len(values)
            variance = sum((value - centre) ** 2 for value in values) / max(len(values) - 1, 1)
            found[f"{name},none"] = centre
            found[f"{name}_stderr,none"] = math.sqrt(variance / len(values)) if len(values) > 1 else "N/A"
    return found
