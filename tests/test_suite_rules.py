"""The suite's own rules in tests/conftest.py: no network, no leaking settings, no silent skip under CI."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest
def test_passes(): pass
def test_skips(): pytest.skip("playwright is missing")
@pytest.mark.skipif(True, reason="no browser")
def test_is_marked(): pass
@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure(): assert False
"""


def run_suite(folder: Path, text: str, **variables: str) -> tuple[int, str]:
    """Run a made-up test file under a copy of the suite's conftest, in a checkout without reference files."""
    tests = folder / "checkout" / "tests"
    tests.mkdir(parents=True)
    (tests / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (tests / "test_it.py").write_text(text)
    # Options for the suite that runs now (PYTEST_ADDOPTS, say, with workers) are not meant for the made-up one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LEM_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, cwd=folder)
    return done.returncode, done.stdout + done.stderr


def test_a_skip_is_a_skip_at_home_and_a_failure_under_ci(tmp_path: Path) -> None:
    code, output = run_suite(tmp_path / "home", SKIPPING)
    assert code == 0
    assert "1 passed, 2 skipped, 1 xfailed" in output
    code, output = run_suite(tmp_path / "ci", SKIPPING, LEM_CI="1")
    assert code == 1
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in output  # a marked skip happens before the call
    assert "a skip is a failure" in output
    assert "playwright is missing" in output


def test_a_module_that_skips_itself_fails_under_ci(tmp_path: Path) -> None:
    text = "import pytest\npytest.importorskip('no_such_package')\ndef test_never(): pass\n"
    assert run_suite(tmp_path / "home", text)[0] == 5
    code, output = run_suite(tmp_path / "ci", text, LEM_CI="1")
    assert code != 5
    assert "no_such_package" in output
    assert "1 error" in output


def test_parity_tests_are_deselected_without_their_files(tmp_path: Path) -> None:
    text = "def test_here(): pass\ndef test_parity(reference): assert reference.is_dir()\n"
    code, output = run_suite(tmp_path / "without", text, LEM_CI="1")
    assert (code, "1 passed, 1 deselected" in output) == (0, True)
    code, output = run_suite(tmp_path / "with", text, LEM_REFERENCE=str(tmp_path))
    assert (code, "2 passed" in output) == (0, True)
    code, output = run_suite(tmp_path / "wrong", text, LEM_REFERENCE=str(tmp_path / "nothing"))
    assert code == 4
    assert "correct or unset it" in output


def test_settings_of_the_shell_do_not_reach_the_tests(tmp_path: Path) -> None:
    text = "import os\ndef test_it(): assert 'LEM_SEED' not in os.environ and os.environ['HF_HUB_OFFLINE'] == '1'\n"
    code, output = run_suite(tmp_path, text, LEM_SEED="7")
    assert code == 0, output


@pytest.mark.parametrize("address", ["192.0.2.1", "example.invalid", "2001:db8::1"])
def test_leaving_the_machine_is_refused(address: str) -> None:
    with pytest.raises(RuntimeError, match="this machine only"):
        socket.create_connection((address, 80), timeout=1)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as datagram, pytest.raises(RuntimeError, match="this machine only"):
        datagram.sendto(b"x", (address, 53))


def test_loopback_and_unix_sockets_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5),
    ):
        pass
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("s")
        listener.listen()
        client.connect("s")
