"""Distillation: a model answers seed prompts with a kernel in front; the best answers become training data without it.

    prompts x samples --conduct--> records.jsonl --score, judge--> kept.jsonl  rejected.jsonl  data/train.jsonl
                      (resumable)                 (remade each time)                           data/DATA_CARD.md

Answers are generated once and kept; choosing among them is a derived pass, so another threshold costs no generation.
The training rows hold the prompt alone and the answer: the kernel is what the model is to learn, not to be told.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.chat.load import file_sha
from lem.data import Probe
from lem.data.contamination import find_probe_files, read_probe_sources
from lem.errors import UserError
from lem.records import Record, lock_directory, read_run, write_atomic
from lem.runs.conduct import conduct, count_cells
from lem.runs.plan import RunPlan
from lem.scorers.passes import score_run
from lem.training.distil_card import render_card, summarise
from lem.training.distil_filters import Filters, Verdict, build_samples, judge_samples, kernel_passages
from lem.training.distil_prompts import refuse_evaluation_prompts

KIND = "distill"
ARM = "distil"
SCORERS = ("v2", "v3")
DATA_FOLDER = "data"


@dataclass(frozen=True)
class Distillation:
    """What a distillation made: its verdicts in the order of the plan, and the summary that `summary.json` holds."""

    run: Path
    verdicts: tuple[Verdict, ...]
    summary: dict[str, Any]

    @property
    def data(self) -> Path:
        """The folder with `train.jsonl` and the data card, ready for `lem train --data`."""
        return self.run / DATA_FOLDER


def distil(
    plan: RunPlan,
    run: Path,
    filters: Filters,
    seeds: Sequence[Path],
    *,
    on_start: Callable[[int, int], None] = lambda total, missing: None,
    on_record: Callable[[Record], None] = lambda record: None,
    on_load: Callable[[str], None] = lambda what: None,
) -> Distillation:
    """Generate what the run still misses and choose anew.

    Args:  plan: one arm named `ARM` with a kernel; its probes are the seed prompts, its repeats the samples.
           seeds: files or folders of evaluation probes, which neither prompts nor answers may hold.
    Raises: DataError for a prompt that is an evaluation probe, UserError for greedy samples, before anything is made;
            what `conduct` raises.
    """
    check_plan(plan, filters, seeds)
    conduct(plan, run, KIND, on_start=on_start, on_record=on_record, on_load=on_load)
    return choose(plan, run, filters, seeds)


def check_plan(plan: RunPlan, filters: Filters, seeds: Sequence[Path]) -> None:
    """Refuse evaluation probes among the prompts, and settings that cannot choose.   Raises: UserError."""
    if not math.isfinite(filters.threshold):
        raise UserError(f"--threshold must be a number (got {filters.threshold}); give -100 to keep every score.")
    if plan.repeats > 1 and plan.settings.temperature == 0:
        raise UserError(
            f"--samples {plan.repeats} at --temperature 0 would be {plan.repeats} equal answers; use --samples 1 or a "
            "temperature above 0."
        )
    refuse_evaluation_prompts(plan.probes, seeds)


def choose(plan: RunPlan, run: Path, filters: Filters, seeds: Sequence[Path]) -> Distillation:
    """Score the answers of a run, judge them, and replace everything derived from them, each file in one step.

    All prompts of the run count, also those that an earlier command brought. `summary.json` comes last and holds the
    hashes of the files it belongs to.
    """
    with lock_directory(run):
        scores = [score for found in score_run(run, SCORERS).values() for score in found]
        info, records = read_run(run)
        prompts = [Probe.from_entry(entry) for entry in info.probes]
        if set(prompts) - set(plan.probes):
            refuse_evaluation_prompts(prompts, seeds)
        files = find_probe_files(seeds)
        samples = build_samples(
            prompts, int(info.settings["repeats"]), ARM, {record.key: record for record in records}, scores
        )
        (arm,) = plan.arms
        passages = kernel_passages(arm.kernel, plan.signature) if arm.kernel else []
        verdicts = judge_samples(samples, filters, passages, read_probe_sources(files))
        summary = summarise(verdicts, filters, info, count_cells(info, records))
        summary["seeds"] = {"files": [file.name for file in files], "sha": _sha_of(files)}
        _write(run, verdicts, summary)
    return Distillation(run, tuple(verdicts), summary)


def _write(run: Path, verdicts: Sequence[Verdict], summary: dict[str, Any]) -> None:
    kept = [verdict for verdict in verdicts if verdict.reason is None]
    rejected = [verdict for verdict in verdicts if verdict.reason is not None]
    texts = {
        "kept.jsonl": _lines([verdict.to_row() for verdict in kept]),
        "rejected.jsonl": _lines([verdict.to_row() for verdict in rejected]),
        f"{DATA_FOLDER}/train.jsonl": _lines([_chat_row(verdict) for verdict in kept]),
        f"{DATA_FOLDER}/DATA_CARD.md": render_card(summary),
    }
    for name, text in texts.items():
        write_atomic(run / name, text)
    summary["files"] = {name: file_sha(run / name) for name in texts}
    write_atomic(run / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _chat_row(verdict: Verdict) -> dict[str, Any]:
    sample = verdict.sample
    turns = (("user", sample.prompt.prompt), ("assistant", sample.response))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _sha_of(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file_sha(file)}\n".encode())
    return digest.hexdigest()
