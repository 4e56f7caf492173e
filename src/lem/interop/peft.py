"""LoRA and DoRA adapters from and to PEFT.

    mlx-lm                            PEFT (adapter_model.safetensors)
    PATH.lora_a  [in, r]              base_model.model.PATH.lora_A.weight  [r, in]    transposed
    PATH.lora_b  [r, out]             base_model.model.PATH.lora_B.weight  [out, r]   transposed
    PATH.m       [out]                base_model.model.PATH.lora_magnitude_vector     DoRA
    scale, used as it is              lora_alpha / r  (or lora_alpha / sqrt(r))

A missing transpose loads and computes something else when a matrix is square, so everything written is read back
and compared. mlx-lm has one rank and one scale an adapter: smaller ranks are filled up with zeros, other scales are
multiplied into lora_b; both leave the function as it is.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.chat import hf_names
from lem.chat.load import ChatModel, file_sha, load
from lem.chat.stored import load_stored, parameter_shapes
from lem.errors import DataError, UserError
from lem.interop.peft_config import CONFIG_FILE, PREFIX, WEIGHTS_FILE, PeftSettings, read_peft_config
from lem.records.staged import refuse_occupied, staged_folder

PROVENANCE_FILE = "lem_provenance.json"
_KEY = re.compile(
    rf"{re.escape(PREFIX)}(?P<module>.+)\.(?P<part>lora_[AB](?=\.weight$)|lora_magnitude_vector)(\.weight)?"
)
PARTS = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_magnitude_vector": "m"}


@dataclass(frozen=True)
class PeftReport:
    """What was written: layers, rank, scale, method, and how many layers were filled up or had their scale moved."""

    output: str
    n_layers: int
    rank: int
    scale: float
    method: str
    n_padded: int = 0
    n_rescaled: int = 0


def import_peft(source: Path, model: str, output: Path) -> PeftReport:
    """Write a PEFT LoRA or DoRA adapter as an mlx-lm adapter of `model` into the new folder `output`.

    Raises: UserError for what mlx-lm cannot express, a module that the model does not have, or another base;
            DataError for malformed files or tensors of the wrong shape.
    """
    import mlx.core as mx

    refuse_occupied(output)
    settings = read_peft_config(source)
    chat = load(model, need_template=False, weights=False)
    _refuse_other_base(source, chat)
    module = load_stored(chat)[0]
    hf_names.refuse_unknown(chat.config, parameter_shapes(module), chat.name)
    layers = read_tensors(source, chat)
    names = {path: hf_names.hf_module(chat.config, path) for path in layers}
    ranks = {path: _check_layer(source, module, path, layers[path], settings, names[path]) for path in layers}
    scales = {path: settings.scale_of(names[path]) for path in layers}
    if not any(scales.values()):
        raise UserError(f"{source}: its lora_alpha is 0, so the adapter does nothing; there is nothing to import.")
    rank, scale = max(ranks.values()), Counter(filter(None, scales.values())).most_common(1)[0][0]
    tensors: dict[str, Any] = {}
    for path, parts in layers.items():
        own = _mlx_layer(parts, rank - ranks[path], 1.0 if scales[path] == scale else scales[path] / scale)
        tensors |= {f"{path}.{part}": value for part, value in own.items()}
    with staged_folder(output) as work:
        mx.save_safetensors(str(work / "adapters.safetensors"), tensors, metadata={"format": "mlx"})
        parameters = {"rank": rank, "scale": scale, "dropout": settings.dropout}
        config = _mlx_config(chat, module, list(layers), parameters, source, dora=settings.use_dora)
        (work / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        load_stored(load(model, work, need_template=False, weights=False), work)  # mlx-lm reads what was written
    return PeftReport(
        str(output), len(layers), rank, scale, "dora" if settings.use_dora else "lora",
        sum(r != rank for r in ranks.values()), sum(s != scale for s in scales.values()),
    )  # fmt: skip


def _mlx_layer(parts: dict[str, Any], n_missing: int, factor: float) -> dict[str, Any]:
    """Transpose one layer, fill its rank up with zeros, and multiply what its scale lacks into `lora_b`."""
    import mlx.core as mx

    b = mx.pad(parts["lora_b"].T, [(0, n_missing), (0, 0)])
    layer = {
        "lora_a": mx.contiguous(mx.pad(parts["lora_a"].T, [(0, 0), (0, n_missing)])),
        "lora_b": mx.contiguous(b if factor == 1.0 else (b * factor).astype(b.dtype)),
    }
    return layer | ({"m": parts["m"]} if "m" in parts else {})


def _refuse_other_base(source: Path, chat: ChatModel) -> None:
    """An adapter that we exported says which base it belongs to."""
    file = source / PROVENANCE_FILE
    if not file.is_file():
        return
    try:
        wanted = json.loads(file.read_text(encoding="utf-8")).get("base_model_sha")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise DataError(f"{file}: not a readable provenance ({error}); restore or remove it.") from None
    if wanted is not None and wanted != chat.model_sha:
        raise UserError(
            f"{source}: this adapter belongs to a base with weights {str(wanted)[:12]}, not to {chat.name} "
            f"({chat.model_sha[:12]}); give --model its own base."
        )


def read_tensors(folder: Path, chat: ChatModel) -> dict[str, dict[str, Any]]:
    """The tensors of a PEFT file by mlx-lm module and part (`lora_a`, `lora_b`, `m`), not transposed yet.

    Raises: UserError for a tensor that is no LoRA or DoRA part of a module; DataError for an unreadable file.
    """
    import mlx.core as mx

    file = folder / WEIGHTS_FILE
    try:
        tensors: dict[str, Any] = mx.load(str(file))  # type: ignore[assignment]
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{file}: not a readable safetensors file ({str(error).splitlines()[0][:120]}).") from None
    layers: dict[str, dict[str, Any]] = {}
    for key, value in sorted(tensors.items()):
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError(f"{folder}: the tensor {key} {_why(key)}, so this adapter cannot be mapped to mlx-lm.")
        path = hf_names.mlx_module(chat.config, match["module"])
        parts, part = layers.setdefault(path, {}), PARTS[match["part"]]
        if part in parts:
            raise DataError(f"{file}: holds {match['part']} of {match['module']} twice, under two names.")
        if not mx.all(mx.isfinite(value)).item():
            raise DataError(f"{file}: the tensor {key} holds values that are not finite numbers.")
        parts[part] = value
    if not layers:
        raise DataError(f"{file}: holds no tensors.")
    return layers


def _why(key: str) -> str:
    reasons = {
        "modules_to_save": "is a whole trained module (modules_to_save)",
        "lora_embedding": "adapts an embedding",
        ".base_layer.": "is a copy of a base layer (save the adapter with save_embedding_layers=False)",
        ".bias": "is a bias",
    }
    return next((reason for part, reason in reasons.items() if part in key), "is not a LoRA matrix of a module")


def _check_layer(source: Path, module: Any, path: str, parts: dict[str, Any], settings: PeftSettings, name: str) -> int:
    """Check one layer's tensors against the model and the configuration; return its rank."""
    import mlx.nn as nn

    linear = dict(module.named_modules()).get(path)
    if not isinstance(linear, nn.Linear | nn.QuantizedLinear):
        kind = type(linear).__name__
        what = "no such module" if linear is None else f"a module of type {kind} there, which is not a linear layer"
        raise UserError(f"{source}: the adapter changes {name}, and the model has {what}; use the base it belongs to.")
    n_out, n_in = linear.weight.shape
    if isinstance(linear, nn.QuantizedLinear):
        n_in = n_in * 32 // linear.bits
    rank = settings.rank_of(name)
    wanted: dict[str, tuple[int, ...]] = {"lora_a": (rank, n_in), "lora_b": (n_out, rank)}
    if settings.use_dora:
        wanted["m"] = (n_out,)
    if set(parts) != set(wanted):
        raise DataError(f"{source}: {name} has {_listed(parts)} but needs {_listed(wanted)}.")
    for part, shape in wanted.items():
        if tuple(parts[part].shape) != shape:
            raise DataError(
                f"{source}: {_listed([part])} of {name} has shape {tuple(parts[part].shape)}, and rank and model "
                f"ask for {shape}; use the base it belongs to."
            )
    return rank


def _listed(parts: Any) -> str:
    names = {part: key for key, part in PARTS.items()}
    return ", ".join(sorted(names[part] for part in parts))


def _mlx_config(
    chat: ChatModel, module: Any, paths: list[str], parameters: dict[str, Any], source: Path, *, dora: bool
) -> dict[str, Any]:
    """mlx-lm's adapter configuration with the layers named, and where the adapter came from."""
    n_layers, keys = layer_keys(module, paths)
    return {
        "fine_tune_type": "dora" if dora else "lora",
        "num_layers": n_layers,
        "lora_parameters": {**parameters, "keys": keys},
        "model": chat.name,
        "base_model_sha": chat.model_sha,
        "imported_from": f"peft:{source.resolve().name}",
        "imported_sha": {name: file_sha(source / name) for name in (CONFIG_FILE, WEIGHTS_FILE)},
    }


def layer_keys(module: Any, paths: list[str]) -> tuple[int, list[str]]:
    """`num_layers` and `keys` with which mlx-lm adapts exactly these modules.

    mlx-lm adapts a key in each of the last `num_layers` blocks when it is a path inside a block, and once when it is
    a path of the whole model. Where the last blocks are not adapted all alike, every path is written in full.
    """
    blocks = {id(block): number for number, block in enumerate(module.layers)}
    inside: dict[int, set[str]] = {}
    outside = set(paths)
    for path, block in module.named_modules():
        if id(block) in blocks:
            own = {name for name in paths if name.startswith(f"{path}.")}
            outside -= own
            if own:
                inside[blocks[id(block)]] = {name.removeprefix(f"{path}.") for name in own}
    depth, n_layers = len(module.layers), len(inside)
    alike = set(inside) == set(range(depth - n_layers, depth)) and len(set(map(frozenset, inside.values()))) == 1
    if alike:
        return n_layers, sorted(next(iter(inside.values())) | outside)
    return depth, sorted(paths)
