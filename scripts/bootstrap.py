"""Start LEM from a bare checkout: make sure `.venv` matches its lock file, then become its Python.

Only the standard library is used, and only what Python 3.8 has: an old system Python must get far
enough to find a newer one or to say in one sentence what is missing. This file is the quick path,
walked at every start: it reads three small files and starts no other program. Whatever it finds
missing is handed to `bootstrap_install`.

State, all of it in `.venv`: `lem-stamp` (what was installed, written last), `lem-incomplete` (an
installation began and did not end), `lem-lock` (held while installing), `install.log`.

Threads: `OPENBLAS_NUM_THREADS` is left alone. One thread is the faster choice for lem-nano and two are
better for large models, and the number changes the last bits of a result; so it belongs to the user,
and `lem info` shows it.
"""

from __future__ import annotations

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
BASE_LOCK = "requirements.lock"
DEV_LOCK = "requirements-dev.lock"
STAMP = "lem-stamp"
INCOMPLETE = "lem-incomplete"
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
OPENBLAS_FOLDERS = (
    "/usr/lib/{machine}-linux-gnu",
    "/usr/lib/{machine}-linux-gnu/openblas-pthread",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)
OPENBLAS_NAMES = ("libopenblas.so.0", "libopenblasp.so.0")


class Stop(Exception):
    """The start ends here; the message is the one sentence the user reads."""

    def __init__(self, message: str, exit_code: int = EXIT_USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def say(message: str) -> None:
    """Print one line to standard error under the program's name."""
    print("lem: " + message, file=sys.stderr, flush=True)


def venv_folder(root: str) -> str:
    """Return the repository's virtual environment."""
    return os.path.join(root, ".venv")


def venv_python(root: str) -> str:
    """Return the virtual environment's interpreter, whether or not it exists."""
    return os.path.join(root, ".venv", "bin", "python")


def lock_hash(root: str, lock: str) -> str:
    """Return the SHA-256 of a lock file. Raises Stop when it cannot be read."""
    import hashlib

    try:
        with open(os.path.join(root, lock), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise Stop(f"{lock} cannot be read in {root} ({error.strerror}); restore it from the repository.") from None


def read_stamp(root: str) -> dict[str, str]:
    """Return what the last finished installation noted, or an empty mapping.

    Keys: a lock file's name -> its hash, `python` -> the interpreter's file name, `openblas` -> a library
    that only the system's linker cache knew.
    """
    try:
        with open(os.path.join(venv_folder(root), STAMP), encoding="utf-8") as file:
            pairs = [line.rstrip("\n").split(" ", 1) for line in file]
    except (OSError, UnicodeDecodeError):
        return {}
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def interpreter_name(root: str) -> str:
    """Return the file name behind `.venv/bin/python` (`python3.12`); empty when the link leads nowhere.

    The name and not the path: package managers put every patch release of one Python in a new folder.
    """
    real = os.path.realpath(venv_python(root))
    return os.path.basename(real) if os.access(real, os.X_OK) else ""


def is_fresh(root: str, lock: str) -> bool:
    """Whether `.venv` holds exactly this lock file's packages on the interpreter it was made with."""
    stamp = read_stamp(root)
    return (
        stamp.get(lock) == lock_hash(root, lock)
        and stamp.get("python", "?") == interpreter_name(root)
        and not os.path.exists(os.path.join(venv_folder(root), INCOMPLETE))
    )


def choose_lock(arguments: list[str]) -> str:
    """Return the lock file a command needs: the tests' for `test`, the base one for all others."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    return DEV_LOCK if command == "test" else BASE_LOCK


def find_openblas(noted: str = "") -> str:
    """Return the path of an OpenBLAS library in the usual Linux folders, else `noted` if it is a file, else ''."""
    machine = os.uname().machine
    for folder in OPENBLAS_FOLDERS:
        for name in OPENBLAS_NAMES:
            path = os.path.join(folder.format(machine=machine), name)
            if os.path.isfile(path):
                return path
    return noted if os.path.isfile(noted) else ""


def preload(existing: str, library: str) -> str:
    """Return the LD_PRELOAD value that adds `library` behind what is there; a BLAS the user chose stays alone."""
    if not library or any(word in existing.lower() for word in ("blas", "libmkl", "blis")):
        return existing
    return existing + ":" + library if existing.strip() else library


def environment(root: str, environ: dict[str, str], platform: str = sys.platform) -> dict[str, str]:
    """Return the environment the command line runs in: the caller's, with OpenBLAS preloaded on Linux.

    MLX's Linux wheel carries a reference BLAS about fifteen times slower; `LEM_NO_OPENBLAS=1` keeps it.
    """
    result = dict(environ)
    # A framework Python on macOS exports this, and the next interpreter would take it for its own path.
    result.pop("__PYVENV_LAUNCHER__", None)
    if platform.startswith("linux") and environ.get("LEM_NO_OPENBLAS", "") in ("", "0"):
        value = preload(environ.get("LD_PRELOAD", ""), find_openblas(read_stamp(root).get("openblas", "")))
        if value:
            result["LD_PRELOAD"] = value
    return result


def prepare(root: str, lock: str) -> None:
    """Make `.venv` match `lock`, installing if need be. Raises Stop with the sentence to print."""
    if is_fresh(root, lock):
        return
    try:
        import bootstrap_install

        bootstrap_install.install(root, lock)
    except KeyboardInterrupt:
        raise Stop("set-up was interrupted; the next start takes it up again.", EXIT_INTERRUPTED) from None
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise Stop(
            f"set-up failed at{where or ' .venv'}: {error.strerror or error}; mend that and start again."
        ) from None


def main(arguments: list[str], root: str = ROOT) -> int:
    """Prepare `.venv` and replace this program with the command line; returns only if that cannot be done."""
    try:
        prepare(root, choose_lock(arguments))
    except Stop as stop:
        say(str(stop))
        return stop.exit_code
    python = venv_python(root)
    # -P keeps the working directory off the import path: a `json.py` lying there must not be ours.
    command = [python, "-P", "-m", "lem.cli.main", *arguments]
    sys.stdout.flush()
    try:
        os.execve(python, command, environment(root, dict(os.environ)))
    except OSError as error:
        say(f"{python} cannot be started ({error.strerror}); remove .venv and start again.")
    return EXIT_USAGE
