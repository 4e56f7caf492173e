"""Adapters with known random weights, and tiny models of architectures that `tiny` does not make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import _get_classes, load_model

from lem.chat.load import load
from tiny import make_model

TOKENS = [5, 6, 7, 8, 100, 200, 3, 9]
GEMMA_TEXT = {
    "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 24,
    "sliding_window_pattern": 2, "rope_theta": 10000.0,
}  # fmt: skip
MIXTRAL = {
    "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2,
    "num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}  # fmt: skip
LFM2 = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "norm_eps": 1e-5,
    "conv_bias": False, "conv_L_cache": 3, "block_dim": 32, "block_ff_dim": 64, "block_multiple_of": 16,
    "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False, "full_attn_idxs": [1], "rope_theta": 10000.0,
    "max_position_embeddings": 128,
}  # fmt: skip


def make_other(folder: Path, model_type: str, config: dict[str, Any]) -> Path:
    """A random model of any architecture of mlx-lm, with the tokenizer of `tiny`."""
    make_model(folder, "llama")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    full = {"model_type": model_type, "vocab_size": vocabulary, "eos_token_id": vocabulary - 1, **config}
    (folder / "config.json").write_text(json.dumps(full))
    model_class, args_class = _get_classes(full)
    mx.random.seed(2)
    model = model_class(args_class.from_dict(json.loads(json.dumps(full))))
    weights = {name: mx.random.normal(w.shape) * 0.3 for name, w in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


def in_type(folder: Path, dtype: mx.Dtype) -> Path:
    """The same model with its weights stored in another float type."""
    weights = {name: w.astype(dtype) for name, w in mx.load(str(folder / "model.safetensors")).items()}
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


def write_adapter(
    base: Path, folder: Path, kind: str = "lora", *, size: float = 0.05, keys: Sequence[str] | None = None,
    layers: int = 2, rank: int = 3, scale: float = 1.7,
) -> Path:  # fmt: skip
    """An adapter of the base with random weights of the given size in every `lora_b`, in mlx-lm's format."""
    module, _ = load_model(base)
    mx.random.seed(4)
    module.freeze()
    parameters: dict[str, Any] = {"rank": rank, "scale": scale, "dropout": 0.0}
    if keys is not None:
        parameters["keys"] = list(keys)
    linear_to_lora_layers(module, layers, parameters, use_dora=kind == "dora")
    weights = {}
    for name, value in tree_flatten(module.trainable_parameters()):
        part = name.rsplit(".", 1)[-1]
        noise = mx.random.normal(value.shape)
        weights[name] = noise * size if part == "lora_b" else value * (1 + 0.1 * noise) if part == "m" else value
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights, metadata={"format": "mlx"})
    config = {
        "fine_tune_type": kind, "num_layers": layers, "lora_parameters": parameters, "model": str(base),
        "base_model_sha": load(str(base), weights=False).model_sha,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def logits(model: Path | str, adapter: Path | None = None) -> np.ndarray:
    """Logits of a fixed row of tokens, [tokens, vocabulary], from our loader."""
    module = load(str(model), adapter, need_template=False).model
    return np.array(module(mx.array([TOKENS]))[0].astype(mx.float32))


def tensors(folder: Path, name: str = "model.safetensors") -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as float64."""
    return {key: np.array(w.astype(mx.float32), dtype=np.float64) for key, w in mx.load(str(folder / name)).items()}


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
