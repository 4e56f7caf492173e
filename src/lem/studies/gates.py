"""Gates of a curriculum: pure functions from scores per probe to passed or not, with the numbers and a sentence.

Comparisons are paired per probe and use the headline interval. A gate whose interval does not exist (fewer than two
probes on both sides) has not passed: what cannot be shown is not taken for shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lem.reports.formats import interval, number
from lem.stats import Estimate, headline, paired_difference, rate

Scores = Mapping[str, float]
Rule = Literal["point", "lower"]


@dataclass(frozen=True)
class GateResult:
    """A gate's verdict with the estimate it rests on; `gate` is its name in the curriculum file."""

    gate: str
    passed: bool
    estimate: Estimate
    sentence: str


def target(scores: Scores, domains: Mapping[str, str], *, scorer: str, value: float, rule: Rule) -> GateResult:
    """The mean reaches a value: by its point (rule "point") or by the lower limit of its interval ("lower")."""
    probes = sorted(scores)
    mean = headline([scores[probe] for probe in probes], [domains.get(probe, "") for probe in probes])
    reached = mean.value if rule == "point" else mean.low
    what = f"mean {scorer} {_shown(mean)}, target {value:g} by the {'point' if rule == 'point' else 'lower limit'}"
    return _result("target", reached >= value, mean, what, reached)


def not_worse(
    current: Scores, previous: Scores, domains: Mapping[str, str], *, scorer: str, margin: float, against: str
) -> GateResult:
    """The change against the previous phase is not wholly below -margin."""
    change = paired_difference(current, previous, domains).difference
    what = f"{scorer} change against {against} {_shown(change, signed=True)}, fails wholly below {-margin:+g}"
    return _result("not-worse", change.high >= -margin, change, what, change.high)


def improves(
    current: Scores, previous: Scores, domains: Mapping[str, str], *, scorer: str, by: float, against: str
) -> GateResult:
    """The change against the previous phase is wholly above `by`."""
    change = paired_difference(current, previous, domains).difference
    what = f"{scorer} change against {against} {_shown(change, signed=True)}, must lie wholly above {by:+g}"
    return _result("improves", change.low > by, change, what, change.low)


def biting_point(
    freeflow: Scores, sandwich: Scores, domains: Mapping[str, str], *, scorer: str, margin: float, against: str
) -> GateResult:
    """Without the kernel in the prompt the phase reaches what an earlier phase had with it, up to a margin."""
    gap = paired_difference(freeflow, sandwich, domains).difference
    what = (
        f"{scorer} freeflow minus {against} in the sandwich {_shown(gap, signed=True)}, fails wholly below {-margin:+g}"
    )
    return _result("biting-point", gap.high >= -margin, gap, what, gap.high)


def creative_lock(
    current: Scores,
    locked: Scores,
    domains: Mapping[str, str],
    *,
    scorer: str,
    domain: str,
    margin: float,
    against: str,
) -> GateResult:
    """On the probes of one domain the change against a locked baseline is not wholly below -margin."""
    chosen = [probe for probe in current if domains.get(probe) == domain]
    change = paired_difference(_only(current, chosen), _only(locked, chosen)).difference
    what = (
        f"{scorer} change on {change.n} probes of '{domain}' against {against} {_shown(change, signed=True)}, "
        f"fails wholly below {-margin:+g}"
    )
    return _result("creative-lock", change.high >= -margin, change, what, change.high)


def degeneration(n_degenerate: int, n_answers: int, *, at_most: float) -> GateResult:
    """The share of degenerate answers does not exceed a limit (by its point).   Args: counts of answers."""
    share = rate(n_degenerate, n_answers)
    what = f"degenerate answers {n_degenerate} of {n_answers}, {_shown(share)}, at most {at_most:g}"
    return _result("degeneration", share.value <= at_most, share, what, share.value)


def first_diverged(
    freeflow: Sequence[tuple[int, Scores]], domains: Mapping[str, str], *, margin: float
) -> tuple[int, Estimate] | None:
    """The first phase whose freeflow scores fell below those of the one before it by more than the margin.

    Args:  freeflow: (phase number, scores per probe) along the accepted phases; the first entry is where they began.
    Returns: the phase and its paired change, whose interval lies wholly below -margin; None if no phase fell.
    """
    for (_, before), (phase, after) in pairwise(freeflow):
        change = paired_difference(after, before, domains).difference
        if change.high < -margin:
            return phase, change
    return None


def _only(scores: Scores, probes: Sequence[str]) -> dict[str, float]:
    return {probe: scores[probe] for probe in probes if probe in scores}


def _result(gate: str, passed: bool, estimate: Estimate, what: str, rests_on: float) -> GateResult:
    if math.isnan(rests_on):
        return GateResult(gate, False, estimate, f"{what}: cannot be decided from {estimate.n} probes.")
    return GateResult(gate, passed, estimate, f"{what}: {'passed' if passed else 'failed'}.")


def _shown(estimate: Estimate, *, signed: bool = False) -> str:
    """`17.20 [16.31, 18.10]`, with signs for differences."""
    return f"{number(estimate.value, signed=signed)} {interval(estimate, signed=signed)}"
