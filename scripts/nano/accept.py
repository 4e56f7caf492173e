"""lem-nano's acceptance figures, over answers and over the run directories of `./lem benchmark`.

Every figure is a share in [0, 1] with its bar; a missed bar is printed as missed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer

Answers = Sequence[tuple[str, str]]
BARS = {"empty": 0.02, "repetitive": 0.10, "non_words": 0.02, "on_topic": 0.50}
SHIPPED = ("training", "seeds", "kernel", "benchmarks", "docs", "paper", "scripts/nano/text")
_SUFFIXES = {".json", ".jsonl", ".txt", ".md", ".yaml"}
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


@dataclass(frozen=True)
class Figures:
    """Shares over one arm's answers; `non_words` is a share of word tokens, the rest shares of answers."""

    arm: str
    n: int
    empty: float
    repetitive: float
    non_words: float
    on_topic: float
    mean_words: float

    def missed(self) -> list[str]:
        """The names of the figures that miss their bar."""
        over = [name for name in ("empty", "repetitive", "non_words") if getattr(self, name) > BARS[name]]
        return over + ([] if self.on_topic >= BARS["on_topic"] else ["on_topic"])


def read_probes(path: Path) -> dict[str, str]:
    """Probe id -> prompt of a probe file (a JSON array)."""
    return {str(probe["id"]): str(probe["prompt"]) for probe in json.loads(path.read_text())}


def read_answers(run: Path) -> dict[str, list[tuple[str, str]]]:
    """Arm -> (probe id, response) of a run's records.jsonl; the last line of a key wins, errors are left out."""
    last: dict[tuple[str, str, int], dict[str, Any]] = {}
    for line in (run / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        last[record["arm"], str(record["probe_id"]), record.get("repeat", 0)] = record
    found: dict[str, list[tuple[str, str]]] = {}
    for (arm, probe, _), record in sorted(last.items()):
        if not record.get("error"):
            found.setdefault(arm, []).append((probe, record["response"] or ""))
    return found


def shipped_vocabulary(root: Path) -> frozenset[str]:
    """Every word of the text in the repository, lower case; models/ is left out, for its card quotes answers."""
    words: set[str] = set()
    for folder in SHIPPED:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in _SUFFIXES:
                words.update(_WORD.findall(path.read_text(errors="replace").lower()))
    return frozenset(words)


def is_repetitive(text: str) -> bool:
    """v2 calls it degenerate, or some sequence of four words occurs three times."""
    from lem.scorers import v2

    words = text.lower().split()
    grams = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    return v2.score(text)["degeneration"] > 0 or any(n >= 3 for n in grams.values())


def topic_ranks(answers: Answers, probes: dict[str, str]) -> list[int]:
    """Per answer, how many other probes are at least as near to it as its own, by TF-IDF cosine (0 is best).

    An answer that shares no word with its own probe ranks last.
    """
    ids = list(probes)
    vectorizer = TfidfVectorizer(stop_words="english")
    table = vectorizer.fit_transform([probes[i] for i in ids])
    nearness = (vectorizer.transform([text for _, text in answers]) @ table.T).toarray()
    ranks = []
    for row, (probe, _) in zip(nearness, answers, strict=True):
        own = row[ids.index(probe)]
        ranks.append(int((row >= own).sum()) - 1 if own > 0 else len(ids))
    return ranks


def figures(arm: str, answers: Answers, probes: dict[str, str], vocabulary: frozenset[str]) -> Figures:
    """The acceptance figures of one arm; no answers is an error."""
    if not answers:
        raise ValueError(f"arm {arm} has no answers")
    n = len(answers)
    words = [word for _, text in answers for word in _WORD.findall(text.lower())]
    return Figures(
        arm=arm,
        n=n,
        empty=sum(len(text.strip()) < 20 for _, text in answers) / n,
        repetitive=sum(is_repetitive(text) for _, text in answers) / n,
        non_words=sum(word not in vocabulary for word in words) / max(1, len(words)),
        on_topic=sum(rank < 10 for rank in topic_ranks(answers, probes)) / n,
        mean_words=len(words) / n,
    )


def table(rows: Iterable[Figures]) -> str:
    """A Markdown table, one line per arm; a figure over its bar is marked 'missed'."""
    names = ("empty", "repetitive", "non_words", "on_topic")
    lines = [
        "| arm | answers | empty (<= 2%) | repetitive (<= 10%) | non-words (<= 2%) | on topic (>= 50%) | words | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{getattr(row, name):.1%}" for name in names]
        missed = row.missed()
        verdict = "missed: " + ", ".join(missed) if missed else "pass"
        lines.append(f"| {row.arm} | {row.n} | {' | '.join(cells)} | {row.mean_words:.0f} | {verdict} |")
    return "\n".join(lines)


def nll(model_dir: Path, adapter_dir: Path | None, path: Path) -> list[float]:
    """Mean cross-entropy (nats per token) of each example's assistant turns, under the model and its adapter."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm import load

    model, tokenizer, *_ = load(str(model_dir), adapter_path=str(adapter_dir) if adapter_dir else None)
    model.eval()
    found = []
    for line in path.read_text().splitlines():
        messages = json.loads(line)["messages"]
        total, count = 0.0, 0
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = list(tokenizer.apply_chat_template(messages[:turn], add_generation_prompt=True))
            whole = list(tokenizer.apply_chat_template(messages[: turn + 1]))
            if whole[: len(prompt)] != prompt:
                raise ValueError("the chat template's generation prompt is not a prefix of the chat")
            tokens = mx.array([whole])
            losses = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], reduction="none")[0]
            total += float(losses[len(prompt) - 1 :].sum())
            count += len(whole) - len(prompt)
        found.append(total / count)
    return found


@dataclass(frozen=True)
class Gap:
    """A paired difference of mean NLL with its BCa interval; below zero means the first model is better."""

    mean: float
    low: float
    high: float

    def holds(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.high < 0


def gap(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Gap:
    """first - second, example by example, with a 95% BCa bootstrap interval."""
    difference = np.asarray(first) - np.asarray(second)
    result = stats.bootstrap(
        (difference,), np.mean, confidence_level=0.95, method="BCa", rng=np.random.default_rng(seed)
    )
    interval = result.confidence_interval
    return Gap(float(difference.mean()), float(interval.low), float(interval.high))
