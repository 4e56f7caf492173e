"""The plan of a run: arms, probes, settings - and what it renders to, before any weights are loaded.

Every arm sees the same probes with the same random streams. Rendering loads tokenizers and hashes weights, no more,
so a wrong path, a template that refuses a role or a prompt that cannot fit is found before anything is created.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lem.chat.generate import GenerationSettings, prefix_of
from lem.chat.load import ChatModel, load
from lem.chat.render import Inject, choose_injection, conversation, render
from lem.chat.sampling import row_seed
from lem.data import Kernel, Probe
from lem.errors import UserError
from lem.records import Key, fingerprint
from lem.runs.execute import PlannedRequest


@dataclass(frozen=True)
class Arm:
    """One condition: which weights answer, with which adapter, with which kernel in front."""

    name: str
    model: str
    adapter: str | None = None
    kernel: Kernel | None = None


@dataclass(frozen=True)
class RunPlan:
    """Everything that decides the content of a run; `group_size` None chooses from free memory."""

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


def render_arm(plan: RunPlan, arm: Arm, chat: ChatModel) -> RenderedArm:
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


def render_plan(plan: RunPlan) -> list[RenderedArm]:
    """Render all arms without loading any weights."""
    return [render_arm(plan, arm, load(arm.model, arm.adapter, weights=False)) for arm in plan.arms]


def preview(plan: RunPlan) -> dict[str, Any]:
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
