"""Curricula in miniature: phases as dictionaries, and slow parts that only pretend, with wished-for scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lem.runs.plan import Arm
from lem.studies.curriculum import Stages
from lem.studies.curriculum_plan import CurriculumPlan
from lem.studies.curriculum_training import TrainingJob
from lem.studies.measures import Measures

PAIRS = [("One?", "Aye."), ("Two, then?", "Never."), ("And three?", "Perhaps, with consent."), ("Four?", "Ask.")]


def write_pairs(path: Path) -> None:
    turns = [[{"role": "user", "content": ask}, {"role": "assistant", "content": say}] for ask, say in PAIRS]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))


def phase(number: int, form: str = "freeflow", **keys: Any) -> dict[str, Any]:
    data = "first.jsonl" if number % 2 else "data"
    return {"number": number, "name": f"p{number}", "format": form, "data": data, **keys}


class Killed(BaseException):
    """Stands for a process that ends on the spot."""


@dataclass
class Pretence:
    """Stages without a model: adapters are short files, an arm's v2 is `levels[arm]` on every probe, give or take.

    It dies at the `kill_at`-th of the moments at which a real run could be killed: around every stage, and whenever
    something is told (which the run does between its writes).
    """

    levels: dict[str, float]
    degenerate: dict[str, int] = field(default_factory=dict)
    kill_at: int | None = None
    moments: int = 0
    jobs: list[TrainingJob] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def stages(self) -> Stages:
        return Stages(train=self.train, evaluate=self.evaluate, tell=self.tell)

    def moment(self) -> None:
        self.moments += 1
        if self.moments == self.kill_at:
            raise Killed

    def tell(self, sentence: str) -> None:
        self.told.append(sentence)
        self.moment()

    def train(self, job: TrainingJob) -> None:
        self.moment()
        self.jobs.append(job)
        parent = job.from_adapter / "adapters.safetensors" if job.from_adapter else None
        job.output.mkdir(parents=True, exist_ok=True)
        (job.output / "adapter_config.json").write_text("{}")
        self.moment()  # a directory that was begun and not finished
        text = (parent.read_text() if parent else "base") + f" > {job.label} {job.settings.iters} {job.settings.seed}"
        (job.output / "adapters.safetensors").write_text(text)
        self.moment()

    def evaluate(self, plan: CurriculumPlan, arms: Sequence[Arm]) -> dict[str, Measures]:
        self.moment()
        self.asked.append([arm.name for arm in arms])
        measured = {arm.name: self.measures(plan, arm.name) for arm in arms}
        self.moment()
        return measured

    def measures(self, plan: CurriculumPlan, arm: str) -> Measures:
        spread = [0.3 * (index % 3 - 1) for index in range(len(plan.probes))]
        values = {probe.id: self.levels[arm] + by for probe, by in zip(plan.probes, spread, strict=True)}
        n = len(plan.probes)
        unscored, degenerate = {"v2": 0, "v3": 0}, self.degenerate.get(arm, 0)
        return Measures({"v2": values, "v3": values}, unscored, n, 0, n, degenerate, n, 1, 40.0)


def decisions(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(attempt, action) of every decision in a log."""
    found = [row for row in rows if row["kind"] == "decision"]
    return [(f"{row['phase']}.{row['attempt']}", row["action"]) for row in found]


def without_times(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "ts"} for row in rows]
