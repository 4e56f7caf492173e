"""Join several runs or foreign logs into one, paired by probe id, so that any two arms can be compared.

Settings and versions that belong to a whole run are kept with each of its arms, because the joined run has more than
one set of them. Nothing is guessed: a probe id with two texts, ids that differ only in case, or an arm without any
record is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lem.errors import UserError
from lem.judges.panel import PANEL, panel_judgements
from lem.records import Record, RunContents, RunInfo, Score
from lem.records.contaminated import joined_contaminated
from lem.records.judge_files import joined_audits, joined_judges, with_arms_renamed

SETTINGS = "settings"  # of the arm's own run


def join_runs(named: Sequence[tuple[str, RunContents]]) -> RunContents:
    """Join runs into one; an arm that several runs have becomes `run:arm` in each of them.

    Args:  named: (name of the run, contents); the names are unique.
    Raises: UserError if one probe id has two texts, or two ids differ only in case.
    """
    refuse_case_twins([probe["id"] for _, run in named for probe in run.info.probes])
    names = _arm_names(named)
    parts = [_with_arms_renamed(run, new) for (_, run), new in zip(named, names, strict=True)]
    kinds = {part.info.kind for part in parts}
    info = RunInfo(
        run_id=" + ".join(name for name, _ in named),
        kind=kinds.pop() if len(kinds) == 1 else "joined",
        status="done" if all(part.info.status == "done" for part in parts) else "incomplete",
        arms={arm: facts for part in parts for arm, facts in part.info.arms.items()},
        settings={"repeats": max(int(part.info.settings.get("repeats", 1)) for part in parts)},
        data=parts[0].info.data if len(parts) == 1 else joined_contaminated(part.info.data for part in parts),
        probes=_joined_probes(named),
        plan=_common_plan([part.info.plan for part in parts]),
        groups={f"{number}:{name}": g for number, part in enumerate(parts) for name, g in _groups(part.info).items()},
        created=min(part.info.created for part in parts),
    )
    scores: dict[str, list[Score]] = {}
    for part in parts:
        for name, rows in part.scores.items():
            scores.setdefault(name, []).extend(rows)
    joined = RunContents(
        info,
        [record for part in parts for record in part.records],
        scores,
        [judgement for part in parts for judgement in part.judgements],
        (*(note for part in parts for note in part.notes), *_plan_note(parts)),
        joined_judges([part.judges for part in parts]),
        joined_audits([part.audits for part in parts]),
    )
    return joined if len(parts) == 1 else _with_panel_anew(joined)


def _with_panel_anew(joined: RunContents) -> RunContents:
    """The runs with the panel over all of them: each run's own was standardised within that run, around 0."""
    anew = panel_judgements(joined)
    derived = {one.dimension for one in anew}
    kept = [one for one in joined.judgements if one.judge != PANEL or one.order or one.dimension not in derived]
    return replace(joined, judgements=[*kept, *anew])


def refuse_case_twins(ids: Sequence[str]) -> None:
    """Refuse probe ids that differ only in case: they would pair nothing, or the wrong thing.   Raises: UserError."""
    seen: dict[str, str] = {}
    for probe_id in ids:
        first = seen.setdefault(probe_id.casefold(), probe_id)
        if first != probe_id:
            raise UserError(
                f"the probe ids '{first}' and '{probe_id}' differ only in case, so it is not known whether they are "
                "one probe; rename one of them."
            )


def _arm_names(named: Sequence[tuple[str, RunContents]]) -> list[dict[str, str]]:
    """For each run, its arms and what they are called in the whole; no two of them alike.   Raises: UserError."""
    counts = Counter(arm for _, run in named for arm in run.info.arms)
    names = []
    for name, run in named:
        new = {arm: f"{name}:{arm}" if counts[arm] > 1 else arm for arm in run.info.arms}
        alone = len(new) == 1 and any(counts[arm] > 1 for arm in new)
        if alone and name not in counts:
            new = dict.fromkeys(new, name)  # a log of one arm needs no more than its own name
        names.append(new)
    taken = Counter(arm for new in names for arm in new.values())
    for arm, count in taken.items():
        if count > 1:
            raise UserError(f"two arms would be called '{arm}'; rename a run's folder or file.")
    return names


def _with_arms_renamed(run: RunContents, new: Mapping[str, str]) -> RunContents:
    facts = {new[arm]: {SETTINGS: run.info.settings, **entry} for arm, entry in run.info.arms.items()}
    groups = {key: {**group, "arm": new.get(group["arm"], group["arm"])} for key, group in run.info.groups.items()}

    def renamed(item: Any) -> Any:
        return item if new.get(item.arm, item.arm) == item.arm else replace(item, arm=new[item.arm])

    records: list[Record] = [renamed(record) for record in run.records]
    scores: dict[str, list[Score]] = {scorer: [renamed(row) for row in rows] for scorer, rows in run.scores.items()}
    judgements = [replace(renamed(row), against=new.get(row.against, row.against)) for row in run.judgements]
    judges = {name: with_arms_renamed(manifest, new) for name, manifest in run.judges.items()}
    return RunContents(
        replace(run.info, arms=facts, groups=groups), records, scores, judgements, run.notes, judges, run.audits
    )


def _common_plan(plans: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one plan that runs were made under; {} when there is none, or more than one."""
    distinct = {str(plan["sha"]): plan for plan in plans if plan}
    return next(iter(distinct.values())) if len(distinct) == 1 else {}


def _plan_note(parts: Sequence[RunContents]) -> list[str]:
    plans = {str(part.info.plan["sha"]) for part in parts if part.info.plan}
    return [] if len(plans) < 2 else ["the runs were made under different plans, so none of them is applied."]


def _groups(info: RunInfo) -> dict[str, dict[str, Any]]:
    """The decoding groups; for a run without them one group per arm and repeat, so that missing cells stay known."""
    if info.groups:
        return info.groups
    probes = [probe["id"] for probe in info.probes]
    repeats = range(int(info.settings.get("repeats", 1)))
    return {f"{arm}/{r}": {"arm": arm, "repeat": r, "probes": probes} for arm in info.arms for r in repeats}


def _joined_probes(named: Sequence[tuple[str, RunContents]]) -> list[dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    owner: dict[str, str] = {}
    for name, run in named:
        for probe in run.info.probes:
            known = found.setdefault(probe["id"], dict(probe))
            first = owner.setdefault(probe["id"], name)
            if probe.get("prompt") and known.get("prompt") and probe["prompt"] != known["prompt"]:
                raise UserError(
                    f"probe {probe['id']} has another text in {name} than in {first}, so their answers cannot be "
                    "compared; compare runs over the same probe file."
                )
            for field in ("prompt", "domain", "source", "benchmark"):
                if probe.get(field) and not known.get(field):
                    known[field] = probe[field]
    return list(found.values())
