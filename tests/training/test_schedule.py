"""The learning rate against the published formulas, the optimiser against float64 longhand."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from lem.training.schedule import learning_rate, make_optimizer
from lem.training.settings import TrainingSettings
from lem.training.step import Gradient, apply_gradient

PEAK = 3e-4


def published(schedule: str, step: int, warm: int, total: int) -> float:
    """The multipliers of transformers' schedules with warm-up, for a step that counts from 0."""
    if step < warm:
        return step / max(1, warm)
    if schedule == "linear":
        return max(0.0, (total - step) / max(1, total - warm))
    if schedule == "cosine":
        progress = (step - warm) / max(1, total - warm)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))
    return 1.0


def rates(schedule: str, warmup: float, total: int) -> list[float]:
    settings = TrainingSettings(schedule=schedule, warmup=warmup, learning_rate=PEAK)
    return [learning_rate(settings, step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize("total", [1, 2, 7, 100, 760])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.5])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_after_the_warm_up_the_rate_is_the_published_one(schedule: str, warmup: float, total: int) -> None:
    warm = math.ceil(warmup * total)
    found = rates(schedule, warmup, total)
    for step in range(warm, total):
        assert found[step] == pytest.approx(PEAK * published(schedule, step, warm, total), rel=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_warm_up_never_stands_still_and_ends_at_the_peak(schedule: str) -> None:
    """It is the published one a step ahead: no step is spent with a rate of 0."""
    found = rates(schedule, 0.1, 100)
    assert found[:10] == pytest.approx([PEAK * published(schedule, step + 1, 10, 100) for step in range(10)])
    assert found[9] == pytest.approx(PEAK)
    assert max(found) == pytest.approx(PEAK)
    assert found[0] > 0
    after = found[10:]
    assert after == sorted(after, reverse=True)
    assert 0 < found[-1] <= PEAK


def test_a_warm_up_may_take_all_steps() -> None:
    assert rates("cosine", 1.0, 4) == pytest.approx([PEAK / 4, PEAK / 2, PEAK * 3 / 4, PEAK])


class Weights(nn.Module):
    """Two weights and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.a = mx.array([0.5, -1.0, 2.0, 0.0])
        self.b = mx.array([[1.0, -3.0]])


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_update_is_adam_with_decoupled_decay(decay: float, bias_correction: bool) -> None:
    """Kingma and Ba 2015, Loshchilov and Hutter 2019, in float64 over steps whose rate changes."""
    settings = TrainingSettings(weight_decay=decay, bias_correction=bias_correction)
    model, generator = Weights(), np.random.default_rng(0)
    optimizer = make_optimizer(settings)
    optimizer.init(model.trainable_parameters())
    wanted = {"a": np.array(model.a, dtype=np.float64), "b": np.array(model.b, dtype=np.float64)}
    first = {name: np.zeros_like(value) for name, value in wanted.items()}
    second = {name: np.zeros_like(value) for name, value in wanted.items()}
    for step, rate in enumerate((0.01, 0.02, 0.02, 0.005, 0.001), start=1):
        gradients = {name: generator.normal(size=value.shape).astype(np.float32) for name, value in wanted.items()}
        found = Gradient({name: mx.array(value) for name, value in gradients.items()}, 0.0, 1.0)
        apply_gradient(model, optimizer, found, rate)
        for name, value in gradients.items():
            g = value.astype(np.float64)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g * g
            m = first[name] / (1 - 0.9**step) if bias_correction else first[name]
            v = second[name] / (1 - 0.999**step) if bias_correction else second[name]
            wanted[name] = wanted[name] - rate * decay * wanted[name] - rate * m / (np.sqrt(v) + 1e-8)
            np.testing.assert_allclose(np.array(model[name]), wanted[name], rtol=2e-5, atol=1e-7)
    assert int(optimizer.step.item()) == 5


def test_with_bias_correction_the_first_step_has_the_size_of_the_rate() -> None:
    model = Weights()
    optimizer = make_optimizer(TrainingSettings())
    optimizer.init(model.trainable_parameters())
    before = np.array(model.a)
    apply_gradient(model, optimizer, Gradient({"a": mx.array([1e-3, -5.0, 100.0, -1e-6])}, 0.0, 1.0), 0.01)
    np.testing.assert_allclose(np.array(model.a) - before, [-0.01, 0.01, -0.01, 0.01], rtol=0.02)
