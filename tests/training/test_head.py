"""The split head: proven against the model's own logits, refused where it would be wrong, exact when pulled back."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from longhand import adapted

from lem.training.head import Head, split_head
from tiny import random_model

QUANTIZATIONS = {
    "plain": None,
    "4-bit": {"group_size": 32, "bits": 4},
    "8-bit": {"group_size": 32, "bits": 8},
    "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    "mxfp8": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
    "nvfp4": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
}
TOKENS = mx.array([[3, 1, 4, 1, 5, 9, 2, 6], [200, 100, 7, 7, 7, 7, 258, 0]])


def frozen(family: str, **options: Any) -> Any:
    model, _ = random_model(family, **options)
    model.freeze()
    return model


@pytest.mark.parametrize(
    ("family", "tied", "soft_cap"),
    [
        ("gemma3_text", False, None), ("gemma3-tied", True, None), ("gemma3", True, None), ("gemma2", True, 2.0),
        ("llama", False, None), ("llama-tied", True, None), ("llama-bias", False, None), ("mistral", False, None),
        ("qwen2", True, None), ("qwen3", False, None), ("phi", False, None), ("mixtral", False, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("quantization", ["plain", "4-bit"])
def test_body_and_head_give_the_models_logits(
    family: str, tied: bool, soft_cap: float | None, quantization: str
) -> None:
    model = frozen(family, quantization=QUANTIZATIONS[quantization])
    head = split_head(model)
    assert head is not None
    assert (head.tied, head.soft_cap) == (tied, soft_cap)
    wanted = np.array(model(TOKENS))
    np.testing.assert_allclose(np.array(head.logits(head.body(TOKENS, None))), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["cohere", "gpt2"])
def test_a_head_that_does_more_is_not_split(family: str) -> None:
    assert split_head(frozen(family)) is None


class Suppressing(nn.Module):
    """A model that forbids one token, as some mask their padded vocabulary."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.model, self.lm_head, self.args = inner.model, inner.lm_head, inner.args

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        logits = self.lm_head(self.model(tokens, cache))
        return mx.where(mx.arange(logits.shape[-1]) == 4, -mx.inf, logits)


def test_a_head_that_forbids_tokens_is_not_split() -> None:
    model = Suppressing(frozen("llama"))
    model.freeze()
    assert split_head(model) is None


def test_a_head_that_is_trained_is_split_only_where_no_gradient_is_asked_for() -> None:
    model, _ = random_model("llama")
    model.freeze()
    model.lm_head.unfreeze()
    assert split_head(model) is None
    assert split_head(model, for_gradient=False) is not None


@pytest.mark.parametrize("training", [True, False])
def test_the_proof_sees_no_dropout_and_leaves_the_mode_as_it_was(training: bool) -> None:
    from lem.training.settings import TrainingSettings

    model = adapted("llama", TrainingSettings(rank=2, dropout=0.9))
    model.train(training)
    assert split_head(model) is not None
    assert model.training is training
    assert model.model.layers[0].self_attn.q_proj.training is training


@pytest.mark.parametrize("family", ["llama", "llama-tied"])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_pull_back_is_the_transposed_head(family: str, quantization: str) -> None:
    """The weight is read off the head itself, column by column: what unit vectors give less what nothing gives."""
    head = split_head(frozen(family, quantization=QUANTIZATIONS[quantization]))
    assert head is not None
    columns = np.array(head.raw_logits(mx.eye(32)) - head.raw_logits(mx.zeros((1, 32)))).astype(np.float64)
    vector = np.random.default_rng(0).normal(size=(5, 259))
    found = head.pull_back(mx.array(vector.astype(np.float32)), mx.zeros((5, 32)))
    assert found.dtype == mx.float32
    assert np.linalg.norm(columns) > 1
    np.testing.assert_allclose(np.array(found), vector @ columns.T, rtol=1e-4, atol=1e-4)


def test_a_bias_in_the_head_is_added_and_pulls_nothing_back() -> None:
    linear = nn.Linear(4, 6)
    linear.freeze()
    head = Head(lambda tokens, cache: tokens, linear, False, None)
    hidden, vector = mx.random.normal((3, 4)), mx.random.normal((3, 6))
    weight, bias = np.array(linear.weight), np.array(linear.bias)
    np.testing.assert_allclose(np.array(head.raw_logits(hidden)), np.array(hidden) @ weight.T + bias, atol=1e-5)
    np.testing.assert_allclose(np.array(head.pull_back(vector, hidden)), np.array(vector) @ weight, atol=1e-5)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize("quantization", ["plain", "4-bit"])
def test_a_head_in_half_precision_still_gives_float32(dtype: mx.Dtype, quantization: str) -> None:
    model, _ = random_model("llama-tied")
    model.set_dtype(dtype)
    if QUANTIZATIONS[quantization]:
        nn.quantize(model, **QUANTIZATIONS[quantization])
    model.freeze()
    head = split_head(model)
    assert head is not None
    hidden = head.body(TOKENS, None)[0]
    assert hidden.dtype == dtype
    assert head.logits(hidden).dtype == mx.float32
    assert head.pull_back(mx.ones((8, 259)), hidden).dtype == mx.float32
