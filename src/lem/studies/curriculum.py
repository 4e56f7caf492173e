"""`lem curriculum`: train phase after phase, ask the probes after each, and let the gates decide what follows.

    OUTPUT/curriculum.jsonl              append-only: what was started, base, one row a judged attempt
           phase-0-ethics-0/attempt-1/   an adapter directory of the trainer
           data/phase-0-ethics-0/        the very files that were trained on
           eval/                         one benchmark run, an arm or two an attempt
           curriculum.json, .md, .png    derived: summary, table, plot

Every phase continues the adapter of the accepted attempt before it. A killed run goes on with the same command: the
log says which attempt is next, the attempt's directory how far its training came, the run which answers are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from lem.chat.load import adapter_identity
from lem.errors import Incomplete, UserError
from lem.paths import display_path
from lem.records import JsonlStore, lock_directory
from lem.records.run import now, versions
from lem.reports.tables import plain
from lem.runs.plan import Arm
from lem.stats import paired_difference
from lem.studies.curriculum_arms import arm_name, arms_of, evaluate, find_divergence, judge
from lem.studies.curriculum_file import OnFail
from lem.studies.curriculum_plan import CurriculumPlan, refuse_other_plan
from lem.studies.curriculum_state import Attempt, Decision, Position, decide
from lem.studies.curriculum_summary import action_name, arm_row, position_of, write_summary
from lem.studies.curriculum_training import TrainingJob, make_job, train_job
from lem.studies.gates import GateResult
from lem.studies.measures import Measures

LOG = "curriculum.jsonl"


@dataclass(frozen=True)
class Stages:
    """The two slow things a curriculum does; the command line wraps them in progress bars."""

    train: Callable[[TrainingJob], object] = train_job
    evaluate: Callable[[CurriculumPlan, Sequence[Arm]], dict[str, Measures]] = evaluate
    tell: Callable[[str], None] = lambda sentence: None


@dataclass(frozen=True)
class Outcome:
    """Where a curriculum stands when a command ends; `rows` is its log."""

    position: Position
    rows: list[dict[str, Any]]


def run_curriculum(plan: CurriculumPlan, stages: Stages = Stages(), *, only: Sequence[int] = ()) -> Outcome:
    """Go on with a curriculum until it is finished, stopped by a gate, or done with the phases in `only`.

    Raises: ResumeMismatch if OUTPUT was started with other files, weights or settings; UserError if OUTPUT holds
            something else or a phase of `only` cannot be trained yet; Incomplete if answers failed, or if a gate sends
            the run back to a phase that `only` leaves out.
    """
    unknown = [number for number in only if number not in plan.numbers]
    if unknown:
        raise UserError(f"--phase {unknown[0]}: no such phase; {plan.file} has {', '.join(map(str, plan.numbers))}.")
    with _open_log(plan) as log:
        board = _Board(plan, stages)
        position = position_of(plan, log.rows)
        if position.next is not None:
            _ask_base(plan, stages, board, log)
        while position.next is not None and _selected(plan, position, only):
            row = _attempt(plan, stages, board, position, position.next)
            _append(log, row)
            write_summary(plan, log.rows, plot=False)
            stages.tell(f"  {action_name(row)}: {row['sentence']}.")
            position = position_of(plan, log.rows)
        write_summary(plan, log.rows)
        return Outcome(position, log.rows)


@contextmanager
def _open_log(plan: CurriculumPlan) -> Iterator[JsonlStore]:
    """Lock OUTPUT and open its log, written by a start with the same plan or begun now."""
    path = plan.output / LOG
    if plan.output.exists() and not path.exists():
        occupied = not plan.output.is_dir() or any(entry.name != ".lock" for entry in plan.output.iterdir())
        if occupied:
            raise UserError(f"{plan.output} is not empty and holds no {LOG}; choose another --output.")
    with lock_directory(plan.output), JsonlStore(path) as log:
        if log.rows:
            if log.rows[0].get("kind") != "start":
                raise UserError(f"{path} is not the log of a curriculum; choose another --output, nothing was touched.")
            refuse_other_plan(plan, log.rows[0]["identity"])
        else:
            start = {"model": plan.model_name, "file": display_path(plan.file), "command": list(plan.command)}
            _append(
                log, {"kind": "start", **start, "identity": dict(plan.identity), "versions": versions(), "ts": now()}
            )
        yield log


def _append(log: JsonlStore, row: dict[str, Any]) -> None:
    log.append(plain(row))
    log.sync()
    log.rows.append(plain(row))


def _selected(plan: CurriculumPlan, position: Position, only: Sequence[int]) -> bool:
    """Whether the next attempt belongs to the phases asked for.   Raises: UserError, Incomplete; see above."""
    attempt = position.next
    if attempt is None or not only or attempt.phase in only:
        return attempt is not None
    if attempt.number > 1:
        raise Incomplete(
            f"phase {attempt.phase} is to be trained again (attempt {attempt.number}) and --phase leaves it out; run "
            f"the command with --phase {attempt.phase}, or without --phase."
        )
    if attempt.phase < max(only):
        raise UserError(
            f"phase {max(only)} continues phase {attempt.phase}, which has not passed in {display_path(plan.output)}; "
            f"run --phase {attempt.phase} first."
        )
    return False


class _Board:
    """Measures of the arms asked so far in this process; what is missing is asked, or read from the run."""

    def __init__(self, plan: CurriculumPlan, stages: Stages) -> None:
        self._plan = plan
        self._stages = stages
        self.measures: dict[str, Measures] = {}

    def ask(self, *attempts: Attempt | None) -> dict[str, Measures]:
        """Measures of the arms of these attempts (None is the base)."""
        arms = [arm for attempt in attempts for arm in arms_of(self._plan, attempt)]
        missing = [arm for arm in arms if arm.name not in self.measures]
        if missing:
            self.measures |= self._stages.evaluate(self._plan, missing)
        return self.measures


def _ask_base(plan: CurriculumPlan, stages: Stages, board: _Board, log: JsonlStore) -> None:
    """Ask the base before anything is trained, so that what is wrong with asking shows before hours of training."""
    if any(row["kind"] == "base" for row in log.rows):
        return
    stages.tell(f"base: asking {len(plan.probes)} probes")
    measures = board.ask(None)
    rows = [arm_row(plan, measures[arm.name], arm) for arm in arms_of(plan, None)]
    _append(log, {"kind": "base", "arms": rows, "ts": now()})


def _attempt(
    plan: CurriculumPlan, stages: Stages, board: _Board, position: Position, attempt: Attempt
) -> dict[str, Any]:
    """Train, ask and judge one attempt, as far as that is not done yet; the row for the log."""
    phase, folder = plan.phase(attempt.phase), plan.folder(attempt)
    parent = position.chain[-1] if position.chain else None
    name = f"phase {attempt.label} {phase.name}"
    if not (folder / "adapters.safetensors").is_file():
        stages.tell(f"{name}: training {phase.format} from {parent.label if parent else 'base'}")
        stages.train(make_job(plan, attempt, parent))
    stages.tell(f"{name}: asking {len(plan.probes)} probes")
    measures = board.ask(None, *position.chain, attempt)
    results = judge(plan, attempt, position.chain, measures)
    for result, _ in results:
        stages.tell(f"  {result.gate}: {result.sentence}")
    return _row(plan, attempt, parent, measures, results, _decide(plan, position, attempt, measures, results))


def _decide(
    plan: CurriculumPlan,
    position: Position,
    attempt: Attempt,
    measures: dict[str, Measures],
    results: Sequence[tuple[GateResult, OnFail]],
) -> Decision:
    failed = [(result.gate, on_fail) for result, on_fail in results if not result.passed]
    goes_back = any(on_fail == "back-to-diverged" for _, on_fail in failed)
    diverged = find_divergence(plan, attempt, position.chain, measures) if goes_back else None
    limits = {phase.number: phase.max_attempts for phase in plan.curriculum.phases}
    return decide(position, plan.numbers, limits, failed, diverged)


def _row(
    plan: CurriculumPlan,
    attempt: Attempt,
    parent: Attempt | None,
    measures: dict[str, Measures],
    results: Sequence[tuple[GateResult, OnFail]],
    decision: Decision,
) -> dict[str, Any]:
    """The row of a judged attempt: what was decided, on which numbers."""
    phase, folder = plan.phase(attempt.phase), plan.folder(attempt)
    now_and_before = [measures[arm_name(of, "freeflow")].values["v2"] for of in (attempt, parent)]
    return {
        "kind": "decision",
        "phase": attempt.phase,
        "attempt": attempt.number,
        "name": phase.name,
        "format": phase.format,
        "asked": phase.asked,
        "parent": parent.label if parent else "base",
        "action": decision.action,
        "next_phase": decision.phase,
        "sentence": decision.sentence,
        "gates": [{**asdict(result), "on_fail": on_fail} for result, on_fail in results],
        "target": phase.target.model_dump(mode="json") if phase.target else None,
        "arms": [arm_row(plan, measures[arm.name], arm) for arm in arms_of(plan, attempt)],
        "change": asdict(paired_difference(now_and_before[0], now_and_before[1], plan.domains)),
        "adapter": str(folder.relative_to(plan.output)),
        "adapter_sha": adapter_identity(folder),
        "ts": now(),
    }
