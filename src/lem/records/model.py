"""The record of one completion, and what scorers and judges say of it.

Three outcomes never merge: a *wrong* answer has a low value, an *unscored* one has a reason and no value,
a *failed* one has an error and no response.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, NamedTuple

RECORD_SCHEMA = 1
NOT_FINITE = "the stored value is not finite"
LIKELIHOOD = "likelihood"  # finish reason of a record whose response holds the likelihoods of choices, as JSON
LARGEST = 1e300  # beyond it a mean or a difference can overflow, and would no longer be finite

# Annotation of a field -> the types that JSON may hold there (true and false are no numbers).
_KINDS: dict[str, frozenset[type]] = {
    "str": frozenset((str,)),
    "str | None": frozenset((str, NoneType)),
    "int": frozenset((int,)),
    "int | None": frozenset((int, NoneType)),
    "float | None": frozenset((float, int, NoneType)),
    "dict[str, float]": frozenset((dict,)),
    "dict[str, str]": frozenset((dict,)),
    "dict[str, Any]": frozenset((dict,)),
    "dict[str, dict[str, Any]]": frozenset((dict,)),
    "list[str]": frozenset((list,)),
    "list[dict[str, Any]]": frozenset((list,)),
    "tuple[dict[str, str], ...]": frozenset((list, tuple, NoneType)),
}
# In the order in which a sentence takes the first that fits.
_WORDS = {float: "a number", int: "a whole number", str: "a text", dict: "an object", list: "a list"}


class Key(NamedTuple):
    """Identity of a cell of the design: which arm answered which probe, for which repeat (counted from 0)."""

    arm: str
    probe_id: str
    repeat: int


@dataclass(frozen=True)
class Record:
    """One completion as it was asked for and as it came back.

    `response` is the answer without thinking text; `thinking` is None when the model has none.
    `finish_reason` is "stop", "length" (truncated) or "likelihood" (nothing was written, choices were measured).
    `error` is set for a failed request, whose `response` is then None. `seed` is the row's key as 16 hex digits.
    `group` names the decoding group.
    """

    run_id: str
    arm: str
    probe_id: str
    repeat: int
    response: str | None
    fingerprint: str = ""
    group: str = ""
    messages: tuple[dict[str, str], ...] = ()
    prompt_sha: str = ""
    thinking: str | None = None
    finish_reason: str | None = None
    n_prompt_tokens: int | None = None
    n_tokens: int | None = None
    seed: str = ""
    error: str | None = None
    ts: str = ""
    turn: int = 0
    schema: int = RECORD_SCHEMA

    @property
    def key(self) -> Key:
        """The cell this record fills."""
        return Key(self.arm, self.probe_id, self.repeat)

    @property
    def failed(self) -> bool:
        """True when the request ended in an error, so that there is no answer to score."""
        return self.error is not None

    def to_row(self) -> dict[str, Any]:
        """Return the flat JSON object of `records.jsonl`, schema first, `ts` last."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        row["messages"] = list(self.messages)
        head = ("schema", "run_id", "arm", "probe_id", "repeat", "turn", "fingerprint", "group")
        ordered = {name: row.pop(name) for name in head}
        ts = row.pop("ts")
        return {**ordered, **row, "ts": ts}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Record:
        """Build a record from a line of `records.jsonl`.

        Raises: KeyError for unknown fields (of a newer schema), TypeError for a field that is missing or of another
        type, and for a record with neither a response nor an error.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = set(row) - names
        if unknown:
            raise KeyError(f"unknown record fields {sorted(unknown)}")
        record = cls(**{**row, "messages": tuple(row.get("messages") or ())})
        fault = misfit(row, _RECORD_KINDS) or _message_misfit(record.messages)
        if fault is None and record.response is None and record.error is None:
            fault = "it has neither a response nor an error"
        if fault is not None:
            raise TypeError(fault)
        return record


@dataclass(frozen=True)
class Score:
    """One scorer's verdict on one record: a value with its signals, or unscored with the reason."""

    arm: str
    probe_id: str
    repeat: int
    scorer: str
    version: str
    value: float | None
    signals: dict[str, float]
    unscored: str | None = None
    record_sha: str = ""

    @property
    def key(self) -> Key:
        """The cell this score belongs to."""
        return Key(self.arm, self.probe_id, self.repeat)

    def to_row(self) -> dict[str, Any]:
        """Return the flat JSON object of `scores/<scorer>.jsonl` (a value that is not finite becomes null)."""
        return {**dataclasses.asdict(self), **_stored_value(self)}


@dataclass(frozen=True)
class Judgement:
    """One judge's verdict on one dimension of one record: a value, or unscored with the reason.

    `order` is "" for an absolute rating, "ab" or "ba" for a comparison with the answer of the arm `against`; the value
    then says whether this arm's answer won (1), lost (0) or neither (0.5), whatever the order. In "ab" the judge read
    this arm's answer first. `low` and `high` are the ends of the scale, None where it is not known. `raw` is what
    the judge said, `model` the version that it says it is, `prompt_sha` the hash of what it was asked, `cost` in the
    currency of the price table. `error` is set when the call itself failed; the value is then None and `unscored` says
    so.
    """

    arm: str
    probe_id: str
    repeat: int
    judge: str
    dimension: str
    value: float | None
    order: str = ""
    unscored: str | None = None
    raw: str = ""
    low: float | None = None
    high: float | None = None
    version: str = ""
    record_sha: str = ""
    error: str | None = None
    ts: str = ""
    against: str = ""
    model: str = ""
    prompt_sha: str = ""
    n_prompt_tokens: int | None = None
    n_tokens: int | None = None
    cost: float | None = None

    @property
    def key(self) -> Key:
        """The cell this judgement is about (a judgement's own key adds judge, dimension, order and opponent)."""
        return Key(self.arm, self.probe_id, self.repeat)

    @property
    def full_key(self) -> tuple[str, str, int, str, str, str, str]:
        """What is unique to this judgement: cell, judge, dimension, order, opponent."""
        return (*self.key, self.judge, self.dimension, self.order, self.against)

    @property
    def failed(self) -> bool:
        """Whether there is no verdict, because the call failed."""
        return self.error is not None and self.value is None

    def to_row(self) -> dict[str, Any]:
        """Return the flat JSON object of `judgements/<judge>.jsonl` (a value that is not finite becomes null)."""
        return {**dataclasses.asdict(self), **_stored_value(self)}


def is_finite(value: float) -> bool:
    """True for a number that can be counted with: neither NaN nor infinite nor beyond 1e300 on either side."""
    return -LARGEST <= value <= LARGEST


def _stored_value(item: Score | Judgement) -> dict[str, Any]:
    if item.value is None or is_finite(item.value):
        return {"value": item.value}
    return {"value": None, "unscored": item.unscored or NOT_FINITE}


Kinds = Mapping[str, frozenset[type]]


def field_kinds(of: type) -> Kinds:
    """For each field of a dataclass the types that its JSON form may have."""
    return {field.name: _KINDS[str(field.type)] for field in dataclasses.fields(of)}


def misfit(row: Mapping[str, Any], kinds: Kinds) -> str | None:
    """What is wrong with the first field that is of another type than it may be; None when all fit."""
    for name, value in row.items():
        if type(value) not in kinds[name]:
            words = next(words for kind, words in _WORDS.items() if kind in kinds[name])
            null = " or null" if NoneType in kinds[name] else ""
            return f"field '{name}' must be {words}{null}, not {shown(value)}"
    return None


def shown(value: Any) -> str:
    """A value as JSON, short enough for a sentence."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


_RECORD_KINDS = field_kinds(Record)


def _message_misfit(messages: tuple[Any, ...]) -> str | None:
    for message in messages:
        if type(message) is not dict or any(type(text) is not str for text in message.values()):
            return f"field 'messages' must be a list of objects of texts, not of {shown(message)}"
    return None


def text_sha(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes (lone surrogates kept), as 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint(prompt_sha: str, settings: dict[str, Any], identity: dict[str, Any]) -> str:
    """Hash everything that can change a completion's text: prompt, settings, model/adapter/cap identity.

    Returns: 16 hex digits. Key order does not matter; values must be JSON-serialisable.
    """
    payload = {"prompt": prompt_sha, "settings": settings, "identity": identity}
    return text_sha(json.dumps(payload, sort_keys=True, ensure_ascii=True, allow_nan=False))[:16]
