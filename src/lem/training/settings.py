"""The recipe of a training: every option, its check, presets as files, and the part that decides the result.

A recipe is the defaults, overridden by a preset, overridden by options. What belongs to the identity of a training
(and so must be the same when it resumes) is everything but the intervals at which it reports, saves and is scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from lem.errors import UserError

METHODS = ("lora", "dora", "qlora", "full")
SCHEDULES = ("constant", "linear", "cosine")
FORMATS = ("freeflow", "sandwich")
TOO_LONG = ("truncate", "drop")
# These change what is written on the way, not what is trained.
_INTERVALS = ("save_every", "report_every", "eval_every")


@dataclass(frozen=True)
class TrainingSettings:
    """One recipe; `docs/TRAINING.md` has a sentence on each option.

    `num_layers` counts from the top, -1 is all. `epochs` replaces `iters` once the data are read. `warmup` is a share
    of the iterations. `batch_size` is rows per micro-batch over all ranks, `accumulation` micro-batches per step.
    `targets` are module names within a layer; none means every linear layer. `patience` counts validations, 0 is off.
    """

    method: str = "lora"
    iters: int = 200
    epochs: int | None = None
    batch_size: int = 2
    accumulation: int = 1
    learning_rate: float = 1e-5
    schedule: str = "constant"
    warmup: float = 0.0
    bias_correction: bool = True
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    num_layers: int = -1
    rank: int = 8
    scale: float = 20.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    max_seq_length: int = 2048
    too_long: str = "truncate"
    mask_prompt: bool = True
    format: str = "freeflow"
    pack: bool = False
    grad_checkpoint: bool = False
    save_every: int = 50
    report_every: int = 10
    validate_every: int = 50
    eval_every: int = 0
    patience: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.   Raises: UserError naming the setting and what it may be."""
        for name, allowed in (
            ("method", METHODS), ("schedule", SCHEDULES), ("format", FORMATS), ("too_long", TOO_LONG)
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} must be one of {', '.join(allowed)} (got {getattr(self, name)!r}).")
        for name in _WHOLE:
            value = getattr(self, name)
            least = 0 if name in ("eval_every", "patience") else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name} must be a whole number of at least {least} (got {value!r}).")
        if self.epochs is not None and (not isinstance(self.epochs, int) or self.epochs < 1):
            raise UserError(f"epochs must be a whole number of at least 1 (got {self.epochs!r}).")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
                raise UserError(f"{name} must be a number from {low:g} to {high:g} (got {value!r}).")
        for name in ("learning_rate", "grad_clip", "scale"):
            if getattr(self, name) == 0:
                raise UserError(f"{name} must be above 0.")
        for name in ("bias_correction", "mask_prompt", "pack", "grad_checkpoint"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be true or false (got {getattr(self, name)!r}).")
        if self.num_layers == 0 or self.num_layers < -1:
            raise UserError(f"num_layers must be -1 (all) or at least 1 (got {self.num_layers}).")
        if self.dropout == 1:
            raise UserError("dropout must be below 1.")

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide the trained weights, for the configuration hash."""
        return {name: value for name, value in as_json(self).items() if name not in _INTERVALS}


_WHOLE = (
    "iters", "batch_size", "accumulation", "rank", "max_seq_length", "save_every", "report_every", "validate_every",
    "eval_every", "patience",
)  # fmt: skip
_RANGES = (
    ("learning_rate", 0.0, 1.0), ("warmup", 0.0, 1.0), ("weight_decay", 0.0, 1.0), ("grad_clip", 0.0, 1e6),
    ("scale", 0.0, 1e4), ("dropout", 0.0, 1.0),
)  # fmt: skip


def as_json(settings: TrainingSettings) -> dict[str, Any]:
    """The settings as JSON types: tuples are lists, as they are after reading a file."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}


@dataclass(frozen=True)
class Preset:
    """A published recipe: what it is, where it comes from, what MLX cannot do like it, and its settings."""

    name: str
    description: str
    source: str
    deviations: tuple[str, ...]
    settings: Mapping[str, Any]


def make_settings(*layers: Mapping[str, Any], where: str = "settings") -> TrainingSettings:
    """Build settings from layers of values, later ones winning; `alpha` becomes scale = alpha / rank.

    Args:  where: what an error names, for example the preset's file.
    Raises: UserError for an unknown name, listing the known ones.
    """
    known = {field.name for field in fields(TrainingSettings)}
    values: dict[str, Any] = {}
    for layer in layers:
        for name in layer:
            if name not in known | {"alpha"}:
                raise UserError(f"{where}: unknown setting '{name}'; known ones are {', '.join(sorted(known))}, alpha.")
        if "alpha" in layer and "scale" in layer:
            raise UserError(f"{where}: give alpha or scale, not both (scale = alpha / rank).")
        if "scale" in layer:
            values.pop("alpha", None)
        if "iters" in layer and "epochs" not in layer:
            values.pop("epochs", None)
        values.update({name: _number(value) for name, value in layer.items()})
    alpha = values.pop("alpha", None)
    if alpha is not None:
        values["scale"] = alpha / values.get("rank", TrainingSettings.rank)
    if "targets" in values:
        values["targets"] = tuple(values["targets"])
    return TrainingSettings(**values)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 (no point) as text: take text that is a number as one."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def read_preset(name: str, folder: Path) -> Preset:
    """Read `folder`/NAME.yaml, or a file if `name` is a path ending in .yaml.

    Raises: UserError listing the presets there are, or naming what is wrong in the file.
    """
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise UserError(f"{name}: no such preset; {folder} has {there}.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())[:160]}).") from None
    keys = {"description", "source", "deviations", "settings"}
    if not isinstance(raw, dict) or set(raw) != keys or not isinstance(raw["settings"], dict):
        raise UserError(f"{path}: a preset has the keys {', '.join(sorted(keys))}, with settings as a mapping.")
    make_settings(raw["settings"], where=str(path))
    return Preset(path.stem, raw["description"], raw["source"], tuple(raw["deviations"] or ()), raw["settings"])
