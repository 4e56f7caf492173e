"""Rules for the fields of an item: each says what is wrong with a value, as a clause, or None."""

from __future__ import annotations

from typing import Any


def a_text(value: Any) -> str | None:
    """A string that is not blank."""
    return None if isinstance(value, str) and value.strip() else "is empty or not a text"


def some_texts(value: Any) -> str | None:
    """A list of at least one string, none of them blank."""
    fits = isinstance(value, list) and value and all(isinstance(text, str) and text.strip() for text in value)
    return None if fits else "is not a list of texts"


def rating(value: Any) -> str | None:
    """A number from 1 to 5."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 5
    return None if fits else "is not a number from 1 to 5"


def one_of(*known: str) -> Any:
    """A rule: one of the known words."""

    def rule(value: Any) -> str | None:
        return None if value in known else f"is none of {', '.join(known)}"

    return rule
