"""Worker processes decode the same texts as this process, and a dead worker fails its rows and nothing else."""

from __future__ import annotations

import os
import signal

import mlx.core as mx
import pytest

from lem.chat.generate import GenerationSettings, Request, prefix_of
from lem.chat.load import load
from lem.chat.render import conversation, render
from lem.chat.sampling import row_seed
from lem.errors import LemError
from lem.runs.workers import POOL_FROM_TOKENS, Decoder, Job, WorkerPool, choose_workers
from tiny import make_model

SETTINGS = GenerationSettings(max_tokens=12, temperature=0.9, top_p=0.95)


def make_jobs(chat, n_jobs=3, n_rows=3):
    prompts = {}
    for number in range(n_jobs * n_rows):
        messages = conversation(f"Question {number}" + "?" * number, "A note about lamps and their keepers.", "system")
        prompts[f"q{number}"] = render(chat, messages).tokens
    prefix = prefix_of(list(prompts.values()))
    assert len(prefix) > 16
    rows = [Request(name, tokens, row_seed(3, name, 0)) for name, tokens in prompts.items()]
    return [Job(f"g{n}", tuple(rows[n * n_rows : (n + 1) * n_rows]), prefix) for n in range(n_jobs)]


def collect(answers):
    texts, ended = {}, []
    for job, completion in answers:
        if completion is None:
            ended.append(job)
        else:
            assert job not in ended, "a completion arrived after the end of its group"
            texts[completion.id] = completion
    return texts, ended


def test_workers_and_this_process_give_the_same_texts(tmp_path):
    folder = make_model(tmp_path / "m")
    chat = load(str(folder))
    jobs = make_jobs(chat)
    here, ended_here = collect(Decoder(chat).decode(jobs, SETTINGS))
    with WorkerPool(str(folder), None, 2) as pool:
        there, ended_there = collect(pool.decode(jobs, SETTINGS))
    assert here == there
    assert len(here) == 9
    assert all(completion.error is None for completion in here.values())
    assert sorted(ended_here) == sorted(ended_there) == ["g0", "g1", "g2"]


def test_a_killed_worker_fails_its_rows_and_the_other_one_does_the_rest(tmp_path):
    folder = make_model(tmp_path / "m")
    jobs = make_jobs(load(str(folder)), n_jobs=4)
    with WorkerPool(str(folder), None, 2) as pool:
        victim = list(pool._workers.values())[-1]  # idle workers are taken from the end: it gets the first job
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        answers, ended = collect(pool.decode(jobs, SETTINGS))
    failed = {name for name, completion in answers.items() if completion.error}
    assert len(answers) == 12
    assert len(ended) == 4
    assert len(failed) <= 3
    assert all("decoding process died" in answers[name].error for name in failed)
    assert all(answers[name].response is None for name in failed)


def test_no_worker_left_is_one_sentence(tmp_path):
    folder = make_model(tmp_path / "m")
    jobs = make_jobs(load(str(folder)), n_jobs=3)
    with WorkerPool(str(folder), None, 1) as pool:
        (only,) = pool._workers.values()
        os.kill(only.pid, signal.SIGKILL)
        only.join()
        with pytest.raises(LemError, match="every decoding process died"):
            collect(pool.decode(jobs, SETTINGS))


def test_workers_are_used_only_where_they_pay_off(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    rows = tuple(Request(n, (1, 2), 0) for n in range(50))
    jobs = [Job("a", rows, ()), Job("b", rows, ()), Job("c", rows, ())]
    enough = POOL_FROM_TOKENS // 150 + 1
    assert choose_workers(jobs, enough, 10, 10**9) == 3  # one per job
    assert choose_workers([*jobs, *jobs], enough, 10, 10**9) == 4  # one per core
    assert choose_workers(jobs[:1], 10_000, 10, 10**9) == 0  # nothing to share out
    assert choose_workers(jobs, 2, 10, 10**9) == 0  # too little work
    assert choose_workers(jobs, enough, 10**9, 8 * 10**9) == 2  # two copies fill a quarter of the memory
    assert choose_workers(jobs, enough, 10**9, 7 * 10**9) == 0  # there is room for one copy only
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    assert choose_workers(jobs, enough, 10, 10**9) == 0


def test_a_worker_killed_while_decoding_loses_at_most_its_group(tmp_path):
    folder = make_model(tmp_path / "m")
    jobs = make_jobs(load(str(folder)), n_jobs=4)
    long = GenerationSettings(max_tokens=400, temperature=0.9, stop=False)
    with WorkerPool(str(folder), None, 2) as pool:
        answers, ended, killed = [], [], False
        stream = pool.decode(jobs, long)
        victim = next(iter(pool._workers.values()))
        for job, completion in stream:
            if completion is None:
                ended.append(job)
            else:
                answers.append(completion)
            if ended and not killed:  # the victim is in the middle of a group now
                os.kill(victim.pid, signal.SIGKILL)
                killed = True
    assert sorted(completion.id for completion in answers) == sorted(row.id for job in jobs for row in job.rows)
    assert sorted(ended) == ["g0", "g1", "g2", "g3"]
    failed = [completion for completion in answers if completion.error]
    assert len(failed) <= 3
