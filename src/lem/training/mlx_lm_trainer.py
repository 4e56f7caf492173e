"""mlx-lm's own LoRA loop on the same data and settings, as the peer that ours is compared with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from lem.chat.load import load, resolve_model_path
from lem.errors import LemError, UserError
from lem.training.methods import clamp_layers
from lem.training.prepare import refuse_occupied
from lem.training.settings import TrainingSettings

# What both loops understand; of the rest mlx-lm's loop knows nothing.
_SHARED = (
    "iters", "batch_size", "learning_rate", "num_layers", "rank", "scale", "dropout", "max_seq_length", "mask_prompt",
    "save_every", "report_every", "validate_every", "seed", "bias_correction", "grad_clip",
)  # fmt: skip


def train_with_mlx_lm(model: str, data: Path, output: Path, settings: TrainingSettings) -> None:
    """Run `python -m mlx_lm lora` with the settings that both loops share, its progress on the terminal.

    mlx-lm has no gradient clipping and counts one pad token per row; those differences are the comparison.
    Raises: UserError if `output` is occupied; LemError if mlx-lm fails.
    """
    refuse_occupied(output)
    default = TrainingSettings()
    for field in fields(settings):
        if field.name not in _SHARED and getattr(settings, field.name) != getattr(default, field.name):
            raise UserError(f"--trainer mlx-lm cannot do {field.name} {getattr(settings, field.name)}; leave it out.")
    chat = load(model)
    layers = clamp_layers(settings.num_layers, len(chat.model.layers))
    del chat
    output.mkdir(parents=True, exist_ok=True)
    config = output / "mlx_lm_config.yaml"
    config.write_text(
        f"lora_parameters:\n  rank: {settings.rank}\n  scale: {settings.scale}\n  dropout: {settings.dropout}\n",
        encoding="utf-8",
    )
    command = [
        sys.executable, "-m", "mlx_lm", "lora", "--train", "--model", str(resolve_model_path(model)),
        "--data", str(data), "--adapter-path", str(output), "--iters", str(settings.iters),
        "--batch-size", str(settings.batch_size), "--learning-rate", str(settings.learning_rate),
        "--num-layers", str(layers), "--save-every", str(settings.save_every), "--seed", str(settings.seed),
        "--max-seq-length", str(settings.max_seq_length), "--steps-per-report", str(settings.report_every),
        "--steps-per-eval", str(settings.validate_every), "-c", str(config),
    ]  # fmt: skip
    if settings.mask_prompt:
        command.append("--mask-prompt")
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise LemError(f"mlx_lm lora ended with exit code {code}; its output above says why.")
