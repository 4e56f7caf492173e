"""The verdict of a contrast: one sentence that says no more than the numbers allow, and the licence it rests on.

improved, worse   the corrected p-value is at most alpha (Holm) or q (exploratory), and the interval excludes zero
no worse          declared margin, primary: the corrected p of "worse by the margin or more" is at most alpha
equivalent        declared margin, primary: the same on both sides (TOST)
undetected        none of these; the sentence names the effect that would have been seen
refused           an objection withholds the verdict, or there is nothing to compare
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lem.ab.contrast import ALPHA, Contrast
from lem.ab.objections import REFUSAL, Objection
from lem.stats import Estimate

FALSE_DISCOVERY_RATE = 0.10


@dataclass(frozen=True)
class Verdict:
    """A code for machines and a sentence for people."""

    code: str
    sentence: str


def verdict(contrast: Contrast, objections: Sequence[Objection]) -> Verdict:
    """Say what a contrast shows."""
    arms = (contrast.treatment, contrast.baseline)
    refusals = [found for found in objections if found.severity == REFUSAL and found.concerns(*arms)]
    against = [found for found in refusals if not found.overridden]
    name = f"{contrast.metric}, {contrast.treatment} against {contrast.baseline}"
    if against:
        return Verdict("refused", f"{name}: cannot be compared: {' '.join(found.sentence for found in against)}")
    if contrast.n < 2:
        which = "no probe has" if contrast.n == 0 else "only one probe has"
        return Verdict("refused", f"{name}: cannot be compared: {which} a value in both arms.")
    if refusals:
        name = f"{name} (not comparable, printed anyway)"
    if contrast.identical:
        return Verdict("undetected", f"{name}: no change at all: every one of {contrast.n} differences is 0.")
    return _measured(contrast, name)


def is_detected(contrast: Contrast) -> bool:
    """True when the corrected test and the headline interval both say that there is a difference."""
    p, limit = (contrast.p_holm, ALPHA) if contrast.family == "primary" else (contrast.p_bh, FALSE_DISCOVERY_RATE)
    return p <= limit and contrast.difference.excludes(0.0)


def _measured(contrast: Contrast, name: str) -> Verdict:
    effect = f"{_signed(contrast.difference)} over {contrast.n} probes"
    test = _test(contrast)
    margin = _margin(contrast)
    if is_detected(contrast):
        better = (contrast.difference.value > 0) != contrast.lower_is_better
        word = "improved" if better else "worse"
        within = f"; {margin[1]}" if margin and not better else ""
        return Verdict(word, f"{name}: {word} by {effect}; {test}{within}.{_at_equal_length(contrast)}")
    if margin is not None:
        return Verdict(margin[0], f"{name}: {margin[1]}: {effect}; {test}.")
    return Verdict("undetected", f"{name}: no detectable effect: {effect}; {test}; {_would_have_been_seen(contrast)}.")


def _margin(contrast: Contrast) -> tuple[str, str] | None:
    """(code, words) of what a margin shows after correction, the stronger claim first; None when it shows nothing."""
    not_worse, same = contrast.margin_p
    if same <= ALPHA:
        return "equivalent", f"the same within {contrast.margin:g} (p {_p(same)})"
    if not_worse <= ALPHA:
        return "no_worse", f"no worse by more than {contrast.margin:g} (p {_p(not_worse)})"
    return None


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"


def _test(contrast: Contrast) -> str:
    if contrast.family == "primary":
        corrected = f"p {_p(contrast.p)}, Holm over {contrast.n_tests}: {_p(contrast.p_holm)}"
    else:
        corrected = f"exploratory, p {_p(contrast.p)}, Benjamini-Hochberg over {contrast.n_tests}: {_p(contrast.p_bh)}"
    return corrected


def _p(value: float) -> str:
    return "not defined" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _would_have_been_seen(contrast: Contrast) -> str:
    if math.isnan(contrast.mde):
        varies = len({change.difference for change in contrast.changes}) > 1
        return "no effect could have been seen with so few probes" if varies else "every difference is the same"
    return f"about {contrast.mde:.2f} would have been seen with 80% power"


def _at_equal_length(contrast: Contrast) -> str:
    """The length-controlled effect, said when the length of the answers surely has to do with the change."""
    if contrast.length is None or math.isnan(contrast.length.effect.value):
        return ""
    controlled, raw = contrast.length.effect, contrast.difference
    if not contrast.length.slope.excludes(0.0) and abs(raw.value - controlled.value) <= raw.width / 2:
        return ""
    said = f" At equal length it is {_signed(controlled)}: "
    if controlled.value * raw.value < 0:
        return said + "the length of the answers accounts for more than the change."
    if abs(controlled.value) < abs(raw.value):
        return said + "part of the change goes with the length of the answers."
    return said + "the length of the answers hides part of the change."
