"""`lem.config.json`: the published keys and ours, validated; an unknown key is an error that lists the known ones.

Precedence: command-line option > environment variable `LEM_*` > `lem.config.json` > default. The
environment is read when `load_config` is called, never at import. Only scalar top-level keys can be set
from the environment (`LEM_DEFAULT_MODEL`, `LEM_MAX_TOKENS`, ...).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lem.errors import UserError
from lem.paths import repository_root

CONFIG_NAME = "lem.config.json"
ENV_PREFIX = "LEM_"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingConfig(_Section):
    """Defaults of `lem train`: the published LoRA recipe."""

    iters: int = Field(200, ge=1)
    batch_size: int = Field(2, ge=1)
    learning_rate: float = Field(1e-5, gt=0)
    save_every: int = Field(50, ge=1)
    adapter_path: str = "adapters/lek"
    num_layers: int = Field(-1, ge=-1, description="layers counted from the top; -1 is all; clamped to the model")
    rank: int = Field(8, ge=1)
    scale: float = Field(20.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    max_seq_length: int = Field(2048, ge=8)
    grad_clip: float = Field(1.0, gt=0)


class DistillationConfig(_Section):
    """Defaults of distillation, as published."""

    samples: int = Field(10, ge=1)
    threshold: float = 20.0
    max_tokens: int = Field(2048, ge=1)
    temperature: float = Field(0.8, ge=0)


class ScoringConfig(_Section):
    """How `lem score` prints: table format and the change that counts as improved or regressed."""

    format: str = "table"
    delta: float = Field(0.5, ge=0)


class Config(_Section):
    """The whole configuration; folder keys are absolute after loading."""

    model_dir: str = "models"
    adapter_dir: str = "adapters"
    training_dir: str = "training"
    seeds_dir: str = "seeds"
    benchmarks_dir: str = "benchmarks"
    kernel_dir: str = "kernel"
    runs_dir: str = "runs"
    default_kernel: str = "kernel/axioms.json"
    default_probes: str = "seeds/P01-P100.json"
    default_model: str = "models/lem-nano"
    models: dict[str, str] = Field(default_factory=dict, description="short name -> path or hub id")
    max_tokens: int = Field(1024, ge=1)
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    batch_size: int | None = Field(None, ge=1, description="rows per decoding group; null chooses from free memory")
    seed: int = 42
    training: TrainingConfig = TrainingConfig()
    distillation: DistillationConfig = DistillationConfig()
    scoring: ScoringConfig = ScoringConfig()


_FOLDER_KEYS = (
    "model_dir", "adapter_dir", "training_dir", "seeds_dir", "benchmarks_dir", "kernel_dir", "runs_dir",
    "default_kernel", "default_probes",
)  # fmt: skip


# Read elsewhere: the start script, the tests, and this module.
_OTHER_VARIABLES = ("LEM_CONFIG", "LEM_CI", "LEM_PYTHON", "LEM_NO_OPENBLAS", "LEM_REFERENCE", "LEM_SUPERVISED")


def load_config(path: Path | None = None, environ: dict[str, str] | None = None) -> Config:
    """Read and validate the configuration file, apply `LEM_*` variables, make its paths absolute.

    Args:  path: the file; default: `LEM_CONFIG`, else `lem.config.json` in the repository.
           environ: variables to read; default: the process environment.
    Raises: UserError naming the file, the key and the known keys or the accepted values.
    """
    environ = dict(os.environ) if environ is None else environ
    if path is None:
        named = environ.get(ENV_PREFIX + "CONFIG")
        path = Path(named) if named else repository_root() / CONFIG_NAME
        if named and not path.is_file():
            raise UserError(f"{ENV_PREFIX}CONFIG names {path}, which is not a file; correct or unset the variable.")
    raw = _read(path) if path.is_file() else {}
    from_environment = _from_environment(environ)
    config = _validate({**raw, **from_environment}, path, from_environment)
    return _absolute(config, path.resolve().parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno}: not valid JSON ({error.msg}); mend the file.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: the configuration must be one JSON object.")
    return raw


def _from_environment(environ: dict[str, str]) -> dict[str, str]:
    scalars = {key for key in Config.model_fields if key not in ("models", "training", "distillation", "scoring")}
    known = {ENV_PREFIX + key.upper(): key for key in scalars}
    unknown = sorted(n for n in environ if n.startswith(ENV_PREFIX) and n not in known and n not in _OTHER_VARIABLES)
    if unknown:
        raise UserError(f"environment variable {unknown[0]} is unknown; known ones are {', '.join(sorted(known))}.")
    return {known[name]: value for name, value in environ.items() if name in known}


def _validate(raw: dict[str, Any], path: Path, from_environment: dict[str, str]) -> Config:
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            section: Any = Config
            for part in first["loc"][:-1]:
                section = section.model_fields[part].annotation
            known = ", ".join(section.model_fields)
            raise UserError(f"{path}: unknown key '{where}'; known keys here: {known}.") from None
        source = f"variable {ENV_PREFIX}{where.upper()}" if where in from_environment else f"{path}: key '{where}'"
        raise UserError(f"{source}: {first['msg'].lower()} (got {first['input']!r}).") from None


def _absolute(config: Config, folder: Path) -> Config:
    update = {key: str(folder / getattr(config, key)) for key in _FOLDER_KEYS}
    update["default_model"] = _absolute_model(config.default_model, folder)
    models = {name: _absolute_model(value, folder) for name, value in config.models.items()}
    training = config.training.model_copy(update={"adapter_path": str(folder / config.training.adapter_path)})
    return config.model_copy(update={**update, "models": models, "training": training})


def _absolute_model(value: str, folder: Path) -> str:
    """A model value is a folder beside the config when it exists there, otherwise a hub id or a name, kept as is."""
    return str(folder / value) if (folder / value).exists() else value


def resolve_model(config: Config, model: str | None) -> str:
    """Return the path or hub id behind an option value: a name of `models`, a path, or a hub id as given."""
    if model is None:
        return config.models.get(config.default_model, config.default_model)
    return config.models.get(model, model)
