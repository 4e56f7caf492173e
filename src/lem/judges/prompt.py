"""What a judge reads: instructions and scales in the system turn, the material of one item, fenced, in the user turn.

The judged text stands between two lines that carry a nonce which the text does not contain, so no text can close its
own fence. It is never altered and never shortened. The judge is blind: no arm, model or kernel is named. Everything
that is the same for all items of a pass stands first, so that its cache can be shared between them.
The wording is in `prompts/rating.md` and `prompts/preference.md`, whose first lines hold their versions.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lem.judges.parse import ITEM, RATIONALE
from lem.judges.protocol import Call
from lem.judges.rubrics import Rubric
from lem.records import Key

PROMPTS = Path(__file__).with_name("prompts")
RATING, PREFERENCE = "rating", "preference"
VERDICTS = ("A", "B", "tie")
MAX_RATIONALE = 600
NONCE_DIGITS = 12

_VERSION = re.compile(r"\{#- version (\S+) -#\}")
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(PROMPTS), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
)


def template_version(name: str) -> str:
    """The version of a prompt's wording, "rating 1".   Raises: ValueError if its first line holds none."""
    found = _VERSION.match((PROMPTS / f"{name}.md").read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"prompts/{name}.md: the first line holds no version")
    return f"{name} {found.group(1)}"


PROMPT_VERSION = f"{template_version(RATING)}, {template_version(PREFERENCE)}"


@dataclass(frozen=True)
class Subject:
    """What is judged: the question and the answer of one cell, and the item's reference answers where it has them.

    `key` and `benchmark` say where it comes from and are not shown to the judge.
    """

    key: Key
    benchmark: str
    question: str
    answer: str
    references: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def nonce_for(seed: str, *texts: str) -> str:
    """Twelve hex digits that follow from the seed and the texts and stand in none of the texts."""
    return _first_free(_candidates(seed, texts), texts)


def rating_call(
    id: Any, subject: Subject, rubrics: Sequence[Rubric], nonce: str, *, rationale: bool = True, max_tokens: int = 512
) -> Call:
    """Ask for the rating of one answer on one or more scales.

    Reference answers are shown if one of the rubrics uses them.
    Raises: ValueError for a nonce that is none or stands in the material, for no rubric, or for a dimension twice.
    """
    names = [rubric.dimension for rubric in rubrics]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"one call needs rubrics of different dimensions, got {names}")
    references = any(rubric.uses_references for rubric in rubrics)
    correct, incorrect = (subject.references, subject.wrong) if references else ((), ())
    _check_nonce(nonce, (subject.question, subject.answer, *correct, *incorrect))
    system, user = _render(
        RATING,
        nonce=nonce,
        rubrics=rubrics,
        references=references,
        rationale=rationale,
        question=subject.question,
        answer=subject.answer,
        correct=correct,
        incorrect=incorrect,
    )
    scales = {one.dimension: {"type": "integer", "minimum": one.low, "maximum": one.high} for one in rubrics}
    return Call(id, system, user, _schema(nonce, rationale, scales), max_tokens)


def pair_call(
    id: Any, question: str, first: str, second: str, nonce: str, *, rationale: bool = True, max_tokens: int = 512
) -> Call:
    """Ask which of two answers serves the person better: "A" is the first, "B" the second, "tie" neither.

    Raises: ValueError for a nonce that is none or stands in the material.
    """
    _check_nonce(nonce, (question, first, second))
    system, user = _render(PREFERENCE, nonce=nonce, rationale=rationale, question=question, first=first, second=second)
    return Call(
        id, system, user, _schema(nonce, rationale, {"verdict": {"type": "string", "enum": [*VERDICTS]}}), max_tokens
    )


def _candidates(seed: str, texts: Sequence[str]) -> Iterator[str]:
    digest = hashlib.sha256()
    for text in (seed, *texts):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    number = 0
    while True:
        yield hashlib.sha256(digest.digest() + number.to_bytes(8, "big")).hexdigest()[:NONCE_DIGITS]
        number += 1


def _first_free(candidates: Iterator[str], texts: Sequence[str]) -> str:
    digits = [_hex_digits(text) for text in texts]
    return next(nonce for nonce in candidates if not any(nonce in text for text in digits))


def _hex_digits(text: str) -> str:
    """A text's hex digits alone: no case, width, space or invisible character can then hide a nonce from a search."""
    return re.sub(r"[^0-9a-f]", "", unicodedata.normalize("NFKC", text).casefold())


def _check_nonce(nonce: str, texts: Sequence[str]) -> None:
    if not re.fullmatch(rf"[0-9a-f]{{{NONCE_DIGITS}}}", nonce):
        raise ValueError(f"a nonce has {NONCE_DIGITS} hex digits, got {nonce!r}")
    if any(nonce in _hex_digits(text) for text in texts):
        raise ValueError(f"the nonce {nonce} stands in the text that it is to fence")


def _render(name: str, **values: Any) -> tuple[str, str]:
    """The system and user turns of a prompt; values are put in once and never read as templates themselves."""
    template = _ENVIRONMENT.get_template(f"{name}.md")
    context = template.new_context({**values, "max_rationale": MAX_RATIONALE})
    system, user = ("".join(template.blocks[part](context)) for part in ("system", "user"))
    return system.strip(), user


def _schema(nonce: str, rationale: bool, dimensions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    properties: dict[str, dict[str, Any]] = {ITEM: {"type": "string", "const": nonce}}
    if rationale:
        properties[RATIONALE] = {"type": "string", "maxLength": MAX_RATIONALE}
    properties.update(dimensions)
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }
