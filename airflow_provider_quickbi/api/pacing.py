"""How fast an operation may be called, and what throttling does to that.

The service allows ``GetMailTaskStatus`` and ``ManualRunMailTask`` once a second and every other operation 50 times
(help.aliyun.com, document 412695). All callers of one account in a process share one :class:`Allowance` for each
operation, first come first served. Other processes are not known: when the service throttles, a process slows down at
once and speeds up again slowly (additive increase, multiplicative decrease), so that all of them find their share.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

#: Calls a second for each operation; ``GetMailTaskStatus`` can be set in the connection.
CALLS_PER_SECOND = {"GetMailTaskStatus": 1.0, "ManualRunMailTask": 1.0}
OTHER_CALLS_PER_SECOND = 50.0

#: Share of the allowance that is left unused, so that a call that travels faster than the one before is not too early.
MARGIN = 0.04
#: What throttling makes of the rate, and the share of the full rate that each answered call gives back.
DECREASE = 0.7
INCREASE = 0.006
#: The rate never falls below this share of the full one.
FLOOR = 1 / 64


class Allowance:
    """The calls of one operation that this process may make for one account.

    Safe to share between threads and event loops; waiting callers of one event loop are served in order.

    :param rate: calls a second that the service allows.
    :param clock: monotonic time in seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = rate * (1 - MARGIN)
        self.rate = self.limit
        self._clock = clock
        self._guard = threading.Lock()
        self._next_at = clock()
        self._calm_from = clock()
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    def take(self) -> float:
        """Take the next call, or say how long it is until there is one.

        :returns: 0 if the call may be made now, else seconds until asking again makes sense.
        """
        with self._guard:
            now = self._clock()
            if now < self._next_at:
                return self._next_at - now
            spacing = 1 / self.rate
            # A caller that wakes late does not cost the next one its place, within half of the margin.
            slack = MARGIN / 2 * max(1.0, 1 / self.limit)
            self._next_at = max(self._next_at, now - slack) + spacing
            return 0.0

    async def turn(self) -> None:
        """Wait in line until a call may be made."""
        async with self._queue():
            while (seconds := self.take()) > 0:  # noqa: ASYNC110 - until a known time, not for an event
                await asyncio.sleep(seconds)

    def turn_blocking(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait until a call may be made, holding the thread."""
        while (seconds := self.take()) > 0:
            sleep(seconds)

    def answered(self) -> None:
        """Speed up a little: the service answered a call."""
        with self._guard:
            self.rate = min(self.limit, self.rate + self.limit * INCREASE)

    def throttled(self, retry_after: float | None = None) -> None:
        """Slow down at once: the service said that there are too many calls.

        Answers that come together count once; they are about the same rate.

        :param retry_after: seconds during which the service wants no call, where it said so.
        """
        with self._guard:
            now = self._clock()
            if now >= self._calm_from:
                self.rate = max(self.limit * FLOOR, self.rate * DECREASE)
                self._calm_from = now + 1 / self.rate
            self._next_at = max(self._next_at, now + max(retry_after or 0.0, 1 / self.rate))

    def _queue(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        with self._guard:
            if (queue := self._queues.get(loop)) is None:
                queue = self._queues[loop] = asyncio.Lock()
            return queue


_allowances: dict[tuple[tuple[str, str], str, float], Allowance] = {}
_allowances_guard = threading.Lock()


def allowance(account: tuple[str, str], action: str, status_calls_per_second: float = 1.0) -> Allowance:
    """Return this process's allowance for an operation of an account.

    :param account: see :attr:`airflow_provider_quickbi.api.settings.ClientSettings.account`.
    :param action: the operation.
    :param status_calls_per_second: the configured rate of ``GetMailTaskStatus``.
    """
    rate = CALLS_PER_SECOND.get(action, OTHER_CALLS_PER_SECOND)
    if action == "GetMailTaskStatus":
        rate = status_calls_per_second
    with _allowances_guard:
        key = (account, action, rate)
        if (known := _allowances.get(key)) is None:
            known = _allowances[key] = Allowance(rate)
        return known


def forget_allowances() -> None:
    """Start anew, as a new process would; for tests."""
    with _allowances_guard:
        _allowances.clear()
