"""What a scorer returns for one text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreResult:
    """A value with the signals behind it, or no value and the reason in `unscored`."""

    value: float | None
    signals: dict[str, float]
    unscored: str | None = None
