"""A judge on this machine: an MLX model whose verdicts are constrained by a grammar, or read off label probabilities.

    calls --cut once--> groups --batched engine--> replies of the wanted ones

Groups depend on all calls of a pass and never on what is already done or on free memory, and a group with any wanted
call is decoded whole: a resumed pass says what an unbroken one would have said. Temperature 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, Self

from lem.chat.constrain import lltokenizer, matcher
from lem.chat.generate import Completion, GenerationSettings, Request, prefix_of
from lem.chat.load import ChatModel, load, read_adapter_config
from lem.chat.render import Inject, choose_injection
from lem.config import load_config, resolve_model
from lem.errors import UserError
from lem.judges.ancestry import ADAPTER, MODEL, ancestry_of
from lem.judges.backends.local_prompt import Labelled, labelled, prompt_tokens, verdict_grammar
from lem.judges.protocol import Call, Ending, JudgeIdentity, Reply
from lem.judges.spec import METHODS, JudgeSpec
from lem.paths import display_path
from lem.records import text_sha
from lem.runs.groups import choose_group_size
from lem.runs.workers import Job, open_decoder

# What groups are cut for. Not what is free: a pass that is resumed beside other work must cut the same groups.
GROUP_MEMORY_BYTES = 8 * 2**30


@dataclass(frozen=True)
class _Asked:
    """A call with its request, or with the reason why it cannot be asked; `rating` where labels are measured."""

    call: Call
    request: Request | None
    rating: Labelled | None = None
    error: str | None = None


class LocalJudge:
    """A local model that can be asked; see `lem.judges.protocol.Judge`.

    A judge by labels adds `logprobs` to its verdict: the natural log-probability of each label. A call that does not
    fit the model's context, or that its template refuses, is FAILED with the reason.
    """

    def __init__(self, identity: JudgeIdentity, chat: ChatModel, method: str, inject: Inject | None) -> None:
        self.identity = identity
        self._chat = chat
        self._method = method
        self._inject = inject

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass  # nothing is held between passes

    def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Iterator[Reply]:
        """Yield one reply for each wanted call, as rows finish.

        Raises: UserError for a call that the method cannot ask.
        """
        asked = {call.id: self._asked(call) for call in calls}
        for id, one in asked.items():
            if id in wanted and one.request is None:
                yield Reply(id, Ending.FAILED, error=one.error, model=self._version)
        jobs = [job for job in self._cut(list(asked.values())) if any(row.id in wanted for row in job.rows)]
        if not jobs:
            return
        self._check_grammars(jobs)
        settings = GenerationSettings(max(call.max_tokens for call in calls), temperature=0.0, top_p=1.0)
        with open_decoder(str(self._chat.path), self._chat.adapter, jobs, settings) as decoder:
            for _, completion in decoder.decode(jobs, settings):
                if completion is not None and completion.id in wanted:
                    yield self._reply(asked[completion.id], completion)

    @property
    def _version(self) -> str:
        adapter = self._chat.adapter_sha
        return self._chat.model_sha[:12] + (f"+{adapter[:12]}" if adapter else "")

    def _asked(self, call: Call) -> _Asked:
        try:
            prompt = prompt_tokens(self._chat, call, self._inject)
        except UserError as error:
            return _Asked(call, None, error=str(error))
        rating = labelled(self._chat, call, prompt) if self._method == "labels" else None
        if rating is not None:
            request = Request(call.id, rating.prompt, 0, choices=rating.choices)
            n_reply = max(len(choice) for choice in rating.choices)
        else:
            request = Request(call.id, prompt, 0, max_tokens=call.max_tokens, grammar=verdict_grammar(call))
            n_reply = call.max_tokens
        limit = _context(self._chat.config)
        if limit is not None and len(request.tokens) + n_reply > limit:
            needed = f"a prompt of {len(request.tokens)} tokens and a reply of up to {n_reply}"
            return _Asked(call, None, error=f"{needed} do not fit the {limit} tokens that {self._chat.name} reads")
        return _Asked(call, request, rating)

    def _cut(self, asked: Sequence[_Asked]) -> list[Job]:
        """Groups of like calls of like length: calls of one kind share the most of their prompts."""
        kinds: dict[tuple[str, ...], list[Request]] = {}
        for one in asked:
            if one.request is not None:
                kinds.setdefault((one.call.system, *one.call.schema["properties"]), []).append(one.request)
        jobs: list[Job] = []
        for rows in kinds.values():
            rows.sort(key=lambda row: len(row.tokens))
            longest = max(len(row.tokens) + (row.max_tokens or 0) for row in rows)
            n_parts = ceil(len(rows) / choose_group_size(self._chat.config, longest, GROUP_MEMORY_BYTES))
            bounds = [part * len(rows) // n_parts for part in range(n_parts + 1)]
            prefix = prefix_of([row.tokens for row in rows]) if len(rows) > 1 else ()
            for low, high in pairwise(bounds):
                jobs.append(Job(f"calls/{len(jobs):03d}", tuple(rows[low:high]), prefix))
        return jobs

    def _check_grammars(self, jobs: Sequence[Job]) -> None:
        """Compile one grammar of each group here, before processes start.   Raises: UserError."""
        for job in jobs:
            grammar = job.rows[0].grammar
            if grammar is not None:
                matcher(lltokenizer(self._chat), grammar)

    def _reply(self, one: _Asked, completion: Completion) -> Reply:
        facts: dict[str, Any] = {"model": self._version, "n_prompt_tokens": completion.n_prompt_tokens}
        if completion.response is None:
            return Reply(one.call.id, Ending.FAILED, error=completion.error, **facts)
        if one.rating is not None:
            text = _chosen(one.rating, json.loads(completion.response)["loglikelihoods"])
            return Reply(one.call.id, Ending.COMPLETE, text, n_tokens=0, **facts)
        ending = Ending.COMPLETE if completion.finish_reason == "stop" else Ending.TRUNCATED
        return Reply(one.call.id, ending, completion.response, n_tokens=len(completion.tokens), **facts)


def open_local(spec: JudgeSpec, *, method: str = "grammar") -> LocalJudge:
    """Open the model, or the adapter with the base that it names, at a spec's path; no weights are read yet.

    A short name of `lem.config.json` is looked up as for `--model`.
    Raises: UserError for what is no model or adapter, an adapter that does not fit, and an unknown method.
    """
    if method not in METHODS:
        raise UserError(f"--judge-method must be one of {', '.join(METHODS)} (got '{method}').")
    try:
        model, adapter = _model_and_adapter(resolve_model(load_config(), spec.model))
        chat = load(model, adapter, need_template=False, weights=False)
        if method == "grammar":
            lltokenizer(chat)
    except UserError as error:
        raise UserError(f"--judge {spec.text}: {str(error).replace('--model', '--judge mlx:PATH')}") from None
    inject = choose_injection(chat, None) if chat.tokenizer.has_chat_template else None
    return LocalJudge(_identity(spec.name, chat, method, inject), chat, method, inject)


def _model_and_adapter(path: str) -> tuple[str, str | None]:
    folder = Path(path).expanduser()
    if (folder / "config.json").is_file() or not (folder / "adapter_config.json").is_file():
        return path, None
    base = read_adapter_config(folder).get("model")
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: this adapter does not name its base model; fuse the two and judge with the result.")
    return base, path


def _identity(name: str, chat: ChatModel, method: str, inject: Inject | None) -> JudgeIdentity:
    template = None if inject is None else text_sha(str(chat.tokenizer.chat_template))
    known = ancestry_of(
        chat.name, {chat.model_sha: MODEL, chat.adapter_sha: ADAPTER}, chat.adapter, chat.adapter_sha
    )  # fmt: skip
    settings = {
        **chat.identity, "method": method, "temperature": 0, "prompt": inject or "plain text", "template": template,
    }  # fmt: skip
    shown = [display_path(Path(one)) if Path(one).is_absolute() else one for one in known.names]
    return JudgeIdentity(name, "mlx", chat.name, settings, {"sha": list(known.shas), "names": shown})


def _context(config: Mapping[str, Any]) -> int | None:
    text = {**config, **config.get("text_config", {})}
    limit = text.get("max_position_embeddings") or text.get("n_positions")
    return limit if isinstance(limit, int) else None


def _chosen(rating: Labelled, logprobs: Sequence[float]) -> str:
    """The most likely verdict (the first of equals) with the log-probabilities of all labels."""
    best = max(range(len(logprobs)), key=lambda number: logprobs[number])
    verdict = {**rating.fields, rating.name: rating.labels[best]}
    labels = {str(label): value for label, value in zip(rating.labels, logprobs, strict=True)}
    return json.dumps({**verdict, "logprobs": labels}, ensure_ascii=False)
