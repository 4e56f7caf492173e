"""Ctrl-C between two steps: the first is noted and acted on when the step is done, the second acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt(numbers: Sequence[signal.Signals]) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether one of these signals came; outside the main thread it never does."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
