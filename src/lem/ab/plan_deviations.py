"""Every difference between a plan and the run that was made under it, one sentence each; an empty list is the goal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from lem.ab.plan import ARM_FACTS
from lem.ab.throughput import read_time
from lem.records import Outcome, RunContents, metrics_of, text_sha

_LISTED = 5
_SETTINGS = ("max_tokens", "temperature", "top_p", "seed")
_WITH = {"adapter": "an adapter", "kernel": "a kernel"}
_FACT_NAMES = {
    "model_sha": "weights",
    "adapter_sha": "adapter weights",
    "kernel_sha": "kernel text",
    "adapter_scale": "adapter scale",
    "bits": "bits of the weights",
    "inject": "place of the kernel",
}


def deviations(plan: Mapping[str, Any], contents: RunContents, *, compared: Collection[str] = ()) -> list[str]:
    """What the run did otherwise than planned, or did not do, in the order: when, probes, arms, settings, answers.

    Args:  plan: as `read_plan` returns it, or as a run holds it.  contents: the run, alone or joined with others.
           compared: ids of the probes that entered a comparison, in which excluded ones have no place.
    """
    return [
        *_timing(plan, contents),
        *_probes(plan, contents),
        *_exclusions(plan, compared),
        *_arms(plan, contents),
        *_settings(plan, contents),
        *_repeats(plan, contents),
        *_metrics(plan, contents),
        *_cells(plan, contents),
    ]


def _timing(plan: Mapping[str, Any], contents: RunContents) -> list[str]:
    found = []
    stored, sha = contents.info.plan.get("sha"), plan.get("sha")
    if not contents.info.plan:
        found.append("The run was not made under a plan; this one was named afterwards.")
    elif stored != sha:
        found.append(f"The run was made under another plan (hash {str(stored)[:12]}, this one has {str(sha)[:12]}).")
    made = read_time(str(plan.get("created", "")))
    first = min((time for record in contents.records if (time := read_time(record.ts))), default=None)
    if made is not None and first is not None and first < made:
        found.append(f"The plan was made on {plan['created']}, after the first answer ({first.isoformat()}).")
    return found


def _probes(plan: Mapping[str, Any], contents: RunContents) -> list[str]:
    run = {probe["id"]: probe for probe in contents.info.probes}
    if "probes" not in plan:
        return _probe_file(plan, contents)
    planned = {probe["id"]: probe for probe in plan["probes"]}
    both = [probe for probe in planned if probe in run]
    other_text = [p for p in both if run[p].get("prompt") and text_sha(run[p]["prompt"])[:16] != planned[p]["sha"]]
    other_domain = [p for p in both if run[p].get("domain", "") != planned[p]["domain"]]
    other_source = [p for p in both if (run[p].get("source") or p) != (planned[p].get("source") or p)]
    added = [probe for probe in run if probe not in planned]
    return [
        *_listed("planned probe", [p for p in planned if p not in run], "not in the run"),
        *_listed("probe", added, "in the run and not in the plan"),
        *_listed("probe", other_text, "asked in another text than planned"),
        *_listed("probe", other_domain, "in another domain than planned"),
        *_listed("probe", other_source, "a variant of another probe than planned"),
    ]


def _probe_file(plan: Mapping[str, Any], contents: RunContents) -> list[str]:
    """Without the single probes in the plan, their number and the hash of their file must do."""
    found = []
    asked = len(contents.info.probes)
    if plan.get("n_probes") not in (None, asked):
        found.append(f"{plan['n_probes']} probes were planned and the run has {asked}.")
    sha = contents.info.data.get("probe_sha")
    if sha and plan.get("probe_sha") and sha != plan["probe_sha"]:
        found.append("The probe file has another content than planned.")
    return found


def _listed(noun: str, ids: Sequence[str], what: str) -> list[str]:
    if not ids:
        return []
    shown = ", ".join(ids[:_LISTED]) + (f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else "")
    return [f"{len(ids)} {noun}{'s are' if len(ids) > 1 else ' is'} {what}: {shown}."]


def _excluded(plan: Mapping[str, Any]) -> dict[str, str]:
    return {entry["probe_id"]: entry["reason"] for entry in plan.get("exclusions", [])}


def _exclusions(plan: Mapping[str, Any], compared: Collection[str]) -> list[str]:
    return [
        f"Probe {probe} was to be excluded ({reason}), but it was compared."
        for probe, reason in _excluded(plan).items()
        if probe in compared
    ]


def _arms(plan: Mapping[str, Any], contents: RunContents) -> list[str]:
    planned = {arm["name"]: arm for arm in plan.get("arms", [])}
    run = contents.info.arms
    found = [f"Arm '{name}' was planned and is not in the run." for name in planned if name not in run]
    found += [f"Arm '{name}' is in the run and was not planned." for name in run if name not in planned]
    if plan.get("baseline") and plan["baseline"] not in run:
        found.append(f"The declared baseline '{plan['baseline']}' is not in the run.")
    for name, facts in planned.items():
        if name in run:
            found += [f"Arm '{name}': {difference}." for difference in _fact_differences(facts, run[name])]
    return found


def _fact_differences(planned: Mapping[str, Any], run: Mapping[str, Any]) -> Iterable[str]:
    """Differences in what decides answers; a fact that the plan left open (an adapter to be trained) is none."""
    for key in ARM_FACTS:
        before, after = planned.get(key), run.get(key)
        if key in ("model", "adapter", "kernel"):  # where it stood: only what it was counts, by its hash
            if (before is None) != (after is None) and key != "model":
                yield f"it has {f'no {key}' if after is None else _WITH[key]}, unlike the plan"
        elif key == "adapter_scale":
            if (before or 1) != (after or 1):
                yield f"the adapter scale is {after or 1:g}, {before or 1:g} was planned"
        elif before is not None and after is not None and before != after:
            name = _FACT_NAMES[key]
            shown = f" ({after}, planned {before})" if not key.endswith("_sha") else ""
            yield f"the {name} {'are' if name.endswith(('weights', 'bits')) else 'is'} not as planned{shown}"


def _settings(plan: Mapping[str, Any], contents: RunContents) -> list[str]:
    """Settings of each arm's own run, so that joined runs are told apart; one sentence per setting and value."""
    planned = plan.get("settings", {})
    found: dict[str, list[str]] = {}
    names = [arm["name"] for arm in plan.get("arms", []) if arm["name"] in contents.info.arms]
    for name in names:
        settings = contents.info.arms[name].get("settings") or contents.info.settings
        for key in _SETTINGS:
            if key in settings and key in planned and settings[key] != planned[key]:
                sentence = f"{key.replace('_', '-')} was {settings[key]}, {planned[key]} was planned"
                found.setdefault(sentence, []).append(name)
    return [
        f"{sentence}."
        if len(arms) == len(names)
        else f"Arm{'s' if len(arms) > 1 else ''} {', '.join(arms)}: {sentence}."
        for sentence, arms in found.items()
    ]


def _repeats(plan: Mapping[str, Any], contents: RunContents) -> list[str]:
    made, planned = int(contents.info.settings.get("repeats", 1)), plan.get("repeats")
    if planned in (None, made):
        return []
    return [
        f"The run has {made} repeat{'s' if made > 1 else ''}, {planned} {'was' if planned == 1 else 'were'} planned."
    ]


def _metrics(plan: Mapping[str, Any], contents: RunContents) -> list[str]:
    metrics = {metric.name: metric for metric in metrics_of(contents)}
    found = []
    for name, treatment in plan.get("primary", []):
        if name not in metrics:
            found.append(f"The primary metric '{name}' was not computed.")
            continue
        scored = {cell.key.arm for cell in metrics[name].cells if cell.outcome is Outcome.SCORED}
        found += [
            f"The primary metric '{name}' has no value in arm '{arm}'."
            for arm in (treatment, plan["baseline"])
            if arm in contents.info.arms and arm not in scored
        ]
    known = [
        f"The margin of '{name}' is for a metric that was not computed."
        for name in plan.get("margins", {})
        if name not in metrics
    ]
    return list(dict.fromkeys([*found, *known]))


def _cells(plan: Mapping[str, Any], contents: RunContents) -> list[str]:
    """Planned answers that are missing or failed, per arm; what no arm or probe of the run can have is told above."""
    probes = [probe["id"] for probe in plan.get("probes", contents.info.probes)]
    asked = {probe["id"] for probe in contents.info.probes}
    repeats = min(int(plan.get("repeats", 1)), int(contents.info.settings.get("repeats", 1)))
    states = {record.key: record.failed for record in contents.records}
    found = []
    for arm in plan.get("arms", []):
        name = arm["name"]
        if name not in contents.info.arms:
            continue
        cells = [(name, probe, repeat) for probe in probes if probe in asked for repeat in range(repeats)]
        counts = Counter("missing" if cell not in states else "failed" if states[cell] else "there" for cell in cells)
        lost = [f"{counts[state]} {state}" for state in ("missing", "failed") if counts[state]]
        if lost:
            found.append(f"Arm '{name}': of {len(cells)} planned answers {' and '.join(lost)}.")
    return found
