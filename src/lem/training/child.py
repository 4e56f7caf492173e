"""Training in a child process: a GPU watchdog that kills it leaves a parent that says what to do.

The child's standard input is a pipe from the parent. When the parent dies, however it dies, the pipe closes and the
child ends; a parent that outlives its child reads from `checkpoint.json` how far it came.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lem.errors import EXIT_INCOMPLETE, LemError

MARK = "LEM_SUPERVISED"


class ChildKilled(LemError):
    """The training process was ended from outside; the checkpoint before is whole."""

    exit_code = EXIT_INCOMPLETE


def is_child() -> bool:
    """Whether this process is a supervised child."""
    return os.environ.get(MARK) == "1"


def end_with_parent() -> None:
    """In the child: end this process at once when the pipe to the parent closes."""

    def watch() -> NoReturn:
        while os.read(0, 4096):
            pass
        os._exit(EXIT_INCOMPLETE)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def supervise(arguments: Sequence[str], output: Path) -> int:
    """Run `lem ARGUMENTS` in a child process on this terminal and return its exit status.

    Ctrl-C reaches the child from the terminal; the parent waits for it to write its checkpoint.
    Raises: ChildKilled if a signal ended the child.
    """
    command = [sys.executable, "-m", "lem.cli.main", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, MARK: "1"}) as child:
        earlier = signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
        try:
            while True:
                try:
                    status = child.wait()
                    break
                except KeyboardInterrupt:
                    continue
        finally:
            signal.signal(signal.SIGTERM, earlier)
    if status < 0:
        raise ChildKilled(_sentence(signal.Signals(-status).name, output))
    return status


def _sentence(name: str, output: Path) -> str:
    from lem.training.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(output)
    if checkpoint is None:
        remedy = "no checkpoint was written yet: run the same command again"
    else:
        remedy = f"the checkpoint of iteration {checkpoint.progress.step} is whole: go on from it with --resume"
    if name in ("SIGKILL", "SIGABRT", "SIGSEGV", "SIGBUS"):
        return (
            f"{output}: the training process was ended by {name} (on a Mac mostly the GPU watchdog or a lack of "
            f"memory); {remedy}, with --grad-checkpoint if it happens again (the same training, but for dropout)."
        )
    return f"{output}: the training process was ended by {name}; {remedy}."


def device_error(error: RuntimeError) -> LemError | None:
    """The sentence for an error of the device, or of the connection to another process; None for any other error."""
    text = " ".join(str(error).split())[:160]
    if "connection to a peer" in text:
        remedy = "its message says why, go on from the last checkpoint with --resume"
        return ChildKilled(f"another process of this training ended; {remedy}.")
    if "[METAL]" in text or "[malloc" in text or "llocate" in text:
        remedy = "with --grad-checkpoint (the same training, but for dropout), or start anew with smaller batches"
        return ChildKilled(f"the device gave up ({text}); checkpoints are whole, go on with --resume {remedy}.")
    return None
