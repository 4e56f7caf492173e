"""Where a curriculum stands: a pure fold over its decisions, so that a killed run goes on from the log alone.

The log holds one row for every attempt that was trained, asked and judged. What a kill interrupted has no row and is
done again from what lies in the attempt's own directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lem.studies.curriculum_file import OnFail

Action = Literal["go-on", "repeat", "back", "stop"]
_SEVERITY: tuple[OnFail, ...] = ("repeat", "back-to-diverged", "stop")


@dataclass(frozen=True)
class Attempt:
    """The n-th training (counted from 1) of a phase."""

    phase: int
    number: int

    @property
    def label(self) -> str:
        """`3.1`: phase 3, first attempt."""
        return f"{self.phase}.{self.number}"

    @property
    def arm(self) -> str:
        """The name of its arm in the evaluation run."""
        return f"phase-{self.label}"


@dataclass(frozen=True)
class Position:
    """`chain`: the accepted attempts in order; `next`: what to do now, None when finished or stopped."""

    chain: tuple[Attempt, ...] = ()
    made: Mapping[int, int] = field(default_factory=dict)
    next: Attempt | None = None
    stopped: bool = False

    @property
    def finished(self) -> bool:
        """True when every phase has been accepted."""
        return self.next is None and not self.stopped


@dataclass(frozen=True)
class Decision:
    """What happens after an attempt; `phase` is the one that is trained next (None at the end or after a stop)."""

    action: Action
    phase: int | None
    sentence: str


def replay(rows: Iterable[Mapping[str, Any]], numbers: Sequence[int]) -> Position:
    """Fold the decision rows of a log into the position they lead to.   Args: numbers: the phases, in order."""
    chain: tuple[Attempt, ...] = ()
    made: dict[int, int] = {}
    upcoming: int | None = numbers[0]
    stopped = False
    for row in rows:
        attempt = Attempt(row["phase"], row["attempt"])
        made[attempt.phase] = attempt.number
        stopped = row["action"] == "stop"
        upcoming = row["next_phase"]
        if row["action"] == "go-on":
            chain = (*chain, attempt)
        elif row["action"] == "back":
            chain = tuple(done for done in chain if done.phase < row["next_phase"])
    following = None if upcoming is None else Attempt(upcoming, made.get(upcoming, 0) + 1)
    return Position(chain, made, following, stopped)


def decide(
    position: Position,
    numbers: Sequence[int],
    max_attempts: Mapping[int, int],
    failed: Sequence[tuple[str, OnFail]],
    diverged: int | None,
) -> Decision:
    """Decide what follows the attempt `position.next`, given the gates that failed.

    Args:  max_attempts: trainings of a phase in all.  failed: (gate, what its failure asks for); of several the
           strictest counts: stop, then back, then repeat.  diverged: the accepted phase whose freeflow scores fell
           first, None if none did; then the phase itself is where the run diverged.
    """
    attempt = position.next
    if attempt is None:
        raise ValueError("a finished or stopped curriculum has nothing to decide")
    here = attempt.phase
    if not failed:
        later = [number for number in numbers if number > here]
        return Decision("go-on", later[0] if later else None, f"phase {here} passed its gates")
    names = ", ".join(gate for gate, _ in failed)
    wish = max((on_fail for _, on_fail in failed), key=_SEVERITY.index)
    if wish == "stop":
        return Decision("stop", None, f"phase {here} failed {names}, after which the file says stop")
    to = here if wish == "repeat" or diverged is None else diverged
    made = {**position.made, here: attempt.number}
    again = [number for number in numbers if to <= number <= here]
    spent = [number for number in again if made.get(number, 0) >= max_attempts[number]]
    if spent:
        back = "" if to == here else f", which sends the run back to phase {to}"
        return Decision(
            "stop", None, f"phase {here} failed {names}{back}, and phase {spent[0]} has no attempt left of "
            f"{max_attempts[spent[0]]}",
        )  # fmt: skip
    if to == here:
        return Decision("repeat", here, f"phase {here} failed {names} and is trained again from where it began")
    return Decision("back", to, f"phase {here} failed {names}; the scores fell at phase {to}, which is trained again")
