"""How numbers and sentences are written, the same way in every table and on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lem.paths import slug
from lem.stats import Estimate

ABSENT = "-"
TOY_NOTICE = "lem-nano is a toy model: these scores exercise the pipeline and say nothing about the method."
INTERVALS = "95% intervals span t, BCa and bootstrap-t over probes and CR2 t over domains"


def toy_notice(models: Iterable[str]) -> str | None:
    """The warning that every rendering of a lem-nano run carries; None when no arm is made with lem-nano."""
    return TOY_NOTICE if any("lem-nano" in slug(model) for model in models) else None


def counted(variants: str) -> str:
    """What n counts: probes, or source probes with so many variants ("3" or "1 to 3") each."""
    return f"n counts source probes; {variants} variants each" if variants else "n counts probes"


def legend(threshold: float, variants: str = "") -> str:
    """What the columns of the leaderboard mean, in one line."""
    return (
        f"{INTERVALS}; {counted(variants)} (repeats averaged), uns/fail/miss count answers; "
        f"up/down/same: change of more than {threshold:g} or not."
    )


def domain_legend(variants: str = "") -> str:
    """What the per-domain table means, in one line."""
    return f"95% intervals over the n probes of a domain, not corrected for multiple looks; {counted(variants)}."


def number(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """A number with fixed digits, '-' for None or NaN; what rounds to zero carries no sign."""
    if value is None or math.isnan(value):
        return ABSENT
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}" if signed and rounded else f"{rounded:.{digits}f}"


def interval(estimate: Estimate, digits: int = 2, *, signed: bool = False) -> str:
    """`[low, high]`, or 'no interval' when fewer than two probes stand behind the value."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return "no interval"
    return f"[{number(estimate.low, digits, signed=signed)}, {number(estimate.high, digits, signed=signed)}]"


def percent(share: float) -> str:
    """A share as whole percent, '-' for NaN; a share that is not 0 or 1 is never shown as 0% or 100%."""
    if math.isnan(share):
        return ABSENT
    rounded = round(100 * share)
    if 0 < share < 1 and rounded in (0, 100):
        return "<1%" if rounded == 0 else ">99%"
    return f"{rounded}%"


def models_line(pairs: Iterable[tuple[str, str]]) -> str:
    """`model: X` when all arms share it, else each model with its arms; pairs are (arm, model)."""
    by_model: dict[str, list[str]] = {}
    for arm, model in pairs:
        by_model.setdefault(model or "unknown model", []).append(arm)
    if len(by_model) == 1:
        return f"model: {next(iter(by_model))}"
    return "models: " + "; ".join(f"{model} ({', '.join(arms)})" for model, arms in by_model.items())
