"""A share of an adapter: the same adapter applied more weakly or more strongly, for dose-response arms.

With weights W, the update D of a LoRA (its own scale included), the magnitude m of a DoRA and a dose s, a row of the
adapted weights is

    LoRA  W + s D
    DoRA  (|W| + s (m - |W|)) * (W + s D) / |W + s D|

so that 0 is the model alone and 1 the adapter itself, and both parts of DoRA, direction and magnitude, move together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lem.errors import UserError


def check_scale(adapter: Path | None, settings: Mapping[str, Any], scale: float) -> None:
    """Refuse a scale that cannot be applied.

    Args:  settings: the adapter's `adapter_config.json`.
    Raises: UserError for a scale that is no number of 0 or more, one without an adapter, or other than 1 for an
            adapter that holds whole weights.
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise UserError(f"an adapter scale of {scale:g} cannot be applied; give a number of 0 or more.")
    if scale == 1:
        return
    if adapter is None:
        raise UserError(f"an adapter scale of {scale:g} needs an adapter to apply it to; give --adapter NAME=DIR.")
    if settings.get("fine_tune_type", "lora") == "full":
        raise UserError(
            f"{adapter}: this adapter holds whole weights (trained in full), which cannot be applied at a scale of "
            f"{scale:g}; leave out --adapter-scale, or train with --method lora."
        )


def scale_adapter(module: Any, scale: float) -> None:
    """Multiply what the adapter layers of a loaded module add, in place.

    Raises: UserError for a kind of adapter layer that has no scale.
    """
    for name, layer in module.named_modules():
        if "lora_a" not in layer:
            continue
        if not isinstance(getattr(layer, "scale", None), int | float):
            raise UserError(f"layer {name} ({type(layer).__name__}) has no scale; leave out --adapter-scale.")
        layer.scale = layer.scale * scale
        if "m" in layer:
            before = _row_norms(layer)
            layer.m = before + scale * (layer.m - before)


def _row_norms(layer: Any) -> Any:
    """Lengths of the rows of the weights below a DoRA layer, as mlx-lm computes them for a fresh one."""
    import mlx.core as mx

    weight = layer.embedding.weight if "embedding" in layer else layer._dequantized_weight()
    return mx.linalg.norm(weight.astype(mx.float32), axis=1)
