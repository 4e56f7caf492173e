"""Checkpoints are whole or not there: killed between any two file operations, on a full disk, after a torn write."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from trainings import QUICK, Killed, figures, go, outcome, rows

from lem.chat.load import ChatModel, load
from lem.errors import UserError
from lem.records import lock_directory
from lem.training import train as trainer
from lem.training.checkpoint import read_checkpoint, write_tensors
from lem.training.train import Hooks, train
from small_plan import bytes_of

SHORT = replace(QUICK, iters=2, save_every=1, validate_every=1, patience=5, num_layers=1)


class Disk:
    """Counts the operations that change files, and from the n-th on kills instead of doing them."""

    def __init__(self, patch: pytest.MonkeyPatch, last: int) -> None:
        self.n, self.last, self.done = 0, last, list[str]()
        for name in ("replace", "rename", "unlink", "fsync", "ftruncate"):
            patch.setattr(os, name, self._guarded(name, getattr(os, name)))
        patch.setattr(mx, "save_safetensors", self._guarded("save", mx.save_safetensors, self._half))

    def _guarded(
        self, name: str, real: Callable[..., Any], torn: Callable[..., None] = lambda *args: None
    ) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.n += 1
            if self.n > self.last:
                if self.n == self.last + 1:
                    torn(*args)
                raise Killed
            self.done.append(name)
            return real(*args, **kwargs)

        return call

    @staticmethod
    def _half(path: str, *rest: Any) -> None:
        Path(path).write_bytes(b"half of the tensors")


def test_killed_between_any_two_file_operations_it_goes_on(base: Path, data: Path, tmp_path: Path) -> None:
    """Two steps with three checkpoints, a best adapter and the end: every moment of every save is one kill."""
    whole = go(base, data, tmp_path / "whole", SHORT)
    expected, last, killed, steps = outcome(tmp_path / "whole"), 0, True, set()
    while killed:
        output = tmp_path / f"killed-{last}"
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, last)
            try:
                go(base, data, output, SHORT)
                killed = False
            except Killed:
                left = read_checkpoint(output)
                steps.add(None if left is None else left.progress.step)
        if killed:
            assert figures(go(base, data, output, SHORT, resume=True)) == figures(whole), last
        assert outcome(output) == expected, last
        assert set(bytes_of(output)) == set(bytes_of(tmp_path / "whole")), last
        last += 1
    assert steps == {None, 0, 1, 2}
    assert disk.done.count("save") >= 7
    assert last > 30


def test_the_marker_is_the_last_thing_that_is_written(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it names is on the disk before it: files flushed, moved, and their folder flushed."""
    order: list[str] = []
    replace_file, flush = os.replace, os.fsync

    def moved(source: Any, target: Any) -> None:
        order.append(Path(target).name)
        replace_file(source, target)

    def flushed(handle: int) -> None:
        order.append("flush")
        flush(handle)

    monkeypatch.setattr(os, "replace", moved)
    monkeypatch.setattr(os, "fsync", flushed)
    go(base, data, tmp_path / "a", replace(SHORT, iters=1, patience=0))
    first = order.index("0000001_adapters.safetensors")
    commit = order.index("checkpoint.json", first)
    each = [["flush", f"0000001_{kind}.safetensors", "flush"] for kind in ("adapters", "optimizer")]
    assert order[first - 1 : commit + 2] == [*each[0], *each[1], "flush", "checkpoint.json", "flush"]


def test_tensors_behind_the_checkpoint_do_not_stay(base: Path, data: Path, tmp_path: Path) -> None:
    """Killed behind the tensors of step 6, it goes on with other intervals: nobody will write that file again."""
    output = tmp_path / "a"
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, 1000)

        def on_metric(row: dict[str, Any]) -> None:
            if row["iteration"] == 6:
                disk.last = disk.n + 9  # metrics, and four operations for each of the two files

        with pytest.raises(Killed):
            go(base, data, output, hooks=Hooks(on_metric=on_metric))
    assert (output / "0000006_optimizer.safetensors").is_file()
    left = read_checkpoint(output)
    assert left is not None
    assert left.progress.step == 3
    go(base, data, output, replace(QUICK, save_every=4), resume=True)
    assert sorted(int(path.name[:7]) for path in output.glob("*_adapters.safetensors")) == [0, 3, 4, 8]


def test_adapters_are_kept_and_the_last_two_optimiser_states(base: Path, data: Path, tmp_path: Path) -> None:
    go(base, data, tmp_path / "a", replace(QUICK, iters=7, save_every=2))
    names = set(bytes_of(tmp_path / "a"))
    assert names == {
        "adapter_config.json", "adapters.safetensors", "checkpoint.json", "metrics.jsonl",
        "0000006_optimizer.safetensors", "0000007_optimizer.safetensors",
        *(f"{step:07d}_adapters.safetensors" for step in (0, 2, 4, 6, 7)),
    }  # fmt: skip


@contextmanager
def files_up_to(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond a size; a write there fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_while_saving_leaves_the_checkpoint_before(base: Path, data: Path, tmp_path: Path) -> None:
    whole = go(base, data, tmp_path / "whole")
    sizes = {name: len(raw) for name, raw in bytes_of(tmp_path / "whole").items()}
    limits = {
        "adapters": sizes["0000006_adapters.safetensors"] - 10,
        "optimizer": sizes["0000006_optimizer.safetensors"] - 10,
        "checkpoint.json": 1500,
        "metrics.jsonl": 300,
    }
    assert limits["checkpoint.json"] < sizes["checkpoint.json"] < limits["adapters"] < limits["optimizer"]
    for name, limit in limits.items():
        output = tmp_path / f"full-{name}"
        disk = files_up_to(limit)

        def on_metric(row: dict[str, Any], disk: Any = disk) -> None:
            if row["iteration"] == 5:
                disk.__enter__()

        try:
            with pytest.raises(UserError, match=r"could not write .*make room.*--resume\.$") as error:
                go(base, data, output, hooks=Hooks(on_metric=on_metric))
        finally:
            disk.__exit__(None, None, None)
        assert name in str(error.value)
        assert ". " not in str(error.value)
        left = read_checkpoint(output)
        assert left is not None
        assert left.progress.step == 3
        assert not list(output.glob(".*tmp*"))
        assert figures(go(base, data, output, resume=True)) == figures(whole)
        assert outcome(output) == outcome(tmp_path / "whole")


@pytest.mark.parametrize("missing", [1, 100, 4000])
def test_a_short_write_that_nobody_reports_is_noticed(
    missing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0000001_adapters.safetensors"
    write_tensors(path, {"a": mx.zeros((10,))})
    before = path.read_bytes()
    real = mx.save_safetensors

    def short(file: str, tensors: dict[str, mx.array], metadata: Any) -> None:
        real(file, tensors, metadata)
        os.truncate(file, os.path.getsize(file) - missing)

    monkeypatch.setattr(mx, "save_safetensors", short)
    with pytest.raises(UserError, match="could not write"):
        write_tensors(path, {"a": mx.ones((1000,)), "b": mx.ones((7,))})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_the_disk_refuses_at_once(base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    with files_up_to(100), pytest.raises(UserError, match="could not write"):
        go(base, data, output)
    assert figures(go(base, data, output, resume=True)) == figures(go(base, data, tmp_path / "whole"))


def test_too_little_memory_is_refused_before_anything_is_written(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "free_memory_bytes", lambda: 10_000)
    with pytest.raises(UserError, match=r"training needs about .* GB beyond the weights.*are free"):
        go(base, data, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_folder_in_use_is_refused(chat: ChatModel, base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    with lock_directory(output), pytest.raises(UserError, match="in use by another process"):
        train(chat, data, output, QUICK)
    assert bytes_of(output) == {}

    def on_metric(row: dict[str, Any]) -> None:
        if row["iteration"] == 5:
            with pytest.raises(UserError, match="in use by another process"):
                go(base, data, output, resume=True)

    go(base, data, output, hooks=Hooks(on_metric=on_metric))
    go(base, data, tmp_path / "whole")
    assert outcome(output) == outcome(tmp_path / "whole")


def test_the_hash_of_the_configuration_stands_in_the_marker(base: Path, data: Path, tmp_path: Path) -> None:
    shas = []
    for number, settings in enumerate((QUICK, replace(QUICK, save_every=1), replace(QUICK, iters=7))):
        go(base, data, tmp_path / str(number), replace(settings, num_layers=1))
        shas.append(json.loads((tmp_path / str(number) / "checkpoint.json").read_text())["config_sha"])
    assert shas[0] == shas[1] != shas[2]


def test_every_row_before_a_checkpoint_is_counted_in_it(base: Path, data: Path, tmp_path: Path) -> None:
    go(base, data, tmp_path / "a")
    left = read_checkpoint(tmp_path / "a")
    assert left is not None
    assert left.progress.metric_rows == len(rows(tmp_path / "a")) == 3 + 8
    assert load(str(base), tmp_path / "a").model is not None
