"""The supervising parent: what becomes of the child becomes of it, and the child does not outlive it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from trainings import QUICK, Killed, go, killed_at

from holding import PATIENCE_S
from lem.training import child
from lem.training.child import ChildKilled, device_error, supervise

ENDS_WITH_PARENT = "import time; from lem.training.child import *; end_with_parent(); print('up', flush=True); "


@pytest.fixture
def as_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell script that is started in the place of Python; the test writes it."""
    script = tmp_path / "python"
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return script


def test_the_command_line_the_mark_and_the_status_go_through(as_child: Path, tmp_path: Path) -> None:
    as_child.write_text(f'#!/bin/sh\nprintf "%s|" "$LEM_SUPERVISED" "$@" > {tmp_path}/told\nexit 7\n')
    arguments = ["train", "--data", "a folder", "--target", "q*", "--json"]
    assert supervise(arguments, tmp_path) == 7
    told = (tmp_path / "told").read_text().split("|")
    assert told == ["1", "-m", "lem.cli.main", *arguments, ""]
    assert not child.is_child()


@pytest.mark.parametrize("name", ["KILL", "ABRT", "TERM", "INT"])
def test_a_signal_is_a_sentence_with_the_checkpoint(
    name: str, as_child: Path, base: Path, data: Path, tmp_path: Path
) -> None:
    as_child.write_text(f"#!/bin/sh\nkill -{name} $$\n")
    with pytest.raises(ChildKilled, match=rf"ended by SIG{name}\b.*no checkpoint was written yet") as error:
        supervise(["train"], tmp_path / "a")
    assert ("watchdog" in str(error.value)) is (name in ("KILL", "ABRT"))
    assert error.value.exit_code == 3
    with pytest.raises(Killed):
        go(base, data, tmp_path / "a", QUICK, hooks=killed_at(5))
    with pytest.raises(
        ChildKilled, match=r"the checkpoint of iteration 3 is whole: go on from it with --resume"
    ) as error:
        supervise(["train"], tmp_path / "a")
    assert str(error.value).endswith(".")
    assert ". " not in str(error.value)


def test_a_signal_to_the_parent_goes_to_the_child(
    as_child: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM is handed on; Ctrl-C, which the terminal sends to both, only makes the parent wait."""
    earlier = signal.getsignal(signal.SIGTERM)
    as_child.write_text(f"#!/bin/sh\ntrap 'exit 3' TERM\ntouch {tmp_path}/up\nwhile :; do sleep 0.05; done\n")
    up, waits, main = tmp_path / "up", threading.Semaphore(0), threading.main_thread().ident or 0

    class Watched(subprocess.Popen[bytes]):
        """Tells when the parent begins to wait: a signal before would end the parent, and so the tests."""

        def wait(self, timeout: float | None = None) -> int:
            waits.release()
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Watched)

    def send() -> None:
        while not up.exists():
            time.sleep(0.01)
        for number in (signal.SIGINT, signal.SIGTERM):
            waits.acquire()
            signal.pthread_kill(main, number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    assert supervise(["train"], tmp_path) == 3
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == earlier


def test_the_child_ends_when_its_pipe_closes() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDS_WITH_PARENT + "time.sleep(100)"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.stdin.write(b"what is typed does not end it\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 3


def test_only_errors_of_the_device_are_sentences() -> None:
    assert device_error(RuntimeError("[matmul] shapes do not match")) is None
    for text in ("[METAL] Command buffer execution failed", "[malloc_or_wait] Unable to allocate 8 bytes."):
        found = device_error(RuntimeError(text))
        assert found is not None
        assert found.exit_code == 3
        assert "go on with --resume" in str(found)
