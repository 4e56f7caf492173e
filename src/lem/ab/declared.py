"""What is declared before a run: primary contrasts, margins, exclusions, and spreads or effects given by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lem.ab.noise import GIVEN, Noise
from lem.errors import UserError


@dataclass(frozen=True)
class Declarations:
    """The declared part of a plan: (metric, treatment) pairs, margin per metric, reason per excluded probe."""

    primary: tuple[tuple[str, str], ...]
    margins: dict[str, float]
    exclusions: dict[str, str]


def parse_primary(texts: Sequence[str], treatments: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read `--primary METRIC:TREATMENT`; the last colon divides.   Raises: UserError for another form or arm."""
    found: list[tuple[str, str]] = []
    for text in texts:
        metric, colon, treatment = text.rpartition(":")
        if not colon or not metric.strip() or not treatment.strip():
            raise UserError(f"--primary {text}: write METRIC:TREATMENT, for example v2:{treatments[0]}.")
        if treatment not in treatments:
            raise UserError(f"--primary {text}: '{treatment}' is no treatment; this plan has {', '.join(treatments)}.")
        if (metric, treatment) in found:
            raise UserError(f"--primary {text}: given twice; name each contrast once.")
        found.append((metric, treatment))
    return tuple(found)


def parse_amounts(texts: Sequence[str], option: str) -> dict[str, float]:
    """Read `METRIC=X` with a finite X above 0.   Raises: UserError naming option and text."""
    found: dict[str, float] = {}
    for text in texts:
        metric, value = _divided(text, option, "X")
        _refuse_twice(metric, found, option)
        found[metric] = _number(value, f"{option} {text}", zero=False)
    return found


def parse_spreads(texts: Sequence[str], treatments: Sequence[str], repeats: int, design_effect: float) -> list[Noise]:
    """Read `--sd METRIC=X` or `METRIC=X,WITHIN`, for every treatment.

    X alone is the SD of a probe's paired difference at the planned repeats; with WITHIN it is the SD of the true
    difference between probes, and WITHIN the SD of one arm's scores over repeats of a probe, so that the difference
    of two arms has sqrt(2) times that.   Raises: UserError naming option and text.
    """
    found: list[Noise] = []
    seen: set[str] = set()
    for text in texts:
        metric, value = _divided(text, "--sd", "X[,WITHIN]")
        _refuse_twice(metric, seen, "--sd")
        seen.add(metric)
        between, comma, within = value.partition(",")
        x = _number(between, f"--sd {text}", zero=bool(comma))
        y = _number(within, f"--sd {text}", zero=x > 0) * math.sqrt(2) if comma else math.nan
        found += [Noise(metric, arm, x, y, GIVEN, float(repeats), fixed_effect=design_effect) for arm in treatments]
    return found


def parse_exclusions(texts: Sequence[str], probes: Sequence[str]) -> dict[str, str]:
    """Read `--exclude PROBE=REASON`.   Raises: UserError for an unknown probe, no reason, or nothing left."""
    found: dict[str, str] = {}
    known = set(probes)
    for text in texts:
        probe, _, reason = text.partition("=")
        if not reason.strip():
            raise UserError(f"--exclude {text}: write PROBE=REASON; an exclusion without a reason is not believed.")
        if probe not in known:
            raise UserError(f"--exclude {text}: the plan has no probe '{probe}'; check the id against --prompts.")
        _refuse_twice(probe, found, "--exclude")
        found[probe] = reason.strip()
    if len(found) == len(known):
        raise UserError("--exclude: no probe is left; exclude fewer.")
    return found


def check_metrics(names: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse a declared metric whose spread is not known.   Args: names: metric -> the option that names it."""
    for metric, option in names.items():
        if metric not in known:
            listed = f"spreads are known of {', '.join(known)}" if known else "no spread is known of any metric"
            raise UserError(
                f"{option} {metric}: the spread of this metric is not known ({listed}); give --sd {metric}=X, or a "
                "--pilot that was scored with it."
            )


def _divided(text: str, option: str, form: str) -> tuple[str, str]:
    metric, equals, value = text.rpartition("=")
    if not equals or not metric.strip() or not value.strip():
        raise UserError(f"{option} {text}: write METRIC={form}, for example v2=1.5.")
    return metric, value


def _refuse_twice(name: str, seen: Mapping[str, object] | set[str], option: str) -> None:
    if name in seen:
        raise UserError(f"{option} {name}: given twice; give it once.")


def _number(text: str, where: str, *, zero: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{where}: '{text}' is no number.") from None
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise UserError(f"{where}: must be a finite number above 0 (got {text}).")
    return value
