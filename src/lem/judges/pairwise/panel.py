"""Several judges' comparisons of two arms as one: the majority of their outcomes, and the same without each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lem.judges.pairwise.outcomes import outcomes_of
from lem.judges.pairwise.pairs import LOSS, PREFERENCE, TIE, WIN, PairOutcome
from lem.judges.pairwise.win_rates import WinRate, summarise, units
from lem.judges.panel import PANEL, judge_dependent
from lem.records import RunContents
from lem.stats import Estimate, mean_on_scale, per_probe


@dataclass(frozen=True)
class PanelWinRate:
    """Win rate by the majority of a panel, the rates without each judge, and the judges that its side hangs on."""

    judges: tuple[str, ...]
    rate: WinRate
    without: dict[str, Estimate]
    dependent: tuple[str, ...]

    @property
    def judge_dependent(self) -> bool:
        """True when it hangs on one judge which arm is preferred."""
        return bool(self.dependent)


def panel_outcomes(by_judge: Mapping[str, Sequence[PairOutcome]]) -> list[PairOutcome]:
    """What more than half of the judges say of each pair, a tie where there is no such half.

    A pair that one of them did not compare in both orders has no outcome; one without two whole answers stays what it
    is for each judge.
    """
    found = {judge: {outcome.key: outcome for outcome in outcomes} for judge, outcomes in by_judge.items()}
    joined = []
    for key in dict.fromkeys(outcome.key for outcomes in by_judge.values() for outcome in outcomes):
        votes = {judge: outcomes[key].value if key in outcomes else None for judge, outcomes in found.items()}
        absent = [judge for judge, value in votes.items() if value is None]
        rows = [outcomes[key] for outcomes in found.values() if key in outcomes]
        if unanswered := next((row for row in rows if row.answers is not None), None):
            joined.append(unanswered)
            continue
        if absent:
            joined.append(PairOutcome(key, None, reason=f"no outcome by {', '.join(absent)}"))
            continue
        counts = {value: list(votes.values()).count(value) for value in (WIN, LOSS)}
        majority = [value for value, count in counts.items() if 2 * count > len(votes)]
        joined.append(PairOutcome(key, majority[0] if majority else TIE))
    return joined


def panel_win_rate(
    contents: RunContents, baseline: str, treatment: str, *, judges: Sequence[str], dimension: str = PREFERENCE,
    excluded: Mapping[str, str] | frozenset[str] = frozenset(), level: float = 0.95,
) -> PanelWinRate:  # fmt: skip
    """Compare two arms by the majority of several judges' comparisons.   Raises: ValueError with fewer than two."""
    if len(judges) < 2:
        raise ValueError(f"a panel takes two or more judges, not {len(judges)}")
    by_judge = {
        judge: outcomes_of(contents, baseline, treatment, judge, dimension, excluded) for judge in dict.fromkeys(judges)
    }
    whole = panel_outcomes(by_judge)
    found = summarise(contents, whole, baseline, treatment, judge=PANEL, dimension=dimension, level=level)
    decided = {outcome.key for outcome in whole if outcome.value is not None}
    without = {}
    for judge in by_judge:
        others = panel_outcomes({other: rows for other, rows in by_judge.items() if other != judge})
        kept = [(outcome.key.probe_id, outcome.value) for outcome in others if outcome.key in decided]
        values, clusters = units(contents, per_probe(kept))
        without[judge] = mean_on_scale(list(values.values()), clusters, low=LOSS, high=WIN, level=level)
    return PanelWinRate(tuple(by_judge), found, without, judge_dependent(found.estimate, without, null=0.5))
