"""Conversations as rows of tokens: system text and sandwich put where generation puts them, every reply counted once.

A conversation is one row if all its replies stand in it as generation would produce them. Where the template rewrites
earlier replies once they are history (removes their thoughts, say), every reply has a row of its own: the
conversation up to it, as generation would have met it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lem.chat.load import ChatModel
from lem.chat.render import Message, conversation, supports_system
from lem.training.turns import NoReply, Turn, find_turn, token_ids, whole_text

__all__ = ["Form", "NoReply", "Piece", "Sandwich", "TrainingRow", "last_piece", "make_form", "pieces"]


@dataclass(frozen=True)
class TrainingRow:
    """Token ids of one conversation and, for each, whether it is counted; `line` is the example's line in its file."""

    tokens: tuple[int, ...]
    reply: tuple[bool, ...]
    line: int = 0

    @property
    def n_reply(self) -> int:
        """Number of tokens that the loss counts."""
        return sum(self.reply)


@dataclass(frozen=True)
class Sandwich:
    """The first user turn becomes kernel, blank line, turn, blank line, signature."""

    kernel: str
    signature: str = ""


@dataclass(frozen=True)
class Form:
    """How conversations become rows: the model's template, a sandwich, the mask, and where system text goes."""

    chat: ChatModel
    sandwich: Sandwich | None
    mask_prompt: bool
    fold_system: bool


@dataclass(frozen=True)
class Piece:
    """One row, the messages it was made of, and the number of replies that count in it.

    `last_only`: of several replies only the last counts. `as_generated`: generation starts from the very prompts that
    stand in the row. `stops`: every counted reply ends with a stop token.
    """

    messages: tuple[Message, ...]
    row: TrainingRow
    n_replies: int
    last_only: bool = False
    as_generated: bool = True
    stops: bool = True


def make_form(chat: ChatModel, *, mask_prompt: bool = True, sandwich: Sandwich | None = None) -> Form:
    """Ask the template once what it does with system turns."""
    return Form(chat, sandwich, mask_prompt, fold_system=not supports_system(chat))


def pieces(form: Form, messages: Sequence[Message], line: int = 0) -> list[Piece]:
    """The rows of a conversation: one if all replies stand in it as generation would produce them, else one a reply.

    Raises: NoReply if a reply cannot be found; UserError if the template refuses the roles.
    """
    ends = [index + 1 for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not form.mask_prompt:
        tokens = token_ids(form.chat, whole_text(form.chat, _prepared(form, messages)))
        return [Piece(tuple(messages), _row(tokens, [(1, len(tokens))], line), len(ends))]
    turns = [find_turn(form.chat, _prepared(form, messages[:end])) for end in ends]
    last = turns[-1].tokens
    if all(last[: turn.end] == turn.tokens[: turn.end] for turn in turns):
        return [_piece(form, messages, turns, line)]
    return [_piece(form, messages[:end], [turn], line) for end, turn in zip(ends, turns, strict=True)]


def last_piece(form: Form, messages: Sequence[Message], line: int = 0) -> Piece:
    """The row of a conversation in which only the last reply is counted."""
    return _piece(form, messages, [find_turn(form.chat, _prepared(form, messages))], line)


def _piece(form: Form, messages: Sequence[Message], turns: Sequence[Turn], line: int) -> Piece:
    """One row of a conversation, whose tokens are those of its last turn, with these turns counted."""
    stops = set(form.chat.stop_token_ids)
    return Piece(
        tuple(messages),
        _row(turns[-1].tokens, [(turn.start, turn.end) for turn in turns], line),
        n_replies=len(turns),
        last_only=len(turns) < sum(message["role"] == "assistant" for message in messages),
        as_generated=all(turn.as_generated for turn in turns),
        stops=all(turn.tokens[turn.end - 1] in stops for turn in turns),
    )


def _row(tokens: Sequence[int], spans: Sequence[tuple[int, int]], line: int) -> TrainingRow:
    reply = [False] * len(tokens)
    for start, end in spans:
        reply[max(start, 1) : end] = [True] * (end - max(start, 1))  # nothing predicts the first token
    return TrainingRow(tuple(tokens), tuple(reply), line)


def _prepared(form: Form, messages: Sequence[Message]) -> list[Message]:
    """The messages as the model meets them: sandwich put in, system text where the template keeps it."""
    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    first = 1 if turns[0]["role"] == "system" else 0
    if form.sandwich is not None:
        kernel, signature = form.sandwich.kernel, form.sandwich.signature
        turns[first : first + 1] = conversation(turns[first]["content"], kernel, "sandwich", signature)
    if first and form.fold_system:
        turns[:2] = conversation(turns[1]["content"], turns[0]["content"], "user")
    return turns
