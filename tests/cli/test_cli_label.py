"""`lem label` on a pseudo-terminal: keys become labels at once, long answers scroll, sizes change, work resumes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run_in_process
from rich.text import Text

from holding import PATIENCE_S
from lem.cli.label import verdict_of
from lem.cli.label_screen import DOWN, PAGE_DOWN, UP, keys_of, safe, screen, task_lines
from lem.judges.labelling import LabelTask
from lem.records import Key, Record, RunContents, RunInfo
from made_runs import save

SECRETS = ("base", "trained", "lem-secret")


def make_run(folder: Path, n: int = 6) -> Path:
    """A run of two arms; answers are long, and one of them holds escape sequences."""
    probes = [
        {"id": f"P{i}", "domain": "d", "prompt": f"Question number {i}?", "benchmark": "truthfulqa"} for i in range(n)
    ]
    records = [
        Record("r", arm, f"P{i}", 0, f"Reply {letter}{i}. " + "It goes on for a while. " * 60 + f"End of {letter}{i}.")
        for arm, letter in (("base", "x"), ("trained", "y"))
        for i in range(n)
    ]
    facts = {arm: {"model": "lem-secret"} for arm in ("base", "trained")}
    return save(RunContents(RunInfo("r", "eval", "done", arms=facts, probes=probes), records), folder)


class Session:
    """`lem label` at the far end of a pseudo-terminal."""

    def __init__(self, *arguments: object, size: tuple[int, int] = (80, 24)) -> None:
        self.near, far = pty.openpty()
        self.resize(*size)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lem.cli.main", "label", *map(str, arguments)], stdin=far, stdout=far,
            stderr=subprocess.PIPE, start_new_session=True, env={**os.environ, "TERM": "xterm"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(far)
        self.shown = ""

    def resize(self, columns: int, rows: int) -> None:
        self.rows = rows
        fcntl.ioctl(self.near, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: str) -> str:
        """What is on the screen once it shows the text.   Raises: AssertionError if it never does."""
        return self.wait_until(lambda page: text in page)

    def wait_until(self, holds: Callable[[str], bool]) -> str:
        """What is on the screen, without escape sequences, once it is drawn whole and this holds of it."""
        until = time.monotonic() + PATIENCE_S
        while not (self.drawn and holds(self.page)) and time.monotonic() < until:
            if select.select([self.near], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.near, 65536).decode(errors="replace")
                except OSError:
                    break
        assert holds(self.page), self.page
        return self.page

    @property
    def drawn(self) -> bool:
        """Whether the last page has all its lines, or the session has left its screen."""
        last = self.shown.rpartition("\x1b[H\x1b[2J")[2]
        return "\x1b[?1049l" in last or last.count("\n") >= self.rows - 1

    @property
    def page(self) -> str:
        last = self.shown.rpartition("\x1b[H\x1b[2J")[2]
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)

    def press(self, keys: str) -> None:
        os.write(self.near, keys.encode())

    def end(self) -> tuple[int, str]:
        """Exit code and standard error."""
        _, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, err.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.near)


@pytest.fixture
def sessions() -> Iterator[Any]:
    opened: list[Session] = []

    def start(*arguments: object, **options: Any) -> Session:
        opened.append(Session(*arguments, **options))
        return opened[-1]

    yield start
    for session in opened:
        session.close()


def labels(run: Path, name: str = "ada") -> list[dict[str, Any]]:
    path = run / "labels" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_keys_become_labels_and_the_next_session_goes_on(tmp_path: Path, sessions: Any) -> None:
    run = make_run(tmp_path / "run")
    session = sessions(run, "--n", 4, "--labeller", "ada", "--dimension", "truthfulness")
    page = session.wait_for("1 of 4")
    assert "MESSAGE" in page
    assert "How far could somebody believe" in page
    session.press("7")
    session.wait_for("2 of 4")
    assert [row["value"] for row in labels(run)] == [7.0]
    session.press("0")
    session.wait_for("3 of 4")
    session.press("s")
    session.wait_for("4 of 4")
    session.press("u")
    session.wait_for("3 of 4")
    session.press("xq")
    code, err = session.end()
    assert (code, err) == (0, "")
    session.wait_for("2 labels in this session, 2 of 4 in all, 2 to go")
    rows = labels(run)
    assert [(row["value"], row["unscored"]) for row in rows] == [
        (7.0, None), (10.0, None), (None, "cannot tell"), (None, "undone"),
    ]  # fmt: skip
    assert {row["judge"] for row in rows} == {"human:ada"}
    assert rows[2]["probe_id"] == rows[3]["probe_id"]
    assert not any(secret in session.shown for secret in SECRETS), "the labeller is blind"

    again = sessions(run, "--n", 4, "--labeller", "ada", "--dimension", "truthfulness")
    again.wait_for("3 of 4")
    again.press("3")
    again.wait_for("4 of 4")
    again.press("4")
    assert again.end()[0] == 0
    again.wait_for("4 of 4 in all, 0 to go")
    assert [row["value"] for row in labels(run)[4:]] == [3.0, 4.0]


def test_a_long_answer_scrolls_and_another_size_is_noticed(tmp_path: Path, sessions: Any) -> None:
    session = sessions(make_run(tmp_path / "run"), "--n", 2, "--labeller", "ada", "--dimension", "truthfulness")
    page = session.wait_for("1 of 2")
    assert "End of" not in page
    assert len(page.splitlines()) <= 24
    session.press(" ")
    session.wait_for("End of")
    session.resize(50, 12)
    page = session.wait_until(lambda page: page.endswith("quit") and max(map(len, page.splitlines())) <= 50)
    assert len(page.splitlines()) <= 12
    session.press("?")
    session.wait_for("Keys")
    session.press("5")
    session.wait_for("MESSAGE")
    session.press("q")
    assert session.end()[0] == 0
    assert labels(tmp_path / "run") == [], "the key that closed the help is no label"


def test_pairs_are_labelled_from_the_treatments_side(tmp_path: Path, sessions: Any) -> None:
    run = make_run(tmp_path / "run")
    session = sessions(run, "--pairs", "--n", 3, "--labeller", "ada", size=(100, 200))
    shown_first = re.compile(r"FIRST ANSWER \(a\)\s+Reply (.)")  # a page may come in parts
    expected = []
    for place, key in enumerate("abt", start=1):
        session.wait_for(f"{place} of 3")
        page = session.wait_until(lambda shown: shown_first.search(shown) is not None)
        [first] = shown_first.findall(page)
        ours = "a" if first == "y" else "b"
        expected.append(0.5 if key == "t" else float(key == ours))
        session.press(key)
        if place < 3:
            session.wait_for(f"{place + 1} of 3")
    assert session.end()[0] == 0
    rows = labels(run)
    assert [row["value"] for row in rows] == expected
    assert {(row["arm"], row["against"], row["dimension"]) for row in rows} == {("trained", "base", "preference")}


def test_a_line_that_goes_away_loses_no_label(tmp_path: Path, sessions: Any) -> None:
    run = make_run(tmp_path / "run")
    session = sessions(run, "--n", 4, "--labeller", "ada", "--dimension", "truthfulness")
    session.wait_for("1 of 4")
    session.press("2")
    session.wait_for("2 of 4")
    session.process.kill()
    session.process.wait()  # its lock goes with it, and not before
    assert [row["value"] for row in labels(run)] == [2.0]
    again = sessions(run, "--n", 4, "--labeller", "ada", "--dimension", "truthfulness")
    again.wait_for("2 of 4")
    other = sessions(run, "--n", 4, "--labeller", "ada", "--dimension", "truthfulness")
    code, err = other.end()
    assert code == 2
    assert "in use by another process" in err
    again.press("\x03")
    assert again.end()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs a terminal"),
    ],
)
def test_without_a_terminal_it_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_in_process(["label", make_run(tmp_path / "run"), *arguments], capsys)
    assert found.code == 2
    assert said in found.err
    assert found.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--labeller", "a/b"), "letters, digits"),
        (("--pairs", "--dimension", "safety"), "contradict each other"),
        (("--treatment", "trained"), "belong to --pairs"),
        (("--pairs", "--treatment", "nobody"), "no arm 'nobody'"),
        (("--pairs", "--treatment", "base"), "both name 'base'"),
        (("--dimension", "wisdom"), "'wisdom' is no dimension"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path: Path, sessions: Any, arguments: tuple[str, ...], said: str) -> None:
    run = make_run(tmp_path / "run")
    code, err = sessions(run, *arguments).end()
    assert code == 2
    assert said in err
    assert not (run / "labels").exists() or not list((run / "labels").glob("*.jsonl"))


def test_nothing_in_an_answer_reaches_the_terminal_as_a_command() -> None:
    nasty = "a\x1b[2Jb\x07c\rd\u202ee\tf\u00a0g\ud800h\ni 漢"
    assert safe(nasty) == "a\ufffd[2Jb\ufffdc d\ufffde f g\ufffdh\ni 漢"


def task(**fields: Any) -> LabelTask:
    given = {"low": 1.0, "high": 10.0, "answers": ("Text.",), **fields}
    return LabelTask(Key("base", "P0", 0), "safety", "How safe?", "What?", record_sha="", **given)


def test_every_line_fits_and_wide_characters_count_double() -> None:
    lines = task_lines(task(answers=("漢字" * 40 + " word " * 30,)), 30)
    assert max(line.cell_len for line in lines) <= 30
    for size in ((20, 6), (30, 10), (80, 24)):
        shown, offset = screen(lines, "head", "asks " * 20, "keys " * 30, size, 1000)
        assert len(shown) <= size[1]
        assert all(line.cell_len <= size[0] for line in shown)
        assert lines[offset] in shown
        assert lines[-1].plain in [line.plain for line in shown]
    assert screen([Text("one")], "h", "a", "k", (80, 24), 5)[1] == 0


def test_what_keys_say() -> None:
    assert [verdict_of(key, task()) for key in "190a"] == [1.0, 9.0, 10.0, None]
    assert [verdict_of(key, task(high=5.0)) for key in "1590"] == [1.0, 5.0, None, None]
    pair = task(order="ab", low=0.0, high=1.0, answers=("x", "y"))
    assert [verdict_of(key, pair) for key in "abt1"] == ["A", "B", "tie", None]
    assert list(keys_of(b"7\x1b[Bq")) == ["7", DOWN, "q"]
    assert list(keys_of(b"\x1b[A\x1b[6~")) == [UP, PAGE_DOWN]
    assert list(keys_of(b"\x1b[99;5u7")) == [], "an unknown sequence is no label"
