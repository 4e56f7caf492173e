"""Methods: what becomes trainable, where adapters begin, and that mlx-lm reads what a training writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import pytest
from longhand import chat_of, random_rows
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from lem.chat.load import ChatModel, load
from lem.errors import UserError
from lem.training.batches import make_batch
from lem.training.head import split_head
from lem.training.methods import apply_method, clamp_layers, load_start, resolve_targets, target_names
from lem.training.schedule import make_optimizer
from lem.training.settings import TrainingSettings
from lem.training.step import apply_gradient, gradient
from lem.training.train import train
from tiny import make_model, random_model

FOUR_BIT = {"group_size": 32, "bits": 4}
TOKENS = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])
METHODS = ["lora", "dora", "qlora", "full"]


def trainable(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in tree_flatten(model.trainable_parameters())}


def logits(model: Any) -> np.ndarray:
    model.eval()
    return np.array(model(TOKENS).astype(mx.float32))


def prepared(method: str, family: str = "llama", dtype: mx.Dtype | None = None, **settings: Any) -> Any:
    """A model with a method applied, still as it begins."""
    model, _ = random_model(family, layers=3, quantization=FOUR_BIT if method == "qlora" else None)
    if dtype is not None:
        model.set_dtype(dtype)
    apply_method(chat_of(model), TrainingSettings(method=method, **{"rank": 3, **settings}))
    return model


@pytest.mark.parametrize("num_layers", [-1, 1, 2, 3, 40])
@pytest.mark.parametrize(
    ("method", "family"),
    [("lora", "llama"), ("lora", "gemma3-tied"), ("dora", "gemma3-tied"), ("qlora", "llama"), ("lora", "mixtral")],
)
def test_trainable_weights_are_those_that_mlx_lm_makes(method: str, family: str, num_layers: int) -> None:
    peer, _ = random_model(family, layers=3, quantization=FOUR_BIT if method == "qlora" else None)
    peer.freeze()
    depth = 3 if num_layers in (-1, 40) else num_layers
    linear_to_lora_layers(peer, depth, {"rank": 3, "scale": 20.0, "dropout": 0.0}, use_dora=method == "dora")
    found = trainable(prepared(method, family, num_layers=num_layers))
    assert found == trainable(peer)
    assert {name.split(".")[2] for name in found} == {str(layer) for layer in range(3 - depth, 3)}


@pytest.mark.parametrize("num_layers", [-1, 2])
def test_full_trains_every_weight_of_the_blocks_and_nothing_else(num_layers: int) -> None:
    model = prepared("full", num_layers=num_layers)
    first = 0 if num_layers == -1 else 1
    wanted = {
        name: value.shape
        for name, value in tree_flatten(model.parameters())
        if name.startswith("model.layers.") and int(name.split(".")[2]) >= first
    }
    assert trainable(model) == wanted
    assert any("layernorm" in name for name in wanted)


@pytest.mark.parametrize("method", METHODS)
def test_targets_name_what_is_trained(method: str) -> None:
    found = trainable(prepared(method, targets=("q_proj", "mlp.up_proj"), num_layers=1))
    modules = {".".join(name.split(".")[3:5]) for name in found}
    assert modules == {"self_attn.q_proj", "mlp.up_proj"}
    assert {name.split(".")[2] for name in found} == {"2"}


def test_targets_in_full_and_by_their_last_part() -> None:
    model, _ = random_model("llama")
    assert resolve_targets(model, ("self_attn.q_proj", "down_proj")) == ("mlp.down_proj", "self_attn.q_proj")
    assert resolve_targets(model, ("q_proj", "self_attn.q_proj")) == ("self_attn.q_proj",)
    assert target_names(model) == [
        "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj",
        "self_attn.v_proj",
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["proj", "self_attn", "lm_head", "", "layers.0.self_attn.q_proj", "Q_PROJ"])
def test_an_unknown_target_lists_those_there_are_and_changes_nothing(target: str) -> None:
    model, _ = random_model("llama")
    before = trainable(model)
    with pytest.raises(UserError, match=r"no such module in this model's blocks; there are mlp.down_proj, .*v_proj\.$"):
        resolve_targets(model, (target,))
    if target:
        with pytest.raises(UserError, match=rf"^--target {target}: "):
            apply_method(chat_of(model), TrainingSettings(targets=("q_proj", target)))
    assert trainable(model) == before


def test_nothing_to_train_is_refused() -> None:
    model, _ = random_model("llama", layers=3)
    model.layers[2].mlp.gate_proj = model.layers[2].mlp.up_proj = model.layers[2].mlp.down_proj = None
    with pytest.raises(UserError, match=r"^tiny: nothing to train .* \(0 trainable parameters\)\.$"):
        apply_method(chat_of(model), TrainingSettings(targets=("up_proj",), num_layers=1))


def test_layers_are_counted_from_the_top_and_clamped() -> None:
    assert [clamp_layers(wanted, 6) for wanted in (-1, 1, 6, 16)] == [6, 1, 6, 6]
    for wanted in (0, -2):
        with pytest.raises(UserError, match=r"--num-layers must be -1 \(all\) or at least 1"):
            clamp_layers(wanted, 6)


@pytest.mark.parametrize(
    ("method", "quantization", "message"),
    [
        ("qlora", None, "--method qlora needs a quantised base"),
        ("full", FOUR_BIT, "quantised weights cannot be trained in full; use --method qlora"),
        ("dora", {"group_size": 32, "bits": 6}, r"dora cannot adapt weights in 6 bits \(affine\) \(.*_proj\)"),
        ("dora", {"group_size": 32, "bits": 3}, r"dora cannot adapt weights in 3 bits"),
        ("dora", {"group_size": 32, "bits": 4, "mode": "mxfp4"}, r"dora cannot adapt weights in 4 bits \(mxfp4\)"),
    ],
)
def test_a_method_that_does_not_fit_the_base_is_refused(
    method: str, quantization: dict[str, Any] | None, message: str
) -> None:
    model, _ = random_model("llama", quantization=quantization)
    before = trainable(model)
    with pytest.raises(UserError, match=message):
        apply_method(chat_of(model), TrainingSettings(method=method))
    assert trainable(model) == before


def test_dora_on_experts_is_refused_but_not_beside_them() -> None:
    model, _ = random_model("mixtral")
    with pytest.raises(UserError, match="dora cannot adapt the layers of experts"):
        apply_method(chat_of(model), TrainingSettings(method="dora"))
    apply_method(chat_of(model), TrainingSettings(method="dora", targets=("q_proj",)))
    assert trainable(model)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_lora_on_any_number_of_bits_computes_what_the_base_does(bits: int) -> None:
    model, _ = random_model("llama", quantization={"group_size": 32, "bits": bits})
    before = logits(model)
    apply_method(chat_of(model), TrainingSettings(method="qlora", rank=2))
    np.testing.assert_array_equal(logits(model), before)


@pytest.mark.parametrize("family", ["llama", "gemma3-tied", "phi", "mixtral"])
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_fresh_adapter_changes_no_logit(method: str, family: str) -> None:
    model, _ = random_model(family, quantization=FOUR_BIT if method == "qlora" else None)
    before = logits(model)
    apply_method(chat_of(model), TrainingSettings(method=method, rank=2, dropout=0.3))
    np.testing.assert_array_equal(logits(model), before)


@pytest.mark.parametrize("quantization", [None, FOUR_BIT])
def test_a_fresh_dora_changes_no_logit_beyond_rounding(quantization: dict[str, Any] | None) -> None:
    model, _ = random_model("llama", quantization=quantization)
    before = logits(model)
    apply_method(chat_of(model), TrainingSettings(method="dora", rank=2))
    np.testing.assert_allclose(logits(model), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantization", [None, FOUR_BIT])
def test_dora_bears_weight_rows_that_are_zero(quantization: dict[str, Any] | None) -> None:
    """Their norm is 0, which mlx-lm's layer divides by; lem-nano has such rows."""
    model, _ = random_model("llama")
    weight = model.layers[0].self_attn.q_proj.weight
    model.layers[0].self_attn.q_proj.weight = mx.where((mx.arange(32) < 5)[:, None], 0.0, weight)
    if quantization is not None:
        nn.quantize(model, **quantization)
    before, rows = logits(model), random_rows(2)
    apply_method(chat_of(model), TrainingSettings(method="dora", rank=2))
    np.testing.assert_allclose(logits(model), before, rtol=1e-4, atol=1e-4)
    found = gradient(model, split_head(model), [make_batch(rows)], 10, 1.0, lambda micro: 0)
    assert found.finite
    assert all(bool(mx.isfinite(value).all().item()) for _, value in tree_flatten(found.values))


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_weights_and_state_are_float32_on_a_half_precision_base(method: str, dtype: mx.Dtype) -> None:
    model = prepared(method, dtype=dtype)
    rows, settings = random_rows(2), TrainingSettings(learning_rate=1e-3)
    optimizer = make_optimizer(settings)
    optimizer.init(model.trainable_parameters())
    head = split_head(model)
    assert head is not None
    found = gradient(model, head, [make_batch(rows)], 10, 1.0, lambda micro: 0)
    apply_gradient(model, optimizer, found, 1e-3)
    for tree in (model.trainable_parameters(), found.values, optimizer.state):
        kinds = {value.dtype for name, value in tree_flatten(tree) if name != "step"}
        assert kinds == {mx.float32}
    frozen = set(dict(tree_flatten(model.parameters()))) - set(trainable(model))
    assert {dict(tree_flatten(model.parameters()))[name].dtype for name in frozen} == {dtype}
    if method != "full":
        assert model(TOKENS).dtype == dtype  # the adapter does not drag the whole model into float32


def test_initial_weights_come_from_the_seed_alone() -> None:
    found = []
    for noise, seed in ((0, 1), (99, 1), (0, 2)):
        model, _ = random_model("llama")
        mx.random.seed(noise)
        apply_method(chat_of(model), TrainingSettings(seed=seed))
        found.append({name: np.array(value) for name, value in tree_flatten(model.trainable_parameters())})
    assert all((found[0][name] == found[1][name]).all() for name in found[0])
    assert any((found[0][name] != found[2][name]).any() for name in found[0])


def test_what_was_applied_is_counted() -> None:
    model, _ = random_model("llama", layers=3)
    size = sum(value.size for _, value in tree_flatten(model.parameters()))
    applied = apply_method(chat_of(model), TrainingSettings(rank=3, num_layers=2, targets=("q_proj",)))
    assert (applied.num_layers, applied.keys) == (2, ("self_attn.q_proj",))
    assert applied.n_trainable == 2 * 3 * (32 + 32)
    assert applied.n_total == size + applied.n_trainable


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of a plain and of a quantised base, the one that fits a method."""
    root = tmp_path_factory.mktemp("methods")
    plain = make_model(root / "plain", "gemma3-tied", layers=3)
    packed = make_model(root / "packed", "llama", layers=3, quantization=FOUR_BIT)
    return lambda method: packed if method == "qlora" else plain


QUICK = TrainingSettings(iters=3, learning_rate=5e-3, rank=2, save_every=3, report_every=3, validate_every=3)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_training_writes_is_read_by_mlx_lm_to_the_same_logits(
    bases: Callable[[str], Path], data: Path, tmp_path: Path, method: str
) -> None:
    chat = load(str(bases(method)))
    before = logits(chat.model)
    settings = replace(QUICK, method=method, num_layers=2, targets=("q_proj", "up_proj"), dropout=0.1)
    train(chat, data, tmp_path / "a", settings)
    after = logits(chat.model)
    assert np.abs(after - before).max() > 1e-3
    peer, _ = mlx_lm.load(str(bases(method)), adapter_path=str(tmp_path / "a"))
    np.testing.assert_allclose(logits(peer), after, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits(load(str(bases(method)), tmp_path / "a").model), after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_begins_where_the_earlier_adapter_ended(
    bases: Callable[[str], Path], data: Path, tmp_path: Path, method: str
) -> None:
    chat = load(str(bases(method)))
    settings = replace(QUICK, method=method)
    train(chat, data, tmp_path / "a", settings)
    second = load(str(bases(method)))
    apply_method(second, settings)
    load_start(second, tmp_path / "a", settings)
    np.testing.assert_array_equal(logits(second.model), logits(chat.model))
    assert {value.dtype for _, value in tree_flatten(second.model.trainable_parameters())} == {mx.float32}


@pytest.fixture
def start(bases: Callable[[str], Path], data: Path, tmp_path: Path) -> Path:
    train(load(str(bases("lora"))), data, tmp_path / "start", QUICK)
    return tmp_path / "start"


def begin(chat: ChatModel, adapter: Path, **changes: Any) -> None:
    settings = replace(QUICK, **changes)
    apply_method(chat, settings)
    load_start(chat, adapter, settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 4}, "has shape .* give the --rank that it was made with"),
        ({"scale": 10.0}, r"its scale is 20.0, not 10.0; give --scale 20.0"),
        ({"num_layers": 1}, "the adapter has .*; train with the layers, rank and targets"),
        ({"targets": ("q_proj",)}, "the adapter has .*; train with the layers, rank and targets"),
        ({"method": "dora"}, "a lora adapter cannot start a dora training; use --method lora"),
        ({"method": "full"}, "a lora adapter cannot start a full training; use --method lora"),
    ],
)
def test_an_adapter_of_another_shape_cannot_start_a_training(
    bases: Callable[[str], Path], start: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        begin(load(str(bases("lora"))), start, **changes)


def test_an_adapter_with_fewer_modules_cannot_start_a_training(
    bases: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    train(load(str(bases("lora"))), data, tmp_path / "few", replace(QUICK, targets=("q_proj",)))
    with pytest.raises(UserError, match="the adapter lacks "):
        begin(load(str(bases("lora"))), tmp_path / "few")


def test_an_adapter_of_another_base_cannot_start_a_training(start: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", "gemma3-tied", layers=3, seed=7)
    with pytest.raises(UserError, match="was trained on another base"):
        begin(load(str(other)), start)


def test_an_adapter_of_others_without_provenance_can_start_a_training(
    bases: Callable[[str], Path], start: Path
) -> None:
    config = json.loads((start / "adapter_config.json").read_text())
    kept = {name: config[name] for name in ("fine_tune_type", "num_layers", "lora_parameters")}
    (start / "adapter_config.json").write_text(json.dumps(kept))
    begin(load(str(bases("lora"))), start)


def test_a_broken_file_of_weights_is_one_sentence(bases: Callable[[str], Path], start: Path) -> None:
    whole = (start / "adapters.safetensors").read_bytes()
    (start / "adapters.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        begin(load(str(bases("lora"))), start)
