"""Converting: to MLX and back gives the same bytes, quantised models come back de-quantised, guesses are refused."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten

from adapters import GEMMA_TEXT, LFM2, MIXTRAL, edit, in_type, logits, make_other, tensors
from lem.chat import hf_names
from lem.chat.load import load, model_identity
from lem.errors import CheckFailed, UserError
from lem.training import convert
from lem.training.convert import convert_to_hf, convert_to_mlx
from small_plan import bytes_of
from tiny import make_model

# What transformers 5.23.0 calls the tensors of one block, and outside the blocks (the head only where it is not tied).
LLAMA = {
    "input_layernorm.weight", "post_attention_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight",
    "self_attn.v_proj.weight", "self_attn.o_proj.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight",
    "mlp.down_proj.weight",
}  # fmt: skip
GEMMA3 = LLAMA | {
    "self_attn.q_norm.weight", "self_attn.k_norm.weight", "pre_feedforward_layernorm.weight",
    "post_feedforward_layernorm.weight",
}  # fmt: skip


def hf_tensors(block: set[str], *outside: str) -> set[str]:
    inside = {f"model.layers.{number}.{name}" for number in range(2) for name in block}
    return inside | {"model.embed_tokens.weight", "model.norm.weight", *outside}


def exact(folder: Path) -> dict[str, tuple[mx.Dtype, bytes]]:
    """Float type and bytes of every tensor."""
    stored = mx.load(str(folder / "model.safetensors"))
    return {name: (w.dtype, bytes(memoryview(w.view(mx.uint8)))) for name, w in stored.items()}


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize(
    ("model_type", "names", "architecture"),
    [
        ("llama", hf_tensors(LLAMA, "lm_head.weight"), "LlamaForCausalLM"),
        ("gemma3_text", hf_tensors(GEMMA3), "Gemma3ForCausalLM"),
    ],
)
def test_there_and_back_is_the_same_model(
    tmp_path: Path, model_type: str, names: set[str], architecture: str, dtype: mx.Dtype
) -> None:
    source = in_type(make_model(tmp_path / "source", model_type), dtype)
    if model_type == "gemma3_text":
        drop(source, "lm_head.weight")
    there = convert_to_mlx(str(source), tmp_path / "mlx")
    back = convert_to_hf(str(tmp_path / "mlx"), tmp_path / "hf", n_prompts=3)
    assert there.dtypes == back.dtypes == (str(dtype).removeprefix("mlx.core."),)
    assert exact(tmp_path / "hf") == exact(source)
    assert set(exact(tmp_path / "hf")) == names
    assert back.proof.candidate.kl_nats.value == 0.0
    np.testing.assert_array_equal(logits(tmp_path / "hf"), logits(source))
    header = (tmp_path / "hf" / "model.safetensors").read_bytes()[8:600]
    assert b'"format":"pt"' in header.replace(b" ", b"")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["architectures"] == [architecture]


def drop(folder: Path, name: str) -> None:
    """Remove a tensor, as a model with tied weights does not store its head."""
    weights = dict(mx.load(str(folder / "model.safetensors")))
    mx.eval(weights)
    weights.pop(name)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_model_comes_back_dequantised(tmp_path: Path, bits: int) -> None:
    source = make_model(tmp_path / "source", "llama")
    report = convert_to_mlx(str(source), tmp_path / "q", bits, 32)
    assert (report.n_quantised, report.n_layers) == (16, 16)
    quantised = mx.load(str(tmp_path / "q" / "model.safetensors"))
    back = convert_to_hf(str(tmp_path / "q"), tmp_path / "hf", n_prompts=3)
    assert back.n_dequantised == 16
    assert not {"quantization", "quantization_config"} & set(json.loads((tmp_path / "hf" / "config.json").read_text()))
    found, before = tensors(tmp_path / "hf"), tensors(source)
    assert set(found) == set(before)
    name = "model.layers.1.mlp.down_proj"
    np.testing.assert_allclose(found[f"{name}.weight"], unpacked(quantised, name, bits), atol=1e-6)
    step = np.array(quantised[f"{name}.scales"]).repeat(32, axis=1)
    assert (np.abs(found[f"{name}.weight"] - before[f"{name}.weight"]) <= np.abs(step) * 0.51 + 1e-6).mean() > 0.99
    np.testing.assert_allclose(logits(tmp_path / "hf"), logits(tmp_path / "q"), atol=1e-4)
    peer, _ = mlx_lm.load(str(tmp_path / "q"))
    assert sum(str(name).endswith(".scales") for name, _ in tree_flatten(peer.parameters())) == 16


def unpacked(weights: dict[str, mx.array], name: str, bits: int) -> np.ndarray:
    """w = scale * q + bias with q read from the packed 32-bit words, lowest bits first."""
    words = np.array(weights[f"{name}.weight"])
    q = (words[:, :, None] >> (np.arange(32 // bits, dtype=np.uint32) * bits)) & (2**bits - 1)
    q = q.reshape(words.shape[0], -1).astype(np.float64)
    scales, biases = (
        np.array(weights[f"{name}.{part}"], np.float64).repeat(32, axis=1) for part in ("scales", "biases")
    )
    return q * scales + biases


def test_of_a_multimodal_model_the_text_model_is_written(tmp_path: Path) -> None:
    """Gemma 3 from 4B up: `language_model.` goes, sizes that the file leaves to defaults are spelt out."""
    text = {key: value for key, value in GEMMA_TEXT.items() if key != "num_attention_heads"}
    vocabulary = json.loads((make_model(tmp_path / "plain", "llama") / "config.json").read_text())["vocab_size"]
    config = {
        "text_config": {
            **text, "model_type": "gemma3_text", "hidden_size": 128, "num_key_value_heads": 4, "eos_token_id": 1,
        },
        "vision_config": {"hidden_size": 8}, "vocab_size": vocabulary,
    }  # fmt: skip
    source = make_other(tmp_path / "source", "gemma3", config)
    drop(source, "language_model.lm_head.weight")
    (source / "preprocessor_config.json").write_text("{}")
    report = convert_to_hf(str(source), tmp_path / "hf", n_prompts=3)
    assert report.proof.candidate.kl_nats.value == 0.0
    assert set(tensors(tmp_path / "hf")) == hf_tensors(GEMMA3)
    written = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == ("gemma3_text", ["Gemma3ForCausalLM"])
    assert (written["num_attention_heads"], written["vocab_size"], written["eos_token_id"]) == (8, vocabulary, 258)
    assert "vision_config" not in written
    assert not (tmp_path / "hf" / "preprocessor_config.json").exists()
    np.testing.assert_array_equal(logits(tmp_path / "hf"), logits(source))
    convert_to_mlx(str(source), tmp_path / "mlx")
    assert "vision_config" not in json.loads((tmp_path / "mlx" / "config.json").read_text())


@pytest.mark.parametrize(
    ("model_type", "config", "message"),
    [
        (
            "mixtral",
            MIXTRAL,
            r"mlx-lm stacked or transposed model\.layers\.0\.block_sparse_moe\.switch_mlp\.\w+\.weight",
        ),
        ("lfm2", LFM2, r"mlx-lm stacked or transposed model\.layers\.0\.conv\.conv\.weight \(shape \(32, 3, 1\)\)"),
        (
            "iquestcoder",
            None,
            r"what transformers calls model\.embed_tokens\.weight of a 'iquestcoder' model is",
        ),
    ],
)
def test_architectures_that_cannot_be_undone_are_named(
    tmp_path: Path, model_type: str, config: dict[str, object] | None, message: str
) -> None:
    if config is None:  # an architecture of the same shape as llama, of which nothing is known
        source = make_model(tmp_path / "source", "llama")
        edit(source / "config.json", model_type=model_type)
    else:
        source = make_other(tmp_path / "source", model_type, config)
    with pytest.raises(UserError, match=message):
        convert_to_hf(str(source), tmp_path / "hf")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source"]


def test_a_conversion_that_changes_the_model_is_refused_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_model(tmp_path / "source", "llama")
    swap = {"gate_proj": "up_proj", "up_proj": "gate_proj"}

    def wrong(config: object, name: str) -> str:
        part = name.split(".")[-2]
        return name.replace(part, swap[part]) if part in swap else name

    monkeypatch.setattr(hf_names, "checkpoint_name", wrong)
    with pytest.raises(CheckFailed, match=r"does not behave like .*greedy agreement 0.*nothing was kept"):
        convert_to_hf(str(source), tmp_path / "hf", n_prompts=3)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source"]


def test_many_shards_are_indexed_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_model(tmp_path / "source", "llama")
    one_each = lambda weights: [{name: w} for name, w in weights.items()]  # noqa: E731
    monkeypatch.setattr(convert.model_files, "make_shards", one_each)
    convert_to_hf(str(source), tmp_path / "hf", n_prompts=1)
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "hf").glob("*.safetensors"))
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert len(files) == 21
    assert files[0].name == "model-00001-of-00021.safetensors"
    assert index["metadata"]["total_size"] == sum(w.nbytes for f in files for w in mx.load(str(f)).values())
    np.testing.assert_array_equal(logits(tmp_path / "hf"), logits(source))


def test_what_cannot_be_quantised_and_outputs_that_are_taken(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source", "llama")
    with pytest.raises(UserError, match="no layer's width is a multiple of 128; use --group-size 32"):
        convert_to_mlx(str(source), tmp_path / "x", 4, 128)
    convert_to_mlx(str(source), tmp_path / "q", 4, 32)
    with pytest.raises(UserError, match="is already quantised; give --model the original"):
        convert_to_mlx(str(tmp_path / "q"), tmp_path / "x", 8, 32)
    before = bytes_of(tmp_path)
    for call in (convert_to_mlx, convert_to_hf):
        with pytest.raises(UserError, match="exists and is not empty"):
            call(str(source), tmp_path / "q")
        with pytest.raises(UserError, match="no such model"):
            call(str(tmp_path / "none"), tmp_path / "x")
    (tmp_path / "source" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load this model"):
        convert_to_mlx(str(source), tmp_path / "x")
    del before["source/model.safetensors"]
    assert bytes_of(tmp_path) == before
    assert not (tmp_path / "x").exists()


def test_a_quantised_model_copied_to_mlx_stays_quantised(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source", "gemma3_text")
    convert_to_mlx(str(source), tmp_path / "q", 8, 32)
    convert_to_mlx(str(tmp_path / "q"), tmp_path / "again")
    assert exact(tmp_path / "again") == exact(tmp_path / "q")
    assert load(str(tmp_path / "again"), weights=False).model_sha == load(str(tmp_path / "q"), weights=False).model_sha


def test_names_of_modules_go_both_ways() -> None:
    multimodal, plain = {"model_type": "gemma3"}, {"model_type": "llama"}
    inner = "language_model.model.layers.3.mlp.up_proj"
    assert hf_names.hf_module(multimodal, inner) == "model.language_model.layers.3.mlp.up_proj"
    for name in ("model.language_model.layers.3.mlp.up_proj", inner, "model.layers.3.mlp.up_proj"):
        assert hf_names.mlx_module(multimodal, name) == inner
    assert hf_names.mlx_module(plain, "lm_head") == hf_names.hf_module(plain, "lm_head") == "lm_head"


def test_a_conversion_says_what_it_was_made_of(tmp_path: Path) -> None:
    model = make_model(tmp_path / "source", "llama")
    convert_to_mlx(str(model), tmp_path / "quantised", 4, 32)
    convert_to_hf(str(model), tmp_path / "hf", n_prompts=2)
    for folder in (tmp_path / "quantised", tmp_path / "hf"):
        said = json.loads((folder / "lem_provenance.json").read_text(encoding="utf-8"))
        assert said["base_model_sha"] == model_identity(model)
        assert said["model_sha"] == model_identity(folder) != said["base_model_sha"]
