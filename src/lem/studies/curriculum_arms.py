"""Asking the probes in a curriculum: one evaluation run that grows arm by arm, and the gates of a phase on it.

Base and every attempt are asked freeflow; base and the phases that are asked in the sandwich have a second arm with
the kernel around the probe. Comparisons between phases are freeflow against freeflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lem.ab.benchmark import run_benchmark
from lem.errors import Incomplete
from lem.paths import display_path
from lem.records import read_run
from lem.runs.plan import Arm, RunPlan
from lem.scorers.passes import score_run
from lem.studies import gates
from lem.studies.curriculum_file import (
    BitingPoint,
    CreativeLock,
    Degeneration,
    Gate,
    Improves,
    NotWorse,
    OnFail,
    Phase,
    Target,
)
from lem.studies.curriculum_plan import CurriculumPlan
from lem.studies.curriculum_state import Attempt
from lem.studies.gates import GateResult
from lem.studies.measures import HEADLINE_SCORERS, Measures, measure

BASE = "base"
SANDWICH = "+sandwich"
EVALUATION = "eval"
Board = Mapping[str, Measures]


def arm_name(attempt: Attempt | None, asked: str) -> str:
    """The arm of an attempt (None is the base) in one of the two forms of asking."""
    return (attempt.arm if attempt else BASE) + (SANDWICH if asked == "sandwich" else "")


def arms_of(plan: CurriculumPlan, attempt: Attempt | None) -> list[Arm]:
    """The arms of an attempt, or of the base: freeflow, then the sandwich where it is asked so."""
    adapter = str(plan.folder(attempt)) if attempt else None
    sandwich = plan.phase(attempt.phase).asked == "sandwich" if attempt else plan.asks_sandwich
    arms = [Arm(arm_name(attempt, "freeflow"), plan.model, adapter)]
    return [*arms, Arm(arm_name(attempt, "sandwich"), plan.model, adapter, plan.kernel)] if sandwich else arms


def scorers_of(plan: CurriculumPlan) -> list[str]:
    """v2, v3 and every other scorer that a gate or target names."""
    phases = plan.curriculum.phases
    named = [part.scorer for phase in phases for part in (*phase.gates, *([phase.target] if phase.target else []))]
    return list(dict.fromkeys([*HEADLINE_SCORERS, *named]))


def evaluate(
    plan: CurriculumPlan, arms: Sequence[Arm], execute: Callable[[RunPlan, Path], object] = run_benchmark
) -> dict[str, Measures]:
    """Answer the probes in OUTPUT/eval for these arms, as far as they are not answered yet, score and measure them.

    Args:  execute: runs a plan into a directory, resuming it.
    Raises: Incomplete if an answer failed or is missing; ResumeMismatch if an adapter changed since it was asked.
    """
    run = plan.output / EVALUATION
    execute(_run_plan(plan, arms), run)
    score_run(run, scorers_of(plan))
    records = read_run(run)[1]
    wanted = len(plan.probes) * plan.curriculum.generation.repeats
    measured = {}
    for arm in arms:
        found = measure([record for record in records if record.arm == arm.name], scorers_of(plan))
        if found.n_answers < wanted:
            raise Incomplete(
                f"{display_path(run)}: {wanted - found.n_answers} of {wanted} answers of arm '{arm.name}' failed or "
                "are missing; run the same command again, what is there is kept."
            )
        measured[arm.name] = found
    return measured


def _run_plan(plan: CurriculumPlan, arms: Sequence[Arm]) -> RunPlan:
    return RunPlan(
        arms=tuple(arms),
        probes=plan.probes,
        probe_file=display_path(plan.probe_file),
        probe_sha=plan.identity["the set of probes"],
        settings=plan.generation,
        repeats=plan.curriculum.generation.repeats,
        seed=plan.curriculum.seed,
        inject="sandwich",
        signature=plan.signature,
        group_size=plan.group_size,
        command=plan.command,
    )


def judge(
    plan: CurriculumPlan, attempt: Attempt, chain: Sequence[Attempt], board: Board
) -> list[tuple[GateResult, OnFail]]:
    """Put an attempt to the target and gates of its phase, each with what its failure asks for.

    Args:  chain: the accepted attempts before it, the last of which it continued.  board: measures of all their arms.
    """
    phase = plan.phase(attempt.phase)
    results = []
    if phase.target:
        results.append((_target(plan, phase, phase.target, attempt, board), phase.target.on_fail or phase.on_fail))
    for gate in phase.gates:
        results.append((_gate(plan, phase, gate, attempt, chain, board), gate.on_fail or phase.on_fail))
    return results


def _target(plan: CurriculumPlan, phase: Phase, wanted: Target, attempt: Attempt, board: Board) -> GateResult:
    scores = board[arm_name(attempt, phase.asked)].values[wanted.scorer]
    return gates.target(scores, plan.domains, scorer=wanted.scorer, value=wanted.value, rule=wanted.rule)


def _gate(
    plan: CurriculumPlan, phase: Phase, gate: Gate, attempt: Attempt, chain: Sequence[Attempt], board: Board
) -> GateResult:
    def freeflow(of: Attempt | None) -> Mapping[str, float]:
        return board[arm_name(of, "freeflow")].values[gate.scorer]

    previous = chain[-1] if chain else None
    current, domains, scorer = freeflow(attempt), plan.domains, gate.scorer
    if isinstance(gate, NotWorse):
        return gates.not_worse(
            current, freeflow(previous), domains, scorer=scorer, margin=gate.margin, against=_label(previous)
        )
    if isinstance(gate, Improves):
        return gates.improves(current, freeflow(previous), domains, scorer=scorer, by=gate.by, against=_label(previous))
    if isinstance(gate, BitingPoint):
        reference = _of_phase(chain, gate.phase)
        sandwich = board[arm_name(reference, "sandwich")].values[scorer]
        return gates.biting_point(
            current, sandwich, domains, scorer=scorer, margin=gate.margin, against=_label(reference)
        )
    if isinstance(gate, CreativeLock):
        fixed = {"base": None, "previous": previous}
        locked = fixed[gate.against] if isinstance(gate.against, str) else _of_phase(chain, gate.against)
        return gates.creative_lock(
            current, freeflow(locked), domains, scorer=scorer, domain=gate.domain, margin=gate.margin,
            against=_label(locked),
        )  # fmt: skip
    return _degeneration(gate, [board[arm.name] for arm in arms_of(plan, attempt)])


def _degeneration(gate: Degeneration, asked: Sequence[Measures]) -> GateResult:
    """Of several forms of asking the worst counts: a kernel in the prompt can hide what the weights have become."""
    worst = max(asked, key=lambda measures: (measures.n_judged == 0, measures.degenerate.value))
    return gates.degeneration(worst.n_degenerate, worst.n_judged, at_most=gate.at_most)


def _of_phase(chain: Sequence[Attempt], number: int) -> Attempt:
    return next(attempt for attempt in chain if attempt.phase == number)


def _label(attempt: Attempt | None) -> str:
    return f"phase {attempt.label}" if attempt else BASE


def find_divergence(plan: CurriculumPlan, attempt: Attempt, chain: Sequence[Attempt], board: Board) -> int | None:
    """The phase whose freeflow scores first fell by more than the margin of this phase's biting-point gate, if any."""
    gate = next(gate for gate in plan.phase(attempt.phase).gates if isinstance(gate, BitingPoint))
    path: list[tuple[int, Mapping[str, float]]] = [(-1, board[BASE].values[gate.scorer])]
    path += [(done.phase, board[arm_name(done, "freeflow")].values[gate.scorer]) for done in (*chain, attempt)]
    found = gates.first_diverged(path, plan.domains, margin=gate.margin)
    return found[0] if found else None
