"""Inspect's tasks on our engine: the model provider `lem`.

    inspect eval task.py --model lem/MODEL -M adapter=DIR -M adapter_scale=0.5 -M kernel=FILE

Inspect finds it through the entry point `inspect_ai` of the installed package; from a bare checkout,
`python -m lem.interop.inspect_provider` is Inspect's command line with the provider registered. Requests that wait at
the same time are decoded as one batch, each row with the random stream of its sample and epoch, the same that
`lem benchmark` gives to a probe of that id and repeat.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import anyio
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.log._samples import sample_active
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from lem.config import Config, load_config
from lem.errors import LemError, UserError
from lem.interop.batching import BatchingWorker, Question, Reply
from lem.interop.served import open_served

MODEL_ARGS = ("adapter", "adapter_scale", "kernel", "inject", "batch_size")
# Settings that are honoured here, and settings that Inspect itself takes care of. Any other one is refused.
HONOURED = {"max_tokens", "temperature", "top_p", "stop_seqs", "seed"}
INSPECTS_OWN = {
    "max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections", "adaptive_connections",
    "system_message", "max_tool_output", "parallel_tool_calls", "internal_tools", "cache_prompt", "reasoning_history",
    "fail_on_refusal", "cache", "batch",
}  # fmt: skip
POLL_S = 0.02
T = TypeVar("T")


@modelapi("lem")
class LemAPI(ModelAPI):
    """A model of ours for Inspect: folder, hub id or a name of lem.config.json, with adapter and kernel."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  # the signature that Inspect documents
        adapter: str | None = None,
        adapter_scale: float = 1.0,
        kernel: str | None = None,
        inject: str | None = None,
        batch_size: int | None = None,
        **unknown: Any,
    ) -> None:
        """Load the model.   Raises: PrerequisiteError, which Inspect prints as one sentence."""
        super().__init__(model_name, base_url, api_key, [], config)
        self._calls: Counter[tuple[str, str]] = Counter()
        try:
            if unknown:
                known = ", ".join(MODEL_ARGS)
                raise UserError(f"-M {sorted(unknown)[0]}: unknown model argument; known ones are {known}.")
            self._defaults: Config = load_config()
            self._worker = BatchingWorker(
                lambda: open_served(
                    model_name, adapter=adapter, adapter_scale=float(adapter_scale), kernel=kernel, inject=inject,
                    batch_size=batch_size,
                )
            )  # fmt: skip
        except LemError as error:
            raise PrerequisiteError(str(error)) from None

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer one conversation in the next batch.   Raises: UserError for tools, images and unknown settings."""
        if tools:
            raise UserError(f"tool {tools[0].name}: the provider lem has no tools; use a task without them.")
        refuse_unsupported(config)
        question = Question(
            messages=tuple(plain_messages(input)),
            max_tokens=config.max_tokens or self._defaults.max_tokens,
            temperature=self._defaults.temperature if config.temperature is None else config.temperature,
            top_p=self._defaults.top_p if config.top_p is None else config.top_p,
            stops=tuple(config.stop_seqs or ()),
            seed=self._seed(input, self._defaults.seed if config.seed is None else config.seed),
        )
        return self._output(question, await _finished(self._worker.submit(question)))

    def _seed(self, input: Sequence[ChatMessage], run_seed: int) -> int:
        """The key of a request's random stream: its sample, epoch, and how many requests the sample made before."""
        from lem.chat.sampling import row_seed

        active = sample_active()
        if active is None:
            turns = json.dumps([[message.role, message.text] for message in input])
            name, owner, repeat = hashlib.sha256(turns.encode()).hexdigest(), "", 0
        else:
            name, owner, repeat = str(active.sample.id), active.id, active.epoch - 1
        n_before = self._calls[(owner, name)]
        self._calls[(owner, name)] += 1
        return row_seed(run_seed, f"{name}\0{n_before}" if n_before else name, repeat)

    def _output(self, question: Question, reply: Reply) -> ModelOutput:
        answer = reply.answer
        text = answer.text.strip()
        content: str | list[Content] = text
        if answer.thinking is not None:
            content = [ContentReasoning(reasoning=answer.thinking), ContentText(text=text)]
        reason = "stop" if answer.finish_reason == "stop" else "model_length" if reply.at_model_length else "max_tokens"
        message = ChatMessageAssistant(content=content, model=self.model_name, source="generate")
        decoding = {"temperature": question.temperature, "top_p": question.top_p, "max_tokens": question.max_tokens}
        row = {"seed": f"{question.seed:016x}", "rows_together": reply.n_together}
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=reason)],
            usage=ModelUsage(
                input_tokens=reply.n_prompt_tokens,
                output_tokens=answer.n_tokens,
                total_tokens=reply.n_prompt_tokens + answer.n_tokens,
                reasoning_tokens=None if answer.thinking is None else answer.n_thinking_tokens,
            ),
            metadata={"lem": {**self._worker.served.facts, **decoding, **row}},
        )

    async def count_text_tokens(self, text: str) -> int:
        """Tokens of a text by the model's own tokenizer; Inspect's default would fetch one from the network."""
        return await _finished(self._worker.count_tokens(text))

    def max_connections(self) -> int:
        """Requests that Inspect sends at once: as many as are decoded together for short answers."""
        return self._worker.served.group_size(self._defaults.max_tokens)

    def collapse_user_messages(self) -> bool:
        """Turns of one role in a row become one: templates want roles to alternate."""
        return True

    def collapse_assistant_messages(self) -> bool:
        """As for user turns."""
        return True

    def should_retry(self, ex: Exception) -> bool:
        """Never: the same tokens through the same weights fail again."""
        return False

    def close(self) -> None:
        """End the model's thread and forget the model."""
        self._worker.close()


async def _finished(future: Future[T]) -> T:
    """Wait on any event loop; a request that Inspect gives up on is taken out of the queue."""
    try:
        while not future.done():
            await anyio.sleep(POLL_S)
    finally:
        future.cancel()
    return future.result()


def refuse_unsupported(config: GenerateConfig) -> None:
    """Refuse a setting that would not be honoured.   Raises: UserError naming it and the supported ones."""
    given = config.model_dump(exclude_none=True)
    for name in sorted(set(given) - HONOURED - INSPECTS_OWN):
        harmless = given[name] in (False, 0, [], {}) or (name in ("num_choices", "best_of") and given[name] == 1)
        if not harmless:
            raise UserError(
                f"{name}={given[name]}: the provider lem does not support this setting; it has "
                f"{', '.join(sorted(HONOURED))}."
            )


def plain_messages(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Roles and texts of a conversation that ends with the user; earlier thinking is left out.

    Raises: UserError for tools, for content that is not text, and for a conversation that the assistant ends.
    """
    plain = []
    for message in messages:
        if message.role == "tool" or (isinstance(message, ChatMessageAssistant) and message.tool_calls):
            raise UserError(
                "the conversation holds a tool call: the provider lem has no tools; use a task without them."
            )
        parts = [] if isinstance(message.content, str) else message.content
        other = next((part for part in parts if not isinstance(part, ContentText | ContentReasoning)), None)
        if other is not None:
            raise UserError(
                f"a {message.role} turn holds content of type {other.type}; the provider lem reads text only."
            )
        plain.append({"role": message.role, "content": message.text})
    if not plain or plain[-1]["role"] != "user":
        raise UserError("the conversation does not end with a user turn; the provider lem cannot go on with an answer.")
    return plain


if __name__ == "__main__":
    from inspect_ai._cli.main import main

    main()
