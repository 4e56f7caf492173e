#!/usr/bin/env python3
"""Look at this machine, or set LEM up without starting it: `python3 setup.py check` or `python3 setup.py install`.

This is not a setuptools file (hatchling builds the package); it shares its code with `./lem`, and like it
needs nothing but the standard library of Python 3.8.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "scripts"))

import bootstrap
import bootstrap_install

USAGE = (
    "setup.py knows `check`, `install` and `install --dev`; to build or install the package itself use "
    "`pip install .`, and to run LEM use ./lem."
)
FREE_GB_TO_INSTALL = 3
FREE_GB_TO_RUN = 1
OK, MISSING, ADVICE = "ok", "missing", "advice"
# Each check returns (what, OK | MISSING | ADVICE, what was found or what to do about it).


def check_python() -> tuple[str, str, str]:
    """Find the Python that `.venv` is or would be made with."""
    try:
        return ("Python 3.11-3.13", OK, bootstrap_install.find_python(needs_pip=shutil.which("uv") is None))
    except bootstrap.Stop as stop:
        return ("Python 3.11-3.13", MISSING, str(stop))


def check_venv(root: str) -> tuple[str, str, str]:
    """Whether `.venv` has an interpreter that starts."""
    name = bootstrap.interpreter_name(root)
    if name and bootstrap_install.probe(bootstrap.venv_python(root)):
        return (".venv", OK, f"{name} in {bootstrap.venv_folder(root)}")
    return (".venv", MISSING, "run ./lem or `python3 setup.py install`")


def check_packages(root: str, lock: str) -> tuple[str, str, str]:
    """Whether the packages of a lock file are installed as it stands now; only the base one is required."""
    if bootstrap.is_fresh(root, lock):
        return (lock, OK, "installed and up to date")
    if lock == bootstrap.DEV_LOCK:
        return (lock, ADVICE, "only for the tests: run `./lem test` or `python3 setup.py install --dev`")
    return (lock, MISSING, "run ./lem or `python3 setup.py install`")


def check_openblas(root: str) -> tuple[str, str, str]:
    """Whether a fast BLAS can be preloaded (Linux)."""
    library = bootstrap.find_openblas(bootstrap.read_stamp(root).get("openblas", ""))
    if library:
        return ("OpenBLAS", OK, library)
    return ("OpenBLAS", ADVICE, "runs about 15 times slower without: `sudo apt install libopenblas0-pthread`")


def check_compiler() -> tuple[str, str, str]:
    """Whether `mx.compile` can build its CPU kernels (Linux); without a compiler MLX runs them unfused."""
    compiler = shutil.which("g++")
    return (
        ("C++ compiler", OK, compiler) if compiler else ("C++ compiler", ADVICE, "faster with: `sudo apt install g++`")
    )


def check_disk(root: str) -> tuple[str, str, str]:
    """Whether there is room for the packages, or, once they are there, for runs and adapters."""
    needed = FREE_GB_TO_RUN if bootstrap.is_fresh(root, bootstrap.BASE_LOCK) else FREE_GB_TO_INSTALL
    free = shutil.disk_usage(root).free / 1e9
    if free >= needed:
        return ("disk space", OK, f"{free:.0f} GB free")
    return ("disk space", MISSING, f"{free:.1f} GB free, {needed} GB needed: make room")


def check_metal(machine: str, macos: str) -> tuple[str, str, str]:
    """Whether this Mac can run MLX on its GPU: an arm64 Python on macOS 14 or newer."""
    if machine != "arm64":
        return ("Metal", MISSING, f"this Python is {machine}: MLX needs Apple silicon and an arm64 Python")
    major = int(macos.split(".")[0] or 0)
    if major < 14:
        return ("Metal", MISSING, f"macOS {macos} is too old: update to macOS 14 or newer")
    return ("Metal", OK, f"Apple silicon, macOS {macos}")


def check(root: str) -> int:
    """Print one line per thing LEM needs, with the remedy where it is not there; 1 if a required one is missing."""
    rows = [check_python(), check_venv(root)]
    rows += [check_packages(root, lock) for lock in (bootstrap.BASE_LOCK, bootstrap.DEV_LOCK)]
    if sys.platform == "darwin":
        rows.append(check_metal(platform.machine(), platform.mac_ver()[0]))
    else:
        rows += [check_openblas(root), check_compiler()]
    rows.append(check_disk(root))
    width = max(len(what) for what, _, _ in rows)
    for what, state, text in rows:
        print(f"{what:<{width}}  {state:<7}  {text}")
    return 1 if any(state == MISSING for _, state, _ in rows) else 0


def main(arguments: list[str], root: str = bootstrap.ROOT) -> int:
    """Run `check` or `install [--dev]`; anything else is answered with one sentence and exit code 2."""
    try:
        if arguments == ["check"]:
            return check(root)
        if arguments in (["install"], ["install", "--dev"]):
            lock = bootstrap.DEV_LOCK if "--dev" in arguments else bootstrap.BASE_LOCK
            bootstrap.prepare(root, lock)
            print(f".venv matches {lock}; start with ./lem --help")
            return 0
        raise bootstrap.Stop(USAGE)
    except bootstrap.Stop as stop:
        bootstrap.say(str(stop))
        return stop.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
