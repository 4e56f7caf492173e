"""`lem benchmark`: plan the cells of an A/B run, render them, and execute them arm by arm into a run directory.

A run may gain probes, repeats and arms; it never loses them, and what contradicts a stored record is refused
before anything is written. Every arm sees the same probes with the same random streams.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lem.ab.arms import Arm
from lem.chat.device import describe_device, free_memory_bytes
from lem.chat.generate import GenerationSettings, prefix_of
from lem.chat.load import ChatModel, load
from lem.chat.render import Inject, choose_injection, conversation, render
from lem.chat.sampling import row_seed
from lem.data import Probe
from lem.errors import ResumeMismatch, UserError
from lem.records import Key, Record, RunDirectory, RunInfo, fingerprint, open_run
from lem.records.run import versions
from lem.runs.execute import (
    Outcome,
    PlannedRequest,
    check_resume,
    count_duplicate_repeats,
    execute,
    missing_groups,
    pending_jobs,
)
from lem.runs.groups import Row, choose_group_size, cut_groups
from lem.runs.workers import open_decoder

KIND = "benchmark"


@dataclass(frozen=True)
class BenchmarkPlan:
    """Everything that decides the content of an A/B run; `group_size` None chooses from free memory."""

    arms: tuple[Arm, ...]
    probes: tuple[Probe, ...]
    probe_file: str
    settings: GenerationSettings
    repeats: int = 1
    seed: int = 42
    inject: Inject | None = None
    signature: str = ""
    group_size: int | None = None
    command: tuple[str, ...] = ()
    probe_sha: str = ""

    @property
    def short_hash(self) -> str:
        """Eight hex digits over arms, settings, seed and probe file; names the default run directory.

        It is the same from any working directory, and for any --limit and --repeats.
        """
        arms = [[arm.name, _place(arm.model), _place(arm.adapter), arm.kernel and arm.kernel.sha] for arm in self.arms]
        payload = [arms, asdict(self.settings), self.seed, self.inject, self.probe_sha]
        return hashlib.sha256(json.dumps(payload).encode()).hexdigest()[:8]


def _place(path: str | None) -> str | None:
    """A local path in full, a hub id as it is."""
    return str(Path(path).expanduser().resolve()) if path and Path(path).expanduser().exists() else path


@dataclass(frozen=True)
class RenderedArm:
    """An arm with all its requests rendered, and the facts about it for `run.json`."""

    arm: Arm
    requests: dict[Key, PlannedRequest]
    facts: dict[str, Any]
    longest_prompt: int
    config: dict[str, Any]


def render_arm(plan: BenchmarkPlan, arm: Arm, chat: ChatModel) -> RenderedArm:
    """Render every cell of one arm; the model may have been loaded without weights."""
    inject = choose_injection(chat, plan.inject) if arm.kernel else None
    settings = {**asdict(plan.settings), "seed": plan.seed if plan.settings.temperature > 0 else None}
    requests: dict[Key, PlannedRequest] = {}
    for probe in plan.probes:
        kernel = arm.kernel.text if arm.kernel else None
        messages = conversation(probe.prompt, kernel, inject or "system", plan.signature)
        rendered = render(chat, messages)
        _refuse_too_long(arm, probe, len(rendered.tokens) + plan.settings.max_tokens, chat)
        print_of_row = fingerprint(rendered.sha, settings, chat.identity)
        for repeat in range(plan.repeats):
            key = Key(arm.name, probe.id, repeat)
            seed = row_seed(plan.seed, probe.id, repeat)
            requests[key] = PlannedRequest(key, tuple(messages), rendered.tokens, rendered.sha, seed, print_of_row)
    facts = {
        "model": chat.name,
        "model_sha": chat.model_sha,
        "adapter": arm.adapter,
        "adapter_sha": chat.adapter_sha,
        "identity": chat.identity,
        "kernel": arm.kernel.path if arm.kernel else None,
        "kernel_sha": arm.kernel.sha if arm.kernel else None,
        "inject": inject,
    }
    longest = max(len(request.tokens) for request in requests.values())
    return RenderedArm(arm, requests, facts, longest, chat.config)


def _refuse_too_long(arm: Arm, probe: Probe, n_tokens: int, chat: ChatModel) -> None:
    """Refuse a prompt that cannot fit.   Raises: UserError naming arm and probe."""
    text_config = chat.config.get("text_config", {})
    limit = chat.config.get("max_position_embeddings", text_config.get("max_position_embeddings"))
    if isinstance(limit, int) and n_tokens > limit:
        raise UserError(
            f"arm '{arm.name}', probe {probe.id}: prompt and answer may take {n_tokens} tokens but {chat.name} reads "
            f"{limit}; lower --max-tokens or use a shorter kernel."
        )


def render_plan(plan: BenchmarkPlan) -> list[RenderedArm]:
    """Render all arms without loading any weights."""
    return [render_arm(plan, arm, load(arm.model, arm.adapter, weights=False)) for arm in plan.arms]


def run_benchmark(
    plan: BenchmarkPlan,
    output: Path,
    *,
    on_start: Callable[[int, int], None] = lambda total, missing: None,
    on_record: Callable[[Record], None] = lambda record: None,
    on_load: Callable[[str], None] = lambda what: None,
) -> Outcome:
    """Execute a plan into a run directory, resuming what is there.

    Args:  on_start: called once with (cells of the plan, cells still to generate).  on_record: after each record.
           on_load: with a description before weights are loaded.
    Returns: counts over the whole plan.   Raises: ResumeMismatch before anything is written.
    """
    render_plan(plan)  # what is wrong with models, adapters or kernels is said before anything is created
    with open_run(output, KIND, output.name) as run:
        plan = _grow(plan, run)
        arms = render_plan(plan)
        _check_arms(plan, arms, run)
        for arm in arms:
            check_resume(run, list(arm.requests.values()))
        _write_manifest(plan, arms, run)
        missing = [arm for arm in arms if missing_groups(run, set(arm.requests))]
        n_missing = sum(_is_missing(run, key) for arm in arms for key in arm.requests)
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


def _is_missing(run: RunDirectory, key: Key) -> bool:
    record = run.records.get(key)
    return record is None or record.failed


def _by_weights(arms: Sequence[RenderedArm]) -> Iterator[tuple[str, str | None, list[RenderedArm]]]:
    """Group arms by (model, adapter), so that each set of weights is loaded once."""
    groups: dict[tuple[str, str | None], list[RenderedArm]] = {}
    for rendered in arms:
        groups.setdefault((rendered.arm.model, rendered.arm.adapter), []).append(rendered)
    for (model, adapter), together in groups.items():
        yield model, adapter, together


def _grow(plan: BenchmarkPlan, run: RunDirectory) -> BenchmarkPlan:
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


def _check_arms(plan: BenchmarkPlan, arms: Sequence[RenderedArm], run: RunDirectory) -> None:
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


def _write_manifest(plan: BenchmarkPlan, arms: Sequence[RenderedArm], run: RunDirectory) -> None:
    info = run.info
    info.arms.update({rendered.arm.name: rendered.facts for rendered in arms})
    if info.group_size is None:
        longest = max(arm.longest_prompt for arm in arms) + plan.settings.max_tokens
        info.group_size = plan.group_size or choose_group_size(arms[0].config, longest, free_memory_bytes())
    rows = [Row(key, len(request.tokens)) for arm in arms for key, request in arm.requests.items()]
    info.groups = cut_groups(rows, info.groups, info.group_size)
    info.probes = [asdict(probe) for probe in plan.probes]
    info.data = {"probe_file": plan.probe_file, "probe_sha": plan.probe_sha, "n_probes": len(plan.probes)}
    info.settings = {**asdict(plan.settings), "repeats": plan.repeats, "seed": plan.seed, "inject": plan.inject}
    info.device, info.versions = describe_device(), versions()
    info.command = list(plan.command)
    run.save("running")


def preview(plan: BenchmarkPlan) -> dict[str, Any]:
    """What `--dry-run` prints: counts of cells and tokens, and one rendered prompt; no weights are loaded."""
    arms = render_plan(plan)
    listed: list[dict[str, Any]] = []
    for rendered in arms:
        prompts = [request.tokens for request in rendered.requests.values()]
        listed.append(
            {
                "name": rendered.arm.name,
                "model": rendered.arm.model,
                "prompt_tokens": sum(len(prompt) for prompt in prompts),
                "shared_prefix": len(prefix_of(prompts)) if len(prompts) > 1 else 0,
                "n_requests": len(prompts),
            }
        )
    last = arms[-1] if arms[-1].arm.kernel or len(arms) == 1 else max(arms, key=lambda arm: arm.longest_prompt)
    request = next(iter(last.requests.values()))
    chat = load(last.arm.model, last.arm.adapter, weights=False)
    n_requests = sum(arm["n_requests"] for arm in listed)
    return {
        "arms": listed,
        "n_arms": len(arms),
        "n_probes": len(plan.probes),
        "repeats": plan.repeats,
        "n_requests": n_requests,
        "prompt_tokens": sum(arm["prompt_tokens"] for arm in listed),
        "prefill_tokens": sum(arm["prompt_tokens"] - arm["shared_prefix"] * (arm["n_requests"] - 1) for arm in listed),
        "max_new_tokens": n_requests * plan.settings.max_tokens,
        "example": {
            "arm": request.key.arm,
            "probe_id": request.key.probe_id,
            "text": render(chat, request.messages).text,
        },
    }


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
