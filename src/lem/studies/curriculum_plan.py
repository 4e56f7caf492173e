"""The plan of a curriculum run: the file resolved against a model, probes and data, and hashed part by part.

Everything that can be wrong with files is found here, before anything is trained. The hashes stand in the first row
of the run's log; a later start with another part is refused with the name of that part.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.chat.generate import GenerationSettings
from lem.chat.load import file_sha, load
from lem.config import Config
from lem.data import Kernel, Probe, read_chat_examples, read_kernel, read_probes
from lem.data.contamination import refuse_probes
from lem.data.probes import refuse_variants
from lem.errors import ResumeMismatch, UserError
from lem.paths import display_path
from lem.studies.curriculum_file import CreativeLock, Curriculum, Phase, Quick, read_curriculum, resolve_settings
from lem.studies.curriculum_state import Attempt
from lem.training.settings import TrainingSettings


@dataclass(frozen=True)
class PhaseData:
    """The files of one phase and how many examples train."""

    train: Path
    valid: Path | None
    n_examples: int


@dataclass(frozen=True)
class CurriculumPlan:
    """Everything that decides a curriculum run; `identity` maps the name of each part to its hash."""

    file: Path
    curriculum: Curriculum
    model: str
    output: Path
    probes: tuple[Probe, ...]
    probe_file: Path
    generation: GenerationSettings
    quick: bool
    kernel: Kernel | None
    signature: str
    data: Mapping[int, PhaseData]
    identity: Mapping[str, str]
    seeds: tuple[Path, ...] = ()
    group_size: int | None = None
    command: tuple[str, ...] = ()

    @property
    def numbers(self) -> list[int]:
        """The numbers of the phases, in order."""
        return [phase.number for phase in self.curriculum.phases]

    @property
    def domains(self) -> dict[str, str]:
        """Domain per probe."""
        return {probe.id: probe.domain for probe in self.probes}

    @property
    def asks_sandwich(self) -> bool:
        """True if any phase is asked in the sandwich, and so base and sandwich have an arm as well."""
        return any(phase.asked == "sandwich" for phase in self.curriculum.phases)

    @property
    def model_name(self) -> str:
        """The base for people: a hub id as it is, a local folder relative to the working directory."""
        return display_path(Path(self.model)) if Path(self.model).expanduser().exists() else self.model

    def phase(self, number: int) -> Phase:
        """The phase of a number."""
        return next(phase for phase in self.curriculum.phases if phase.number == number)

    def folder(self, attempt: Attempt) -> Path:
        """The adapter directory of an attempt."""
        return self.output / f"phase-{attempt.phase}-{self.phase(attempt.phase).name}" / f"attempt-{attempt.number}"

    def settings(self, attempt: Attempt) -> TrainingSettings:
        """The trainer's settings of an attempt."""
        phase = self.phase(attempt.phase)
        return resolve_settings(self.curriculum, phase, attempt=attempt.number, quick=self.quick, path=self.file)


def make_plan(
    config: Config,
    file: Path,
    model: str,
    output: Path,
    *,
    probes: Path | None = None,
    limit: int | None = None,
    max_tokens: int | None = None,
    quick: bool = False,
    seeds: Sequence[Path] = (),
    command: Sequence[str] = (),
) -> CurriculumPlan:
    """Resolve a curriculum file; the options override what the file says.

    Args:  seeds: files or folders of further probes that no training data may hold (those asked never may).
    Raises: UserError or DataError for unreadable files, unusable probes, or data that hold a probe.
    """
    curriculum = read_curriculum(file)
    quicker = _quick_section(file, curriculum) if quick else None
    probe_file = probes or file.parent / (quicker.probes if quicker else curriculum.probes)
    chosen = read_probes(probe_file, limit)
    refuse_variants(chosen, probe_file)
    _check_enough_probes(curriculum, chosen, file)
    seeds = (probe_file, *seeds)
    data = _read_data(file, curriculum, seeds)
    generation = _generation(config, curriculum, max_tokens or (quicker.max_tokens if quicker else None))
    kernel = read_kernel(file.parent / curriculum.kernel, "kernel") if curriculum.kernel else None
    signature = _read_signature(file.parent / curriculum.signature) if curriculum.signature else ""
    parts = {
        "the curriculum file": curriculum.model_dump(mode="json"),
        "--quick": quick,
        "the set of probes": [dataclasses.asdict(probe) for probe in chosen],
        "the settings of generation": dataclasses.asdict(generation),
        "the kernel": kernel.text if kernel else None,
        "the signature": signature,
    }
    return CurriculumPlan(
        file=file, curriculum=curriculum, model=model, output=output, probes=tuple(chosen), probe_file=probe_file,
        generation=generation, quick=quick, kernel=kernel, signature=signature, data=data,
        identity=_identity(model, parts, data), seeds=seeds, group_size=config.batch_size, command=tuple(command),
    )  # fmt: skip


def preview(plan: CurriculumPlan) -> dict[str, Any]:
    """What `--dry-run` prints: probes, arms (if nothing is repeated), and each phase's data, settings and gates."""
    phases = plan.curriculum.phases
    return {
        "output": display_path(plan.output),
        "model": plan.model_name,
        "quick": plan.quick,
        "n_probes": len(plan.probes),
        "n_arms": sum(2 if phase.asked == "sandwich" else 1 for phase in phases) + 1 + plan.asks_sandwich,
        "generation": dataclasses.asdict(plan.generation),
        "phases": [
            {
                "number": phase.number,
                "name": phase.name,
                "format": phase.format,
                "asked": phase.asked,
                "n_examples": plan.data[phase.number].n_examples,
                "settings": dataclasses.asdict(plan.settings(Attempt(phase.number, 1))),
                "target": phase.target.model_dump(mode="json") if phase.target else None,
                "gates": [gate.model_dump(mode="json") for gate in phase.gates],
                "max_attempts": phase.max_attempts,
            }
            for phase in phases
        ],
    }


def _generation(config: Config, curriculum: Curriculum, max_tokens: int | None) -> GenerationSettings:
    """Option, then file, then configuration."""
    said = curriculum.generation
    return GenerationSettings(
        max_tokens=max_tokens or said.max_tokens or config.max_tokens,
        temperature=config.temperature if said.temperature is None else said.temperature,
        top_p=said.top_p or config.top_p,
    )


def _identity(model: str, parts: Mapping[str, Any], data: Mapping[int, PhaseData]) -> dict[str, str]:
    """Every part that decides a run with its hash."""
    identity = {"the base model": load(model, weights=False).model_sha}
    identity |= {name: _sha(part) for name, part in parts.items()}
    for number, files in data.items():
        identity[f"the data of phase {number}"] = file_sha(files.train)
        identity[f"the validation data of phase {number}"] = file_sha(files.valid) if files.valid else ""
    return identity


def refuse_other_plan(plan: CurriculumPlan, stored: Mapping[str, str]) -> None:
    """Compare with the identity that a run was started with.   Raises: ResumeMismatch naming the part that differs."""
    for part in [*plan.identity, *stored]:
        if plan.identity.get(part) != stored.get(part):
            raise ResumeMismatch(
                f"{display_path(plan.output)} was started with another version of {part.removeprefix('the ')}; "
                "restore it or give a new --output, nothing was touched."
            )


def _quick_section(file: Path, curriculum: Curriculum) -> Quick:
    if curriculum.quick is None:
        raise UserError(f"{file}: there is no section 'quick' for --quick to use; add one or leave the option out.")
    return curriculum.quick


def _read_data(file: Path, curriculum: Curriculum, seeds: Sequence[Path]) -> dict[int, PhaseData]:
    """The files of every phase, read and checked.   Raises: UserError or DataError."""
    data = {phase.number: _find_data(file, phase) for phase in curriculum.phases}
    _refuse_probes_in_data(data, seeds)
    return data


def _find_data(file: Path, phase: Phase) -> PhaseData:
    """Find and validate a phase's examples: a folder has train.jsonl and perhaps valid.jsonl, a file is train.jsonl."""
    path = file.parent / phase.data
    train = path / "train.jsonl" if path.is_dir() else path
    valid = file.parent / phase.valid if phase.valid else path / "valid.jsonl"
    n_examples = len(read_chat_examples(train))
    if phase.valid or (path.is_dir() and valid.is_file()):
        read_chat_examples(valid)
        return PhaseData(train, valid, n_examples)
    return PhaseData(train, None, n_examples)


def _refuse_probes_in_data(data: Mapping[int, PhaseData], seeds: Sequence[Path]) -> None:
    """Raises: DataError for the first example that holds a probe: now, and not when its phase begins."""
    files = dict.fromkeys(path for found in data.values() for path in (found.train, found.valid) if path)
    texts = [
        (f"{display_path(path)} line {example.line}", text)
        for path in files
        for example in read_chat_examples(path)
        for text in (example.prompt, example.answer)
    ]
    refuse_probes(texts, seeds)


def _check_enough_probes(curriculum: Curriculum, probes: Sequence[Probe], file: Path) -> None:
    """Every gate must be able to have an interval.   Raises: UserError."""
    if len(probes) < 2:
        raise UserError(f"one probe gives no interval, so no gate of {file} could be decided; raise --limit.")
    for phase in curriculum.phases:
        for gate in phase.gates:
            if not isinstance(gate, CreativeLock):
                continue
            n = sum(probe.domain == gate.domain for probe in probes)
            if n < 2:
                raise UserError(
                    f"gate {gate.gate} of phase {phase.number} needs two probes of the domain '{gate.domain}', and "
                    f"these {len(probes)} probes have {n}; raise --limit or give other --probes."
                )


def _read_signature(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such signature file; correct the key 'signature' of the curriculum.")
    return path.read_text(encoding="utf-8").strip()


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
