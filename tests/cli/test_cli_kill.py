"""Killed with -9 or Ctrl-C, a benchmark goes on where it stopped and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
from command_line import Place, Result, children, finish, gone, signal_at, start

from lem.records import lock_directory
from lem.records.run import read_manifest
from small_plan import cells, rows_of, write_probes

LONG = ("--max-tokens", 100, "--group-size", 2, "--temperature", 0.9, "--json")
Lem = Callable[..., Result]


def command(place: Place, output: str) -> list[object]:
    probes = write_probes(place.folder / "ten.json", 10)
    return ["benchmark", "--prompts", probes, "--kernel", f"json={place.kernel}", "--output", output, *LONG]


def test_killed_twice_a_run_ends_as_an_undisturbed_one(place: Place, lem: Lem) -> None:
    undisturbed = lem(*command(place, "whole/run"))
    assert (undisturbed.code, json.loads(undisturbed.out)["answered"]) == (0, 20)
    run = place.folder / "killed" / "run"
    sizes = [0]
    for _ in range(2):
        killed = signal_at(place, command(place, "killed/run"), run / "records.jsonl", 3, signal.SIGKILL)
        assert killed.code == -signal.SIGKILL
        sizes.append(len(rows_of(run)))
    assert 0 < sizes[1] < sizes[2] < 20
    assert read_manifest(run).status == "running"
    resumed = lem(*command(place, "killed/run"))
    assert resumed.code == 0
    counts = json.loads(resumed.out)
    assert (counts["answered"], counts["failed"], counts["missing"], counts["status"]) == (20, 0, 0, "done")
    assert len(rows_of(run)) == 20, "nothing was written twice"
    assert cells(run) == cells(place.folder / "whole" / "run")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_in_worker_processes_goes_on_in_one_and_the_workers_end(
    place: Place, lem: Lem, number: signal.Signals
) -> None:
    """Workers interleave their groups and die in the middle of them; the finished run is the same as ever."""
    run = place.folder / "pooled" / "run"
    workers: set[int] = set()
    stopped = signal_at(
        place, command(place, "pooled/run"), run / "records.jsonl", 4, number, pooled=True,
        before=lambda process: workers.update(children(process.pid)),
    )  # fmt: skip
    assert stopped.code == (3 if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in stopped.err
    assert gone(workers)
    assert read_manifest(run).status == ("incomplete" if number == signal.SIGINT else "running")
    kept = (run / "records.jsonl").read_bytes()
    assert 4 <= kept.count(b"\n") < 20
    resumed = lem(*command(place, "pooled/run"))
    assert (resumed.code, json.loads(resumed.out)["answered"]) == (0, 20)
    assert (run / "records.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert lem(*command(place, "whole/run")).code == 0
    assert cells(run) == cells(place.folder / "whole" / "run")


def test_ctrl_c_says_incomplete_and_the_same_command_goes_on(place: Place, lem: Lem) -> None:
    run = place.folder / "stopped" / "run"
    stopped = signal_at(place, command(place, "stopped/run"), run / "records.jsonl", 4, signal.SIGINT)
    assert stopped.code == 3
    assert "interrupted; what was finished is on disk, the same command goes on from there." in stopped.err
    assert "Traceback" not in stopped.err
    assert read_manifest(run).status == "incomplete"
    kept = (run / "records.jsonl").read_bytes()
    assert 4 <= kept.count(b"\n") < 20
    resumed = lem(*command(place, "stopped/run"))
    assert (resumed.code, json.loads(resumed.out)["answered"]) == (0, 20)
    assert (run / "records.jsonl").read_bytes().startswith(kept)


def test_a_second_writer_is_turned_away(place: Place) -> None:
    """The first writer is this process, the second a real one."""
    with lock_directory(place.folder / "run"):
        second = finish(start(place, *command(place, "run")))
    assert second.code == 2
    assert f"is in use by another process (pid {os.getpid()}); wait for it or choose another directory." in second.err
    assert second.err.count("\n") == 1
    assert not (place.folder / "run" / "run.json").exists()
