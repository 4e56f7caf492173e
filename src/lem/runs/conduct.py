"""Conduct a run: execute a plan, arm by arm, into a run directory. Used by A/B runs and distillation.

A run may gain probes, repeats and arms; it never loses them, and what contradicts a stored record is refused before
anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lem.chat.device import describe_device, free_memory_bytes
from lem.chat.generate import prefix_of
from lem.data import Probe
from lem.errors import ResumeMismatch
from lem.records import Key, Record, RunDirectory, RunInfo, open_run
from lem.records.run import versions
from lem.runs.execute import (
    Outcome,
    check_resume,
    count_duplicate_repeats,
    execute,
    is_missing,
    missing_groups,
    pending_jobs,
)
from lem.runs.groups import Row, choose_group_size, cut_groups
from lem.runs.plan import RenderedArm, RunPlan, render_plan
from lem.runs.workers import decoders_at_once, open_decoder


def conduct(
    plan: RunPlan,
    output: Path,
    kind: str,
    *,
    on_start: Callable[[int, int], None] = lambda total, missing: None,
    on_record: Callable[[Record], None] = lambda record: None,
    on_load: Callable[[str], None] = lambda what: None,
) -> Outcome:
    """Execute a plan into a run directory, resuming what is there.

    Args:  kind: what the run is for ("benchmark", "distill"); a directory of another kind is refused.
           on_start: called once with (cells of the plan, cells still to generate).  on_record: after each record.
           on_load: with a description before weights are loaded.
    Returns: counts over the whole plan.   Raises: ResumeMismatch before anything is written.
    """
    render_plan(plan)  # what is wrong with models, adapters or kernels is said before anything is created
    with open_run(output, kind, output.name) as run:
        plan = _grow(plan, run)
        arms = render_plan(plan)
        _check_arms(plan, arms, run)
        for arm in arms:
            check_resume(run, list(arm.requests.values()))
        _write_manifest(plan, arms, run)
        missing = [arm for arm in arms if missing_groups(run, set(arm.requests))]
        n_missing = sum(is_missing(run, key) for arm in arms for key in arm.requests)
        on_start(sum(len(arm.requests) for arm in arms), n_missing)
        written = failed = 0
        try:
            for model, adapter, together in _by_weights(missing):
                on_load(model if adapter is None else f"{model} + {adapter}")
                requests = {key: request for arm in together for key, request in arm.requests.items()}
                jobs = pending_jobs(run, requests)
                with open_decoder(model, adapter, jobs, plan.settings) as decoder:
                    outcome = execute(run, requests, decoder.decode(jobs, plan.settings), on_record)
                written, failed = written + outcome.written, failed + outcome.failed
        except BaseException:
            run.save("incomplete")
            raise
        counts = count_cells(run.info, list(run.records.values()))
        run.save("incomplete" if counts["missing"] or counts["failed"] else "done")
    return Outcome(written, sum(len(arm.requests) for arm in arms) - written, failed)


def _by_weights(arms: Sequence[RenderedArm]) -> Iterator[tuple[str, str | None, list[RenderedArm]]]:
    """Group arms by (model, adapter), so that each set of weights is loaded once."""
    groups: dict[tuple[str, str | None], list[RenderedArm]] = {}
    for rendered in arms:
        groups.setdefault((rendered.arm.model, rendered.arm.adapter), []).append(rendered)
    for (model, adapter), together in groups.items():
        yield model, adapter, together


def _grow(plan: RunPlan, run: RunDirectory) -> RunPlan:
    """Join the plan with what the run already holds: probes and repeats can be added, never taken away.

    Raises: ResumeMismatch if a probe's text or domain differs from the run's.
    """
    known = {entry["id"]: Probe(**entry) for entry in run.info.probes}
    for probe in plan.probes:
        if probe.id in known and known[probe.id] != probe:
            raise ResumeMismatch(
                f"{run.path} holds another text or domain for probe {probe.id}; give a new --output, nothing was "
                "touched."
            )
    joined = {**known, **{probe.id: probe for probe in plan.probes}}
    repeats = max(plan.repeats, int(run.info.settings.get("repeats", 1)))
    return replace(plan, probes=tuple(joined.values()), repeats=repeats)


def _check_arms(plan: RunPlan, arms: Sequence[RenderedArm], run: RunDirectory) -> None:
    """Refuse an arm whose weights changed, and another group size.   Raises: ResumeMismatch; nothing was written."""
    for rendered in arms:
        before = run.info.arms.get(rendered.arm.name)
        if before is not None and before["identity"] != rendered.facts["identity"]:
            raise ResumeMismatch(
                f"{run.path}: arm '{rendered.arm.name}' was made with other weights (was the model or adapter made "
                "anew?); give a new --output, nothing was touched."
            )
    if run.info.group_size is not None and plan.group_size not in (None, run.info.group_size):
        raise ResumeMismatch(
            f"{run.path} was decoded in groups of {run.info.group_size}, not {plan.group_size}; leave out --strict and "
            "--group-size or give a new --output, nothing was touched."
        )


def _write_manifest(plan: RunPlan, arms: Sequence[RenderedArm], run: RunDirectory) -> None:
    info = run.info
    info.arms.update({rendered.arm.name: rendered.facts for rendered in arms})
    if info.group_size is None:
        longest = max(arm.longest_prompt for arm in arms) + plan.settings.max_tokens
        memory = free_memory_bytes() // decoders_at_once()
        info.group_size = plan.group_size or choose_group_size(arms[0].config, longest, memory)
    rows = [Row(key, len(request.tokens)) for arm in arms for key, request in arm.requests.items()]
    prefixes = {arm.arm.name: len(prefix_of([r.tokens for r in arm.requests.values()])) for arm in arms}
    info.groups = cut_groups(rows, info.groups, info.group_size)
    for group in info.groups.values():  # a group keeps its prefix when the arm grows
        group.setdefault("prefix_tokens", prefixes.get(group["arm"], 0))
    info.probes = [probe.to_entry() for probe in plan.probes]
    info.data = {"probe_file": plan.probe_file, "probe_sha": plan.probe_sha, "n_probes": len(plan.probes)}
    info.settings = {**asdict(plan.settings), "repeats": plan.repeats, "seed": plan.seed, "inject": plan.inject}
    info.device, info.versions = describe_device(), versions()
    info.command = list(plan.command)
    run.save("running")


def count_cells(info: RunInfo, records: Sequence[Record]) -> dict[str, Any]:
    """Count a run's cells by outcome: answered, failed, missing, truncated, and duplicates among repeats at T > 0.

    `incomplete_arms` names the arms in which something failed or is missing.
    """
    cells = [Key(g["arm"], probe, g["repeat"]) for g in info.groups.values() for probe in g["probes"]]
    good = {record.key for record in records if not record.failed}
    failed = sum(record.failed for record in records)
    sampled = float(info.settings.get("temperature", 0)) > 0
    return {
        "planned": len(cells),
        "answered": len(records) - failed,
        "failed": failed,
        "missing": len(cells) - len(records),
        "incomplete_arms": list(dict.fromkeys(cell.arm for cell in cells if cell not in good)),
        "truncated": sum(record.finish_reason == "length" for record in records),
        "duplicate_repeats": count_duplicate_repeats(records) if sampled else 0,
    }
