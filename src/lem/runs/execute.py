"""Execute a plan: requests -> groups -> completions -> records, resumable at any point.

The order of lines in `records.jsonl` is the order in which rows finished; it means nothing.

The rules, in the order in which they apply:
1. A stored record with the same key and fingerprint and no error is kept and not generated again.
2. The same key with another fingerprint is a `ResumeMismatch`; it is found before anything is written.
3. A stored error is tried again.
4. A group with a missing row is decoded whole, because its other rows shaped the batch; stored rows are kept, and
   a row that comes out differently from what is stored is an error (another machine or BLAS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lem.chat.generate import Completion, Request
from lem.errors import LemError, ResumeMismatch
from lem.records import Key, Record, RunDirectory
from lem.records.run import now
from lem.runs.workers import Answer, Job


@dataclass(frozen=True)
class PlannedRequest:
    """One cell of a plan, rendered: what is sent, the key of its random stream, and its fingerprint.

    `max_tokens`, `stop_strings` and `choices` are as in `lem.chat.generate.Request`.
    """

    key: Key
    messages: tuple[dict[str, str], ...]
    tokens: tuple[int, ...]
    prompt_sha: str
    seed: int
    fingerprint: str
    max_tokens: int | None = None
    stop_strings: tuple[str, ...] = ()
    choices: tuple[tuple[int, ...], ...] = ()

    def to_request(self) -> Request:
        """What the engine is asked."""
        return Request(self.key, self.tokens, self.seed, self.max_tokens, self.stop_strings, choices=self.choices)


@dataclass(frozen=True)
class Outcome:
    """Counts of one `execute` call: rows written now, rows already there, and failed rows among those written."""

    written: int
    reused: int
    failed: int


def check_resume(run: RunDirectory, requests: Sequence[PlannedRequest]) -> None:
    """Refuse a plan that contradicts stored records.   Raises: ResumeMismatch; nothing is written before it."""
    for request in requests:
        stored = run.records.get(request.key)
        if stored is not None and not stored.failed and stored.fingerprint != request.fingerprint:
            arm, probe, repeat = request.key
            raise ResumeMismatch(
                f"{run.path} holds another run: arm '{arm}', probe {probe}, repeat {repeat} was made with other "
                "settings, prompt or weights; give a new --output, nothing was touched."
            )


def missing_groups(run: RunDirectory, wanted: set[Key]) -> list[str]:
    """Names of the groups that hold a wanted row without a good record, in the order of the plan."""
    arms = {key.arm for key in wanted}
    names = []
    for name, group in run.info.groups.items():
        if group["arm"] not in arms:
            continue
        keys = (Key(group["arm"], probe, group["repeat"]) for probe in group["probes"])
        if any(key in wanted and is_missing(run, key) for key in keys):
            names.append(name)
    return names


def is_missing(run: RunDirectory, key: Key) -> bool:
    """True for a cell without a record, and for one whose record is an error."""
    stored = run.records.get(key)
    return stored is None or stored.failed


def pending_jobs(run: RunDirectory, requests: Mapping[Key, PlannedRequest]) -> list[Job]:
    """The groups that still miss a row, as jobs; all rows of a group must be among the requests.

    The length of the prefix was stored with the group, so that a resume prefills exactly what the first attempt did.
    """
    jobs = []
    for name in missing_groups(run, set(requests)):
        rows = [requests[key] for key in _keys(run, name)]
        group = tuple(row.to_request() for row in rows)
        jobs.append(Job(name, group, rows[0].tokens[: run.info.groups[name]["prefix_tokens"]]))
    return jobs


def execute(
    run: RunDirectory,
    requests: Mapping[Key, PlannedRequest],
    answers: Iterable[Answer],
    on_record: Callable[[Record], None] = lambda record: None,
) -> Outcome:
    """Append a record for every completion of a decoder, as rows finish; flush to disk at the end of each group.

    Args:  requests: every cell of the jobs being decoded, by key.  answers: what a decoder yields for the jobs.
    Returns: counts.   Raises: LemError if a re-decoded row differs from the stored one.
    """
    written = failed = 0
    for group, completion in answers:
        if completion is None:
            run.store.sync()
            continue
        record = _record(run, group, requests[completion.id], completion)
        if _store(run, record):
            written += 1
            failed += record.failed
            on_record(record)
    return Outcome(written, len(requests) - written, failed)


def _keys(run: RunDirectory, name: str) -> list[Key]:
    group = run.info.groups[name]
    return [Key(group["arm"], probe, group["repeat"]) for probe in group["probes"]]


def _store(run: RunDirectory, record: Record) -> bool:
    """Append a record unless a good one is stored; True if it was written.   Raises: LemError if they differ."""
    stored = run.records.get(record.key)
    if stored is None or stored.failed:
        run.append(record)
        return True
    if not record.failed and (record.response, record.n_tokens) != (stored.response, stored.n_tokens):
        arm, probe, repeat = record.key
        raise LemError(
            f"{run.path}: arm '{arm}', probe {probe}, repeat {repeat} came out differently from the stored record; "
            "resume on the same machine with the same BLAS, or start a new --output."
        )
    return False


def _record(run: RunDirectory, group: str, request: PlannedRequest, completion: Completion) -> Record:
    return Record(
        run_id=run.info.run_id,
        arm=request.key.arm,
        probe_id=request.key.probe_id,
        repeat=request.key.repeat,
        fingerprint=request.fingerprint,
        group=group,
        messages=request.messages,
        prompt_sha=request.prompt_sha,
        response=completion.response,
        thinking=completion.thinking,
        finish_reason=completion.finish_reason,
        n_prompt_tokens=completion.n_prompt_tokens,
        n_tokens=None if completion.error else len(completion.tokens),
        seed=f"{request.seed:016x}",
        error=completion.error,
        ts=now(),
    )


def count_duplicate_repeats(records: Sequence[Record]) -> int:
    """How many repeats equal an earlier repeat of the same arm and probe, word for word (0 at T > 0 is healthy)."""
    seen: dict[tuple[str, str], set[str]] = {}
    duplicates = 0
    for record in records:
        if record.response is None:
            continue
        texts = seen.setdefault((record.arm, record.probe_id), set())
        duplicates += record.response in texts
        texts.add(record.response)
    return duplicates
