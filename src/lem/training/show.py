"""`lem data show`: the exact tokens of training rows, with the trained ones marked, and what became of each example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from lem.chat.load import ChatModel
from lem.data import ChatExample, read_chat_examples
from lem.errors import DataError, UserError
from lem.paths import display_path
from lem.training.dataset import Outcome, RowSet, Sandwich, TooLong, counted, encode_example
from lem.training.marked import MARKS, NEWLINE, SPACE, TAB, flow, table, units
from lem.training.mask import TrainingRow, make_form
from lem.training.prepare import template_sha


@dataclass(frozen=True)
class Shown:
    """The examples of a file that were asked for, as rows; `lines` are those of all its examples."""

    file: str
    model: str
    template_sha: str
    lines: tuple[int, ...]
    found: RowSet


def read_rows(
    chat: ChatModel,
    path: Path,
    limit: int,
    select: Callable[[int], bool],
    *,
    mask_prompt: bool = True,
    too_long: TooLong = "truncate",
    sandwich: Sandwich | None = None,
) -> Shown:
    """Encode the examples on the selected lines of a chat file as training would.

    Raises: UserError if no example is selected; DataError for a malformed line, or one that the template refuses.
    """
    examples = read_chat_examples(path)
    chosen = [example for example in examples if select(example.line)]
    if not chosen:
        first, last = examples[0].line, examples[-1].line
        raise UserError(f"{path}: no example there; the examples stand on lines {first} to {last}.")
    form = make_form(chat, mask_prompt=mask_prompt, sandwich=sandwich)

    def encoded(example: ChatExample) -> Outcome:
        try:
            return encode_example(form, example, limit, too_long)
        except UserError as error:
            raise DataError(f"{path} line {example.line}: {error}") from None

    outcomes = tuple(encoded(example) for example in chosen)
    rows = tuple(row for outcome in outcomes for row in outcome.rows)
    lines = tuple(example.line for example in examples)
    return Shown(display_path(path), chat.name, template_sha(chat), lines, RowSet(rows, outcomes))


def render(chat: ChatModel, shown: Shown, outcomes: Sequence[Outcome], *, colour: bool, ids: bool = False) -> Text:
    """The page for the terminal: a header, then every outcome's rows; trained tokens green, or between marks."""
    page = Text()
    for line in _header(shown, colour):
        page.append(line + "\n")
    for outcome in outcomes:
        for number, row in enumerate(outcome.rows, start=1):
            part = f", row {number} of {len(outcome.rows)}" if len(outcome.rows) > 1 else ""
            share = (
                f"{counted(len(row.tokens), 'token')}, {row.n_reply:,} trained ({row.n_reply / len(row.tokens):.0%})"
            )
            page.append(f"\nline {outcome.line}{part}: {share}\n", "bold")
            found = units(chat, row)
            page.append_text(table(found, colour) if ids else flow(found, colour))
        for remark in _remarks(outcome):
            page.append(f"{'' if outcome.rows else chr(10)}line {outcome.line}: {remark}\n", "bold")
    rest = len(shown.found.outcomes) - len(outcomes)
    if rest:
        page.append(f"\n{counted(rest, 'example')} more; --row N or --rows A-B (lines of the file) shows them.\n")
    return page


def _header(shown: Shown, colour: bool) -> list[str]:
    rows = shown.found.rows
    n, trained = sum(len(row.tokens) for row in rows), sum(row.n_reply for row in rows)
    some = "" if len(shown.found.outcomes) == len(shown.lines) else f" of {len(shown.lines):,}"
    share = f" ({trained / n:.0%})" if n else ""
    marks = "green" if colour else f"between {MARKS[0]} and {MARKS[1]}"
    return [
        shown.file,
        f"model {shown.model}, template {shown.template_sha[:12]}",
        f"{len(shown.found.outcomes):,}{some} examples, {counted(len(rows), 'row')}, {n:,} tokens, "
        f"{trained:,} trained{share}",
        *shown.found.notes(),
        f"trained tokens are {marks}; {NEWLINE} line feed, {TAB} tab, {SPACE} space alone",
    ]


def _remarks(outcome: Outcome) -> list[str]:
    said = (
        (bool(outcome.no_reply), f"left out: {outcome.no_reply}"),
        (outcome.too_long, "a reply is left out: it does not fit into --max-seq-length"),
        (outcome.truncated, "the prompt was shortened to fit"),
        (not outcome.as_generated, "generation starts from another prompt than this one"),
        (not outcome.stops, "no stop token ends the reply: the model is not taught to stop"),
    )
    return [text for holds, text in said if holds]


def as_json(chat: ChatModel, shown: Shown) -> dict[str, Any]:
    """Everything for machines: per row its line, token ids, trained flags (0 or 1), and text by unit."""
    return {
        "file": shown.file,
        "model": shown.model,
        "template_sha": shown.template_sha,
        "n_examples": len(shown.lines),
        "n_shown": len(shown.found.outcomes),
        "n_tokens": sum(len(row.tokens) for row in shown.found.rows),
        "n_trained": sum(row.n_reply for row in shown.found.rows),
        "notes": shown.found.notes(),
        "examples": [
            {
                "line": outcome.line,
                "no_reply": outcome.no_reply,
                "too_long": outcome.too_long,
                "truncated": outcome.truncated,
                "as_generated": outcome.as_generated,
                "stops": outcome.stops,
                "rows": [_row_json(chat, row) for row in outcome.rows],
            }
            for outcome in shown.found.outcomes
        ],
    }


def _row_json(chat: ChatModel, row: TrainingRow) -> dict[str, Any]:
    return {
        "n_tokens": len(row.tokens),
        "n_trained": row.n_reply,
        "tokens": list(row.tokens),
        "trained": [int(flag) for flag in row.reply],
        "units": [[list(unit.ids), unit.text] for unit in units(chat, row)],
    }
