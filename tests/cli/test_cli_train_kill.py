"""Killed, interrupted and terminated for real, `lem train` goes on and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import Place, Result, children, finish, gone, signal_at, start

from holding import Hold, hold_at
from lem.training.checkpoint import read_checkpoint

Lem = Callable[..., Result]
TIMED = ("tokens_per_s", "peak_memory_gb")
# Dies by its own hand at the N-th time that a file is moved into its place.
IN_A_SAVE = """
import os, signal, sys
from lem.cli.main import main
left, replace = [int(sys.argv.pop(1))], os.replace
def killing(source, target):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killing
main()
"""


@pytest.fixture
def command(place: Place) -> Callable[..., list[object]]:
    """`lem train` with dropout, for 120 steps of a tiny model, into a folder."""
    folder = place.folder / "data"
    folder.mkdir()
    turns = [("Hi?", "Yes."), ("And then what, after all?", "No."), ("Who is it?", "Somebody else."), ("Q", "A!")]
    for name in ("train.jsonl", "valid.jsonl"):
        lines = [
            {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
            for question, answer in turns
        ]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = [
        "--data", "data", "--iters", 120, "--learning-rate", 0.002, "--rank", 4, "--dropout", 0.2, "--save-every", 10,
        "--report-every", 1, "--schedule", "cosine",
    ]  # fmt: skip
    return lambda name, *more: ["train", *recipe, "--adapter-path", name, *more]


def outcome(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("adapters.safetensors", "0000120_adapters.safetensors", "0000120_optimizer.safetensors")
    return {
        "metrics": [{k: v for k, v in row.items() if k not in TIMED} for row in lines],
        "progress": json.loads((folder / "checkpoint.json").read_text())["progress"],
        **{name: (folder / name).read_bytes() for name in names},
    }


def step_of(folder: Path) -> int:
    """The step of a folder's checkpoint, which must be whole."""
    found = read_checkpoint(folder)
    assert found is not None
    return found.progress.step


def in_a_save(place: Place, n: int, arguments: Sequence[object]) -> Result:
    return finish(
        subprocess.Popen(
            [sys.executable, "-c", IN_A_SAVE, str(n), *map(str, arguments)], cwd=place.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "LEM_CONFIG": str(place.config)},
        )
    )  # fmt: skip


def test_killed_five_times_it_ends_as_an_undisturbed_one(
    command: Callable[..., list[object]], place: Place, lem: Lem
) -> None:
    folder, rows = place.folder / "killed", place.folder / "killed" / "metrics.jsonl"
    assert lem(*command("whole")).code == 0
    # Files are moved for the configuration, then adapters, optimiser, marker of the checkpoint of step 0, and so on.
    assert in_a_save(place, 3, command("killed")).code == -signal.SIGKILL
    assert read_checkpoint(folder) is None
    killed = signal_at(place, command("killed", "--resume"), rows, 15, signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    assert 0 < (first := step_of(folder)) < 120
    for number in (signal.SIGINT, signal.SIGTERM):
        stopped = signal_at(place, command("killed", "--resume"), rows, 10, number)
        assert stopped.code == 3
        assert stopped.err == (
            f"Error: interrupted after iteration {step_of(folder)} of 120; the checkpoint of iteration "
            f"{step_of(folder)} is in killed, go on from it with --resume.\n"
        )
        assert stopped.out == ""
    assert first < (later := step_of(folder)) < 110
    assert in_a_save(place, 6, command("killed", "--resume")).code == -signal.SIGKILL
    assert step_of(folder) == later - later % 10 + 10, "one checkpoint more, and the next one not committed"
    resumed = lem(*command("killed", "--resume"))
    assert resumed.code == 0, resumed
    assert outcome(folder) == outcome(place.folder / "whole")


def test_a_training_in_a_child_process(command: Callable[..., list[object]], place: Place, lem: Lem) -> None:
    """Parent killed, child killed, Ctrl-C to both, and then to the end: nothing is lost, nobody is left behind."""
    folder = place.folder / "killed"

    def in_a_child(name: str, n_lines: int, *more: str) -> tuple[Hold, subprocess.Popen[str]]:
        hold = hold_at(folder / "metrics.jsonl", n_lines)
        return hold, start(place, *command(name, "--child", *more), hold=hold, alone=True)

    offspring: set[int] = set()
    hold, parent = in_a_child("killed", 15)

    def orphan() -> None:
        offspring.update(children(parent.pid))
        parent.kill()

    hold.signal(parent, orphan)
    finish(parent)
    assert len(offspring) == 1
    assert gone(offspring)
    first = step_of(folder)

    hold, parent = in_a_child("killed", 10, "--resume")
    hold.signal(parent, lambda: [os.kill(pid, signal.SIGABRT) for pid in children(parent.pid)])
    died = finish(parent)
    assert (died.code, died.out) == (3, "")
    assert "ended by SIGABRT" in died.err
    assert f"the checkpoint of iteration {step_of(folder)} is whole: go on from it with --resume" in died.err
    assert [line for line in died.err.splitlines() if line.startswith("Error")] == died.err.splitlines()[-1:]

    hold, parent = in_a_child("killed", 10, "--resume")
    hold.signal(parent, lambda: os.killpg(parent.pid, signal.SIGINT))
    stopped = finish(parent)
    assert (stopped.code, stopped.out) == (3, "")
    assert stopped.err.startswith(f"Error: interrupted after iteration {step_of(folder)} of 120; the checkpoint of ")
    assert stopped.err.count("\n") == 1
    assert first < step_of(folder) < 120

    done = finish(start(place, *command("killed", "--child", "--resume", "--json"), alone=True))
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["iterations"] == 120
    assert lem(*command("whole")).code == 0
    assert outcome(folder) == outcome(place.folder / "whole")
    refused = finish(start(place, *command("killed", "--child"), alone=True))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
