"""A run directory of any size made of our own words, written directly; as compressible as the training answers are."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lem.records import text_sha

REPOSITORY = Path(__file__).parents[2]
DOMAINS = ("creative", "health", "memory", "power", "privacy", "rights", "truth", "work")
SCORERS = ("v2", "v3", "v1")
SIGNALS = ("nuance", "questioning", "metaphor", "first_person", "specificity", "emotional_register", "creative_form")


def _vocabulary() -> tuple[list[str], list[int]]:
    text = (REPOSITORY / "training" / "train.jsonl").read_text(encoding="utf-8")
    answers = [json.loads(line)["messages"][-1]["content"] for line in text.splitlines()]
    counts = Counter(re.findall(r"[\w']+", " ".join(answers)))
    return list(counts), list(counts.values())


def write_large_run(path: Path, n_probes: int, arms: tuple[str, ...], repeats: int, n_characters: int = 1400) -> None:
    """Write run.json, records.jsonl and a score file per scorer."""
    path.mkdir(parents=True)
    (path / "scores").mkdir()
    rng = random.Random(7)
    words, weights = _vocabulary()
    asked = [f"Question {i}: {' '.join(rng.choices(words, weights, k=14))}?" for i in range(n_probes)]
    probes = [{"id": f"P{i:05d}", "domain": DOMAINS[i % 8], "prompt": prompt} for i, prompt in enumerate(asked)]
    facts = {arm: {"model": "models/lem-nano", "model_sha": "a" * 64, "kernel": None} for arm in arms}
    manifest = {
        "run_id": path.name, "kind": "benchmark", "status": "done", "arms": facts, "probes": probes,
        "settings": {"repeats": repeats, "max_tokens": 512}, "created": "2026-01-02T03:04:05.678+00:00",
        "updated": "2026-01-02T03:04:05.678+00:00", "command": ["lem", "benchmark", "--repeats", str(repeats)],
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    scores = {name: (path / "scores" / f"{name}.jsonl").open("w") for name in SCORERS}
    with (path / "records.jsonl").open("w", encoding="utf-8") as records:
        for arm, probe, repeat, text in _answers(rng, words, weights, probes, arms, repeats, n_characters):
            message = {"role": "user", "content": probe["prompt"]}
            row = {
                "run_id": path.name, "arm": arm, "probe_id": probe["id"], "repeat": repeat, "response": text,
                "messages": [message], "finish_reason": "stop", "n_tokens": len(text) // 4,
            }  # fmt: skip
            records.write(json.dumps(row, ensure_ascii=False) + "\n")
            for name, file in scores.items():
                file.write(json.dumps(_score(rng, name, arm, probe["id"], repeat, text, arms.index(arm))) + "\n")
    for file in scores.values():
        file.close()


def _answers(
    rng: random.Random, words: list[str], weights: list[int], probes: list[dict[str, str]], arms: tuple[str, ...],
    repeats: int, n_characters: int,
) -> Iterator[tuple[str, dict[str, str], int, str]]:  # fmt: skip
    for arm in arms:
        for repeat in range(repeats):
            for probe in probes:
                n = max(1, round(n_characters * rng.uniform(0.6, 1.4) / 5.4))
                drawn = rng.choices(words, weights, k=n)
                sentences = [" ".join(drawn[at : at + 14]).capitalize() + "." for at in range(0, n, 14)]
                paragraphs = [" ".join(sentences[at : at + 4]) for at in range(0, len(sentences), 4)]
                yield arm, probe, repeat, "\n\n".join(paragraphs)


def _score(
    rng: random.Random, scorer: str, arm: str, probe: str, repeat: int, text: str, effect: int
) -> dict[str, object]:
    value = round(4 + 0.8 * effect + len(text) / 700 + rng.gauss(0, 2), 2)
    signals = {name: rng.randrange(6) for name in SIGNALS}
    return {
        "arm": arm, "probe_id": probe, "repeat": repeat, "scorer": scorer, "version": f"{scorer}.1", "value": value,
        "signals": signals, "unscored": None, "record_sha": text_sha(text),
    }  # fmt: skip
