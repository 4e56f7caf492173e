"""What a local judge reads and may write: prompt tokens, the grammar of a verdict, the labels of a rating.

Text under judgement can spell the control tokens of the judge's model and so pretend that its turn is over. A prompt
whose texts hold such a spelling is put together from pieces: the template's own parts with control tokens, the texts
without.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lem.chat.grammar import Grammar
from lem.chat.load import ChatModel
from lem.chat.render import Inject, complete, conversation, render, shared_prefix
from lem.errors import UserError
from lem.judges.protocol import Call

_PLACE = "\x02place {}\x03"
# A verdict's texts hold neither quotation marks, which end them, nor escapes: cut anywhere, they are still JSON.
_PLAIN_TEXT = r'[^"\\\x00-\x1F\x7F]'
_ENDS = 4  # tokens for the closing brace, the stop token, and a text's first and last, which may reach beyond it
_TEXT_KEYS = {"type", "minLength", "maxLength"}


@dataclass(frozen=True)
class Labelled:
    """The rating of a call as a choice: its name, its labels, and the fields that stand before it.

    `prompt` holds the tokens before the labels, `choices` those of each label, which go on to the verdict's end, so
    that 1 is no beginning of 10.
    """

    name: str
    labels: tuple[Any, ...]
    fields: dict[str, Any]
    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


def prompt_tokens(chat: ChatModel, call: Call, inject: Inject | None) -> tuple[int, ...]:
    """The prompt of a call; `inject` says where the instructions go, None that there is no template: plain text.

    Raises: UserError if the template refuses the turns, or cannot keep a text's control tokens from counting.
    """
    messages = conversation(call.user, call.system, inject or "user")
    controls = [token.content for token in chat.tokenizer._tokenizer.added_tokens_decoder.values() if token.content]
    if not any(control in message["content"] for control in controls for message in messages):
        return (complete(chat, messages) if inject is None else render(chat, messages)).tokens
    if inject is None:
        plain = chat.tokenizer._tokenizer.encode(messages[0]["content"], split_special_tokens=True)
        return tuple(int(token) for token in plain)
    return _pieced(chat, [message["role"] for message in messages], [message["content"] for message in messages])


def _pieced(chat: ChatModel, roles: Sequence[str], contents: Sequence[str]) -> tuple[int, ...]:
    """The template around places for the texts, and the texts in them as ordinary characters."""
    places = [_PLACE.format(number) for number in range(len(roles))]
    turns = [{"role": role, "content": place} for role, place in zip(roles, places, strict=True)]
    frame = render(chat, turns).text
    spots = [0, *(frame.find(place) for place in places)]
    if any(frame.count(place) != 1 for place in places) or any(early > late for early, late in pairwise(spots)):
        raise UserError(f"{chat.name}: its template cannot keep the control tokens in a judged text from counting.")
    encode = chat.tokenizer._tokenizer.encode
    tokens: list[int] = []
    for place, content in zip(places, contents, strict=True):
        before, _, frame = frame.partition(place)
        tokens += encode(before, add_special_tokens=False)
        tokens += encode(content, add_special_tokens=False, split_special_tokens=True)
    return tuple(int(token) for token in tokens + encode(frame, add_special_tokens=False))


def verdict_grammar(call: Call) -> Grammar:
    """The grammar of a call's verdict: its schema, with the free texts so short that the reply ends in time.

    What must be written takes at most a token for each byte; the texts share the tokens that are left. The item code is
    the grammar's, not the model's: small models cannot copy it (lem-nano: 0 of 64), so here it proves nothing.
    """
    properties: dict[str, dict[str, Any]] = call.schema["properties"]
    texts = [name for name, schema in properties.items() if _is_text(schema)]
    if not texts:
        return Grammar("json_schema", json.dumps(call.schema))
    n_fixed = _ENDS + sum(len(json.dumps(name)) + 4 + _most_bytes(schema) for name, schema in properties.items())
    n_tokens = max(1, (call.max_tokens - n_fixed) // len(texts))
    start, rules = [], []
    for number, (name, schema) in enumerate(properties.items()):
        head = f"{', ' if number else '{'}{json.dumps(name, ensure_ascii=False)}: "
        if name in texts:
            low, high = schema.get("minLength", 0), schema.get("maxLength", call.max_tokens)
            start.append(f"{_literal(head + chr(34))} value{number} {_literal(chr(34))}")
            rules.append(f"value{number}[max_tokens={n_tokens}]: /{_PLAIN_TEXT}{{{low},{high}}}/")
        else:
            start.append(f"{_literal(head)} value{number}")
            rules.append(f"value{number}: %json {json.dumps(schema)}")
    return Grammar("lark", "\n".join([f"start: {' '.join(start)} {_literal('}')}", *rules]))


def labelled(chat: ChatModel, call: Call, prompt: tuple[int, ...]) -> Labelled:
    """The labels of a call's single rating as continuations of its prompt.

    Fixed fields stand before the rating, free texts empty: this method gives no reasons.
    Raises: UserError for a call with more than one rating, or with one that is no choice among few.
    """
    fields: dict[str, Any] = {}
    ratings: dict[str, list[Any]] = {}
    for name, schema in call.schema["properties"].items():
        if "const" in schema or _is_text(schema):
            fields[name] = schema.get("const", "")
        else:
            ratings[name] = _values(schema)
    if len(ratings) != 1 or not next(iter(ratings.values())):
        raise UserError(
            f"label log-probabilities measure one rating a call, and this one asks for {', '.join(ratings) or 'none'}; "
            "leave out --together, or take --judge-method grammar."
        )
    (name, values) = next(iter(ratings.items()))
    verdicts = [json.dumps({**fields, name: value}, ensure_ascii=False) for value in values]
    encode = chat.tokenizer._tokenizer.encode
    rows = [tuple(int(token) for token in encode(text, add_special_tokens=False)) for text in verdicts]
    shared = shared_prefix(rows)
    choices = tuple(row[shared:] for row in rows)
    return Labelled(name, tuple(values), fields, prompt + rows[0][:shared], choices)


def _is_text(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "string" and set(schema) <= _TEXT_KEYS


def _values(schema: dict[str, Any]) -> list[Any]:
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("type") == "integer" and {"minimum", "maximum"} <= set(schema):
        return list(range(schema["minimum"], schema["maximum"] + 1))
    return []


def _most_bytes(schema: dict[str, Any]) -> int:
    values = [schema["const"]] if "const" in schema else _values(schema)
    return max((len(json.dumps(value, ensure_ascii=False).encode()) for value in values), default=2)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
