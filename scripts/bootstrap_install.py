"""The slow path of `./lem`: find a Python, make `.venv`, install a lock file, note that it is done.

Standard library of Python 3.8 only, as in `bootstrap`. One installation runs at a time (a lock file that
the installer process inherits, so that it stays locked even if this program is killed). An installation
that was cut off after it began to write packages leaves `lem-incomplete`, and the next start makes
`.venv` anew; one that failed before that leaves what was there in use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

import bootstrap
from bootstrap import Stop, say

VERSION = "0.1.0"
DIST_INFO = f"lem-{VERSION}.dist-info"
ENTRY_POINTS = "[inspect_ai]\nlem = lem.interop.inspect_provider\n"
SUPPORTED = ("3.13", "3.12", "3.11")
EXTRA_FOLDERS = ("/opt/homebrew/bin", "/usr/local/bin", "/usr/bin")
LOCK = "lem-lock"
LOG = "install.log"
PROBE = (
    "import os, sys, importlib.util as u\n"
    "print('%d.%d' % sys.version_info[:2], sys.implementation.name, os.uname().machine,"
    " 'pip' if u.find_spec('ensurepip') else 'bare')"
)
_TOUCHED = ("Installing collected packages", "Prepared ", "Uninstalled ", "Installed ")


def install(root: str, lock: str) -> None:
    """Bring `.venv` to the state of `lock`; a second caller waits for the first and then finds the work done.

    Raises: Stop when no Python fits, packages cannot be had, or `.venv` is not a folder; OSError from the disk.
    """
    if os.name != "posix":
        raise Stop("LEM runs on macOS (Apple silicon) and on Linux; on Windows, use it inside WSL.")
    venv = bootstrap.venv_folder(root)
    os.makedirs(venv, exist_ok=True)
    with open(os.path.join(venv, LOCK), "w", encoding="utf-8") as lock_file:
        _wait_for(lock_file)
        if bootstrap.is_fresh(root, lock):
            return
        with open(os.path.join(venv, LOG), "w", encoding="utf-8") as log:
            _install_locked(root, lock, log, lock_file.fileno())


def _wait_for(lock_file: Any) -> None:
    import fcntl

    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("another start is setting up .venv; waiting for it to end.")
        fcntl.flock(lock_file, fcntl.LOCK_EX)


def _install_locked(root: str, lock: str, log: Any, lock_descriptor: int) -> None:
    venv = bootstrap.venv_folder(root)
    uv = shutil.which("uv")
    incomplete = os.path.join(venv, bootstrap.INCOMPLETE)
    usable = not os.path.exists(incomplete) and _venv_works(root, needs_pip=uv is None)
    base_python = "" if usable else find_python(needs_pip=uv is None)
    _write(incomplete, "An installation began and did not end; the next start repairs it.\n")
    if not usable:
        _make_venv(root, base_python, log, lock_descriptor, with_pip=uv is None)
    touched = [False]
    try:
        _install_packages(root, lock, uv, log, lock_descriptor, touched)
    except BaseException:
        if not touched[0]:
            os.remove(incomplete)
        raise
    _write_path_file(root)
    _write_stamp(root, lock)
    os.remove(incomplete)


def find_python(needs_pip: bool = True) -> str:
    """Return the path of a CPython 3.13, 3.12 or 3.11, looked for in this order, then the running one.

    `LEM_PYTHON` names one outright. Raises: Stop with the remedy for this system.
    """
    named = os.environ.get("LEM_PYTHON", "")
    path = os.pathsep.join([os.environ.get("PATH", ""), *EXTRA_FOLDERS])
    names = [named] if named else ["python" + version for version in SUPPORTED] + [sys.executable]
    objections = []
    for name in names:
        python = shutil.which(name, path=path)
        objection = objection_to(probe(python), needs_pip) if python else "not found"
        if python and not objection:
            return python
        objections.append(f"{name}: {objection}")
    if named:
        raise Stop(f"LEM_PYTHON={named} cannot be used ({objection}); name a CPython 3.11, 3.12 or 3.13, or unset it.")
    lacking_pip = [line.split(":")[0] for line in objections if line.endswith("without ensurepip")]
    raise Stop(_python_remedy(lacking_pip))


def probe(python: str) -> list[str]:
    """Ask an interpreter for version, implementation, machine and `pip` or `bare`; empty when it does not run."""
    try:
        done = subprocess.run([python, "-I", "-c", PROBE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    answer = done.stdout.split()
    return answer if done.returncode == 0 and len(answer) == 4 else []


def objection_to(answer: list[str], needs_pip: bool = True) -> str:
    """Say why an interpreter that gave this answer to `probe` cannot be used; empty when it can."""
    if not answer:
        return "does not run"
    version, implementation, machine, pip = answer
    if version not in SUPPORTED or implementation != "cpython":
        return f"is {implementation} {version}"
    if sys.platform == "darwin" and machine != "arm64":
        return "is not built for Apple silicon"
    return "without ensurepip" if needs_pip and pip != "pip" else ""


def _python_remedy(lacking_pip: list[str]) -> str:
    if lacking_pip and sys.platform.startswith("linux"):
        name = os.path.basename(lacking_pip[0])
        return f"{name} lacks its venv module; install it with `sudo apt install {name}-venv` and start again."
    running = "{}.{}".format(*sys.version_info[:2])
    if sys.platform == "darwin":
        remedy = "`brew install python@3.12` (an arm64 build)"
    elif shutil.which("apt-get"):
        remedy = "`sudo apt install python3 python3-venv` where that is 3.11 or newer"
    else:
        remedy = "your package manager"
    return (
        f"LEM needs Python 3.11, 3.12 or 3.13 and found none (this is {running}); install one with {remedy}, "
        "or name it in LEM_PYTHON."
    )


def _venv_works(root: str, needs_pip: bool) -> bool:
    python = bootstrap.venv_python(root)
    if not os.path.isfile(os.path.join(bootstrap.venv_folder(root), "pyvenv.cfg")):
        return False
    if not bootstrap.interpreter_name(root) or objection_to(probe(python), needs_pip=False):
        return False
    asked = subprocess.run([python, "-I", "-m", "pip", "--version"], capture_output=True, check=False)
    return not needs_pip or asked.returncode == 0


def _make_venv(root: str, python: str, log: Any, lock_descriptor: int, with_pip: bool) -> None:
    """Empty `.venv` of all but our own files and make it anew."""
    venv = bootstrap.venv_folder(root)
    for entry in os.scandir(venv):
        if entry.name in (LOCK, LOG, bootstrap.INCOMPLETE):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.remove(entry.path)
    say(f"making .venv with {python}")
    command = [python, "-I", "-m", "venv", venv] + ([] if with_pip else ["--without-pip"])
    last = _run(command, log, lock_descriptor, lambda line: None)
    if last is not None:
        raise Stop(f"a virtual environment could not be made ({last}); details are in .venv/{LOG}.")


def _install_packages(
    root: str, lock: str, uv: str | None, log: Any, lock_descriptor: int, touched: list[bool]
) -> None:
    python, lock_path = bootstrap.venv_python(root), os.path.join(root, lock)
    # The lock is complete, so nothing may be resolved beyond it (--no-deps).
    if uv:
        command = [uv, "pip", "install", "--python", python, "--no-deps", "-r", lock_path]
    else:
        command = [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "-r", lock_path]
    progress = Progress(lock, _count_requirements(lock_path))

    def watch(line: str) -> None:
        touched[0] = touched[0] or line.startswith(_TOUCHED)
        progress.update(line)

    try:
        last = _run(command, log, lock_descriptor, watch)
    finally:
        progress.close()
    if last is not None:
        raise Stop(
            f"the packages of {lock} could not be installed ({last}); check the network and the free disk space "
            f"and start again (details are in .venv/{LOG})."
        )
    say(f"set-up of {lock} is complete.")


def _run(command: list[str], log: Any, lock_descriptor: int, watch: Any) -> str | None:
    """Run to the end, copying output to the log and to `watch`; return None, or on failure the line that says why."""
    # A user-wide pip setting `user = true` cannot work inside a virtual environment.
    environ = dict(os.environ, PIP_USER="0", PYTHONUNBUFFERED="1")
    environ.pop("__PYVENV_LAUNCHER__", None)
    log.write("$ " + " ".join(command) + "\n")
    reason = "no output"
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env=environ, pass_fds=(lock_descriptor,),
    ) as child:  # fmt: skip
        assert child.stdout is not None
        try:
            for line in child.stdout:
                log.write(line)
                log.flush()
                watch(line)
                if line.strip() and (not reason.startswith("ERROR") or line.startswith("ERROR")):
                    reason = line.strip()
        except BaseException:
            child.terminate()
            raise
    return None if child.returncode == 0 else reason[:200].rstrip(".")


def _count_requirements(lock_path: str) -> int:
    with open(lock_path, encoding="utf-8") as file:
        return sum(1 for line in file if line.strip() and not line.startswith(("#", "-")))


class Progress:
    """One line on standard error: rewritten in place on a terminal, printed once elsewhere."""

    def __init__(self, lock: str, total: int) -> None:
        self.lock, self.total, self.done, self.stage = lock, total, 0, ""
        self.terminal = sys.stderr.isatty()
        self._show("starting")
        if not self.terminal:
            say(f"installing {lock} into .venv (this can take some minutes)")

    def update(self, line: str) -> None:
        """Take one line of the installer's output into account."""
        if line.startswith("Ignoring "):
            self.total -= 1
        elif line.startswith(("Collecting ", "Requirement already satisfied")):
            self.done += 1
            self._show(f"{self.done} of {self.total} packages fetched")
        elif line.startswith(("Resolved ", "Downloading ", "Downloaded ", "Installing ", "Prepared ")):
            self._show(" ".join(line.split()[:3]).rstrip(":"))

    def _show(self, stage: str) -> None:
        if self.terminal:
            print(f"\r\033[Klem: installing {self.lock} into .venv: {stage}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Clear the line."""
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _write_path_file(root: str) -> None:
    """Put `src` on the environment's import path; relative, so that a moved checkout still imports its own code.

    The metadata beside it is what other programs of the environment find plug-ins by: Inspect its provider `lem`.
    """
    library = os.path.join(bootstrap.venv_folder(root), "lib")
    for name in os.listdir(library):
        packages = os.path.join(library, name, "site-packages")
        if os.path.isdir(packages):
            _write(os.path.join(packages, "lem.pth"), os.path.join("..", "..", "..", "..", "src") + "\n")
            metadata = os.path.join(packages, DIST_INFO)
            os.makedirs(metadata, exist_ok=True)
            _write(os.path.join(metadata, "METADATA"), "Metadata-Version: 2.1\nName: lem\nVersion: " + VERSION + "\n")
            _write(os.path.join(metadata, "entry_points.txt"), ENTRY_POINTS)


def _write_stamp(root: str, lock: str) -> None:
    """Note what is installed. The tests' lock contains the base one, so it vouches for both."""
    locks = [bootstrap.BASE_LOCK, bootstrap.DEV_LOCK] if lock == bootstrap.DEV_LOCK else [lock]
    lines = [f"{name} {bootstrap.lock_hash(root, name)}" for name in locks]
    lines += [f"python {bootstrap.interpreter_name(root)}", f"openblas {openblas_of_linker()}"]
    _write(os.path.join(bootstrap.venv_folder(root), bootstrap.STAMP), "\n".join(lines) + "\n")


def openblas_of_linker() -> str:
    """Return the OpenBLAS that the system's linker cache lists for this machine, or '' (also off Linux)."""
    ldconfig = shutil.which("ldconfig", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if not sys.platform.startswith("linux") or not ldconfig:
        return ""
    asked = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, errors="replace", check=False)
    for line in asked.stdout.splitlines():
        name, _, path = line.strip().partition(" => ")
        if name.split(" ")[0] in bootstrap.OPENBLAS_NAMES and ("64" in name) == (sys.maxsize > 2**32):
            return path
    return ""


def _write(path: str, text: str) -> None:
    """Write a whole file under a temporary name and move it into place."""
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".part", path)
