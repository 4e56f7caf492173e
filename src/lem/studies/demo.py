"""The demo study: train an adapter on the kernel set once, and plan its A/B run against base, kernels and placebos.

The adapter's folder name carries a hash of base weights, data and settings, so a second demo finds the finished
adapter and another model, data set or recipe never meets it. Training happens in a neighbour folder that is moved
into place when it is complete; after a kill the next demo resumes it from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lem.chat.load import file_sha, load
from lem.data import read_chat_examples
from lem.errors import UserError
from lem.paths import slug
from lem.stats import Estimate, PairedComparison, headline, paired_difference
from lem.training.dataset import encode
from lem.training.loss import row_losses
from lem.training.settings import TrainingSettings
from lem.training.train import TrainingReport


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
    payload = json.dumps([base.model_sha, files, settings.identity], sort_keys=True)
    return adapter_dir / f"demo-{slug(model)}-{hashlib.sha256(payload.encode()).hexdigest()[:8]}"


def train_once(folder: Path, train: Callable[[Path], TrainingReport]) -> TrainingReport | None:
    """Train into `folder` unless it is already complete, by way of a neighbour that a killed demo goes on with.

    Returns: the trainer's report, or None when the finished adapter was there.
    Raises: UserError if the folder is there without an adapter in it.
    """
    if (folder / "adapters.safetensors").is_file():
        return None
    if folder.exists():
        raise UserError(f"{folder} is in the way and holds no adapter; move it, nothing was touched.")
    partial = folder.with_name(folder.name + ".partial")
    report = train(partial)
    partial.replace(folder)
    return report


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
