"""Names of tensors and modules on both sides: mlx-lm's models and Hugging Face transformers.

mlx-lm renames, stacks or transposes what some architectures store. Only architectures whose names are known are
mapped; every other one is refused with the name of a tensor, because a guessed name loads as a model with holes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lem.errors import UserError

# The language model inside a multimodal one: in mlx-lm, in the modules of transformers.
_PREFIX = "language_model."
_HF_RUNTIME = "model.language_model."
_INHERITED = ("eos_token_id", "bos_token_id", "pad_token_id", "torch_dtype", "dtype", "transformers_version")
_SIZES = ("vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim")


@cache
def _table() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("hf_names.json").read_text(encoding="utf-8"))
    return content


def is_text_of_multimodal(config: Mapping[str, Any]) -> bool:
    """True for a multimodal architecture of which mlx-lm keeps the language model only."""
    return config.get("model_type") in _table()["text_of"]


def refuse_unknown(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Accept a model whose names are known on both sides.

    Args:  shapes: shapes of the mlx-lm parameters by name.  name: what to call the model in the message.
    Raises: UserError that names a tensor which mlx-lm stacked or transposed, or else the first tensor.
    """
    reshaped = next((tensor for tensor, shape in shapes.items() if len(shape) > 2), None)
    kind = config.get("model_type")
    if reshaped is not None:
        raise UserError(
            f"{name}: mlx-lm stacked or transposed {reshaped} (shape {shapes[reshaped]}) when it read this '{kind}' "
            "model, and that cannot be undone here; use the original Hugging Face model."
        )
    if kind not in _table()["same"] and kind not in _table()["text_of"]:
        first = next(iter(shapes), "its tensors")
        raise UserError(
            f"{name}: what transformers calls {first} of a '{kind}' model is not known here; "
            f"known are {', '.join(sorted([*_table()['same'], *_table()['text_of']]))}."
        )


def checkpoint_name(config: Mapping[str, Any], name: str) -> str:
    """The name under which a converted checkpoint stores an mlx-lm parameter (a text model for a multimodal one)."""
    return name.removeprefix(_PREFIX) if is_text_of_multimodal(config) else name


def hf_config(config: Mapping[str, Any], text_args: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that goes with `checkpoint_name`, with its class named (a text model's for a multimodal one).

    Args:  text_args: what mlx-lm took the text model's sizes to be; files of multimodal models leave some of them out.
    """
    classes: dict[str, str] = _table()["same"]
    if not is_text_of_multimodal(config):
        return {"architectures": [classes[config["model_type"]]]} | dict(config)
    kind = _table()["text_of"][config["model_type"]]
    text = {key: text_args[key] for key in _SIZES if key in text_args}
    text |= dict(config.get("text_config") or {})
    text |= {key: config[key] for key in _INHERITED if key in config}
    return text | {"model_type": kind, "architectures": [classes[kind]]}


def hf_module(config: Mapping[str, Any], path: str) -> str:
    """The path of an mlx-lm module in transformers' model, as PEFT names it (without `base_model.model.`)."""
    if not is_text_of_multimodal(config):
        return path
    inner = path.removeprefix(_PREFIX)
    return _HF_RUNTIME + inner.removeprefix("model.") if inner.startswith("model.") else inner


def mlx_module(config: Mapping[str, Any], path: str) -> str:
    """The path in mlx-lm's model of a module that PEFT names; the inverse of `hf_module`.

    For a multimodal architecture the names of the text model alone and of older transformers are read as well.
    """
    if not is_text_of_multimodal(config):
        return path
    if path.startswith(_HF_RUNTIME):
        return f"{_PREFIX}model.{path.removeprefix(_HF_RUNTIME)}"
    return path if path.startswith(_PREFIX) else _PREFIX + path
