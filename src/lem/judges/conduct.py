"""One judge over one run, from the check of its lineage to its manifest: ratings, or comparisons of two arms.

Whatever ends a pass - a full budget, Ctrl-C, a service that goes away - what came is on disk and in the manifest, and
the same call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lem.data.items import read_run_items
from lem.errors import Incomplete, UserError
from lem.judges.answering import Answering, WrongJudge
from lem.judges.calls import Asking, PlannedCall, pair_calls, rating_calls, rubrics_of
from lem.judges.grade import Graded, grade, wanted_calls
from lem.judges.manifest import check_same_judge, remove_unused, write_manifest, write_panel
from lem.judges.pairwise.outcomes import planned_tasks
from lem.judges.pairwise.pairs import PREFERENCE
from lem.judges.prompt import template_version
from lem.judges.protocol import Call, Judge, Reply
from lem.judges.rubrics import Rubric, read_rubric
from lem.judges.unmixed import manners_of
from lem.records import RunContents
from lem.records.contents import read_contents


@dataclass(frozen=True)
class Pass:
    """How a pass is made: how is asked, whether a judge may rate its own lineage, what the manifest says of it.

    One that is `only_check` raises what the pass would be refused for, asks nothing and writes nothing.
    """

    asking: Asking = field(default_factory=Asking)
    allow_self_judge: bool = False
    command: tuple[str, ...] = ()
    currency: str = ""
    only_check: bool = False
    on_start: Callable[[int, int], None] = lambda total, missing: None
    on_reply: Callable[[PlannedCall, Reply], None] = lambda planned, reply: None


def judge_ratings(
    run: Path, judge: Judge, how: Pass, dimensions: Sequence[str] = (), tasks: Sequence[str] = ()
) -> Graded:
    """Rate a run on the rubrics of its benchmarks, or on those named (dimensions or rubric files); `tasks` are the
    benchmarks whose answers are rated (none: those that the rubrics are for).

    Raises: UserError for an unknown rubric, kinship, or nothing to judge; ResumeMismatch before a call.
    """
    contents = read_contents(run)
    rubrics = rubrics_of(contents, _distinct([read_rubric(text) for text in dimensions]), tasks)
    planned = rating_calls(contents, read_run_items(run), rubrics, how.asking, judge.identity)
    versions = {one.dimension: f"{one.version} {one.sha[:12]}" for group in rubrics.values() for one in group}
    rated: dict[str, dict[str, list[str]]] = {}
    for benchmark, group in rubrics.items():
        for one in group:
            rated.setdefault(one.dimension, {})[benchmark] = list(contents.info.arms)
    return _ask(run, judge, contents, planned, versions, how, rated=rated)


def judge_pairs(
    run: Path, judge: Judge, how: Pass, baseline: str, treatments: Sequence[str], tasks: Sequence[str] = ()
) -> Graded:
    """Compare the baseline's answers with those of each treatment, in both orders.

    Raises: UserError for an unknown arm, kinship, or arms without answers to one probe; ResumeMismatch before a call.
    """
    contents = read_contents(run)
    for arm in (baseline, *treatments):
        if arm not in contents.info.arms:
            known = ", ".join(contents.info.arms)
            raise UserError(f"the run {contents.info.run_id} has no arm '{arm}'; it has {known}.")
    arms = dict.fromkeys(treatments)
    planned = [call for arm in arms for call in pair_calls(contents, baseline, arm, how.asking, judge.identity, tasks)]
    if not planned:
        raise UserError("these arms have no answers to the same probe, so there is nothing to compare.")
    compared = [
        {"treatment": arm, "baseline": baseline, "tasks": planned_tasks(contents, baseline, arm, tasks)} for arm in arms
    ]
    return _ask(run, judge, contents, planned, {PREFERENCE: template_version(PREFERENCE)}, how, compared=compared)


def _distinct(rubrics: Sequence[Rubric]) -> list[Rubric]:
    """The rubrics, each once.   Raises: UserError for two different ones of one dimension."""
    found: dict[str, Rubric] = {}
    for rubric in rubrics:
        if found.setdefault(rubric.dimension, rubric) != rubric:
            raise UserError(
                f"two different rubrics of '{rubric.dimension}' were named; judge with one of them, and with the other "
                "under another name of the judge."
            )
    return list(found.values())


class _Underway:
    """A pass that is being made: itself the judge that is asked, and what its manifest says so far.

    The manifest is there before the first verdict, so that no kill leaves one without its judge, and says what the
    pass is meant for from its first reply on: one that gets none adds nothing.
    """

    def __init__(
        self, run: Path, judge: Judge, who: Answering, planned: Sequence[PlannedCall], rubrics: Mapping[str, str],
        how: Pass, meant: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.identity = judge.identity
        self.begun, self.answered = False, 0
        self._run, self._judge, self._who, self._how = run, judge, who, how
        self._planned, self._rubrics, self._meant = planned, rubrics, meant
        self._told: Mapping[str, Any] = {}  # of what is meant

    def write(self, cut_off: float = 0.0) -> None:
        """Write the manifest."""
        refused = getattr(self._judge, "adapted", ())  # what a service did not take of a request; local models take all
        write_manifest(
            self._run, self.identity, self._who.pedigree, rubrics=self._rubrics, command=self._how.command,
            currency=self._how.currency, adapted=refused, cut_off=cut_off, asked=manners_of(self._planned),
            **self._told,
        )  # fmt: skip

    def on_start(self, total: int, missing: int) -> None:
        """Note that the pass has begun; where nothing is missing, every verdict that it is meant for is there."""
        self.begun = True
        if not missing:
            self._told = self._meant
        self._who.begin()
        self.write()
        self._how.on_start(total, missing)

    def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Iterator[Reply]:
        """Yield what the judge says."""
        found: Any = self._who.replies(calls, wanted)
        with closing(found):
            for reply in found:
                if not self._told:
                    self._told = self._meant
                    self.write()
                yield reply

    def on_reply(self, one: PlannedCall, reply: Reply) -> None:
        """Count a reply that is stored."""
        self.answered += 1
        self._how.on_reply(one, reply)


def _ask(
    run: Path, judge: Judge, contents: RunContents, planned: Sequence[PlannedCall], rubrics: Mapping[str, str],
    how: Pass, **meant: Any,
) -> Graded:  # fmt: skip
    """Make the pass.   Args:  meant: `rated` or `compared` for the manifest."""
    check_same_judge(run, judge.identity)
    who = Answering(run, judge, contents.info, allow_self_judge=how.allow_self_judge)
    if how.only_check:
        n_wanted = len(wanted_calls(run, judge.identity.name, planned, rubrics))
        return Graded(len(planned), len(planned) - n_wanted, 0, 0, 0, n_wanted, 0.0)
    this = _Underway(run, judge, who, planned, rubrics, how, meant)
    who.on_kin = this.write
    try:
        return grade(run, this, planned, rubrics=rubrics, on_start=this.on_start, on_reply=this.on_reply)
    except UserError as error:
        if not this.answered or isinstance(error, WrongJudge):
            raise
        raise Incomplete(
            f"{str(error).rstrip('.')}; {this.answered} verdicts of this pass are on disk, the same command goes on "
            "from there."
        ) from error
    finally:
        if this.begun:  # else nothing was asked, and nothing is touched
            this.write(who.cut_off())
            remove_unused(run, judge.identity)
            write_panel(run)
