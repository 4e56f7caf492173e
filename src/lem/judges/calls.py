"""Which calls a run needs: one per answer and dimension, or one per answer for all dimensions of its benchmark.

What a judge sees of a cell is the question, the answer and the reference answers, nothing of the arm. Answers to probes
without a benchmark are judged as those of "ethics". Measured choices (log-likelihoods) are no answers and have no call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lem.data.items import Item
from lem.errors import UserError
from lem.judges.pairwise.pairs import AB, ORDERS, PREFERENCE, has_answer, pair_sha, pairs_of
from lem.judges.prompt import PROMPT_VERSION, Subject, nonce_for, pair_call, rating_call
from lem.judges.protocol import Call, JudgeIdentity
from lem.judges.rubrics import Rubric, rubrics_for
from lem.records import Key, Record, RunContents, text_sha

ETHICS = "ethics"
LOCAL = "mlx"


@dataclass(frozen=True)
class PlannedCall:
    """A call with what its verdict is about: the cell, the dimensions, and for a comparison order and opponent.

    `versions` has for each dimension what must be equal for two judgements to be comparable.
    """

    call: Call
    key: Key
    dimensions: tuple[str, ...]
    versions: tuple[str, ...]
    record_sha: str
    prompt_sha: str
    order: str = ""
    against: str = ""


@dataclass(frozen=True)
class Asking:
    """How ratings are asked for: all dimensions of a benchmark in one call, with a rationale, in so many tokens."""

    together: bool = False
    rationale: bool = True
    max_tokens: int = 512


def benchmark_of(entry: Mapping[str, Any]) -> str:
    """The benchmark that a probe is judged as."""
    return entry.get("benchmark") or ETHICS


def benchmarks_of(contents: RunContents, tasks: Sequence[str] = ()) -> list[str]:
    """The benchmarks of a run, as they first appear, or those that are named.   Raises: UserError for one it lacks."""
    found = list(dict.fromkeys(benchmark_of(entry) for entry in contents.info.probes))
    for task in tasks:
        if task not in found:
            raise UserError(f"--task {task}: the run {contents.info.run_id} has none of it; it has {', '.join(found)}.")
    return [name for name in found if not tasks or name in tasks]


def rubrics_of(
    contents: RunContents, named: Sequence[Rubric] = (), tasks: Sequence[str] = ()
) -> dict[str, list[Rubric]]:
    """The rubrics for each benchmark of a run.

    Without rubrics named those that a benchmark is judged on. A named one is for the benchmarks that it lists, or for
    the tasks that are named with it.
    Raises: UserError if nothing in the run is judged, or for a task that the run lacks.
    """
    benchmarks = benchmarks_of(contents, tasks)
    if named:
        found = {name: [one for one in named if tasks or name in one.benchmarks] for name in benchmarks}
    else:
        found = {name: rubrics_for(name) for name in benchmarks}
    if any(found.values()):
        return found
    if named:
        meant = ", ".join(dict.fromkeys(name for one in named for name in one.benchmarks))
        raise UserError(
            f"the run {contents.info.run_id} holds {', '.join(benchmarks)}, and the rubric is for {meant}; name the "
            "benchmark with --task to have its answers rated all the same."
        )
    raise UserError(
        f"the run {contents.info.run_id} holds {', '.join(benchmarks)}, which are scored by program and need no judge; "
        "name a rubric with --dimension and the benchmark with --task to have them rated all the same."
    )


def rating_calls(
    contents: RunContents, items: Mapping[str, Item], rubrics: Mapping[str, Sequence[Rubric]], asking: Asking,
    identity: JudgeIdentity,
) -> list[PlannedCall]:  # fmt: skip
    """Every rating that a run needs, in an order that depends on its content only."""
    entries = {entry["id"]: entry for entry in contents.info.probes}
    planned = []
    for record in judged_records(contents):
        entry = entries.get(record.probe_id, {})
        wanted = rubrics.get(benchmark_of(entry), ())
        groups = [wanted] if asking.together and wanted else [[rubric] for rubric in wanted]
        subject = subject_of(record, entry, items.get(record.probe_id))
        planned += [_rating(subject, record, group, asking, identity) for group in groups]
    return planned


def pair_calls(
    contents: RunContents, baseline: str, treatment: str, asking: Asking, identity: JudgeIdentity,
    tasks: Sequence[str] = (),
) -> list[PlannedCall]:  # fmt: skip
    """Both orders of every comparison of two arms, in an order that depends on their content only.

    Args:  tasks: benchmarks whose answers are compared (none: all).
    """
    wanted = set(benchmarks_of(contents, tasks))
    entries = {entry["id"]: entry for entry in contents.info.probes}
    version = version_of(identity, PREFERENCE, asking.rationale, asking.max_tokens)
    planned = []
    for ours, other in pairs_of(contents, baseline, treatment):
        if benchmark_of(entries.get(ours.probe_id, {})) not in wanted:
            continue
        question = question_of(ours, entries.get(ours.probe_id, {}))
        for order in ORDERS:
            texts = [ours.response or "", other.response or ""]
            first, second = texts if order == AB else texts[::-1]
            nonce = nonce_for("pair", question, first, second)
            call = pair_call(
                (*ours.key, baseline, order), question, first, second, nonce, rationale=asking.rationale,
                max_tokens=asking.max_tokens,
            )  # fmt: skip
            planned.append(
                PlannedCall(
                    call, ours.key, (PREFERENCE,), (version,), pair_sha(ours, other), prompt_sha(call), order, baseline
                )
            )
    return planned


def judged_records(contents: RunContents) -> list[Record]:
    """The records of a run that have an answer to judge, sorted by cell."""
    return sorted(filter(has_answer, contents.records), key=lambda record: record.key)


def subject_of(record: Record, entry: Mapping[str, Any], item: Item | None) -> Subject:
    """What a judge is shown of a cell."""
    fields = item.fields if item is not None else {}
    return Subject(
        record.key,
        benchmark_of(entry),
        question_of(record, entry),
        record.response or "",
        tuple(dict.fromkeys(str(text) for text in (fields.get("best_answer"), *_listed(fields)) if text)),
        tuple(str(text) for text in fields.get("incorrect_answers") or ()),
    )


def _listed(fields: Mapping[str, Any]) -> Sequence[Any]:
    return fields.get("correct_answers") or ()


def question_of(record: Record, entry: Mapping[str, Any]) -> str:
    """What was asked: the prompt of the probe, else the last message of the record."""
    return str(entry.get("prompt") or (record.messages[-1]["content"] if record.messages else ""))


def version_of(identity: JudgeIdentity, *parts: Any) -> str:
    """Twelve hex digits over the judge, the prompts and these parts: equal means asked in the same way."""
    model = "" if identity.backend == LOCAL else identity.model  # weights have hashes, a path is no part of them
    who = [identity.backend, model, identity.settings, PROMPT_VERSION]
    return hashlib.sha256(json.dumps([who, *parts], sort_keys=True).encode()).hexdigest()[:12]


def prompt_sha(call: Call) -> str:
    """Hash of everything that a judge is asked in one call."""
    return text_sha(json.dumps([call.system, call.user, call.schema, call.max_tokens], sort_keys=True))


def _material(subject: Subject) -> tuple[str, ...]:
    return (subject.question, subject.answer, *subject.references, *subject.wrong)


def _rating(
    subject: Subject, record: Record, rubrics: Sequence[Rubric], asking: Asking, identity: JudgeIdentity
) -> PlannedCall:
    names = tuple(rubric.dimension for rubric in rubrics)
    nonce = nonce_for("rating " + " ".join(names), *_material(subject))
    call = rating_call(
        (*record.key, *names), subject, rubrics, nonce, rationale=asking.rationale, max_tokens=asking.max_tokens
    )
    manner = [asking.rationale, asking.max_tokens, list(names) if len(names) > 1 else None]
    versions = tuple(version_of(identity, rubric.sha, manner) for rubric in rubrics)
    return PlannedCall(call, record.key, names, versions, text_sha(subject.answer), prompt_sha(call))
