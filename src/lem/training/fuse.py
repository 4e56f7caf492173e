"""`lem fuse`: merge an adapter into its base and prove that the saved model behaves like base + adapter.

A quantised base is de-quantised by default, because rounding a small change to the old 4-bit steps gives the base
back. The proof is made on the folder as it was written, loaded again, and a model that fails it is not kept.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from lem.chat.load import ChatModel, file_sha, load, read_adapter_config
from lem.chat.stored import load_stored, parameters
from lem.chat.trainings import ALL, rows, trainings_of_adapter, trainings_of_model
from lem.errors import CheckFailed, UserError
from lem.records.run import versions
from lem.records.staged import refuse_occupied, staged_folder
from lem.training import model_files, parity
from lem.training.parity import Bars, Proof

PROOF_FILE = "fuse_proof.json"
STEPS = ("base + adapter", "base alone", "merging", "fused model")
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


@dataclass(frozen=True)
class FuseSettings:
    """Float type of the result (None: as the base stores it), keep the quantisation or not, and how it is proven."""

    keep_quantised: bool = False
    dtype: str | None = None
    n_prompts: int = 20
    prompt_file: Path | None = None
    bars: Bars = field(default_factory=Bars)


@dataclass(frozen=True)
class Merged:
    """What the merging did: layers merged and de-quantised, float types of the result, whether it is quantised."""

    n_merged: int
    n_dequantised: int
    dtypes: tuple[str, ...]
    quantised: bool


@dataclass(frozen=True)
class FuseReport:
    """A fused model that passed its proof."""

    output: str
    merged: Merged
    model_sha: str
    proof: Proof


def fuse_adapter(
    model: str, adapter: Path, output: Path, settings: FuseSettings | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> FuseReport:  # fmt: skip
    """Merge a LoRA, DoRA or full adapter into its base and save the model to the new folder `output`.

    Args:  on_step: called with the name of each of `STEPS` as it begins.
    Raises: UserError if `output` is occupied, the adapter does not fit, or there is no room; CheckFailed if the
            saved model does not behave like base + adapter, in which case nothing is kept.
    """
    settings = settings or FuseSettings()
    refuse_occupied(output)
    prompts = parity.read_prompts(settings.n_prompts, settings.prompt_file)
    with staged_folder(output) as work, tempfile.TemporaryDirectory(dir=work.parent, prefix=".logits.") as logits:
        on_step(STEPS[0])
        chat = load(model, adapter, need_template=False)
        rows = parity.record_reference(chat, prompts, Path(logits))
        chat = replace(chat, model=None)
        on_step(STEPS[1])
        yardstick = parity.distance(load(model, need_template=False), rows)
        on_step(STEPS[2])
        merged = _write_fused(chat, adapter, work, settings)
        on_step(STEPS[3])
        fused = replace(load(str(work), need_template=False), name=f"{output} (fused)")
        proof = Proof(parity.distance(fused, rows), yardstick, settings.bars)
        if proof.faults:
            raise CheckFailed(_refusal(output, proof, merged, settings))
        report = FuseReport(str(output), merged, fused.model_sha, proof)
        _write_proof(work, report, chat, adapter, settings)
    return report


def _write_fused(chat: ChatModel, adapter: Path, folder: Path, settings: FuseSettings) -> Merged:
    """Merge in the float types of the files, not in those this machine computes with, and write the model folder."""
    module, loaded = load_stored(chat, adapter)
    dtype = None if settings.dtype is None else DTYPES[settings.dtype]
    n_merged = merge_layers(module, dtype, keep_quantised=settings.keep_quantised)
    if read_adapter_config(adapter).get("fine_tune_type") == "full":
        n_merged = len(mx.load(str(adapter / "adapters.safetensors")))
        _restore_types(module, model_files.float_types(load_stored(chat)[0]))
    if n_merged == 0:
        raise UserError(f"{adapter}: the adapter changes no layer of {chat.name}; there is nothing to fuse.")
    config = model_files.source_config(chat.path)
    n_plain = 0
    if settings.keep_quantised:
        model_files.keep_quantisation(config, loaded)
    else:
        n_plain = model_files.dequantise(module, chat.name, dtype)
    if dtype is not None:
        model_files.cast(module, dtype)
        config["torch_dtype"] = settings.dtype
        config.pop("dtype", None)
    if "vision_tower" not in getattr(module, "model", {}):
        config.pop("vision_config", None)  # mlx-lm left the vision part behind when it read the model
    quantised = any(name.endswith(".scales") for name in parameters(module))
    merged = Merged(n_merged, n_plain, model_files.float_type_names(module), quantised)
    model_files.write_model(folder, chat.path, model_files.take_parameters(module), config, "mlx")
    return merged


def merge_layers(module: Any, dtype: mx.Dtype | None = None, *, keep_quantised: bool) -> int:
    """Replace each LoRA or DoRA layer by the plain layer of the same function; return how many.

    W + scale * (B A) is summed in float32 and rounded once, to `dtype` or the type in which the base stores the
    layer; with `keep_quantised` it is quantised again with the base's bits and group size.
    """
    merged = []
    for path, layer in module.named_modules():
        if "lora_a" in layer and hasattr(layer, "fuse"):
            stored = model_files.layer_float_type(layer.get("linear") or layer["embedding"])
            layer.set_dtype(mx.float32)
            plain = layer.fuse(dequantize=not keep_quantised)
            plain.set_dtype(dtype or stored)
            merged.append((path, plain))
    module.update_modules(tree_unflatten(merged))
    return len(merged)


def _restore_types(module: Any, types: dict[str, mx.Dtype]) -> None:
    """A full adapter may hold float32 copies of weights; give them the base's types again."""
    now = parameters(module)
    module.load_weights([(name, now[name].astype(dtype)) for name, dtype in types.items()], strict=False)


def _refusal(output: Path, proof: Proof, merged: Merged, settings: FuseSettings) -> str:
    if settings.keep_quantised and merged.quantised:
        advice = "fuse without --keep-quantised, because rounding to the old steps swallows small changes"
    elif set(merged.dtypes) - {"float32"}:
        advice = "fuse with --dtype float32, or keep base and adapter apart (--adapter works in every command)"
    else:
        advice = "keep base and adapter apart (--adapter works in every command)"
    return (
        f"{output}: the fused model does not behave like base + adapter: {'; '.join(proof.faults)}; "
        f"nothing was kept; {advice}."
    )


def _write_proof(folder: Path, report: FuseReport, chat: ChatModel, adapter: Path, settings: FuseSettings) -> None:
    """What was fused from what and how it was checked, beside the weights."""
    record = {
        "model": chat.name,
        "base_model_sha": chat.model_sha,
        "adapter": chat.adapter,
        "adapter_sha": chat.adapter_sha,
        "fused_model_sha": report.model_sha,
        ALL: rows([*trainings_of_adapter(adapter, chat.adapter_sha), *trainings_of_model(chat.path, chat.model_sha)]),
        **asdict(report.merged),
        "n_prompts": settings.n_prompts,
        "max_tokens": parity.MAX_TOKENS,
        "prompts_sha": file_sha(settings.prompt_file or parity.PROMPTS_FILE),
        "proof": report.proof.to_dict(),
        "versions": versions(),
    }
    text = json.dumps(_without_nan(record), indent=1, ensure_ascii=False)
    (folder / PROOF_FILE).write_text(text + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and value != value else value
