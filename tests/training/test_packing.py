"""Packing: rows packed together lose and teach exactly what they do alone, or the model is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from longhand import adapted, as_numpy, assert_same_gradients, chat_of, full_logit_gradient, n_counted, random_rows

from lem.chat.load import load
from lem.errors import UserError
from lem.training.batches import PackedCache, make_batch, make_packed_batch
from lem.training.dataset import TrainingRow
from lem.training.head import split_head
from lem.training.loss import batch_loss, objective, token_losses
from lem.training.memory import gradient_checkpointing
from lem.training.packing import check_packing
from lem.training.settings import TrainingSettings
from tiny import random_model

NANO = Path(__file__).resolve().parents[2] / "models" / "lem-nano"
BINS = [[0, 3], [1, 2, 5], [4]]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}), ("llama-tied", {}), ("gemma3-tied", {"sliding_window": 8}), ("gemma3_text", {}),
        ("llama-window", {}), ("qwen2", {}), ("qwen3", {}), ("phi", {}), ("gemma2", {}), ("cohere", {}),
        ("mixtral", {}), ("llama-tied", {"quantization": {"group_size": 32, "bits": 4}}),
    ],
)  # fmt: skip
def test_packed_rows_lose_and_teach_what_they_do_alone(family: str, changes: dict[str, Any]) -> None:
    bins = BINS[:1] if family == "gemma2" else BINS  # its attention spreads a mask over heads instead of rows
    model = adapted(family, TrainingSettings(rank=2, scale=2.0), **changes)
    rows = random_rows(6, seed=11)
    chosen = [rows[index] for unit in bins for index in unit]
    packed = make_packed_batch([[rows[index] for index in unit] for unit in bins])
    assert packed.n_targets == n_counted(chosen)
    head = split_head(model)
    alone = np.concatenate([token_losses(model, head, make_batch([row])) for row in chosen])
    np.testing.assert_allclose(token_losses(model, head, packed), alone, rtol=1e-4, atol=1e-5)
    loss, values = nn.value_and_grad(model, objective)(model, head, packed)
    assert loss.item() == pytest.approx(alone.sum(), rel=1e-5)
    found = {name: value / n_counted(chosen) for name, value in as_numpy(values).items()}
    assert_same_gradients(found, full_logit_gradient(model, chosen), 1e-4)


def test_packed_rows_teach_the_same_under_gradient_checkpointing() -> None:
    model, rows = adapted("gemma3-tied", sliding_window=8), random_rows(6, seed=11)
    packed = make_packed_batch([[rows[index] for index in unit] for unit in BINS])
    head = split_head(model)
    model.train()
    plain = as_numpy(nn.value_and_grad(model, objective)(model, head, packed)[1])
    with gradient_checkpointing(model, True):
        found = as_numpy(nn.value_and_grad(model, objective)(model, head, packed)[1])
    assert_same_gradients(found, plain, 1e-6)


def test_a_window_smaller_than_a_row_hides_its_beginning() -> None:
    """The test above would not notice if the window did nothing."""
    rows = random_rows(2, seed=11, shortest=30)
    losses = []
    for window in (8, 100):
        model = adapted("gemma3-tied", sliding_window=window)
        losses.append(batch_loss(model, split_head(model), make_packed_batch([rows])))
    assert abs(losses[0] - losses[1]) > 1e-3 * losses[0]


@pytest.mark.parametrize("family", ["llama", "gemma3-tied", "gemma3", "qwen2", "phi", "cohere", "mixtral"])
@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_can_be_packed_passes_and_stays_in_its_mode(family: str, training: bool) -> None:
    model = adapted(family, TrainingSettings(rank=2, dropout=0.5))
    model.train(training)
    check_packing(chat_of(model), split_head(model), random_rows(5))
    assert model.training is training


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_a_trained_model_passes_in_every_precision(dtype: mx.Dtype) -> None:
    chat = load(str(NANO))
    chat.model.set_dtype(dtype)
    check_packing(chat, split_head(chat.model, for_gradient=False), random_rows(5, vocabulary=5000))


@pytest.mark.parametrize("family", ["gpt2", "gemma2-grouped"])
def test_absolute_positions_and_masks_spread_over_heads_are_refused(family: str) -> None:
    model = adapted(family)
    with pytest.raises(UserError, match=r"leave out --pack\.$"):
        check_packing(chat_of(model), split_head(model), random_rows(5))


class OldCache(PackedCache):
    """Gives the mask of an architecture that knows nothing of packing."""

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        return mx.arange(n)[:, None] >= mx.arange(n)


class FaintCache(PackedCache):
    """Lets every token see only the first one of its sequence beside its own row."""

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        mask = super().make_mask(n, return_array, window_size)
        return mask | (mx.arange(n) == 0) if window_size is None else mask


@pytest.mark.parametrize("cache", [OldCache, FaintCache])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_trained_model_whose_rows_see_each_other_is_refused(
    monkeypatch: pytest.MonkeyPatch, dtype: mx.Dtype, cache: type[PackedCache]
) -> None:
    """The sum of the losses hardly moves in a trained model; the check must look at single tokens."""
    chat = load(str(NANO))
    chat.model.set_dtype(dtype)
    head = split_head(chat.model, for_gradient=False)
    monkeypatch.setattr("lem.training.loss.PackedCache", cache)
    text = "Should a harbour pilot tell the captain that the tide table he trusts is a year old? She did, and kindly. "
    rows = []
    for turn in range(4):
        tokens = tuple(chat.tokenizer.encode(text[9 * turn :] + text))
        rows.append(TrainingRow(tokens, tuple(place > 5 for place in range(len(tokens)))))
    with pytest.raises(UserError, match="packed together change each other"):
        check_packing(chat, head, rows)


def test_an_architecture_without_such_a_cache_is_refused() -> None:
    class Recurrent(nn.Module):
        """Reads its cache as a list of states."""

        def __init__(self) -> None:
            super().__init__()
            self.layers: list[Any] = [nn.Linear(2, 2)]

        def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
            state = 0.0 if cache is None else cache[0][0]
            return mx.zeros((*tokens.shape, 300)) + state

    with pytest.raises(UserError, match=r"^tiny: this architecture cannot be packed .*; leave out --pack\.$"):
        check_packing(chat_of(Recurrent()), None, random_rows(3))


def test_one_row_needs_no_proof() -> None:
    model, _ = random_model("gpt2")
    check_packing(chat_of(model), None, random_rows(1))
