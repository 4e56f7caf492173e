"""`Imported`: answers made elsewhere, in the shape of a run, and the rules that turn loose answers into one.

An imported record has no fingerprint, no seed and no messages, because what was really sent is not known; the
prompt stands in `info.probes`. Per-row times and published signals are not kept: times of single rows mean nothing
beside batched decoding, and signals are counted again by `lem score`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lem.errors import DataError
from lem.records import Judgement, Key, Record, RunContents, RunInfo, Score

KIND = "import"
# The version of every score and judgement that a file brought with it.
PUBLISHED = "published"


@dataclass(frozen=True)
class Imported:
    """A foreign file as a run: manifest, records, the name of the format, and what a reader should know about it.

    `published_scores` holds the v2 score the file gave to a cell, so that a new score can be compared with it;
    `scores` (by scorer) and `judgements` hold what else it brought, `judges` and `audits` the manifests and audits of
    its judges by their names. `info.status` is "done" only if every arm answers every probe and nothing failed.
    """

    info: RunInfo
    records: list[Record]
    format: str
    notes: list[str]
    published_scores: dict[Key, float] = field(default_factory=dict)
    scores: dict[str, list[Score]] = field(default_factory=dict)
    judgements: list[Judgement] = field(default_factory=list)
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)
    audits: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def contents(self) -> RunContents:
        """The same as a run that was read; published v2 scores are left out, because v2 is counted from the texts."""
        return RunContents(
            self.info, self.records, self.scores, self.judgements, tuple(self.notes), self.judges, self.audits
        )


@dataclass(frozen=True)
class Answer:
    """One cell as a file gives it, with what the file says about its probe ("" where it does not).

    `source` is the file, `line` the line in it (0: unknown), `rephrases` the probe that this one rephrases.
    """

    arm: str
    probe_id: str
    response: str | None
    error: str | None
    source: str
    line: int = 0
    repeat: int = 0
    prompt: str = ""
    domain: str = ""
    benchmark: str = ""
    rephrases: str = ""
    ts: str = ""
    thinking: str | None = None
    finish_reason: str | None = None

    @property
    def key(self) -> Key:
        """The cell this answer fills."""
        return Key(self.arm, self.probe_id, self.repeat)


@dataclass(frozen=True)
class Listed:
    """A probe that a file lists, answered or not; the fields mean what they mean in `Answer`."""

    probe_id: str
    prompt: str
    source: str
    line: int = 0
    domain: str = ""
    benchmark: str = ""
    rephrases: str = ""


@dataclass(frozen=True)
class Origin:
    """Where answers come from: name of the run, format, files as {path, sha256}, facts per arm, known settings."""

    run_id: str
    format: str
    sources: list[dict[str, str]]
    arms: Mapping[str, dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def assemble(
    origin: Origin,
    answers: Sequence[Answer],
    *,
    listed: Sequence[Listed] = (),
    notes: Iterable[str] = (),
    interrupted: bool = False,
    scores: Mapping[Key, float] | None = None,
) -> Imported:
    """Make one run of loose answers; probes and arms keep the order in which they first appear.

    Args:  listed: probes that were asked, be they answered or not; they come first.
           interrupted: the file itself shows that its run did not end.
    Raises: DataError if a cell is answered twice, or if one probe id stands for two prompts, domains, benchmarks or
    sources.
    """
    _refuse_duplicates(answers)
    probes = _probes([*listed, *answers])
    arms = list(dict.fromkeys(answer.arm for answer in answers))
    found = [*notes, *_notes(answers, arms, len(probes))]
    filled = {(answer.arm, answer.probe_id) for answer in answers}
    failed = any(answer.error is not None for answer in answers)
    incomplete = interrupted or failed or len(filled) < len(arms) * len(probes)
    repeats = 1 + max((answer.repeat for answer in answers), default=0)
    info = RunInfo(
        run_id=origin.run_id,
        kind=KIND,
        status="incomplete" if incomplete else "done",
        arms={arm: dict(origin.arms.get(arm, {"model": None})) for arm in arms},
        settings={**origin.settings, "repeats": repeats},
        data={"format": origin.format, "sources": origin.sources, "n_probes": len(probes), **origin.data},
        probes=probes,
    )
    records = [_record(answer, origin.run_id) for answer in answers]
    return Imported(info, records, origin.format, found, dict(scores or {}))


def _record(answer: Answer, run_id: str) -> Record:
    return Record(
        run_id=run_id,
        arm=answer.arm,
        probe_id=answer.probe_id,
        repeat=answer.repeat,
        response=answer.response,
        thinking=answer.thinking,
        finish_reason=answer.finish_reason,
        error=answer.error,
        ts=answer.ts,
    )


def _refuse_duplicates(answers: Sequence[Answer]) -> None:
    seen: dict[Key, Answer] = {}
    for answer in answers:
        first = seen.setdefault(answer.key, answer)
        if first is not answer:
            raise DataError(
                f"{_places(first, answer)}: arm '{answer.arm}' answers probe '{answer.probe_id}' twice; keep one of "
                "the two, or keep the runs in separate files."
            )


def _probes(mentions: Sequence[Listed | Answer]) -> list[dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    first: dict[tuple[str, str], Listed | Answer] = {}
    for mention in mentions:
        probe = found.setdefault(mention.probe_id, {"id": mention.probe_id, "domain": "", "prompt": ""})
        for name, value in (
            ("domain", mention.domain),
            ("prompt", mention.prompt),
            ("source", mention.rephrases),
            ("benchmark", mention.benchmark),
        ):
            if not value:
                continue
            if probe.get(name) and probe[name] != value:
                raise DataError(
                    f"{_places(first[mention.probe_id, name], mention)}: probe '{mention.probe_id}' has two different "
                    f"{name}s, so its answers cannot be paired; give different probes different ids."
                )
            probe[name] = value
            first.setdefault((mention.probe_id, name), mention)
    return list(found.values())


def _places(first: Listed | Answer, second: Listed | Answer) -> str:
    if first.line and first.source == second.source:
        return f"{first.source} lines {first.line} and {second.line}"
    shown = [f"{one.source} line {one.line}" if one.line else one.source for one in (first, second)]
    return " and ".join(dict.fromkeys(shown))


def _notes(answers: Sequence[Answer], arms: Sequence[str], n_probes: int) -> list[str]:
    notes = []
    for arm in arms:
        answered = len({answer.probe_id for answer in answers if answer.arm == arm})
        if answered < n_probes:
            notes.append(f"arm '{arm}' has {answered} of {n_probes} probes; the others are missing, not wrong.")
    failed = sum(answer.error is not None for answer in answers)
    empty = sum(answer.response is not None and not answer.response.strip() for answer in answers)
    if failed:
        notes.append(f"{failed} of {len(answers)} rows failed and have no answer to score.")
    if empty:
        notes.append(f"{empty} of {len(answers)} responses are empty; they count as answers.")
    return notes
