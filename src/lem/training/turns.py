"""Where a reply stands in the tokens of a conversation: what generation would have to produce, and nothing else.

A reply is counted from the end of the prompt that generation starts from (rendered with the generation prompt) up to
and including the token that stops generation; what a template prints behind that token is not counted. The place is
found by comparing rendered texts and tokens, never from assumed lengths, and checked by decoding: the counted tokens
must spell the reply. What makes that hard:

- The tokenizer joins the prompt's last character with the reply's first ("\\n" and "\\n\\n"): the tokens are cut there,
  as generation cuts them.
- The generation prompt is no prefix of the finished conversation (it opens a thinking block, say): the reply begins
  at the first character that conversations with other replies do not share.
- A turn is ended by the opening of the next one and not by a token of its own: that opening is put behind the reply.
- The template rewrites the reply (removes its thoughts, say): the row is put together as generation would leave it,
  prompt and reply, then what the template prints behind a reply.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lem.chat.load import ChatModel
from lem.chat.render import Message, Rendered, render
from lem.errors import DataError, UserError

_SENTINELS = ("Quiet 5c1e lanterns", "Bright 9d20 ladders")  # two replies without a common beginning


@dataclass(frozen=True)
class Turn:
    """A conversation up to a reply: its tokens, and the counted ones from `start` up to `end`.

    `as_generated` is false where generation starts from another prompt than the one in these tokens.
    """

    tokens: list[int]
    start: int
    end: int
    as_generated: bool = True


class NoReply(DataError):
    """The reply cannot be found in the tokens; the message is a clause without a full stop."""


def find_turn(chat: ChatModel, messages: Sequence[Message]) -> Turn:
    """Find the last reply of a conversation in its tokens.   Raises: NoReply, or UserError for refused roles."""
    turn = _located(chat, messages)
    if turn.tokens[turn.end - 1] in chat.stop_token_ids:
        return turn
    return _ended_by_the_next(chat, messages, turn)


def _ended_by_the_next(chat: ChatModel, messages: Sequence[Message], turn: Turn) -> Turn:
    """The turn with the first token of a user turn behind it, where that is what stops generation."""
    whole, longer = whole_text(chat, messages), whole_text(chat, [*messages, {"role": "user", "content": "?"}])
    behind = token_ids(chat, longer[len(whole) :]) if longer.startswith(whole) else []
    if not behind or behind[0] not in chat.stop_token_ids:
        return turn
    return Turn([*turn.tokens, behind[0]], turn.start, turn.end + 1, turn.as_generated)


def _located(chat: ChatModel, messages: Sequence[Message]) -> Turn:
    prompt, whole, reply = render(chat, messages[:-1]), whole_text(chat, messages), messages[-1]["content"]
    begun = whole.startswith(prompt.text)
    if begun:
        turn = _cut(chat, whole, len(prompt.text), prompt.tokens)
        if _spells(chat, turn, reply) or _spells(chat, turn, reply, _header(chat, messages[:-1], prompt)):
            return turn
    others = [whole_text(chat, [*messages[:-1], {"role": "assistant", "content": text}]) for text in _SENTINELS]
    if not begun:
        start = _common(whole, *others)
        turn = replace(_cut(chat, whole, start, token_ids(chat, whole[:start])), as_generated=False)
        if _spells(chat, turn, reply):
            return turn
    _, found, behind = others[0].rpartition(_SENTINELS[0])
    if not found:
        raise NoReply(_why(chat, reply))
    return _assembled(chat, prompt, reply, prompt.text[_common(prompt.text, *others) :], behind)


def _header(chat: ChatModel, messages: Sequence[Message], prompt: Rendered) -> str:
    """What the generation prompt puts behind the conversation."""
    return prompt.text[_common(prompt.text, whole_text(chat, messages)) :]


def _assembled(chat: ChatModel, prompt: Rendered, reply: str, opened: str, behind: str) -> Turn:
    """The row that generation would leave: prompt, reply, and what the template prints behind a reply.

    Args:  opened: what the generation prompt writes for the reply and finished conversations do not have.
    Raises: NoReply if the prompt opens something that the reply does not begin with.
    """
    thought = chat.tokenizer.think_start or ""
    opening = opened.strip() or (thought if thought and prompt.text.rstrip().endswith(thought) else "")
    body = reply
    if opening:
        if not reply.lstrip().startswith(opening):
            raise NoReply(_why(chat, reply))
        body = reply.lstrip().removeprefix(opening).lstrip("\n")
    turn = _cut(chat, prompt.text + body + behind, len(prompt.text), prompt.tokens)
    if not _spells(chat, turn, body):
        raise NoReply(_why(chat, reply))
    return turn


def _common(*texts: str) -> int:
    """Length of the beginning that all texts share."""
    first, last = min(texts), max(texts)  # between the lexical extremes all others lie
    return next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def whole_text(chat: ChatModel, messages: Sequence[Message]) -> str:
    """The finished conversation as text.   Raises: UserError if the template refuses it."""
    try:
        text: Any = chat.tokenizer.apply_chat_template(list(messages), tokenize=False)
    except Exception as error:  # templates are programs of others: they raise whatever they like
        roles = ", ".join(message["role"] for message in messages)
        detail = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UserError(f"{chat.name}: the chat template refuses the roles {roles} ({detail}).") from None
    return str(text)


def token_ids(chat: ChatModel, text: str) -> list[int]:
    """Token ids of a rendered text, as the template's own tokenising gives them."""
    return [int(token) for token in chat.tokenizer.encode(text, add_special_tokens=False)]


def decode(chat: ChatModel, tokens: Sequence[int]) -> str:
    """The exact text of tokens, special tokens by name."""
    text: Any = chat.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
    return str(text)


def _cut(chat: ChatModel, text: str, at: int, head: Sequence[int]) -> Turn:
    """Tokenise a conversation that begins with the tokens `head` up to character `at`, where the reply begins."""
    tokens, start, given = token_ids(chat, text), len(head), list(head)
    if tokens[:start] != given:
        tokens, start = _parted(chat, text, at, given, tokens)
    stops = set(chat.stop_token_ids)
    ends = (position + 1 for position in range(start, len(tokens)) if tokens[position] in stops)
    return Turn(tokens, start, next(ends, len(tokens)), tokens[:start] == given)


def _parted(chat: ChatModel, text: str, at: int, head: list[int], joined: list[int]) -> tuple[list[int], int]:
    """Tokens of a text with a token boundary at `at`, which the tokenizer alone would not put there.

    Some tokenizers begin every text with a space of their own; behind a stop token they do not. Where no cut spells
    the same text, the joined token belongs to the reply: no prompt of generation holds it.
    """
    spelled = decode(chat, joined)
    for anchor in ([], chat.stop_token_ids[:1]):
        tail = token_ids(chat, decode(chat, anchor) + text[at:])
        if tail[: len(anchor)] == anchor and decode(chat, head + tail[len(anchor) :]) == spelled:
            return head + tail[len(anchor) :], len(head)
    return joined, next(i for i, token in enumerate(joined) if i == len(head) or token != head[i])


def _spells(chat: ChatModel, turn: Turn, reply: str, header: str = "") -> bool:
    """Whether the counted tokens, behind the header of the turn, hold the reply, spaces apart.

    The reply may also stand there as the tokenizer spells it. Its end must be counted; its beginning may be written
    by the header already.
    """
    stops = set(chat.stop_token_ids)
    counted = turn.tokens[turn.start : turn.end]
    text = _plain(header + decode(chat, counted[:-1] if counted and counted[-1] in stops else counted))
    tokens = token_ids(chat, reply)
    spelled = decode(chat, tokens[:-1] if tokens and tokens[-1] in stops else tokens)  # texts may bring their own
    for wanted in (_plain(reply), _plain(spelled)):
        at = text.rfind(wanted)
        if wanted and at >= 0 and at + len(wanted) > len(_plain(header)):
            return True
    return False


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _why(chat: ChatModel, reply: str) -> str:
    stops = [token for token in token_ids(chat, reply) if token in set(chat.stop_token_ids)]
    if stops:
        return f"the reply holds the text of the stop token {decode(chat, stops[:1])}, which would end it early"
    return "the chat template does not print the reply as it is, so it cannot be found in the tokens"
