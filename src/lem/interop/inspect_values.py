"""What a scorer of Inspect gave to one sample, as scores and judgements of ours: numbers, or unscored with a reason.

Inspect lets a value be a number, a truth value, a letter (C, I, P, N), a list or a mapping of such. Its own convention
(`value_to_float`) makes 1, 0, 0.5 and 0 of the letters and 1 or 0 of truth values; where that convention would fall
back to 0 because it does not understand a value, the answer is unscored here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lem.records import Judgement, Key, Score, text_sha

LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
OURS = "lem"  # the key of a score's or output's metadata for what an export of ours has no field of Inspect for
SPENT = ("n_prompt_tokens", "n_tokens", "cost")  # what a judge's call took, where that is known
NO_SCORE = "the log holds no score of this scorer for this answer"


@dataclass(frozen=True)
class Marks:
    """The scores and judgements of one answer."""

    scores: list[Score]
    judgements: list[Judgement]


def marks_of(key: Key, response: str, scores: Mapping[str, Any], version: str, invalidated: bool) -> Marks:
    """Turn the scores of one sample into ours; a list or mapping gives one scorer per entry, `name.key`.

    Args:  scores: Inspect's `Score` objects by scorer; version: of a score that an export of ours did not write.
    """
    found = Marks([], [])
    sha = text_sha(response)
    for name, given in scores.items():
        ours = ours_of(given.metadata)
        reason = "the sample was invalidated in its log" if invalidated else None
        for suffix, raw in _entries(given.value):
            value, complaint = number_of(raw)
            unscored = reason or (None if complaint is None else given.reason or complaint)
            value = value if unscored is None else None
            if "judge" in ours:
                found.judgements.append(_judgement(key, ours, value, unscored, given.explanation or "", sha))
            else:
                found.scores.append(_score_row(key, f"{name}{suffix}", value, unscored, ours, version, sha))
    return found


def ours_of(metadata: Any) -> dict[str, Any]:
    """What an export of ours kept in the metadata of a score or an output; {} if there is none."""
    found = metadata.get(OURS) if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _score_row(
    key: Key, name: str, value: float | None, unscored: str | None, ours: dict[str, Any], version: str, sha: str
) -> Score:
    kept = ours.get("signals") if isinstance(ours.get("signals"), dict) else {}
    signals = {str(k): v for k, v in (kept or {}).items() if type(v) in (int, float) and math.isfinite(v)}
    stamped = str(ours.get("version", version))
    return Score(*key, scorer_name(name), stamped, value, signals, unscored, sha)


def number_of(value: Any) -> tuple[float | None, str | None]:
    """A scalar as a number, or None with the reason why it is none."""
    if value is None:
        return None, "the scorer gave no value"
    if isinstance(value, str):
        return _number_of_text(value)
    if not isinstance(value, bool | int | float):
        return None, "the scorer's value is neither a number nor a letter"
    number = float(value) if abs(value) < 1e300 or value != value else math.inf
    if math.isnan(number):
        return None, "the scorer marked the answer as unscored"
    return (number, None) if math.isfinite(number) else (None, "the scorer's value is not finite")


def _number_of_text(text: str) -> tuple[float | None, str | None]:
    known = LETTERS.get(text, WORDS.get(text.lower()))
    if known is not None:
        return known, None
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", text.strip(), re.ASCII):
        return float(text), None
    return None, f"the scorer's value '{text[:40]}' is no number"


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f".{name}", entry) for name, entry in value.items()]
    if isinstance(value, list | tuple):
        return [(f".{index}", entry) for index, entry in enumerate(value)]
    return [("", value)]


def scorer_name(name: str) -> str:
    """A scorer's name that can also name a file: `pkg/exact match?` -> `pkg-exact match`."""
    return re.sub(r"[^\w.,+=@() -]+", "-", name).strip(" .-") or "score"


def _judgement(
    key: Key, ours: dict[str, Any], value: float | None, unscored: str | None, raw: str, sha: str
) -> Judgement:
    return Judgement(
        *key,
        judge=str(ours["judge"]),
        dimension=str(ours.get("dimension", "")),
        value=value,
        order=str(ours.get("order", "")),
        unscored=unscored,
        raw=raw,
        low=ours.get("low"),
        high=ours.get("high"),
        version=str(ours.get("version", "")),
        record_sha=sha,
        error=ours.get("error"),
        ts=str(ours.get("ts", "")),
        against=str(ours.get("against", "")),
        model=str(ours.get("model", "")),
        prompt_sha=str(ours.get("prompt_sha", "")),
        n_prompt_tokens=_count(ours.get("n_prompt_tokens")),
        n_tokens=_count(ours.get("n_tokens")),
        cost=_cost(ours.get("cost")),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _cost(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < math.inf else None


def fill_gaps(scores: list[Score], answered: Mapping[Key, str], benchmarks: Mapping[str, str]) -> list[Score]:
    """Add an unscored row for every answer that a scorer of this log left out.

    Args:  answered: the text of every answer by its cell; benchmarks: of every probe id; a scorer is meant for the
           benchmarks in which it scored anything.
    """
    versions = {score.scorer: score.version for score in scores}
    seen = {(score.key, score.scorer) for score in scores}
    meant = {(score.scorer, benchmarks.get(score.probe_id, "")) for score in scores}
    gaps = [
        Score(*key, scorer, version, None, {}, NO_SCORE, text_sha(text))
        for scorer, version in versions.items()
        for key, text in answered.items()
        if (key, scorer) not in seen and (scorer, benchmarks.get(key.probe_id, "")) in meant
    ]
    return [*scores, *gaps]
