"""The bootstrap behind `./lem` and setup.py, on made-up checkouts: nothing here installs anything from anywhere."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from holding import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts")]
try:
    import bootstrap
    import bootstrap_install
finally:
    del sys.path[0]

VERSION = "{}.{}".format(*sys.version_info[:2])
# What the fake installer does when it is called: a module in place of pip or uv, driven by variables.
FAKE_UV = """#!/bin/sh
echo "${FAKE_OUTPUT:-Resolved 2 packages in 1ms}"
echo "$@" >>"$FAKE_CALLS"
while [ -n "$FAKE_HOLD" ] && [ -e "$FAKE_HOLD" ]; do sleep 0.05; done
exit "${FAKE_EXIT:-0}"
"""


def load_setup() -> ModuleType:
    """Import setup.py under another name than setuptools would."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("lem_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with two lock files and no environment."""
    folder = tmp_path / "check out"
    folder.mkdir()
    (folder / bootstrap.BASE_LOCK).write_text("one==1\ntwo==2 ; sys_platform == 'linux'\n")
    (folder / bootstrap.DEV_LOCK).write_text("one==1\npytest==9\ntwo==2 ; sys_platform == 'linux'\n")
    return folder


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a fake `uv` on PATH (so that `.venv` is made without pip, at once); returns the file of its calls."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(FAKE_UV)
    (tools / "uv").chmod(0o755)
    log = tmp_path / "calls"
    log.write_text("")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("LEM_PYTHON", sys.executable)
    monkeypatch.setenv("FAKE_CALLS", str(log))
    monkeypatch.delenv("PYTHONPATH", raising=False)  # an environment must find its own sources without it
    return log


def fake_python(folder: Path, name: str, answer: str) -> Path:
    """An executable that answers the probe with a fixed line."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def state(checkout: Path) -> set[str]:
    return {name for name in os.listdir(checkout / ".venv") if name.startswith("lem-")}


# What is installed, and when it must be installed again


def test_an_installation_is_done_once_per_lock(checkout: Path, calls: Path) -> None:
    root = str(checkout)
    for _ in range(3):
        bootstrap.prepare(root, bootstrap.BASE_LOCK)
    assert len(calls.read_text().splitlines()) == 1
    assert "--no-deps -r " + root + "/requirements.lock" in calls.read_text()
    (checkout / bootstrap.BASE_LOCK).write_text("one==1.1\n")
    assert not bootstrap.is_fresh(root, bootstrap.BASE_LOCK)
    bootstrap.prepare(root, bootstrap.BASE_LOCK)
    assert len(calls.read_text().splitlines()) == 2
    assert state(checkout) == {"lem-stamp", "lem-lock"}


def test_the_tests_lock_vouches_for_the_base_lock_but_not_the_reverse(checkout: Path, calls: Path) -> None:
    root = str(checkout)
    bootstrap.prepare(root, bootstrap.BASE_LOCK)
    assert not bootstrap.is_fresh(root, bootstrap.DEV_LOCK)
    bootstrap.prepare(root, bootstrap.DEV_LOCK)
    assert bootstrap.is_fresh(root, bootstrap.DEV_LOCK)
    assert bootstrap.is_fresh(root, bootstrap.BASE_LOCK)


def test_the_tests_lock_contains_the_base_lock() -> None:
    base, dev = ((ROOT / lock).read_text().splitlines() for lock in (bootstrap.BASE_LOCK, bootstrap.DEV_LOCK))
    # the tests' extras may ask for a package on more platforms than the base does, never on fewer
    pinned = {line.partition(" ;")[0] for line in dev}
    assert [line for line in base if line not in dev and line.partition(" ;")[0] not in pinned] == []
    assert [line for line in dev if " ;" in line and line.partition(" ;")[0] in base] == []


def test_the_environment_knows_the_plug_ins_of_the_project(checkout: Path, calls: Path) -> None:
    bootstrap.prepare(str(checkout), bootstrap.BASE_LOCK)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (folder,) = (checkout / ".venv" / "lib").glob("*/site-packages")
    (found,) = importlib.metadata.distributions(name="lem", path=[str(folder)])
    assert found.version == project["version"]
    points = {(point.group, point.name): point.value for point in found.entry_points}
    assert points == {("inspect_ai", name): target for name, target in project["entry-points"]["inspect_ai"].items()}


def test_a_moved_checkout_imports_its_own_source(checkout: Path, calls: Path) -> None:
    bootstrap.prepare(str(checkout), bootstrap.BASE_LOCK)
    moved = checkout.parent / "moved"
    checkout.rename(moved)
    (moved / "src" / "lem").mkdir(parents=True)
    (moved / "src" / "lem" / "__init__.py").write_text("")
    assert bootstrap.is_fresh(str(moved), bootstrap.BASE_LOCK)
    command = [str(moved / ".venv/bin/python"), "-c", "import lem; print(lem.__file__)"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=moved.parent)
    assert Path(answer.stdout.strip()).resolve() == (moved / "src/lem/__init__.py").resolve()


@pytest.mark.parametrize("damage", ["python gone", "cut off", "no pyvenv.cfg"])
def test_a_broken_environment_is_made_anew(checkout: Path, calls: Path, damage: str) -> None:
    root, venv = str(checkout), checkout / ".venv"
    bootstrap.prepare(root, bootstrap.BASE_LOCK)
    stray = next(venv.glob("lib/python*/site-packages")) / "half_installed.py"
    stray.write_text("")
    if damage == "python gone":
        (venv / "bin" / "python").unlink()
        (venv / "bin" / "python").symlink_to("/nowhere/python3.12")
    elif damage == "cut off":
        (venv / bootstrap.INCOMPLETE).write_text("")
    else:
        (venv / "pyvenv.cfg").unlink()
        (venv / bootstrap.STAMP).unlink()
    bootstrap.prepare(root, bootstrap.BASE_LOCK)
    assert not stray.exists()
    assert bootstrap.is_fresh(root, bootstrap.BASE_LOCK)


def test_an_environment_made_by_hand_is_kept(checkout: Path, calls: Path) -> None:
    venv = checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    kept = next(venv.glob("lib/python*/site-packages")) / "mine.py"
    kept.write_text("")
    bootstrap.prepare(str(checkout), bootstrap.BASE_LOCK)
    assert kept.exists()
    assert bootstrap.is_fresh(str(checkout), bootstrap.BASE_LOCK)


def test_another_interpreter_behind_the_link_is_noticed(checkout: Path, calls: Path) -> None:
    bootstrap.prepare(str(checkout), bootstrap.BASE_LOCK)
    other = fake_python(checkout.parent / "other", "python3.99", "")
    (checkout / ".venv/bin/python").unlink()
    (checkout / ".venv/bin/python").symlink_to(other)
    assert not bootstrap.is_fresh(str(checkout), bootstrap.BASE_LOCK)


@pytest.mark.parametrize("text", ["", "requirements.lock\n", "\x00\xff", "requirements.lock abc\npython python3.12\n"])
def test_an_unreadable_or_foreign_stamp_is_not_fresh(checkout: Path, text: str) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / bootstrap.STAMP).write_text(text, encoding="latin-1")
    assert not bootstrap.is_fresh(str(checkout), bootstrap.BASE_LOCK)


# Failures


def failing_start(checkout: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = bootstrap.main(["info"], str(checkout))
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("lem: ")
    assert "Traceback" not in last
    return code, last


def test_a_failed_installation_is_one_sentence_and_leaves_the_old_one_in_use(
    checkout: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bootstrap.prepare(str(checkout), bootstrap.BASE_LOCK)
    monkeypatch.setenv("FAKE_EXIT", "1")
    monkeypatch.setenv("FAKE_OUTPUT", "ERROR: no route to the index.")
    with pytest.raises(bootstrap.Stop, match=r"requirements-dev\.lock could not be installed \(ERROR: no route"):
        bootstrap.prepare(str(checkout), bootstrap.DEV_LOCK)
    assert bootstrap.is_fresh(str(checkout), bootstrap.BASE_LOCK)
    (checkout / bootstrap.BASE_LOCK).write_text("one==3\n")
    code, line = failing_start(checkout, capfd)
    assert code == 2
    assert "check the network" in line
    assert "ERROR: no route" in (checkout / ".venv" / "install.log").read_text()


def test_a_failure_while_packages_were_written_makes_the_next_start_begin_anew(
    checkout: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_EXIT", "1")
    monkeypatch.setenv("FAKE_OUTPUT", "Installing collected packages: one, two")
    with pytest.raises(bootstrap.Stop):
        bootstrap.prepare(str(checkout), bootstrap.BASE_LOCK)
    assert state(checkout) == {"lem-incomplete", "lem-lock"}


def test_an_interrupt_is_one_sentence_with_exit_code_130_and_is_repaired(
    checkout: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap_install.Progress, "update", interrupt)
        code, line = failing_start(checkout, capfd)
    assert code == 130
    assert "interrupted" in line
    bootstrap.prepare(str(checkout), bootstrap.BASE_LOCK)
    assert bootstrap.is_fresh(str(checkout), bootstrap.BASE_LOCK)


def test_a_missing_lock_file_or_a_file_in_the_way_is_one_sentence(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (checkout / ".venv").write_text("")
    assert failing_start(checkout, capfd)[0] == 2
    (checkout / bootstrap.BASE_LOCK).unlink()
    code, line = failing_start(checkout, capfd)
    assert code == 2
    assert "restore it" in line


def test_a_second_start_waits_for_the_installer_even_when_the_first_start_was_killed(
    checkout: Path, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = "import sys; sys.path.insert(0, sys.argv[1]); import bootstrap; bootstrap.prepare(sys.argv[2], sys.argv[3])"
    command = [sys.executable, "-c", start, str(ROOT / "scripts"), str(checkout), bootstrap.BASE_LOCK]
    hold, said = tmp_path / "hold", []  # the installer works for as long as the file is there
    hold.touch()

    def say(message: str) -> None:
        said.append(message)
        hold.unlink(missing_ok=True)

    try:
        first = subprocess.Popen(command, env={**os.environ, "FAKE_HOLD": str(hold)}, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE_S
        while not calls.read_text():
            assert time.monotonic() < until
            time.sleep(0.02)
        first.kill()
        first.wait()
        with open(checkout / ".venv" / bootstrap_install.LOCK) as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert bootstrap.INCOMPLETE in state(checkout)
        monkeypatch.setattr(bootstrap_install, "say", say)
        bootstrap.prepare(str(checkout), bootstrap.BASE_LOCK)
    finally:
        hold.unlink(missing_ok=True)
    assert said[0] == "another start is setting up .venv; waiting for it to end."
    assert len(calls.read_text().splitlines()) == 2
    assert bootstrap.is_fresh(str(checkout), bootstrap.BASE_LOCK)


# Choosing a Python


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        ({"python3.11": "3.11 cpython", "python3.12": "3.12 cpython"}, "python3.12"),
        ({"python3.13": "3.14 cpython", "python3.11": "3.11 cpython"}, "python3.11"),
        ({"python3.13": "shim: not installed", "python3.12": "3.12 cpython"}, "python3.12"),
        ({"python3.13": "3.13 pypy", "python3.11": "3.11 cpython"}, "python3.11"),
    ],
)
def test_the_newest_supported_cpython_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], chosen: str
) -> None:
    for name, answer in answers.items():
        fake_python(tmp_path / "bin", name, f"{answer} {os.uname().machine} pip")
    monkeypatch.delenv("LEM_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(bootstrap_install, "EXTRA_FOLDERS", ())
    monkeypatch.setattr(sys, "executable", "")
    assert bootstrap_install.find_python() == str(tmp_path / "bin" / chosen)


def test_the_running_python_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEM_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bootstrap_install, "EXTRA_FOLDERS", ())
    assert bootstrap_install.find_python(needs_pip=False) == sys.executable


@pytest.mark.parametrize(
    ("answer", "named", "pattern"),
    [
        ("3.9 cpython {machine} pip", "", r"needs Python 3\.11, 3\.12 or 3\.13 and found none \(this is \d\.\d+\)"),
        ("3.12 cpython {machine} bare", "", "lacks its venv module" if sys.platform == "linux" else "needs Python"),
        ("3.9 cpython {machine} pip", "python3.12", r"LEM_PYTHON=python3\.12 cannot be used \(is cpython 3\.9\)"),
        ("3.9 cpython {machine} pip", "/no/python", r"LEM_PYTHON=/no/python cannot be used \(not found\)"),
    ],
)
def test_no_python_that_fits_is_one_sentence_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, named: str, pattern: str
) -> None:
    fake_python(tmp_path / "bin", "python3.12", answer.format(machine=os.uname().machine))
    monkeypatch.setenv("LEM_PYTHON", named)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(bootstrap_install, "EXTRA_FOLDERS", ())
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(bootstrap.Stop, match=pattern) as caught:
        bootstrap_install.find_python()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_an_intel_python_is_refused_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert bootstrap_install.objection_to(["3.12", "cpython", "x86_64", "pip"]) == "is not built for Apple silicon"
    assert bootstrap_install.objection_to(["3.12", "cpython", "arm64", "pip"]) == ""


# What the command line is started with


@pytest.mark.parametrize(
    ("arguments", "lock"),
    [
        ([], "requirements.lock"),
        (["--help"], "requirements.lock"),
        (["train", "test"], "requirements.lock"),
        (["test", "-k", "x"], "requirements-dev.lock"),
        (["--debug", "test"], "requirements-dev.lock"),
    ],
)
def test_only_the_test_command_needs_the_tests_lock(arguments: list[str], lock: str) -> None:
    assert bootstrap.choose_lock(arguments) == lock


@pytest.mark.parametrize(
    ("existing", "library", "expected"),
    [
        ("", "/l/libopenblas.so.0", "/l/libopenblas.so.0"),
        ("/l/libjemalloc.so", "/l/libopenblas.so.0", "/l/libjemalloc.so:/l/libopenblas.so.0"),
        ("/mine/libopenblas.so.0", "/l/libopenblas.so.0", "/mine/libopenblas.so.0"),
        ("/opt/libmkl_rt.so", "/l/libopenblas.so.0", "/opt/libmkl_rt.so"),
        ("/l/libjemalloc.so", "", "/l/libjemalloc.so"),
        ("", "", ""),
    ],
)
def test_openblas_is_preloaded_behind_what_is_there(existing: str, library: str, expected: str) -> None:
    assert bootstrap.preload(existing, library) == expected


def test_the_environment_is_passed_on_with_openblas_on_linux_only(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = checkout / "libopenblas.so.0"
    library.write_text("")
    monkeypatch.setattr(bootstrap, "OPENBLAS_FOLDERS", (str(checkout),))
    given = {"A": "b", "__PYVENV_LAUNCHER__": "/x"}
    assert bootstrap.environment(str(checkout), given, "linux") == {"A": "b", "LD_PRELOAD": str(library)}
    assert bootstrap.environment(str(checkout), given, "darwin") == {"A": "b"}
    declined = {"LEM_NO_OPENBLAS": "1", "LD_PRELOAD": "/l/x.so"}
    assert bootstrap.environment(str(checkout), declined, "linux") == declined


def test_a_library_only_the_linker_knew_is_used_while_it_exists(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = checkout / "odd place.so"
    library.write_text("")
    monkeypatch.setattr(bootstrap, "OPENBLAS_FOLDERS", ())
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / bootstrap.STAMP).write_text(f"openblas {library}\n")
    assert bootstrap.environment(str(checkout), {}, "linux") == {"LD_PRELOAD": str(library)}
    library.unlink()
    assert bootstrap.environment(str(checkout), {}, "linux") == {}


def copy_launcher(checkout: Path) -> None:
    (checkout / "scripts").mkdir()
    for name in ("lem", "scripts/bootstrap.py", "scripts/bootstrap_install.py"):
        (checkout / name).write_text((ROOT / name).read_text())
    (checkout / "lem").chmod(0o755)
    (checkout / "src/lem/cli").mkdir(parents=True)
    (checkout / "src/lem/__init__.py").write_text("")
    (checkout / "src/lem/cli/__init__.py").write_text("")
    (checkout / "src/lem/cli/main.py").write_text(
        "import os, sys\nprint(sys.prefix, os.environ['MARK'], *sys.argv[1:], sep='|')\nsys.exit(7)\n"
    )


def test_the_launcher_works_through_a_symlink_from_another_folder(checkout: Path, calls: Path, tmp_path: Path) -> None:
    copy_launcher(checkout)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lem").symlink_to(checkout / "lem")
    (elsewhere / "os.py").write_text("raise SystemExit('the working directory was on the import path')")
    done = subprocess.run(
        ["./lem", "a b", "--c=d"], capture_output=True, text=True, cwd=elsewhere, env={**os.environ, "MARK": "kept"}
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.strip() == f"{checkout / '.venv'}|kept|a b|--c=d"


def test_lem_help_works_through_a_symlink_in_this_checkout(tmp_path: Path) -> None:
    if not bootstrap.is_fresh(str(ROOT), bootstrap.BASE_LOCK) or not (ROOT / "src/lem/cli/main.py").exists():
        pytest.skip("this checkout's .venv was not set up by ./lem")
    (tmp_path / "lem").symlink_to(ROOT / "lem")
    done = subprocess.run(["./lem", "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


# setup.py


def test_setup_answers_other_arguments_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    setup = load_setup()
    for arguments in ([], ["bdist_wheel"], ["install", "--user"], ["check", "x"]):
        assert setup.main(arguments) == 2
        assert re.fullmatch(r"lem: .*`pip install \.`.*\n", capsys.readouterr().err)


def test_setup_check_names_what_is_missing_and_its_remedy(
    checkout: Path, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = load_setup()
    assert setup.main(["check"], str(checkout)) == 1
    before = capsys.readouterr().out
    assert re.search(r"^requirements\.lock +missing +run \./lem", before, re.MULTILINE)
    assert setup.main(["install"], str(checkout)) == 0
    capsys.readouterr()
    rows = [setup.check_venv(str(checkout)), setup.check_packages(str(checkout), bootstrap.BASE_LOCK)]
    assert [state for _, state, _ in rows] == ["ok", "ok"]
    assert setup.check_packages(str(checkout), bootstrap.DEV_LOCK)[1] == "advice"


def test_setup_check_of_disk_and_mac(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = load_setup()
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: SimpleNamespace(free=0.5e9))
    assert setup.check_disk(str(checkout))[1:] == ("missing", "0.5 GB free, 3 GB needed: make room")
    states = [setup.check_metal(*mac)[1] for mac in (("arm64", "15.1"), ("arm64", "13.6"), ("x86_64", "15.1"))]
    assert states == ["ok", "missing", "missing"]
