"""The curriculum file: phases, data, settings, targets and gates as YAML, validated; an unknown key is an error.

Paths are relative to the file. Nothing in it names a model: the same file trains any base.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lem.errors import DataError, UserError
from lem.scorers import SCORERS
from lem.studies.strict_yaml import read_mapping
from lem.training.settings import TrainingSettings, make_settings

Format = Literal["sandwich", "freeflow"]
OnFail = Literal["repeat", "stop", "back-to-diverged"]
_OWN_SETTINGS = {
    "format": "write it as a key of the phase",
    "seed": "write it as a key of the file; every attempt adds one",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Times(_Part):
    """A factor on a setting, applied once for every attempt after the first; whole numbers are rounded up."""

    times: float = Field(gt=0)


class _Gate(_Part):
    scorer: str = "v2"
    on_fail: OnFail | None = None


class NotWorse(_Gate):
    """Against the previous phase: fails when the interval of the change is wholly below -margin."""

    gate: Literal["not-worse"]
    margin: float = Field(ge=0)


class Improves(_Gate):
    """Against the previous phase: passes when the interval of the change is wholly above `by`."""

    gate: Literal["improves"]
    by: float = 0.0


class BitingPoint(_Gate):
    """Freeflow must reach what an earlier phase had in the sandwich, up to a margin."""

    gate: Literal["biting-point"]
    phase: int
    margin: float = Field(ge=0)


class CreativeLock(_Gate):
    """On the probes of one domain nothing falls against a locked baseline: base, previous or a phase number."""

    gate: Literal["creative-lock"]
    margin: float = Field(ge=0)
    domain: str = "creative"
    against: Literal["base", "previous"] | int = "base"


class Degeneration(_Gate):
    """The share of degenerate answers, in the worst form of asking, is at most this."""

    gate: Literal["degeneration"]
    at_most: float = Field(ge=0, le=1)


Gate = Annotated[NotWorse | Improves | BitingPoint | CreativeLock | Degeneration, Field(discriminator="gate")]


class Target(_Part):
    """The mean score a phase must reach, by its point or by the lower limit of its interval."""

    value: float
    scorer: str = "v2"
    rule: Literal["point", "lower"] = "point"
    on_fail: OnFail | None = None


class Phase(_Part):
    """One phase: how and on what it trains, how it is asked, and what decides whether the run goes on."""

    number: int = Field(ge=0)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    format: Format
    data: str
    valid: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    evaluate: Format | None = None
    target: Target | None = None
    gates: tuple[Gate, ...] = ()
    max_attempts: int = Field(1, ge=1)
    on_fail: OnFail = "stop"
    repeat: dict[str, Times | int | float | bool | str] = Field(default_factory=dict)

    @property
    def asked(self) -> Format:
        """The form in which the probes are asked for the target: `evaluate`, else the form of the training."""
        return self.evaluate or self.format


class Generation(_Part):
    """How probes are answered; what is left out comes from the configuration."""

    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    repeats: int = Field(1, ge=1)


class Quick(_Part):
    """What `--quick` changes: iterations of every phase, the probe file, the token limit."""

    iters: int = Field(ge=1)
    probes: str
    max_tokens: int | None = Field(None, ge=1)


class Curriculum(_Part):
    """A whole curriculum."""

    probes: str
    phases: tuple[Phase, ...] = Field(min_length=1)
    kernel: str | None = None
    signature: str | None = None
    seed: int = 42
    settings: dict[str, Any] = Field(default_factory=dict)
    generation: Generation = Generation()
    quick: Quick | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Curriculum:
        numbers = [phase.number for phase in self.phases]
        if numbers != sorted(set(numbers)):
            raise ValueError(f"phase numbers must rise without repeating (got {numbers})")
        if self.kernel is None and any("sandwich" in (phase.format, phase.asked) for phase in self.phases):
            raise ValueError("a phase uses the sandwich, so the key 'kernel' must name a kernel file")
        for phase in self.phases:
            self._check_phase(phase)
        return self

    def _check_phase(self, phase: Phase) -> None:
        before = {other.number: other for other in self.phases if other.number < phase.number}
        for gate in phase.gates:
            if isinstance(gate, BitingPoint) and (gate.phase not in before or before[gate.phase].asked != "sandwich"):
                raise ValueError(
                    f"phase {phase.number}, gate biting-point: phase {gate.phase} is no earlier phase asked in the "
                    "sandwich"
                )
            if isinstance(gate, CreativeLock) and isinstance(gate.against, int) and gate.against not in before:
                raise ValueError(f"phase {phase.number}, gate creative-lock: there is no earlier phase {gate.against}")
        scored = [*phase.gates, *([phase.target] if phase.target else [])]
        goes_back = "back-to-diverged" in (phase.on_fail, *(part.on_fail for part in scored))
        if goes_back and not any(isinstance(gate, BitingPoint) for gate in phase.gates):
            raise ValueError(
                f"phase {phase.number}: on_fail back-to-diverged needs a gate biting-point, whose margin says "
                "what a fall is"
            )
        for name in (part.scorer for part in scored):
            if name not in SCORERS:
                raise ValueError(f"phase {phase.number}: unknown scorer '{name}'; known are {', '.join(SCORERS)}")


def read_curriculum(path: Path) -> Curriculum:
    """Read and validate a curriculum file, settings included.

    Raises: UserError if it is missing; DataError naming the file and the key that is unknown or out of range.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such curriculum file; give one like training/curriculum.yaml.")
    try:
        curriculum = Curriculum.model_validate(read_mapping(path, list(Curriculum.model_fields)))
    except ValidationError as error:
        raise DataError(f"{path}: {_problem(error)}.") from None
    for phase in curriculum.phases:  # a wrong setting is found now, not when its phase or a repeat begins
        for attempt in range(1, phase.max_attempts + 1):
            resolve_settings(curriculum, phase, attempt=attempt, path=path)
    return curriculum


def resolve_settings(
    curriculum: Curriculum, phase: Phase, *, attempt: int = 1, quick: bool = False, path: Path = Path("curriculum")
) -> TrainingSettings:
    """The trainer's settings of one attempt: defaults, the file's, the phase's, `--quick`, then the repeat's changes.

    Every attempt has its own seed: the file's plus the number of the attempt less one.
    Raises: DataError naming file, phase and setting.
    """
    for name in [*curriculum.settings, *phase.settings, *phase.repeat]:
        if name in _OWN_SETTINGS:
            raise DataError(f"{path}: phase {phase.number}: '{name}' is no setting here; {_OWN_SETTINGS[name]}.")
    own = {"format": phase.format, "seed": curriculum.seed + attempt - 1}
    shorter = {"iters": curriculum.quick.iters, "epochs": None} if quick and curriculum.quick else {}
    layers = [curriculum.settings, phase.settings, shorter, own]
    try:
        return make_settings(*layers, _changes(phase, make_settings(*layers), attempt))
    except UserError as error:
        raise DataError(f"{path}: phase {phase.number}: {error}") from None


def _changes(phase: Phase, settings: TrainingSettings, attempt: int) -> dict[str, Any]:
    """What `repeat` makes of the settings for an attempt after the first.   Raises: UserError for a useless factor."""
    changed: dict[str, Any] = {}
    for name, change in phase.repeat.items() if attempt > 1 else ():
        if not isinstance(change, Times) or not hasattr(settings, name):
            changed[name] = change
            continue
        current = getattr(settings, name)
        if isinstance(current, bool) or not isinstance(current, (int, float)):
            raise UserError(f"repeat: '{name}' is {current!r}, which no factor can change.")
        scaled = current * change.times ** (attempt - 1)
        changed[name] = math.ceil(round(scaled, 6)) if isinstance(current, int) else scaled
    return changed


def _problem(error: ValidationError) -> str:
    """The first complaint as a clause: the key, what is wrong, what it holds."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key '{where}'; known keys here: {', '.join(_section(first['loc']).model_fields)}"
    what = first["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    return f"'{where}': {what} (got {first['input']!r})" if where else what


_SECTIONS: dict[str, type[BaseModel]] = {
    "phases": Phase, "target": Target, "generation": Generation, "quick": Quick, "not-worse": NotWorse,
    "improves": Improves, "biting-point": BitingPoint, "creative-lock": CreativeLock, "degeneration": Degeneration,
    "Times": Times,
}  # fmt: skip


def _section(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The part of the file in which a key at this location stands."""
    above = [part for part in location[:-1] if isinstance(part, str)]
    return _SECTIONS[above[-1]] if above else Curriculum
