"""Render conversations: where a kernel goes, what the chat template makes of it, and the exact tokens.

A template may drop a system turn without a word, so system support is proven by rendering a sentinel and
finding it again. A prompt is tokenised once, by the template, so that no second beginning-of-sequence token
can slip in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lem.chat.load import ChatModel
from lem.errors import UserError
from lem.records import text_sha

Inject = Literal["system", "user", "sandwich"]
Message = dict[str, str]
_SENTINEL = "Sentinel 7f3a91: the lantern is behind the blue door."


@dataclass(frozen=True)
class Rendered:
    """A rendered prompt: its text, the token ids the model sees, and the SHA-256 of the text."""

    text: str
    tokens: tuple[int, ...]
    sha: str


def supports_system(chat: ChatModel) -> bool:
    """True if the template puts the text of a system turn into the prompt, shown by rendering a sentinel."""
    messages = [{"role": "system", "content": _SENTINEL}, {"role": "user", "content": "Good morning."}]
    try:
        return _SENTINEL in _template(chat, messages)
    except Exception:  # templates are programs of others: they raise whatever they like to refuse a role
        return False


def conversation(probe: str, kernel: str | None, inject: Inject, signature: str = "") -> list[Message]:
    """Build the messages of one request.

    `system`: the kernel is a system turn. `user`: it stands before the probe in the user turn. `sandwich`:
    kernel, blank line, probe, blank line, signature in one user turn. Without a kernel: the probe alone.
    """
    if kernel is None:
        return [{"role": "user", "content": probe}]
    if inject == "system":
        return [{"role": "system", "content": kernel}, {"role": "user", "content": probe}]
    parts = [kernel, probe] + ([signature] if inject == "sandwich" and signature else [])
    return [{"role": "user", "content": "\n\n".join(parts)}]


def choose_injection(chat: ChatModel, wanted: Inject | None) -> Inject:
    """Return the wanted place for the kernel, or the best one the template has when none is named.

    Raises: UserError if `system` is asked for and the template drops system turns.
    """
    if wanted is None:
        return "system" if supports_system(chat) else "user"
    if wanted == "system" and not supports_system(chat):
        raise UserError(f"{chat.name}: its chat template drops system turns; use --inject user or --inject sandwich.")
    return wanted


def render(chat: ChatModel, messages: Sequence[Message]) -> Rendered:
    """Render messages up to the point where the assistant speaks.   Raises: UserError if the template refuses them."""
    try:
        text = _template(chat, messages)
        tokens = chat.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=True)
    except Exception as error:
        roles = ", ".join(message["role"] for message in messages)
        detail = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UserError(f"{chat.name}: the chat template refuses the roles {roles} ({detail}).") from None
    return Rendered(text, tuple(int(token) for token in tokens), text_sha(text))


def complete(chat: ChatModel, messages: Sequence[Message]) -> Rendered:
    """Write messages out as plain text, for a model without a chat template: their contents, blank lines between."""
    text = "\n\n".join(message["content"] for message in messages)
    return Rendered(text, tuple(int(token) for token in chat.tokenizer.encode(text)), text_sha(text))


def continuation(chat: ChatModel, rendered: Rendered, text: str) -> tuple[int, ...]:
    """The tokens of a text that goes on where a prompt ends.

    They are what the tokenizer adds when it reads both together; where it would merge the last token of the prompt with
    the first of the text, the text is tokenised by itself.
    """
    encode = chat.tokenizer.encode
    together = tuple(int(token) for token in encode(rendered.text + text, add_special_tokens=False))
    prompt = tuple(int(token) for token in encode(rendered.text, add_special_tokens=False))
    if len(together) > len(prompt) and together[: len(prompt)] == prompt:
        return together[len(prompt) :]
    return tuple(int(token) for token in encode(text, add_special_tokens=False))


def after_thinking(chat: ChatModel, rendered: Rendered) -> Rendered:
    """The prompt with the thinking that its template opened closed again, so that an answer is what comes next."""
    tokenizer, tokens = chat.tokenizer, list(rendered.tokens)
    if not tokenizer.has_thinking or tokenizer.rfind_think_start(tokens) <= tokenizer.rfind_think_end(tokens):
        return rendered
    end = f"{tokenizer.think_end}\n\n"
    text = rendered.text + end
    added = (int(token) for token in tokenizer.encode(end, add_special_tokens=False))
    return Rendered(text, (*rendered.tokens, *added), text_sha(text))


def _template(chat: ChatModel, messages: Sequence[Message]) -> str:
    text: Any = chat.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    return str(text)


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Length of the token prefix that all prompts share, leaving at least one token of each to decode from."""
    if not prompts:
        return 0
    ordered = sorted(list(prompt) for prompt in prompts)
    first, last = ordered[0], ordered[-1]  # the common prefix of all is that of the two lexical extremes
    limit = min(len(prompt) for prompt in prompts) - 1
    length = 0
    while length < min(limit, len(first), len(last)) and first[length] == last[length]:
        length += 1
    return max(length, 0)
