"""An audit from start to end: plan, ask, measure, hold against the bounds, and write the summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lem.data.items import read_run_items
from lem.errors import UserError
from lem.judges.audit.agreement import JudgeAgreement, judge_agreement, not_compared
from lem.judges.audit.canaries import canaries_sha
from lem.judges.audit.history import Finding, deciding, earlier_findings, findings, refuse_other_judge, scope, standing
from lem.judges.audit.manner import manner_notes
from lem.judges.audit.measures import ALPHA, Measure, measures, unscored_reasons
from lem.judges.audit.plan import RATING, AuditPlan, AuditSettings, plan_audit
from lem.judges.audit.replies import AuditPass, ask_audit, audit_file, write_summary
from lem.judges.audit.verdict import HUMANS, Check, Trust, check, sentence, trust
from lem.judges.calls import LOCAL, benchmark_of, version_of
from lem.judges.human import HumanAgreement, human_agreement, read_labels
from lem.judges.protocol import Judge, JudgeIdentity, Reply
from lem.judges.rubrics import Rubric, rubrics_for
from lem.judges.series import rubric_hashes
from lem.paths import slug
from lem.records import RunContents, read_contents
from lem.records.run import now

SAME_BY_CONSTRUCTION = (
    "a local judge at temperature 0 says the same when the same is asked; 'asked again' therefore means with another "
    "item code and, where several dimensions are in one call, in reverse order"
)


@dataclass(frozen=True)
class Audit:
    """What an audit found: the checks, the other measures, agreement with judges and people, and the verdict.

    `earlier` is what audits of this judge found before and this one did not make again; the verdict rests on it, too.
    """

    judge: str
    verdict: Trust
    sentence: str
    checks: tuple[Check, ...]
    earlier: tuple[Finding, ...]
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
    Raises: UserError if the run has no answer that could be used; ResumeMismatch for another judge than the one that
    judged or was audited under this name; what reading and asking raise.
    """
    contents = read_contents(run)
    before = contents.audits.get(judge.identity.name)
    refuse_other_judge(run, judge.identity, before)
    earlier = earlier_findings(before, version_of(judge.identity), audit_file(run, judge.identity.name, ".json"))
    chosen, items = _rubrics(contents, rubrics) if RATING in settings.instruments else {}, read_run_items(run)
    plan = plan_audit(contents, items, chosen, settings, judge.identity)
    if not plan.n_answers:
        raise UserError(f"{run} holds no answer that a judge could be tried on; generate answers first.")
    done = ask_audit(run, judge, plan.calls, on_start=on_start, on_reply=on_reply)
    known = (SAME_BY_CONSTRUCTION,) if judge.identity.backend == LOCAL else ()
    notes = (*plan.notes, *known, *manner_notes(contents, items, chosen, settings, judge.identity), *notes)
    return _concluded(run, judge.identity, contents, settings, plan, done, earlier, notes, dict(facts or {}))


def _rubrics(contents: RunContents, named: Sequence[Rubric]) -> dict[str, list[Rubric]]:
    """The rubrics of each benchmark; named ones where they belong, or everywhere if they belong to none of the run."""
    benchmarks = dict.fromkeys(benchmark_of(entry) for entry in contents.info.probes)
    if not named:
        return {name: rubrics_for(name) for name in benchmarks}
    found = {name: [one for one in named if name in one.benchmarks] for name in benchmarks}
    return found if any(found.values()) else {name: list(named) for name in benchmarks}


def _concluded(
    run: Path, identity: JudgeIdentity, contents: RunContents, settings: AuditSettings, plan: AuditPlan,
    done: AuditPass, before: Sequence[Finding], notes: tuple[str, ...], facts: dict[str, Any],
) -> Audit:  # fmt: skip
    labels, rubrics = read_labels(run), rubric_hashes(contents.judges)
    humans = tuple(one for one in human_agreement(labels, contents.judgements, rubrics) if one.judge == identity.name)
    measured = [*measures(done.rows, plan.widest), *(_as_measure(one) for one in humans)]
    checks = tuple(check(measured))
    failed = sum(row.error is not None for row in done.rows)
    complete = not (failed or done.missing)
    found = findings(checks, plan.calls, settings, now())
    earlier = tuple(standing(found, before, complete=complete))
    current = deciding(checks, found, earlier)
    older = [one.check for one in earlier]
    verdict = trust([*current, *older], complete=complete)
    held = {one.measure.name for one in checks}
    audit = Audit(
        judge=identity.name,
        verdict=verdict,
        sentence=sentence(identity.name, current, verdict, complete=complete, earlier=older),
        checks=checks,
        earlier=earlier,
        others=tuple(one for one in measured if one.name not in held),
        judges=tuple(one for one in judge_agreement(contents.judgements, rubrics) if identity.name in one.judges),
        humans=humans,
        unscored=unscored_reasons(done.rows),
        failed=failed,
        missing=done.missing,
        notes=(*notes, *not_compared(labels, contents.judgements, identity.name, rubrics), *_kept(identity, earlier)),
        path=run,
    )
    document = {**summary(audit, found), **_sample(identity, settings, plan, done), **facts}
    return replace(audit, path=write_summary(run, identity.name, document))


def _kept(identity: JudgeIdentity, earlier: Sequence[Finding]) -> list[str]:
    """What to say of findings that this audit did not make again."""
    if not earlier:
        return []
    n = max(one.check.measure.estimate.n for one in earlier)
    return [
        f"{len(earlier)} findings of an earlier audit of '{identity.name}' stand, because this one did not make them "
        f"again on as many answers (up to {n}) of the same seed and all of their dimensions, in the same manner; an "
        f"audit that does takes their place, and removing audits/{slug(identity.name)}.json and .jsonl forgets them"
    ]


def _as_measure(one: HumanAgreement) -> Measure:
    series = one.dimension + (f" against {one.against}" if one.against else "")
    return Measure(f"{HUMANS} · {series}", f"agreement with people on {series}", one.alpha, ALPHA)


def summary(audit: Audit, found: Sequence[Finding]) -> dict[str, Any]:
    """The audit as the object of `audits/<judge>.json`; estimates are objects.

    Args:  found: the checks with what they were made on.
    """
    scopes = {one.check.measure.name: scope(one) for one in found}
    return {
        "judge": audit.judge,
        "verdict": str(audit.verdict),
        "sentence": audit.sentence,
        "checks": [{**_checked(one), **scopes.get(one.measure.name, {})} for one in audit.checks],
        "earlier": [{**_checked(one.check), **scope(one)} for one in audit.earlier],
        "others": [_entry(one) for one in audit.others],
        "judges": list(audit.judges),
        "humans": list(audit.humans),
        "unscored": audit.unscored,
        "failed": audit.failed,
        "missing": audit.missing,
        "notes": list(audit.notes),
    }


def _checked(one: Check) -> dict[str, Any]:
    bound = [one.bound.low, one.bound.high]
    return {**_entry(one.measure), "status": str(one.status), "bound": bound, "reason": one.bound.reason}


def _entry(one: Measure) -> dict[str, Any]:
    return {"name": one.name, "about": one.about, "unit": one.unit, "estimate": one.estimate, "counts": one.counts}


def _sample(identity: JudgeIdentity, settings: AuditSettings, plan: AuditPlan, done: AuditPass) -> dict[str, Any]:
    costs = [row.cost for row in done.rows]
    tokens = [(row.n_prompt_tokens, row.n_tokens) for row in done.rows]
    return {
        "identity": identity,
        "version": version_of(identity),
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
