"""What weights were trained on: every training behind an adapter or a model, from the files beside the weights.

    adapter_config.json    data, data_sha: its own training; trained_before: those of the adapter that it began from
    fuse_proof.json        trained_on: those of the adapter and of the base that became one model
    lem_provenance.json    trained_on: those of the model that was converted

Lists are written out in full, so that reading one needs no other folder. Folders made before these lists are followed
to the folders they name, as long as those hold the same weights. What cannot be known stays in the list as a training
without files, so that nothing passes for checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lem.chat.load import adapter_identity, file_sha, model_identity, read_adapter_config
from lem.errors import UserError

BEFORE, ALL = "trained_before", "trained_on"
# Which file describes a model folder, and under which key it holds the hash of the weights that it describes.
_RECORDS = (("fuse_proof.json", "fused_model_sha"), ("lem_provenance.json", "model_sha"))


@dataclass(frozen=True)
class Training:
    """One training: what people call the weights it made, the folder of its data, and each file's SHA-256 by name.

    `data_sha` is empty where it is not known what the training read.
    """

    weights: str
    data: str = ""
    data_sha: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> list[Path] | None:
        """The training files, None unless all are there with the same content."""
        found = [Path(self.data).expanduser() / name for name in self.data_sha]
        try:
            same = all(file_sha(file) == sha for file, sha in zip(found, self.data_sha.values(), strict=True))
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return None
        return found if found and same else None


def trainings_of_adapter(folder: Path, sha: str | None = None) -> list[Training]:
    """The trainings behind an adapter, its own first; one without files for each that is not known.

    Args:  sha: the adapter that is meant; if the folder now holds another, nothing is known.
    """
    try:
        if sha is not None and adapter_identity(folder) != sha:
            return [Training(str(folder))]
        settings = read_adapter_config(folder)
    except (UserError, OSError, ValueError):
        return [Training(str(folder))]
    own = _training({"weights": str(folder), **{key: settings.get(key) for key in ("data", "data_sha")}})
    before = from_rows(settings.get(BEFORE, []), str(folder))
    if not before and settings.get("parent_adapter_sha") is not None:
        return [own, Training(f"the adapter that {folder} began from")]
    return [own, *before]


def trainings_of_model(folder: Path, sha: str | None = None) -> list[Training]:
    """The trainings that became part of a model's weights, as far as its folder tells; [] for an ordinary model.

    What a published model read before it was published is none of these.

    Args:  sha: the weights that are meant, if they are known; else those that the folder holds.
    """
    return _of_model(folder, sha, frozenset())


def local_folder(model: str) -> Path | None:
    """The folder of a model on this machine, in the hub's cache if it has no other; None without one."""
    try:
        path = Path(model).expanduser()
        if model and path.is_dir():
            return path
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "config.json") if model.count("/") == 1 else None
    except (OSError, RuntimeError, ValueError):  # a name that is no path, or no hub id
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def rows(trainings: Iterable[Training]) -> list[dict[str, Any]]:
    """Trainings as they are kept in JSON; folders that are at hand are written in full."""
    return [
        {**asdict(one), "data": str(Path(one.data).expanduser().resolve()) if one.files else one.data}
        for one in trainings
    ]


def from_rows(value: Any, weights: str) -> list[Training]:
    """Trainings out of what `rows` wrote; one of these weights that is not known for whatever is no list."""
    return [_training(entry) for entry in value] if isinstance(value, list) else [Training(weights)]


def _of_model(folder: Path, sha: str | None, seen: frozenset[Path]) -> list[Training]:
    """Args:  seen: the folders on the way here; a record that leads back to one of them is not true."""
    found: list[Training] = []
    for name, key in _RECORDS:
        if not (folder / name).exists():
            continue
        try:
            record = json.loads((folder / name).read_text(encoding="utf-8"))
            described = record[key]
            if described != (sha or model_identity(folder)) or folder.resolve() in seen:
                return [Training(str(folder))]
            found += (
                from_rows(record[ALL], str(folder)) if ALL in record else _followed(record, seen | {folder.resolve()})
            )
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return [Training(str(folder))]
    return found


def _followed(record: dict[str, Any], seen: frozenset[Path]) -> list[Training]:
    """The trainings behind a record that does not list them, from the folders that it names."""
    model, base = record.get("model"), record.get("base_model_sha")
    found: list[Training] = []
    if record.get("adapter"):
        found += trainings_of_adapter(Path(str(record["adapter"])).expanduser(), str(record.get("adapter_sha")))
    folder = local_folder(str(model))
    if folder is None or not isinstance(base, str) or model_identity(folder) != base:
        return [*found, Training(str(model))]
    return found + _of_model(folder, base, seen)


def _training(entry: Any) -> Training:
    entry = entry if isinstance(entry, dict) else {}
    weights, data, shas = str(entry.get("weights", "?")), entry.get("data"), entry.get("data_sha")
    if not isinstance(data, str) or not isinstance(shas, dict) or not all(isinstance(s, str) for s in shas.values()):
        return Training(weights)
    return Training(weights, data, shas)
