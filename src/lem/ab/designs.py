"""Designs: the arms that a run needs before a change can be put down to what the kernel says.

    kernel   base, json, txt, placebo-json, placebo-txt
    full     those, and trained, trained-placebo (trained on placebo data), trained+json (a kernel on top of training)

A kernel is held against a text of its length and form, training against training on other answers to the same
prompts. All arms answer the same probes with the same random streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lem.ab.arms import BASE, Named, build_arms, distinct, parse_named
from lem.data import read_kernel
from lem.errors import UserError
from lem.paths import display_path
from lem.runs.plan import Arm

TRAINED, PLACEBO_TRAINED = "trained", "trained-placebo"
TEXTS = ("json", "txt", "placebo-json", "placebo-txt")
# Arm of trained weights -> the folder of the training data that makes it, and the adapter folder to suggest.
_TRAINING = {TRAINED: ("training", "adapters/lek"), PLACEBO_TRAINED: ("training/placebo", "adapters/lek-placebo")}


@dataclass(frozen=True)
class Given:
    """What a design is made of: a model, the files of `TEXTS` by arm name, and trained weights by arm name.

    Trained weights are a model and an adapter, or None for a model that was published as trained.
    """

    model: str
    texts: Mapping[str, Path]
    trained: Mapping[str, tuple[str, str | None]]


def kernel_design(given: Given) -> list[Arm]:
    """The base, both kernels, and the control text of each."""
    kernels = [Arm(name, given.model, kernel=read_kernel(given.texts[name], name)) for name in TEXTS]
    return [Arm(BASE, given.model), *kernels]


def full_design(given: Given) -> list[Arm]:
    """The kernel design with the trained model, its control, and the json kernel on top of the trained model."""
    _refuse_missing(given)
    model, adapter = given.trained[TRAINED]
    on_top = Arm(f"{TRAINED}+json", model, adapter, read_kernel(given.texts["json"], "json"))
    return [*kernel_design(given), *(Arm(name, *given.trained[name]) for name in _TRAINING), on_top]


DESIGNS: Mapping[str, Callable[[Given], list[Arm]]] = {"kernel": kernel_design, "full": full_design}


def build_design(
    name: str,
    model: str,
    texts: Mapping[str, Path],
    *,
    kernels: Sequence[str] = (),
    adapters: Sequence[str] = (),
    trained: Sequence[str] = (),
) -> list[Arm]:
    """Build a design from option values; what has the name of one of its arms is used there, the rest is added.

    Args:  texts: the files of `TEXTS` by arm name.  kernels, adapters, trained: as in `build_arms`.
    Raises: UserError if the design needs an adapter that is not given, or two arms have one name.
    """
    own = {n.name: Path(n.value).expanduser() for n in _parsed(kernels, "--kernel") if n.name in TEXTS}
    weights = {n.name: (model, n.value) for n in _parsed(adapters, "--adapter")}
    others = {n.name: (n.value, None) for n in _parsed(trained, "--trained")}
    arms = DESIGNS[name](Given(model, {**texts, **own}, {**weights, **others}))
    given = build_arms(model, kernels=kernels, adapters=adapters, trained=trained)
    return distinct([*arms, *(arm for arm in given if arm not in arms)])


def _parsed(options: Sequence[str], option: str) -> list[Named]:
    return [parse_named(text, option) for text in options]


def _refuse_missing(given: Given) -> None:
    """Say how to make what a full design lacks.   Raises: UserError."""
    missing = [name for name in _TRAINING if name not in given.trained]
    if missing:
        model = display_path(Path(given.model)) if Path(given.model).is_dir() else given.model
        commands = " and ".join(_command(model, name) for name in missing)
        options = " ".join(f"--adapter {name}={_TRAINING[name][1]}" for name in missing)
        raise UserError(
            f"--design full lacks {' and '.join(missing)}: train with {commands}, the same settings for both adapters, "
            f"then add {options}."
        )
    if given.trained[TRAINED] == given.trained[PLACEBO_TRAINED]:
        raise UserError(
            f"--design full: '{TRAINED}' and '{PLACEBO_TRAINED}' are the same weights, so the second controls nothing; "
            "give the adapter that was trained on training/placebo."
        )


def _command(model: str, name: str) -> str:
    data, adapter = _TRAINING[name]
    return f"`./lem train --model {model} --data {data} --adapter-path {adapter}`"
