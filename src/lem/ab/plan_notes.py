"""What a reader of a forecast must know about the pilot behind it, one sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lem.ab.noise import STAND_IN, Noise
from lem.ab.throughput import AnswerLength
from lem.chat.device import describe_device
from lem.records import RunContents
from lem.runs.plan import RenderedArm, RunPlan


def pilot_notes(
    pilot: RunContents, plan: RunPlan, rendered: Sequence[RenderedArm], noises: Sequence[Noise],
    lengths: Mapping[str, AnswerLength],
) -> list[str]:  # fmt: skip
    """Every way in which the pilot is unlike the planned run, so that its figures may not hold for it."""
    return [
        *pilot.notes,
        *_seen_notes(pilot, plan),
        *_setting_notes(pilot, plan),
        *_device_notes(pilot.info.device),
        *_model_notes(pilot, rendered),
        *_arm_notes(noises, lengths),
        *_length_notes(pilot, plan, lengths),
    ]


def _seen_notes(pilot: RunContents, plan: RunPlan) -> list[str]:
    """Random streams hang on seed, probe and repeat alone, so the same seed makes the pilot's answers once more."""
    same_streams = plan.settings.temperature == 0 or pilot.info.settings.get("seed") == plan.seed
    arms = {arm.name for arm in plan.arms} & set(pilot.info.arms)
    probes = {probe.id for probe in plan.probes} & {probe["id"] for probe in pilot.info.probes}
    if not (same_streams and arms and probes):
        return []
    remedy = "plan for other probes" if plan.settings.temperature == 0 else "give another --seed"
    return [
        f"the run would make the pilot's own answers to {len(probes)} probes again, which were seen before this plan; "
        f"{remedy}"
    ]


def _setting_notes(pilot: RunContents, plan: RunPlan) -> list[str]:
    notes = []
    for name, value in asdict(plan.settings).items():
        before = pilot.info.settings.get(name)
        if before is not None and before != value:
            notes.append(f"the pilot was decoded with {name.replace('_', '-')} {before}, the plan has {value}")
    return notes


def _device_notes(device: Mapping[str, Any]) -> list[str]:
    if not device:
        return []
    here = describe_device()
    different = [name for name in ("device", "name", "machine", "blas", "cores") if device.get(name) != here.get(name)]
    listed = ", ".join(f"{name} {device.get(name)}" for name in different)
    return [f"the pilot ran on another machine or setting ({listed}), so its speed may not hold here"] if listed else []


def _model_notes(pilot: RunContents, rendered: Sequence[RenderedArm]) -> list[str]:
    known = {facts.get("model_sha") for facts in pilot.info.arms.values()} - {None}
    strange = [found.arm.name for found in rendered if known and found.facts.get("model_sha") not in known]
    listed = ", ".join(strange)
    return [f"the pilot was made with other weights than {listed}, so its figures may not hold there"] if listed else []


def _arm_notes(noises: Sequence[Noise], lengths: Mapping[str, AnswerLength]) -> list[str]:
    arms = list(dict.fromkeys(noise.treatment for noise in noises if noise.source == STAND_IN))
    notes = [f"arm '{arm}' is not in the pilot; the widest spread of its other arms stands in" for arm in arms]
    return notes + list(dict.fromkeys(length.note for length in lengths.values() if length.note))


def _length_notes(pilot: RunContents, plan: RunPlan, lengths: Mapping[str, AnswerLength]) -> list[str]:
    cut = ", ".join(arm for arm, length in lengths.items() if length.truncated > 0)
    limit = pilot.info.settings.get("max_tokens")
    if not cut or not isinstance(limit, int) or plan.settings.max_tokens <= limit:
        return []
    return [f"the token limit cut answers of the pilot (in {cut}), so the planned ones may be longer"]
