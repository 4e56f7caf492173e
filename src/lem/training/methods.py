"""Methods: what is trained in a frozen model - LoRA, DoRA, LoRA on a quantised base, or the blocks themselves.

mlx-lm's layers are used, so that mlx-lm reads the result. Trainable weights and with them the optimiser's state are
float32 whatever the base is. `full` trains every weight of the chosen blocks; embeddings, final norm and output head
stay frozen, as in mlx-lm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from lem.chat.load import ChatModel, adapter_identity, read_adapter_config
from lem.errors import UserError
from lem.training.settings import TrainingSettings

_LINEAR = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
_ZERO_ROW = 1e-3
_QUANTIZED = (nn.QuantizedLinear, QuantizedSwitchLinear, nn.QuantizedEmbedding)


@dataclass(frozen=True)
class Applied:
    """What was put on a model: blocks, module names within a block (None: all), numbers of parameters."""

    num_layers: int
    keys: tuple[str, ...] | None
    n_trainable: int
    n_total: int


def clamp_layers(wanted: int, depth: int) -> int:
    """Layers to adapt: -1 or more than the model has means all.   Raises: UserError for 0 or below -1."""
    if wanted == 0 or wanted < -1:
        raise UserError(f"--num-layers must be -1 (all) or at least 1 (got {wanted}).")
    return depth if wanted == -1 else min(wanted, depth)


def is_quantized(model: Any) -> bool:
    """Whether any linear layer of the model's blocks is stored quantised."""
    return any(isinstance(module, _QUANTIZED) for layer in model.layers for _, module in layer.named_modules())


def apply_method(chat: ChatModel, settings: TrainingSettings) -> Applied:
    """Freeze the model and make trainable what the settings say; initial weights come from the seed.

    Raises: UserError for qlora on a base that is not quantised, full on one that is, an unknown target (listing
            those there are), DoRA where mlx-lm has none, or when nothing would be trained.
    """
    model = chat.model
    quantized = is_quantized(model)
    if settings.method == "qlora" and not quantized:
        raise UserError(
            f"{chat.name}: --method qlora needs a quantised base; use `lem convert -q 4`, or --method lora."
        )
    if settings.method == "full" and quantized:
        raise UserError(f"{chat.name}: quantised weights cannot be trained in full; use --method qlora.")
    layers = clamp_layers(settings.num_layers, len(model.layers))
    keys = resolve_targets(model, settings.targets) if settings.targets else None
    if settings.method == "dora":
        _refuse_dora(chat, layers, keys)
    mx.random.seed(settings.seed)
    model.freeze()
    if settings.method == "full":
        _unfreeze_blocks(model, layers, keys)
    else:
        parameters: dict[str, Any] = {"rank": settings.rank, "scale": settings.scale, "dropout": settings.dropout}
        if keys is not None:
            parameters["keys"] = list(keys)
        linear_to_lora_layers(model, layers, parameters, use_dora=settings.method == "dora")
        _leave_zero_rows(model)
    model.update(tree_map(lambda value: value.astype(mx.float32), model.trainable_parameters()))
    mx.eval(model.parameters())
    n_trainable = sum(int(value.size) for _, value in flat(model.trainable_parameters()))
    if n_trainable == 0:
        raise UserError(f"{chat.name}: nothing to train with these settings (0 trainable parameters).")
    n_total = sum(int(value.size) for _, value in flat(model.parameters()))
    return Applied(layers, keys, n_trainable, n_total)


def _refuse_dora(chat: ChatModel, layers: int, keys: tuple[str, ...] | None) -> None:
    """Refuse DoRA on layers that mlx-lm's cannot hold: experts, and weights that it would unpack wrongly."""
    for layer in chat.model.layers[-layers:]:
        for name, module in layer.named_modules():
            if keys is not None and name not in keys:
                continue
            what = ""
            if isinstance(module, SwitchLinear | QuantizedSwitchLinear):
                what = "the layers of experts"
            elif isinstance(module, nn.QuantizedLinear) and (32 % module.bits or module.mode != "affine"):
                what = f"weights in {module.bits} bits ({module.mode})"
            if what:
                raise UserError(f"{chat.name}: --method dora cannot adapt {what} ({name}); use --method lora.")


def _leave_zero_rows(model: Any) -> None:
    """Give weight rows that are all zero a direction, so that DoRA's magnitude / norm is 0 / small and not 0 / 0.

    Their magnitude stays 0, so the fresh adapter still changes no output. lem-nano has such rows, and so have models
    with padded or pruned weights.
    """
    for _, module in model.named_modules():
        if isinstance(module, DoRALinear):
            first = (mx.arange(module.lora_b.shape[0]) == 0)[:, None]
            module.lora_b = mx.where((module.m == 0)[None] & first, _ZERO_ROW, module.lora_b)


def flat(tree: Any) -> list[tuple[str, mx.array]]:
    """A parameter tree as (dotted name, array) pairs."""
    pairs: Any = tree_flatten(tree)
    return list(pairs)


def _unfreeze_blocks(model: Any, layers: int, keys: tuple[str, ...] | None) -> None:
    for layer in model.layers[-layers:]:
        if keys is None:
            layer.unfreeze()
            continue
        for name, module in layer.named_modules():
            if name in keys:
                module.unfreeze()


def target_names(model: Any) -> list[str]:
    """Names within a block of every layer that can be adapted, such as `self_attn.q_proj`."""
    names = {
        name
        for layer in model.layers
        for name, module in layer.named_modules()
        if isinstance(module, _LINEAR) or hasattr(module, "to_lora")
    }
    return sorted(names)


def resolve_targets(model: Any, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Full names within a block for targets given in full (`mlp.up_proj`) or by their last part (`up_proj`).

    Raises: UserError for a target that does not exist, listing those that do.
    """
    names = target_names(model)
    found: set[str] = set()
    for target in targets:
        matching = [name for name in names if name == target or name.endswith("." + target)]
        if not matching:
            raise UserError(f"--target {target}: no such module in this model's blocks; there are {', '.join(names)}.")
        found.update(matching)
    return tuple(sorted(found))


def load_start(chat: ChatModel, adapter: Path, settings: TrainingSettings) -> str:
    """Put an earlier adapter's weights into the fresh trainable layers, to train them further; returns its hash.

    Raises: UserError if the adapter belongs to another base, method, rank, scale or set of layers.
    """
    sha = adapter_identity(adapter)
    config = read_adapter_config(adapter)
    base = config.get("base_model_sha")
    if base is not None and base != chat.model_sha:
        raise UserError(f"{adapter}: this adapter was trained on another base ({str(base)[:12]}); use that one.")
    fine_tune_type = "lora" if settings.method == "qlora" else settings.method
    if config.get("fine_tune_type", "lora") != fine_tune_type:
        made = config.get("fine_tune_type")
        raise UserError(f"{adapter}: a {made} adapter cannot start a {settings.method} training; use --method {made}.")
    scale = (config.get("lora_parameters") or {}).get("scale")
    if fine_tune_type != "full" and scale != settings.scale:
        raise UserError(f"{adapter}: its scale is {scale}, not {settings.scale}; give --scale {scale}.")
    weights = _read_tensors(adapter / "adapters.safetensors")
    _check_same_tensors(adapter, weights, dict(flat(chat.model.trainable_parameters())))
    chat.model.load_weights([(name, value.astype(mx.float32)) for name, value in weights.items()], strict=False)
    mx.eval(chat.model.parameters())
    return sha


def _read_tensors(path: Path) -> dict[str, mx.array]:
    try:
        weights = mx.load(str(path))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({' '.join(str(error).split())[:120]}).") from None
    assert isinstance(weights, dict)
    return weights


def _check_same_tensors(adapter: Path, found: dict[str, mx.array], wanted: dict[str, mx.array]) -> None:
    for name in sorted(set(found) ^ set(wanted)):
        where = "the adapter has" if name in found else "the adapter lacks"
        raise UserError(f"{adapter}: {where} {name}; train with the layers, rank and targets that it was made with.")
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise UserError(
                f"{adapter}: {name} has shape {tuple(value.shape)}, not {tuple(wanted[name].shape)}; give the --rank "
                "that it was made with."
            )
