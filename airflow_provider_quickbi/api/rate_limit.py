"""How fast an operation may be called, and what throttling does to that.

The service allows ``GetMailTaskStatus`` and ``ManualRunMailTask`` once a second and every other operation 50 times
(help.aliyun.com, document 412695). All callers of one account in a process share one :class:`RateLimiter` for each
operation, first come first served.

Other processes are not known, unless all share a Redis (``shared_rate_limit``), but they have the same wall clock. It
is divided into slots of one call each, and throttling tells a process which slots are others' (``slot_share``). Without
slots they would keep colliding however slowly they called: where one call per second is allowed, every call leaves no
room for another in the second after it.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from airflow_provider_quickbi.api.clock import CLOCK, Clock
from airflow_provider_quickbi.api.slot_share import SlotShare

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from airflow_provider_quickbi.api.shared_rate_limit import RedisSettings

#: Calls per second for each operation; ``GetMailTaskStatus`` can be set in the connection.
CALLS_PER_SECOND = {"GetMailTaskStatus": 1.0, "ManualRunMailTask": 1.0}
OTHER_CALLS_PER_SECOND = 50.0

#: Share of the limit that is left unused, so that a call that travels faster than the one before is not too early.
MARGIN = 0.07
#: Share of a slot by which a call may be put off so that the calls of a process that is alone come to lie in slots.
ALIGNMENT = 0.5
#: Seconds that a slot counts for at least when slots without throttling are counted.
SHORTEST_SLOT_SECONDS = 0.05
#: Slots after being throttled for which a process reckons with others.
CONTESTED_SLOTS = 500
#: Slots that a call without throttling speaks for at most, so that a pause is no proof that slots are free.
SLOTS_OF_A_CALL = 64
#: Seconds in which throttled responses are about the same burst of calls.
BURST_SECONDS = 0.15
#: Seconds by which a caller may wake late without costing the next one its place.
LATENESS_SECONDS = 0.02
#: The same for a slot among others' slots: seconds, and as a share of the slot; later, the next one is taken.
LATE_SECONDS, LATE_SHARE = 0.05, 0.1

#: What the running task polls for, as :attr:`RateLimiter.choose` gets it; tasks that it creates inherit it.
CALLER: ContextVar[object] = ContextVar("quickbi_rate_limit_caller", default=None)


class RateLimiter:
    """The calls of one operation that this process may make for one account.

    Safe to share between threads and event loops. A slot is reserved first; who gets it is decided when it is there.
    Waiting callers of one event loop are served in order, unless :attr:`choose` says otherwise.

    :param rate: calls per second that the service allows.
    :param clock: monotonic time in seconds.
    :param wall_clock: the time that all processes share, in seconds.
    :param uniform: gives a random number between two others.
    :param sleep: how callers of an event loop wait, in seconds.
    """

    #: Whether reserving a slot takes a request to another machine.
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
        self.share = SlotShare(lambda cells: cells[min(len(cells) - 1, int(uniform(0, len(cells))))])
        self._slot_taken = 0
        self._was_late = False
        self._planned = self._next_at = self._succeeded_at = clock()
        self._throttled_at = self._calm_from = self._not_before = -math.inf
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()
        #: Gets what the waiting callers poll for (:data:`CALLER`), the longest waiting first, and returns the position
        #: of the one that gets the slot; it must not raise. ``None``: the first.
        self.choose: Callable[[Sequence[object]], int] | None = None

    @property
    def rate(self) -> float:
        """Calls per second at present; :attr:`limit` at the most."""
        return self.limit * self.share.fraction

    def try_acquire(self) -> float:
        """Take the next call, or say how long it is until there is one.

        :returns: 0 if the call may be made now, else seconds until trying again makes sense.
        """
        with self._guard:
            now = self._clock()
            if self._among_others(now) and now - self._planned > max(LATE_SECONDS, LATE_SHARE * self.slot):
                self._was_late = not self._was_late
                if self._was_late:  # but not for ever
                    self._plan(now)
            if now < self._next_at:
                return self._next_at - now
            self._was_late = False
            self._slot_taken = self._slot_at_or_after(self._planned - self.slot / 2)
            lateness = max(LATENESS_SECONDS, MARGIN / 2 * self.slot)
            self._plan(max(self._planned, now - lateness) + self.slot)
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
        """Learn that a call was not throttled; after enough of them this process claims more slots."""
        with self._guard:
            now = self._clock()
            calm = min((now - self._succeeded_at) / max(SHORTEST_SLOT_SECONDS, self.slot), SLOTS_OF_A_CALL)
            self._succeeded_at = now
            self.share.succeeded(self._slot_taken, calm)

    def throttled(self, retry_after: float | None = None) -> None:
        """Take other slots, or fewer: the service said that there are too many calls.

        Responses that come together count once; they are about the same calls.

        :param retry_after: seconds during which the service wants no call, where it said so.
        """
        with self._guard:
            now = self._clock()
            self._succeeded_at = self._throttled_at = now
            if now >= self._calm_from:
                self.share.throttled(self._slot_taken)
                self._calm_from = now + max(BURST_SECONDS, self.slot / 2)
            self._not_before = max(self._not_before, now + (retry_after or 0.0))
            self._plan(max(now, self._not_before))

    def _among_others(self, now: float) -> bool:
        return not self.share.is_whole or now - self._throttled_at < CONTESTED_SLOTS * self.slot

    def _plan(self, instant: float) -> None:
        """Plan the next call for an instant, or for this process's first slot that starts there."""
        slot = self._slot_at_or_after(instant - MARGIN / 2 * self.slot)
        if self._among_others(self._clock()):
            slot = self.share.next_slot(slot)
            self._planned = self._beginning(slot)
            self._next_at = max(self._not_before, self._planned + self._shift(slot) * MARGIN * self.slot)
        else:
            # Into the slots within a few calls: who calls twice in a row need not wait for the second one to start.
            beginning = max(self._beginning(slot), instant)
            self._planned = self._next_at = min(beginning, instant + ALIGNMENT * self.slot)

    def _shift(self, slot: int) -> float:
        """Return when to call in a slot that somebody else may take as well, as a share of the margin.

        A claim comes last, so that it is the claim that is throttled. A process that had to move comes first, so that
        one which does not know of others yet learns of them. Else it is now one and now the other, so that both notice.
        """
        if self.share.is_claimed(slot):
            return 0.25
        return self._uniform(-0.5, -0.25) if self.share.moved else self._uniform(-0.25, 0.0)

    def _slot_at_or_after(self, instant: float) -> int:
        """Return the number of the first slot that starts at or after an instant; all processes count alike."""
        return math.ceil((instant + self._wall_clock() - self._clock()) / self.slot)

    def _beginning(self, slot: int) -> float:
        return slot * self.slot - self._wall_clock() + self._clock()

    def _line(self) -> _Line:
        with self._guard:
            return self._lines.setdefault(asyncio.get_running_loop(), _Line())


@dataclass(slots=True)
class _Line:
    """The callers of one event loop that wait for a slot, the longest waiting first, and the task that serves them."""

    callers: dict[asyncio.Future[None], object] = field(default_factory=dict)
    pacing: asyncio.Task[None] | None = None


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
    from airflow_provider_quickbi.api.shared_rate_limit import shared_rate_limiter

    return shared_rate_limiter(pacing, account, action, rate, clock)


def forget_rate_limiters() -> None:
    """Forget all rate limiters, as a new process would; for tests."""
    with _rate_limiters_guard:
        _rate_limiters.clear()
