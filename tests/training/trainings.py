"""Small trainings that are stopped on the way, and what must be equal when they have gone on to their end."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lem.chat.load import load
from lem.records import read_jsonl
from lem.training.metrics import Metric
from lem.training.settings import TrainingSettings
from lem.training.train import Hooks, TrainingReport, train

QUICK = TrainingSettings(
    iters=8, batch_size=2, learning_rate=2e-3, rank=4, save_every=3, report_every=1, validate_every=4
)  # fmt: skip
TIMED = ("tokens_per_s", "peak_memory_gb")


class Killed(BaseException):
    """Stands for a kill: no `except` of the trainer knows it."""


def killed_at(step: int, kind: str = "train") -> Hooks:
    """Hooks that kill the training as soon as the row of this step has been written."""

    def on_metric(row: Metric) -> None:
        if row["kind"] == kind and row["iteration"] == step:
            raise Killed

    return Hooks(on_metric=on_metric)


def go(base: Path, data: Path, output: Path, settings: TrainingSettings = QUICK, **options: Any) -> TrainingReport:
    """Train with a freshly loaded model, as a new process does."""
    return train(load(str(base)), data, output, settings, **options)


def rows(folder: Path, kind: str | None = None) -> list[Metric]:
    """Rows of metrics.jsonl, of one kind if asked for."""
    found, whole = read_jsonl(folder / "metrics.jsonl", allow_torn=False)
    assert whole == (folder / "metrics.jsonl").stat().st_size
    return [row for row in found if kind in (None, row["kind"])]


def figures(report: TrainingReport) -> dict[str, Any]:
    """A report without what may differ: the folder and the speed."""
    left_out = ("adapter_path", "tokens_per_s", "was_finished")
    return {name: value for name, value in asdict(report).items() if name not in left_out}


def outcome(folder: Path) -> dict[str, Any]:
    """What two trainings share that are equal to the bit: tensors, counters, and metrics but for time and memory."""
    marker = json.loads((folder / "checkpoint.json").read_text())
    steps = marker["progress"]["step"]
    names = ["adapters.safetensors", f"{steps:07d}_adapters.safetensors", f"{steps:07d}_optimizer.safetensors"]
    return {
        **{name: (folder / name).read_bytes() for name in names},
        "progress": marker["progress"],
        "metrics": [{k: v for k, v in row.items() if k not in TIMED} for row in rows(folder)],
        "config": json.loads((folder / "adapter_config.json").read_text()),
    }
