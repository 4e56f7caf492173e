"""The loop of a training: steps, reports, validation, checkpoints, and what happens when a number is not finite.

    for every step: gradient -> finite? -> update -> report | validate | score | checkpoint, where due
    not finite:     skip the step -> twice in a row: back to the last checkpoint with half the learning rate -> stop

Batches, dropout and learning rate are functions of the step's number, so a training that is killed at any moment goes
on from its checkpoint and ends in the same bits (same machine, BLAS and thread count).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import mlx.core as mx

from lem.chat.device import free_memory_bytes
from lem.chat.load import ChatModel
from lem.errors import Incomplete, LemError
from lem.training.batches import Schedule
from lem.training.checkpoint import (
    Checkpoint,
    Progress,
    read_checkpoint,
    restore,
    save_checkpoint,
    write_marker,
    write_tensors,
)
from lem.training.head import Head, split_head
from lem.training.interrupt import deferred_interrupt
from lem.training.loss import evaluate_sum
from lem.training.memory import refuse_too_large
from lem.training.methods import flat
from lem.training.metrics import Metric, Metrics
from lem.training.packing import check_packing
from lem.training.prepare import TrainingData, machine_facts, write_config
from lem.training.schedule import learning_rate, make_optimizer
from lem.training.settings import TrainingSettings
from lem.training.step import all_finite, apply_gradient, broadcast, gradient, step_seed

MAX_ROLLBACKS = 2


@dataclass(frozen=True)
class Hooks:
    """Callbacks: every metrics row as it is written; and, for scoring on the way, iteration -> fields of a row."""

    on_metric: Callable[[Metric], None] = lambda metric: None
    on_evaluate: Callable[[int], Metric] | None = None
    on_resume: Callable[[int], None] = lambda step: None


class Training:
    """The state of one training while it runs."""

    def __init__(
        self, chat: ChatModel, data: TrainingData, schedule: Schedule, output: Path, settings: TrainingSettings,
        identity: dict[str, Any], hooks: Hooks, group: Any,
    ) -> None:  # fmt: skip
        self.chat, self.data, self.schedule, self.output = chat, data, schedule, output
        self.settings, self.identity, self.hooks, self.group = settings, identity, hooks, group
        self.rank: int = 0 if group is None else group.rank()
        self.n_ranks: int = 1 if group is None else group.size()
        self.writes = self.rank == 0
        self.machine = machine_facts(self.n_ranks)
        self.head: Head | None = split_head(chat.model)
        self.optimizer = make_optimizer(settings)
        self.optimizer.init(chat.model.trainable_parameters())
        self.progress = Progress()
        self.metrics: Metrics | None = None
        self.seconds, self.clocked_tokens = 0.0, 0
        self.all_seconds, self.all_tokens = 0.0, 0

    def run(self, before: Checkpoint | None, config_text: str) -> float | None:
        """Go from the last checkpoint, or from the start, to the end; returns reply tokens per second."""
        longest = self.schedule.longest_batch()
        rows, width = longest.tokens.shape
        refuse_too_large(self.chat.model, self.head, self.settings, rows, width, free_memory_bytes())
        if self.settings.pack:
            check_packing(self.chat, self.head, self.data.train.rows)
        if before is None:
            if self.writes:
                write_config(self.output, config_text)
                self.metrics = Metrics(self.output, 0)
            if self.group is not None:
                broadcast(self.chat.model, self.optimizer, self.group)
        else:
            self._continue(before)
        try:
            self.chat.model.train()
            if before is None:
                self._look(first=True)
                self._save()
            if not self.progress.finished:
                self._loop()
                self._finish()
        finally:
            self.chat.model.eval()
            if self.metrics is not None:
                self.metrics.close()
        return self.all_tokens / self.all_seconds if self.all_seconds else None

    def _continue(self, before: Checkpoint) -> None:
        """Take up the counters, weights and optimiser state of a checkpoint."""
        if before.machine != self.machine:
            changed = [name for name in self.machine if before.machine.get(name) != self.machine[name]]
            warnings.warn(
                f"{self.output}: {', '.join(changed)} changed since the checkpoint; the result will be as good, but "
                "not the same to the bit.",
                stacklevel=2,
            )
        self.progress = replace(before.progress)
        restore(self.output, self.chat.model, self.optimizer, self.progress)
        if self.group is not None:
            broadcast(self.chat.model, self.optimizer, self.group)
        if self.writes:
            self.metrics = Metrics(self.output, self.progress.metric_rows)
        self.hooks.on_resume(self.progress.step)

    def _loop(self) -> None:
        with deferred_interrupt() as interrupted:
            while self.progress.step < self.settings.iters and not self.progress.stopped_early:
                self._step()
                if self._anywhere(interrupted()) and self.progress.step < self.settings.iters:
                    self._save()
                    raise Incomplete(
                        f"interrupted after iteration {self.progress.step} of {self.settings.iters}; the checkpoint is "
                        f"in {self.output}: run the same command with --resume."
                    )

    def _anywhere(self, flag: bool) -> bool:
        """Whether the flag is set on any rank: all must stop at the same step."""
        if self.group is None:
            return flag
        return bool(mx.distributed.all_sum(mx.array(float(flag)), group=self.group, stream=mx.cpu).item())

    def _step(self) -> None:
        progress, settings = self.progress, self.settings
        step = progress.step + 1
        start = perf_counter()
        n_tokens = self.schedule.n_targets(step)
        found = gradient(
            self.chat.model, self.head, self.schedule.micro_batches(step, self.rank, self.n_ranks), n_tokens,
            settings.grad_clip, lambda micro: step_seed(settings.seed, step, micro, self.rank), self.group,
        )  # fmt: skip
        progress.step = step
        if not found.finite:
            self._skip(found.loss_sum / n_tokens, found.norm)
            return
        rate = learning_rate(settings, step, settings.iters) * progress.rate_factor
        apply_gradient(self.chat.model, self.optimizer, found, rate)
        progress.n_bad_in_row = 0
        progress.loss_sum += found.loss_sum
        progress.n_tokens += n_tokens
        progress.trained_tokens += n_tokens
        self.seconds, self.clocked_tokens = self.seconds + perf_counter() - start, self.clocked_tokens + n_tokens
        if step % settings.report_every == 0 or step == settings.iters:
            self._report_training(found.norm, rate)
        if self._look() and (step % settings.save_every == 0 or step == settings.iters):
            self._save()

    def _report_training(self, norm: float, rate: float) -> None:
        progress = self.progress
        self._write({
            "kind": "train", "iteration": progress.step, "loss": progress.loss_sum / progress.n_tokens,
            "grad_norm": norm, "learning_rate": rate, "n_tokens": progress.n_tokens,
            "trained_tokens": progress.trained_tokens, "tokens_per_s": self.clocked_tokens / self.seconds,
            "peak_memory_gb": mx.get_peak_memory() / 1e9,
        })  # fmt: skip
        progress.loss_sum, progress.n_tokens = 0.0, 0
        self.all_seconds, self.all_tokens = self.all_seconds + self.seconds, self.all_tokens + self.clocked_tokens
        self.seconds, self.clocked_tokens = 0.0, 0

    def _look(self, first: bool = False) -> bool:
        """Validate and score the probes where this step is due; False if it led back to a checkpoint."""
        step, last = self.progress.step, self.progress.step == self.settings.iters
        if self.data.valid is not None and (first or last or step % self.settings.validate_every == 0):
            total = evaluate_sum(self.chat.model, self.head, self.data.valid.rows, self.settings.batch_size, self.group)
            n_tokens = sum(row.n_reply for row in self.data.valid.rows)
            if not math.isfinite(total):
                self._go_back("the validation loss is not finite")
                return False
            self._validated(total / n_tokens, n_tokens)
        every = self.settings.eval_every
        if every and self.hooks.on_evaluate and (first or last or step % every == 0) and self.writes:
            self.chat.model.eval()
            self._write({"kind": "probe", "iteration": step, **self.hooks.on_evaluate(step)})
            self.chat.model.train()
        return True

    def _validated(self, loss: float, n_tokens: int) -> None:
        """Record a validation loss, keep the best weights, and decide on early stopping."""
        progress, patience = self.progress, self.settings.patience
        self._write({"kind": "valid", "iteration": progress.step, "loss": loss, "n_tokens": n_tokens})
        progress.valid_last = loss
        if progress.valid_before is None:
            progress.valid_before = loss
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.n_worse = loss, progress.step, 0
            if patience and self.writes:
                write_tensors(
                    self.output / "best_adapters.safetensors", dict(flat(self.chat.model.trainable_parameters()))
                )
            return
        progress.n_worse += 1
        if patience and progress.n_worse >= patience:
            progress.stopped_early = True
            self._event("stopped-early", f"no better validation loss since iteration {progress.best_step}")

    def _skip(self, loss: float, norm: float) -> None:
        """Leave out a step whose loss or gradient is not finite; the second in a row goes back to the checkpoint."""
        self.progress.n_skipped += 1
        self.progress.n_bad_in_row += 1
        what = "loss" if not math.isfinite(loss) else "gradient"
        self._event("skipped", f"the {what} was not finite (loss {loss:.4g}, gradient norm {norm:.4g})")
        if self.progress.n_bad_in_row > 1:
            self._go_back(f"the {what} was not finite in two steps in a row")

    def _go_back(self, why: str) -> None:
        """Return to the last checkpoint with half the learning rate.   Raises: LemError after too many returns."""
        checkpoint = self._last_checkpoint()
        at, skipped = self.progress.step, self.progress.n_skipped
        if checkpoint is None or checkpoint.progress.n_rolled_back >= MAX_ROLLBACKS:
            raise LemError(
                f"{self.output}: {why} at iteration {at}, also with the learning rate "
                f"{self.settings.learning_rate * self.progress.rate_factor:.3g}; lower --learning-rate or look at the "
                "data. Earlier checkpoints are kept."
            )
        self.progress = replace(
            checkpoint.progress,
            n_rolled_back=checkpoint.progress.n_rolled_back + 1,
            rate_factor=checkpoint.progress.rate_factor / 2,
            n_skipped=skipped,
            n_bad_in_row=0,
        )
        restore(self.output, self.chat.model, self.optimizer, self.progress)
        if self.metrics is not None:
            self.metrics.cut(self.progress.metric_rows)
        self._event("rolled-back", f"{why} at iteration {at}; on from iteration {self.progress.step} at half the rate")
        if self.writes:
            write_marker(self.output, self.progress, self.identity, checkpoint.files, self.machine)

    def _last_checkpoint(self) -> Checkpoint | None:
        return read_checkpoint(self.output)

    def _event(self, event: str, note: str) -> None:
        self._write({"kind": "event", "iteration": self.progress.step, "event": event, "note": note})

    def _write(self, row: Metric) -> None:
        """Append a metrics row; numbers that are not finite are null in the file."""
        if self.metrics is None:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self.metrics.append(clean)
        self.progress.metric_rows = self.metrics.n_rows
        self.hooks.on_metric(clean)

    def _save(self) -> None:
        if not all_finite(self.chat.model):
            self._go_back("the weights were not finite")
            return
        if self.writes:
            save_checkpoint(
                self.output, self.chat.model, self.optimizer, self.progress, self.identity, self.machine
            )  # fmt: skip

    def _finish(self) -> None:
        """Write adapters.safetensors: the last weights, or the best ones where early stopping watched."""
        if self.settings.patience and self.progress.best_loss is not None:
            best = mx.load(str(self.output / "best_adapters.safetensors"))
            assert isinstance(best, dict)
            self.chat.model.load_weights(list(best.items()), strict=False)
        self.progress.finished = True
        if self.writes:
            write_tensors(self.output / "adapters.safetensors", dict(flat(self.chat.model.trainable_parameters())))
            checkpoint = self._last_checkpoint()
            files = checkpoint.files if checkpoint is not None else {}
            write_marker(self.output, self.progress, self.identity, files, self.machine)
