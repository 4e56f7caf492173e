"""One line of lm-eval's `samples_<task>_<time>.jsonl`: its requests, its answers, and its metrics.

A generation request has one text per repeat. A multiple-choice document has one log-likelihood request per option and
no text; its answer is the option with the highest one. lm-eval repeats a document once for each of its filters; the
metrics of a filter other than "none" are named as in its tables, `exact_match,strict-match`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lem.interop.inspect_values import number_of, scorer_name
from lem.interop.lines import Line

# Everything lm-eval itself writes to a line; older versions name the metrics nowhere else than as further fields.
FIELDS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash", "lem",
}  # fmt: skip
NOT_MEASURED = {"bypass"}
ONE_OF_SEVERAL = "lm-eval gave one value for all repeats of this document; it stands with the first"


@dataclass(frozen=True)
class Request:
    """What was sent for one answer: the context, and the option (scoring) or the settings (generation)."""

    context: str
    option: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Text:
    """One repeat of a document: its text, or the error that stands for it; how it ended, where that is known."""

    repeat: int
    response: str | None
    error: str | None = None
    finish_reason: str | None = None


@dataclass(frozen=True)
class Mark:
    """One metric of one repeat of a document."""

    scorer: str
    repeat: int
    value: float | None
    unscored: str | None


def requests_of(line: Line) -> list[Request]:
    """The requests of a line, first to last.   Raises: DataError if there is none, or none that can be read."""
    given = line.row.get("arguments")
    if isinstance(given, dict):
        parts = [list(one.values()) if isinstance(one, dict) else one for one in given.values()]
    else:
        parts = given if isinstance(given, list) else []
    if not parts or not all(isinstance(part, list) and part and isinstance(part[0], str) for part in parts):
        raise line.error("field 'arguments' holds no request that can be read; lm-eval writes one per answer.")
    return [_request(part) for part in parts]


def _request(part: Sequence[Any]) -> Request:
    second = part[1] if len(part) > 1 else None
    settings = second if isinstance(second, dict) else {}
    return Request(part[0], second if isinstance(second, str) else None, settings)


def messages_of(context: str) -> tuple[dict[str, str], ...]:
    """The messages that were sent: a chat in JSON as its turns, any other text as one turn of the user."""
    if context.lstrip().startswith("[{"):
        try:
            turns = json.loads(context)
        except (ValueError, RecursionError):
            turns = None
        if isinstance(turns, list) and all(_is_turn(turn) for turn in turns):
            return tuple({"role": turn["role"], "content": turn["content"]} for turn in turns)
    return ({"role": "user", "content": context},)


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def texts_of(line: Line, requests: Sequence[Request]) -> list[Text]:
    """The answers of a line, one per repeat.

    Raises: DataError for responses that do not go with the requests, for a document with several texts to generate,
    and for perplexity requests, which have no answer.
    """
    found = line.row.get("resps")
    given = [one for one in found if isinstance(one, list) and one] if isinstance(found, list) else []
    if not isinstance(found, list) or not len(given) == len(found) == len(requests):
        raise line.error(f"field 'resps' does not hold a list of responses for each of the {len(requests)} requests.")
    if any(request.option is not None for request in requests):
        return [_chosen(line, requests, given)]
    if len(requests) > 1:
        raise line.error(f"the document has {len(requests)} texts to generate; LEM reads one.")
    if not requests[0].settings and _is_likelihood_of_the_context(given[0]):
        raise line.error("a perplexity request has no answer to import; import tasks that generate or choose.")
    return [_generated(line, repeat, text) for repeat, text in enumerate(given[0])]


def _is_likelihood_of_the_context(found: Sequence[Any]) -> bool:
    return len(found) == 1 and isinstance(_number(found[0]), float)


def _generated(line: Line, repeat: int, text: Any) -> Text:
    if text is None:
        return Text(repeat, None, "lm-eval stored no response")
    if not isinstance(text, str):
        raise line.error(f"response {repeat + 1} of field 'resps' is not a text.")
    return Text(repeat, text)


def _chosen(line: Line, requests: Sequence[Request], given: Sequence[list[Any]]) -> Text:
    """The option with the highest log-likelihood; a lone request was answered if it is what greedy decoding writes."""
    # With acc_mutual_info the options come again without their context.
    options = [(r, found) for r, found in zip(requests, given, strict=True) if r.context == requests[0].context]
    pairs = [found[0] if found and isinstance(found[0], list) else None for _, found in options]
    if not all(pair is not None and len(pair) == 2 for pair in pairs):
        raise line.error("field 'resps' holds no pair of log-likelihood and greedy flag for each option.")
    values = [_number(pair[0]) for pair in pairs if pair is not None]
    texts = [(request.option or "").strip() for request, _ in options]
    known = [value for value in values if value is not None and not math.isnan(value)]
    if len(known) < len(values) or max(known) == -math.inf:
        return Text(0, None, "a log-likelihood is not a number")
    if len(known) == 1:
        greedy = pairs[0] is not None and str(pairs[0][1]) == "True"
        return Text(0, texts[0] if greedy else "")
    return Text(0, texts[known.index(max(known))])


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def marks_of(line: Line, repeats: Sequence[int]) -> tuple[list[Mark], set[str]]:
    """The metrics of a line, and the names of those that are no number for one document.

    Of several repeats lm-eval scores one, or all together: the value stands with the first, the others are unscored.
    """
    named = line.row.get("metrics")
    listed = [str(name) for name in named] if isinstance(named, list) else [n for n in line.row if n not in FIELDS]
    filtered = line.text_or_none("filter")
    scorers = {
        name: scorer_name(name if filtered in (None, "none") else f"{name},{filtered}")
        for name in dict.fromkeys(listed)
    }
    if len(set(scorers.values())) < len(scorers):
        raise line.error("two of its metrics have names that differ only in punctuation; rename one of them.")
    marks, left_out = [], set()
    for name, scorer in scorers.items():
        raw = line.row.get(name)
        if name in NOT_MEASURED or isinstance(raw, list | dict):
            left_out.add(scorer)
            continue
        value, complaint = number_of(raw)
        marks.append(Mark(scorer, repeats[0], value, complaint))
        marks += [Mark(scorer, repeat, None, ONE_OF_SEVERAL) for repeat in repeats[1:]]
    return marks, left_out


def document_id(line: Line) -> int:
    """The number of the document within its task.   Raises: DataError if there is none."""
    number = line.whole_number("doc_id")
    if number is None:
        raise line.error("field 'doc_id' is missing; lm-eval writes it on every line of its samples.")
    return number
