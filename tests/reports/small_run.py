"""A small run directory made by hand: 3 arms, 12 probes in 3 domains, 2 repeats, every outcome at a known place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lem.records import Key, Record, RunInfo, Score, open_run, read_run, text_sha, write_atomic
from lem.records.cells import read_scores

ARMS = ("base", "json", "trained")
DOMAINS = ("health", "work", "memory")
N_PROBES = 12
N_REPEATS = 2
FAILED = Key("json", "P03", 0)
MISSING = (Key("trained", "P11", 0), Key("trained", "P11", 1))
UNSCORED = Key("base", "P05", 1)
TRUNCATED = Key("json", "P07", 0)
HOSTILE = Key("json", "P01", 0)
KERNEL = "A kernel that is long enough to matter: weigh consent & dignity, <b>never</b> coercion."
HOSTILE_TEXT = (
    "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>"
    "<!-- <script> --> {{ 7 * 7 }} & \u2028 \ud83d lone surrogate"
)


def probe_id(number: int) -> str:
    return f"P{number:02d}"


def probes() -> list[dict[str, str]]:
    return [
        {"id": probe_id(i), "domain": DOMAINS[i % 3], "prompt": f"Question {i}: what would you do, and why?"}
        for i in range(N_PROBES)
    ]


def keys() -> list[Key]:
    return [Key(arm, probe_id(i), r) for arm in ARMS for r in range(N_REPEATS) for i in range(N_PROBES)]


def value_of(key: Key) -> float:
    """A score with an effect, a domain effect and noise that differs between repeats; all made up."""
    number = int(key.probe_id[1:])
    effect = {"base": 0.0, "json": 1.25, "trained": -0.4}[key.arm]
    return 10 + effect * (1 + number % 3) + 0.37 * ((number * 7 + key.repeat * 5) % 11) + 0.1 * key.repeat


def response_of(key: Key) -> str:
    if key == HOSTILE:
        return HOSTILE_TEXT
    text = f"{key.arm} answers {key.probe_id} in repeat {key.repeat}.\n\n"
    return text + "It depends on who is affected, so I would ask first. " * (1 + int(key.probe_id[1:]) % 4)


def record_of(key: Key) -> Record:
    messages = [{"role": "user", "content": probes()[int(key.probe_id[1:])]["prompt"]}]
    if key.arm == "json":
        messages.insert(0, {"role": "system", "content": KERNEL})
    failed = key == FAILED
    return Record(
        run_id="small",
        arm=key.arm,
        probe_id=key.probe_id,
        repeat=key.repeat,
        response=None if failed else response_of(key),
        messages=tuple(messages),
        thinking="Let me think about <i>this</i>." if key == Key("trained", "P02", 0) else None,
        finish_reason=None if failed else ("length" if key == TRUNCATED else "stop"),
        n_tokens=None if failed else len(response_of(key)) // 4,
        error="the server hung up" if failed else None,
    )


def score_of(record: Record, scorer: str) -> Score:
    unscored = record.key == UNSCORED
    return Score(
        arm=record.arm,
        probe_id=record.probe_id,
        repeat=record.repeat,
        scorer=scorer,
        version=f"{scorer}.1",
        value=None if unscored else value_of(record.key) * (1 if scorer == "v2" else 0.1),
        signals={} if unscored else {"nuance": 2, "questioning": 0, "metaphor": 1},
        unscored="written in another language" if unscored else None,
        record_sha=text_sha(record.response or ""),
    )


@dataclass(frozen=True)
class SmallRun:
    """The run directory, read back."""

    path: Path
    info: RunInfo
    records: list[Record]
    scores: dict[str, list[Score]]


def write_scores(path: Path, scorer: str, scores: list[Score]) -> None:
    lines = [json.dumps(score.to_row(), ensure_ascii=False) + "\n" for score in scores]
    write_atomic(path / "scores" / f"{scorer}.jsonl", "".join(lines))


def write_run(path: Path, *, model: str = "models/lem-nano", scorers: tuple[str, ...] = ("v2", "v3")) -> None:
    with open_run(path, "benchmark", "small") as run:
        for arm in ARMS:
            sha = "b" * 64 if arm == "trained" else "a" * 64
            facts = {"model": model, "model_sha": sha, "adapter": None, "identity": {"model": sha}, "kernel": None}
            run.info.arms[arm] = facts
        run.info.probes = probes()
        run.info.settings = {"max_tokens": 64, "temperature": 0.7, "repeats": N_REPEATS, "seed": 42, "inject": None}
        run.info.data = {"probe_file": "seeds/P01-P20.json", "n_probes": N_PROBES}
        run.info.device = {"device": "cpu", "cores": 2}
        run.info.command = ["lem", "benchmark", "--kernel", "json=my kernel.json"]
        for key in keys():
            if key not in MISSING:
                run.append(record_of(key))
        run.save("incomplete")
    records = [record for record in read_run(path)[1] if not record.failed]
    for scorer in scorers:
        write_scores(path, scorer, [score_of(record, scorer) for record in records])


def load(path: Path) -> SmallRun:
    info, records = read_run(path)
    return SmallRun(path, info, records, read_scores(path))
