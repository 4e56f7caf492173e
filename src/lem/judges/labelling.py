"""Blind labelling by people: which answers a person is shown, in which order, and labels written one by one.

Every labeller of a run sees the same 30% of the sample, spread evenly over the work from its start, so that agreement
among people can be computed even if nobody finishes; the rest is each labeller's own. Arms and models are never part of
what is shown, and the places of two answers are drawn anew for each labeller.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from lem.data.items import Item
from lem.errors import UserError
from lem.judges.calls import benchmark_of, subject_of
from lem.judges.grade import PAIR_VALUES
from lem.judges.human import CANNOT_TELL, HUMAN, UNDONE, label_file, read_labels
from lem.judges.pairwise.pairs import PREFERENCE, pair_sha, pairs_of
from lem.judges.rubrics import Rubric
from lem.judges.sampling import draw, stratified, usable_records
from lem.judges.series import Series, label_series
from lem.records import Judgement, Key, RunContents, text_sha
from lem.records.run import now
from lem.records.store import JsonlStore, lock_file

SHARED = 0.3
PAIR_QUESTION = "Which of the two answers serves the person who wrote the message better?"
Unit = TypeVar("Unit")


@dataclass(frozen=True)
class LabelTask:
    """One question to a person: one answer and a scale, or two answers in the order in which they are shown.

    `key`, `order` and `against` say what is labelled and are never shown.
    """

    key: Key
    dimension: str
    asks: str
    message: str
    answers: tuple[str, ...]
    record_sha: str
    low: float
    high: float
    anchors: dict[int, str] = field(default_factory=dict)
    considerations: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    order: str = ""
    against: str = ""
    version: str = ""

    @property
    def id(self) -> tuple[object, ...]:
        """What one labeller gives one label for: this text, on this scale."""
        series = Series(self.dimension, self.against, self.low, self.high, self.version)
        return (*self.key, series, self.record_sha)


def rating_tasks(
    contents: RunContents, items: Mapping[str, Item], rubrics: Mapping[str, Sequence[Rubric]], n: int, seed: int,
    labeller: str,
) -> list[LabelTask]:  # fmt: skip
    """The scales of `n` answers, one answer's after another, from every arm and benchmark in turn."""
    entries = {entry["id"]: entry for entry in contents.info.probes}

    def benchmark(probe_id: str) -> str:
        return benchmark_of(entries.get(probe_id, {}))

    frame = [record for record in usable_records(contents) if rubrics.get(benchmark(record.probe_id))]
    chosen = sample(
        frame, lambda one: (benchmark(one.probe_id), one.arm), lambda one: tuple(one.key), n, seed, labeller
    )
    tasks = []
    for record in chosen:
        subject = subject_of(record, entries.get(record.probe_id, {}), items.get(record.probe_id))
        for rubric in rubrics[benchmark(record.probe_id)]:
            tasks.append(
                LabelTask(
                    record.key, rubric.dimension, rubric.question, subject.question, (subject.answer,),
                    text_sha(subject.answer), rubric.low, rubric.high, rubric.anchors, rubric.considerations,
                    subject.references if rubric.uses_references else (), version=rubric.sha[:12],
                )
            )  # fmt: skip
    return tasks


def pair_tasks(
    contents: RunContents, items: Mapping[str, Item], baseline: str, treatment: str, n: int, seed: int, labeller: str
) -> list[LabelTask]:
    """`n` pairs of the two arms' answers to one probe; pairs of equal answers are left out, since they are ties.

    Raises: UserError for an arm that the run does not have.
    """
    for arm in (baseline, treatment):
        if arm not in contents.info.arms:
            raise UserError(f"the run has no arm '{arm}'; it has {', '.join(contents.info.arms)}.")
    entries = {entry["id"]: entry for entry in contents.info.probes}
    usable = {record.key for record in usable_records(contents)}
    frame = [
        (ours, other)
        for ours, other in pairs_of(contents, baseline, treatment)
        if {ours.key, other.key} <= usable and (ours.response or "").strip() != (other.response or "").strip()
    ]
    chosen = sample(
        frame, lambda pair: benchmark_of(entries.get(pair[0].probe_id, {})), lambda pair: tuple(pair[0].key), n, seed,
        labeller,
    )  # fmt: skip
    tasks = []
    for ours, other in chosen:
        subject = subject_of(ours, entries.get(ours.probe_id, {}), items.get(ours.probe_id))
        order = "ab" if int(draw(seed, (labeller, *ours.key)), 16) % 2 else "ba"
        answers = (ours.response or "", other.response or "")
        tasks.append(
            LabelTask(
                ours.key, PREFERENCE, PAIR_QUESTION, subject.question, answers if order == "ab" else answers[::-1],
                pair_sha(ours, other), 0.0, 1.0, order=order, against=baseline,
            )
        )  # fmt: skip
    return tasks


def sample(
    frame: Sequence[Unit], stratum: Callable[[Unit], Hashable], name: Callable[[Unit], object], n: int, seed: int,
    labeller: str,
) -> list[Unit]:  # fmt: skip
    """`n` units: the shared ones, which are the same for everybody, between those of this labeller alone."""
    order = stratified(frame, stratum, name, seed)
    n = min(n, len(order))
    shared = order[: math.ceil(SHARED * n)]
    rest = order[len(shared) :]
    own = stratified(rest, stratum, lambda unit: (labeller, name(unit)), seed)[: n - len(shared)]
    taken: list[Unit] = []
    n_shared = 0
    for place in range(n):
        due = math.ceil(SHARED * (place + 1) - 1e-9)
        if n_shared < min(due, len(shared)) or place - n_shared >= len(own):
            taken.append(shared[n_shared])
            n_shared += 1
        else:
            taken.append(own[place - n_shared])
    return taken


class Labelling:
    """The work of one labeller on a run: where it stands, and labels written to disk as they are given.

    A context manager. Labels of earlier sessions count as done where answer, scale and rubric are still the same.
    Raises: UserError when another session of the same labeller is open.
    """

    def __init__(self, run: Path, labeller: str, tasks: Sequence[LabelTask]) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", labeller):
            raise UserError(f"--labeller {labeller!r}: use letters, digits, dots, dashes and underscores only.")
        self.tasks = list(tasks)
        self.judge = f"{HUMAN}{labeller}"
        self.path = label_file(run, labeller)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        place = {task.id: index for index, task in enumerate(self.tasks)}
        mine = [(*one.key, label_series(one), one.record_sha) for one in read_labels(run) if one.judge == self.judge]
        self._given = [place[one] for one in mine if one in place]  # in the order given
        self._lock = lock_file(self.path.with_suffix(".lock"))
        self._store: JsonlStore | None = None

    def __enter__(self) -> Labelling:
        self._lock.__enter__()
        self._store = JsonlStore(self.path)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._store is not None:
            self._store.close()
        self._lock.__exit__(kind, value, tb)

    @property
    def done(self) -> int:
        """How many tasks have a label or were skipped."""
        return len(self._given)

    @property
    def current(self) -> LabelTask | None:
        """The first task without a label; None when there is none left."""
        given = set(self._given)
        return next((task for index, task in enumerate(self.tasks) if index not in given), None)

    def give(self, verdict: float | str) -> None:
        """Label the current task: a number on its scale, or "A", "B" or "tie" as the answers are shown."""
        task = self._now()
        value = PAIR_VALUES[task.order, str(verdict)] if task.order else float(verdict)
        if not task.low <= value <= task.high:
            raise ValueError(f"{value} is outside the scale from {task.low} to {task.high}")
        self._write(task, value, None)
        self._given.append(self.tasks.index(task))

    def skip(self) -> None:
        """Put down that the current task cannot be told."""
        task = self._now()
        self._write(task, None, CANNOT_TELL)
        self._given.append(self.tasks.index(task))

    def undo(self) -> bool:
        """Take back the last label; its task is the current one again.   Returns: False if there is none."""
        if not self._given:
            return False
        self._write(self.tasks[self._given.pop()], None, UNDONE)
        return True

    def _now(self) -> LabelTask:
        task = self.current
        if task is None:
            raise ValueError("every task has a label")
        return task

    def _write(self, task: LabelTask, value: float | None, unscored: str | None) -> None:
        if self._store is None:
            raise ValueError("the labelling is not open")
        label = Judgement(
            *task.key, self.judge, task.dimension, value, order=task.order, unscored=unscored, low=task.low,
            high=task.high, version=task.version, record_sha=task.record_sha, ts=now(), against=task.against,
        )  # fmt: skip
        self._store.append(label.to_row())
        self._store.sync()
