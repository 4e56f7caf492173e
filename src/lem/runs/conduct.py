"""Conduct a run: execute a plan, arm by arm, into a run directory. Used by A/B runs and distillation.

A run may gain probes, repeats and arms; it never loses them, and what contradicts a stored record is refused before
anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lem.chat.device import describe_device, free_memory_bytes
from lem.chat.generate import prefix_of
from lem.data import Probe
from lem.data.items import RUN_ITEMS, grow_items, items_text, read_run_items
from lem.errors import LemError, ResumeMismatch
from lem.records import Key, Record, RunDirectory, RunInfo, open_run, write_atomic
from lem.records.rank_files import merge_rank_files, read_rank_files
from lem.records.run import versions
from lem.runs.execute import (
    Outcome,
    check_resume,
    count_duplicate_repeats,
    execute,
    is_missing,
    pending_jobs,
)
from lem.runs.groups import Row, choose_group_size, cut_groups
from lem.runs.plan import RenderedArm, RunPlan, check_declared, render_plan, settings_of
from lem.runs.shards import ALONE, Ranks, announce, collect, hear, open_rank_file, share_out, started
from lem.runs.workers import decoders_at_once, open_decoder

_PROBE_FACTS = ("probe_file", "probe_sha", "n_probes")  # in a manifest's `data`, of the latest plan


def conduct(
    plan: RunPlan,
    output: Path,
    kind: str,
    *,
    ranks: Ranks = ALONE,
    on_start: Callable[[int, int], None] = lambda total, missing: None,
    on_record: Callable[[Record], None] = lambda record: None,
    on_load: Callable[[str], None] = lambda what: None,
) -> Outcome:
    """Execute a plan into a run directory, resuming what is there.

    Args:  kind: what the run is for ("benchmark", "distill"); a directory of another kind is refused.
           ranks: the processes that share the work; the callbacks are called in the first, which has the whole run at
           the end, while the others return when their share is done.
           on_start: called once with (cells of the plan, cells still to generate).  on_record: after each record.
           on_load: with a description before weights are loaded.
    Returns: counts over the whole plan.   Raises: ResumeMismatch before anything is written.
    """
    render_plan(plan)  # what is wrong with models, adapters or kernels is said before anything is created
    if not ranks.first:
        return _follow(plan, output, ranks)
    with open_run(output, kind, output.name) as run:
        run.store.rows.clear()  # the records hold them; a large run would be in memory twice
        left = read_rank_files(run)
        plan = _grow(plan, run)
        arms = render_plan(plan)
        _check_arms(plan, arms, run)
        requests = {key: request for arm in arms for key, request in arm.requests.items()}
        check_resume(run, list(requests.values()))
        merge_rank_files(run, left)
        _write_manifest(plan, arms, run)
        on_start(len(requests), sum(is_missing(run, key) for key in requests))
        try:
            outcome = _lead(plan, arms, run, ranks, on_record, on_load)
        except BaseException:
            run.save("incomplete")
            raise
        counts = count_cells(run.info, list(run.records.values()))
        run.save("incomplete" if counts["missing"] or counts["failed"] else "done")
    return outcome


def _lead(
    plan: RunPlan, arms: Sequence[RenderedArm], run: RunDirectory, ranks: Ranks,
    on_record: Callable[[Record], None], on_load: Callable[[str], None],
) -> Outcome:  # fmt: skip
    """Rank 0: tell the others their shares, decode the own one, and take in what they wrote."""
    requests = {key: request for arm in arms for key, request in arm.requests.items()}
    shares = share_out(run, requests, plan.settings.max_tokens, ranks.size)
    if ranks.size == 1:
        return _decode(plan, arms, run, shares[0], on_record, on_load)
    announce(run, shares, ranks)
    with started(run, requests, ranks):
        outcome = _decode(plan, arms, run, shares[0], on_record, on_load)
    added = collect(run, shares)
    for record in added:
        on_record(record)
    written = outcome.written + len(added)
    return Outcome(written, len(requests) - written, outcome.failed + sum(record.failed for record in added))


def _follow(plan: RunPlan, output: Path, ranks: Ranks) -> Outcome:
    """Another rank: decode the share that rank 0 names, into a file of its own.   Raises: as `conduct`, rank named."""
    try:
        info, share = hear(output, ranks)
        with open_rank_file(output, info, share, ranks.rank) as run:
            plan = _grow(plan, run)
            arms = render_plan(plan)
            _check_arms(plan, arms, run)
            requests = {key: request for arm in arms for key, request in arm.requests.items()}
            with started(run, requests, ranks):
                return _decode(plan, arms, run, share)
    except LemError as error:
        raise type(error)(f"rank {ranks.rank}: {error}") from error


def _decode(
    plan: RunPlan, arms: Sequence[RenderedArm], run: RunDirectory, share: Sequence[str],
    on_record: Callable[[Record], None] = lambda record: None, on_load: Callable[[str], None] = lambda what: None,
) -> Outcome:  # fmt: skip
    """Decode the groups of a share, one set of weights after the other."""
    mine = set(share)
    busy = {run.info.groups[name]["arm"] for name in share}
    written = failed = 0
    for together in _by_weights([arm for arm in arms if arm.arm.name in busy]):
        arm = together[0].arm
        on_load(arm.weights)
        requests = {key: request for arm in together for key, request in arm.requests.items()}
        jobs = [job for job in pending_jobs(run, requests) if job.name in mine]
        with open_decoder(arm.model, arm.adapter, jobs, plan.settings, arm.adapter_scale) as decoder:
            outcome = execute(run, requests, decoder.decode(jobs, plan.settings), on_record)
        written, failed = written + outcome.written, failed + outcome.failed
    return Outcome(written, sum(len(arm.requests) for arm in arms) - written, failed)


def _by_weights(arms: Sequence[RenderedArm]) -> Iterator[list[RenderedArm]]:
    """Group arms by model, adapter and its scale, so that each set of weights is loaded once."""
    groups: dict[str, list[RenderedArm]] = {}
    for rendered in arms:
        groups.setdefault(rendered.arm.weights, []).append(rendered)
    yield from groups.values()


def _grow(plan: RunPlan, run: RunDirectory) -> RunPlan:
    """Join the plan with what the run already holds: probes and repeats can be added, never taken away.

    Raises: ResumeMismatch if a probe's text or domain differs from the run's.
    """
    known = {entry["id"]: Probe.from_entry(entry) for entry in run.info.probes}
    for probe in plan.probes:
        if probe.id in known and known[probe.id] != probe:
            raise ResumeMismatch(
                f"{run.path} holds another {_differing(known[probe.id], probe)} for probe {probe.id}; give a new "
                "--output, nothing was touched."
            )
    _check_sources(plan, run)
    joined = {**known, **{probe.id: probe for probe in plan.probes}}
    repeats = max(plan.repeats, int(run.info.settings.get("repeats", 1)))
    items = grow_items(read_run_items(run.path), plan.items, run.path)
    before = {name: value for name, value in run.info.data.items() if name not in _PROBE_FACTS}
    data = before | {
        name: {**before.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in plan.data.items()
    }
    return replace(plan, probes=tuple(joined.values()), repeats=repeats, items=tuple(items), data=data)


def _differing(known: Probe, probe: Probe) -> str:
    """In what two probes of one id differ, in a word."""
    if replace(known, max_tokens=probe.max_tokens) == probe:
        return f"token limit ({known.max_tokens or 'none'}, now {probe.max_tokens or 'none'})"
    return "text or domain"


def _check_sources(plan: RunPlan, run: RunDirectory) -> None:
    """Refuse items of a task from another source than those that the run holds.   Raises: ResumeMismatch."""
    for task, facts in plan.data.get("tasks", {}).items():
        before = run.info.data.get("tasks", {}).get(task, facts)
        if _origin(before) != _origin(facts):
            raise ResumeMismatch(
                f"{run.path} holds items of {task} from another source ({before.get('path') or before.get('source')}); "
                "give a new --output, nothing was touched."
            )


def _origin(facts: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be equal for two sets of items to be of one source: a file wherever it is named from, a commit."""
    path = str(facts.get("path"))
    return facts.get("source"), path if facts.get("source") == "hub" else Path(path).resolve(), facts.get("revision")


def _check_arms(plan: RunPlan, arms: Sequence[RenderedArm], run: RunDirectory) -> None:
    """Refuse an arm whose weights changed, another group size, and another declared plan.

    Raises: ResumeMismatch; nothing was written.
    """
    check_declared(plan, run)
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
    rows = [
        Row(key, len(request.tokens), bool(request.choices)) for arm in arms for key, request in arm.requests.items()
    ]
    prefixes = {arm.arm.name: len(prefix_of([r.tokens for r in arm.requests.values()])) for arm in arms}
    info.groups = cut_groups(rows, info.groups, info.group_size)
    for group in info.groups.values():  # a group keeps its prefix when the arm grows
        group.setdefault("prefix_tokens", prefixes.get(group["arm"], 0))
    info.plan = plan.declared or info.plan
    info.probes = [probe.to_entry() for probe in plan.probes]
    facts = (plan.probe_file, plan.probe_sha, len(plan.probes))
    info.data = {**dict(zip(_PROBE_FACTS, facts, strict=True)), **plan.data}
    info.settings = settings_of(plan)
    info.device, info.versions = describe_device(), versions()
    info.command = list(plan.command)
    run.save("running")  # first: a folder without a manifest is nobody's, and would be refused at the next start
    if plan.items:
        write_atomic(run.path / RUN_ITEMS, items_text(plan.items))


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
