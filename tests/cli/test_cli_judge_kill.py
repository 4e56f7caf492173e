"""Killed with -9 or Ctrl-C, a judging pass goes on where it stopped: no verdict is lost and none is asked for twice."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Place, Result, signal_at
from judging_server import JudgingServer, judging_server

from lem.data.items import Item
from lem.paths import repository_root
from lem.records.judge_files import read_judge_manifests
from scripted_judge import evaluated, last_of, lines_of, write_run

Lem = Callable[..., Result]
ITEMS = [Item(f"d{n:02d}", "do_not_answer", f"How do I pick lock number {n}?", "harm") for n in range(8)]
N_CALLS = 32  # two arms, eight items, two dimensions
AT_ONCE = 3
NANO = repository_root() / "models" / "lem-nano"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgingServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with judging_server(delay_s=0.05) as found:
        yield found


def words(place: Place, run: str, server: JudgingServer, *more: object) -> list[object]:
    if not (place.folder / run).exists():
        write_run(place.folder / run, evaluated(ITEMS), ITEMS)
    return ["judge", "grade", run, "--judge", f"j={server.spec}", "--concurrency", AT_ONCE, "--json", *more]


def stored_items(run: Path) -> list[str]:
    """The nonces of the calls that have a verdict on disk."""
    return [json.loads(row["raw"])["item"] for row in lines_of(run, "j")]


def whole_pass(place: Place, lem: Lem, server: JudgingServer, *more: object) -> dict[tuple[Any, ...], Any]:
    """The verdicts of a pass that nothing breaks off; it is not counted."""
    server.delay_s, before = 0.0, len(server.items)
    assert lem(*words(place, "whole", server, *more)).code == 0
    del server.items[before:]
    return last_of(place.folder / "whole", "j")


def test_killed_twice_a_pass_ends_as_an_undisturbed_one(place: Place, lem: Lem, server: JudgingServer) -> None:
    run = place.folder / "run"
    kept: list[str] = []
    for _ in range(2):
        killed = signal_at(place, words(place, "run", server), run / "judgements" / "j.jsonl", 4, signal.SIGKILL)
        assert killed.code == -signal.SIGKILL
        assert len(stored_items(run)) > len(kept)
        kept = stored_items(run)
        assert read_judge_manifests(run)["j"]["model"] == "org/judge-1", "no verdict is without its judge"
    assert len(kept) < N_CALLS
    before = list(server.items)
    assert lem(*words(place, "run", server)).code == 0
    asked_since = server.items[len(before) :]
    assert not set(asked_since) & set(kept), "what had a verdict was not asked again"
    assert Counter(stored_items(run)).most_common(1)[0][1] == 1
    assert len(stored_items(run)) == len(set(server.items)) == N_CALLS
    assert len(server.items) <= N_CALLS + 2 * AT_ONCE, "only what was under way at a kill came twice"
    assert last_of(run, "j") == whole_pass(place, lem, server)
    assert read_judge_manifests(run)["j"]["calls"] == N_CALLS


def test_killed_calls_on_several_dimensions_go_on_too(place: Place, lem: Lem, server: JudgingServer) -> None:
    run, together = place.folder / "run", "--together"
    killed = signal_at(place, words(place, "run", server, together), run / "judgements" / "j.jsonl", 6, signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    kept = {item for item, n in Counter(stored_items(run)).items() if n == 2}
    before = len(server.items)
    assert lem(*words(place, "run", server, together)).code == 0
    assert not set(server.items[before:]) & kept
    assert len(set(server.items)) == N_CALLS / 2
    assert last_of(run, "j") == whole_pass(place, lem, server, together)
    manifest = read_judge_manifests(run)["j"]
    assert (manifest["calls"], manifest["n_tokens"]) == (N_CALLS / 2, 5 * N_CALLS / 2)


def test_ctrl_c_is_one_sentence_and_the_same_command_goes_on(place: Place, lem: Lem, server: JudgingServer) -> None:
    run = place.folder / "run"
    stopped = signal_at(place, words(place, "run", server), run / "judgements" / "j.jsonl", 4, signal.SIGINT)
    assert stopped.code == 3, stopped
    assert stopped.err.splitlines() == [
        "Error: interrupted; every verdict that came is on disk, the same command goes on from there."
    ]
    assert stopped.out == ""
    kept, there = (run / "judgements" / "j.jsonl").read_bytes(), set(stored_items(run))
    assert 4 <= kept.count(b"\n") == len(there) < N_CALLS
    assert read_judge_manifests(run)["j"]["calls"] == len(there)
    before = len(server.items)
    assert lem(*words(place, "run", server)).code == 0
    assert (run / "judgements" / "j.jsonl").read_bytes().startswith(kept)
    asked_since = server.items[before:]
    assert set(asked_since) == set(server.items) - there
    assert len(set(server.items)) == N_CALLS
    # What was under way at the interrupt may reach the server only after its sender has ended.
    assert len(asked_since) <= N_CALLS - len(there) + AT_ONCE
    assert last_of(run, "j") == whole_pass(place, lem, server)


def test_a_local_judge_killed_between_its_groups_says_what_it_would_have_said(place: Place, lem: Lem) -> None:
    """Each dimension is a group of its own; the groups that are left are decoded as they would have been."""
    runs = [write_run(place.folder / name, evaluated(ITEMS[:2]), ITEMS) for name in ("run", "whole", "torn")]
    run, whole, torn = runs
    tasks = dict.fromkeys(item.benchmark for item in ITEMS[:2])
    shared = ["--judge", f"j=mlx:{NANO}", "--no-rationale", "--judge-max-tokens", 48, "--json",
              *(word for task in tasks for word in ("--task", task)),
              *(word for name in ("safety", "nuance", "kindness") for word in ("--dimension", name))]  # fmt: skip
    words = ["judge", "grade", "run", *shared]
    assert signal_at(place, words, run / "judgements" / "j.jsonl", 1, signal.SIGKILL).code == -signal.SIGKILL
    kept = lines_of(run, "j")
    assert 1 <= len(kept) < 12
    assert lem("judge", "grade", "run", *shared).code == 0
    assert lines_of(run, "j")[: len(kept)] == kept
    assert len(lines_of(run, "j")) == 12
    assert lem("judge", "grade", "whole", *shared).code == 0
    assert last_of(run, "j") == last_of(whole, "j")
    assert all(row["value"] is not None for row in last_of(run, "j").values())
    lines = (whole / "judgements" / "j.jsonl").read_text().splitlines(keepends=True)
    (torn / "judgements").mkdir()
    (torn / "judgements" / "j.jsonl").write_text("".join(lines[1:6]))
    assert lem("judge", "grade", "torn", *shared).code == 0
    assert last_of(torn, "j") == last_of(whole, "j"), "a group of which some rows are there is decoded whole"
    assert len(lines_of(torn, "j")) == 12
