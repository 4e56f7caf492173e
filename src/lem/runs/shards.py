"""A run over several processes (`mlx.launch`): ranks take whole decoding groups, each writes a file of its own.

Rank 0 holds the directory, decides who decodes what, and writes the manifest before anybody starts. The ranks then
work without a word to each other; at the end rank 0 moves all rows into `records.jsonl`. A rank that dies takes
nothing along: the next start finds what it wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from lem.errors import UserError
from lem.records import Key, Record, RunDirectory, RunInfo
from lem.records.rank_files import merge_rank_files, rank_file, read_rank_files, read_records
from lem.records.run import read_manifest
from lem.records.store import JsonlStore, is_locked, lock_file
from lem.runs.execute import PlannedRequest, missing_groups
from lem.runs.ring import sum_over_ranks

_POLL_S = 0.2


@dataclass(frozen=True)
class Ranks:
    """This process among those that `mlx.launch` started; alone it is the first of one."""

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this process writes the manifest and speaks for all."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in all of them; anything that JSON can hold.   Raises: Incomplete if a rank is gone."""
        if self.size == 1:
            return [value]
        text = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
        lengths = sum_over_ranks(np.where(np.arange(self.size) == self.rank, len(text), 0), self.group)
        ends = np.cumsum(lengths)
        whole = np.zeros(int(ends[-1]))
        whole[ends[self.rank] - len(text) : ends[self.rank]] = text
        parts = np.split(sum_over_ranks(whole, self.group).astype(np.uint8), ends[:-1])
        return [json.loads(part.tobytes()) for part in parts]


ALONE = Ranks()


def here() -> Ranks:
    """This process: one of those that `mlx.launch` started, or alone."""
    group = mx.distributed.init()
    return Ranks(group.rank(), group.size(), group)


def share_out(
    run: RunDirectory, requests: Mapping[Key, PlannedRequest], max_tokens: int, n_ranks: int
) -> list[list[str]]:
    """Names of the groups that each rank decodes: each, in the order of the plan, to the rank with the least work.

    Work is counted in tokens: prompts beyond the shared prefix, and answers of `max_tokens`.
    Returns: one list for each rank; the same for the same run, plan and number of ranks.
    """
    shares: list[list[str]] = [[] for _ in range(n_ranks)]
    loads = [0] * n_ranks
    for name in missing_groups(run, set(requests)):
        group = run.info.groups[name]
        keys = [Key(group["arm"], probe, group["repeat"]) for probe in group["probes"]]
        lightest = loads.index(min(loads))
        shares[lightest].append(name)
        loads[lightest] += sum(len(requests[key].tokens) - group["prefix_tokens"] + max_tokens for key in keys)
    return shares


def announce(run: RunDirectory, shares: Sequence[Sequence[str]], ranks: Ranks) -> None:
    """Rank 0: the manifest stands, these are the shares."""
    ranks.gather({"manifest": _manifest_sha(run.path), "shares": shares})


def hear(path: Path, ranks: Ranks) -> tuple[RunInfo, list[str]]:
    """The others: wait for the manifest; returns it and the own share.   Raises: UserError without a common folder."""
    said = ranks.gather(None)[0]
    if not (path / "run.json").is_file() or _manifest_sha(path) != said["manifest"]:
        raise UserError(f"{path} here is not the folder that rank 0 writes to; put --output where all ranks see it.")
    return read_manifest(path), said["shares"][ranks.rank]


def _manifest_sha(path: Path) -> str:
    return hashlib.sha256((path / "run.json").read_bytes()).hexdigest()


@contextmanager
def open_rank_file(path: Path, info: RunInfo, share: Sequence[str], rank: int) -> Iterator[RunDirectory]:
    """Open the run for a rank other than the first: it appends to its own file and knows what is stored of its share.

    Raises: UserError if the rank of an earlier start still writes to that file.
    """
    file = rank_file(path, rank)
    with lock_file(file), JsonlStore(file) as store:
        run = RunDirectory(path, info, store)
        mine = set(share)
        run.records.update(
            {record.key: record for record in read_records(path / "records.jsonl") if record.group in mine}
        )
        yield run


@contextmanager
def started(run: RunDirectory, requests: Mapping[Key, PlannedRequest], ranks: Ranks) -> Iterator[None]:
    """All ranks, before decoding: make sure of the same plan and the same folder, then use one's part of the cores.

    Raises: UserError in all ranks if one would send other requests, or if rank 0 sees no rank's lock.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    found = ranks.gather({"plan": _plan_sha(requests), "host": socket.gethostname(), "cores": cores})
    for rank, other in enumerate(found):
        if other["plan"] != found[0]["plan"]:
            raise UserError(
                f"rank {rank} would ask something else than rank 0 (other options, probes, kernel or weights); start "
                "all ranks with the same command on the same files."
            )
    locked = [rank for rank in range(1, ranks.size) if not ranks.first or is_locked(rank_file(run.path, rank))]
    if ranks.gather(len(locked))[0] != ranks.size - 1:
        raise UserError(f"{run.path}: file locks do not reach from one rank to another; use another shared disk.")
    beside = [
        rank for rank, other in enumerate(found) if (other["host"], other["cores"]) == (socket.gethostname(), cores)
    ]
    with _own_cores(cores, beside.index(ranks.rank), len(beside)):
        yield


def _plan_sha(requests: Mapping[Key, PlannedRequest]) -> str:
    digest = hashlib.sha256()
    for key in sorted(requests):
        digest.update(json.dumps([*key, requests[key].fingerprint, requests[key].seed]).encode())
    return digest.hexdigest()


@contextmanager
def _own_cores(cores: Sequence[int], place: int, n_beside: int) -> Iterator[None]:
    """Use every n-th core, so that ranks on one machine do not start a worker each for all of them."""
    if n_beside == 1 or not cores:
        yield
        return
    os.sched_setaffinity(0, list(cores[place % len(cores) :: n_beside]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def collect(run: RunDirectory, shares: Sequence[Sequence[str]]) -> list[Record]:
    """Rank 0, at the end: wait until the others have closed their files, then move their rows into `records.jsonl`."""
    for rank in range(1, len(shares)):
        while is_locked(rank_file(run.path, rank)):  # asking costs nothing; a collective would keep a core busy
            time.sleep(_POLL_S)
    added = read_rank_files(run)
    merge_rank_files(run, added)
    for rank, share in enumerate(shares):
        groups = [run.info.groups[name] for name in share]
        keys = {Key(group["arm"], probe, group["repeat"]) for group in groups for probe in group["probes"]}
        lost = sum(key not in run.records for key in keys)
        if lost:
            warnings.warn(f"rank {rank} ended early: {lost} of its {len(keys)} answers are missing.", stacklevel=2)
    return added
