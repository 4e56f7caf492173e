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
        for name, allowed in _CHOICES:
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} must be one of {', '.join(allowed)} (got {getattr(self, name)!r}).")
        for name, least in _WHOLE:
            _check_whole(name, getattr(self, name), least)
        if self.epochs is not None:
            _check_whole("epochs", self.epochs, 1)
        if self.num_layers != -1 or not _is_whole(self.num_layers):
            _check_whole("num_layers", self.num_layers, 1, or_else="-1 (all) or ")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high:
                raise UserError(f"{name} must be a number from {low:g} to {high:g} (got {value!r}).")
        for name in ("learning_rate", "grad_clip", "scale"):
            if getattr(self, name) == 0:
                raise UserError(f"{name} must be above 0.")
        if self.dropout == 1:
            raise UserError("dropout must be below 1.")
        for name in ("bias_correction", "mask_prompt", "pack", "grad_checkpoint"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be true or false (got {getattr(self, name)!r}).")
        if not isinstance(self.targets, tuple) or not all(isinstance(name, str) and name for name in self.targets):
            raise UserError(f"targets must be a list of module names (got {self.targets!r}).")

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide the trained weights, for the configuration hash.

        Gradient checkpointing computes the same bits a second time; only dropout draws other numbers under it.
        """
        left_out = _INTERVALS if self.dropout else (*_INTERVALS, "grad_checkpoint")
        return {name: value for name, value in as_json(self).items() if name not in left_out}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_whole(name: str, value: Any, least: int, or_else: str = "") -> None:
    if not _is_whole(value) or value < least:
        raise UserError(f"{name} must be {or_else}a whole number of at least {least} (got {value!r}).")


_CHOICES = (("method", METHODS), ("schedule", SCHEDULES), ("format", FORMATS), ("too_long", TOO_LONG))
_WHOLE = (
    ("iters", 1), ("batch_size", 1), ("accumulation", 1), ("rank", 1), ("max_seq_length", 1), ("save_every", 1),
    ("report_every", 1), ("validate_every", 1), ("eval_every", 0), ("patience", 0), ("seed", 0),
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


def make_settings(*layers: Mapping[str, Any], where: str = "") -> TrainingSettings:
    """Build settings from layers of values, later ones winning; `alpha` becomes scale = alpha / rank.

    Args:  where: what an error names, for example the preset's file.
    Raises: UserError for an unknown name, listing the known ones.
    """
    at = f"{where}: " if where else ""
    known = {field.name for field in fields(TrainingSettings)}
    values: dict[str, Any] = {}
    for layer in layers:
        for name in layer:
            if name not in known | {"alpha"}:
                names = ", ".join(sorted(known))
                raise UserError(f"{where or 'settings'}: unknown setting '{name}'; known ones are {names}, alpha.")
        if "alpha" in layer and "scale" in layer:
            raise UserError(f"{at}give alpha or scale, not both (scale = alpha / rank).")
        if "scale" in layer:
            values.pop("alpha", None)
        if "iters" in layer and "epochs" not in layer:
            values.pop("epochs", None)
        values.update({name: _number(name, value) for name, value in layer.items()})
    if isinstance(values.get("targets"), list):
        values["targets"] = tuple(values["targets"])
    try:
        return _with_scale(values)
    except UserError as error:
        raise UserError(f"{at}{error}") from None


def _with_scale(values: dict[str, Any]) -> TrainingSettings:
    """Settings from values in which alpha may stand for scale."""
    if "alpha" not in values:
        return TrainingSettings(**values)
    alpha, rank = values.pop("alpha"), values.get("rank", TrainingSettings.rank)
    if not _is_number(alpha) or not alpha > 0:
        raise UserError(f"alpha must be a number above 0 (got {alpha!r}).")
    _check_whole("rank", rank, 1)
    return TrainingSettings(**{**values, "scale": alpha / rank})


def _number(name: str, value: Any) -> Any:
    """YAML 1.1 reads 1e-5 (no point) as text: where a real number belongs, take text that is a number as one."""
    if not isinstance(value, str) or name not in {"alpha", *(name for name, _, _ in _RANGES)}:
        return value
    try:
        return float(value)
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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())[:160]}).") from None
    keys = {"description", "source", "deviations", "settings"}
    if not isinstance(raw, dict) or set(raw) != keys or not isinstance(raw["settings"], dict):
        raise UserError(f"{path}: a preset has the keys {', '.join(sorted(keys))}, with settings as a mapping.")
    deviations = raw["deviations"] or []
    if not isinstance(deviations, list):
        raise UserError(f"{path}: deviations must be a list of sentences.")
    make_settings(raw["settings"], where=str(path))
    return Preset(path.stem, raw["description"], raw["source"], tuple(deviations), raw["settings"])
