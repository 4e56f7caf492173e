"""The JSONL store: what was written is read back, and no crash or full disk leaves a half line behind."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lem.errors import DataError, UserError
from lem.records import JsonlStore, lock_directory, read_jsonl, write_atomic
from lem.records.store import is_locked, iter_jsonl, lock_file

# Any text, lone surrogates and every kind of line separator included.
texts = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(["\r", "\x85\u2028\n", "\ud800"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
rows_of_any_kind = st.lists(st.dictionaries(texts, values, max_size=4), max_size=6)
light = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with JsonlStore(path) as store:
        for row in rows:
            store.append(row)


@light
@given(rows_of_any_kind)
def test_what_is_written_is_read_back(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a" / "rows.jsonl"
        write(path, rows)
        assert read_jsonl(path, allow_torn=False) == (rows, path.stat().st_size)
        assert path.read_bytes().count(b"\n") == len(rows), "one row is one line"
        assert JsonlStore(path).rows == rows


@light
@given(rows_of_any_kind, st.floats(0, 1))
def test_a_file_cut_anywhere_holds_a_prefix_of_the_rows(rows: list[dict[str, Any]], where: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path, rows)
        whole = path.read_bytes()
        cut = whole[: round(where * len(whole))]
        path.write_bytes(cut)
        kept = rows[: cut.count(b"\n")]
        assert read_jsonl(path)[0] == kept
        assert list(iter_jsonl(path)) == kept
        assert path.read_bytes() == cut, "reading changes nothing"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store = JsonlStore(path)
        assert store.rows == kept
        torn = len(cut) - (cut.rfind(b"\n") + 1)
        assert [f"cut off {torn} bytes" in str(w.message) for w in caught] == ([True] if torn else [])
        store.append({"next": 1})
        store.close()
        assert read_jsonl(path, allow_torn=False)[0] == [*kept, {"next": 1}]


def test_a_torn_last_line_is_an_error_where_none_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    with pytest.raises(DataError, match=r"rows\.jsonl line 2"):
        read_jsonl(path, allow_torn=False)
    assert read_jsonl(path) == ([{"a": 1}], 9)


@pytest.mark.parametrize("bad", [b'{"a": 2', b"[1, 2]", b"\xff\xfe", b"\x00\x00\x00", b'"text"', b"NULL"])
def test_an_unreadable_line_elsewhere_is_an_error_that_names_it(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    content = b'{"a": 1}\n\n' + bad + b'\n{"a": 3}\n'
    path.write_bytes(content)
    for attempt in (read_jsonl, JsonlStore):
        with pytest.raises(DataError, match=r"rows\.jsonl line 3: not a JSON object"):
            attempt(path)
    assert path.read_bytes() == content


def test_values_that_json_has_not_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with JsonlStore(tmp_path / "rows.jsonl") as store:
        with pytest.raises(ValueError, match="JSON"):
            store.append({"value": float("nan")})
        assert store.path.stat().st_size == 0


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from lem.records import JsonlStore
from lem.errors import UserError
store = JsonlStore(Path(sys.argv[1]))
store.append({"text": "a" * 50})
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    store.append({"text": "b" * 500})
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.append({"text": "c"})
"""


def test_a_write_that_only_half_fits_is_taken_back(tmp_path: Path) -> None:
    """A real short write: the file may not grow beyond 100 bytes, so 37 of the second line's bytes go in."""
    path = tmp_path / "rows.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        f"{path}: could not write (the disk is full); make room and run the same command again, it resumes."
    )
    assert path.read_text() == json.dumps({"text": "a" * 50}) + "\n" + '{"text": "c"}\n'


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EIO, "Input/output error")],
)
def test_a_failing_write_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    real = os.write

    def half(fd: int, data: bytes) -> int:
        real(fd, data[: len(data) // 2])
        raise OSError(code, os.strerror(code))

    with JsonlStore(tmp_path / "rows.jsonl") as store:
        store.append({"a": 1})
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(UserError, match=reason):
            store.append({"a": 2})
        monkeypatch.undo()
        assert store.path.read_bytes() == b'{"a": 1}\n'


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_atomic_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, "old")

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(UserError, match=r"run\.json: could not write \(the disk is full\)"):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_an_interrupted_atomic_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, "old")

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_an_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    write_atomic(path, "a longer text than the next")
    write_atomic(path, "kurz \u00fc")
    assert path.read_text(encoding="utf-8") == "kurz \u00fc"
    assert path.stat().st_mode & 0o777 == 0o644
    write_atomic(path, b"\x89PNG\r\n\xff")
    assert path.read_bytes() == b"\x89PNG\r\n\xff"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize("below", ["new.json", "deep/new.json"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("mine")
    target = tmp_path / "taken" / below
    with pytest.raises(UserError) as caught:
        write_atomic(target, "new")
    assert str(caught.value) == (
        f"{target}: could not write ({tmp_path / 'taken'} is not a folder); clear the way or name another place, and "
        "run the same command again."
    )
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_in_the_way_of_the_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "new.json").mkdir()
    with pytest.raises(UserError, match=r"new\.json: could not write \(Is a directory\); clear the way"):
        write_atomic(tmp_path / "new.json", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["new.json"]


@pytest.mark.parametrize("broken", ["os.mkdir", "os.open"])
def test_a_forbidden_folder_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """The system call refuses, as it does for everybody but root in a folder of another."""

    def forbidden(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(args[0]))

    with monkeypatch.context() as patch:
        patch.setattr(broken, forbidden)
        with pytest.raises(UserError, match=r"run\.json: could not write \(Permission denied\); clear the way"):
            write_atomic(tmp_path / "new" / "run.json", "text")
    assert not list(tmp_path.rglob("*.json*"))


HOLDER = """
import sys, time
from pathlib import Path
from lem.records import lock_directory
with lock_directory(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"in use by another process \(pid {holder.pid}\); wait for it"),
            lock_directory(tmp_path),
        ):
            pytest.fail("the second writer got in")
    finally:
        holder.kill()
        holder.communicate()
    with lock_directory(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
    with lock_directory(tmp_path):
        pass


def test_a_place_that_cannot_be_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(UserError, match=r"could not write \(.*file is not a folder\)"),
        lock_directory(tmp_path / "file" / "run"),
    ):
        pytest.fail("locked a folder below a file")
    with pytest.raises(UserError, match="could not write"), lock_directory(Path("/proc/nowhere/run")):
        pytest.fail("locked a folder in /proc")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    """The first row comes although the second line is no JSON: nothing beyond was looked at."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\nx\n{"a": 2}\n')
    rows = iter_jsonl(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(DataError, match="line 2: not a JSON object"):
        next(rows)


def test_blank_lines_count_as_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"a": 1}\n\n  \n')
    assert read_jsonl(path) == ([{"a": 1}], path.stat().st_size)


HOLD_FILE = """
import sys, time
from pathlib import Path
from lem.records.store import lock_file
with lock_file(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_file_lock_keeps_others_out_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert not is_locked(path)
    holder = subprocess.Popen([sys.executable, "-c", HOLD_FILE, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_locked(path)
        with pytest.raises(UserError, match="in use by another process"), lock_file(path):
            pass
        holder.kill()
        holder.wait()
        assert not is_locked(path)
        with lock_file(path):
            assert is_locked(path)
        assert not is_locked(path)
    finally:
        holder.kill()
        holder.communicate()
