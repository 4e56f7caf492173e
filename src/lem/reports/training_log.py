"""What an adapter directory says about its training: the rows of `metrics.jsonl` in order, and a summary of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError
from lem.paths import display_path, slug
from lem.records import read_jsonl

METRICS_NAME = "metrics.jsonl"
Row = dict[str, Any]


@dataclass(frozen=True)
class TrainingLog:
    """The rows of one training by kind, in order of iteration, and the adapter's configuration.

    Rows that a roll-back or a resume made anew are left out in favour of the newer ones; events are all kept.
    """

    name: str
    config: dict[str, Any]
    train: tuple[Row, ...]
    valid: tuple[Row, ...]
    probes: tuple[Row, ...]
    events: tuple[Row, ...]

    @property
    def sources(self) -> str:
        """What was trained on what, with the first eight hex digits of each data file's hash."""
        files = self.config.get("data_sha")
        named = [f"{file} ({str(sha)[:8]})" for file, sha in files.items()] if isinstance(files, dict) else []
        data = f"data: {', '.join(named)}" if named else "data: not recorded"
        model = self.config.get("model")
        return f"base: {slug(model)}; {data}" if isinstance(model, str) and model else data


@dataclass(frozen=True)
class TrainingSummary:
    """The figures of one training; None where the metrics do not hold them.

    Losses are in nats per reply token, `tokens` counts trained reply tokens, `best_iteration` belongs to `best_valid`.
    """

    iterations: int
    first_valid: float | None
    last_valid: float | None
    best_valid: float | None
    best_iteration: int | None
    tokens: int | None
    peak_memory_gb: float | None
    n_skipped: int
    n_rolled_back: int
    stopped_early: bool


def read_training(adapter_dir: Path) -> TrainingLog:
    """Read `metrics.jsonl` and `adapter_config.json` of an adapter directory; a torn last line is left out.

    Raises: UserError if there are no metrics; DataError naming file and line for a row that is none.
    """
    file = adapter_dir / METRICS_NAME
    if not file.is_file():
        raise UserError(
            f"{display_path(file)}: no such file; name the folder of an adapter trained with `./lem train`."
        )
    rows = read_jsonl(file)[0]
    for number, row in enumerate(rows, start=1):
        iteration = row.get("iteration")
        if not isinstance(row.get("kind"), str) or not isinstance(iteration, int) or isinstance(iteration, bool):
            raise DataError(f"{file} line {number}: needs 'kind' and a whole 'iteration'; restore the file.")
    of_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("train", "valid", "probe", "event")}
    if not of_kind["train"] and not of_kind["valid"]:
        raise UserError(f"{display_path(file)}: holds no loss yet; wait for the first report of the training.")
    return TrainingLog(
        name=adapter_dir.resolve().name,
        config=_read_config(adapter_dir / "adapter_config.json"),
        train=_last_told(of_kind["train"]),
        valid=_last_told(of_kind["valid"]),
        probes=_last_told(of_kind["probe"]),
        events=tuple(of_kind["event"]),
    )


def _last_told(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows of one kind without those that a later row's going back to an earlier iteration made void."""
    kept: list[Row] = []
    for row in rows:
        while kept and kept[-1]["iteration"] >= row["iteration"]:
            kept.pop()
        kept.append(row)
    return tuple(kept)


def _read_config(file: Path) -> dict[str, Any]:
    """The adapter's configuration; empty when there is none, because a curve can be drawn without it."""
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise DataError(f"{file}: not valid JSON; restore the file.") from None
    if not isinstance(config, dict):
        raise DataError(f"{file}: must be one JSON object; restore the file.")
    return config


def value_of(row: Row, name: str) -> float:
    """A figure of a row; NaN when the row does not hold one."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def training_summary(adapter_dir: Path) -> TrainingSummary:
    """First, last and best validation loss, iterations, tokens, memory and troubles of a training.

    Raises: what `read_training` raises.
    """
    return summarise(read_training(adapter_dir))


def summarise(log: TrainingLog) -> TrainingSummary:
    """See `training_summary`; best is the earliest of the lowest."""
    losses = [(value_of(row, "loss"), int(row["iteration"])) for row in log.valid]
    losses = [(loss, iteration) for loss, iteration in losses if math.isfinite(loss)]
    best = min(losses, default=(None, None))
    memory = [gb for row in log.train if math.isfinite(gb := value_of(row, "peak_memory_gb"))]
    events = [row.get("event") for row in log.events]
    return TrainingSummary(
        iterations=max(int(row["iteration"]) for row in (*log.train, *log.valid)),
        first_valid=losses[0][0] if losses else None,
        last_valid=losses[-1][0] if losses else None,
        best_valid=best[0],
        best_iteration=best[1],
        tokens=_tokens(log.train),
        peak_memory_gb=max(memory, default=None),
        n_skipped=events.count("skipped"),
        n_rolled_back=events.count("rolled-back"),
        stopped_early="stopped-early" in events,
    )


def _tokens(rows: Sequence[Row]) -> int | None:
    """Trained reply tokens at the last report."""
    total = value_of(rows[-1], "trained_tokens") if rows else math.nan
    return int(total) if math.isfinite(total) else None
