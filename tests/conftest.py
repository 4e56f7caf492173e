"""Rules for the whole suite: no network, no settings leaking in from the shell, and no silent skips under CI."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
KEPT_VARIABLES = {"LEM_CI", "LEM_REFERENCE", "LEM_NO_OPENBLAS", "LEM_PYTHON"}

# Settings of the person's shell must not change what a test sees, in this process or in one it starts.
for _name in [name for name in os.environ if name.startswith("LEM_") and name not in KEPT_VARIABLES]:
    del os.environ[_name]
os.environ["HF_HUB_OFFLINE"] = "1"

# A suite that a script starts in the background ignores Ctrl-C, and so would every process that a test means to stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a CPU, MLX keeps the kernels it compiles in the temporary folder and cannot load one that another process is still
# writing, so tests that run side by side have a folder each. It stays, as MLX's own does, for the next run.
if sys.platform == "linux" and (_worker := os.environ.get("PYTEST_XDIST_WORKER")):
    _scratch = Path(tempfile.gettempdir()) / f"lem-tests-{os.getuid()}-{_worker}"
    _scratch.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(_scratch)

# How long one example takes says how busy the machine is, and nothing about what a test proves.
settings.register_profile("tests", settings(), deadline=None)
settings.load_profile("tests")


class NetworkBlocked(RuntimeError):
    """A test reached for the network. Not an OSError, so that no retry or fallback swallows it."""


def is_local(host: object) -> bool:
    """Whether a host as given to the socket module stays on this machine."""
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.split("%")[0]).is_loopback
    except ValueError:
        return False


def _guard_address(family: int, address: Any) -> None:
    if family in (socket.AF_INET, socket.AF_INET6) and not is_local(address[0]):
        raise NetworkBlocked(f"a test tried to reach {address[0]}; tests talk to this machine only.")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Generator[None]:
    """Refuse every connection that would leave the machine; loopback and Unix sockets work as always."""
    patch = pytest.MonkeyPatch()
    real_lookup = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_local(host):
            raise NetworkBlocked(f"a test tried to look up {host!r}; tests talk to this machine only.")
        return real_lookup(host, *args, **kwargs)

    def guarded(name: str) -> Any:
        real = getattr(socket.socket, name)

        def call(self: socket.socket, *args: Any) -> Any:
            _guard_address(self.family, args[-1])
            return real(self, *args)

        return call

    patch.setattr(socket, "getaddrinfo", lookup)
    for name in ("connect", "connect_ex", "sendto"):
        patch.setattr(socket.socket, name, guarded(name))
    yield
    patch.undo()


def reference_folder() -> Path | None:
    """The published files the parity tests compare with: `LEM_REFERENCE`, else ../shared/reference, else None."""
    named = os.environ.get("LEM_REFERENCE")
    folder = Path(named) if named else ROOT.parent / "shared" / "reference"
    if named and not folder.is_dir():
        raise pytest.UsageError(f"LEM_REFERENCE names {folder}, which is not a folder; correct or unset it.")
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of published files; tests that ask for it are deselected where it does not exist."""
    folder = reference_folder()
    assert folder is not None, "tests with this fixture are deselected without the folder"
    return folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect parity tests without their files: there is nothing to compare, which is no skip to mend."""
    if reference_folder() is not None:
        return
    without = [item for item in items if "reference" in getattr(item, "fixturenames", ())]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("LEM_CI") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped under LEM_CI=1, where a skip is a failure: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one under LEM_CI=1."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself while it is collected (`importorskip` at its top)."""
    report = yield
    _fail_if_skipped(report)
    return report
