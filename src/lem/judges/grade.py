"""The resumable pass that turns planned calls into judgements: `judgements/<judge>.jsonl` in the run directory.

The rules, as for generating: what is stored with the same answer, prompt and version is kept; a stored error is asked
again, in another manner too; an answer that was made anew is judged anew. A dimension has one version: where any
verdict of this judge on it has another one, of whatever answer, that is a `ResumeMismatch`, found before anything is
asked. Each judgement is one line, written as its reply comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import ResumeMismatch
from lem.judges.calls import PlannedCall
from lem.judges.parse import Verdict, read_verdict
from lem.judges.protocol import Ending, Judge, Reply
from lem.judges.unmixed import KEPT, refuse_mixture, scale_of
from lem.paths import slug
from lem.records import Judgement
from lem.records.contents import read_judgements
from lem.records.judge_files import read_judge_manifests
from lem.records.run import now
from lem.records.store import JsonlStore, lock_file

# What a verdict on two answers is worth to the arm that the judgement is about, by the order it was read in.
PAIR_VALUES = {
    ("ab", "A"): 1.0, ("ab", "B"): 0.0, ("ab", "tie"): 0.5, ("ba", "A"): 0.0, ("ba", "B"): 1.0, ("ba", "tie"): 0.5,
}  # fmt: skip
_SYNC_EVERY = 16


@dataclass(frozen=True)
class Graded:
    """Counts of one pass, in calls; `cost` is None where a price is not known."""

    planned: int
    reused: int
    asked: int
    unscored: int
    failed: int
    missing: int
    cost: float | None


def judgement_file(run: Path, judge: str) -> Path:
    """Where a judge's judgements of a run lie."""
    return run / "judgements" / f"{slug(judge)}.jsonl"


def grade(
    run: Path,
    judge: Judge,
    planned: Sequence[PlannedCall],
    *,
    rubrics: Mapping[str, str] | None = None,
    on_start: Callable[[int, int], None] = lambda total, missing: None,
    on_reply: Callable[[PlannedCall, Reply], None] = lambda planned, reply: None,
) -> Graded:
    """Ask what is not answered yet and store every verdict.

    Args:  rubrics: dimension -> version and hash of the rubric, which a refusal names.
           on_start: called once with (calls of the pass, calls still to ask).  on_reply: after each reply is stored.
    Raises: ResumeMismatch before anything is asked; what the judge raises, after what came is on disk.
    """
    name = judge.identity.name
    by_id = {one.call.id: one for one in planned}
    path = judgement_file(run, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(path.with_suffix(".lock")):
        wanted = wanted_calls(run, name, planned, rubrics)
        on_start(len(planned), len(wanted))
        counts = {"asked": 0, "unscored": 0, "failed": 0}
        costs: list[float | None] = []
        if not wanted:
            return Graded(len(planned), len(planned), 0, 0, 0, 0, 0.0)
        with JsonlStore(path) as store, closing(_generator(judge, planned, wanted)) as replies:
            for reply in replies:
                one = by_id[reply.id]
                verdict = read_verdict(reply, one.call)
                for judgement in judgements_of(one, reply, verdict, name):
                    store.append(judgement.to_row())
                counts["asked"] += 1
                counts["failed"] += reply.ending is Ending.FAILED
                counts["unscored"] += verdict.unscored is not None and reply.ending is not Ending.FAILED
                costs.append(reply.cost)
                if counts["asked"] % _SYNC_EVERY == 0:
                    store.sync()
                on_reply(one, reply)
            store.sync()
    known = [cost for cost in costs if cost is not None]
    return Graded(
        len(planned), len(planned) - len(wanted), counts["asked"], counts["unscored"], counts["failed"],
        len(wanted) - counts["asked"], sum(known) if len(known) == len(costs) else None,
    )  # fmt: skip


def _generator(judge: Judge, planned: Sequence[PlannedCall], wanted: set[Any]) -> Any:
    return judge.replies([one.call for one in planned], wanted)


def wanted_calls(
    run: Path, judge: str, planned: Sequence[PlannedCall], rubrics: Mapping[str, str] | None = None
) -> set[Any]:
    """The ids of the calls that are not answered yet.

    Raises: ResumeMismatch where a dimension of the plan has a verdict of another version; what `refuse_mixture` raises.
    """
    stored = {one.full_key: one for one in read_judgements(run) if one.judge == judge}
    file, manifest = judgement_file(run, judge), read_judge_manifests(run).get(judge, {})
    refuse_mixture(file, stored.values(), planned, manifest, rubrics or {})
    wanted = set()
    for one in planned:
        for dimension in one.dimensions:
            found = stored.get((*one.key, judge, dimension, one.order, one.against))
            if found is None or found.error is not None or found.record_sha != one.record_sha:
                wanted.add(one.call.id)
            elif found.prompt_sha != one.prompt_sha:
                raise ResumeMismatch(
                    f"{file}: '{dimension}' was judged on probe {one.key.probe_id} with another question, other "
                    f"reference answers or another prompt than there are now; {KEPT}."
                )
    return wanted


def judgements_of(one: PlannedCall, reply: Reply, verdict: Verdict, judge: str) -> Iterator[Judgement]:
    """The judgements that a reply amounts to: one for each dimension, without a value where it is unscored."""
    share = len(one.dimensions)
    for number, (dimension, version) in enumerate(zip(one.dimensions, one.versions, strict=True)):
        value = None if verdict.unscored else _value(one, verdict, dimension)
        first = number == 0  # tokens and cost of a call that rates several dimensions are counted once
        yield Judgement(
            *one.key,
            judge,
            dimension,
            value,
            order=one.order,
            unscored=verdict.unscored,
            raw=reply.text,
            low=scale_of(one, dimension)[0],
            high=scale_of(one, dimension)[1],
            version=version,
            record_sha=one.record_sha,
            error=reply.error if reply.ending is Ending.FAILED else None,
            ts=now(),
            against=one.against,
            model=reply.model,
            prompt_sha=one.prompt_sha,
            n_prompt_tokens=reply.n_prompt_tokens if first or share == 1 else None,
            n_tokens=reply.n_tokens if first or share == 1 else None,
            cost=reply.cost if first or share == 1 else None,
        )


def _value(one: PlannedCall, verdict: Verdict, dimension: str) -> float:
    if one.order:
        return PAIR_VALUES[one.order, str(verdict.values["verdict"])]
    return float(verdict.values[dimension])
