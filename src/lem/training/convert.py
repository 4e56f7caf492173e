"""`lem convert`: Hugging Face models to MLX, quantised if asked, and MLX models back to Hugging Face safetensors.

The way back de-quantises, gives the tensors the names that transformers uses, and is proven by loading the result
and comparing logits. Float types stay as they are stored.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mlx_lm.utils import quantize_model

from lem.chat import hf_names
from lem.chat.load import ChatModel, load
from lem.chat.stored import load_stored, parameter_shapes
from lem.errors import CheckFailed, UserError
from lem.records.staged import refuse_occupied, staged_folder
from lem.training import model_files, parity
from lem.training.parity import Bars, Proof

# The same weights give the same logits; de-quantised ones differ in the last bits of their float type.
EXACT = Bars(min_agreement=1.0, max_kl_nats=1e-6)


@dataclass(frozen=True)
class ConvertReport:
    """What was written: the target format, float types, layers quantised or de-quantised, and the proof (hf only)."""

    output: str
    target: Literal["mlx", "hf"]
    dtypes: tuple[str, ...]
    n_quantised: int
    n_dequantised: int
    n_layers: int
    proof: Proof | None


def convert_to_mlx(model: str, output: Path, bits: int | None = None, group_size: int = 64) -> ConvertReport:
    """Write a local or hub model as an MLX model folder, quantised to `bits` if given.

    Raises: UserError if `output` is occupied, the model is unreadable, already quantised, or has no layer whose
            width is a multiple of `group_size`.
    """
    refuse_occupied(output)
    chat = load(model, need_template=False, weights=False)
    with staged_folder(output) as work:
        module, loaded = load_stored(chat)
        config = model_files.source_config(chat.path)
        n_layers = _n_layers(module)
        n_quantised = 0
        if bits is None:
            model_files.keep_quantisation(config, loaded)
        else:
            n_quantised = _quantise(module, config, loaded, chat, bits, group_size)
        if "vision_tower" not in getattr(module, "model", {}):
            config.pop("vision_config", None)  # mlx-lm left the vision part behind when it read the model
        dtypes = model_files.float_type_names(module)
        model_files.write_model(work, chat.path, model_files.take_parameters(module), config, "mlx")
        model_files.write_provenance(work, chat)
    return ConvertReport(str(output), "mlx", dtypes, n_quantised, 0, n_layers, None)


def _n_layers(module: Any) -> int:
    """Layers that are quantised or could be."""
    return sum(hasattr(layer, "to_quantized") or "scales" in layer for _, layer in module.named_modules())


def _quantise(
    module: Any, config: dict[str, Any], loaded: dict[str, Any], chat: ChatModel, bits: int, group_size: int
) -> int:
    if "quantization" in loaded or "quantization_config" in loaded:
        raise UserError(f"{chat.name} is already quantised; give --model the original, or leave -q out.")
    with contextlib.redirect_stdout(io.StringIO()):  # mlx-lm prints its own summary
        try:
            _, quantised = quantize_model(module, config, group_size, bits)
        except ValueError as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(f"{chat.name}: cannot be quantised to {bits} bits ({reason}).") from None
    count = sum("scales" in layer for _, layer in module.named_modules())
    if count == 0:
        raise UserError(f"{chat.name}: no layer's width is a multiple of {group_size}; use --group-size 32.")
    model_files.keep_quantisation(config, quantised)
    return count


def convert_to_hf(model: str, output: Path, *, n_prompts: int = 20, prompt_file: Path | None = None) -> ConvertReport:
    """Write a model as Hugging Face safetensors: de-quantised, with transformers' tensor names, proven by logits.

    Of a multimodal model only the text model is left, and it is written as such.
    Raises: UserError for an architecture whose tensors mlx-lm reshaped or whose names are not known;
            CheckFailed if the written model, loaded again, behaves differently; nothing is kept then.
    """
    refuse_occupied(output)
    prompts = parity.read_prompts(n_prompts, prompt_file)
    chat = load(model, need_template=False, weights=False)
    module = load_stored(chat)[0]
    hf_names.refuse_unknown(chat.config, parameter_shapes(module), chat.name)
    with staged_folder(output) as work, tempfile.TemporaryDirectory(dir=work.parent, prefix=".logits.") as logits:
        n_layers = _n_layers(module)
        n_plain = model_files.dequantise(module, chat.name)
        dtypes = model_files.float_type_names(module)
        _write_hf(chat, module, work)
        rows = parity.record_reference(load(model, need_template=False), prompts, Path(logits))
        bars = Bars() if n_plain else EXACT
        converted = replace(load(str(work), need_template=False), name=f"{output} (converted)")
        proof = Proof(parity.distance(converted, rows), None, bars)
        if proof.faults:
            raise CheckFailed(
                f"{output}: the converted model does not behave like {chat.name}: {'; '.join(proof.faults)}; "
                "nothing was kept; please report this architecture."
            )
    return ConvertReport(str(output), "hf", dtypes, 0, n_plain, n_layers, proof)


def _write_hf(chat: ChatModel, module: Any, folder: Path) -> None:
    stored = model_files.source_config(chat.path)
    text_args = asdict(module.language_model.args) if hf_names.is_text_of_multimodal(stored) else {}
    config = hf_names.hf_config(stored, text_args)
    if "torch_dtype" not in config and "dtype" not in config:
        most = Counter(model_files.float_types(module).values()).most_common(1)[0][0]
        config["torch_dtype"] = str(most).removeprefix("mlx.core.")
    weights = {hf_names.checkpoint_name(stored, name): w for name, w in model_files.take_parameters(module).items()}
    model_files.write_model(folder, chat.path, weights, config, "pt")
    model_files.write_provenance(folder, chat)
