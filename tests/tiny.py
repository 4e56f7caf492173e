"""Tiny random models with a real tokenizer, made on the spot: what the tests use instead of downloads."""

from __future__ import annotations

import json
from pathlib import Path

CHATML = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages if m['role'] != 'system' %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
_CONFIGS = {
    "gemma3_text": {
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 16, "sliding_window": 24, "sliding_window_pattern": 2, "rope_theta": 10000.0,
        "rope_local_base_freq": 10000.0,
    },
    "llama": {
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
}  # fmt: skip


def make_model(
    folder: Path, model_type: str = "gemma3_text", *, layers: int = 2, seed: int = 0, template: str | None = CHATML
) -> Path:
    """Write a random model of the given type with a byte-level tokenizer to `folder` and return it."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import _get_classes

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder, template)
    config = {
        "model_type": model_type, "hidden_size": 32, "num_hidden_layers": layers, "intermediate_size": 64,
        "vocab_size": vocabulary, "max_position_embeddings": 4096, "eos_token_id": vocabulary - 1,
        **_CONFIGS[model_type],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    model_class, args_class = _get_classes(config)
    mx.random.seed(seed)
    model = model_class(args_class.from_dict(config))
    weights = {name: mx.random.normal(w.shape) * 0.3 for name, w in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


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
