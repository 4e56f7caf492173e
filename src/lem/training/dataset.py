"""Training rows from chat files: every reply in full, or counted as left out.

A row longer than the limit is shortened on the prompt side (`truncate`) or left out (`drop`); the reply is never cut.
How prompts are shortened stands in `shorten`, where the replies are found in `mask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lem.chat.load import ChatModel
from lem.data import ChatExample, read_chat_examples
from lem.errors import DataError, UserError
from lem.training.mask import Form, NoReply, Sandwich, TrainingRow, make_form, pieces
from lem.training.shorten import fit
from lem.training.turns import token_ids

__all__ = ["Outcome", "RowSet", "Sandwich", "TrainingRow", "encode", "encode_example", "encode_file"]

TooLong = Literal["truncate", "drop"]
_LINES_SHOWN = 5


@dataclass(frozen=True)
class Outcome:
    """What became of one example.

    `no_reply` says why nothing was counted, "" if something was. `too_long`: a reply was left out because it does not
    fit. `truncated`: prompt text was cut or exchanges were parted. `as_generated`: generation starts from the very
    prompts that stand in the rows. `stops`: every counted reply ends with a stop token.
    """

    line: int
    rows: tuple[TrainingRow, ...]
    no_reply: str = ""
    too_long: bool = False
    truncated: bool = False
    as_generated: bool = True
    stops: bool = True


@dataclass(frozen=True)
class RowSet:
    """The rows of one file and what became of each example; the counts are of examples, not of rows."""

    rows: tuple[TrainingRow, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def n_dropped(self) -> int:
        """Examples without a reply token."""
        return sum(bool(outcome.no_reply) for outcome in self.outcomes)

    @property
    def n_too_long(self) -> int:
        """Examples of which a reply was left out because it does not fit."""
        return sum(outcome.too_long for outcome in self.outcomes)

    @property
    def n_truncated(self) -> int:
        """Examples whose prompt was shortened or whose exchanges were parted."""
        return sum(outcome.truncated for outcome in self.outcomes)

    def notes(self) -> list[str]:
        """One sentence for each thing that a person should know, with the first lines it happened on."""
        kinds = (
            ("left out, no reply to train on", [o.line for o in self.outcomes if o.no_reply]),
            ("with a reply left out that does not fit", [o.line for o in self.outcomes if o.too_long]),
            ("with a shortened prompt", [o.line for o in self.outcomes if o.truncated]),
            ("in several rows", [o.line for o in self.outcomes if len(o.rows) > 1]),
            ("with a prompt unlike generation's", [o.line for o in self.outcomes if not o.as_generated]),
            ("without a stop token behind the reply", [o.line for o in self.outcomes if not o.stops]),
        )
        return [f"{counted(len(lines), 'example')} {what} ({_lines(lines)})." for what, lines in kinds if lines]


def counted(n: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _lines(lines: Sequence[int]) -> str:
    shown = ", ".join(str(line) for line in lines[:_LINES_SHOWN])
    return f"line{'' if len(lines) == 1 else 's'} {shown}{', ...' if len(lines) > _LINES_SHOWN else ''}"


def encode(
    chat: ChatModel, example: ChatExample, *, mask_prompt: bool = True, sandwich: Sandwich | None = None
) -> TrainingRow:
    """Tokenise a whole conversation as one row; every reply counts that stands in it as generation would give it.

    Where a template rewrites earlier replies only the last one counts: `encode_file` gives each a row of its own.
    Raises: DataError if a reply cannot be found; UserError if the template refuses the roles.
    """
    form = make_form(chat, mask_prompt=mask_prompt, sandwich=sandwich)
    try:
        return pieces(form, example.messages, example.line)[-1].row
    except NoReply as error:
        raise DataError(f"line {example.line}: {error}.") from None


def encode_file(
    chat: ChatModel,
    path: Path,
    max_seq_length: int,
    *,
    mask_prompt: bool = True,
    too_long: TooLong = "truncate",
    sandwich: Sandwich | None = None,
) -> RowSet:
    """Encode a chat file into rows of at most `max_seq_length` tokens, in the order of the file.

    Args:  too_long: `truncate` shortens the prompt of a longer row, `drop` leaves the row out; both are counted.
    Raises: UserError if nothing is left; DataError for a malformed line, or one that the template refuses.
    """
    form = make_form(chat, mask_prompt=mask_prompt, sandwich=sandwich)
    outcomes: list[Outcome] = []
    for example in read_chat_examples(path):
        try:
            outcomes.append(encode_example(form, example, max_seq_length, too_long))
        except UserError as error:
            raise DataError(f"{path} line {example.line}: {error}") from None
    found = RowSet(tuple(row for outcome in outcomes for row in outcome.rows), tuple(outcomes))
    if found.rows:
        return found
    if found.n_too_long:
        kernel = "" if sandwich is None else f" (the kernel alone has {len(token_ids(chat, sandwich.kernel)):,})"
        raise UserError(f"{path}: no row keeps a reply within {max_seq_length} tokens{kernel}; raise --max-seq-length.")
    raise UserError(
        f"{path}: no example has a reply to train on (line {outcomes[0].line}: {outcomes[0].no_reply}); "
        "`lem data show` prints the tokens."
    )


def encode_example(form: Form, example: ChatExample, limit: int, too_long: TooLong = "truncate") -> Outcome:
    """The rows of one example, none longer than `limit` tokens.   Raises: UserError if the template refuses it."""
    try:
        whole = pieces(form, example.messages, example.line)
        if too_long == "truncate":
            kept = [fitted for piece in whole for fitted in fit(form, piece, limit)]
        else:
            kept = [piece for piece in whole if len(piece.row.tokens) <= limit]
    except NoReply as error:
        return Outcome(example.line, (), no_reply=str(error))
    return Outcome(
        example.line,
        tuple(piece.row for piece in kept),
        too_long=sum(piece.n_replies for piece in kept) < sum(piece.n_replies for piece in whole),
        truncated=any(piece not in whole for piece in kept),
        as_generated=all(piece.as_generated for piece in whole),
        stops=all(piece.stops for piece in whole),
    )
