"""Every scorer by name: one explicit table from name to version and function.

A function takes the text of an answer and returns a `ScoreResult`. It never guesses: what it cannot judge has no
value and a reason. Scorers read surface features of text; none of them measures ethics.
"""

from __future__ import annotations

from collections.abc import Callable

from lem.errors import UserError
from lem.scorers import v1, v2, v3
from lem.scorers.result import ScoreResult


def _v1(text: str) -> ScoreResult:
    signals: dict[str, float] = dict(v1.score(text))
    return ScoreResult(float(signals.pop("score")), signals)


def _v2(text: str) -> ScoreResult:
    signals: dict[str, float] = dict(v2.score(text))
    return ScoreResult(float(signals.pop("lek_score")), signals)


SCORERS: dict[str, tuple[str, Callable[[str], ScoreResult]]] = {
    "v2": (v2.VERSION, _v2),
    "v3": (v3.VERSION, v3.score),
    "v1": (v1.VERSION, _v1),
}


def find(name: str) -> tuple[str, Callable[[str], ScoreResult]]:
    """Look a scorer up.   Raises: UserError that lists the known names."""
    if name not in SCORERS:
        raise UserError(f"unknown scorer '{name}'; known are {', '.join(SCORERS)}.")
    return SCORERS[name]


def score_text(name: str, text: str) -> ScoreResult:
    """Score one text by scorer name.   Raises: UserError for an unknown name, TypeError if text is no string."""
    return find(name)[1](text)
