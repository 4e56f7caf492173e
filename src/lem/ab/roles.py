"""The roles of arms in a comparison: baseline, treatment, placebo; and which placebo belongs to which treatment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lem.errors import UserError

BASE = "base"
_PLACEBO = re.compile(r"(^|[-_+.:])placebo([-_+.@:]|$)")


def is_placebo(name: str) -> bool:
    """True for the name of a control arm: `placebo-json`, `trained-placebo`."""
    return _PLACEBO.search(name) is not None


def role_of(name: str, baseline: str, treatments: Sequence[str]) -> str:
    """What an arm is for in a comparison: baseline, placebo, treatment or other."""
    if name == baseline:
        return "baseline"
    if is_placebo(name):
        return "placebo"
    return "treatment" if name in treatments else "other"


def placebo_of(treatment: str, arms: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The control arm that a treatment is held against: the placebo of its name, else of its kind; None without one.

    An arm with an adapter is held against an adapter trained on placebo data, one with a kernel in front against a
    placebo text in front. An arm with both has its own control or none.
    """
    stem = treatment.partition("@")[0]
    for name in (f"placebo-{stem}", f"{stem}-placebo"):
        if name in arms:
            return name
    wanted = _kind(arms.get(treatment, {}))
    if wanted not in ((True, False), (False, True)):
        return None
    suffix = "-txt" if treatment.endswith("txt") else "-json"
    found = [name for name, facts in arms.items() if is_placebo(name) and _kind(facts) == wanted]
    return next((name for name in found if name.endswith(suffix)), found[0] if found else None)


def _kind(facts: Mapping[str, Any]) -> tuple[bool, bool]:
    return bool(facts.get("kernel")), bool(facts.get("adapter"))


def choose_arms(names: Iterable[str], baseline: str | None, treatments: Sequence[str]) -> tuple[str, list[str]]:
    """The baseline and the treatments of a comparison.

    Without a baseline it is 'base', else the first arm when there are two; without treatments they are all others.
    Raises: UserError for an unknown arm, too few arms, or a baseline that cannot be guessed.
    """
    known = list(names)
    listed = ", ".join(known) or "none"
    for option, name in [("--baseline", baseline), *(("--treatment", treatment) for treatment in treatments)]:
        if name is not None and name not in known:
            raise UserError(f"{option} {name}: there is no such arm; the arms are {listed}.")
    if len(known) < 2:
        raise UserError(f"a comparison needs two arms and here is {listed}; give another run, or run more arms.")
    if baseline is None:
        if BASE not in known and len(known) > 2:
            raise UserError(f"there is no arm 'base'; name the one to compare with: --baseline ARM, of {listed}.")
        baseline = BASE if BASE in known else known[0]
    if baseline in treatments:
        raise UserError(f"'{baseline}' is both baseline and treatment; a comparison needs two arms.")
    return baseline, list(dict.fromkeys(treatments)) or [name for name in known if name != baseline]
