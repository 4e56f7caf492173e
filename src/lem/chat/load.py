"""Load a model and optionally an adapter, check that they fit, and name exactly what was loaded.

On the CPU everything runs in float32, because bfloat16 and float16 bypass BLAS there and are some eighteen
times slower. The identity of a model is the hash of its weights, configuration, tokenizer and chat template.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lem.chat.dose import check_scale, scale_adapter
from lem.errors import UserError
from lem.paths import display_path

_IDENTITY_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model")


@dataclass(frozen=True)
class ChatModel:
    """A loaded model: MLX module, tokenizer wrapper, names and content hashes.

    `adapter` is None for the bare model; `model` is None when it was loaded without weights. `adapter_scale` is the
    share of the adapter that is applied, 1 for the adapter itself.
    """

    name: str
    path: Path
    model: Any
    tokenizer: Any
    config: dict[str, Any]
    model_sha: str
    adapter: str | None = None
    adapter_sha: str | None = None
    adapter_scale: float = 1.0

    @property
    def identity(self) -> dict[str, Any]:
        """What the weights are, for fingerprints; `cap` is reserved for activation capping."""
        dtype = compute_dtype(self.config)
        scale = {} if self.adapter_scale == 1 else {"adapter_scale": self.adapter_scale}
        return {"model": self.model_sha, "adapter": self.adapter_sha, "cap": None, "dtype": dtype, **scale}

    @property
    def stop_token_ids(self) -> list[int]:
        """Token ids that end an answer, sorted."""
        return sorted(self.tokenizer.eos_token_ids)


def resolve_model_path(model: str) -> Path:
    """Return the local folder of a model, downloading a hub model (`owner/name`) the first time.

    A value that begins like a path, or whose first part is a local folder, is never looked up on the hub.
    Raises: UserError if it is neither a model folder nor a reachable hub id.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{model}: the folder holds no config.json, so it is not a model; check --model.")
        return path
    looks_local = model.startswith((".", "/", "~")) or model.count("/") != 1 or Path(model.split("/")[0]).is_dir()
    if path.exists() or looks_local:
        raise UserError(
            f"{model}: no such model; give --model a folder, a hub id (owner/name) or a name of the config."
        )
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from mlx_lm.utils import _download

    try:
        return Path(_download(model))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise UserError(f"{model}: could not fetch this model from the hub ({reason}); check id and network.") from None


def file_sha(path: Path) -> str:
    """SHA-256 of a file's bytes; remembered within the process while its size and time stay the same."""
    stat = path.stat()
    return _hash_file(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_file(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_sha(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.name):
        digest.update(f"{file.name}\0{file_sha(file)}\n".encode())
    return digest.hexdigest()


def model_identity(path: Path) -> str:
    """Hash a model folder's weights, configuration, tokenizer and chat template (64 hex digits)."""
    files = [path / name for name in _IDENTITY_FILES if (path / name).is_file()]
    return _folder_sha(files + list(path.glob("model*.safetensors")))


def adapter_identity(path: Path) -> str:
    """Hash an adapter folder's weights and the part of its configuration that shapes the model.

    Raises: UserError if the folder is no adapter.
    """
    for name in ("adapter_config.json", "adapters.safetensors"):
        if not (path / name).is_file():
            raise UserError(f"{path}: no {name} here, so it is not an adapter directory; correct the path.")
    settings = read_adapter_config(path)
    shaping = {key: settings.get(key) for key in ("fine_tune_type", "num_layers", "lora_parameters")}
    text = json.dumps(shaping, sort_keys=True) + file_sha(path / "adapters.safetensors")
    return hashlib.sha256(text.encode()).hexdigest()


def read_adapter_config(path: Path) -> dict[str, Any]:
    """Read `adapter_config.json`.   Raises: UserError if it is missing or malformed."""
    file = path / "adapter_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no adapter_config.json here, so it is not an adapter directory.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file} line {error.lineno}: not valid JSON ({error.msg}).") from None
    if not isinstance(settings, dict):
        raise UserError(f"{file}: must be one JSON object.")
    return settings


def load(
    model: str,
    adapter: str | Path | None = None,
    *,
    need_template: bool = True,
    weights: bool = True,
    adapter_scale: float = 1.0,
) -> ChatModel:
    """Load a model by folder or hub id, with an optional adapter, ready to generate.

    With `weights=False` the module stays None: enough to render prompts and to know every identity. `adapter_scale`
    multiplies what the adapter adds (see `lem.chat.dose`): 0 is the model alone, 1 the adapter itself.
    Raises: UserError for a missing model, an unknown architecture, a missing chat template (if needed), an
    adapter that does not fit (trained on another base, too many layers, tensors of another shape), or a scale that
    it cannot be applied at.
    """
    path = resolve_model_path(model)
    config, tokenizer = _load_tokenizer(path, model, need_template)
    model_sha = model_identity(path)
    adapter_path = None if adapter is None else Path(adapter).expanduser()
    adapter_sha = None if adapter_path is None else _check_adapter(adapter_path, config, model_sha, model)
    check_scale(adapter_path, {} if adapter_path is None else read_adapter_config(adapter_path), adapter_scale)
    module = _load_module(path, model, adapter_path, adapter_scale) if weights else None
    return ChatModel(
        name=display_path(path) if Path(model).expanduser().exists() else model,
        path=path,
        model=module,
        tokenizer=tokenizer,
        config=config,
        model_sha=model_sha,
        adapter=None if adapter is None else str(adapter),
        adapter_sha=adapter_sha,
        adapter_scale=float(adapter_scale),
    )


def _load_tokenizer(path: Path, model: str, need_template: bool) -> tuple[dict[str, Any], Any]:
    from mlx_lm.utils import _get_classes, load_config, load_tokenizer

    try:
        config = load_config(path)
        _get_classes(config)
        tokenizer = load_tokenizer(path, eos_token_ids=config.get("eos_token_id"))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{model}: cannot load this model ({_first_line(error)}).") from None
    tokenizer._tokenizer.model_max_length = 10**9  # lengths are checked where prompts are planned, with a sentence
    if need_template and not tokenizer.has_chat_template:
        raise UserError(
            f"{model}: the tokenizer has no chat template; use an instruction-tuned model, or add chat_template.jinja."
        )
    return config, tokenizer


def _load_module(path: Path, model: str, adapter: Path | None, adapter_scale: float) -> Any:
    import mlx.core as mx

    module = _read_module(path, model)
    if adapter is not None:
        _apply_adapter(module, adapter, model)
        if adapter_scale == 0:  # the adapter fits; without its layers the texts are the model's own, bit for bit
            module = _read_module(path, model)
        elif adapter_scale != 1:
            scale_adapter(module, adapter_scale)
    if mx.default_device() == mx.cpu:
        module.set_dtype(mx.float32)
    module.eval()
    mx.eval(module.parameters())
    return module


def _read_module(path: Path, model: str) -> Any:
    """Build the MLX module of a model lazily: nothing is read from the disk before it is used."""
    from mlx_lm.utils import load_model

    try:
        return load_model(path, lazy=True)[0]
    except FileNotFoundError as error:
        raise UserError(f"{model}: {error}; the model folder is incomplete.") from None
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        raise UserError(f"{model}: cannot load this model ({_first_line(error)}).") from None


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def compute_dtype(config: dict[str, Any]) -> str:
    """The floating type a model runs in here: float32 on the CPU, otherwise what its files declare."""
    import mlx.core as mx

    if mx.default_device() == mx.cpu:
        return "float32"
    return str(config.get("torch_dtype") or config.get("dtype") or "as stored")


def _check_adapter(path: Path, config: dict[str, Any], model_sha: str, model: str) -> str:
    """Check what can be known without loading weights - the adapter's base and depth - and return its hash."""
    if not path.is_dir():
        raise UserError(f"{path}: no such adapter directory; train one with `lem train`, or correct --adapter.")
    sha = adapter_identity(path)
    settings = read_adapter_config(path)
    trained_on = settings.get("base_model_sha")
    if trained_on is not None and trained_on != model_sha:
        raise UserError(
            f"{path}: this adapter was trained on {settings.get('model', 'another model')} "
            f"(weights {trained_on[:12]}), not on {model} ({model_sha[:12]}); use the base it belongs to."
        )
    text_config = config.get("text_config", {})
    depth = config.get("num_hidden_layers", text_config.get("num_hidden_layers"))
    wanted = settings.get("num_layers", 0)
    if isinstance(wanted, int) and isinstance(depth, int) and wanted > depth:
        raise UserError(f"{path}: the adapter has {wanted} layers but {model} has {depth}; use the base it belongs to.")
    return sha


def _apply_adapter(module: Any, path: Path, model: str) -> None:
    """Put the adapter's layers on the model, after checking that names and shapes are exactly the model's."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import load_adapters

    try:
        load_adapters(module, str(path))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: the adapter does not fit {model}: {detail}") from None
    if read_adapter_config(path).get("fine_tune_type", "lora") != "full":
        stored = set(mx.load(str(path / "adapters.safetensors")))
        names = [str(entry[0]) for entry in tree_flatten(module.parameters())]
        missing = sorted({name for name in names if name.rsplit(".", 1)[-1] in ("lora_a", "lora_b", "m")} - stored)
        if missing:
            raise UserError(f"{path}: the adapter lacks {len(missing)} tensors of its own layers, first {missing[0]}.")
