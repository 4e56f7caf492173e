"""A run of benchmarks: the items of several tasks as one plan, executed by the engine that A/B runs use.

All tasks of one model, with the same arms and settings, go into one run, so that no axis is read alone: a run gains
tasks as it gains probes. The settings are the published ones (temperature 0.3, a token limit for each benchmark).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lem.benchmarks.ask import probe
from lem.benchmarks.table import BENCHMARKS, find
from lem.chat.generate import GenerationSettings
from lem.data import Probe
from lem.data.items import Item, grow_items, items_text, read_run_items
from lem.errors import ResumeMismatch, UserError
from lem.records import text_sha
from lem.runs.conduct import conduct
from lem.runs.execute import Outcome
from lem.runs.plan import Arm, Form, RunPlan

KIND = "eval"
TEMPERATURE = 0.3
MAX_TOKENS = 512
"""The limit in `run.json`; every item brings the limit of its own benchmark unless one is given for all."""


def check_tasks(tasks: Sequence[str]) -> list[str]:
    """The tasks, each once.   Raises: UserError that lists the known ones."""
    for task in tasks:
        if task not in BENCHMARKS:
            raise UserError(f"unknown task '{task}'; known are {', '.join(BENCHMARKS)}.")
    if not tasks:
        raise UserError(f"no task was named; give one or more of {', '.join(BENCHMARKS)}.")
    return list(dict.fromkeys(tasks))


def judged_tasks(tasks: Sequence[str]) -> list[str]:
    """Those of the tasks that only a judge can rate."""
    return [task for task in tasks if find(task).judged]


def benchmark_plan(
    arms: Sequence[Arm],
    items: Mapping[str, Sequence[Item]],
    *,
    sources: Mapping[str, Mapping[str, Any]],
    settings: GenerationSettings,
    max_tokens: int | None = None,
    form: Form = "auto",
    **rest: Any,
) -> RunPlan:
    """The plan of a run over the items of several tasks.

    Args:  items, sources: by task; a source is facts for the manifest.  max_tokens: one limit for all tasks, in place
           of their own.  rest: the other fields of a `RunPlan` (repeats, seed, inject, ...).
    Raises: UserError for an id that two items have.
    """
    probes = [_probe(item, max_tokens) for task in items for item in items[task]]
    _refuse_twins(probes)
    tasks = {task: {**sources[task], **_count(found)} for task, found in items.items()}
    return RunPlan(
        arms=tuple(arms),
        probes=tuple(probes),
        probe_file=", ".join(items),
        settings=settings,
        form=form,
        items=tuple(item for found in items.values() for item in found),
        data={"tasks": tasks},
        **rest,
    )


def run_benchmarks(plan: RunPlan, output: Path, **options: Any) -> Outcome:
    """Execute a plan into a run directory, resuming what is there; options, result and errors as in `conduct`.

    Raises: ResumeMismatch also for items that the plan leaves out as contaminated and the run holds already.
    """
    return conduct(_with_stored(plan, output), output, KIND, **options)


def _count(items: Sequence[Item]) -> dict[str, Any]:
    return {"n": len(items), "sha": text_sha(items_text(items))}


def _with_stored(plan: RunPlan, output: Path) -> RunPlan:
    """The plan with facts about its tasks that count the items which the run holds already."""
    stored = read_run_items(output)
    left_out = plan.data.get("contaminated", {}) if plan.data.get("contaminated_excluded") else {}
    answered = [item for item in left_out if item in stored]
    if answered:
        more = f" and {len(answered) - 1} more of the contaminated items" if len(answered) > 1 else ""
        raise ResumeMismatch(
            f"{output} holds '{answered[0]}'{more}, which a run never loses; give a new --output to leave them out, "
            "nothing was touched."
        )
    by_task: dict[str, list[Item]] = {}
    for item in grow_items(stored, plan.items, output):
        by_task.setdefault(find(item.benchmark).name, []).append(item)
    tasks = {task: {**facts, **_count(by_task.get(task, []))} for task, facts in plan.data["tasks"].items()}
    return replace(plan, probe_file=", ".join(by_task), data={**plan.data, "tasks": tasks})


def _probe(item: Item, max_tokens: int | None) -> Probe:
    made = probe(item)
    return made if max_tokens is None or made.choices else replace(made, max_tokens=max_tokens)


def _refuse_twins(probes: Sequence[Probe]) -> None:
    seen: dict[str, Probe] = {}
    for one in probes:
        other = seen.setdefault(one.id, one)
        if other is not one:
            raise UserError(
                f"the id '{one.id}' stands for an item of {other.benchmark} and one of {one.benchmark}; rename one in "
                "its item file."
            )
