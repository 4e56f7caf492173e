"""What a training starts from: rows, schedule, identity, the adapter's configuration, and the state of its folder."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
from threadpoolctl import threadpool_info

from lem.chat.load import ChatModel, file_sha
from lem.chat.trainings import BEFORE, rows, trainings_of_adapter
from lem.data import read_chat_examples
from lem.data.contamination import refuse_probes
from lem.errors import UserError
from lem.records import text_sha, write_atomic
from lem.training.batches import Schedule
from lem.training.checkpoint import MARKER, is_temporary
from lem.training.dataset import RowSet, Sandwich, TooLong, encode_file
from lem.training.methods import Applied
from lem.training.settings import TrainingSettings, as_json

FILES = ("train.jsonl", "valid.jsonl")
# What a training leaves that was killed before its first checkpoint was committed.
_BEGUN = re.compile(
    r"adapter_config\.json|metrics\.jsonl|loss\.png|probes|0000000_(adapters|optimizer|best)\.safetensors"
)


@dataclass(frozen=True)
class TrainingData:
    """Encoded rows of a data folder and the hashes of its files; `valid` is None without a valid.jsonl."""

    train: RowSet
    valid: RowSet | None
    shas: dict[str, str]


def read_data(
    chat: ChatModel, data: Path, settings: TrainingSettings, sandwich: Sandwich | None, seeds: Sequence[Path] = ()
) -> TrainingData:
    """Encode train.jsonl and valid.jsonl.

    Raises: UserError or DataError for anything wrong with them, or for an evaluation probe of `seeds` among them.
    """
    if (settings.format == "sandwich") != (sandwich is not None):
        raise UserError("the sandwich format needs a kernel and a signature, and no other format takes them.")
    paths = {name: data / name for name in FILES if name == FILES[0] or (data / name).is_file()}
    if settings.patience and FILES[1] not in paths:
        raise UserError(f"--patience needs a {data / FILES[1]} to watch; write one or leave it out.")
    if seeds:
        for path in paths.values():
            _refuse_probes(path, seeds)
    too_long: TooLong = "drop" if settings.too_long == "drop" else "truncate"
    limit, mask = settings.max_seq_length, settings.mask_prompt
    rows = {
        name: encode_file(chat, path, limit, mask_prompt=mask, too_long=too_long, sandwich=sandwich)
        for name, path in paths.items()
    }
    return TrainingData(rows[FILES[0]], rows.get(FILES[1]), {name: file_sha(path) for name, path in paths.items()})


def _refuse_probes(path: Path, seeds: Sequence[Path]) -> None:
    """Refuse a chat file that holds the id or the words of an evaluation probe, system turns included."""
    examples = [(f"{path} line {example.line}", example) for example in read_chat_examples(path)]
    texts = [
        (place, text)
        for place, example in examples
        for text in (example.prompt, example.answer, *(m["content"] for m in example.messages if m["role"] == "system"))
    ]
    refuse_probes(texts, seeds, [(place, example.id) for place, example in examples if example.id])


def make_schedule(rows: RowSet, settings: TrainingSettings) -> tuple[Schedule, TrainingSettings]:
    """The batches, and the settings with `epochs` turned into iterations."""
    schedule = Schedule(
        rows.rows, settings.batch_size, settings.accumulation, settings.seed,
        settings.max_seq_length if settings.pack else None,
    )  # fmt: skip
    if settings.epochs is not None:
        settings = replace(settings, iters=settings.epochs * schedule.steps_per_epoch, epochs=None)
    return schedule, settings


def template_sha(chat: ChatModel) -> str:
    """SHA-256 of the chat template's text, so that another template at serving time can be noticed."""
    return text_sha(str(chat.tokenizer.chat_template))


def identity_of(
    chat: ChatModel, data: TrainingData, settings: TrainingSettings, sandwich: Sandwich | None, parent: str | None
) -> dict[str, Any]:
    """Everything that decides the trained weights, by name; its hash is the configuration hash."""
    return {
        "base_model": chat.model_sha,
        "template": template_sha(chat),
        "data": data.shas,
        "kernel": None if sandwich is None else text_sha(sandwich.kernel + "\0" + sandwich.signature),
        "parent_adapter": parent,
        "settings": settings.identity,
    }


def machine_facts(n_ranks: int) -> dict[str, Any]:
    """What bit-exactness depends on beside the identity: device, MLX, BLAS and its threads, ranks."""
    blas = [f"{lib['internal_api']} {lib['num_threads']}" for lib in threadpool_info() if lib["user_api"] == "blas"]
    return {
        "device": str(mx.default_device()),
        "mlx": version("mlx"),
        "blas": sorted(set(blas)) or ["bundled"],
        "ranks": n_ranks,
    }


def warn_of_changes(output: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warn of machine facts that changed since a checkpoint was written."""
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        warnings.warn(
            f"{output}: {', '.join(changed)} changed since the checkpoint; the result will be as good, but not the "
            "same to the bit.",
            stacklevel=2,
        )


def adapter_config(
    chat: ChatModel, data: Path, shas: dict[str, str], settings: TrainingSettings, applied: Applied,
    parent: str | None, start: Path | None = None,
) -> str:  # fmt: skip
    """The text of adapter_config.json: mlx-lm's keys, our settings, and where everything came from.

    Args:  parent, start: hash and folder of the adapter that the training begins from.
    """
    parameters: dict[str, Any] = {"rank": settings.rank, "scale": settings.scale, "dropout": settings.dropout}
    if applied.keys is not None:
        parameters["keys"] = list(applied.keys)
    config = {
        "fine_tune_type": "lora" if settings.method == "qlora" else settings.method,
        "num_layers": applied.num_layers,
        "lora_parameters": parameters,
        "model": chat.name,
        "base_model_sha": chat.model_sha,
        "template_sha": template_sha(chat),
        "parent_adapter": None if start is None else str(start),
        "parent_adapter_sha": parent,
        "data": str(data),
        "data_sha": shas,
        BEFORE: [] if start is None else rows(trainings_of_adapter(start, parent)),
        "seed": settings.seed,
        "training": as_json(settings),
    }
    return json.dumps(config, indent=1) + "\n"


def write_config(output: Path, text: str) -> None:
    """Write adapter_config.json."""
    write_atomic(output / "adapter_config.json", text)


def refuse_occupied(output: Path, resume: bool = False) -> None:
    """Refuse to train into a folder that holds anything; to resume, one that holds anything but a training.

    Raises: UserError.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"{output} is a file; choose another --adapter-path, nothing was touched.")
    names = {entry.name for entry in output.iterdir() if entry.name != ".lock"}
    if not names:
        return
    if not resume:
        again = ", go on with it by --resume," if MARKER in names else ""
        raise UserError(
            f"{output} is not empty; choose another --adapter-path{again} or remove it, nothing was touched."
        )
    if MARKER not in names and not all(_BEGUN.fullmatch(name) or is_temporary(name) for name in names):
        raise UserError(f"{output} holds no checkpoint of a training; choose another --adapter-path.")
