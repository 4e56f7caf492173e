"""Running `lem` in this process or in one of its own, and the folder it is run in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from holding import PATIENCE_S, Hold, hold_at
from lem.cli.main import main
from small_plan import write_kernel, write_probes


@dataclass(frozen=True)
class Place:
    """A working directory: config, probe file, kernel and model."""

    folder: Path
    config: Path
    probes: Path
    kernel: Path
    model: Path


@dataclass(frozen=True)
class Result:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def make_place(folder: Path, model: Path) -> Place:
    (folder / "kernel").mkdir()
    for name in ("placebo.json", "placebo.txt", "lek-1-sig.txt"):
        write_kernel(folder / "kernel" / name, f"The text of {name} is about the weather.")
    kernel = write_kernel(folder / "kernel" / "axioms.json")
    probes = write_probes(folder / "probes.json", 5)
    config = folder / "lem.config.json"
    keys = {"default_model": "tiny", "models": {"tiny": str(model)}, "default_probes": "probes.json", "max_tokens": 4}
    config.write_text(json.dumps({**keys, "batch_size": 3}))
    return Place(folder, config, probes, kernel, model)


def assert_sentence(result: Result, *parts: str) -> None:
    """A refusal: exit code 2, one sentence on standard error, nothing on standard output."""
    assert result.code == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    for part in parts:
        assert part in result.err
    if result.err.startswith("Error: ") and not result.err.startswith("Error: Invalid"):
        assert result.err.count("\n") == 1


def run_in_process(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> Result:
    """Call `main` as the `lem` script does; it always exits."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return Result(int(ended.value.code or 0), out, err)


POOLED = """
from lem.runs import workers
from lem.cli.main import main
if __name__ == "__main__":
    workers.POOL_FROM_TOKENS = 0
    main()
"""


def start(
    place: Place, *arguments: object, pooled: bool = False, hold: Hold | None = None, alone: bool = False
) -> subprocess.Popen[str]:
    """Start `lem ARGUMENTS` as a process of its own, with Ctrl-C working whatever the test runner does.

    With `pooled`, even the small plans of these tests are decoded in worker processes (on a CPU with two cores).
    With `alone` it gets a process group of its own, which Ctrl-C reaches as a whole, as a terminal's would.
    """
    command = [sys.executable, *(["-c", POOLED] if pooled else ["-m", "lem.cli.main"]), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=place.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "LEM_CONFIG": str(place.config), **(hold.environment if hold else {})},
        start_new_session=alone, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> Result:
    """Wait for the end of a process, which comes within five minutes or by force."""
    try:
        out, err = process.communicate(timeout=3 * PATIENCE_S)
    finally:
        process.kill()
    return Result(process.returncode, out, err)


def signal_at(
    place: Place,
    arguments: Sequence[object],
    file: Path,
    n_lines: int,
    number: signal.Signals,
    before: Callable[[subprocess.Popen[str]], None] = lambda process: None,
    pooled: bool = False,
) -> Result:
    """Start `lem ARGUMENTS` and send it a signal when it has just written so many lines to a file."""
    hold = hold_at(file, n_lines)
    process = start(place, *arguments, pooled=pooled, hold=hold)

    def send() -> None:
        before(process)
        process.send_signal(number)

    hold.signal(process, send)
    return finish(process)


def children(pid: int) -> set[int]:
    """Process ids of a process's living children."""
    return {other for other, parent in _living().items() if parent == pid}


def _living() -> dict[int, int]:
    """The parent of each process that lives; without those that ended and whose parent has not been told yet."""
    if not Path("/proc/self/stat").exists():  # macOS
        listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in listed.splitlines()]
        return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if state != "Z":
            found[int(path.parent.name)] = int(parent)
    return found


def gone(pids: set[int]) -> bool:
    """Whether all of these processes end, given time."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if not pids & _living().keys():
            return True
        time.sleep(0.05)
    return False
