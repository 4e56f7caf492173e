"""Arms of an A/B run: one condition each = model + adapter + injected kernel.

Names follow DESIGN: `base`; the NAME of NAME=PATH for kernels and adapters, a bare path taking `json`/`txt` from
its suffix and otherwise its stem; `placebo-json`, `placebo-txt`; `trained@0.25` for a share of an adapter;
`axioms-1-3`, `axioms-without-2` for parts of a kernel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lem.data import Kernel, read_kernel
from lem.data.kernels import default_name
from lem.errors import UserError
from lem.runs.plan import Arm

BASE = "base"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Named:
    """A NAME=VALUE option; `given` tells whether the name was written out."""

    name: str
    value: str
    given: bool


def parse_named(text: str, option: str) -> Named:
    """Split NAME=VALUE; a bare value is named after its file.   Raises: UserError for an unusable name."""
    name, separator, value = text.partition("=")
    if not separator:
        return Named(default_name(Path(text)), text, given=False)
    if not _NAME.fullmatch(name):
        raise UserError(f"{option} {text}: '{name}' is not an arm name; use letters, digits, '_', '-', '.' or '+'.")
    if not value:
        raise UserError(f"{option} {text}: nothing after '='; write {option} {name}=PATH.")
    return Named(name, value, given=True)


def build_arms(
    model: str,
    *,
    kernels: Sequence[str] = (),
    adapters: Sequence[str] = (),
    trained: Sequence[str] = (),
    placebos: Sequence[Path] = (),
) -> list[Arm]:
    """Build the arms of a run from option values, base first, those of one model and adapter next to each other.

    Args:  kernels, adapters, trained: NAME=VALUE or bare values.  placebos: control texts, injected like kernels.
    Raises: UserError for an unreadable kernel or two arms of one name.
    """
    arms = [Arm(BASE, model)]
    for option in kernels:
        named = parse_named(option, "--kernel")
        arms.append(Arm(named.name, model, kernel=read_kernel(Path(named.value).expanduser(), named.name)))
    for path in placebos:
        name = f"placebo-{default_name(path)}"
        arms.append(Arm(name, model, kernel=read_kernel(path, name)))
    for option in adapters:
        named = parse_named(option, "--adapter")
        arms.append(Arm(named.name, model, adapter=named.value))
    for option in trained:
        named = parse_named(option, "--trained")
        arms.append(Arm(named.name, named.value))
    return distinct(arms)


def distinct(arms: Sequence[Arm]) -> list[Arm]:
    """The arms as they are.   Raises: UserError if two have one name."""
    seen: set[str] = set()
    for arm in arms:
        if arm.name in seen:
            raise UserError(f"two arms are named '{arm.name}'; name them apart with NAME=PATH.")
        seen.add(arm.name)
    return list(arms)


def kernel_arms(model: str, kernels: Sequence[Kernel]) -> list[Arm]:
    """One arm for each kernel, under the kernel's name."""
    return [Arm(kernel.name, model, kernel=kernel) for kernel in kernels]


def parse_scales(text: str) -> list[float]:
    """Read the value of --adapter-scale, numbers with commas between.   Raises: UserError for anything else."""
    scales: list[float] = []
    for part in text.split(","):
        try:
            scale = float(part)
        except ValueError:
            scale = math.nan
        if not (math.isfinite(scale) and scale >= 0):
            raise UserError(
                f"--adapter-scale {text}: '{part.strip()}' is no number of 0 or more; write for example 0,0.25,0.5,1."
            )
        scales.append(scale)
    return scales


def dose_arms(arms: Sequence[Arm], scales: Sequence[float]) -> list[Arm]:
    """Replace each arm of an adapter without a kernel by one for every scale: `trained@0.25`, and `trained` for 1.

    The other arms stay as they are.   Raises: UserError if no arm has an adapter, or a scale is given twice.
    """
    if not any(_is_dosed(arm) for arm in arms):
        raise UserError("--adapter-scale needs an adapter to apply at these scales; give --adapter NAME=DIR.")
    made: list[Arm] = []
    for arm in arms:
        made += [_at(arm, scale) for scale in scales] if _is_dosed(arm) else [arm]
    return distinct(made)


def _is_dosed(arm: Arm) -> bool:
    return arm.adapter is not None and arm.kernel is None


def _at(arm: Arm, scale: float) -> Arm:
    return arm if scale == 1 else replace(arm, name=f"{arm.name}@{scale:g}", adapter_scale=scale)


def select_arms(arms: Sequence[Arm], names: Sequence[str]) -> list[Arm]:
    """Keep the named arms, in plan order; no names keep all.   Raises: UserError for an unknown name."""
    known = [arm.name for arm in arms]
    for name in names:
        if name not in known:
            raise UserError(f"--arm {name}: unknown arm; this run has {', '.join(known)}.")
    return [arm for arm in arms if not names or arm.name in names]
