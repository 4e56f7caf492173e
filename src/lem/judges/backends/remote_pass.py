"""The side of a pass over a service that runs in the event loop: places, attempts, waits, money."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from lem.errors import UserError
from lem.judges.backends.faults import BadCall, Passing, Service, not_reached
from lem.judges.backends.limits import Limits
from lem.judges.protocol import Call, Ending, Reply

# A connection opens in the running event loop and gives the function that asks one call.
Ask = Callable[[Call], Awaitable[Reply]]
Connect = Callable[[], AbstractAsyncContextManager[Ask]]


class Pass:
    """The side of a stream that runs in the thread; only `outbox`, `taken` and `cancel` belong to the other side."""

    def __init__(
        self, calls: Sequence[Call], connect: Connect, service: Service, limits: Limits, *, resumed: bool = False
    ) -> None:
        self.calls, self.connect, self.service, self.limits = calls, connect, service, limits
        self.outbox: queue.SimpleQueue[Reply | BaseException | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False
        self._changed = asyncio.Event()
        self._held = 0  # calls under way and replies that were not taken
        self._under_way = 0
        self._proven = False  # the service has answered a call of this pass
        self._resumed = resumed  # it has answered calls of an earlier one
        self._failures = 0  # calls in a row that ended without a reply
        self._refused = 0  # calls that the service did not take
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
            left = list(self.calls)
            while left:
                await self._turn()
                call = left.pop(self._next(left))
                if not await self._place_for(call):
                    break
                self._held += 1
                self._under_way += 1
                group.create_task(self._one(ask, call))

    async def _turn(self) -> None:
        """Wait until the call under way has ended, as long as none was answered."""
        while self._under_way and not self._proven:
            self._changed.clear()
            await self._changed.wait()

    def _next(self, left: Sequence[Call]) -> int:
        """The place of the call to ask next: the first, or the shortest while the service has only refused calls.

        Most refusals are of length, and a few long answers at the start of a run must not end every pass over it.
        """
        if self._proven or not self._refused:
            return 0
        return min(range(len(left)), key=lambda place: len(left[place].system) + len(left[place].user))

    async def _place_for(self, call: Call) -> bool:
        """Wait until a call may be sent; False when the budget will not have room for it."""
        limits = self.limits
        while True:
            free = self._held < limits.concurrency
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
        refused = False
        try:
            reply, sent = await self._ask(ask, call)
        except BadCall as error:
            reply, sent, refused = Reply(call.id, Ending.FAILED, error=str(error)), False, True
        except UserError:
            self.limits.budget.free(call)
            raise
        reply = replace(reply, cost=self.limits.budget.settle(reply, sent=sent))
        self._under_way -= 1
        self.outbox.put(reply)
        self._count(reply, refused=refused)
        self._changed.set()

    def _count(self, reply: Reply, *, refused: bool) -> None:
        if reply.ending is not Ending.FAILED:
            self._proven, self._failures = True, 0
            return
        self._refused += refused
        if refused and (self._proven or self._resumed):
            return  # it is the call, not the service
        self._failures += 1
        patience = self.limits.patience
        if self._failures < (patience.give_up_after if self._proven else patience.give_up_unproven):
            return
        remedy = "what was judged is kept, run the same command again later"
        if refused:
            remedy = "check the model's name and the URL in --judge, and whether the texts fit the model's context"
        raise UserError(
            f"judge '{self.service.judge}': {self.service.url} left {self._failures} calls in a row without a reply "
            f"(last: {reply.error}); {remedy}."
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
        room = not fault.sent or limits.budget.lost(call, limits.extra_tokens)
        self._note_pause(fault)
        if not room:
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
