"""`lem test`: hand the process over to pytest."""

from __future__ import annotations

import os
import sys

import click

from lem.errors import UserError
from lem.paths import repository_root


@click.command("test", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the test suite; further arguments go to pytest."""
    import importlib.util

    if importlib.util.find_spec("pytest") is None:
        raise UserError("pytest is not installed; start the tests with `./lem test`, which installs it.")
    os.chdir(repository_root())
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])
