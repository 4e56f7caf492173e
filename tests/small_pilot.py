"""A pilot run made by hand: every score, token count and time is given, nothing is generated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lem.records import Key, Record, Score, open_run, text_sha

START = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)
DOMAINS = ("health", "work", "memory")

Values = Mapping[str, Sequence[Sequence[float]]]


def probes(n: int) -> list[dict[str, str]]:
    return [{"id": f"P{i:02d}", "domain": DOMAINS[i % 3], "prompt": f"question {i}?"} for i in range(n)]


def write_pilot(
    path: Path,
    values: Values,
    *,
    metric: str = "v2",
    tokens: int = 10,
    seconds: float = 2.0,
    scored: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run of one decoding group per arm and repeat; each takes `seconds` and makes `tokens` a row.

    `values[arm][probe][repeat]` is the score of that cell.
    """
    n = len(next(iter(values.values())))
    repeats = len(next(iter(values.values()))[0])
    scores = []
    with open_run(path, "benchmark", path.name) as run:
        run.info.arms = {arm: {"model": "m", "model_sha": None} for arm in values}
        run.info.probes = probes(n)
        run.info.settings = {"max_tokens": 4, "temperature": 0.7, "top_p": 0.95, "repeats": repeats, **(settings or {})}
        run.info.created = START.isoformat()
        for number, (arm, repeat) in enumerate((arm, repeat) for arm in values for repeat in range(repeats)):
            for i in range(n):
                key = Key(arm, f"P{i:02d}", repeat)
                text = f"{arm} {i} {repeat}"
                time = START + timedelta(seconds=seconds * (number + 1))
                record = Record(
                    path.name, *key, text, group=f"{arm}/{repeat}", n_tokens=tokens, finish_reason="stop",
                    ts=time.isoformat(timespec="milliseconds"),
                )  # fmt: skip
                run.append(record)
                scores.append(Score(*key, metric, f"{metric}.1", values[arm][i][repeat], {}, None, text_sha(text)))
        run.save("done")
    if scored:
        (path / "scores").mkdir()
        lines = [json.dumps(score.to_row()) for score in scores]
        (path / "scores" / f"{metric}.jsonl").write_text("\n".join(lines) + "\n")
    return path


def spread_values(n: int, repeats: int, *, effect: float = 1.0) -> dict[str, list[list[float]]]:
    """Scores with an effect that differs between probes and between repeats, the same every time."""
    base = [[5 + 0.7 * ((3 * i + 5 * r) % 7) for r in range(repeats)] for i in range(n)]
    treated = [
        [base[i][r] + effect * (1 + (i % 5) / 2) + 0.9 * ((2 * i + 3 * r) % 4) for r in range(repeats)]
        for i in range(n)
    ]
    return {"base": base, "json": treated}
