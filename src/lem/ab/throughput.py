"""What a pilot run says about speed and length: tokens a second from the times of its records, tokens an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median

from lem.records import Record, RunContents
from lem.stats import mean_bca, per_probe

# A wait between two groups this many times the usual one is a pause (a resume the next morning), not decoding.
PAUSE = 10.0
_MIN_STEPS = 3
_MAX_BLOCKS = 4


@dataclass(frozen=True)
class Rate:
    """New tokens a second over all decoding processes together, with the slowest and fastest stretch; `note` says how
    it was measured."""

    value: float
    low: float
    high: float
    note: str


@dataclass(frozen=True)
class AnswerLength:
    """New tokens an answer: mean with its 95% limits (equal to it where given or of one probe), and the share that
    the token limit cut."""

    value: float
    low: float
    high: float
    truncated: float
    note: str = ""


def read_time(text: str) -> datetime | None:
    """A record's time, in UTC where it names no zone; None when there is none or it cannot be read."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def measure_rate(pilot: RunContents) -> Rate | None:
    """Measure new tokens a second between the ends of decoding groups; None when no times or counts are stored.

    The tokens of every group after the first are divided by the time since the first ended, so that loading is not
    counted; pauses are left out with the group behind them. Fewer than four groups leave no other way than to count
    from the making of the run, loading included, which can only be too slow.
    """
    ends = _group_ends(pilot.records)
    if len(ends) > _MIN_STEPS:
        return _between_groups(ends)
    created = read_time(pilot.info.created)
    if created is None or not ends:
        return None
    seconds = (ends[-1][0] - created).total_seconds()
    tokens = sum(count for _, count in ends)
    if seconds <= 0 or tokens == 0:
        return None
    rate = tokens / seconds
    return Rate(rate, rate, rate, "loading included, as the pilot has fewer than four decoding groups")


def _group_ends(records: Sequence[Record]) -> list[tuple[datetime, int]]:
    """When each decoding group ended and how many tokens it made, in the order of the ends."""
    found: dict[str, tuple[datetime, int]] = {}
    for number, record in enumerate(records):
        time = read_time(record.ts)
        if time is None or record.failed or record.n_tokens is None:
            continue
        name = record.group or str(number)
        end, tokens = found.get(name, (time, 0))
        found[name] = (max(end, time), tokens + record.n_tokens)
    return sorted(found.values())


def _between_groups(ends: Sequence[tuple[datetime, int]]) -> Rate | None:
    steps = [((later - earlier).total_seconds(), tokens) for (earlier, _), (later, tokens) in pairwise(ends)]
    usual = median(seconds for seconds, _ in steps)
    kept = [step for step in steps if usual <= 0 or step[0] <= PAUSE * usual]
    seconds, tokens = sum(step[0] for step in kept), sum(step[1] for step in kept)
    if seconds <= 0 or tokens == 0:
        return None
    n_blocks = min(_MAX_BLOCKS, len(kept))
    blocks = [kept[part * len(kept) // n_blocks : (part + 1) * len(kept) // n_blocks] for part in range(n_blocks)]
    rates = [sum(s[1] for s in block) / sum(s[0] for s in block) for block in blocks if sum(s[0] for s in block) > 0]
    pauses = len(steps) - len(kept)
    left_out = f", {pauses} pause{'s' if pauses > 1 else ''} left out" if pauses else ""
    value = tokens / seconds
    return Rate(
        value, min([value, *rates]), max([value, *rates]), f"measured over {len(kept)} decoding groups{left_out}"
    )


def answer_length(pilot: RunContents, arm: str, max_tokens: int) -> AnswerLength | None:
    """Tokens an answer of one arm, none counted beyond the plan's own limit; None if the pilot counted none.

    An arm that the pilot lacks takes the mean of the others, with the lowest and highest limit among them.
    """
    arms = [arm] if arm in {record.arm for record in pilot.records} else list(pilot.info.arms)
    found = [length for name in arms if (length := _length_of(pilot.records, name, max_tokens)) is not None]
    if not found:
        return None
    if arms == [arm]:
        return found[0]
    return AnswerLength(
        sum(length.value for length in found) / len(found),
        min(length.low for length in found),
        max(length.high for length in found),
        max(length.truncated for length in found),
        f"arm '{arm}' is not in the pilot; the mean of its other arms stands in for its length",
    )


def _length_of(records: Sequence[Record], arm: str, max_tokens: int) -> AnswerLength | None:
    counted = [r for r in records if r.arm == arm and not r.failed and r.n_tokens is not None]
    if not counted:
        return None
    tokens = per_probe((record.probe_id, float(min(record.n_tokens or 0, max_tokens))) for record in counted)
    estimate = mean_bca(list(tokens.values()))
    known = not math.isnan(estimate.low)
    truncated = sum(record.finish_reason == "length" for record in counted) / len(counted)
    return AnswerLength(
        estimate.value, estimate.low if known else estimate.value, estimate.high if known else estimate.value, truncated
    )
