"""Many calls to a service at once, as an ordinary iterator: limits, retries, waits and the end of all of it.

An event loop runs in a thread of its own. Calls go one by one until one is answered, so that a wrong key or model costs
one request; then as many run as asked for. A reply that nobody has taken yet still holds its place, so that closing the
iterator loses little of what was paid for. Closing it, or an error on the other side, cancels what is under way and
ends the thread.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from lem.judges.backends.faults import Service
from lem.judges.backends.limits import Limits
from lem.judges.backends.remote_pass import Connect, Pass
from lem.judges.protocol import Call, JudgeIdentity, Reply

THREAD = "lem-judge"


@dataclass
class RemoteJudge:
    """A judge behind a service; a context manager, whose end closes what is under way.

    `connect` opens a connection in the running event loop and gives the function that asks one call; that function
    raises Passing, BadCall or UserError. `adapted` names what was left out of requests because the service refused it.
    """

    identity: JudgeIdentity
    service: Service
    limits: Limits
    connect: Connect = field(repr=False)
    adapted: list[str] = field(default_factory=list)
    _streams: list[Generator[Reply]] = field(default_factory=list, repr=False)

    @property
    def committed(self) -> float:
        """The most that can have been spent so far, in the currency of the price; see `Budget`."""
        return self.limits.budget.committed

    def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Generator[Reply]:
        """Yield one reply for each wanted call as they come; see `lem.judges.protocol.Judge`."""
        left = [call for call in calls if call.id in wanted]
        found = stream(left, self.connect, self.service, self.limits, resumed=len(left) < len(calls))
        self._streams.append(found)
        return found

    def __enter__(self) -> Self:
        """The judge itself; nothing is opened before the first call."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every iterator of this judge."""
        while self._streams:
            self._streams.pop().close()


def stream(
    calls: Sequence[Call], connect: Connect, service: Service, limits: Limits, *, resumed: bool = False
) -> Generator[Reply]:
    """Yield a reply for each call as it comes, at most `limits.concurrency` of them asked and not yet taken.

    Ends early, with calls left over, when the budget has no room for another one.
    Args:  resumed: other calls of the same kind were answered before, so that a refusal says nothing of the service.
    Raises: UserError for what asking again cannot mend; replies yielded before stay good.
    """
    if not calls:
        return
    work = Pass(calls, connect, service, limits, resumed=resumed)
    thread = threading.Thread(target=work.run, name=THREAD, daemon=True)
    try:
        thread.start()  # inside, because Ctrl-C can come while it starts
        while (item := work.outbox.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            work.taken()
            yield item
    finally:
        work.cancel()
        if thread.is_alive():
            thread.join()
