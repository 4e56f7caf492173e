"""What the arms of a comparison are and how they answered: role, counts, truncation, degeneration, length, copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lem.records import Cell, Outcome, Record
from lem.records.model import LIKELIHOOD
from lem.scorers import v2
from lem.stats import Estimate, headline, per_probe, per_source, rate

ANSWERED = (Outcome.SCORED, Outcome.UNSCORED)


@dataclass(frozen=True)
class ArmFacts:
    """One arm: counts are of cells; `truncated` and `degenerate` are shares of written answers, `mean_words` by probe.

    Measured choices are answered and have no text. `degenerate` counts answers with fewer than half distinct words
    (v2's signal). `duplicates` are answers equal to an earlier repeat of the same probe.
    """

    name: str
    model: str
    role: str
    planned: int
    answered: int
    failed: int
    missing: int
    truncated: Estimate
    degenerate: Estimate
    mean_words: Estimate
    duplicates: int


def arm_facts(
    name: str, facts: Mapping[str, Any], role: str, cells: Sequence[Cell], sources: Mapping[str, str]
) -> ArmFacts:
    """Describe one arm from its planned cells (each cell once)."""
    answers = [cell.record for cell in cells if cell.record is not None and cell.outcome in ANSWERED]
    written = [record for record in answers if record.finish_reason != LIKELIHOOD]
    endings = [record.finish_reason for record in written]  # a measured choice has no end that could be cut off
    known = [ending for ending in endings if ending is not None]
    texts = [record.response or "" for record in written]
    words = per_source(per_probe((r.probe_id, float(len((r.response or "").split()))) for r in written), sources)
    return ArmFacts(
        name=name,
        model=str(facts.get("model") or ""),
        role=role,
        planned=len(cells),
        answered=len(answers),
        failed=sum(cell.outcome is Outcome.FAILED for cell in cells),
        missing=sum(cell.outcome is Outcome.MISSING for cell in cells),
        truncated=rate(known.count("length"), len(known), n_unscored=len(endings) - len(known)),
        degenerate=rate(sum(v2.degeneration(text) > 0 for text in texts), len(texts)),
        mean_words=headline([words[unit] for unit in sorted(words)]),
        duplicates=_duplicates(answers),
    )


def _duplicates(records: Sequence[Record]) -> int:
    texts = Counter((record.probe_id, record.response) for record in records)
    return sum(count - 1 for count in texts.values())
