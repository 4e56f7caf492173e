"""What a curriculum leaves for readers: `curriculum.json`, the table and the plot, all derived from its log."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lem.paths import display_path, slug
from lem.records import write_atomic
from lem.reports.curriculum_plot import draw_curriculum
from lem.reports.curriculum_table import CurriculumHead, CurriculumRow, curriculum_markdown
from lem.reports.tables import plain
from lem.runs.plan import Arm
from lem.stats import Estimate
from lem.studies.curriculum_arms import BASE, scorers_of
from lem.studies.curriculum_plan import CurriculumPlan
from lem.studies.curriculum_state import Position, replay
from lem.studies.measures import Measures

Row = Mapping[str, Any]
Status = Literal["passed", "stopped", "incomplete"]
_SCHEMA = 1


def arm_row(plan: CurriculumPlan, measures: Measures, arm: Arm) -> dict[str, Any]:
    """The measures of an arm as they stand in the log."""
    means = {name: measures.mean(name, plan.domains) for name in scorers_of(plan)}
    row: dict[str, Any] = plain(
        {
            "arm": arm.name,
            "asked": "sandwich" if arm.kernel else "freeflow",
            "n_answers": measures.n_answers,
            "n_failed": measures.n_failed,
            "n_unscored": dict(measures.n_unscored),
            "scores": means,
            "degenerate": measures.degenerate,
            "truncated": measures.truncated,
            "words": measures.words,
        }
    )
    return row


def position_of(plan: CurriculumPlan, log: Sequence[Row]) -> Position:
    """Where a log leads to."""
    return replay([row for row in log if row["kind"] == "decision"], plan.numbers)


def status_of(position: Position) -> Status:
    """passed: every phase was accepted; stopped: by a gate; incomplete: there is more to do."""
    return "passed" if position.finished else "stopped" if position.stopped else "incomplete"


def summary(plan: CurriculumPlan, log: Sequence[Row]) -> dict[str, Any]:
    """The summary as one JSON object: status, accepted attempts, the adapter to use, decisions with their numbers."""
    position = position_of(plan, log)
    last = position.chain[-1] if position.chain else None
    return {
        "schema": _SCHEMA,
        "status": status_of(position),
        "model": plan.model_name,
        "file": display_path(plan.file),
        "quick": plan.quick,
        "n_probes": len(plan.probes),
        "accepted": [attempt.label for attempt in position.chain],
        "adapter": str(plan.folder(last).relative_to(plan.output)) if last else None,
        "next": position.next.label if position.next else None,
        "notes": list(_notes(plan)),
        "base": [row["arms"] for row in log if row["kind"] == "base"][:1],
        "decisions": [dict(row) for row in log if row["kind"] == "decision"],
    }


def write_summary(plan: CurriculumPlan, log: Sequence[Row], *, plot: bool = True) -> None:
    """Write `curriculum.json`, `curriculum.md` and, if wanted, `curriculum.png` anew; nothing before base was asked."""
    rows, head = table_rows(plan, log), table_head(plan)
    if not rows:
        return
    text = json.dumps(plain(summary(plan, log)), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(plan.output / "curriculum.json", text + "\n")
    write_atomic(plan.output / "curriculum.md", curriculum_markdown(rows, head, _decisions(log)))
    if plot:
        draw_curriculum(rows, head, plan.output / "curriculum.png")


def table_head(plan: CurriculumPlan) -> CurriculumHead:
    """What stands around the table."""
    settings = plan.generation
    probes = (
        f"{len(plan.probes)} probes of {plan.probe_file.name}, up to {settings.max_tokens} tokens, temperature "
        f"{settings.temperature:g}"
    )
    return CurriculumHead(slug(plan.model), probes, list(_notes(plan)))


def table_rows(plan: CurriculumPlan, log: Sequence[Row]) -> list[CurriculumRow]:
    """One row for every arm in the log: base, then the attempts in the order in which they were judged."""
    accepted = {attempt.label for attempt in position_of(plan, log).chain}
    rows = [_arm(arm, {}, "", accepted=True) for row in log if row["kind"] == "base" for arm in row["arms"]]
    for row in (row for row in log if row["kind"] == "decision"):
        label = f"{row['phase']}.{row['attempt']}"
        action = action_name(row)
        for arm in row["arms"]:
            rows.append(_arm(arm, row, action, accepted=label in accepted))
            action = ""
    return rows


def _arm(arm: Row, row: Row, action: str, *, accepted: bool) -> CurriculumRow:
    asked = arm["asked"]
    target = row.get("target") if asked == row.get("asked") else None
    change = row["change"]["difference"] if row and asked == "freeflow" else None
    mean = _estimate(arm["scores"]["v2"])
    return CurriculumRow(
        label=f"{row['phase']}.{row['attempt']}" if row else BASE,
        name=row.get("name", ""),
        trained=row.get("format", ""),
        asked=asked,
        n=mean.n,
        n_unscored=arm["n_unscored"]["v2"],
        n_failed=arm["n_failed"],
        mean=mean,
        change=_estimate(change) if change else None,
        previous=row.get("parent", ""),
        target=target["value"] if target and target["scorer"] == "v2" else None,
        degenerate=_estimate(arm["degenerate"]),
        words=_number(arm["words"]),
        truncated=_estimate(arm["truncated"]),
        action=action,
        accepted=accepted,
    )


def action_name(row: Row) -> str:
    """`go on`, `finished`, `repeat`, `back to 1` or `stop`."""
    if row["action"] == "go-on":
        return "finished" if row["next_phase"] is None else "go on"
    return f"back to {row['next_phase']}" if row["action"] == "back" else str(row["action"])


def _decisions(log: Sequence[Row]) -> list[tuple[str, list[str]]]:
    rows = [row for row in log if row["kind"] == "decision"]
    return [
        (
            f"{row['phase']}.{row['attempt']} {row['name']}: {action_name(row)}. {row['sentence'].capitalize()}.",
            [f"{gate['gate']}: {gate['sentence']}" for gate in row["gates"]],
        )
        for row in rows
    ]


def _notes(plan: CurriculumPlan) -> list[str]:
    if not plan.quick or plan.curriculum.quick is None:
        return []
    return [f"Quick run: {plan.curriculum.quick.iters} iterations a phase; it tries the pipeline and decides nothing."]


def _estimate(fields: Row) -> Estimate:
    numbers = {name: _number(value) for name, value in fields.items() if name in ("value", "stderr", "low", "high")}
    return Estimate(**{**fields, **numbers})


def _number(value: float | None) -> float:
    return math.nan if value is None else value
