"""Model folders: weights de-quantised or cast where asked, everything else as the source had it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.utils import make_shards

from lem.chat.load import ChatModel, model_identity
from lem.chat.stored import parameters
from lem.chat.trainings import ALL, rows, trainings_of_model
from lem.errors import UserError

_COPIED = {".json", ".jinja", ".model", ".tiktoken", ".txt", ".py"}
# Weights and what describes them are written anew; a left-over quantisation file would be believed on loading, and
# mlx-lm leaves the vision part of a model behind.
_NOT_COPIED = {
    "config.json", "hf_quant_config.json", "adapter_config.json", "fuse_proof.json", "preprocessor_config.json",
    "processor_config.json", "lem_provenance.json",
}  # fmt: skip
PROVENANCE = "lem_provenance.json"
_QUANTISATION_KEYS = ("quantization", "quantization_config")


def float_types(module: Any) -> dict[str, mx.Dtype]:
    """The float type of every floating parameter, by name."""
    return {name: w.dtype for name, w in parameters(module).items() if mx.issubdtype(w.dtype, mx.floating)}


def float_type_names(module: Any) -> tuple[str, ...]:
    """Which float types occur among the parameters, sorted."""
    return tuple(sorted({str(dtype).removeprefix("mlx.core.") for dtype in float_types(module).values()}))


def layer_float_type(layer: Any) -> mx.Dtype:
    """The type a layer computes with: that of its weight, or of its scales when the weight is quantised."""
    kind = layer["scales"].dtype if "scales" in layer else layer.weight.dtype
    return kind if mx.issubdtype(kind, mx.floating) else mx.bfloat16  # MX formats keep their scales as bytes


def cast(module: Any, dtype: mx.Dtype) -> None:
    """Give all floating parameters one type, except those that the architecture keeps in float32."""
    keep = getattr(module, "cast_predicate", lambda name: True)
    weights = parameters(module)
    wanted = [(name, weights[name].astype(dtype)) for name in float_types(module) if keep(name)]
    module.load_weights(wanted, strict=False)


def dequantise(module: Any, name: str, dtype: mx.Dtype | None = None) -> int:
    """Replace all quantised layers by plain ones of the same values, rounded once to `dtype` or their float type.

    Returns: how many were replaced.   Raises: UserError for a quantised layer of another kind.
    """
    quantised = [(path, layer) for path, layer in module.named_modules() if _is_quantised(layer)]
    plain = [(path, _plain(layer, dtype or layer_float_type(layer))) for path, layer in quantised]
    module.update_modules(tree_unflatten(plain))
    left = next((path for path in parameters(module) if path.endswith(".scales")), None)
    if left is not None:
        raise UserError(f"{name}: {left.removesuffix('.scales')} is quantised in a way that cannot be undone here.")
    return len(plain)


def take_parameters(module: Any) -> dict[str, mx.array]:
    """All parameters by name, out of the module, which is left empty, so that they can be freed as they are written."""
    weights = parameters(module)
    module.update(tree_unflatten([(name, mx.array([])) for name in weights]))
    return weights


def _is_quantised(layer: Any) -> bool:
    return isinstance(layer, nn.QuantizedLinear | nn.QuantizedEmbedding | QuantizedSwitchLinear)


def _plain(layer: Any, dtype: mx.Dtype) -> Any:
    """The layer without quantisation: q * scale + bias in float32, rounded once."""
    scales, biases = (_exact(layer.get(part)) for part in ("scales", "biases"))
    weight = mx.dequantize(
        layer.weight, scales, biases, group_size=layer.group_size, bits=layer.bits, mode=layer.mode,
        global_scale=layer.get("global_scale"),
    ).astype(dtype)  # fmt: skip
    sizes = weight.shape
    plain: Any
    if isinstance(layer, nn.QuantizedEmbedding):
        plain = nn.Embedding(sizes[0], sizes[1])
    elif isinstance(layer, QuantizedSwitchLinear):
        plain = SwitchLinear(sizes[2], sizes[1], sizes[0], bias="bias" in layer)
    else:
        plain = nn.Linear(sizes[1], sizes[0], bias="bias" in layer)
    plain.weight = weight
    if "bias" in layer:
        plain.bias = layer.bias
    return plain


def _exact(part: Any) -> Any:
    return part.astype(mx.float32) if part is not None and mx.issubdtype(part.dtype, mx.floating) else part


def source_config(source: Path) -> dict[str, Any]:
    """`config.json` as it stands in a model folder, without keys that name its origin or say how it is quantised."""
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    for part in (config, config.get("text_config") or {}):
        for key in ("_name_or_path", *_QUANTISATION_KEYS):
            part.pop(key, None)
    return config


def keep_quantisation(config: dict[str, Any], loaded: Mapping[str, Any]) -> None:
    """Write into `config` how the module is quantised, from the configuration that mlx-lm loaded it with."""
    config |= {key: loaded[key] for key in _QUANTISATION_KEYS if key in loaded}


def write_model(folder: Path, source: Path, weights: dict[str, mx.array], config: dict[str, Any], form: str) -> None:
    """Write a loadable model folder: sharded safetensors, config.json, and tokenizer and other files of the source.

    Args:  weights: emptied, so that each shard can be freed once it is written.  form: the `format` note in the
           safetensors header, "mlx" or "pt".
    Raises: UserError if the disk is full.
    """
    names, shards = sorted(weights), make_shards(dict(sorted(weights.items())))
    total = sum(value.nbytes for value in weights.values())
    weights.clear()
    _refuse_too_large(folder, total)
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        where |= dict.fromkeys(shard, file)
        try:
            mx.save_safetensors(str(folder / file), shard, metadata={"format": form})
        except RuntimeError as error:
            raise UserError(f"{folder}: could not write the weights ({error}); make room on the disk.") from None
        shard.clear()
    index = {"metadata": {"total_size": total}, "weight_map": {name: where[name] for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    text = json.dumps(dict(sorted(config.items())), indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    for file_ in source.iterdir():
        if file_.suffix in _COPIED and file_.name not in _NOT_COPIED and not file_.name.endswith(".index.json"):
            shutil.copyfile(file_, folder / file_.name)


def write_provenance(folder: Path, source: ChatModel) -> None:
    """Say in a finished model folder what it was made of, so that its lineage is known: `lem_provenance.json`."""
    made = {
        "model": source.name, "base_model_sha": source.model_sha, "model_sha": model_identity(folder),
        ALL: rows(trainings_of_model(source.path, source.model_sha)),
    }  # fmt: skip
    (folder / PROVENANCE).write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _refuse_too_large(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise UserError(
            f"{folder.parent}: the model needs {n_bytes / 1e9:.3g} GB and the disk has {free / 1e9:.3g} GB free; "
            "make room or choose another --output."
        )
