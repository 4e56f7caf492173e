"""An audit from start to end: plan, ask, measure, hold against the bounds, and write the summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.data.items import read_run_items
from lem.errors import UserError
from lem.judges.agreement import JudgeAgreement, judge_agreement
from lem.judges.audit import AuditPass, ask_audit, write_summary
from lem.judges.audit_measures import ALPHA, Measure, measures, unscored_reasons
from lem.judges.audit_plan import RATING, AuditPlan, AuditSettings, plan_audit
from lem.judges.audit_verdict import HUMANS, Check, Trust, check, sentence, trust
from lem.judges.calls import LOCAL, benchmark_of
from lem.judges.canaries import canaries_sha
from lem.judges.human import HumanAgreement, human_agreement, read_labels
from lem.judges.protocol import Judge, JudgeIdentity, Reply
from lem.judges.rubrics import Rubric, rubrics_for
from lem.records import RunContents, read_contents
from lem.records.judge_files import read_judge_manifests
from lem.records.run import now

SAME_BY_CONSTRUCTION = (
    "a local judge at temperature 0 says the same when the same is asked; 'asked again' therefore means with another "
    "item code and, where several dimensions are in one call, in reverse order"
)


@dataclass(frozen=True)
class Audit:
    """What an audit found: the checks, the other measures, agreement with judges and people, and the verdict."""

    judge: str
    verdict: Trust
    sentence: str
    checks: tuple[Check, ...]
    others: tuple[Measure, ...]
    judges: tuple[JudgeAgreement, ...]
    humans: tuple[HumanAgreement, ...]
    unscored: dict[str, int]
    failed: int
    missing: int
    notes: tuple[str, ...]
    path: Path


def audit_run(
    run: Path,
    judge: Judge,
    settings: AuditSettings,
    *,
    rubrics: Sequence[Rubric] = (),
    notes: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    on_start: Callable[[int, int], None] = lambda total, missing: None,
    on_reply: Callable[[Reply], None] = lambda reply: None,
) -> Audit:
    """Audit a judge on a run; what was answered by an earlier audit of the same questions is not asked again.

    Args:  rubrics: rate on these and not on those of each benchmark.  notes, facts: what else the summary shall say.
    Raises: UserError if the run has no answer that could be used; what reading and asking raise.
    """
    contents = read_contents(run)
    chosen = _rubrics(contents, rubrics) if RATING in settings.instruments else {}
    plan = plan_audit(contents, read_run_items(run), chosen, settings, judge.identity)
    if not plan.n_answers:
        raise UserError(f"{run} holds no answer that a judge could be tried on; generate answers first.")
    done = ask_audit(run, judge, plan.calls, on_start=on_start, on_reply=on_reply)
    return _concluded(run, judge.identity, contents, settings, plan, done, tuple(notes), dict(facts or {}))


def _rubrics(contents: RunContents, named: Sequence[Rubric]) -> dict[str, list[Rubric]]:
    benchmarks = dict.fromkeys(benchmark_of(entry) for entry in contents.info.probes)
    return {name: list(named) or rubrics_for(name) for name in benchmarks}


def _concluded(
    run: Path, identity: JudgeIdentity, contents: RunContents, settings: AuditSettings, plan: AuditPlan,
    done: AuditPass, notes: tuple[str, ...], facts: dict[str, Any],
) -> Audit:  # fmt: skip
    humans = tuple(one for one in human_agreement(read_labels(run), contents.judgements) if one.judge == identity.name)
    found = [*measures(done.rows), *(_as_measure(one) for one in humans)]
    checks = tuple(check(found))
    failed = sum(row.error is not None for row in done.rows)
    complete = not (failed or done.missing)
    verdict = trust(checks, complete=complete)
    held = {one.measure.name for one in checks}
    known = (SAME_BY_CONSTRUCTION,) if identity.backend == LOCAL else ()
    notes = (*plan.notes, *known, *_other_judge(run, identity), *notes)
    audit = Audit(
        judge=identity.name,
        verdict=verdict,
        sentence=sentence(identity.name, checks, verdict, complete=complete),
        checks=checks,
        others=tuple(one for one in found if one.name not in held),
        judges=tuple(one for one in judge_agreement(contents.judgements) if identity.name in one.judges),
        humans=humans,
        unscored=unscored_reasons(done.rows),
        failed=failed,
        missing=done.missing,
        notes=notes,
        path=run,
    )
    path = write_summary(run, identity.name, {**summary(audit), **_sample(identity, settings, plan, done), **facts})
    return Audit(**{**audit.__dict__, "path": path})


def _other_judge(run: Path, identity: JudgeIdentity) -> list[str]:
    """What to say when the judgements under this name were made by another model or with other settings."""
    manifest = read_judge_manifests(run).get(identity.name)
    model = identity.backend != LOCAL  # of a local one the weights' hashes count, which are among the settings
    fields = ("backend", "settings", *(("model",) if model else ()))
    if manifest is None or all(manifest.get(name) == getattr(identity, name) for name in fields):
        return []
    return [f"the judgements by '{identity.name}' in this run were made with another model or other settings"]


def _as_measure(one: HumanAgreement) -> Measure:
    series = one.dimension + (f" against {one.against}" if one.against else "")
    return Measure(f"{HUMANS} · {series}", f"agreement with people on {series}", one.alpha, ALPHA)


def summary(audit: Audit) -> dict[str, Any]:
    """The audit as the object of `audits/<judge>.json`; estimates are objects."""
    return {
        "judge": audit.judge,
        "verdict": str(audit.verdict),
        "sentence": audit.sentence,
        "checks": [
            {**_entry(one.measure), "status": str(one.status), "bound": [one.bound.low, one.bound.high],
             "reason": one.bound.reason}
            for one in audit.checks
        ],
        "others": [_entry(one) for one in audit.others],
        "judges": list(audit.judges),
        "humans": list(audit.humans),
        "unscored": audit.unscored,
        "failed": audit.failed,
        "missing": audit.missing,
        "notes": list(audit.notes),
    }  # fmt: skip


def _entry(one: Measure) -> dict[str, Any]:
    return {"name": one.name, "about": one.about, "unit": one.unit, "estimate": one.estimate, "counts": one.counts}


def _sample(identity: JudgeIdentity, settings: AuditSettings, plan: AuditPlan, done: AuditPass) -> dict[str, Any]:
    costs = [row.cost for row in done.rows]
    tokens = [(row.n_prompt_tokens, row.n_tokens) for row in done.rows]
    return {
        "identity": identity,
        "settings": settings,
        "canaries": canaries_sha(),
        "n_answers": plan.n_answers,
        "n_pairs": plan.n_pairs,
        "calls": len(plan.calls),
        "n_prompt_tokens": None if any(one is None for one, _ in tokens) else sum(one or 0 for one, _ in tokens),
        "n_tokens": None if any(one is None for _, one in tokens) else sum(one or 0 for _, one in tokens),
        "cost": None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs),
        "reported_models": sorted({row.model for row in done.rows if row.model}),
        "updated": now(),
    }
