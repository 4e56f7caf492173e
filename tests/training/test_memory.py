"""Memory: the estimate against the measured peak, advice that fits, and checkpointing that changes no gradient."""

from __future__ import annotations

import gc
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from longhand import adapted, as_numpy, assert_same_gradients, chat_of, n_counted, random_rows
from mlx.utils import tree_flatten

from lem.chat.load import load
from lem.errors import UserError
from lem.training.batches import Batch, make_batch
from lem.training.head import split_head
from lem.training.memory import estimate, gradient_checkpointing, refuse_too_large
from lem.training.methods import apply_method
from lem.training.schedule import make_optimizer
from lem.training.settings import TrainingSettings
from lem.training.step import apply_gradient, gradient
from lem.training.train import train
from tiny import random_model

WIDER = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
GEMMA = {**WIDER, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 128}
SHAPES: dict[str, tuple[str, int, int, dict[str, Any], dict[str, Any]]] = {
    "many short rows": ("llama", 8, 64, WIDER, {}),
    "one long row": ("llama", 1, 512, WIDER, {}),
    "large vocabulary": ("gemma3-tied", 2, 256, {**GEMMA, "vocab_size": 32768}, {}),
    "full logits": ("cohere", 2, 128, {**WIDER, "vocab_size": 20000}, {}),
    "few layers adapted": ("llama", 4, 128, {**WIDER, "layers": 10}, {"num_layers": 2}),
    "all weights": ("llama", 4, 128, WIDER, {"method": "full"}),
    "experts": ("mixtral", 4, 128, WIDER, {}),
    "quantised": ("llama", 4, 128, {**WIDER, "quantization": {"group_size": 32, "bits": 4}}, {"method": "qlora"}),
    "quantised dora": ("llama", 1, 64, {**WIDER, "quantization": {"group_size": 32, "bits": 4}}, {"method": "dora"}),
}


def whole_batch(rows: int, width: int, vocabulary: int) -> Batch:
    tokens = np.random.default_rng(0).integers(0, vocabulary, (rows, width + 1)).astype(np.int32)
    counted = np.zeros((rows, width), dtype=bool)
    counted[:, width // 5 :] = True
    return Batch(tokens, counted)


def peak_bytes(model: Any, head: Any, settings: TrainingSettings, batch: Batch) -> int:
    """Memory above what the model holds, over two steps."""
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    optimizer = make_optimizer(settings)
    optimizer.init(model.trainable_parameters())
    with gradient_checkpointing(model, settings.grad_checkpoint):
        for _ in range(2):
            found = gradient(model, head, [batch], batch.n_targets, 1.0, lambda micro: 0)
            apply_gradient(model, optimizer, found, 1e-4)
    return mx.get_peak_memory() - before


def prepared(shape: str, grad_checkpoint: bool, dtype: mx.Dtype | None = None) -> tuple[Any, TrainingSettings, Batch]:
    family, rows, width, changes, options = SHAPES[shape]
    model, config = random_model(family, **{"layers": 4, **changes})
    if dtype is not None:
        model.set_dtype(dtype)
    settings = TrainingSettings(grad_checkpoint=grad_checkpoint, **options)
    apply_method(chat_of(model), settings)
    model.train()
    return model, settings, whole_batch(rows, width, config["vocab_size"])


@pytest.mark.parametrize("grad_checkpoint", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_estimate_is_within_a_factor_of_two_of_the_peak(shape: str, grad_checkpoint: bool) -> None:
    model, settings, batch = prepared(shape, grad_checkpoint)
    head = split_head(model)
    assert (head is None) == (shape == "full logits")
    measured = peak_bytes(model, head, settings, batch)
    rows, width = batch.targets.shape
    assert 0.5 < estimate(model, head, settings, rows, width).total / measured < 2


@pytest.mark.parametrize("grad_checkpoint", [False, True])
def test_the_estimate_holds_in_half_precision(grad_checkpoint: bool) -> None:
    model, settings, batch = prepared("many short rows", grad_checkpoint, mx.bfloat16)
    head = split_head(model)
    measured = peak_bytes(model, head, settings, batch)
    assert 0.5 < estimate(model, head, settings, *batch.targets.shape).total / measured < 2


def test_checkpointing_lowers_the_peak() -> None:
    peaks = []
    for grad_checkpoint in (False, True):
        model, settings, batch = prepared("one long row", grad_checkpoint)
        peaks.append(peak_bytes(model, split_head(model), settings, batch))
    assert peaks[1] < 0.6 * peaks[0]


def advice_of(model: Any, settings: TrainingSettings, rows: int, width: int, free: int) -> str:
    with pytest.raises(UserError) as caught:
        refuse_too_large(model, split_head(model), settings, rows, width, free)
    text = str(caught.value)
    assert re.match(rf"training needs about [\d.]+ GB beyond the weights for {rows} rows of {width} tokens, and ", text)
    assert text.endswith(".")
    assert "\n" not in text
    return text.split("; ")[1].removesuffix(".")


def followed(advice: str, settings: TrainingSettings, rows: int, width: int) -> tuple[TrainingSettings, int, int]:
    """What the options in the sentence lead to."""
    found = dict(re.findall(r"--([a-z-]+)(?: (\d+))?", advice))
    changed = replace(settings, grad_checkpoint=settings.grad_checkpoint or "grad-checkpoint" in found)
    if "accumulation" in found:
        assert int(found["accumulation"]) == settings.accumulation * settings.batch_size
    return changed, int(found.get("batch-size") or rows), int(found.get("max-seq-length") or width)


@pytest.mark.parametrize("share", [0.95, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1])
@pytest.mark.parametrize("settings", [TrainingSettings(batch_size=4, accumulation=2), TrainingSettings(batch_size=1)])
def test_the_advice_fits(settings: TrainingSettings, share: float) -> None:
    model = adapted("llama", settings, layers=8, **WIDER)
    rows, width = settings.batch_size, 513
    head = split_head(model)
    free = int(share * estimate(model, head, settings, rows, width).total)
    advice = advice_of(model, settings, rows, width, free)
    if "--" not in advice:
        assert advice == "use a smaller model or a machine with more memory"
        assert share < 0.2
        return
    changed, n_rows, longest = followed(advice, settings, rows, width)
    assert (changed, n_rows, longest) != (settings, rows, width)
    assert estimate(model, head, changed, n_rows, longest).total <= free
    assert refuse_too_large(model, head, changed, n_rows, longest, free).total <= free


def test_advice_that_is_followed_already_is_not_given() -> None:
    settings = TrainingSettings(batch_size=1, grad_checkpoint=True)
    model = adapted("llama", settings, layers=8, **WIDER)
    free = int(0.6 * estimate(model, split_head(model), settings, 1, 1025).total)
    advice = advice_of(model, settings, 1, 1025, free)
    assert "--max-seq-length 512" in advice
    assert "--batch-size" not in advice
    assert "--grad-checkpoint" not in advice


def test_nothing_helps_a_machine_without_memory() -> None:
    model = adapted("llama")
    advice = advice_of(model, TrainingSettings(), 2, 65, 10)
    assert advice == "use a smaller model or a machine with more memory"


def test_what_fits_is_estimated_and_let_through() -> None:
    model = adapted("llama")
    head, settings = split_head(model), TrainingSettings()
    needed = estimate(model, head, settings, 2, 65)
    assert refuse_too_large(model, head, settings, 2, 65, needed.total) == needed
    assert needed.total == needed.activations + needed.head + needed.optimizer
    trainable = sum(value.nbytes for _, value in tree_flatten(model.trainable_parameters()))
    assert needed.optimizer == 4 * trainable  # gradient, its sum, and two moments


@pytest.mark.parametrize(
    ("family", "dropout"),
    [
        ("llama", 0.0), ("llama", 0.5), ("gemma3-tied", 0.0), ("gemma3-tied", 0.5), ("phi", 0.5), ("mixtral", 0.0),
        ("llama-window", 0.5),
    ],
)  # fmt: skip
def test_checkpointing_changes_no_gradient(family: str, dropout: float) -> None:
    """With dropout too: the second run of a block must drop what the first one dropped."""
    settings, rows = TrainingSettings(rank=2, scale=2.0, dropout=dropout), random_rows(3, longest=60)
    found = []
    for enabled in (False, True):
        model = adapted(family, settings)
        model.train()
        with gradient_checkpointing(model, enabled):
            found.append(forward_and_slope(model, rows))
    if dropout == 0:  # other random numbers are drawn, so only without them are the two the same
        assert_same_gradients(found[1][0], found[0][0], 1e-6)
    for gradients, slope, wanted in found:
        assert slope == pytest.approx(wanted, rel=2e-2)
        assert sum((value**2).sum() for value in gradients.values()) > 0


def forward_and_slope(model: Any, rows: Any) -> tuple[dict[str, np.ndarray], float, float]:
    """The gradient; its slope along itself; and the same slope by central differences of the loss, dropout and all."""
    head, batch = split_head(model), make_batch(rows)

    def at() -> Any:
        return gradient(model, head, [batch], n_counted(rows), 1e9, lambda micro: 7)

    here = at()
    gradients = as_numpy(here.values)
    size = np.sqrt(sum((value**2).sum() for value in gradients.values()))
    start, losses, step = dict(tree_flatten(model.trainable_parameters())), [], 2e-2
    for sign in (1, -1):
        moved = [(name, start[name] + mx.array(sign * step / size * gradients[name], mx.float32)) for name in start]
        model.load_weights(moved, strict=False)
        losses.append(at().loss_sum / n_counted(rows))
    model.load_weights(list(start.items()), strict=False)
    return gradients, float(size), (losses[0] - losses[1]) / (2 * step)


def test_checkpointed_dropout_is_seeded() -> None:
    settings, rows = TrainingSettings(rank=2, scale=2.0, dropout=0.5), random_rows(3)
    model = adapted("llama", settings)
    model.train()
    head, batch = split_head(model), make_batch(rows)
    with gradient_checkpointing(model, True):
        values = [as_numpy(gradient(model, head, [batch], 9, 1.0, lambda micro: seed).values) for seed in (1, 1, 2)]  # noqa: B023
    assert_same_gradients(values[0], values[1], 0.0)
    assert any(np.abs(values[0][name] - values[2][name]).max() > 1e-4 for name in values[0])


class Noting(nn.Dropout):
    """A dropout that notes which places it kept."""

    def __init__(self, seen: list[np.ndarray]) -> None:
        super().__init__(0.5)
        self._seen = seen

    def __call__(self, x: mx.array) -> mx.array:
        kept = super().__call__(mx.ones_like(x))
        self._seen.append(np.array(kept != 0))
        return x * kept


def test_each_block_drops_other_activations() -> None:
    """One seed for all blocks would drop the same places in each."""
    seen: list[np.ndarray] = []
    model = adapted("llama", TrainingSettings(rank=2, dropout=0.5, targets=("q_proj",)), layers=3)
    model.train()
    for layer in model.layers:
        layer.self_attn.q_proj.dropout = Noting(seen)
    with gradient_checkpointing(model, True):
        mx.eval(model(mx.array([[1, 2, 3, 4]])))
    assert len(seen) == 3
    assert len({mask.tobytes() for mask in seen}) == 3


def test_checkpointing_ends_with_its_context() -> None:
    model = adapted("llama")
    kind = type(model.layers[0])
    own = kind.__dict__["__call__"]
    with gradient_checkpointing(model, False):
        assert kind.__call__ is own
    with gradient_checkpointing(model, True):
        assert kind.__call__ is not own
    assert kind.__dict__["__call__"] is own
    with pytest.raises(RuntimeError, match="half way"), gradient_checkpointing(model, True):
        raise RuntimeError("half way")
    assert kind.__dict__["__call__"] is own


def test_checkpointing_leaves_an_inherited_call_inherited() -> None:
    model = adapted("llama")
    parent = type(model.layers[0])

    class Heir(parent):  # type: ignore[misc, valid-type]
        """A block that has its call from another."""

    model.layers[1].__class__ = Heir
    own, tokens = parent.__dict__["__call__"], mx.array([[1, 2, 3]])
    before = np.array(model(tokens))
    model.train()
    with gradient_checkpointing(model, True):
        np.testing.assert_allclose(np.array(model(tokens)), before, rtol=1e-6)
    assert "__call__" not in Heir.__dict__
    assert parent.__dict__["__call__"] is own


def test_checkpointing_leaves_the_blocks_weights_and_their_order() -> None:
    model, rows = adapted("llama"), random_rows(2)
    model.train()
    before = dict(tree_flatten(model.parameters()))
    kept = {name: np.array(value) for name, value in before.items()}
    with gradient_checkpointing(model, True):
        gradient(model, split_head(model), [make_batch(rows)], 9, 1.0, lambda micro: 0)
        after = dict(tree_flatten(model.parameters()))
    assert list(after) == list(before)
    for name, value in after.items():
        np.testing.assert_array_equal(np.array(value), kept[name])


def test_evaluation_is_not_checkpointed() -> None:
    model = adapted("llama")
    calls: list[int] = []
    kind = type(model.layers[0])
    original = mx.checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mx, "checkpoint", lambda function: calls.append(1) or original(function))
        with gradient_checkpointing(model, True):
            model.eval()
            mx.eval(model(mx.array([[1, 2, 3]])))
            assert calls == []
            model.train()
            mx.eval(model(mx.array([[1, 2, 3]])))
    assert len(calls) == len(model.layers)
    assert kind.__call__ is kind.__dict__["__call__"]


def test_a_training_with_checkpointed_gradients_ends_in_the_same_bits(tmp_path: Path, base: Path, data: Path) -> None:
    """What lets a training that ran out of memory go on with --grad-checkpoint."""
    ends = []
    for name, saving in (("plain", False), ("saving", True)):
        settings = TrainingSettings(iters=4, learning_rate=1e-2, rank=2, grad_checkpoint=saving)
        train(load(str(base)), data, tmp_path / name, settings)
        ends.append((tmp_path / name / "adapters.safetensors").read_bytes())
    assert ends[0] == ends[1]
