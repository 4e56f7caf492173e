"""A small adapter directory made by hand: metrics of every kind, written out so that a test can say what to expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRAIN_LOSSES = [6.25, 4.5, 3.75, 2.5, 2.0, 1.25, 1.0, 0.75, 0.5, 0.5, 0.375, 0.25]
VALID_LOSSES = {0: 6.5, 40: 3.0, 80: 1.75, 120: 2.0}
PROBES = {40: (8.0, 7.0, 9.5, 2.0, 1.25, 3.0, 60.0, 0.25), 120: (11.0, 9.5, 13.0, 4.0, 3.0, 4.5, 80.0, 0.0)}
EVENTS = [(37, "skipped"), (52, "skipped"), (53, "rolled-back"), (120, "stopped-early")]
RATES = [1e-05 * (12 - index) / 12 for index in range(12)]


def train_rows() -> list[dict[str, Any]]:
    return [
        {"kind": "train", "iteration": 10 * (index + 1), "loss": loss, "grad_norm": 1.5, "learning_rate": RATES[index],
         "n_tokens": 900, "trained_tokens": 900 * (index + 1), "tokens_per_s": 1000.0,
         "peak_memory_gb": 1.0 + 0.125 * min(index, 4)}
        for index, loss in enumerate(TRAIN_LOSSES)
    ]  # fmt: skip


def valid_rows() -> list[dict[str, Any]]:
    return [{"kind": "valid", "iteration": at, "loss": loss, "n_tokens": 500} for at, loss in VALID_LOSSES.items()]


def probe_rows() -> list[dict[str, Any]]:
    names = ("v2", "v2_low", "v2_high", "v3", "v3_low", "v3_high", "words", "degenerate")
    return [
        {"kind": "probe", "iteration": at, "n": 21, "n_unscored": 0, **dict(zip(names, values, strict=True))}
        for at, values in PROBES.items()
    ]


def event_rows() -> list[dict[str, Any]]:
    return [{"kind": "event", "iteration": at, "event": event, "note": "why"} for at, event in EVENTS]


def all_rows() -> list[dict[str, Any]]:
    """In the order in which a trainer would write them."""
    order = {"train": 0, "valid": 1, "probe": 2, "event": 3}
    rows = [*train_rows(), *valid_rows(), *probe_rows(), *event_rows()]
    return sorted(rows, key=lambda row: (row["iteration"], order[row["kind"]]))


def write_training(folder: Path, rows: list[dict[str, Any]] | None = None, *, base_sha: str = "b" * 64) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    chosen = all_rows() if rows is None else rows
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    config = {
        "fine_tune_type": "lora", "model": "models/lem-nano", "base_model_sha": base_sha,
        "data_sha": {"train.jsonl": "df42b8ea" + "0" * 56, "valid.jsonl": "44912cf4" + "0" * 56},
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
