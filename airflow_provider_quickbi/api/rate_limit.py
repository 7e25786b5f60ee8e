"""How fast an operation may be called, and what throttling does to that.

The service allows ``GetMailTaskStatus`` and ``ManualRunMailTask`` once a second and every other operation 50 times
(help.aliyun.com, document 412695). All callers of one account in a process share one :class:`RateLimiter` for each
operation, first come first served.

Other processes are not known, unless all share a Redis (``shared_rate_limit``), but they have the same wall clock. It
is divided into slots of one call each, and a process takes every slot, or every second, fourth or eighth. Throttled, it
goes down a step at once; it earns the next step up again slowly (additive increase, multiplicative decrease). Two
processes that take every second slot meet in all of them or in none, so they find slots of their own and stay there.
Without slots they would meet again and again however slow they were: where one call a second is allowed, every call
leaves no room for another in the second after it.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from airflow_provider_quickbi.api.clock import CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from airflow_provider_quickbi.api.shared_rate_limit import RedisSettings

#: Calls a second for each operation; ``GetMailTaskStatus`` can be set in the connection.
CALLS_PER_SECOND = {"GetMailTaskStatus": 1.0, "ManualRunMailTask": 1.0}
OTHER_CALLS_PER_SECOND = 50.0

#: Share of the allowance that is left unused, so that a call that travels faster than the one before is not too early.
MARGIN = 0.07
#: Slots without throttling after which a process that takes every second slot tries to take every one.
PATIENCE = 48
#: The same, after it turned out again and again that they are taken.
MAX_PATIENCE = 256
#: The smallest step: so many processes find slots of their own; with more, some calls are always throttled.
SMALLEST_STEP = 1 / 8
#: After so many slots without throttling, being throttled once does not cost the step: something stray.
ESTABLISHED_SLOTS = 20
#: Seconds that a slot counts for at least when slots without throttling are counted.
SHORTEST_SLOT_SECONDS = 0.05
#: Slots after being throttled for which a process reckons with others.
CONTESTED_SLOTS = 500
#: Slots that a call without throttling speaks for at the most, so that a pause is no proof of a free allowance.
SLOTS_OF_A_CALL = 64
#: Seconds in which throttled answers are about the same burst of calls.
BURST_SECONDS = 0.05
#: Seconds by which a caller may wake late without costing the next one its place.
LATENESS_SECONDS = 0.02
#: Seconds without a call after which the next one is a new beginning.
PAUSE_SECONDS = 1.0

#: What the running task calls for, as :attr:`RateLimiter.choose` is given it; tasks that it creates inherit it.
CALLER: ContextVar[object] = ContextVar("quickbi_rate_limit_caller", default=None)


class RateLimiter:
    """The calls of one operation that this process may make for one account.

    Safe to share between threads and event loops. A slot is reserved first; who gets it is decided when it is there.
    Waiting callers of one event loop are served in order, unless :attr:`choose` says otherwise.

    :param rate: calls a second that the service allows.
    :param clock: monotonic time in seconds.
    :param wall_clock: the time that all processes share, in seconds.
    :param uniform: gives a random number between two others.
    :param sleep: how callers of an event loop wait, in seconds.
    """

    #: Whether reserving a slot takes more than the blink of an eye.
    remote: ClassVar[bool] = False

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,  # noqa: S311 - spreads calls, protects nothing
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.limit = rate * (1 - MARGIN)
        self.slot = 1 / self.limit
        self._clock = clock
        self._wall_clock = wall_clock
        self._uniform = uniform
        self._sleep = sleep
        self._guard = threading.Lock()
        self.step = 1.0
        self._patience = PATIENCE
        self._calm_slots = 0.0
        self._planned = self._next_at = self._succeeded_at = clock()
        self._throttled_at = self._calm_from = self._not_before = -math.inf
        self._refused_in_a_row = 0
        self._raised = False
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()
        #: Given what the waiting callers call for (:data:`CALLER`), the longest waiting first, it returns the position
        #: of the one that gets the slot; it must not raise. ``None`` for the first.
        self.choose: Callable[[Sequence[object]], int] | None = None

    @property
    def rate(self) -> float:
        """Calls a second at present; :attr:`limit` at the most."""
        return self.limit * self.step

    def try_acquire(self) -> float:
        """Take the next call, or say how long it is until there is one.

        :returns: 0 if the call may be made now, else seconds until asking again makes sense.
        """
        with self._guard:
            now = self._clock()
            if self._contested(now) and now - self._planned > max(PAUSE_SECONDS, self.slot):
                self._plan(self._slot_from(now))
            if now < self._next_at:
                return self._next_at - now
            lateness = max(LATENESS_SECONDS, MARGIN / 2 * self.slot)
            self._plan(max(self._planned, now - lateness) + self.slot / self.step)
            return 0.0

    async def acquire(self) -> None:
        """Wait in line until a call may be made."""
        line = self._line()
        if not line.callers and not self.remote and self.try_acquire() == 0:
            return
        served = asyncio.get_running_loop().create_future()
        line.callers[served] = CALLER.get()
        self._pace(line)
        try:
            await served
        finally:
            line.callers.pop(served, None)
            self._pace(line)

    def _pace(self, line: _Line) -> None:
        """Let a task get the next slot for a line if somebody waits there."""
        if line.callers and line.pacing is None:
            line.pacing = asyncio.create_task(self._serve_one(line))
        elif not line.callers and line.pacing is not None:
            line.pacing.cancel()
            line.pacing = None

    async def _serve_one(self, line: _Line) -> None:
        """Reserve a slot, and give it to one of the callers; that one lets the next be served."""
        try:
            while (seconds := await self._try_acquire()) > 0:
                await self._sleep(seconds)
            if waiting := [served for served in line.callers if not served.done()]:
                chosen = self.choose([line.callers[served] for served in waiting]) if self.choose else 0
                waiting[chosen].set_result(None)
        except Exception as error:  # noqa: BLE001 - given to those who would otherwise wait for ever
            for served in line.callers:
                if not served.done():
                    served.set_exception(error)
        finally:
            if line.pacing is asyncio.current_task():
                line.pacing = None

    async def _try_acquire(self) -> float:
        return self.try_acquire()

    def acquire_blocking(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait until a call may be made, blocking the thread.

        :param sleep: how to wait, in seconds.
        """
        while (seconds := self.try_acquire()) > 0:
            sleep(seconds)

    def succeeded(self) -> None:
        """Speed up a little: the service answered a call."""
        with self._guard:
            now = self._clock()
            self._calm_slots += min((now - self._succeeded_at) / max(SHORTEST_SLOT_SECONDS, self.slot), SLOTS_OF_A_CALL)
            self._succeeded_at = now
            if self._calm_slots >= ESTABLISHED_SLOTS and self._raised:
                self._patience, self._raised = PATIENCE, False
            if self.step < 1 and self._calm_slots >= self._patience * 2 * self.step:
                self.step *= 2
                self._calm_slots = 0.0
                self._raised = True
            self._refused_in_a_row = 0

    def throttled(self, retry_after: float | None = None) -> None:
        """Slow down at once: the service said that there are too many calls.

        Answers that come together count once; they are about the same calls.

        :param retry_after: seconds during which the service wants no call, where it said so.
        """
        with self._guard:
            now = self._clock()
            if now >= self._calm_from:
                if self._calm_slots < ESTABLISHED_SLOTS:
                    if self._raised:
                        self._patience = min(MAX_PATIENCE, 2 * self._patience)
                    self.step = max(SMALLEST_STEP, self.step / 2)
                self._raised = False
                self._calm_slots = 0.0
                self._calm_from = now + max(BURST_SECONDS, self.slot / 2)
            self._succeeded_at = self._throttled_at = now
            self._refused_in_a_row += 1
            spacing = self.slot / self.step
            self._not_before = max(self._not_before, now + (retry_after or 0.0))
            if self._refused_in_a_row > 1:
                # The slots that are left are somebody else's as well: take others, whichever.
                self._plan(self._slot_from(now + self._uniform(0.5, 1.5) * spacing))
            else:
                self._not_before = max(self._not_before, now + spacing)
            if (early := self._not_before - self._planned) > 0:
                self._plan(self._planned + math.ceil(early / spacing) * spacing)

    def _contested(self, now: float) -> bool:
        return now - self._throttled_at < CONTESTED_SLOTS * self.slot

    def _plan(self, instant: float) -> None:
        """Plan the next call for an instant, or for the slot that begins there."""
        slot = self._slot_from(instant - MARGIN / 2 * self.slot)
        if self._contested(self._clock()):
            # Now before, now after a process that takes the same slot, so that both notice; one that is refused again
            # and again goes first.
            self._planned = slot
            early = -MARGIN / 2 if self._refused_in_a_row > 1 else self._uniform(-MARGIN / 4, MARGIN / 4)
            self._next_at = max(self._not_before, slot + early * self.slot)
        else:
            # Into the slots little by little: who calls twice in a row need not wait for the second one to begin.
            self._planned = self._next_at = min(max(slot, instant), instant + MARGIN / 2 * self.slot)

    def _slot_from(self, instant: float) -> float:
        """Return the beginning of the first slot at or after an instant."""
        ahead = self._wall_clock() - self._clock()
        return math.ceil((instant + ahead) / self.slot) * self.slot - ahead

    def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        with self._guard:
            if (line := self._lines.get(loop)) is None:
                line = self._lines[loop] = _Line()
            return line


class _Line:
    """The callers of one event loop that wait for a slot, the longest waiting first, and the task that serves them."""

    __slots__ = ("callers", "pacing")

    def __init__(self) -> None:
        self.callers: dict[asyncio.Future[None], object] = {}
        self.pacing: asyncio.Task[None] | None = None


_rate_limiters: dict[tuple[tuple[str, str], str, float, RedisSettings | None, Clock], RateLimiter] = {}
_rate_limiters_guard = threading.Lock()


def rate_limiter(
    account: tuple[str, str],
    action: str,
    status_calls_per_second: float = 1.0,
    pacing: RedisSettings | None = None,
    clock: Clock = CLOCK,
) -> RateLimiter:
    """Return this process's rate limiter for an operation of an account.

    :param account: see :attr:`airflow_provider_quickbi.api.settings.ClientSettings.account`.
    :param action: the operation.
    :param status_calls_per_second: the configured rate of ``GetMailTaskStatus``.
    :param pacing: the Redis through which all processes share the limit; ``None`` for this process alone.
    :param clock: the time; default the machine's.
    """
    rate = CALLS_PER_SECOND.get(action, OTHER_CALLS_PER_SECOND)
    if action == "GetMailTaskStatus":
        rate = status_calls_per_second
    with _rate_limiters_guard:
        key = (account, action, rate, pacing, clock)
        if (known := _rate_limiters.get(key)) is None:
            known = _rate_limiters[key] = _new(account, action, rate, pacing, clock)
        return known


def _new(account: tuple[str, str], action: str, rate: float, pacing: RedisSettings | None, clock: Clock) -> RateLimiter:
    if pacing is None:
        return RateLimiter(rate, clock.monotonic, clock.time, sleep=clock.sleep_async)
    from airflow_provider_quickbi.api.shared_rate_limit import shared_limiter_factory

    return shared_limiter_factory(pacing)(account, action, rate)


def forget_rate_limiters() -> None:
    """Forget all rate limiters, as a new process would; for tests."""
    with _rate_limiters_guard:
        _rate_limiters.clear()
