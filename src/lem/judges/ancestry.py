"""What is known of a model's ancestors: hashes and names out of the files that were written beside its weights.

    adapter_config.json    of an adapter: base_model_sha, parent_adapter_sha, model
    fuse_proof.json        of a fused model: base_model_sha, adapter_sha, model, adapter
    lem_provenance.json    of a converted or exported one: base_model_sha, adapter_sha, model
    config.json            _name_or_path and, for want of anything better, the architecture
    README.md              base_model in the front matter of a hub card

Files only add to what is known: one that is missing or cannot be read says nothing. A file that carries the hash of
what it describes is believed only if that is the hash of what was loaded.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lem.chat.load import adapter_identity
from lem.chat.trainings import local_folder
from lem.errors import UserError
from lem.judges.families import families_of, short_name

MODEL, ADAPTER = "the model", "the adapter"
_MOST_GENERATIONS = 20


@dataclass
class Ancestry:
    """Hashes with the part each plays, names that were declared, and the architecture ("" if not known).

    `models` are the names of the model itself, among `names`, which also holds those of its ancestors.
    """

    shas: dict[str, str] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    architecture: str = ""

    @property
    def families(self) -> dict[str, str]:
        """Declared families, each with the name that speaks of it first."""
        found: dict[str, str] = {}
        for name in self.names:
            for family in families_of(name):
                found.setdefault(family, short_name(name))
        return found

    def add_sha(self, sha: object, part: str) -> None:
        """Note a hash, unless it is none; the part that was noted first stays."""
        if isinstance(sha, str) and sha:
            self.shas.setdefault(sha, part)

    def add_names(self, names: Iterable[object]) -> None:
        """Note names, each once; what is no text is left out."""
        self.names += [name for name in dict.fromkeys(names) if isinstance(name, str) and name not in self.names]


def ancestry_of(
    model: object, shas: Mapping[Any, str], adapter: object = None, adapter_sha: str | None = None
) -> Ancestry:
    """Collect what is known of a model, with its adapter if it has one.

    Args:  model: a folder, a hub id (its card is read where the hub's cache has it), or any other name.
           shas: known hashes, each with the part it plays.  adapter_sha: of the adapter that was loaded.
    """
    found = Ancestry()
    for sha, part in shas.items():
        found.add_sha(sha, part)
    if isinstance(model, str) and model:
        found.models.append(model)
        found.add_names([model])
        folder = local_folder(model)
        if folder is not None:
            _read_model(folder, list(found.shas), found, _MOST_GENERATIONS)
    if isinstance(adapter, str) and adapter:
        found.add_names([adapter])
        _read_adapter(Path(adapter).expanduser(), adapter_sha, found)
    return found


def _read_model(folder: Path, shas: Collection[str], found: Ancestry, generations: int) -> None:
    """Read a model's folder and, as far as they are at hand, those of the models that it was made of.

    Args:  shas: what its weights are known by; without any, its files are taken at their word.
    """
    config = _object(folder / "config.json")
    found.add_names([config.get("_name_or_path"), *_card_bases(folder)])
    found.architecture = found.architecture or str(config.get("model_type", ""))
    for file, own in (("fuse_proof.json", "fused_model_sha"), ("lem_provenance.json", "model_sha")):
        made = _object(folder / file)
        if shas and made.get(own) is not None and made[own] not in shas:
            continue  # written for other weights than those that lie here now
        base = made.get("base_model_sha")
        found.add_sha(base, "the origin")
        found.add_sha(made.get("adapter_sha"), "an adapter in the weights")
        found.add_names([made.get("model"), made.get("adapter")])
        parent = local_folder(made["model"]) if isinstance(made.get("model"), str) else None
        if parent is not None and isinstance(base, str) and generations:
            _read_model(parent, [base], found, generations - 1)


def _read_adapter(folder: Path, sha: str | None, found: Ancestry) -> None:
    try:
        if sha is not None and adapter_identity(folder) != sha:
            return  # the folder now holds another adapter
    except (UserError, OSError, ValueError):
        return
    config = _object(folder / "adapter_config.json")
    found.add_sha(config.get("base_model_sha"), "the base of the adapter")
    found.add_sha(config.get("parent_adapter_sha"), "the start of the adapter")
    found.add_names([config.get("model"), config.get("base_model_name_or_path"), *_card_bases(folder)])


def _card_bases(folder: Path) -> list[object]:
    """What the front matter of a README names as base_model."""
    import yaml

    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
        head = text.split("\n---", 1)[0].removeprefix("---") if text.startswith("---") else ""
        card = yaml.safe_load(head)
    except (OSError, ValueError, yaml.YAMLError):  # a date that is none is a ValueError
        return []
    base = card.get("base_model") if isinstance(card, dict) else None
    return list(base) if isinstance(base, list) else [base]


def _object(file: Path) -> dict[str, Any]:
    """A JSON object; {} for a file that is missing or holds anything else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
