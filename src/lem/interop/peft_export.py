"""An mlx-lm adapter written as a PEFT adapter; the tensors are described in `lem.interop.peft`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lem import __version__
from lem.chat import hf_names
from lem.chat.load import ChatModel, adapter_identity, load, read_adapter_config
from lem.chat.stored import load_stored, parameter_shapes
from lem.errors import UserError
from lem.interop.peft import PROVENANCE_FILE, PeftReport, read_tensors
from lem.interop.peft_config import CONFIG_FILE, PREFIX, WEIGHTS_FILE, peft_config
from lem.records.staged import refuse_occupied, staged_folder


def export_peft(adapter: Path, output: Path, model: str | None = None) -> PeftReport:
    """Write an mlx-lm adapter as a PEFT adapter into the new folder `output`.

    Args:  model: the base; default: the one that the adapter's configuration names.
    Raises: UserError if the adapter does not fit its base, is a full fine-tune, or has layers PEFT has no form for.
    """
    refuse_occupied(output)
    adapter_identity(adapter)
    settings = read_adapter_config(adapter)
    method = settings.get("fine_tune_type", "lora")
    if method not in ("lora", "dora"):
        raise UserError(f"{adapter}: a '{method}' adapter has no PEFT form; merge it with `lem fuse` instead.")
    base = model or settings.get("model")
    if not base:
        raise UserError(f"{adapter}: its configuration does not name the base model; give --model.")
    chat = load(base, adapter, need_template=False, weights=False)
    module = load_stored(chat, adapter)[0]
    hf_names.refuse_unknown(chat.config, _base_shapes(module, adapter), chat.name)
    layers = {path: layer for path, layer in module.named_modules() if "lora_a" in layer}
    if not layers:
        raise UserError(f"{adapter}: the adapter changes no layer of {chat.name}; there is nothing to export.")
    first = next(iter(layers.values()))
    rank, scale = int(first.lora_a.shape[1]), float(first.scale)
    dropout = float(settings.get("lora_parameters", {}).get("dropout", 0.0))
    targets = _targets(chat, module, list(layers))
    with staged_folder(output) as work:
        _write_tensors(work, chat, adapter)
        (work / CONFIG_FILE).write_text(peft_config(base, rank, scale, dropout, targets, dora=method == "dora"))
        provenance = {
            "base_model_sha": chat.model_sha, "adapter_sha": chat.adapter_sha, "exported_by": f"lem {__version__}",
        }  # fmt: skip
        (work / PROVENANCE_FILE).write_text(json.dumps(provenance, indent=1) + "\n")
    return PeftReport(str(output), len(layers), rank, scale, method)


def _base_shapes(module: Any, adapter: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the base's own parameters, after refusing adapted layers that are not linear."""
    import mlx.nn as nn

    for path, layer in module.named_modules():
        if "lora_a" in layer and not isinstance(layer.get("linear"), nn.Linear | nn.QuantizedLinear):
            kind = type(layer).__name__
            raise UserError(f"{adapter}: {path} is adapted by {kind}, which has no PEFT form; only linear layers do.")
    shapes = parameter_shapes(module)
    return {name: shape for name, shape in shapes.items() if name.rsplit(".", 1)[-1] not in ("lora_a", "lora_b", "m")}


def _targets(chat: ChatModel, module: Any, adapted: list[str]) -> dict[str, Any]:
    """`target_modules` and `layers_to_transform` that make PEFT adapt exactly these modules.

    Short names where they say the same, because many readers expect them; full names otherwise.
    """
    names = sorted({path.rsplit(".", 1)[-1] for path in adapted})
    alike = {path for path, _ in module.named_modules() if path.rsplit(".", 1)[-1] in names}
    numbers = {path: _layer_number(path) for path in alike}
    chosen = {numbers[path] for path in adapted}
    if not hf_names.is_text_of_multimodal(chat.config):
        if alike == set(adapted):
            return {"target_modules": names, "layers_to_transform": None}
        if None not in chosen and {path for path in alike if numbers[path] in chosen} == set(adapted):
            return {"target_modules": names, "layers_to_transform": sorted(chosen, key=int)}
    return {"target_modules": sorted(hf_names.hf_module(chat.config, path) for path in adapted),
            "layers_to_transform": None}  # fmt: skip


def _layer_number(path: str) -> int | None:
    match = re.match(r".*?\.[^.]*\.(\d+)\.", path)  # the first number, as PEFT finds it
    return int(match[1]) if match else None


def _write_tensors(folder: Path, chat: ChatModel, adapter: Path) -> None:
    """Write the transposed tensors in their own float type, read them back and compare every number."""
    import mlx.core as mx

    names = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}
    stored: dict[str, Any] = mx.load(str(adapter / "adapters.safetensors"))  # type: ignore[assignment]
    tensors = {}
    for name, value in stored.items():
        path, _, part = name.rpartition(".")
        tensors[f"{PREFIX}{hf_names.hf_module(chat.config, path)}.{names[part]}"] = mx.contiguous(value.T)
    mx.save_safetensors(str(folder / WEIGHTS_FILE), tensors, metadata={"format": "pt"})
    again = read_tensors(folder, chat)
    for name, value in stored.items():
        path, _, part = name.rpartition(".")
        if not mx.array_equal(again[path][part].T, value, equal_nan=True):
            raise RuntimeError(f"{name} reads back differently")
