"""A model exactly as its files store it: nothing cast to float32 and nothing read from the disk before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lem.chat.load import ChatModel, _apply_adapter, _first_line
from lem.errors import UserError


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
