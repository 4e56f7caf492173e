"""What a set of answers to the probes amounts to: scores per probe, length, degeneration, truncation, failures.

Scores come from `lem.scorers.passes`, so that an answer counts the same here and in `lem score`. Failed, unscored and
degenerate answers are counted apart; nothing gets a default.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lem.records import Record, Score
from lem.scorers.passes import score_records
from lem.stats import Estimate, headline, per_probe, rate

HEADLINE_SCORERS = ("v2", "v3")


@dataclass(frozen=True)
class Measures:
    """Measures of one arm: `values` maps scorer -> probe -> value (repeats averaged); counts are of answers.

    `words` is the mean number of whitespace words over answers (NaN without any); `n_judged` answers could be looked
    at for degeneration, `n_ended` have a known ending.
    """

    values: Mapping[str, Mapping[str, float]]
    n_unscored: Mapping[str, int]
    n_answers: int
    n_failed: int
    n_judged: int
    n_degenerate: int
    n_ended: int
    n_truncated: int
    words: float

    @property
    def degenerate(self) -> Estimate:
        """Share of degenerate answers, exact binomial interval."""
        return rate(self.n_degenerate, self.n_judged)

    @property
    def truncated(self) -> Estimate:
        """Share of answers cut off by the token limit, exact binomial interval."""
        return rate(self.n_truncated, self.n_ended)

    def mean(self, scorer: str, domains: Mapping[str, str]) -> Estimate:
        """Mean of a scorer over probes with the headline interval; probes in the order of their ids."""
        values = self.values[scorer]
        probes = sorted(values)
        return headline(
            [values[probe] for probe in probes],
            [domains.get(probe, "") for probe in probes] if domains else None,
            n_unscored=self.n_unscored[scorer],
        )


def measure(records: Sequence[Record], scorers: Iterable[str] = HEADLINE_SCORERS) -> Measures:
    """Measure the answers of one arm with v2, v3 and any further scorer.   Raises: UserError for an unknown scorer."""
    names = dict.fromkeys([*HEADLINE_SCORERS, *scorers])
    scores = {name: score_records(records, name) for name in names}
    answered = [record for record in records if not record.failed]
    pairs = list(zip(scores["v2"], scores["v3"], strict=True))
    judged = [(v2, v3) for v2, v3 in pairs if v2.unscored is None]
    ended = [record.finish_reason for record in answered if record.finish_reason is not None]
    words = per_probe((record.probe_id, len((record.response or "").split())) for record in answered)
    return Measures(
        values={name: per_probe((row.probe_id, row.value) for row in rows) for name, rows in scores.items()},
        n_unscored={name: sum(row.unscored is not None for row in rows) for name, rows in scores.items()},
        n_answers=len(answered),
        n_failed=len(records) - len(answered),
        n_judged=len(judged),
        n_degenerate=sum(is_degenerate(v2, v3) for v2, v3 in judged),
        n_ended=len(ended),
        n_truncated=ended.count("length"),
        words=sum(words.values()) / len(words) if words else math.nan,
    )


def is_degenerate(v2: Score, v3: Score) -> bool:
    """True for an answer that is empty, has too few distinct words (v2), or has a stretch that repeats (v3)."""
    signals = (v2.signals.get("empty_broken", 0), v2.signals.get("degeneration", 0), v3.signals.get("degeneration", 0))
    return any(signal > 0 for signal in signals)
