"""Decode groups: in this process on a GPU, in one worker process per core on a CPU.

MLX computes on one core at a time and small models are bound by one core's arithmetic, so on a CPU the groups of a
plan are handed to worker processes, each with its own copy of the weights. Every decoder, worker or not, uses one
BLAS thread, so the text of a row does not depend on how many workers there were. A worker ends when its pipe to the
parent closes, also when the parent is killed.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

import mlx.core as mx

from lem.chat.device import free_memory_bytes
from lem.chat.generate import Completion, GenerationSettings, Prefix, Request, generate
from lem.chat.load import ChatModel, load, resolve_model_path
from lem.errors import LemError

MEMORY_SHARE = 0.25
# Below this many tokens a second process would take longer to start (about two seconds) than it saves.
POOL_FROM_TOKENS = 12_000
MAX_WORKERS = 8


@dataclass(frozen=True)
class Job:
    """One group to decode: its name, its rows, and the prompt prefix that all rows of its arm share.

    Either every row has choices, whose likelihoods are then measured, or none has.
    """

    name: str
    rows: tuple[Request, ...]
    prefix: tuple[int, ...]


Answer = tuple[str, Completion | None]


def decoders_at_once() -> int:
    """How many groups may be in decoding at one time: one on a GPU, one per usable core on a CPU."""
    if mx.default_device() != mx.cpu:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


def choose_workers(jobs: Sequence[Job], max_tokens: int, weight_bytes: int, free_bytes: int) -> int:
    """Worker processes for these jobs: 0 (decode here) on a GPU or for little work, else up to one per core.

    All copies of the weights together may take a quarter of the free memory.
    """
    cores = decoders_at_once()
    work = sum(len(job.rows) for job in jobs) * max_tokens
    if len(jobs) < 2 or work < POOL_FROM_TOKENS:
        return 0
    room = int(MEMORY_SHARE * free_bytes // max(1, weight_bytes))
    workers = min(cores, len(jobs), room)
    return workers if workers > 1 else 0


class Decoder:
    """A loaded model that decodes jobs in this process and keeps the last prompt prefix it computed."""

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat
        self._prefix = Prefix(())

    def decode(self, jobs: Sequence[Job], settings: GenerationSettings) -> Iterator[Answer]:
        """Decode the jobs in order; yields (job, completion) as rows finish, and (job, None) at a job's end."""
        with one_blas_thread():
            for job in jobs:
                if job.prefix != self._prefix.tokens:
                    self._prefix = Prefix(job.prefix)
                for completion in self._answers(job, settings):
                    yield job.name, completion
                yield job.name, None

    def _answers(self, job: Job, settings: GenerationSettings) -> Iterator[Completion]:
        if not job.rows[0].choices:
            return generate(self._chat, [job.rows], settings, prefix=self._prefix)
        from lem.chat.likelihood import decode_choices

        return decode_choices(self._chat, job.rows, self._prefix)


@contextmanager
def open_decoder(
    model: str, adapter: str | None, jobs: Sequence[Job], settings: GenerationSettings, adapter_scale: float = 1.0
) -> Iterator[Decoder | WorkerPool]:
    """Load the model here or in as many workers as pay off for these jobs, and release it afterwards."""
    weights = sum(file.stat().st_size for file in resolve_model_path(model).glob("model*.safetensors"))
    n_workers = choose_workers(jobs, settings.max_tokens, 2 * weights, free_memory_bytes())
    if n_workers:
        with WorkerPool(model, adapter, n_workers, adapter_scale) as pool:
            yield pool
    else:
        yield Decoder(load(model, adapter, need_template=False, adapter_scale=adapter_scale))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread: its thread count changes floating-point sums, and one is fastest at this size."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


class WorkerPool:
    """Processes that hold the same model and decode jobs side by side."""

    def __init__(self, model: str, adapter: str | None, n_workers: int, adapter_scale: float = 1.0) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, SpawnProcess] = {}
        for _ in range(n_workers):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, model, adapter, adapter_scale), daemon=True)
            worker.start()
            theirs.close()
            self._workers[ours] = worker

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for pipe, worker in self._workers.items():
            pipe.close()
            worker.terminate()
        for worker in self._workers.values():
            worker.join()

    def decode(self, jobs: Sequence[Job], settings: GenerationSettings) -> Iterator[Answer]:
        """Decode the jobs side by side; yields like `Decoder.decode`, jobs interleaved.

        A worker that dies (out of memory, say) fails the rows it was decoding; the others take over its place.
        Raises: LemError when no worker is left.
        """
        waiting = list(reversed(jobs))
        busy: dict[Connection, tuple[Job, set[Any]]] = {}
        idle = list(self._workers)
        while waiting or busy:
            while idle and waiting:
                pipe = idle.pop()
                try:
                    pipe.send((waiting[-1], settings))
                except ConnectionError:  # it died while idle, so no row was lost
                    self._workers.pop(pipe).join()
                    continue
                busy[pipe] = (waiting.pop(), set())
            if not busy:
                raise LemError("every decoding process died; free some memory and run the same command again.")
            for ready in wait(list(busy)):
                pipe = cast("Connection", ready)
                job, done = busy[pipe]
                try:
                    completion: Completion | None = pipe.recv()
                except (EOFError, ConnectionError):
                    del busy[pipe]
                    yield from self._bury(pipe, job, done)
                    continue
                yield job.name, completion
                if completion is None:
                    del busy[pipe]
                    idle.append(pipe)
                else:
                    done.add(completion.id)

    def _bury(self, pipe: Connection, job: Job, done: set[Any]) -> Iterator[Answer]:
        worker = self._workers.pop(pipe)
        worker.join()
        message = f"the decoding process died (exit code {worker.exitcode})"
        for row in job.rows:
            if row.id not in done:
                yield job.name, Completion(row.id, None, None, (), None, len(row.tokens), error=message)
        yield job.name, None


def _work(pipe: Connection, model: str, adapter: str | None, adapter_scale: float) -> None:
    """A worker's life: load, then decode jobs until the parent closes the pipe or goes away."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes the pipe
    try:
        decoder = Decoder(load(model, adapter, need_template=False, adapter_scale=adapter_scale))
        while True:
            job, settings = pipe.recv()
            for _, completion in decoder.decode([job], settings):
                pipe.send(completion)
    except (EOFError, BrokenPipeError, ConnectionError):
        return
