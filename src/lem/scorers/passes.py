"""Scoring as a pass of its own over the records of a run; scores are derived and may be remade at any time.

A failed record gets no row here (it is counted as failed wherever records are counted); an unscored one gets a row
with the reason. Large runs are scored by several processes with the same result.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from time import perf_counter

from lem.errors import LemError
from lem.records import Record, Score, read_run, text_sha, write_atomic
from lem.records.model import LIKELIHOOD
from lem.scorers.table import ScoreResult, find, score_text

TRUNCATED = "truncated while thinking"
# Below this much work, starting worker processes (about half a second) costs more than they save.
POOL_FROM_S = 2.0
_SAMPLE = 100
_MAX_WORKERS = 8
_CHUNK = 200


def score_records(records: Sequence[Record], scorer_name: str) -> list[Score]:
    """Score every answered record, in the order given; measured choices are no answer and have no row.

    A record cut off by the token limit before its thinking ended has no answer: it is unscored.
    Raises: ValueError for a record with neither response nor error; UserError for an unknown scorer.
    """
    version, _ = find(scorer_name)
    answered = [record for record in records if not record.failed and record.finish_reason != LIKELIHOOD]
    texts = [_response(record) for record in answered]
    judged = [text for record, text in zip(answered, texts, strict=True) if not _cut_off(record)]
    results = iter(_score_texts(judged, scorer_name))
    return [
        _row(record, text, scorer_name, version, _UNFINISHED if _cut_off(record) else next(results))
        for record, text in zip(answered, texts, strict=True)
    ]


def score_run(path: Path, scorers: Iterable[str]) -> dict[str, list[Score]]:
    """Score a run with each scorer and replace `scores/<scorer>.jsonl` in one step each.

    Raises: UserError for an unknown scorer (before anything is written), DataError for an unreadable run.
    """
    names = list(dict.fromkeys(scorers))
    for name in names:
        find(name)
    _, records = read_run(path)
    scored = {name: score_records(records, name) for name in names}
    for name, scores in scored.items():
        lines = [json.dumps(score.to_row(), ensure_ascii=False, allow_nan=False) + "\n" for score in scores]
        write_atomic(path / "scores" / f"{name}.jsonl", "".join(lines))
    return scored


_UNFINISHED = ScoreResult(None, {}, TRUNCATED)


def _response(record: Record) -> str:
    if record.response is None:
        raise ValueError(f"record {tuple(record.key)} has neither a response nor an error; its writer is at fault.")
    return record.response


def _cut_off(record: Record) -> bool:
    return record.thinking is not None and record.response == "" and record.finish_reason == "length"


def _row(record: Record, text: str, scorer: str, version: str, result: ScoreResult) -> Score:
    return Score(
        arm=record.arm,
        probe_id=record.probe_id,
        repeat=record.repeat,
        scorer=scorer,
        version=version,
        value=result.value,
        signals=result.signals,
        unscored=result.unscored,
        record_sha=text_sha(text),
    )


def _score_texts(texts: Sequence[str], scorer: str) -> list[ScoreResult]:
    first = [score_text(scorer, text) for text in texts[:1]]  # alone: it loads the scorer's lists
    start = perf_counter()
    first += [score_text(scorer, text) for text in texts[1:_SAMPLE]]
    rest = texts[len(first) :]
    expected_s = (perf_counter() - start) / _SAMPLE * len(rest)
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    if not rest or expected_s < POOL_FROM_S or workers < 2:
        return first + [score_text(scorer, text) for text in rest]
    # Spawned, not forked: the parent may hold MLX threads, which a fork would copy in a broken state.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return first + list(pool.map(partial(score_text, scorer), rest, chunksize=_CHUNK))
    except BrokenProcessPool:
        raise LemError("a scoring process died (out of memory?); free some and run the same command again.") from None
