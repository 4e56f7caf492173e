"""Training rows: the tokens of a conversation and which of them are the assistant's reply.

The reply mask comes from comparing tokens, never from assumed lengths: the conversation up to the reply, rendered
with the generation prompt, must be a token prefix of the conversation with the reply. Where a template breaks that
rule (it rewrites history, or opens a thinking block), the longest common prefix is the boundary, which never counts
a prompt token as reply. Rows whose reply is cut away entirely are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lem.chat.load import ChatModel
from lem.data import ChatExample, read_chat_examples
from lem.errors import UserError

IntArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingRow:
    """Token ids of one conversation and, for each, whether it is a reply token that the loss counts."""

    tokens: tuple[int, ...]
    reply: tuple[bool, ...]

    @property
    def n_reply(self) -> int:
        """Number of tokens that the loss counts."""
        return sum(self.reply)


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: `tokens` (B, T) int32; `targets` (B, T-1), true where the next token counts."""

    tokens: IntArray
    targets: BoolArray


@dataclass(frozen=True)
class RowSet:
    """The rows of one file, with the number dropped for having no reply left and the number cut at the limit."""

    rows: tuple[TrainingRow, ...]
    n_dropped: int
    n_truncated: int


def encode(chat: ChatModel, example: ChatExample, *, mask_prompt: bool = True) -> TrainingRow:
    """Tokenise a conversation once and mark the tokens of every assistant turn, its end-of-turn token included."""
    messages = list(example.messages)
    template = chat.tokenizer.apply_chat_template
    tokens = [int(token) for token in template(messages, tokenize=True)]
    if not mask_prompt:
        return TrainingRow(tuple(tokens), (False,) + (True,) * (len(tokens) - 1))
    reply = [False] * len(tokens)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = [int(t) for t in template(messages[:index], tokenize=True, add_generation_prompt=True)]
        after = [int(t) for t in template(messages[: index + 1], tokenize=True)]
        start, end = _common(before, tokens), _common(after, tokens)
        for position in range(start, _end_of_turn(tokens, start, end, chat.stop_token_ids)):
            reply[position] = True
    return TrainingRow(tuple(tokens), tuple(reply))


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length


def _end_of_turn(tokens: Sequence[int], start: int, end: int, stop_ids: Sequence[int]) -> int:
    """Cut after the turn's stop token: what a template prints behind it (a newline) is never generated."""
    for position in range(start, end):
        if tokens[position] in stop_ids:
            return position + 1
    return end


def encode_file(chat: ChatModel, path: Path, max_seq_length: int, *, mask_prompt: bool = True) -> RowSet:
    """Encode a chat file, cutting rows at `max_seq_length` tokens and dropping those without a reply token left.

    Raises: UserError if nothing is left.
    """
    rows: list[TrainingRow] = []
    dropped = truncated = 0
    for example in read_chat_examples(path):
        row = encode(chat, example, mask_prompt=mask_prompt)
        if len(row.tokens) > max_seq_length:
            row = TrainingRow(row.tokens[:max_seq_length], row.reply[:max_seq_length])
            truncated += 1
        if row.n_reply == 0:
            dropped += 1
        else:
            rows.append(row)
    if not rows:
        raise UserError(f"{path}: no row keeps a reply within {max_seq_length} tokens; raise --max-seq-length.")
    return RowSet(tuple(rows), dropped, truncated)


def make_batch(rows: Sequence[TrainingRow]) -> Batch:
    """Right-pad rows to a multiple of 32 tokens; padding is never a target."""
    width = -(-max(len(row.tokens) for row in rows) // 32) * 32
    tokens = np.zeros((len(rows), width), dtype=np.int32)
    targets = np.zeros((len(rows), width - 1), dtype=np.bool_)
    for index, row in enumerate(rows):
        tokens[index, : len(row.tokens)] = row.tokens
        targets[index, : len(row.tokens) - 1] = row.reply[1:]
    return Batch(tokens, targets)


def batches(rows: Sequence[TrainingRow], batch_size: int, seed: int) -> Iterator[Batch]:
    """Endless batches: every epoch cuts a fresh permutation, seeded by (seed, epoch), into parts of `batch_size`.

    The last part of an epoch may be smaller; the loss weighs tokens, not rows, so that does no harm.
    """
    epoch = 0
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(len(rows))
        for start in range(0, len(order), batch_size):
            yield make_batch([rows[index] for index in order[start : start + batch_size]])
        epoch += 1
