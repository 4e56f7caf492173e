"""The loop of a training: steps, reports, validation, checkpoints, and what happens when a number is not finite.

    for every step: gradient -> finite? -> update -> report | validate | score | checkpoint, where due
    not finite:     skip the step -> twice in a row: back to the last checkpoint with half the learning rate -> stop

Batches, dropout and learning rate are functions of the step's number, so a training that is killed at any moment goes
on from its checkpoint and ends in the same bits (same machine, BLAS and thread count).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import mlx.core as mx

from lem.chat.load import ChatModel
from lem.errors import Incomplete, LemError
from lem.training.batches import Schedule
from lem.training.checkpoint import Checkpoint, Progress
from lem.training.folder import Folder
from lem.training.head import Head
from lem.training.interrupt import deferred_interrupt
from lem.training.loss import evaluate_sum
from lem.training.metrics import Metric, Pace
from lem.training.prepare import TrainingData, machine_facts, warn_of_changes
from lem.training.ranks import Ranks
from lem.training.schedule import learning_rate, make_optimizer
from lem.training.settings import TrainingSettings
from lem.training.step import Gradient, all_finite, apply_gradient, gradient, step_seed

MAX_ROLLBACKS = 2


@dataclass(frozen=True)
class Hooks:
    """Callbacks, in the first process only.

    `on_start`: the iterations done before and those in all, once they are known.  `on_resume`: the iteration of the
    checkpoint that a resumed training goes on from.  `on_metric`: every metrics row as it is written.
    `on_evaluate`: iteration -> fields of a "probe" row, every `eval_every` steps, at the start and at the end.
    """

    on_metric: Callable[[Metric], None] = lambda metric: None
    on_evaluate: Callable[[int], Metric] | None = None
    on_resume: Callable[[int], None] = lambda step: None
    on_start: Callable[[int, int], None] = lambda done, iters: None


class NotFinite(Exception):
    """A number that a training cannot go on from; the text says which."""


class Training:
    """The state of one training while it runs; the model's trainable layers are in place."""

    def __init__(
        self, chat: ChatModel, head: Head | None, data: TrainingData, schedule: Schedule, output: Path,
        settings: TrainingSettings, identity: Mapping[str, Any], hooks: Hooks, ranks: Ranks,
    ) -> None:  # fmt: skip
        self.model, self.head, self.data, self.schedule = chat.model, head, data, schedule
        self.output, self.settings, self.hooks, self.ranks = output, settings, hooks, ranks
        self.optimizer = make_optimizer(settings)
        self.optimizer.init(self.model.trainable_parameters())
        self.machine = machine_facts(ranks.size)
        self.folder = Folder(output, self.model, self.optimizer, identity, self.machine, ranks, hooks.on_metric)
        self.progress = Progress()
        self.pace = Pace()

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.progress.step >= self.settings.iters or self.progress.stopped_early

    def run(self, before: Checkpoint | None, config_text: str) -> None:
        """Go from a checkpoint, or from the start, to the end.

        Raises: Incomplete after Ctrl-C, with a checkpoint of that step; LemError if it cannot stay finite.
        """
        with deferred_interrupt(self.ranks.signals) as interrupted:
            try:
                self.model.train()
                if before is None:
                    self._begin(config_text)
                else:
                    self._continue(before)
                while not self.done:
                    if self.ranks.any(interrupted()):
                        self._stop()
                    self._step()
                if not self.progress.finished:
                    self.folder.finish(self.progress)
            finally:
                self.model.eval()
                self.folder.close()

    def _begin(self, config_text: str) -> None:
        """Look at the untrained model and make the checkpoint of step 0."""
        self.folder.begin(config_text)
        self._tell_start()
        try:
            self._look()
            self._save()
        except NotFinite as what:
            raise LemError(f"{self.output}: {what} before the first step; look at the model and the data.") from None

    def _continue(self, before: Checkpoint) -> None:
        """Take up a checkpoint, or the weights of a training that has nothing left to do."""
        self.progress = replace(before.progress)
        if before.progress.finished:
            self.folder.load_final(self.progress)
        else:
            warn_of_changes(self.output, before.machine, self.machine)
            self.folder.go_to(self.progress)
        if self.ranks.first:
            self.hooks.on_resume(self.progress.step)
        self._tell_start()

    def _tell_start(self) -> None:
        if self.ranks.first:
            self.hooks.on_start(self.progress.step, self.settings.iters)

    def _step(self) -> None:
        """One step and whatever is due after it, or the way back to the last checkpoint."""
        try:
            found, rate = self._update(self.progress.step + 1)
            self._report(found.norm, rate)
            self._look()
            if self._due(self.settings.save_every):
                self._save()
        except NotFinite as what:
            self._go_back(str(what))

    def _update(self, step: int) -> tuple[Gradient, float]:
        """Train one step, or skip it; returns its gradient and learning rate."""
        progress, settings, ranks = self.progress, self.settings, self.ranks
        start, n_tokens = perf_counter(), self.schedule.n_targets(step)
        found = gradient(
            self.model, self.head, self.schedule.micro_batches(step, ranks.rank, ranks.size), n_tokens,
            settings.grad_clip, lambda micro: step_seed(settings.seed, step, micro, ranks.rank), ranks.group,
        )  # fmt: skip
        ranks.check()
        rate = learning_rate(settings, step, settings.iters) * progress.rate_factor
        progress.step = step
        if not found.finite:
            self._skip(found, n_tokens)
            return found, rate
        apply_gradient(self.model, self.optimizer, found, rate)
        progress.n_bad_in_row = 0
        progress.loss_sum += found.loss_sum
        progress.n_tokens += n_tokens
        progress.trained_tokens += n_tokens
        self.pace.add(n_tokens, perf_counter() - start)
        return found, rate

    def _skip(self, found: Gradient, n_tokens: int) -> None:
        """Count a step that is left out.   Raises: NotFinite at the second in a row."""
        self.progress.n_skipped += 1
        self.progress.n_bad_in_row += 1
        loss = found.loss_sum / n_tokens
        what = "gradient" if math.isfinite(loss) else "loss"
        self._event("skipped", f"the {what} was not finite (loss {loss:.4g}, gradient norm {found.norm:.4g})")
        if self.progress.n_bad_in_row > 1:
            raise NotFinite(f"the {what} was not finite in two steps in a row")

    def _due(self, every: int) -> bool:
        """Whether something that happens every so many steps does so now; all of it does at the start and the end."""
        return self.progress.step % every == 0 or self.done

    def _report(self, norm: float, rate: float) -> None:
        progress = self.progress
        if not self._due(self.settings.report_every) or not progress.n_tokens:
            return
        self._write({
            "kind": "train", "iteration": progress.step, "loss": progress.loss_sum / progress.n_tokens,
            "grad_norm": norm, "learning_rate": rate, "n_tokens": progress.n_tokens,
            "trained_tokens": progress.trained_tokens, "tokens_per_s": self.pace.lap(),
            "peak_memory_gb": mx.get_peak_memory() / 1e9,
        })  # fmt: skip
        progress.loss_sum, progress.n_tokens = 0.0, 0

    def _look(self) -> None:
        """Validate and score the probes where it is due.   Raises: NotFinite for a validation loss."""
        if self.data.valid is not None and self._due(self.settings.validate_every):
            rows = self.data.valid.rows
            total = evaluate_sum(self.model, self.head, rows, self.settings.batch_size, self.ranks.group)
            self.ranks.check()
            if not math.isfinite(total):
                raise NotFinite("the validation loss was not finite")
            n_tokens = sum(row.n_reply for row in rows)
            self._validated(total / n_tokens, n_tokens)
        if self.settings.eval_every and self._due(self.settings.eval_every):
            self._score()

    def _validated(self, loss: float, n_tokens: int) -> None:
        """Record a validation loss; with patience, keep the best weights and decide whether to stop."""
        progress, patience = self.progress, self.settings.patience
        self._write({"kind": "valid", "iteration": progress.step, "loss": loss, "n_tokens": n_tokens})
        progress.valid_last = loss
        if progress.valid_before is None:
            progress.valid_before = loss
        if not patience:
            return
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.n_worse = loss, progress.step, 0
            self.folder.keep_best(progress.step)
            return
        progress.n_worse += 1
        if progress.n_worse >= patience and not self.done:
            progress.stopped_early = True
            self._event("stopped-early", f"no better validation loss since iteration {progress.best_step}")

    def _score(self) -> None:
        if self.ranks.first and self.hooks.on_evaluate is not None:
            self.model.eval()
            fields = self.hooks.on_evaluate(self.progress.step)
            self.model.train()
            self._write({"kind": "probe", "iteration": self.progress.step, **fields})

    def _save(self) -> None:
        """Make a checkpoint of this step.   Raises: NotFinite for weights that must not be kept."""
        if not all_finite(self.model):
            raise NotFinite("a weight was not finite")
        self.folder.save(self.progress)

    def _go_back(self, why: str) -> None:
        """Return to the last checkpoint with half the learning rate.   Raises: LemError after too many returns."""
        now, saved = self.progress, self.folder.saved
        if saved.n_rolled_back >= MAX_ROLLBACKS:
            rate = learning_rate(self.settings, now.step, self.settings.iters) * now.rate_factor
            raise LemError(
                f"{self.output}: {why} at iteration {now.step}, also at the learning rate {rate:.3g}; lower "
                f"--learning-rate or look at the data, the checkpoint of iteration {saved.step} is kept."
            )
        self.progress = replace(
            saved, n_rolled_back=saved.n_rolled_back + 1, rate_factor=saved.rate_factor / 2, n_skipped=now.n_skipped,
            n_bad_in_row=0,
        )  # fmt: skip
        self.folder.go_to(self.progress)
        self._event("rolled-back", f"{why} at iteration {now.step}; on from iteration {saved.step} at half the rate")
        self.folder.commit(self.progress)

    def _stop(self) -> NoReturn:
        """End after Ctrl-C, with a checkpoint of the last step if it can be one."""
        if self.folder.saved.step != self.progress.step:
            with suppress(NotFinite):
                self._save()
        raise Incomplete(
            f"interrupted after iteration {self.progress.step} of {self.settings.iters}; the checkpoint of iteration "
            f"{self.folder.saved.step} is in {self.output}, go on from it with --resume."
        )

    def _event(self, event: str, note: str) -> None:
        self._write({"kind": "event", "iteration": self.progress.step, "event": event, "note": note})

    def _write(self, row: Metric) -> None:
        self.folder.write(self.progress, row)
