"""A share of an adapter is the formula of its kind at that share: 0 is the model alone, 1 the adapter itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from adapters import TOKENS, edit, in_type, tensors, write_adapter
from lem.chat.generate import GenerationSettings, Request, generate
from lem.chat.load import load
from lem.chat.stored import stored_bits
from lem.errors import UserError
from tiny import make_model

SCALE = 1.7
QUANTIZED = {"group_size": 32, "bits": 4}


def outputs(model: Path, adapter: Path | None = None, dose: float = 1.0) -> np.ndarray:
    return np.array(load(str(model), adapter, adapter_scale=dose).model(mx.array([TOKENS]))[0])


def dosed_weights(base: dict[str, np.ndarray], adapter: dict[str, np.ndarray], dose: float) -> dict[str, np.ndarray]:
    """The formulas in float64: W + s D for LoRA, and the same turned into rows of a moved length for DoRA."""
    changed = {}
    for name in (name.removesuffix(".lora_a") for name in adapter if name.endswith(".lora_a")):
        weight, a, b = base[f"{name}.weight"], adapter[f"{name}.lora_a"], adapter[f"{name}.lora_b"]
        if weight.ndim == 3:  # experts: [experts, out, in] = [experts, out, rank] @ [experts, rank, in]
            moved = weight + dose * SCALE * np.einsum("eor,eri->eoi", b, a)
        elif name.endswith("embed_tokens"):
            moved = weight + dose * SCALE * a @ b
        else:
            moved = weight + dose * SCALE * (a @ b).T
        if f"{name}.m" in adapter:
            before = np.sqrt((weight**2).sum(axis=1))
            length = before + dose * (adapter[f"{name}.m"] - before)
            moved = moved * (length / np.sqrt((moved**2).sum(axis=1)))[:, None]
        changed[f"{name}.weight"] = moved
    assert changed
    return changed


@pytest.mark.parametrize(
    ("family", "kind", "keys"),
    [
        ("gemma3_text", "lora", None), ("llama", "dora", None), ("mixtral", "lora", None),
        ("llama", "lora", ["model.embed_tokens", "self_attn.q_proj"]),
        ("llama", "dora", ["model.embed_tokens", "self_attn.q_proj"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dose", [0.25, 1.5])
def test_a_dose_is_the_formula_in_the_weights(
    tmp_path: Path, family: str, kind: str, keys: list[str] | None, dose: float
) -> None:
    base = make_model(tmp_path / "base", family)
    adapter = write_adapter(base, tmp_path / "adapter", kind, size=0.3, keys=keys, scale=SCALE)
    module, _ = load_model(base)
    weights: dict[str, Any] = dict(tree_flatten(module.parameters()))
    double = {name: np.array(value, dtype=np.float64) for name, value in weights.items()}
    moved = dosed_weights(double, tensors(adapter, "adapters.safetensors"), dose)
    module.load_weights([(name, mx.array(value.astype(np.float32))) for name, value in moved.items()], strict=False)
    expected = np.array(module(mx.array([TOKENS]))[0])
    found = outputs(base, adapter, dose)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    assert np.abs(found - outputs(base, adapter)).max() > 0.01
    assert np.abs(found - outputs(base)).max() > 0.01


@pytest.mark.parametrize(
    ("kind", "quantization"), [("lora", None), ("dora", None), ("lora", QUANTIZED), ("dora", QUANTIZED)]
)
def test_nothing_of_an_adapter_is_the_model_and_all_of_it_the_adapter(
    tmp_path: Path, kind: str, quantization: dict[str, Any] | None
) -> None:
    base = make_model(tmp_path / "base", "llama", quantization=quantization)
    adapter = write_adapter(base, tmp_path / "adapter", kind, size=0.3)
    np.testing.assert_array_equal(outputs(base, adapter, 0.0), outputs(base))
    np.testing.assert_array_equal(outputs(base, adapter, 1.0), outputs(base, adapter))
    assert np.abs(outputs(base, adapter) - outputs(base)).max() > 0.01


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_text_at_nothing_is_the_text_of_the_model(tmp_path: Path, kind: str) -> None:
    base = make_model(tmp_path / "base", "gemma3_text")
    adapter = write_adapter(base, tmp_path / "adapter", kind, size=0.5)
    rows = [Request(index, tuple(TOKENS[: 3 + index]), index) for index in range(4)]
    settings = GenerationSettings(max_tokens=24, temperature=0.8)

    def texts(*which: Any, **options: Any) -> dict[int, tuple[int, ...]]:
        return {done.id: done.tokens for done in generate(load(str(base), *which, **options), [rows], settings)}

    assert texts(adapter, adapter_scale=0.0) == texts()
    assert texts(adapter, adapter_scale=0.5) not in (texts(), texts(adapter))


def test_the_scale_is_part_of_the_identity_only_where_it_says_something(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    adapter = write_adapter(base, tmp_path / "adapter")
    whole = load(str(base), adapter, weights=False)
    assert load(str(base), adapter, weights=False, adapter_scale=1.0).identity == whole.identity
    assert set(whole.identity) == {"model", "adapter", "cap", "dtype"}
    for dose in (0.0, 0.25):
        found = load(str(base), adapter, weights=False, adapter_scale=dose)
        assert found.identity == {**whole.identity, "adapter_scale": dose}
        assert found.adapter_sha == whole.adapter_sha


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(
    ("dose", "message"),
    [(-0.5, "an adapter scale of -0.5 cannot be applied; give a number of 0 or more"), (float("nan"), "scale of nan"),
     (0.5, "this adapter holds whole weights .* cannot be applied at a scale of 0.5; leave out --adapter-scale"),
     (0.0, "this adapter holds whole weights")],
)  # fmt: skip
def test_a_scale_that_cannot_be_applied_is_a_sentence(tmp_path: Path, weights: bool, dose: float, message: str) -> None:
    base = make_model(tmp_path / "base", "llama")
    adapter = write_adapter(base, tmp_path / "adapter")
    edit(adapter / "adapter_config.json", fine_tune_type="full")
    with pytest.raises(UserError, match=message):
        load(str(base), adapter, weights=weights, adapter_scale=dose)


def test_a_scale_without_an_adapter_is_a_sentence(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    with pytest.raises(UserError, match=r"needs an adapter to apply it to; give --adapter NAME=DIR"):
        load(str(base), weights=False, adapter_scale=0.5)


def test_an_adapter_that_does_not_fit_is_refused_at_any_scale(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    adapter = write_adapter(base, tmp_path / "adapter")
    edit(adapter / "adapter_config.json", num_layers=1)
    with pytest.raises(UserError, match="does not fit"):
        load(str(base), adapter, adapter_scale=0.0)


@pytest.mark.parametrize("bits", [4, 8])
def test_bits_of_a_quantised_model_are_those_it_was_packed_to(tmp_path: Path, bits: int) -> None:
    folder = make_model(tmp_path / "m", "llama", quantization={"group_size": 32, "bits": bits})
    assert stored_bits(load(str(folder), weights=False)) == bits


def test_bits_of_other_models_are_those_of_their_files(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", "llama")
    assert stored_bits(load(str(folder), weights=False)) == 32
    in_type(folder, mx.bfloat16)
    assert stored_bits(load(str(folder), weights=False)) == 16
    assert load(str(folder)).model.model.layers[0].self_attn.q_proj.weight.dtype == mx.float32, "stored, not computed"
    for damage in (b"", b"\xff" * 12):
        (folder / "model.safetensors").write_bytes(damage)
        assert stored_bits(load(str(folder), weights=False)) is None
