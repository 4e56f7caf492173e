"""The adapter directory of a running training: metrics, checkpoints, the best weights and the final ones.

Only the first process of a data-parallel training writes and reads; what it reads it gives to the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lem.training.checkpoint import (
    FINAL,
    Checkpoint,
    Progress,
    commit,
    load_weights,
    numbered,
    restore,
    save_checkpoint,
    tidy,
    write_weights,
)
from lem.training.metrics import Metric, Metrics
from lem.training.prepare import write_config
from lem.training.ranks import Ranks


class Folder:
    """Puts a training's state on the disk and back; `saved` is the progress at the last checkpoint."""

    def __init__(
        self, output: Path, model: Any, optimizer: Any, identity: Mapping[str, Any], machine: Mapping[str, Any],
        ranks: Ranks, on_metric: Callable[[Metric], None],
    ) -> None:  # fmt: skip
        self.saved = Progress()
        self._output, self._model, self._optimizer = output, model, optimizer
        self._identity, self._machine = identity, machine
        self._ranks, self._on_metric = ranks, on_metric
        self._metrics: Metrics | None = None

    def begin(self, config_text: str) -> None:
        """Start anew, over what a training left that was killed before its first checkpoint."""
        if self._ranks.first:
            tidy(self._output, Progress())
            write_config(self._output, config_text)
            self._metrics = Metrics(self._output, 0)
        self._ranks.share_weights(self._model, self._optimizer)

    def go_to(self, progress: Progress) -> None:
        """Put weights, optimiser state, metrics and files back to what they were at a checkpoint.

        Args:  progress: the counters to go on with, of that checkpoint's step and metrics rows.
        Raises: DataError, before anything is touched, if rows of the metrics are missing.
        """
        self.saved = replace(progress)
        if self._ranks.first:
            if self._metrics is None:
                self._metrics = Metrics(self._output, progress.metric_rows)
            self._metrics.cut(progress.metric_rows)
            restore(self._output, self._model, self._optimizer, progress.step)
            tidy(self._output, progress)
        self._ranks.share_weights(self._model, self._optimizer)

    def write(self, progress: Progress, row: Metric) -> None:
        """Append a metrics row and count it in the progress; numbers that are not finite are null in the file."""
        if self._metrics is not None:
            clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
            self._metrics.append(clean)
            progress.metric_rows = self._metrics.n_rows
            self._on_metric(clean)

    def save(self, progress: Progress) -> None:
        """Make a checkpoint of this progress and the weights as they are.   Raises: UserError if the disk is full."""
        if self._metrics is not None:
            self._metrics.sync()
            save_checkpoint(self._output, self._model, self._optimizer, self._checkpoint(progress))
        self.saved = replace(progress)

    def commit(self, progress: Progress) -> None:
        """Change the counters of the last checkpoint, whose tensors stay."""
        if self._ranks.first:
            commit(self._output, self._checkpoint(progress))
        self.saved = replace(progress)

    def _checkpoint(self, progress: Progress) -> Checkpoint:
        return Checkpoint(progress, self._identity, self._machine)

    def keep_best(self, step: int) -> None:
        """Write the weights as they are as the best so far."""
        if self._ranks.first:
            write_weights(self._output / numbered(step, "best"), self._model)

    def finish(self, progress: Progress) -> None:
        """Write adapters.safetensors, the best weights where there are some, and mark the training as finished."""
        if self._ranks.first:
            if progress.best_step is not None:
                load_weights(self._output / numbered(progress.best_step, "best"), self._model)
            write_weights(self._output / FINAL, self._model)
        self._ranks.share_weights(self._model, self._optimizer)
        progress.finished = True
        self.commit(progress)

    def load_final(self, progress: Progress) -> None:
        """Put the weights of a finished training into the model."""
        if self._ranks.first:
            tidy(self._output, progress)
            load_weights(self._output / FINAL, self._model)
        self._ranks.share_weights(self._model, self._optimizer)

    def close(self) -> None:
        """Close the metrics."""
        if self._metrics is not None:
            self._metrics.close()
