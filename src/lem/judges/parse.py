"""Read the verdict out of a judge's reply: one JSON object, exactly as asked for, or no verdict at all.

White space and one code fence may stand around the object. Nothing is mended and nothing is searched for: an object
in the middle of other text may have been quoted from the answer under judgement. The nonce in the field `item` ties
a reply to its call, so that a verdict which stands in a judged text, and which the judge merely repeats, is none. That
holds where the judge writes the nonce itself: services do, local judges have it written by their grammar.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lem.judges.protocol import Call, Ending, Reply

ITEM, RATIONALE, LOGPROBS = "item", "rationale", "logprobs"

_FENCED = re.compile(r"```(?:json)?[ \t\r\n]*(\{.*\})[ \t\r\n]*```", re.DOTALL | re.IGNORECASE)
_JSON_SPACE = " \t\r\n"


class Reason(StrEnum):
    """Why a reply holds no verdict; FAILED is followed by the error: "failed: timeout"."""

    UNPARSABLE = "unparsable"  # not one JSON object with the fields and types of the schema
    OTHER_ITEM = "other item"  # a well-formed verdict without this call's nonce
    OUT_OF_RANGE = "out of range"  # a whole number or a word that the scale does not have
    TRUNCATED = "truncated"
    BLOCKED = "blocked"
    REFUSED = "refused"
    FAILED = "failed"


_ENDED = {Ending.TRUNCATED: Reason.TRUNCATED, Ending.BLOCKED: Reason.BLOCKED, Ending.REFUSED: Reason.REFUSED}


@dataclass(frozen=True)
class Verdict:
    """The value of each dimension (a rating, or "A", "B", "tie" under "verdict"), or the reason why there is none.

    A verdict counts whole or not at all: `values` is empty when `unscored` is set, and holds every dimension of the
    call otherwise. `rationale` is what the judge gave as its reason, "" without one.
    """

    values: dict[str, float | str] = field(default_factory=dict)
    unscored: str | None = None
    rationale: str = ""


def read_verdict(reply: Reply, call: Call) -> Verdict:
    """The verdict of a reply to a call.

    The fields must be those of the call's schema, in any order and each once; `logprobs`, which the label method adds,
    may stand beside them. A rating must be written as a whole number: 7.0, "7", true and null are unparsable. A
    rationale of any length counts, because its limit is there to bound the cost of a reply.
    """
    if reply.ending is Ending.FAILED:
        return Verdict(unscored=f"{Reason.FAILED}: {reply.error or 'no reason given'}")
    if reply.ending is not Ending.COMPLETE:
        return Verdict(unscored=_ENDED[reply.ending])
    try:
        found = json.loads(_bare(reply.text), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return Verdict(unscored=Reason.UNPARSABLE)
    return _checked(found, call.schema["properties"])


def _bare(text: str) -> str:
    stripped = text.strip(_JSON_SPACE)
    fenced = _FENCED.fullmatch(stripped)
    return fenced.group(1) if fenced else stripped


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a field stands twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _checked(found: Any, properties: dict[str, Any]) -> Verdict:
    if not isinstance(found, dict) or not _is_logprobs(found.pop(LOGPROBS, {})) or found.keys() != properties.keys():
        return Verdict(unscored=Reason.UNPARSABLE)
    if any(not _has_type(found[name], schema) for name, schema in properties.items()):
        return Verdict(unscored=Reason.UNPARSABLE)
    if found[ITEM] != properties[ITEM]["const"]:
        return Verdict(unscored=Reason.OTHER_ITEM)
    dimensions = {name: schema for name, schema in properties.items() if name not in (ITEM, RATIONALE)}
    if any(not _on_scale(found[name], schema) for name, schema in dimensions.items()):
        return Verdict(unscored=Reason.OUT_OF_RANGE)
    values = {name: found[name] if isinstance(found[name], str) else float(found[name]) for name in dimensions}
    return Verdict(values, rationale=found.get(RATIONALE, ""))


def _is_logprobs(value: Any) -> bool:
    """Whether `logprobs` maps labels to numbers; it is kept in the raw reply and is no part of the verdict."""
    return isinstance(value, dict) and all(type(number) in (int, float) for number in value.values())


def _has_type(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value has the schema's type; a bool is no integer."""
    return type(value) is {"string": str, "integer": int}[schema["type"]]


def _on_scale(value: Any, schema: dict[str, Any]) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    return bool(schema["minimum"] <= value <= schema["maximum"])
