"""PEFT's `adapter_config.json`: what it means for a LoRA layer, and which of its options change that meaning.

PEFT has many options and gains more. Options that only say how an adapter was made are ignored; an option that
changes what the layers compute, and any unknown one that is set, is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."

# How it was made or where it came from; the tensors themselves say which modules and layers they belong to.
_HARMLESS = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "init_lora_weights", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias", "megatron_core",
    "loftq_config", "eva_config", "runtime_config", "qalora_group_size", "ensure_weight_tying",
}  # fmt: skip
# Other ways of starting (pissa, olora, loftq, corda, lora_ga) also change the base model's weights.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class PeftSettings:
    """The part of a PEFT configuration that decides what its layers compute."""

    rank: int
    alpha: float
    dropout: float
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    use_rslora: bool
    use_dora: bool
    base: str | None

    def rank_of(self, module: str) -> int:
        """The rank PEFT gives a module: the first pattern that matches the end of its name, else the general one."""
        return self.rank_pattern.get(_matching(self.rank_pattern, module), self.rank)

    def scale_of(self, module: str) -> float:
        """What PEFT multiplies B A with: alpha / r, or alpha / sqrt(r) with rank-stabilised LoRA."""
        alpha, rank = self.alpha_pattern.get(_matching(self.alpha_pattern, module), self.alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def _matching(patterns: dict[str, Any], module: str) -> str:
    """The key that PEFT would pick: a pattern is a regular expression for the end of the module's name."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), module)


def read_peft_config(folder: Path) -> PeftSettings:
    """Read a PEFT adapter's configuration.

    Raises: UserError if a file is missing or an option cannot be expressed in mlx-lm; DataError if it is malformed.
    """
    raw = _read_json(folder)
    if raw.get("peft_type") != "LORA":
        raise UserError(f"{folder}: its peft_type is {raw.get('peft_type')!r}; only LORA adapters can be imported.")
    for key, value in raw.items():
        if key not in _HARMLESS and value not in (None, False, [], {}, ""):
            raise UserError(f"{folder}: the PEFT option {key} = {_short(value)} cannot be mapped to an mlx-lm adapter.")
    if raw.get("bias", "none") != "none":
        raise UserError(f"{folder}: bias = {raw['bias']!r} trains biases, which an mlx-lm adapter cannot hold.")
    if raw.get("init_lora_weights", True) not in _PLAIN_STARTS:
        raise UserError(
            f"{folder}: init_lora_weights = {raw['init_lora_weights']!r} also changes the base model's weights; "
            "convert it to a plain LoRA with PEFT first (path_initial_model_for_weight_conversion)."
        )
    try:
        settings = PeftSettings(
            int(raw["r"]), float(raw["lora_alpha"]), float(raw.get("lora_dropout") or 0.0),
            {key: int(rank) for key, rank in (raw.get("rank_pattern") or {}).items()},
            {key: float(alpha) for key, alpha in (raw.get("alpha_pattern") or {}).items()},
            bool(raw.get("use_rslora")), bool(raw.get("use_dora")), raw.get("base_model_name_or_path"),
        )  # fmt: skip
        ranks = [settings.rank, *settings.rank_pattern.values()]
        [re.compile(key) for key in (*settings.rank_pattern, *settings.alpha_pattern)]
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise DataError(f"{folder / CONFIG_FILE}: r, lora_alpha or a pattern is missing or wrong ({error}).") from None
    if min(ranks) < 1 or not all(map(math.isfinite, (settings.alpha, *settings.alpha_pattern.values()))):
        raise DataError(f"{folder / CONFIG_FILE}: ranks must be at least 1 and alphas finite numbers.")
    return settings


def _read_json(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the PEFT adapter's directory.")
    if not (folder / WEIGHTS_FILE).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        hint = "save the adapter as safetensors, a pickle is not opened" if pickled else "it is not a PEFT adapter"
        raise UserError(f"{folder}: no {WEIGHTS_FILE} here; {hint}.")
    file = folder / CONFIG_FILE
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no {CONFIG_FILE} here, so it is not a PEFT adapter.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not valid JSON ({error}).") from None
    if not isinstance(raw, dict):
        raise DataError(f"{file}: must be one JSON object.")
    return raw


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def peft_config(base: str, rank: int, scale: float, dropout: float, targets: dict[str, Any], *, dora: bool) -> str:
    """Text of an `adapter_config.json` for layers of one rank and scale; lora_alpha = scale * r.

    Args:  targets: `target_modules` and `layers_to_transform`.
    """
    alpha = scale * rank
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True,
        "r": rank, "lora_alpha": int(alpha) if alpha == int(alpha) else alpha, "lora_dropout": dropout, **targets,
        "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "modules_to_save": None,
        "use_dora": dora, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
    }  # fmt: skip
    return json.dumps(config, indent=2) + "\n"
