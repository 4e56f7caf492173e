"""What became of every comparison of two arms that a judge was to make: none that was planned goes uncounted.

    both orders judged                          scored
    answers that can be compared, no verdict    unscored: not asked, no verdict in one order, an answer made anew since
    an answer cut off while thinking            unscored
    a request that failed                       failed
    an answer that is not stored                missing

A pair is planned where both arms were to answer a probe, in the same repeat, of a benchmark that the judge was asked to
compare: those that its manifest names, and those that it has verdicts on. Probes with measured choices have no answers
to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lem.judges.calls import benchmark_of
from lem.judges.pairwise.pairs import ORDERS, PREFERENCE, PairOutcome, no_response, pair_outcomes, pair_sha, unfinished
from lem.records import Judgement, Key, Outcome, Record, RunContents
from lem.records.cells import UNFINISHED, planned_keys
from lem.records.model import LIKELIHOOD

NOT_JUDGED = "not judged yet"
FAILED_ANSWER = "an answer failed"
NO_ANSWER = "an answer is missing"


def outcomes_of(
    contents: RunContents, baseline: str, treatment: str, judge: str, dimension: str = PREFERENCE,
    excluded: Mapping[str, str] | frozenset[str] = frozenset(),
) -> list[PairOutcome]:  # fmt: skip
    """One outcome for each pair that the judge was to compare; excluded probes do not exist here.

    Raises: DataError as `pair_outcomes`.
    """
    of_arms = (judge, dimension, treatment, baseline)
    stored = [one for one in contents.judgements if (one.judge, one.dimension, one.arm, one.against) == of_arms]
    answers = {record.key: record for record in contents.records}
    found: dict[Key, PairOutcome] = {}
    shas: dict[Key, str] = {}
    for key in planned_pairs(contents, baseline, treatment, _asked(contents, stored, judge, baseline, treatment)):
        if key.probe_id not in excluded:
            ours, other = answers.get(key), answers.get(Key(baseline, *key[1:]))
            lost = _without_answers(key, ours, other)
            found[key] = lost or PairOutcome(key, None, reason=NOT_JUDGED)
            if lost is None and ours is not None and other is not None:
                shas[key] = pair_sha(ours, other)
    judged = pair_outcomes([one for one in stored if one.key in shas], shas)
    return list({**found, **{one.key: one for one in judged}}.values())


def planned_pairs(contents: RunContents, baseline: str, treatment: str, tasks: Collection[str] = ()) -> list[Key]:
    """The cells of the treatment whose probe and repeat the baseline was to answer too, sorted, answered or not.

    Args:  tasks: benchmarks (none: all).
    """
    cells = {*planned_keys(contents.info), *(record.key for record in contents.records)}
    task_of, measured = _task_of(contents), _measured(contents)
    return sorted(
        key
        for key in cells
        if key.arm == treatment
        and Key(baseline, *key[1:]) in cells
        and key.probe_id not in measured
        and (not tasks or task_of(key.probe_id) in tasks)
    )


def planned_tasks(contents: RunContents, baseline: str, treatment: str, tasks: Collection[str] = ()) -> list[str]:
    """The benchmarks of these pairs."""
    task_of = _task_of(contents)
    pairs = planned_pairs(contents, baseline, treatment, tasks)
    return list(dict.fromkeys(task_of(key.probe_id) for key in pairs))


def pair_judges(contents: RunContents, baseline: str, treatment: str, dimension: str = PREFERENCE) -> list[str]:
    """The judges that compared two arms on a dimension, as they first appear."""
    asked = (dimension, treatment, baseline)
    return list(
        dict.fromkeys(
            one.judge
            for one in contents.judgements
            if one.order in ORDERS and (one.dimension, one.arm, one.against) == asked
        )
    )


def comparisons_of(contents: RunContents) -> dict[tuple[str, str], list[str]]:
    """(baseline, treatment) -> the judges that were asked to compare them, whether or not a verdict came.

    A judge without any judgement in the run is none of it.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for one in contents.judgements:
        if one.order in ORDERS and one.judge not in found.setdefault((one.against, one.arm), []):
            found[one.against, one.arm].append(one.judge)
    for judge in dict.fromkeys(one.judge for one in contents.judgements):
        for entry in contents.judges.get(judge, {}).get("compared", []):
            judges = found.setdefault((entry["baseline"], entry["treatment"]), [])
            judges += [] if judge in judges else [judge]
    return found


def _asked(
    contents: RunContents, stored: Sequence[Judgement], judge: str, baseline: str, treatment: str
) -> frozenset[str]:
    """The benchmarks that a judge was to compare two arms on; none where nothing says it."""
    entries: Sequence[Mapping[str, Any]] = contents.judges.get(judge, {}).get("compared", [])
    named = [one["tasks"] for one in entries if (one["baseline"], one["treatment"]) == (baseline, treatment)]
    task_of = _task_of(contents)
    return frozenset([*(task for tasks in named for task in tasks), *(task_of(one.probe_id) for one in stored)])


def _task_of(contents: RunContents) -> Callable[[str], str]:
    entries = {entry["id"]: entry for entry in contents.info.probes}
    return lambda probe_id: benchmark_of(entries.get(probe_id, {}))


def _measured(contents: RunContents) -> set[str]:
    """Probes whose choices are measured, with all others of their benchmarks, whose requests may have failed.

    The manifest names the choices; a run from elsewhere may only have what was measured.
    """
    named = {entry["id"]: entry.get("benchmark") for entry in contents.info.probes}
    probes = {entry["id"] for entry in contents.info.probes if entry.get("choices")}
    probes |= {record.probe_id for record in contents.records if record.finish_reason == LIKELIHOOD}
    benchmarks = {name for probe in probes if (name := named.get(probe))}
    return probes | {probe for probe, name in named.items() if name in benchmarks}


def _without_answers(key: Key, ours: Record | None, other: Record | None) -> PairOutcome | None:
    """The outcome of a pair of which an answer cannot be judged; None where both can."""
    there = [one for one in (ours, other) if one is not None]
    if any(no_response(one) for one in there):
        return PairOutcome(key, None, reason=FAILED_ANSWER, answers=Outcome.FAILED)
    if len(there) < 2:
        return PairOutcome(key, None, reason=NO_ANSWER, answers=Outcome.MISSING)
    if any(unfinished(one) for one in there):
        return PairOutcome(key, None, reason=UNFINISHED, answers=Outcome.UNSCORED)
    return None
