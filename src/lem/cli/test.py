"""`lem test`: hand the process over to pytest."""

from __future__ import annotations

import os
import sys

import click

from lem.errors import UserError
from lem.paths import repository_root

_MOST_WORKERS = 4  # each holds models of its own, and on a Mac they share one GPU


@click.command("test", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the test suite on up to four cores; further arguments go to pytest, which then takes one."""
    import importlib.util

    if importlib.util.find_spec("pytest") is None:
        raise UserError("pytest is not installed; start the tests with `./lem test`, which installs it.")
    os.chdir(repository_root())
    environment = dict(os.environ)
    workers = min(_MOST_WORKERS, _n_cores())
    if not arguments and workers > 1:
        # A file's tests stay together, because they share models made once; two BLAS pools on a core would only wait.
        arguments = ("-n", str(workers), "--dist", "loadfile")
        environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.execve(sys.executable, [sys.executable, "-m", "pytest", *arguments], environment)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
