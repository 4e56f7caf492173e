"""Many calls to a service at once, as an ordinary iterator: limits, retries, waits and the end of all of it.

An event loop runs in a thread of its own. One call goes first and alone, so that a wrong key or model costs one
request; then as many run as asked for. A reply that nobody has taken yet still holds its place, so that closing the
iterator loses little of what was paid for. Closing it, or an error on the other side, cancels what is under way and
ends the thread.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Self

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from lem.errors import UserError
from lem.judges.budget import Budget
from lem.judges.faults import BadCall, Passing, Service, not_reached
from lem.judges.protocol import Call, Ending, JudgeIdentity, Reply

THREAD = "lem-judge"

Ask = Callable[[Call], Awaitable[Reply]]
Connect = Callable[[], AbstractAsyncContextManager[Ask]]


@dataclass(frozen=True)
class Patience:
    """How passing errors are waited out; `sleep` and `clock` (seconds) can be replaced.

    Waits grow from `first_s` to `longest_s` with jitter. A service that asks for more than `longest_pause_s` is not
    waited for. After `give_up_after` calls in a row without a reply the pass ends; `give_up_unproven` of them do if
    there never was a reply.
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

    def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Generator[Reply]:
        """Yield one reply for each wanted call as they come; see `lem.judges.protocol.Judge`."""
        found = stream([call for call in calls if call.id in wanted], self.connect, self.service, self.limits)
        self._streams.append(found)
        return found

    def __enter__(self) -> Self:
        """The judge itself; nothing is opened before the first call."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every iterator of this judge."""
        while self._streams:
            self._streams.pop().close()


def stream(calls: Sequence[Call], connect: Connect, service: Service, limits: Limits) -> Generator[Reply]:
    """Yield a reply for each call as it comes, at most `limits.concurrency` of them asked and not yet taken.

    Ends early, with calls left over, when the budget has no room for another one.
    Raises: UserError for what asking again cannot mend; replies yielded before stay good.
    """
    if not calls:
        return
    work = _Pass(calls, connect, service, limits)
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


class _Pass:
    """The side of a stream that runs in the thread; only `outbox`, `taken` and `cancel` belong to the other side."""

    def __init__(self, calls: Sequence[Call], connect: Connect, service: Service, limits: Limits) -> None:
        self.calls, self.connect, self.service, self.limits = calls, connect, service, limits
        self.outbox: queue.SimpleQueue[Reply | BaseException | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False
        self._changed = asyncio.Event()
        self._held = 0  # calls under way and replies that were not taken
        self._under_way = 0
        self._proven = False  # the service has answered a call of this pass
        self._failures = 0  # calls in a row that ended without a reply
        self._pause_until = 0.0

    def run(self) -> None:
        """Run the pass to its end; the last item of the outbox is None or what ended it."""
        end: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            end = _first(error)
        self.outbox.put(end)

    def cancel(self) -> None:
        """End the pass now, from another thread."""
        self._call_soon(self._stop)

    def taken(self) -> None:
        """Free the place of a reply that was taken."""
        self._call_soon(self._release)

    def _call_soon(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop has ended by itself
            return

    def _stop(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def _release(self) -> None:
        self._held -= 1
        self._changed.set()

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        if self._cancelled:
            return
        async with self.connect() as ask, asyncio.TaskGroup() as group:
            for call in self.calls:
                if not await self._place_for(call):
                    break
                self._held += 1
                self._under_way += 1
                group.create_task(self._one(ask, call))

    async def _place_for(self, call: Call) -> bool:
        """Wait until a call may be sent; False when the budget will not have room for it."""
        limits = self.limits
        while True:
            free = self._held < limits.concurrency and (self._proven or not self._under_way)
            if free and limits.budget.admit(call, limits.extra_tokens):
                return True
            if free and not self._under_way:
                self._refuse_small_budget(call)
                return False
            self._changed.clear()
            await self._changed.wait()

    def _refuse_small_budget(self, call: Call) -> None:
        budget = self.limits.budget
        if budget.spent == 0 and budget.price is not None and budget.max_cost is not None:
            most = budget.estimate(call, self.limits.extra_tokens)
            raise UserError(
                f"judge '{self.service.judge}': --max-cost {budget.max_cost:g} is less than one call may cost "
                f"({most:.2g} {budget.price.currency}); raise it."
            )

    async def _one(self, ask: Ask, call: Call) -> None:
        reply, sent = await self._ask(ask, call)
        reply = replace(reply, cost=self.limits.budget.settle(reply, sent=sent))
        self._under_way -= 1
        self.outbox.put(reply)
        self._failures = self._failures + 1 if reply.ending is Ending.FAILED else 0
        self._proven = self._proven or reply.ending is not Ending.FAILED
        self._changed.set()
        patience = self.limits.patience
        if self._failures >= (patience.give_up_after if self._proven else patience.give_up_unproven):
            raise UserError(
                f"judge '{self.service.judge}': {self.service.url} left {self._failures} calls in a row without a "
                f"reply (last: {reply.error}); what was judged is kept, run the same command again later."
            )

    async def _ask(self, ask: Ask, call: Call) -> tuple[Reply, bool]:
        """The reply to a call after as many attempts as it takes, and whether it still has to be charged."""
        patience = self.limits.patience
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Passing),
            stop=stop_after_attempt(patience.attempts),
            wait=wait_exponential_jitter(initial=patience.first_s, max=patience.longest_s, jitter=patience.first_s),
            sleep=patience.sleep,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, ask, call), True
        except _NoRoom as error:
            return Reply(call.id, Ending.FAILED, error=f"{error}; --max-cost leaves no room to ask again"), False
        except Passing as error:
            if error.unreachable:
                raise not_reached(self.service) from None
            return Reply(call.id, Ending.FAILED, error=f"{error.reason} ({patience.attempts} attempts)"), False
        except BadCall as error:
            if not self._proven:
                raise UserError(
                    f"judge '{self.service.judge}': {self.service.url} does not take the request ({error}); check "
                    "the model's name and the URL in --judge."
                ) from None
            return Reply(call.id, Ending.FAILED, error=str(error)), False

    async def _attempt(self, ask: Ask, call: Call) -> Reply:
        limits = self.limits
        await self._wait_for_pause()
        try:
            async with asyncio.timeout(limits.timeout_s):
                return await ask(call)
        except TimeoutError:
            fault = Passing(f"no reply within {limits.timeout_s:g} s", sent=True)
        except Passing as error:
            fault = error
        if fault.unreachable and not self._proven:
            raise not_reached(self.service)
        self._note_pause(fault)
        if fault.sent and not limits.budget.lost(call, limits.extra_tokens):
            raise _NoRoom(fault.reason)
        raise fault

    async def _wait_for_pause(self) -> None:
        patience = self.limits.patience
        while (left := self._pause_until - patience.clock()) > 0:
            await patience.sleep(left)

    def _note_pause(self, fault: Passing) -> None:
        if fault.pause_s is None:
            return
        patience = self.limits.patience
        if fault.pause_s > patience.longest_pause_s:
            raise UserError(
                f"judge '{self.service.judge}': {self.service.url} asks to wait {fault.pause_s:.0f} s "
                f"({fault.reason}); what was judged is kept, run the same command again then."
            )
        self._pause_until = max(self._pause_until, patience.clock() + fault.pause_s)


class _NoRoom(Exception):
    """The budget has no room for another attempt."""


def _first(error: BaseException) -> BaseException:
    """The error itself, or of a group the first that a person can mend, else the first."""
    while isinstance(error, BaseExceptionGroup):
        error = next((one for one in error.exceptions if isinstance(one, UserError)), error.exceptions[0])
    return error
