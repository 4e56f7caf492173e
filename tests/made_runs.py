"""Runs made up for comparisons: every value is given, nothing is generated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lem.records import Judgement, Record, RunContents, RunInfo, Score

DECODED = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 64}


def made_run(
    values: Mapping[str, Sequence[Any]],
    *,
    scorer: str = "v3",
    domains: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    words: Mapping[str, Sequence[int]] | None = None,
    arms: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] = DECODED,
    name: str = "made",
    prompts: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
) -> RunContents:
    """A run with one scorer.

    `values[arm][probe]` is a number, a list of repeats, None (unscored), "failed" or "missing".
    """
    n = len(next(iter(values.values())))
    ids = ids or [f"P{i:03d}" for i in range(n)]
    repeats = max(len(v) if isinstance(v, list) else 1 for column in values.values() for v in column)
    probes = []
    for i, probe_id in enumerate(ids):
        probe = {"id": probe_id, "domain": domains[i] if domains else "", "prompt": prompts[i] if prompts else f"q {i}"}
        probes.append(probe | ({"source": sources[i]} if sources else {}))
    records, scores = [], []
    for arm, column in values.items():
        for i, entry in enumerate(column):
            for repeat, value in enumerate(entry if isinstance(entry, list) else [entry]):
                if value == "missing":
                    continue
                failed = value == "failed"
                text = None if failed else " ".join([f"word{k}" for k in range(words[arm][i] if words else 5)])
                records.append(
                    Record(
                        name, arm, ids[i], repeat, None if failed else f"{text} {arm} {repeat}",
                        finish_reason="stop", error="out of memory" if failed else None,
                    )
                )  # fmt: skip
                if not failed:
                    unscored = "not English" if value is None else None
                    number = None if value is None else float(value)
                    scores.append(Score(arm, ids[i], repeat, scorer, "t1", number, {}, unscored))
    info = RunInfo(
        run_id=name, kind="benchmark", status="done",
        arms={arm: {"model": "m", **(arms or {}).get(arm, {})} for arm in values},
        settings={**settings, "repeats": repeats}, probes=probes,
    )  # fmt: skip
    return RunContents(info, records, {scorer: scores}, [])


def judged(run: RunContents, dimension: str, values: Mapping[str, Sequence[float | None]]) -> RunContents:
    """The same run with ratings 1-10 of one more dimension by the judge "j"."""
    rows = [
        Judgement(
            arm, run.info.probes[i]["id"], 0, "j", dimension, value, low=1.0, high=10.0,
            unscored="unreadable verdict" if value is None else None,
        )
        for arm, column in values.items()
        for i, value in enumerate(column)
    ]  # fmt: skip
    return RunContents(run.info, run.records, run.scores, [*run.judgements, *rows])


def save(run: RunContents, path: Path) -> Path:
    """Write a made-up run as a run directory."""
    lines = {
        "records.jsonl": [record.to_row() for record in run.records],
        **{f"scores/{name}.jsonl": [score.to_row() for score in rows] for name, rows in run.scores.items()},
        "judgements/j.jsonl": [judgement.to_row() for judgement in run.judgements],
    }
    for name, rows in lines.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "run.json").write_text(json.dumps(asdict(run.info)))
    return path
