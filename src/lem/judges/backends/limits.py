"""What a pass over a service may take, and how it waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lem.judges.backends.budget import Budget


@dataclass(frozen=True)
class Patience:
    """How passing errors are waited out; `sleep` and `clock` (seconds) can be replaced.

    Waits grow from `first_s` to `longest_s` with jitter. A service that asks for more than `longest_pause_s` is not
    waited for. After `give_up_after` calls in a row without a reply the pass ends; `give_up_unproven` of them do if
    there never was a reply. Calls that the service refuses count only as long as it has answered none.
    """

    attempts: int = 6
    first_s: float = 1.0
    longest_s: float = 60.0
    longest_pause_s: float = 600.0
    give_up_after: int = 24
    give_up_unproven: int = 3
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Limits:
    """What a pass may take: calls at once, seconds a call, money, and tokens beyond a call's own limit (thinking)."""

    concurrency: int = 8
    timeout_s: float = 120.0
    budget: Budget = field(default_factory=Budget)
    extra_tokens: int = 0
    patience: Patience = field(default_factory=Patience)
