"""One optimiser step: any split into micro-batches and ranks is one large batch, clipped, seeded, and downhill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from longhand import (
    Float64,
    adapted,
    as_numpy,
    assert_same_gradients,
    full_logit_gradient,
    n_counted,
    random_rows,
    total_loss,
)
from mlx.utils import tree_flatten

from lem.training.batches import Batch, Schedule, make_batch
from lem.training.dataset import TrainingRow
from lem.training.head import split_head
from lem.training.loss import batch_loss
from lem.training.schedule import make_optimizer
from lem.training.settings import TrainingSettings
from lem.training.step import Gradient, all_finite, apply_gradient, gradient, step_seed

NO_CLIP = 1e9


def of(model: Any, batches: Sequence[Batch], n_tokens: int, clip: float = NO_CLIP, seed: int = 0) -> Gradient:
    return gradient(model, split_head(model), batches, n_tokens, clip, lambda micro: seed + micro)


def assert_equal_but_for_rounding(found: dict[str, Float64], wanted: dict[str, Float64]) -> None:
    """Within float32's rounding: autograd through full logits differs as much between two ways of batching."""
    assert_same_gradients(found, wanted, 5e-6)
    one, other = (np.concatenate([tree[name].ravel() for name in sorted(tree)]) for tree in (found, wanted))
    assert np.linalg.norm(one - other) <= 2e-6 * np.linalg.norm(other)


SPLITS = {
    "halves": [[0, 1, 2, 3], [4, 5, 6, 7]],
    "one by one": [[0], [1], [2], [3], [4], [5], [6], [7]],
    "one and the rest": [[3], [0, 1, 2, 4, 5, 6, 7]],
    "any order": [[7, 0], [6, 1, 5], [2, 4, 3]],
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere"])
def test_accumulation_equals_one_large_batch(family: str, split: str) -> None:
    """Rows differ in their counted tokens, so that a mean of means would be another number."""
    model, rows = adapted(family), random_rows(8, seed=4)
    counts = {n_counted([rows[index] for index in part]) for part in SPLITS[split]}
    assert len(counts) > 1
    whole = of(model, [make_batch(rows)], n_counted(rows))
    parts = [make_batch([rows[index] for index in part]) for part in SPLITS[split]]
    found = of(model, parts, n_counted(rows))
    assert found.loss_sum == pytest.approx(whole.loss_sum, rel=1e-6)
    assert found.norm == pytest.approx(whole.norm, rel=1e-6)
    assert_equal_but_for_rounding(as_numpy(found.values), as_numpy(whole.values))


def test_the_gradient_is_that_of_the_mean_over_tokens() -> None:
    model, rows = adapted("llama"), random_rows(5, seed=4)
    found = of(model, [make_batch(rows[:2]), make_batch(rows[2:])], n_counted(rows))
    assert found.loss_sum == pytest.approx(total_loss(model, rows), rel=1e-5)
    assert_same_gradients(as_numpy(found.values), full_logit_gradient(model, rows), 1e-5)


@pytest.mark.parametrize("n_ranks", [2, 3, 7])
def test_the_ranks_gradients_add_up(n_ranks: int) -> None:
    """Also where a rank has no row; what `all_sum` adds up is taken apart here."""
    model, rows = adapted("llama"), random_rows(5, seed=4)
    schedule = Schedule(rows, 3, 2, seed=1)
    n_tokens = schedule.n_targets(1)
    whole = of(model, schedule.micro_batches(1), n_tokens)
    parts = [of(model, schedule.micro_batches(1, rank, n_ranks), n_tokens) for rank in range(n_ranks)]
    total = {name: sum(as_numpy(part.values)[name] for part in parts) for name in as_numpy(whole.values)}
    assert sum(part.loss_sum for part in parts) == pytest.approx(whole.loss_sum, rel=1e-6)
    assert_equal_but_for_rounding(total, as_numpy(whole.values))


def test_trained_tokens_are_counted_exactly() -> None:
    rows = random_rows(23, seed=5)
    schedule = Schedule(rows, 4, 2, seed=1)
    steps = range(1, schedule.steps_per_epoch + 1)
    assert sum(schedule.n_targets(step) for step in steps) == n_counted(rows)


@pytest.mark.parametrize("clip", [1e-3, 0.3, 1e9])
def test_the_clip_is_by_the_norm_of_everything_together(clip: float) -> None:
    model, rows = adapted("llama"), random_rows(3)
    plain = as_numpy(of(model, [make_batch(rows)], n_counted(rows)).values)
    norm = float(np.sqrt(sum((value**2).sum() for value in plain.values())))
    found = of(model, [make_batch(rows)], n_counted(rows), clip)
    assert found.norm == pytest.approx(norm, rel=1e-5)  # the norm before the clip
    factor = min(1.0, clip / norm)
    for name, value in as_numpy(found.values).items():
        np.testing.assert_allclose(value, plain[name] * factor, rtol=1e-4, atol=1e-9)
    assert norm > 0.3


def test_dropout_follows_the_seed_of_the_micro_batch() -> None:
    model, rows = adapted("llama", TrainingSettings(rank=2, dropout=0.5)), random_rows(3)
    model.train()
    batches = [make_batch(rows[:2]), make_batch(rows[2:])]

    def values(seed: int) -> np.ndarray:
        mx.random.seed(seed + 1000)  # what was drawn before does not matter
        found = as_numpy(of(model, batches, n_counted(rows), seed=seed).values)
        return np.concatenate([value.ravel() for value in found.values()])

    np.testing.assert_array_equal(values(1), values(1))
    assert np.abs(values(1) - values(2)).max() > 1e-4


def test_every_micro_batch_of_every_rank_has_a_seed_of_its_own() -> None:
    seeds = {
        step_seed(seed, step, micro, rank)
        for seed in range(5)
        for step in range(100)
        for micro in range(4)
        for rank in range(4)
    }
    assert len(seeds) == 5 * 100 * 4 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(42, 7) == step_seed(42, 7, 0, 0)


def test_a_gradient_that_is_no_number_is_seen() -> None:
    model, rows = adapted("llama"), random_rows(2)
    assert of(model, [make_batch(rows)], n_counted(rows)).finite
    layer = model.model.layers[1].mlp.up_proj
    layer.lora_b = layer.lora_b + mx.array(float("nan"))
    found = of(model, [make_batch(rows)], n_counted(rows))
    assert not found.finite
    assert not all_finite(model)
    assert Gradient({}, 1.0, 1.0).finite
    for bad in (float("nan"), float("inf")):
        assert not Gradient({}, bad, 1.0).finite
        assert not Gradient({}, 1.0, bad).finite


@pytest.mark.parametrize("dtypes", [(), (mx.bfloat16,)])
@pytest.mark.parametrize("method", ["lora", "dora", "qlora", "full"])
def test_one_step_goes_downhill_and_one_back_uphill(method: str, dtypes: tuple[mx.Dtype, ...]) -> None:
    quantization = {"group_size": 32, "bits": 4} if method == "qlora" else None
    settings = TrainingSettings(method=method, rank=2, scale=2.0)
    losses = []
    for rate in (0.0, 1e-3, -1e-3):
        model = adapted("llama", settings, dtypes=dtypes, quantization=quantization)
        batch, head = make_batch(random_rows(4)), split_head(model)
        optimizer = make_optimizer(settings)
        optimizer.init(model.trainable_parameters())
        apply_gradient(model, optimizer, of(model, [batch], batch.n_targets), rate)
        losses.append(batch_loss(model, head, batch))
    assert losses[1] < losses[0] < losses[2]


def test_a_step_leaves_frozen_weights_alone() -> None:
    model, rows = adapted("llama"), random_rows(2)
    frozen = set(dict(tree_flatten(model.parameters()))) - set(dict(tree_flatten(model.trainable_parameters())))
    before = {name: np.array(value) for name, value in tree_flatten(model.parameters())}
    optimizer = make_optimizer(TrainingSettings(weight_decay=0.5))
    optimizer.init(model.trainable_parameters())
    apply_gradient(model, optimizer, of(model, [make_batch(rows)], n_counted(rows)), 1e-2)
    for name, value in tree_flatten(model.parameters()):
        assert (np.array(value) == before[name]).all() == (name in frozen), name


def test_a_row_whose_prompt_was_cut_to_nothing_still_teaches() -> None:
    row = TrainingRow((5, 6), (False, True))
    model = adapted("llama")
    found = of(model, [make_batch([row])], 1)
    assert_same_gradients(as_numpy(found.values), full_logit_gradient(model, [row]), 1e-5)
