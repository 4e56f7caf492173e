"""A model with its adapter and kernel, opened for another tool: what the Inspect and lm-eval adapters share.

The tool brings conversations or prompts, this module brings what the product adds: where the kernel goes, groups of
rows with a random stream each, stop sequences, and the identity of everything that shaped an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lem.config import load_config, resolve_model
from lem.data.kernels import Kernel, read_kernel
from lem.errors import UserError

if TYPE_CHECKING:
    from lem.chat.generate import Completion, GenerationSettings, Request
    from lem.chat.load import ChatModel
    from lem.chat.render import Inject, Message

SIGNATURE_FILE = "lek-1-sig.txt"
INJECTIONS = ("system", "user", "sandwich")


@dataclass(frozen=True)
class Answer:
    """One answer cut at its stop sequence: text, thinking, why it ended ("stop" or "length"), and its tokens.

    `n_tokens` counts what was generated up to the end of the stop sequence, thinking included.
    """

    text: str
    thinking: str | None
    finish_reason: str
    n_tokens: int
    n_thinking_tokens: int


class Served:
    """A loaded model that puts its kernel into conversations and decodes requests in groups."""

    def __init__(
        self, chat: ChatModel, kernel: Kernel | None, inject: Inject | None, signature: str, size: int | None
    ) -> None:
        from lem.runs.workers import Decoder

        self.chat, self.kernel, self.inject = chat, kernel, inject
        self._signature, self._size = signature, size
        self._decoder = Decoder(chat)
        self.kernel_prefix = self._kernel_prefix()

    @property
    def max_length(self) -> int | None:
        """Tokens that the model reads, prompt and answer together; None if its configuration does not say."""
        text_config = self.chat.config.get("text_config", {})
        limit = self.chat.config.get("max_position_embeddings", text_config.get("max_position_embeddings"))
        return limit if isinstance(limit, int) else None

    @property
    def facts(self) -> dict[str, Any]:
        """What shaped the answers: weights, adapter, kernel and its place, floating type."""
        return {
            "model": self.chat.name,
            "model_sha": self.chat.model_sha,
            "dtype": self.chat.identity["dtype"],
            "adapter": self.chat.adapter,
            "adapter_sha": self.chat.adapter_sha,
            "adapter_scale": None if self.chat.adapter is None else self.chat.adapter_scale,
            "kernel": None if self.kernel is None else self.kernel.path,
            "kernel_sha": None if self.kernel is None else self.kernel.sha,
            "inject": self.inject,
        }

    def conversation(self, messages: Sequence[Message]) -> list[Message]:
        """Put the kernel into a conversation: before its system turn, or before (and around) its first user turn.

        A system turn that the template would drop is put before the first user turn.
        Raises: UserError for a conversation without a user turn.
        """
        from lem.chat.render import supports_system

        system = [message["content"] for message in messages if message["role"] == "system"]
        turns = [dict(message) for message in messages if message["role"] != "system"]
        first = next((index for index, turn in enumerate(turns) if turn["role"] == "user"), None)
        if first is None:
            raise UserError("a conversation without a user turn cannot be answered; give the task's samples an input.")
        before = [] if self.kernel is None else [self.kernel.text]
        if self.inject == "system":
            system, before = before + system, []
        if system and not supports_system(self.chat):
            before, system = before + system, []
        after = [self._signature] if self.inject == "sandwich" and self._signature else []
        turns[first]["content"] = "\n\n".join([*before, turns[first]["content"], *after])
        return ([{"role": "system", "content": "\n\n".join(system)}] if system else []) + turns

    def _kernel_prefix(self) -> tuple[int, ...]:
        """The tokens with which every conversation under the kernel begins; none without a kernel."""
        from lem.chat.generate import prefix_of
        from lem.chat.render import render

        if self.kernel is None:
            return ()
        plain = [[{"role": "user", "content": text}] for text in ("What is a bridge?", "Name three tools.")]
        with_system = [{"role": "system", "content": "Answer briefly."}, *plain[0]]
        conversations = [self.conversation(messages) for messages in (*plain, with_system)]
        return prefix_of([render(self.chat, messages).tokens for messages in conversations])

    def group_size(self, longest_tokens: int) -> int:
        """Rows to decode together: what the caller of `open_served` asked for, else what free memory allows."""
        from lem.chat.device import free_memory_bytes
        from lem.runs.groups import choose_group_size

        return self._size or choose_group_size(self.chat.config, longest_tokens, free_memory_bytes())

    def decode(
        self, requests: Sequence[Request], settings: GenerationSettings, prefix: Sequence[int] = ()
    ) -> Iterator[Completion]:
        """Decode requests in groups of like length and yield completions as they end.

        The order in which requests arrive does not matter: rows are sorted by their content before they are grouped.
        `prefix` is computed once for all rows that begin with it.
        """
        from lem.runs.workers import Job

        prefix = tuple(prefix)
        sharing = [row for row in requests if prefix and len(row.tokens) > len(prefix)]
        sharing = [row for row in sharing if row.tokens[: len(prefix)] == prefix]
        shared_ids = {row.id for row in sharing}
        alone = [row for row in requests if row.id not in shared_ids]
        for start, rows in ((prefix, sharing), ((), alone)):
            rows = sorted(rows, key=lambda row: (len(row.tokens), row.tokens, row.seed))
            longest = max((len(row.tokens) for row in rows), default=0) + settings.max_tokens
            size = self.group_size(longest)
            for first in range(0, len(rows), size):
                job = Job("", tuple(rows[first : first + size]), start)
                for _, completion in self._decoder.decode([job], settings):
                    if completion is not None:
                        yield completion


def open_served(
    model: str | None,
    *,
    adapter: str | None = None,
    adapter_scale: float = 1.0,
    kernel: str | None = None,
    inject: str | None = None,
    batch_size: int | None = None,
    need_template: bool = True,
) -> Served:
    """Load a model (folder, hub id or a name of lem.config.json), its adapter at a scale, and a kernel file.

    Raises: UserError for anything that cannot be loaded or does not fit together.
    """
    from lem.chat.load import load
    from lem.chat.render import choose_injection

    config = load_config()
    if inject is not None and inject not in INJECTIONS:
        raise UserError(f"inject={inject}: a kernel goes to {', '.join(INJECTIONS)}; name one of them.")
    if inject is not None and kernel is None:
        raise UserError(f"inject={inject}: there is no kernel to place; give kernel=FILE as well.")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size={batch_size}: must be at least 1.")
    text = None if kernel is None else read_kernel(Path(kernel).expanduser())
    source = resolve_model(config, model)
    chat = load(source, adapter, need_template=need_template or text is not None, adapter_scale=adapter_scale)
    place = None if text is None else choose_injection(chat, inject)  # type: ignore[arg-type]
    file = Path(config.kernel_dir) / SIGNATURE_FILE
    signature = file.read_text(encoding="utf-8").strip() if place == "sandwich" and file.is_file() else ""
    return Served(chat, text, place, signature, batch_size)


def read_answer(chat: ChatModel, prompt: Sequence[int], completion: Completion, stops: Sequence[str]) -> Answer:
    """Cut a completion at the first stop sequence of its answer; stop sequences in the thinking do not count."""
    from lem.chat.generate import split_thinking

    tokens = list(completion.tokens)
    thinking, answer = split_thinking(chat.tokenizer, prompt, tokens)
    n_kept = _tokens_until(chat, answer, stops)
    text = _decode(chat, answer[:n_kept])
    cuts = [text.find(stop) for stop in stops if stop and stop in text]
    n_before = len(tokens) - len(answer)
    return Answer(
        text=text[: min(cuts)] if cuts else text,
        thinking=None if thinking is None else _decode(chat, thinking).strip(),
        finish_reason=str(completion.finish_reason) if n_kept is None else "stop",
        n_tokens=len(tokens) if n_kept is None else n_before + n_kept,
        n_thinking_tokens=0 if thinking is None else n_before,
    )


def _decode(chat: ChatModel, tokens: Sequence[int], *, special: bool = False) -> str:
    return str(chat.tokenizer.decode(list(tokens), skip_special_tokens=not special))


def _tokens_until(chat: ChatModel, tokens: Sequence[int], stops: Sequence[str]) -> int | None:
    """How many tokens complete the first stop sequence, special tokens counted as text; None if none is there."""

    def holds(n: int) -> bool:
        text = _decode(chat, tokens[:n], special=True)
        return any(stop in text for stop in stops if stop)

    if not holds(len(tokens)):
        return None
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
