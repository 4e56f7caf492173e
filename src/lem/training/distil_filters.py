"""Which distilled answers become training data: one reason for each rejected answer, none for a kept one.

The filters apply in the order of `REASONS`, so an answer carries the first reason that holds. The first seven look at
an answer alone. The last three are settled in one pass over what is left, best score first (ties: the order of the
prompts, then the lower repeat): an answer is compared with those already kept, so of two that are alike the better
one stays. Nothing depends on the order in which answers were generated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.data import Kernel, Probe
from lem.data.contamination import ProbeSource, read_corpus
from lem.data.similarity import ANSWER_JACCARD, ANSWER_N, NgramIndex, near_duplicates, words
from lem.records import Key, Record, Score

REASONS = (
    "missing", "failed", "truncated", "degenerate", "unscored", "below-threshold", "kernel-text", "duplicate",
    "probe-text", "not-best",
)  # fmt: skip


@dataclass(frozen=True)
class Filters:
    """What an answer must reach: a score of at least `threshold`, and to be among the best N of its prompt."""

    scorer: str = "v2"
    threshold: float = 20.0
    keep_per_prompt: int = 1


@dataclass(frozen=True)
class Sample:
    """One cell of the plan: a prompt, a repeat, what came back (None: nothing yet) and its scores by scorer."""

    prompt: Probe
    repeat: int
    record: Record | None
    scores: Mapping[str, Score]

    @property
    def name(self) -> str:
        """How notes name it: `<prompt id>/<repeat>`."""
        return f"{self.prompt.id}/{self.repeat}"

    @property
    def response(self) -> str:
        """The answer; "" when there is none."""
        return (self.record.response if self.record else None) or ""

    def value(self, scorer: str) -> float | None:
        """The score, None when unscored."""
        return self.scores[scorer].value if scorer in self.scores else None


@dataclass(frozen=True)
class Verdict:
    """A sample with the reason it was rejected for (None: kept) and a note that makes the reason checkable."""

    sample: Sample
    reason: str | None
    note: str = ""

    def to_row(self) -> dict[str, Any]:
        """The flat JSON object of `kept.jsonl` (without reason) and `rejected.jsonl`."""
        sample = self.sample
        row = {
            "prompt_id": sample.prompt.id,
            "repeat": sample.repeat,
            "domain": sample.prompt.domain or None,
            "prompt": sample.prompt.prompt,
            "response": sample.record.response if sample.record else None,
            "scores": {name: score.value for name, score in sample.scores.items()},
        }
        return row if self.reason is None else {**row, "reason": self.reason, "note": self.note}


def build_samples(
    prompts: Sequence[Probe], repeats: int, arm: str, records: Mapping[Key, Record], scores: Sequence[Score]
) -> list[Sample]:
    """Every cell of the plan, by prompt and then repeat, joined with its record and its scores."""
    by_key: dict[Key, dict[str, Score]] = {}
    for score in scores:
        by_key.setdefault(score.key, {})[score.scorer] = score
    keys = [(prompt, Key(arm, prompt.id, repeat)) for prompt in prompts for repeat in range(repeats)]
    return [Sample(prompt, key.repeat, records.get(key), by_key.get(key, {})) for prompt, key in keys]


def judge_samples(
    samples: Sequence[Sample], filters: Filters, kernel_texts: Sequence[str], sources: Sequence[ProbeSource]
) -> list[Verdict]:
    """Give every sample its verdict, in the order of the samples.

    Args:  kernel_texts: what stood around the prompts and may not be quoted.  sources: evaluation probes.
    """
    kernel = NgramIndex(("kernel", text) for text in kernel_texts)
    found = [_judge_alone(sample, filters, kernel) for sample in samples]
    left = [number for number, verdict in enumerate(found) if verdict is None]
    left.sort(key=lambda number: (-_sure(samples[number].value(filters.scorer)), number))
    settled = _settle([samples[number] for number in left], filters.keep_per_prompt, sources)
    by_number = dict(zip(left, settled, strict=True))
    return [verdict or by_number[number] for number, verdict in enumerate(found)]


def kernel_passages(kernel: Kernel, signature: str) -> list[str]:
    """The texts that an answer may not quote: the kernel as it was sent, its strings or paragraphs, the signature."""
    return [kernel.text, signature, *(text for _, text in read_corpus(Path(kernel.path)))]


def _judge_alone(sample: Sample, filters: Filters, kernel: NgramIndex) -> Verdict | None:
    record = sample.record
    if record is None:
        return Verdict(sample, "missing", "no record of this answer")
    if record.failed:
        return Verdict(sample, "failed", record.error or "")
    if record.finish_reason == "length":
        return Verdict(sample, "truncated", f"cut off at {record.n_tokens} tokens")
    repetition = _repetition(sample)
    if repetition:
        return Verdict(sample, "degenerate", repetition)
    value = sample.value(filters.scorer)
    if value is None:
        return Verdict(sample, "unscored", sample.scores[filters.scorer].unscored or "no value")
    if value < filters.threshold:
        return Verdict(sample, "below-threshold", f"{filters.scorer} {value:.2f} < {filters.threshold:g}")
    quoted = kernel.shared(sample.response)
    if quoted:
        return Verdict(sample, "kernel-text", " ... ".join(quoted["kernel"]))
    return None


def _repetition(sample: Sample) -> str:
    """Why an answer is degenerate, "" if it is not.

    v3 looks at the worst stretch of words, so a long answer is not blamed for its length; v2 (fewer than 3 of 10
    words distinct) stands in for languages that v3 does not read.
    """
    if not words(sample.response):
        return "not a single word"
    if sample.scores["v3"].signals.get("degeneration", 0) > 0:
        return "a stretch of the answer repeats itself (v3)"
    if sample.scores["v3"].unscored and sample.scores["v2"].signals.get("degeneration", 0) >= 1:
        return "fewer than 3 of 10 words are distinct (v2)"
    return ""


def _settle(ranked: Sequence[Sample], keep_per_prompt: int, sources: Sequence[ProbeSource]) -> list[Verdict]:
    """Verdicts of samples that passed alone, best first: alike to a kept one, words of a probe, not among the best."""
    probes = NgramIndex((source.label, source.probe.prompt) for source in sources)
    alike: dict[int, list[tuple[int, float]]] = {}
    for pair in near_duplicates([sample.response for sample in ranked], ANSWER_N, ANSWER_JACCARD):
        alike.setdefault(pair.right, []).append((pair.left, pair.jaccard))
    kept: set[int] = set()
    n_kept: dict[str, int] = {}
    verdicts = []
    for number, sample in enumerate(ranked):
        twin = next(((left, near) for left, near in alike.get(number, ()) if left in kept), None)
        quoted = probes.shared(sample.response)
        if twin:
            verdict = Verdict(sample, "duplicate", f"{ANSWER_N}-gram Jaccard {twin[1]:.2f} with {ranked[twin[0]].name}")
        elif quoted:
            label, runs = next(iter(quoted.items()))
            verdict = Verdict(sample, "probe-text", f"{label}: {' ... '.join(runs)}")
        elif n_kept.get(sample.prompt.id, 0) >= keep_per_prompt:
            verdict = Verdict(sample, "not-best", f"{keep_per_prompt} better of this prompt kept")
        else:
            verdict = Verdict(sample, None)
            kept.add(number)
            n_kept[sample.prompt.id] = n_kept.get(sample.prompt.id, 0) + 1
        verdicts.append(verdict)
    return verdicts


def _sure(value: float | None) -> float:
    if value is None:
        raise ValueError("an unscored sample passed the filters")
    return value
