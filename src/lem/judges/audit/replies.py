"""The resumable pass of an audit: `audits/<judge>.jsonl` holds every reply whole, `audits/<judge>.json` what follows.

A row belongs to a call of this audit when its id, prompt and judge are those of the call: rows of an earlier canary
text, rubric or setting stay in the file and are not counted. A call that ended in an error is asked again.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.judges.audit.plan import PAIR, AuditCall
from lem.judges.calls import version_of
from lem.judges.grade import PAIR_VALUES
from lem.judges.pairwise.pairs import PREFERENCE
from lem.judges.parse import read_verdict
from lem.judges.protocol import Ending, Judge, JudgeIdentity, Reply
from lem.paths import slug
from lem.records.model import field_kinds, misfit
from lem.records.run import now, nth_line, reading
from lem.records.store import JsonlStore, lock_file, read_jsonl, write_atomic

AUDIT_SCHEMA = 1
_SYNC_EVERY = 16


@dataclass(frozen=True)
class AuditRow:
    """One reply of an audit.

    `values` has the rating of each dimension, or under "preference" what a comparison is worth (1, 0.5, 0) to the text
    that its variant names, whatever the order; it is empty when `unscored` says why there is no verdict. `version`
    stands for judge and prompts, `prompt_sha` for this very question.
    """

    id: str
    judge: str
    instrument: str
    variant: str
    unit: str
    order: str = ""
    values: dict[str, float] = field(default_factory=dict)
    unscored: str | None = None
    raw: str = ""
    error: str | None = None
    probe_id: str = ""
    model: str = ""
    version: str = ""
    prompt_sha: str = ""
    n_prompt_tokens: int | None = None
    n_tokens: int | None = None
    cost: float | None = None
    ts: str = ""


@dataclass(frozen=True)
class AuditPass:
    """The rows that answer the calls of an audit, in their order, and how many calls have none."""

    rows: tuple[AuditRow, ...]
    reused: int
    asked: int
    missing: int


_KINDS = field_kinds(AuditRow)


def audit_file(run: Path, judge: str, suffix: str = ".jsonl") -> Path:
    """Where the replies of a judge's audit lie; with ".json" where its summary lies."""
    return run / "audits" / f"{slug(judge)}{suffix}"


def ask_audit(
    run: Path,
    judge: Judge,
    calls: Sequence[AuditCall],
    *,
    on_start: Callable[[int, int], None] = lambda total, missing: None,
    on_reply: Callable[[Reply], None] = lambda reply: None,
) -> AuditPass:
    """Ask what is not answered yet and store every reply as it comes.

    Args:  on_start: called once with (calls, calls still to ask).  on_reply: after each reply is stored.
    Raises: DataError for a stored row that is none; what the judge raises, after what came is on disk.
    """
    identity = judge.identity
    by_id = {one.call.id: one for one in calls}
    path = audit_file(run, identity.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    version = version_of(identity)
    with lock_file(path.with_suffix(".lock")):
        found = _answered(read_audit(run, identity.name), calls, version)
        wanted = {one.call.id for one in calls} - found.keys()
        on_start(len(calls), len(wanted))
        reused = len(found)
        if wanted:
            replies: Any = judge.replies([one.call for one in calls], wanted)
            with JsonlStore(path) as store, closing(replies):
                for n_asked, reply in enumerate(replies, start=1):
                    row = _row(by_id[reply.id], reply, identity, version)
                    store.append(dataclasses.asdict(row))
                    found[row.id] = row
                    if n_asked % _SYNC_EVERY == 0:
                        store.sync()
                    on_reply(reply)
                store.sync()
    rows = tuple(found[one.call.id] for one in calls if one.call.id in found)
    return AuditPass(rows, reused, len(rows) - reused, len(calls) - len(rows))


def read_audit(run: Path, judge: str) -> list[AuditRow]:
    """Every row of a judge's audit, the last one of an id and version; [] without an audit.

    Raises: DataError naming the line that is no row.
    """
    path = audit_file(run, judge)
    if not path.is_file():
        return []
    found: dict[tuple[str, str], AuditRow] = {}
    with reading(path):
        rows = read_jsonl(path)[0]
    for number, raw in enumerate(rows):
        try:
            row = AuditRow(**raw)
            fault = misfit(raw, _KINDS) or _value_fault(row)
        except TypeError as error:
            fault = str(error)
        if fault is not None:
            raise DataError(f"{nth_line(path, number)}: not a reply of an audit ({fault}); remove that line.")
        found[row.id, row.version] = row
    return list(found.values())


def _value_fault(row: AuditRow) -> str | None:
    if all(type(value) in (int, float) and math.isfinite(value) for value in row.values.values()):
        return None
    return "its values must be finite numbers"


def _answered(rows: Sequence[AuditRow], calls: Sequence[AuditCall], version: str) -> dict[str, AuditRow]:
    stored = {row.id: row for row in rows if row.version == version and row.error is None}
    asked = {one.call.id: one.prompt_sha for one in calls if one.call.id in stored}
    return {id: stored[id] for id, sha in asked.items() if stored[id].prompt_sha == sha}


def _row(one: AuditCall, reply: Reply, identity: JudgeIdentity, version: str) -> AuditRow:
    verdict = read_verdict(reply, one.call)
    values: dict[str, float] = {}
    if verdict.unscored is None and one.instrument == PAIR:
        values = {PREFERENCE: PAIR_VALUES[one.order, str(verdict.values["verdict"])]}
    elif verdict.unscored is None:
        values = {name: float(value) for name, value in verdict.values.items()}
    return AuditRow(
        id=one.call.id,
        judge=identity.name,
        instrument=one.instrument,
        variant=one.variant,
        unit=one.unit,
        order=one.order,
        values=values,
        unscored=verdict.unscored,
        raw=reply.text,
        error=reply.error or "no reply" if reply.ending is Ending.FAILED else None,
        probe_id=one.probe_id,
        model=reply.model,
        version=version,
        prompt_sha=one.prompt_sha,
        n_prompt_tokens=reply.n_prompt_tokens,
        n_tokens=reply.n_tokens,
        cost=reply.cost,
        ts=now(),
    )


def write_summary(run: Path, judge: str, summary: Mapping[str, Any]) -> Path:
    """Replace `audits/<judge>.json` in one step; numbers that do not exist are null."""
    path = audit_file(run, judge, ".json")
    text = json.dumps(_plain({"schema": AUDIT_SCHEMA, **summary}), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n")
    return path


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
