"""A grammar that an answer must follow, as text; `lem.chat.constrain` compiles it for a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GrammarKind = Literal["json_schema", "gbnf", "lark", "regex"]


@dataclass(frozen=True)
class Grammar:
    """The kind of a grammar and its text (a JSON schema as JSON)."""

    kind: GrammarKind
    text: str
