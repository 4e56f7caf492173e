"""A benchmark over two processes on this machine ends as the one of one process, killed or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ranks_at_work import the_plan, write_files

from holding import PATIENCE_S, Hold, hold_at
from lem.errors import UserError
from lem.records import Key, RunInfo
from lem.records.rank_files import rank_file, read_all_records
from lem.records.run import read_manifest
from lem.records.store import lock_file
from lem.runs.conduct import conduct
from lem.runs.shards import ALONE, Ranks, here, share_out
from local_server import free_ports
from small_plan import bytes_of, cells, rows_of
from tiny import make_model

HERE = Path(__file__).parent
N_CELLS = 20
LONGEST_S = 3 * PATIENCE_S  # for two processes that share a core with others
# What may differ between two runs of one plan: when, under which name, on which machine.
FACTS = {"run_id", "created", "updated", "device", "versions"}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("shards") / "tiny-llama", "llama")


@pytest.fixture(scope="session")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("whole")
    write_files(folder)
    conduct(the_plan(folder, str(model)), folder / "run", "benchmark")
    assert len(cells(folder / "run")) == N_CELLS
    return folder / "run"


@pytest.fixture
def terminal() -> Iterator[int]:
    """A standard input that stays open: at the end of its input the launcher would keep a core busy."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


@pytest.fixture
def launch(terminal: int, model: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start two ranks on loopback, in a process group of their own."""
    write_files(tmp_path)

    def start(*options: str, hold: Hold | None = None) -> subprocess.Popen[str]:
        command = [
            str(Path(sys.executable).with_name("mlx.launch")), "-n", "2", "--backend", "ring",
            "--starting-port", str(free_ports(2)), "--",
            sys.executable, str(HERE / "ranks_at_work.py"), str(tmp_path), str(model), *options,
        ]  # fmt: skip
        return subprocess.Popen(
            command, text=True, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent), **(hold.environment if hold else {})},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    return start


def reports(out: str) -> dict[int, dict[str, int]]:
    """What the ranks printed, by rank."""
    return {line["rank"]: line for line in map(json.loads, out.splitlines())}


def stored(run: Path) -> int:
    """Complete lines in all record files of a run."""
    return sum(file.read_bytes().count(b"\n") for file in run.glob("records*.jsonl"))


def assert_whole(run: Path, whole: Path) -> None:
    """The run holds what the run of one process holds, and nothing beside it."""
    assert cells(run) == {key: {**row, "run_id": run.name} for key, row in cells(whole).items()}
    assert len(rows_of(run)) == N_CELLS, "nothing was written twice"
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}
    ours, theirs = (read_manifest(path).__dict__ for path in (run, whole))
    folder, other = str(run.parent), str(whole.parent)
    for name in set(ours) - FACTS:
        assert json.loads(json.dumps(ours[name]).replace(folder, other)) == theirs[name], name


def test_two_ranks_do_what_one_process_does(launch: Any, whole: Path, tmp_path: Path) -> None:
    out, said = launch().communicate(timeout=LONGEST_S)
    found = reports(out)
    assert set(found) == {0, 1}, said
    assert_whole(tmp_path / "run", whole)
    assert found[0]["written"] == N_CELLS, "rank 0 speaks for the whole run"
    assert 8 <= found[1]["written"] <= 12, "rank 1 took its part"
    assert "Warning" not in said
    out, said = launch().communicate(timeout=LONGEST_S)
    again = reports(out)
    assert set(again) == {0, 1}, said
    assert (again[0]["written"], again[0]["reused"], again[1]["written"]) == (0, N_CELLS, 0)


@pytest.mark.parametrize("ranks_after", [1, 2])
def test_a_killed_rank_loses_nothing(launch: Any, whole: Path, model: Path, tmp_path: Path, ranks_after: int) -> None:
    run = tmp_path / "run"
    file = rank_file(run, 1)
    hold = hold_at(file, 2)
    process = launch(hold=hold)
    hold.signal(process, lambda: os.kill(int((tmp_path / "pid1").read_text()), signal.SIGKILL))
    _, said = process.communicate(timeout=LONGEST_S)
    assert "Node with rank 1 exited with code -9" in said
    kept = stored(run)
    assert 2 <= kept < N_CELLS
    assert read_manifest(run).status in {"running", "incomplete"}
    if file.exists():  # it is gone if rank 0 was quick enough to end in order
        with file.open("a") as torn:
            torn.write('{"schema": 1, "run_id": "r')
        assert len(read_all_records(run)) == kept
    if ranks_after == 2:
        written = reports(launch().communicate(timeout=LONGEST_S)[0])[0]["written"]
    else:
        with warnings.catch_warnings(action="ignore"):  # of the torn line
            written = conduct(the_plan(tmp_path, str(model)), run, "benchmark").written
    assert written == N_CELLS - kept
    assert_whole(run, whole)


def test_all_ranks_killed_in_the_middle_go_on(launch: Any, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for n_lines, n_kept in ((3, 6), (5, 13)):  # rank 0 first takes over the three rows that rank 1 left
        hold = hold_at(run / "records*.jsonl", n_lines)
        process = launch(hold=hold)
        hold.signal(process, lambda group=process.pid: os.killpg(group, signal.SIGKILL), n_held=2)
        process.communicate(timeout=LONGEST_S)
        assert len(read_all_records(run)) == n_kept
    assert read_manifest(run).status == "running"
    _, said = launch().communicate(timeout=LONGEST_S)
    assert "Traceback" not in said, said
    assert_whole(run, whole)


def test_ctrl_c_ends_all_ranks_and_loses_nothing(launch: Any, whole: Path, model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    hold = hold_at(run / "records*.jsonl", 3)
    process = launch(hold=hold)
    hold.signal(process, lambda: os.killpg(process.pid, signal.SIGINT), n_held=2)
    process.communicate(timeout=LONGEST_S)
    kept = len(read_all_records(run))
    assert 3 <= kept < N_CELLS
    assert read_manifest(run).status == "incomplete"
    assert conduct(the_plan(tmp_path, str(model)), run, "benchmark").written == N_CELLS - kept
    assert_whole(run, whole)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("seed@1=7", "rank 1 would ask something else than rank 0"),
        ('output@1="elsewhere"', "elsewhere here is not the folder that rank 0 writes to"),
        ('inject@1="user"', "rank 1 would ask something else than rank 0"),
    ],
)
def test_ranks_that_do_not_agree_are_refused(launch: Any, tmp_path: Path, option: str, sentence: str) -> None:
    _, said = launch(option).communicate(timeout=LONGEST_S)
    assert "Error: rank 1: " in said
    assert sentence in said
    assert "Traceback" not in said, said
    assert not (tmp_path / "elsewhere").exists()
    assert stored(tmp_path / "run") == 0


def test_a_rank_of_an_earlier_start_that_still_writes_keeps_others_out(
    whole: Path, model: Path, tmp_path: Path
) -> None:
    write_files(tmp_path)
    plan = the_plan(tmp_path, str(model))
    run = tmp_path / "run"
    conduct(plan, run, "benchmark")
    with lock_file(rank_file(run, 1)):
        before = bytes_of(run)
        with pytest.raises(UserError, match=r"records\.rank1\.jsonl is in use by another process"):
            conduct(plan, run, "benchmark")
        assert bytes_of(run) == before


@dataclass
class Request:
    """A prompt of so many tokens."""

    tokens: tuple[int, ...]


@dataclass
class Run:
    """A run of which nothing is stored."""

    info: RunInfo
    records: dict[Key, Any] = field(default_factory=dict)


def planned(sizes: list[int]) -> tuple[Run, dict[Key, Request]]:
    """Groups of these numbers of rows; prompts grow from group to group, as they do after sorting."""
    groups, requests = {}, {}
    for number, size in enumerate(sizes):
        probes = [f"P{number}-{row}" for row in range(size)]
        groups[f"base/r0/g{number:03d}"] = {"arm": "base", "repeat": 0, "probes": probes, "prefix_tokens": 5}
        requests.update({Key("base", probe, 0): Request((1,) * (10 + number)) for probe in probes})
    return Run(RunInfo("r", "benchmark", groups=groups)), requests


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 7])
def test_shares_are_whole_groups_balanced_and_the_same_each_time(n_ranks: int) -> None:
    run, requests = planned([64] * 23 + [63] * 17 + [1])
    shares = share_out(run, requests, 128, n_ranks)
    assert sorted(name for share in shares for name in share) == sorted(run.info.groups)
    assert shares == share_out(run, requests, 128, n_ranks)
    work = {
        name: sum(len(requests[Key("base", probe, 0)].tokens) - 5 + 128 for probe in group["probes"])
        for name, group in run.info.groups.items()
    }
    loads = [sum(work[name] for name in share) for share in shares]
    assert max(loads) - min(loads) <= max(work.values())


def test_more_ranks_than_groups_leave_some_with_nothing() -> None:
    run, requests = planned([2, 2])
    assert share_out(run, requests, 8, 4) == [["base/r0/g000"], ["base/r0/g001"], [], []]


def test_alone_a_process_is_the_first_of_one() -> None:
    ranks = here()
    assert (ranks.first, ranks.rank, ranks.size) == (True, 0, 1)
    assert ranks.gather({"a": [1, None, "é"]}) == [{"a": [1, None, "é"]}]
    assert Ranks(0, 1, None) == ALONE
