"""What a planned run takes: requests, tokens, minutes and memory, before any weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lem.ab.throughput import AnswerLength, Rate, answer_length, measure_rate
from lem.chat.device import describe_device, free_memory_bytes
from lem.chat.generate import prefix_of
from lem.chat.load import resolve_model_path
from lem.records import RunContents
from lem.runs.groups import MEMORY_SHARE as ROWS_SHARE
from lem.runs.groups import choose_group_size
from lem.runs.plan import Arm, RenderedArm, RunPlan, render_plan
from lem.runs.workers import MEMORY_SHARE, decoders_at_once


def render_untrained(plan: RunPlan) -> tuple[list[RenderedArm], list[str]]:
    """Render all arms; one whose adapter has not been trained yet is rendered without it, as prompts do not change.

    Returns: the arms, and a sentence for each adapter that does not exist yet.   Raises: as `render_plan`.
    """
    waiting = {arm.name: arm for arm in plan.arms if arm.adapter and not Path(arm.adapter).expanduser().exists()}
    bare = [replace(arm, adapter=None, adapter_scale=1.0) if arm.name in waiting else arm for arm in plan.arms]
    found = {arm.arm.name: arm for arm in render_plan(replace(plan, arms=tuple(bare)))}
    for name, arm in waiting.items():
        found[name] = replace(found[name], arm=arm, facts={**found[name].facts, **_open_facts(arm)})
    return list(found.values()), [
        f"the adapter of arm '{arm.name}' ({arm.adapter}) does not exist yet; its hash is left open"
        for arm in waiting.values()
    ]


def _open_facts(arm: Arm) -> dict[str, Any]:
    return {"adapter": arm.adapter} | ({} if arm.adapter_scale == 1 else {"adapter_scale": arm.adapter_scale})


def lengths_of(
    arms: Sequence[str], pilot: RunContents | None, given: float | None, max_tokens: int
) -> dict[str, AnswerLength]:
    """Tokens an answer per arm: as given, else from the pilot; empty when nothing is known."""
    if given is not None:
        return {arm: AnswerLength(given, given, given, 0.0) for arm in arms}
    if pilot is None:
        return {}
    found = {arm: answer_length(pilot, arm, max_tokens) for arm in arms}
    return {arm: length for arm, length in found.items() if length is not None}


def rate_of(pilot: RunContents | None, given: float | None) -> Rate | None:
    """New tokens a second: as given, else measured in the pilot; None when neither is there."""
    if given is not None:
        return Rate(given, given, given, "as given")
    return None if pilot is None else measure_rate(pilot)


def expected_entry(
    plan: RunPlan, rendered: Sequence[RenderedArm], lengths: dict[str, AnswerLength], rate: Rate | None
) -> dict[str, Any]:
    """The `expected` of a plan: requests, prompt and new tokens, minutes with their range, memory; null if unknown."""
    prompts = {found.arm.name: [request.tokens for request in found.requests.values()] for found in rendered}
    requests = sum(len(found) for found in prompts.values())
    shared = {arm: len(prefix_of(found)) if len(found) > 1 else 0 for arm, found in prompts.items()}
    new = _new_tokens(prompts, lengths)
    return {
        "requests": requests,
        "prompt_tokens": sum(len(prompt) for found in prompts.values() for prompt in found),
        "prefill_tokens": sum(
            sum(len(prompt) for prompt in found) - shared[arm] * (len(found) - 1) for arm, found in prompts.items()
        ),
        "max_new_tokens": requests * plan.settings.max_tokens,
        "new_tokens": new,
        "tokens_per_answer": {arm: asdict(length) for arm, length in lengths.items()} or None,
        "tokens_per_second": None if rate is None else asdict(rate),
        "minutes": _minutes(new, rate),
        "memory": memory_entry(plan, rendered),
    }


def _new_tokens(prompts: dict[str, list[tuple[int, ...]]], lengths: dict[str, AnswerLength]) -> dict[str, float] | None:
    if set(prompts) - set(lengths):
        return None
    return {
        name: sum(len(found) * float(getattr(lengths[arm], name)) for arm, found in prompts.items())
        for name in ("value", "low", "high")
    }


def _minutes(new: dict[str, float] | None, rate: Rate | None) -> dict[str, float] | None:
    if new is None or rate is None:
        return None
    return {
        "value": new["value"] / rate.value / 60,
        "low": new["low"] / rate.high / 60,
        "high": new["high"] / rate.low / 60,
    }


def bytes_per_row(config: dict[str, Any], longest_tokens: int) -> int:
    """Bytes a row takes while decoding, as `choose_group_size` counts them: cache and four copies of the logits.

    It is what that function takes the free memory by, found by asking it, so that the two cannot disagree.
    """
    low, high = 1, 1
    while choose_group_size(config, longest_tokens, high) < 2:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if choose_group_size(config, longest_tokens, middle) >= 2 else (middle + 1, high)
    return int(low * ROWS_SHARE / 2)


def memory_entry(plan: RunPlan, rendered: Sequence[RenderedArm]) -> dict[str, int]:
    """Memory of the largest arm: weights and rows of a group, times the decoding processes; an estimate in bytes."""
    free, at_once = free_memory_bytes(), decoders_at_once()
    on_cpu = describe_device()["device"] == "cpu"
    sizes = []
    for found in rendered:
        stored = sum(file.stat().st_size for file in resolve_model_path(found.arm.model).glob("model*.safetensors"))
        # On the CPU 16-bit weights become float32.
        weights = 2 * stored if on_cpu else stored
        longest = found.longest_prompt + plan.settings.max_tokens
        group = plan.group_size or choose_group_size(found.config, longest, free // at_once)
        rows = min(group, len(plan.probes))
        bytes_of_rows = rows * bytes_per_row(found.config, longest)
        decoders = max(1, min(at_once, int(MEMORY_SHARE * free // max(1, weights))))
        sizes.append((decoders * (weights + bytes_of_rows), weights, bytes_of_rows, rows, decoders))
    total, weights, bytes_of_rows, rows, decoders = max(sizes)
    return {
        "total_bytes": total, "weights_bytes": weights, "rows_bytes": bytes_of_rows, "rows": rows,
        "decoders": decoders, "free_bytes": free,
    }  # fmt: skip
