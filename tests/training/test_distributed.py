"""Data-parallel training on this machine: two processes do what one does with the same global batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from trainings import go, rows

from holding import PATIENCE_S, Hold, hold_at
from lem.errors import Incomplete
from lem.training import loop
from lem.training.checkpoint import read_checkpoint
from lem.training.prepare import machine_facts
from lem.training.ranks import Ranks, here
from lem.training.settings import TrainingSettings
from local_server import free_ports

# Five rows, four to a step: every other step has one row, of which the second process gets none.
PAIRS = [
    ("One?", "Aye."), ("Two, then?", "Never."), ("And what of three?", "Perhaps."), ("Four?", "Ask."), ("Five?", "No."),
]  # fmt: skip
LONGEST_S = 3 * PATIENCE_S  # for two processes that share a core with others
RECIPE: dict[str, Any] = {
    "iters": 30, "batch_size": 4, "learning_rate": 2e-3, "rank": 4, "report_every": 1, "validate_every": 10,
    "save_every": 10,
}  # fmt: skip


@pytest.fixture
def terminal() -> Iterator[int]:
    """A standard input that stays open: at the end of its input the launcher would keep a core busy."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def launch(
    terminal: int, base: Path, data: Path, output: Path, *more: str, hold: Hold | None = None
) -> subprocess.Popen[str]:
    """`mlx.launch -n 2 --backend ring -- python -m lem.cli.main train ...`, as from a terminal."""
    settings = [word for name, value in RECIPE.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    launcher = Path(sys.executable).with_name("mlx.launch")
    command = [
        str(launcher), "-n", "2", "--backend", "ring", "--starting-port", str(free_ports(2)), "--",
        sys.executable, "-m", "lem.cli.main", "train",
        "--model", str(base), "--data", str(data), "--adapter-path", str(output), *settings,
    ]  # fmt: skip
    config = output.parent / "lem.config.json"
    config.write_text("{}")
    return subprocess.Popen(
        [*command, *more], text=True, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "LEM_CONFIG": str(config), **(hold.environment if hold else {})},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def test_two_processes_train_what_one_does(base: Path, data: Path, tmp_path: Path, line: Any, terminal: int) -> None:
    for name in ("train.jsonl", "valid.jsonl"):
        (data / name).write_text("".join(line(*pair) for pair in PAIRS))
    one, two = tmp_path / "one", tmp_path / "two"
    settings = TrainingSettings(**RECIPE)
    report = go(base, data, one, settings)

    hold = hold_at(two / "metrics.jsonl", 6)
    process = launch(terminal, base, data, two, hold=hold)
    hold.signal(process, lambda: os.killpg(process.pid, signal.SIGINT))
    _, said = process.communicate(timeout=LONGEST_S)
    left = read_checkpoint(two)
    assert left is not None, said
    assert 4 <= left.progress.step < 30
    for rank in (0, 1):  # the launcher loses what they say, but not how they ended
        assert f"Node with rank {rank} exited with code 3" in said

    out, said = launch(terminal, base, data, two, "--resume", "--json").communicate(timeout=LONGEST_S)
    assert [row["iteration"] for row in rows(two, "train")] == list(range(1, 31)), said
    ours, theirs = json.loads(out), report
    assert ours["iterations"] == theirs.iterations
    assert ours["trained_tokens"] == theirs.trained_tokens
    for kind in ("train", "valid"):
        losses = [[row["loss"] for row in rows(folder, kind)] for folder in (one, two)]
        np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-4)
    adapters = [mx.load(str(folder / "adapters.safetensors")) for folder in (one, two)]
    assert set(adapters[0]) == set(adapters[1])
    for name, value in adapters[0].items():
        np.testing.assert_allclose(np.array(value), np.array(adapters[1][name]), rtol=0, atol=1e-4)
    assert {path.name for path in two.iterdir()} - {path.name for path in one.iterdir()} <= {
        "loss.png", f"{left.progress.step:07d}_adapters.safetensors"
    }  # fmt: skip
    marker = json.loads((two / "checkpoint.json").read_text())
    assert marker["machine"]["ranks"] == 2


def test_a_refusal_ends_all_processes(base: Path, data: Path, tmp_path: Path, terminal: int) -> None:
    """Only the first one looks at the folder; the other learns of it, and neither waits for ever."""
    output = tmp_path / "a"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    out, said = launch(terminal, base, data, output).communicate(timeout=LONGEST_S)
    assert f"Error: {output} is not empty; choose another --adapter-path" in said
    assert "Traceback" not in said
    assert out == ""
    assert [path.name for path in output.iterdir()] == ["notes.txt"]


def test_alone_it_is_the_first_of_one() -> None:
    ranks = here()
    assert (ranks.first, ranks.rank, ranks.size, ranks.group) == (True, 0, 1, None)
    assert ranks.from_first({"a": [1, None]}) == {"a": [1, None]}
    assert [ranks.any(flag) for flag in (True, False)] == [True, False]
    assert machine_facts(ranks.size)["ranks"] == 1


class Group:
    """One of two processes."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return 2


def beside(monkeypatch: pytest.MonkeyPatch, *sent: Any) -> None:
    """Another process that sends these vectors, one to a sum, each between the two ones that say it is there."""
    left = [mx.array(np.concatenate([[1], vector, [1]]).astype(np.int32)) for vector in sent]
    monkeypatch.setattr(mx.distributed, "all_sum", lambda array, **options: array + left.pop(0))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_firsts_value_reaches_the_others(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"step": 50, "loss": 1 / 3, "name": "\u00e9", "none": None}
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    beside(monkeypatch, *([[0], np.zeros(len(text))] if rank == 0 else [[len(text)], text]))
    assert Ranks(Group(rank)).from_first(value if rank == 0 else None) == value


@pytest.mark.parametrize("others", [0, 1])
def test_what_one_process_was_told_all_know(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(monkeypatch, [others], [others], [others])
    ranks = Ranks(Group(1))
    assert ranks.any(True)
    assert ranks.any(False) is bool(others)
    ranks.check()


@pytest.mark.parametrize("summed", ["gradient", "evaluate_sum"])
def test_a_step_without_its_peer_leaves_no_checkpoint(
    summed: str, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In step 4 the peer is gone, and what a sum returns is this process's own share."""
    gone, n_done = False, 0
    real = getattr(loop, summed)

    def all_sum(array: Any, **options: Any) -> Any:
        return array if gone else array + array

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal gone, n_done
        n_done += 1
        gone = n_done == (4 if summed == "gradient" else 5)  # the first validation is that of step 0
        return real(*args, **options)

    monkeypatch.setattr(mx.distributed, "all_sum", all_sum)
    monkeypatch.setattr(mx.distributed, "init", lambda *args, **options: Group(0))
    monkeypatch.setattr(loop, summed, counted)
    every = {"save_every": 1, "validate_every": 1 if summed == "evaluate_sum" else 10}
    with pytest.raises(Incomplete, match="another rank ended"):
        go(base, data, tmp_path / "a", TrainingSettings(**{**RECIPE, **every}))
    left = read_checkpoint(tmp_path / "a")
    assert left is not None
    assert left.progress.step == 3
    assert [row["iteration"] for row in rows(tmp_path / "a", "valid")][-1] < 4


def test_a_process_that_waits_for_another_can_be_ended() -> None:
    assert Ranks(Group(1)).signals == (signal.SIGINT,)
    assert here().signals == (signal.SIGINT, signal.SIGTERM)
