"""Processes that stop at a known place in their work (`held/sitecustomize.py`), and signals sent to them there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
PATIENCE_S = 100


@dataclass(frozen=True)
class Hold:
    """Where processes stop: each after it has written so many lines to a file that matches the pattern."""

    marks: Path
    environment: dict[str, str]

    def wait(self, process: subprocess.Popen[str], n_held: int = 1) -> None:
        """Wait until so many processes have stopped; `process`, or the one that started them, must not end before."""
        until = time.monotonic() + PATIENCE_S
        while len(list(self.marks.iterdir())) < n_held:
            assert process.poll() is None, f"it was over before it could be stopped: {process.communicate()}"
            assert time.monotonic() < until, "no process came to the place where it was to stop"
            time.sleep(0.005)

    def signal(self, process: subprocess.Popen[str], send: Callable[[], None], n_held: int = 1) -> None:
        """Wait for the stop, send a signal, and let go of whoever outlives it."""
        try:
            self.wait(process, n_held)
            send()
        finally:
            shutil.rmtree(self.marks)


def hold_at(pattern: object, n_lines: int) -> Hold:
    """Let processes with this environment stop once each has written `n_lines` to a file that matches `pattern`."""
    marks = Path(tempfile.mkdtemp(prefix="held-"))
    paths = os.pathsep.join([str(TESTS / "held"), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    places = {"HOLD_AT": str(Path(str(pattern)).absolute()), "HOLD_LINES": str(n_lines), "HOLD_MARKS": str(marks)}
    return Hold(marks, {"PYTHONPATH": paths, **places})
