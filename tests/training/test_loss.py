"""The loss and its gradients against float64 longhand, mlx's own cross-entropy and autograd through full logits."""

from __future__ import annotations

from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from longhand import (
    adapted,
    as_numpy,
    assert_same_gradients,
    cross_entropy64,
    full_logit_gradient,
    n_counted,
    random_rows,
    row_loss,
    softmax64,
    total_loss,
)

from lem.training import loss as module
from lem.training.batches import Batch, make_batch
from lem.training.dataset import TrainingRow
from lem.training.head import Head, split_head
from lem.training.loss import batch_loss, evaluate_loss, evaluate_sum, head_loss, objective, row_losses
from lem.training.settings import TrainingSettings
from lem.training.step import gradient

HIDDEN, VOCABULARY = 32, 97
BLOCKS = (1, 3, 16, 1000)  # tokens of the vocabulary in a block
MODELS = (
    "gemma3_text", "gemma3-tied", "gemma3", "gemma2", "llama", "llama-tied", "llama-bias", "mistral", "qwen2", "qwen3",
    "phi", "cohere", "mixtral", "gpt2",
)  # fmt: skip
QUANTIZED = [
    ("llama", {"group_size": 32, "bits": 4}), ("llama-tied", {"group_size": 32, "bits": 4}),
    ("llama", {"group_size": 32, "bits": 8}), ("gemma3-tied", {"group_size": 32, "bits": 8}),
    ("gemma2", {"group_size": 32, "bits": 4}), ("llama-tied", {"group_size": 32, "bits": 4, "mode": "mxfp4"}),
    ("phi", {"group_size": 32, "bits": 4}),
]  # fmt: skip


def blocks_of(monkeypatch: pytest.MonkeyPatch, tokens: int, positions: int) -> None:
    """Let a block hold so many tokens of the vocabulary for so many positions."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * tokens * positions)


def small_head(*, tied: bool, soft_cap: float | None, bits: int | None = None, scale: float = 1.0) -> Head:
    mx.random.seed(5)
    weight: Any = nn.Embedding(VOCABULARY, HIDDEN) if tied else nn.Linear(HIDDEN, VOCABULARY, bias=not bits)
    weight.weight = mx.random.normal((VOCABULARY, HIDDEN)) * scale
    if bits:
        weight = weight.to_quantized(group_size=32, bits=bits)
    weight.freeze()
    return Head(lambda tokens, cache: tokens, weight, tied, soft_cap)


def logits64(head: Head, hidden: np.ndarray) -> np.ndarray:
    """The head longhand: its weight taken out and multiplied in float64."""
    weight = head.weight.weight
    if "scales" in head.weight:
        weight = mx.dequantize(
            weight, head.weight.scales, head.weight.biases, group_size=head.weight.group_size, bits=head.weight.bits
        )
    raw = hidden @ np.array(weight).astype(np.float64).T
    if "bias" in head.weight:
        raw = raw + np.array(head.weight.bias).astype(np.float64)
    return raw if head.soft_cap is None else head.soft_cap * np.tanh(raw / head.soft_cap)


def example(n: int = 23, scale: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(n)
    hidden = (scale * generator.normal(size=(n, HIDDEN))).astype(np.float32)
    return hidden, generator.integers(0, VOCABULARY, n).astype(np.int32)


def slopes(head: Head, hidden: np.ndarray, targets: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central finite differences of the longhand loss, in float64."""
    found = np.zeros_like(hidden)
    for column in range(hidden.shape[1]):
        moved = np.zeros(hidden.shape[1])
        moved[column] = step
        above = cross_entropy64(logits64(head, hidden + moved), targets)
        below = cross_entropy64(logits64(head, hidden - moved), targets)
        found[:, column] = (above - below) / (2 * step)
    return found


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("tied", [True, False])
def test_loss_and_gradient_of_the_head_are_the_float64_ones(
    monkeypatch: pytest.MonkeyPatch, block: int, soft_cap: float | None, bits: int | None, tied: bool
) -> None:
    blocks_of(monkeypatch, block, 23)
    head = small_head(tied=tied, soft_cap=soft_cap, bits=bits)
    hidden, targets = example()
    loss, gradient = mx.value_and_grad(lambda h: head_loss(head, h, targets))(mx.array(hidden))
    wide = hidden.astype(np.float64)
    assert loss.item() == pytest.approx(cross_entropy64(logits64(head, wide), targets).sum(), rel=1e-5)
    mlx_own = nn.losses.cross_entropy(head.logits(mx.array(hidden)), mx.array(targets), reduction="sum")
    assert loss.item() == pytest.approx(mlx_own.item(), rel=1e-5)
    wanted = slopes(head, wide, targets)
    assert np.abs(np.array(gradient) - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("soft_cap", [None, 3.0])
def test_the_gradient_is_scaled_by_what_comes_after(soft_cap: float | None) -> None:
    head = small_head(tied=True, soft_cap=soft_cap)
    hidden, targets = example()
    plain = mx.grad(lambda h: head_loss(head, h, targets))(mx.array(hidden))
    scaled = mx.grad(lambda h: mx.square(head_loss(head, h, targets)) * 0.25)(mx.array(hidden))
    total = head_loss(head, mx.array(hidden), targets).item()
    np.testing.assert_allclose(np.array(scaled), np.array(plain) * 0.5 * total, rtol=1e-5, atol=1e-6)


def test_one_position_is_enough() -> None:
    head = small_head(tied=False, soft_cap=None)
    hidden, targets = example(1)
    loss, gradient = mx.value_and_grad(lambda h: head_loss(head, h, targets))(mx.array(hidden))
    assert loss.item() == pytest.approx(
        cross_entropy64(logits64(head, hidden.astype(np.float64)), targets)[0], rel=1e-5
    )
    assert gradient.shape == (1, HIDDEN)


def given_logits(rows: list[list[float]], soft_cap: float | None = None) -> tuple[Head, mx.array]:
    """A head whose logits are the given ones: the identity applied to them."""
    linear = nn.Linear(len(rows[0]), len(rows[0]), bias=False)
    linear.weight = mx.eye(len(rows[0]))
    linear.freeze()
    return Head(lambda tokens, cache: tokens, linear, False, soft_cap), mx.array(rows)


EXTREME = {
    "right by far": ([1e4, -1e4, 0.0, 3.0], 0),
    "wrong by far": ([1e4, -1e4, 0.0, 3.0], 1),
    "large and close": ([1e4, 1e4 - 0.5, 1e4 - 1.0, -1e4], 1),
    "small and close": ([-1e4, -1e4 - 0.5, -1e4 - 1.0, -1e4], 2),
    "all the same": ([7.0, 7.0, 7.0, 7.0], 3),
    "all zero": ([0.0, 0.0, 0.0, 0.0], 0),
    "forbidden others": ([-3e38, 2.0, -3e38, 1.0], 3),
    "tie at the top": ([50.0, 50.0, -50.0, -50.0], 1),
    "almost certain": ([14.0, 0.0, 0.0, 0.0], 0),
}


@pytest.mark.parametrize("case", EXTREME)
def test_extreme_logits_lose_nothing(case: str) -> None:
    logits, target = EXTREME[case]
    head, hidden = given_logits([logits])
    targets = np.array([target], dtype=np.int32)
    loss, gradient = mx.value_and_grad(lambda h: head_loss(head, h, targets))(hidden)
    wide = np.array(hidden).astype(np.float64)
    wanted = softmax64(wide)
    wanted[0, target] -= 1
    assert loss.item() == pytest.approx(cross_entropy64(wide, targets)[0], rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(np.array(gradient), wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("case", EXTREME)
def test_extreme_logits_lose_nothing_in_validation(case: str) -> None:
    logits, target = EXTREME[case]
    head, hidden = given_logits([logits])
    head = Head(lambda tokens, cache: hidden[None], head.weight, False, None)
    batch = Batch(np.array([[0, target]], dtype=np.int32), np.array([[True]]))
    wanted = cross_entropy64(np.array(hidden).astype(np.float64), np.array([target]))[0]
    assert batch_loss(None, head, batch) == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("raw", [0.0, 2.0, 40.0, -300.0, 1e4])
def test_a_saturated_soft_cap_has_no_slope_and_no_nan(raw: float) -> None:
    head, hidden = given_logits([[raw, 1.0, -1.0]], soft_cap=3.0)
    targets = np.array([0], dtype=np.int32)
    loss, gradient = mx.value_and_grad(lambda h: head_loss(head, h, targets))(hidden)
    wide = np.array(hidden).astype(np.float64)
    capped = 3 * np.tanh(wide / 3)
    wanted = softmax64(capped)
    wanted[0, 0] -= 1
    assert loss.item() == pytest.approx(cross_entropy64(capped, targets)[0], rel=1e-5)
    np.testing.assert_allclose(np.array(gradient), wanted * (1 - (capped / 3) ** 2), rtol=1e-4, atol=1e-6)


def test_a_logit_that_is_no_number_is_not_hidden() -> None:
    for bad in (float("nan"), float("inf")):
        head, hidden = given_logits([[bad, 1.0, 2.0]])
        assert not np.isfinite(head_loss(head, hidden, np.array([1], dtype=np.int32)).item())


@pytest.mark.parametrize("soft_cap", [None, 30.0])
def test_in_bfloat16_well_predicted_tokens_keep_their_gradient(soft_cap: float | None) -> None:
    """Where a token is almost certain, p - 1 must be formed before it is rounded to 8 bits."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(VOCABULARY, HIDDEN))
    targets = generator.integers(0, VOCABULARY, 64).astype(np.int32)
    embedding = nn.Embedding(VOCABULARY, HIDDEN)
    embedding.weight = mx.array(weight).astype(mx.bfloat16)
    embedding.freeze()
    head = Head(lambda tokens, cache: tokens, embedding, True, soft_cap)
    hidden = mx.array(0.4 * weight[targets] + 0.1 * generator.normal(size=(64, HIDDEN))).astype(mx.bfloat16)
    found = mx.grad(lambda h: head_loss(head, h, targets))(hidden)
    assert found.dtype == mx.bfloat16
    raw = np.array(embedding.as_linear(hidden).astype(mx.float32)).astype(np.float64)  # rounded as the model rounds
    capped = raw if soft_cap is None else soft_cap * np.tanh(raw / soft_cap)
    error = softmax64(capped)
    assert np.median(error[np.arange(64), targets]) > 0.99
    error[np.arange(64), targets] -= 1
    if soft_cap is not None:
        error *= 1 - (capped / soft_cap) ** 2
    wanted = error @ np.array(embedding.weight.astype(mx.float32)).astype(np.float64)
    off = np.linalg.norm(np.array(found.astype(mx.float32)) - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert off.max() < 0.03


def test_in_float16_a_large_batch_does_not_wash_out_small_gradients() -> None:
    """A gradient divided by thousands of tokens before it is rounded would fall below what float16 holds."""
    settings, rows = TrainingSettings(rank=2, scale=2.0), random_rows(3)
    narrow = adapted("llama", settings, dtypes=[mx.float16])
    wide = adapted("llama", settings, dtypes=[mx.float16, mx.float32])
    found, wanted = (
        as_numpy(gradient(m, split_head(m), [make_batch(rows)], 100_000, 1e9, lambda micro: 0).values)
        for m in (narrow, wide)
    )
    for name, value in wanted.items():
        assert np.linalg.norm(found[name] - value) < 0.05 * np.linalg.norm(value), name


class Recording(Head):
    """A head that notes the shapes of the logits it is asked for."""

    shapes: ClassVar[list[tuple[int, ...]]] = []

    def raw_logits(self, hidden: mx.array, block: slice = slice(None)) -> mx.array:
        logits = super().raw_logits(hidden, block)
        self.shapes.append(logits.shape)
        return logits


@pytest.mark.parametrize(("tokens", "most"), [(1, 1), (50, 50), (10**6, 259)])
def test_only_counted_positions_reach_the_head_and_only_a_block_of_tokens_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tokens: int, most: int
) -> None:
    model, rows = adapted("llama"), random_rows(4)
    blocks_of(monkeypatch, tokens, n_counted(rows))
    split = split_head(model)
    assert split is not None
    Recording.shapes.clear()
    mx.eval(objective(model, Recording(split.body, split.weight, False, None), make_batch(rows)))
    assert {shape[0] for shape in Recording.shapes} == {n_counted(rows)}
    assert max(shape[1] for shape in Recording.shapes) <= most
    forward_and_back = sum(shape[1] for shape in Recording.shapes)
    assert forward_and_back == 2 * 259  # a pull-back traces the head a second time, and evaluates none of it


@pytest.mark.parametrize("block", [7, 10**6])
@pytest.mark.parametrize("family", MODELS)
def test_loss_and_every_gradient_of_a_model(monkeypatch: pytest.MonkeyPatch, family: str, block: int) -> None:
    check_model(monkeypatch, adapted(family), block)


@pytest.mark.parametrize(("family", "quantization"), QUANTIZED)
def test_loss_and_every_gradient_of_a_quantised_model(
    monkeypatch: pytest.MonkeyPatch, family: str, quantization: dict[str, Any]
) -> None:
    settings = TrainingSettings(method="qlora", rank=2, scale=2.0)
    check_model(monkeypatch, adapted(family, settings, quantization=quantization), 16)


@pytest.mark.parametrize("method", ["dora", "full"])
@pytest.mark.parametrize("family", ["gemma3-tied", "llama-bias"])
def test_loss_and_every_gradient_of_the_other_methods(
    monkeypatch: pytest.MonkeyPatch, method: str, family: str
) -> None:
    check_model(monkeypatch, adapted(family, TrainingSettings(method=method, rank=2, scale=2.0)), 16)


def check_model(monkeypatch: pytest.MonkeyPatch, model: Any, block: int) -> None:
    rows = random_rows(5, seed=3)
    blocks_of(monkeypatch, block, n_counted(rows))
    head, n_tokens = split_head(model), n_counted(rows)
    assert (head is None) == (model.model_type in ("cohere", "gpt2"))
    loss, values = nn.value_and_grad(model, objective)(model, head, make_batch(rows))
    wanted = total_loss(model, rows)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    assert batch_loss(model, head, make_batch(rows)) == pytest.approx(wanted, rel=1e-5)
    found = {name: value / n_tokens for name, value in as_numpy(values).items()}
    assert_same_gradients(found, full_logit_gradient(model, rows), 1e-5)


def test_padding_never_counts() -> None:
    model, rows = adapted("gemma3-tied"), random_rows(3, seed=8)
    head = split_head(model)
    results = []
    for pad_to, filler in ((1, 0), (32, 0), (64, 77)):
        batch = make_batch(rows, pad_to)
        for index, row in enumerate(rows):
            batch.tokens[index, len(row.tokens) :] = filler
        loss, values = nn.value_and_grad(model, objective)(model, head, batch)
        results.append((loss.item(), as_numpy(values)))
    for loss, values in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-6)
        assert_same_gradients(values, results[0][1], 1e-5)


def test_evaluation_is_a_mean_over_tokens_and_not_over_rows() -> None:
    model, rows = adapted("llama"), random_rows(7, seed=2)
    wanted = total_loss(model, rows) / n_counted(rows)
    model.train()
    for batch_size in (1, 2, 7, 100):
        assert evaluate_loss(model, rows, batch_size) == pytest.approx(wanted, rel=1e-5)
        assert evaluate_sum(model, split_head(model), rows, batch_size) == pytest.approx(
            wanted * n_counted(rows), rel=1e-5
        )
    assert model.training
    each = [row_loss(model.eval(), row) / n_counted([row]) for row in rows]
    assert row_losses(model, rows) == pytest.approx(each, rel=1e-5)


def test_evaluation_has_no_dropout() -> None:
    model, rows = adapted("llama", TrainingSettings(rank=2, dropout=0.5)), random_rows(3)
    model.train()
    assert evaluate_loss(model, rows, 2) == evaluate_loss(model, rows, 2)


def test_a_first_token_is_never_counted_even_if_marked() -> None:
    row = TrainingRow((5, 6, 7), (True, True, True))
    model = adapted("llama")
    assert make_batch([row]).n_targets == 2
    assert batch_loss(model, split_head(model), make_batch([row])) == pytest.approx(row_loss(model, row), rel=1e-5)
