"""Fuse and convert through mlx-lm, with our checks in front; proofs of parity are not made here yet."""

from __future__ import annotations

from pathlib import Path

from mlx.utils import tree_unflatten
from mlx_lm.convert import convert
from mlx_lm.utils import save

from lem.chat.load import load, resolve_model_path
from lem.errors import UserError


def fuse_adapter(model: str, adapter: Path, output: Path) -> bool:
    """Merge an adapter into its base and save the result to the new folder `output`.

    Returns: True if the base is quantised, where rounding can swallow a small adapter.
    Raises: UserError if `output` exists or the adapter does not fit.
    """
    if output.exists():
        raise UserError(f"{output} exists; choose a new --output, nothing was touched.")
    chat = load(model, adapter)
    fused = [(name, layer.fuse()) for name, layer in chat.model.named_modules() if hasattr(layer, "fuse")]
    chat.model.update_modules(tree_unflatten(fused))
    save(output, chat.path, chat.model, chat.tokenizer, chat.config, donate_model=False)
    return "quantization" in chat.config or "quantization_config" in chat.config


def convert_model(model: str, output: Path, bits: int | None) -> None:
    """Convert a local or hub model to MLX format.   Raises: UserError for an unknown architecture."""
    path = resolve_model_path(model)
    try:
        convert(str(path), mlx_path=str(output), quantize=bits is not None, q_bits=bits or 4)
    except ValueError as error:
        raise UserError(f"{model}: cannot convert this model ({str(error).splitlines()[0][:200]}).") from None
