"""The demo study: train an adapter on the kernel set once, and plan its A/B run against base, kernels and placebos.

The adapter's folder name carries a hash of base weights, data and settings, so a second demo finds the finished
adapter and another model, data set or recipe never meets it. Training happens in a neighbour folder that is moved
into place when it is complete; a leftover of a killed demo is recognised by its own configuration and removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lem.chat.load import file_sha, load, read_adapter_config
from lem.data import read_chat_examples
from lem.errors import UserError
from lem.paths import slug
from lem.stats import Estimate, PairedComparison, headline, paired_difference
from lem.training.dataset import encode
from lem.training.loss import row_losses
from lem.training.train import TrainingReport, TrainingSettings

Trainer = Callable[[str, Path, Path, TrainingSettings], TrainingReport]


@dataclass(frozen=True)
class HeldOutLoss:
    """Loss on examples that neither training nor validation saw, in nats per reply token, one value per example."""

    base: Estimate
    trained: Estimate
    change: PairedComparison


def adapter_folder(adapter_dir: Path, model: str, data: Path, settings: TrainingSettings) -> Path:
    """The folder of the demo's adapter for exactly this base, data and recipe."""
    base = load(model, weights=False)
    files = {name: file_sha(data / name) for name in ("train.jsonl", "valid.jsonl") if (data / name).is_file()}
    payload = json.dumps([base.model_sha, files, asdict(settings)], sort_keys=True)
    return adapter_dir / f"demo-{slug(model)}-{hashlib.sha256(payload.encode()).hexdigest()[:8]}"


def train_once(
    model: str, data: Path, folder: Path, settings: TrainingSettings, train: Trainer
) -> TrainingReport | None:
    """Train into `folder` unless it is already complete.

    Returns: the trainer's report, or None when the finished adapter was there.
    Raises: UserError if the folder or its working neighbour holds something that the demo did not make.
    """
    if (folder / "adapters.safetensors").is_file():
        return None
    partial = folder.with_name(folder.name + ".partial")
    for leftover in (folder, partial):
        if leftover.exists():
            _remove_leftover(leftover)
    report = train(model, data, partial, settings)
    partial.replace(folder)
    return report


def _remove_leftover(folder: Path) -> None:
    """Remove the unfinished work of a killed demo; anything else is left alone and reported."""
    names = {entry.name for entry in folder.iterdir()}
    if "adapter_config.json" in names:
        ours = "base_model_sha" in read_adapter_config(folder)
    else:
        ours = names <= {".lock"}
    if not ours:
        raise UserError(f"{folder} is in the way and was not made by the demo; move it, nothing was touched.")
    shutil.rmtree(folder)


def held_out_loss(model: str, adapter: Path, test: Path) -> HeldOutLoss:
    """Loss of base and trained model on each example of `test`, with intervals; each example is its own cluster."""
    losses: list[dict[str, float]] = []
    for chosen in (None, adapter):
        chat = load(model, chosen)
        rows = [encode(chat, example) for example in read_chat_examples(test)]
        losses.append({str(index): loss for index, loss in enumerate(row_losses(chat.model, rows))})
    base, trained = losses
    return HeldOutLoss(
        base=headline(list(base.values())),
        trained=headline(list(trained.values())),
        change=paired_difference(trained, base, threshold=0.0),
    )
