"""One training of a curriculum: the files it is given, and the call of the trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lem.chat.generate import GenerationSettings
from lem.chat.load import load
from lem.data import Probe
from lem.errors import Incomplete
from lem.records import write_atomic
from lem.studies.checkpoint_scoring import probe_evaluator
from lem.studies.curriculum_plan import CurriculumPlan
from lem.studies.curriculum_state import Attempt
from lem.training.dataset import Sandwich
from lem.training.metrics import Metric
from lem.training.settings import TrainingSettings
from lem.training.train import Hooks, TrainingReport, train


@dataclass(frozen=True)
class TrainingJob:
    """What the trainer is asked for: `from_adapter` is the accepted attempt that this one continues, None the base.

    `seeds` are files of probes that the data must not hold; probes, generation and seed are for scoring on the way.
    """

    label: str
    model: str
    data: Path
    output: Path
    settings: TrainingSettings
    from_adapter: Path | None
    sandwich: Sandwich | None
    seeds: tuple[Path, ...]
    probes: tuple[Probe, ...]
    generation: GenerationSettings
    seed: int


def make_job(plan: CurriculumPlan, attempt: Attempt, parent: Attempt | None) -> TrainingJob:
    """The job of an attempt; its data files are put into OUTPUT/data first."""
    phase = plan.phase(attempt.phase)
    wrapped = Sandwich(plan.kernel.text, plan.signature) if plan.kernel and phase.format == "sandwich" else None
    return TrainingJob(
        label=f"phase {attempt.label} {phase.name}",
        model=plan.model,
        data=stage_data(plan, attempt),
        output=plan.folder(attempt),
        settings=plan.settings(attempt),
        from_adapter=plan.folder(parent) if parent else None,
        sandwich=wrapped,
        seeds=plan.seeds,
        probes=plan.probes,
        generation=plan.generation,
        seed=plan.curriculum.seed,
    )


def stage_data(plan: CurriculumPlan, attempt: Attempt) -> Path:
    """Copy a phase's files to OUTPUT/data/<phase>/train.jsonl and valid.jsonl, as the trainer wants a folder."""
    folder = plan.output / "data" / plan.folder(attempt).parent.name
    files = plan.data[attempt.phase]
    for source, name in ((files.train, "train.jsonl"), (files.valid, "valid.jsonl")):
        target = folder / name
        if source is not None and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            write_atomic(target, source.read_text(encoding="utf-8"))
    return folder


def train_job(
    job: TrainingJob,
    on_metric: Callable[[Metric], None] = lambda metric: None,
    on_resume: Callable[[int], None] = lambda step: None,
) -> TrainingReport:
    """Train a job, going on with what its folder holds; with `eval_every` the probes are scored on the way."""
    chat = load(job.model)
    score = None
    if job.settings.eval_every:
        score = probe_evaluator(chat, job.probes, job.generation, job.seed, job.output)
    try:
        return train(
            chat,
            job.data,
            job.output,
            job.settings,
            resume=True,  # also right for a new folder, and for one that a kill left before its first checkpoint
            from_adapter=job.from_adapter,
            sandwich=job.sandwich,
            seeds=job.seeds,
            hooks=Hooks(on_metric=on_metric, on_evaluate=score, on_resume=on_resume),
        )
    except Incomplete:
        raise Incomplete(
            f"interrupted while {job.label} was training; a checkpoint is on disk, the same command goes on from there."
        ) from None
