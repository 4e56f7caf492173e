"""Tiny random models with a real tokenizer, made on the spot: what the tests use instead of downloads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHATML = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages if m['role'] != 'system' %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
_ATTENTION = {"num_attention_heads": 2, "num_key_value_heads": 1}
_ROPE = {"rms_norm_eps": 1e-5, "rope_theta": 10000.0}
_GEMMA = {**_ATTENTION, "head_dim": 16, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 16, "rope_theta": 10000.0}
_GEMMA3 = {
    **_GEMMA, "sliding_window": 24, "sliding_window_pattern": 2, "rope_local_base_freq": 10000.0,
}  # fmt: skip
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
# By family: a model type of mlx-lm, named if the family is not called by it, and what its configuration adds.
_CONFIGS: dict[str, dict[str, Any]] = {
    "gemma3_text": _GEMMA3,
    "gemma3-tied": {"model_type": "gemma3_text", **_GEMMA3},
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 2.0},
    "gemma2-grouped": {
        "model_type": "gemma2", **_GEMMA, "num_attention_heads": 4, "num_key_value_heads": 2,
        "final_logit_softcapping": 2.0,
    },
    "gemma3": {},  # the multimodal wrapper: its text configuration is nested
    "llama": {**_ATTENTION, **_ROPE, "tie_word_embeddings": False},
    "llama-tied": {"model_type": "llama", **_ATTENTION, **_ROPE, "tie_word_embeddings": True},
    "llama-bias": {
        "model_type": "llama", **_ATTENTION, **_ROPE, "tie_word_embeddings": False, "attention_bias": True,
        "mlp_bias": True,
    },
    "llama-window": {
        "model_type": "llama", **_ATTENTION, **_ROPE, "tie_word_embeddings": False, "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "mistral": {**_ATTENTION, **_ROPE, "tie_word_embeddings": False},
    "qwen2": {**_ATTENTION, **_ROPE, "tie_word_embeddings": True},
    "qwen3": {**_ATTENTION, **_ROPE, "head_dim": 16, "tie_word_embeddings": False},
    "phi": {"num_attention_heads": 2, "num_key_value_heads": 2, "partial_rotary_factor": 0.5},
    "cohere": {**_ATTENTION, "logit_scale": 0.25},
    "mixtral": {**_ATTENTION, **_ROPE, **_EXPERTS},
    "gpt2": {
        "n_ctx": 256, "n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 256, "layer_norm_epsilon": 1e-5,
    },
}  # fmt: skip
FAMILIES = tuple(_CONFIGS)
_TIED_BY_ABSENCE = ("gemma3-tied", "gemma3")  # tied because their files hold no head


def make_model(
    folder: Path, model_type: str = "gemma3_text", *, layers: int = 2, seed: int = 0, template: str | None = CHATML,
    quantization: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write a random model of the given family with a byte-level tokenizer to `folder` and return it."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder, template)
    model, config = random_model(
        model_type, layers=layers, seed=seed, quantization=quantization, vocab_size=vocabulary
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


def random_model(
    family: str = "gemma3_text", *, layers: int = 2, seed: int = 0, quantization: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """A random model of a family and its configuration, without files; `changes` go into the configuration.

    `quantization`: the arguments of `mlx.nn.quantize`, such as `{"group_size": 32, "bits": 4}`.
    """
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.utils import _get_classes

    config = {
        "model_type": family, "hidden_size": 32, "num_hidden_layers": layers, "intermediate_size": 64,
        "vocab_size": 259, "max_position_embeddings": 4096, **_CONFIGS[family], **changes,
    }  # fmt: skip
    config.setdefault("eos_token_id", config["vocab_size"] - 1)
    if family == "gemma3":
        config = {**config, "text_config": {**config, **_GEMMA3, "model_type": "gemma3_text"}}
    model_class, args_class = _get_classes(config)
    mx.random.seed(seed)
    model = model_class(args_class.from_dict(json.loads(json.dumps(config))))
    weights = {name: mx.random.normal(w.shape) * 0.3 for name, w in tree_flatten(model.parameters())}
    if family in _TIED_BY_ABSENCE:
        weights = {name: w for name, w in weights.items() if not name.endswith("lm_head.weight")}
        weights = model.sanitize(weights)
    model.load_weights(list(weights.items()))
    if quantization is not None:
        nn.quantize(model, **quantization)
        config["quantization"] = quantization
    model.eval()
    mx.eval(model.parameters())
    return model, config


def _write_tokenizer(folder: Path, template: str | None) -> int:
    """A byte-level tokenizer without merges: 256 bytes and three special tokens, the last of which ends a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|bos|>", "<|turn|>", "<|end|>"]
    vocabulary = {token: index for index, token in enumerate(alphabet + specials)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|end|>",
        "clean_up_tokenization_spaces": False, "model_max_length": 4096,
    }  # fmt: skip
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary)
