"""The plan of a run: arms, probes, settings - and what it renders to, before any weights are loaded.

Every arm sees the same probes with the same random streams. Rendering loads tokenizers and hashes weights, no more,
so a wrong path, a template that refuses a role or a prompt that cannot fit is found before anything is created.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lem.chat.generate import GenerationSettings, decodes_together, prefix_of
from lem.chat.load import ChatModel, load
from lem.chat.render import (
    Inject,
    Rendered,
    after_thinking,
    choose_injection,
    complete,
    continuation,
    conversation,
    render,
)
from lem.chat.sampling import row_seed
from lem.chat.stored import stored_bits
from lem.chat.trainings import ALL, local_folder, rows, trainings_of_model
from lem.data import Kernel, Probe
from lem.data.items import Item
from lem.errors import ResumeMismatch, UserError
from lem.records import Key, RunDirectory, fingerprint
from lem.runs.execute import PlannedRequest

Form = Literal["chat", "completion", "auto"]


@dataclass(frozen=True)
class Arm:
    """One condition: which weights answer, with which adapter at which scale, with which kernel in front."""

    name: str
    model: str
    adapter: str | None = None
    kernel: Kernel | None = None
    adapter_scale: float = 1.0

    @property
    def weights(self) -> str:
        """What is loaded to answer, in words; two arms of the same words share one set of weights."""
        adapter = "" if self.adapter is None else f" + {self.adapter}"
        return self.model + adapter + ("" if self.adapter_scale == 1 else f" at {self.adapter_scale!r}")


@dataclass(frozen=True)
class RunPlan:
    """Everything that decides the content of a run; `group_size` None chooses from free memory.

    `declared` is the plan file that the run is made under, with its `sha`; {} without one. It decides no answer.
    `form` "auto" writes prompts out as plain text for a model without a chat template, "completion" for every model;
    "chat" refuses a model without a template. `items` are the benchmark items behind the probes, kept in the run;
    `data` says more of where they come from.
    """

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
    declared: dict[str, Any] = field(default_factory=dict)
    form: Form = "chat"
    items: tuple[Item, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def short_hash(self) -> str:
        """Eight hex digits over arms, settings, seed, probe file and declared plan; names the default run directory.

        It is the same from any working directory, and for any --limit and --repeats.
        """
        arms = [
            [arm.name, _place(arm.model), _place(arm.adapter), arm.kernel and arm.kernel.sha, *_dose(arm)]
            for arm in self.arms
        ]
        payload = [arms, asdict(self.settings), self.seed, self.inject, self.probe_sha]
        payload += [self.declared["sha"]] if self.declared else []
        payload += [] if self.form == "chat" else [self.form]
        return hashlib.sha256(json.dumps(payload).encode()).hexdigest()[:8]


def _dose(arm: Arm) -> list[float]:
    """The scale of an arm's adapter unless it is 1, so that hashes of plans without scales stay what they were."""
    return [] if arm.adapter_scale == 1 else [arm.adapter_scale]


def _place(path: str | None) -> str | None:
    """A local path in full, a hub id as it is."""
    return str(Path(path).expanduser().resolve()) if path and Path(path).expanduser().exists() else path


def settings_of(plan: RunPlan) -> dict[str, Any]:
    """The settings of a plan as `run.json` keeps them."""
    return {**asdict(plan.settings), "repeats": plan.repeats, "seed": plan.seed, "inject": plan.inject}


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
    plain = plan.form == "completion" or (plan.form == "auto" and not chat.tokenizer.has_chat_template)
    inject: Inject | None = None
    if arm.kernel:
        inject = _plain_place(plan.inject) if plain else choose_injection(chat, plan.inject)
    requests: dict[Key, PlannedRequest] = {}
    for probe in plan.probes:
        kernel = arm.kernel.text if arm.kernel else None
        asked = (probe.completes if plain else None) or probe.asks or probe.prompt
        messages = conversation(asked, kernel, inject or "system", plan.signature)
        rendered = complete(chat, messages) if plain else render(chat, messages)
        if probe.choices:
            rendered = after_thinking(chat, rendered)
        row = _render_row(plan, probe, rendered, chat, plain)
        longest = max((len(choice) for choice in row.choices), default=row.max_tokens or plan.settings.max_tokens)
        _refuse_too_long(arm, probe, len(rendered.tokens) + longest, chat)
        for repeat in range(1 if row.choices else plan.repeats):  # a likelihood is the same at every repeat
            key = Key(arm.name, probe.id, repeat)
            seed = row_seed(plan.seed, probe.id, repeat)
            requests[key] = replace(row, key=key, messages=tuple(messages), seed=seed)
    facts: dict[str, Any] = {
        "model": chat.name,
        "model_sha": chat.model_sha,
        ALL: rows(trainings_of_model(folder, chat.model_sha)) if (folder := local_folder(arm.model)) else [],
        "adapter": arm.adapter,
        "adapter_sha": chat.adapter_sha,
        "identity": chat.identity,
        "kernel": arm.kernel.path if arm.kernel else None,
        "kernel_sha": arm.kernel.sha if arm.kernel else None,
        "inject": inject,
        "bits": stored_bits(chat),
    }
    if chat.adapter_scale != 1:
        facts["adapter_scale"] = chat.adapter_scale
    if plain:
        facts["form"] = "completion"
    longest = max(len(request.tokens) for request in requests.values())
    return RenderedArm(arm, requests, facts, longest, chat.config)


def _plain_place(wanted: Inject | None) -> Inject:
    """Where a kernel goes in plain text.   Raises: UserError for a system turn, which plain text does not have."""
    if wanted == "system":
        raise UserError("a prompt in plain text has no system turn; use --inject user or --inject sandwich.")
    return wanted or "user"


def _render_row(plan: RunPlan, probe: Probe, rendered: Rendered, chat: ChatModel, plain: bool) -> PlannedRequest:
    """What all repeats of a probe have in common; the fingerprint holds what the probe has of its own."""
    settings = {**asdict(plan.settings), "seed": plan.seed if plan.settings.temperature > 0 else None}
    stops = probe.stop_strings if plain else ()
    choices: tuple[tuple[int, ...], ...] = ()
    if probe.choices:
        choices = tuple(continuation(chat, rendered, (" " if plain else "") + choice) for choice in probe.choices)
        settings = {"choices": choices}
    else:
        settings |= {} if probe.max_tokens is None else {"max_tokens": probe.max_tokens}
        settings |= {"stop_strings": list(stops)} if stops else {}
    print_of_row = fingerprint(rendered.sha, settings, chat.identity)
    return PlannedRequest(
        Key("", probe.id, 0), (), rendered.tokens, rendered.sha, 0, print_of_row, probe.max_tokens, stops, choices
    )


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
    arms = [render_arm(plan, arm, _load_light(arm, plan.form)) for arm in plan.arms]
    for model in {arm.arm.model: arm.config for arm in arms if not decodes_together(arm.config)}:
        warnings.warn(
            f"{model}: mlx-lm cannot decode several rows of this architecture together, so its answers are made one "
            "by one; expect a slower run.",
            stacklevel=2,
        )
    return arms


def _load_light(arm: Arm, form: Form) -> ChatModel:
    template = form == "chat"
    return load(arm.model, arm.adapter, need_template=template, weights=False, adapter_scale=arm.adapter_scale)


def check_declared(plan: RunPlan, run: RunDirectory) -> None:
    """Refuse a declared plan in a run that has another one, or that has answers and none.

    Raises: ResumeMismatch; nothing was written.
    """
    before, now = run.info.plan.get("sha"), plan.declared.get("sha")
    if now is None or now == before:
        return
    if before is not None:
        raise ResumeMismatch(
            f"{run.path} was made under another plan (hash {before[:12]}, not {now[:12]}); give a new --output, "
            "nothing was touched."
        )
    if run.records:
        raise ResumeMismatch(
            f"{run.path} was begun without a plan, and one that follows the answers declares nothing; leave out --plan "
            "or give a new --output, nothing was touched."
        )


def _new_tokens(row: PlannedRequest, plan: RunPlan) -> int:
    return 0 if row.choices else row.max_tokens or plan.settings.max_tokens


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
    chat = _load_light(last.arm, plan.form)
    plain = last.facts.get("form") == "completion"
    n_requests = sum(arm["n_requests"] for arm in listed)
    return {
        "arms": listed,
        "n_arms": len(arms),
        "n_probes": len(plan.probes),
        "repeats": plan.repeats,
        "n_requests": n_requests,
        "prompt_tokens": sum(arm["prompt_tokens"] for arm in listed),
        "prefill_tokens": sum(arm["prompt_tokens"] - arm["shared_prefix"] * (arm["n_requests"] - 1) for arm in listed),
        "max_new_tokens": sum(_new_tokens(row, plan) for arm in arms for row in arm.requests.values()),
        "example": {
            "arm": request.key.arm,
            "probe_id": request.key.probe_id,
            "text": (complete if plain else render)(chat, request.messages).text,
        },
    }
