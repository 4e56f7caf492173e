"""A model exactly as its files store it: nothing cast to float32 and nothing read from the disk before it is used."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from lem.chat.load import ChatModel, _apply_adapter, _first_line
from lem.errors import UserError

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8}
_METHODS = {"mxfp4": 4, "mxfp8": 8, "fp8": 8}


def load_stored(chat: ChatModel, adapter: Path | None = None) -> tuple[Any, dict[str, Any]]:
    """Build the MLX module of a model, lazily, in the float types of its files, with an adapter if one is given.

    Returns: the module in eval mode, and the configuration as mlx-lm read it (with the `quantization` that it used).
    Raises: UserError if the model is unreadable or the adapter does not fit.
    """
    from mlx_lm.utils import load_model

    try:
        module, config = load_model(chat.path, lazy=True)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RuntimeError) as error:
        raise UserError(f"{chat.name}: cannot load this model ({_first_line(error)}).") from None
    if adapter is not None:
        _apply_adapter(module, adapter, chat.name)
    module.eval()
    return module, config


def parameters(module: Any) -> dict[str, Any]:
    """All parameters by name; nothing is computed."""
    from mlx.utils import tree_flatten

    return {str(entry[0]): entry[1] for entry in tree_flatten(module.parameters())}


def parameter_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters by name; nothing is computed."""
    return {name: tuple(value.shape) for name, value in parameters(module).items()}


def stored_bits(chat: ChatModel) -> int | None:
    """Bits of one stored weight: what a quantised model was packed to, else the width of most of its weights.

    Only configuration and file headers are read. Returns: None when the files do not say.
    """
    text_config = chat.config.get("text_config", {})
    for config in (chat.config, text_config):
        for key in ("quantization", "quantization_config"):
            settings = config.get(key)
            if isinstance(settings, dict):
                return settings.get("bits") or _METHODS.get(str(settings.get("quant_method") or settings.get("mode")))
    counts: Counter[int] = Counter()
    for file in chat.path.glob("model*.safetensors"):
        counts.update(_weights_by_bits(file))
    return counts.most_common(1)[0][0] if counts else None


def _weights_by_bits(file: Path) -> Counter[int]:
    """How many weights of each width a safetensors file holds; nothing for one without a readable header."""
    counts: Counter[int] = Counter()
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length <= file.stat().st_size:
                header = json.loads(stream.read(length))
                for tensor in (entry for name, entry in header.items() if name != "__metadata__"):
                    if tensor["dtype"] in _BITS:
                        counts[_BITS[tensor["dtype"]]] += math.prod(tensor["shape"])
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError):
        return Counter()  # whoever loads the weights says what is wrong with the file
    return counts
