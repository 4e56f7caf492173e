"""What weights were trained on is followed through parents, fused and converted models, and never passed over."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters import write_adapter
from lem.chat.load import adapter_identity, load, model_identity
from lem.chat.trainings import Training, local_folder, rows, trainings_of_adapter, trainings_of_model
from lem.training.convert import convert_to_mlx
from lem.training.fuse import FuseSettings, fuse_adapter
from lem.training.methods import Applied
from lem.training.prepare import adapter_config
from lem.training.settings import TrainingSettings
from tiny import make_model

LIST = {"fuse_proof.json": "trained_on", "lem_provenance.json": "trained_on", "adapter_config.json": "trained_before"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_model(tmp_path / "base", "llama")


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; a key whose value is ... is taken out."""
    merged = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in merged.items() if value is not ...}))


def as_before(folder: Path) -> None:
    """A folder as it was written before the lists of trainings were."""
    for name, key in LIST.items():
        if (folder / name).is_file():
            edit(folder / name, **{key: ..., "parent_adapter": ...})


@pytest.fixture
def adapter(base: Path) -> Callable[..., Path]:
    """Write an adapter with a data file of its own, as our trainer describes it."""

    def write(name: str, start: Path | None = None, size: float = 0.05) -> Path:
        data = base.parent / f"{name}-data"
        data.mkdir()
        (data / "train.jsonl").write_text(json.dumps({"prompt": f"Of {name}?", "completion": "Yes."}) + "\n")
        sha = hashlib.sha256((data / "train.jsonl").read_bytes()).hexdigest()
        folder = write_adapter(base, base.parent / name, size=size)
        parent = None if start is None else adapter_identity(start)
        text = adapter_config(
            load(str(base), weights=False), data, {"train.jsonl": sha}, TrainingSettings(rank=3, scale=1.7),
            Applied(2, None, 1, 1), parent, start,
        )  # fmt: skip
        (folder / "adapter_config.json").write_text(text)
        return folder

    return write


def known(trainings: list[Training]) -> list[str | None]:
    """The data folder's name of each training, None where it is not at hand."""
    return [None if one.files is None else one.files[0].parent.name for one in trainings]


def test_an_adapter_is_followed_to_where_it_began_even_when_that_is_gone(adapter: Callable[..., Path]) -> None:
    first = adapter("first")
    second = adapter("second", first)
    third = adapter("third", second)
    config = json.loads((third / "adapter_config.json").read_text())
    assert config["parent_adapter"] == str(second)
    assert config["parent_adapter_sha"] == adapter_identity(second)
    shutil.rmtree(first)
    shutil.rmtree(second)
    assert known(trainings_of_adapter(third)) == ["third-data", "second-data", "first-data"]
    (first.parent / "first-data" / "train.jsonl").write_text("{}")
    assert known(trainings_of_adapter(third)) == ["third-data", "second-data", None]
    assert trainings_of_adapter(third)[2].weights == str(first)


def test_an_adapter_of_before_has_a_parent_that_is_not_known(adapter: Callable[..., Path]) -> None:
    second = adapter("second", adapter("first"))
    third = adapter("third", second)
    as_before(second)
    assert known(trainings_of_adapter(second)) == ["second-data", None]
    assert "began from" in trainings_of_adapter(second)[1].weights
    as_before(adapter("alone"))
    assert known(trainings_of_adapter(second.parent / "alone")) == ["alone-data"]
    later = adapter("later", second)
    assert known(trainings_of_adapter(later)) == ["later-data", "second-data", None], "what is not known stays so"
    assert known(trainings_of_adapter(third)) == ["third-data", "second-data", "first-data"]


def test_a_fused_model_tells_of_its_adapter_and_of_its_base(base: Path, adapter: Callable[..., Path]) -> None:
    second = adapter("second", adapter("first"))
    fused, again = base.parent / "fused", base.parent / "again"
    fuse_adapter(str(base), second, fused, FuseSettings(n_prompts=2))
    third = write_adapter(fused, base.parent / "third")
    edit(third / "adapter_config.json", data=str(base.parent / "first-data"), data_sha={"train.jsonl": "0" * 64})
    fuse_adapter(str(fused), third, again, FuseSettings(n_prompts=2))
    convert_to_mlx(str(fused), base.parent / "converted")
    for gone in ("first", "second"):
        shutil.rmtree(base.parent / gone)
    assert known(trainings_of_model(fused)) == ["second-data", "first-data"]
    assert known(trainings_of_model(fused, model_identity(fused))) == ["second-data", "first-data"]
    assert known(trainings_of_model(again)) == [None, "second-data", "first-data"]
    assert known(trainings_of_model(base.parent / "converted")) == ["second-data", "first-data"]
    assert trainings_of_model(base) == []
    assert known(trainings_of_model(fused, "0" * 64)) == [None], "written for other weights than those that are meant"


def test_models_of_before_are_followed_through_the_folders_they_name(base: Path, adapter: Callable[..., Path]) -> None:
    first, fused, converted = adapter("first"), base.parent / "fused", base.parent / "converted"
    fuse_adapter(str(base), first, fused, FuseSettings(n_prompts=2))
    convert_to_mlx(str(fused), converted)
    edit(fused / "fuse_proof.json", model=str(base), trained_on=...)
    edit(converted / "lem_provenance.json", model=str(fused), trained_on=...)
    assert known(trainings_of_model(converted)) == ["first-data"]
    edit(first / "adapter_config.json", num_layers=1)  # no longer the adapter that was fused
    assert known(trainings_of_model(converted)) == [None]
    shutil.rmtree(fused)
    assert known(trainings_of_model(converted)) == [None]
    assert trainings_of_model(converted)[0].weights == str(fused)


def test_another_model_in_the_place_of_the_base_is_not_known(base: Path, adapter: Callable[..., Path]) -> None:
    fused = base.parent / "fused"
    fuse_adapter(str(base), adapter("first"), fused, FuseSettings(n_prompts=2))
    edit(fused / "fuse_proof.json", model=str(base), trained_on=...)
    assert known(trainings_of_model(fused)) == ["first-data"]
    shutil.rmtree(base)
    make_model(base, "llama", seed=7)
    assert known(trainings_of_model(fused)) == ["first-data", None]


def test_records_that_lead_in_a_circle_end(base: Path) -> None:
    sha = model_identity(base)
    made = {"model": str(base), "base_model_sha": sha, "model_sha": sha}
    (base / "lem_provenance.json").write_text(json.dumps(made))
    assert known(trainings_of_model(base)) == [None]


@pytest.mark.parametrize("text", ["{torn", "[]", "{}", '{"fused_model_sha": 3}', "\udcff", "[" * 100_000])
def test_a_damaged_record_says_nothing_and_is_no_silence(text: str, base: Path) -> None:
    (base / "fuse_proof.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert known(trainings_of_model(base)) == [None]


@pytest.mark.parametrize("damage", [{"trained_before": 3}, {"trained_before": [3]}, {"data_sha": {"train.jsonl": 4}},
                                    {"trained_before": [{"weights": "a", "data": 3, "data_sha": {}}]},
                                    {"data": None}, {"data_sha": {"gone.jsonl": "0" * 64}}])  # fmt: skip
def test_damaged_lists_are_not_known(damage: dict[str, Any], adapter: Callable[..., Path]) -> None:
    folder = adapter("first")
    edit(folder / "adapter_config.json", **damage)
    assert None in known(trainings_of_adapter(folder))


def test_a_folder_without_an_adapter_or_with_another_is_not_known(adapter: Callable[..., Path], tmp_path: Path) -> None:
    assert known(trainings_of_adapter(tmp_path / "none")) == [None]
    assert known(trainings_of_adapter(adapter("first"), "0" * 64)) == [None]


def test_the_rows_name_folders_in_full(
    adapter: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter("first")
    monkeypatch.chdir(tmp_path)
    edit(folder / "adapter_config.json", data="first-data")
    assert rows(trainings_of_adapter(folder))[0]["data"] == str((tmp_path / "first-data").resolve())


def test_only_what_is_on_this_machine_is_a_folder(base: Path) -> None:
    assert local_folder(str(base)) == base
    assert [local_folder(name) for name in ("nobody/nothing", "nothing", "\0", "")] == [None, None, None, None]
