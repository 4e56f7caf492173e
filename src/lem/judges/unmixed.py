"""What one judge says on one dimension of a run stays of one kind, because tables and means take it for one series.

A pass is refused before its first call if it would put verdicts by another rubric, on another scale or asked for in
another manner beside those that are stored, on whatever answers: the whole file would be unreadable once it was paid
for. Verdicts on earlier answers count too, because they stay until they are asked again. Calls that failed have no
verdict and bind nobody, so that an option which made them fail can be corrected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lem.errors import ResumeMismatch, UserError
from lem.judges.calls import PlannedCall
from lem.judges.parse import RATIONALE
from lem.judges.prompt import PROMPT_VERSION
from lem.records import Judgement

KEPT = "ask as before, or give this judge a name of its own with --judge NAME=..., nothing was touched"


def manners_of(planned: Iterable[PlannedCall]) -> dict[str, dict[str, Any]]:
    """Dimension -> how its verdicts are asked for, as the judge's manifest holds it: all that no rubric says."""
    found: dict[str, dict[str, Any]] = {}
    for one in planned:
        for dimension in one.dimensions:
            found[dimension] = {
                "prompts": PROMPT_VERSION,
                "rationale": RATIONALE in one.call.schema["properties"],
                "max_tokens": one.call.max_tokens,
                "together": list(one.dimensions) if len(one.dimensions) > 1 else [],
            }
    return found


def refuse_mixture(
    file: Path, stored: Iterable[Judgement], planned: Sequence[PlannedCall], manifest: Mapping[str, Any],
    rubrics: Mapping[str, str],
) -> None:  # fmt: skip
    """Refuse calls whose verdicts could not stand in one series with each other, or with those that are stored.

    Args:  stored: the judge's, `manifest` what is known of how they were asked for.  rubrics: dimension -> version and
           hash of the rubric that is asked by now.
    Raises: UserError for a plan that is mixed in itself, ResumeMismatch for one that is not as what is stored.
    """
    kinds: dict[tuple[str, bool], tuple[str, PlannedCall]] = {}
    for one in planned:
        for dimension, version in zip(one.dimensions, one.versions, strict=True):
            if kinds.setdefault((dimension, one.order != ""), (version, one))[0] != version:
                raise UserError(
                    f"'{dimension}' would be asked for with other dimensions beside it on one benchmark than on "
                    "another, which makes two scales; leave out --together, or judge one benchmark (--task) under "
                    "another name of the judge."
                )
    for verdict in stored:
        version, call = kinds.get((verdict.dimension, verdict.order != ""), (verdict.version, None))
        if call is not None and verdict.version != version and not verdict.failed:
            was, now = _told(_differences(verdict, call, manifest, rubrics))
            if not was:
                was = "with another model, rubric, prompt or setting"
                now = f"of version {version} instead of {verdict.version or 'one that is not known'}"
            raise ResumeMismatch(f"{file}: {_about(verdict)} were asked for {was}, and now would be {now}; {KEPT}.")


def _about(verdict: Judgement) -> str:
    if verdict.order:
        return f"the comparisons of '{verdict.arm}' with '{verdict.against}' by '{verdict.judge}'"
    return f"the verdicts of '{verdict.judge}' on '{verdict.dimension}'"


def _told(differences: Sequence[tuple[str, str]]) -> tuple[str, str]:
    was, now = (", ".join(parts) for parts in zip(*differences, strict=True)) if differences else ("", "")
    return was, now


def _differences(
    verdict: Judgement, call: PlannedCall, manifest: Mapping[str, Any], rubrics: Mapping[str, str]
) -> list[tuple[str, str]]:
    """What differs between a stored verdict and a call, as (it was asked for ..., it now would be ...)."""
    dimension, ends = verdict.dimension, scale_of(call, verdict.dimension)
    before, mine = manifest.get("rubrics", {}).get(dimension), rubrics.get(dimension)
    found = []
    if before and mine and before != mine:
        found.append((f"by the rubric {before}", f"by the rubric {mine}"))
    if None not in (verdict.low, verdict.high) and (verdict.low, verdict.high) != ends:
        found.append((f"on a scale from {verdict.low:g} to {verdict.high:g}", f"from {ends[0]:g} to {ends[1]:g}"))
    was, now = manifest.get("asked", {}).get(dimension, {}), manners_of([call])[dimension]
    different = [name for name, value in was.items() if now.get(name) != value]
    return found + [(_words(name, was[name]), _words(name, now.get(name))) for name in different]


def scale_of(one: PlannedCall, dimension: str) -> tuple[float, float]:
    """The ends of the scale that a verdict is stored with: those of the rubric, 0 and 1 for a comparison."""
    if one.order:
        return 0.0, 1.0
    ends = one.call.schema["properties"][dimension]
    return float(ends["minimum"]), float(ends["maximum"])


def _words(name: str, value: Any) -> str:
    """A part of a manner as the end of "was asked for"."""
    if name == "together":
        return f"together with {', '.join(value)} (--together)" if value else "in a call of its own"
    if name == "rationale":
        return "with a rationale" if value else "without a rationale (--no-rationale)"
    return f"with --judge-max-tokens {value}" if name == "max_tokens" else f"by the prompts {value}"
