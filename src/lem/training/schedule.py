"""Learning rate by step, and the optimiser.

warm-up: step / warm-up steps, then constant | linear to 0 | cosine to 0 over what is left.
"""

from __future__ import annotations

import math

import mlx.optimizers as optim

from lem.training.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, step: int, iters: int) -> float:
    """Learning rate of a step counted from 1; the warm-up ends at the peak, linear and cosine end at 0 after `iters`.

    Source: the shapes of transformers' get_constant/linear/cosine_schedule_with_warmup, whose step counts from 0.
    """
    warm = math.ceil(settings.warmup * iters)
    done = step - 1
    if done < warm:
        return settings.learning_rate * (done + 1) / warm
    share = (done - warm) / max(1, iters - warm)
    if settings.schedule == "linear":
        return settings.learning_rate * (1 - share)
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
    return settings.learning_rate


def make_optimizer(settings: TrainingSettings) -> optim.AdamW:
    """AdamW with betas 0.9 and 0.999 and eps 1e-8; with a weight decay of 0 it is Adam."""
    return optim.AdamW(
        learning_rate=settings.learning_rate, betas=[0.9, 0.999], eps=1e-8, weight_decay=settings.weight_decay,
        bias_correction=settings.bias_correction,
    )  # fmt: skip
