"""Counts calls against the limits that Quick BI documents for each operation.

The documented limits: https://help.aliyun.com/zh/quick-bi/developer-reference/412695
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

DOCUMENTED_CALLS_PER_SECOND: Final[Mapping[str | None, float]] = {
    "GetMailTaskStatus": 1.0,
    "ManualRunMailTask": 1.0,
    None: 50.0,
}
"""Calls a second for each operation; ``None``, or ``"*"``, stands for every operation that is not named."""

CallsPerSecond = Mapping[str | None, float] | float | None


class RateLimiter:
    """Lets at most so many calls of an operation through in any second, counted for the whole organisation.

    A rate below 1 lets one call through in ``1 / rate`` seconds. Refused calls are not counted.

    :param calls_per_second: one rate for each operation, or a mapping of operation to rate in which ``None`` stands for
        every other operation; ``None`` as a whole, or for an operation, means no limit.
    :param now: returns the time in seconds; default the monotonic clock.
    """

    def __init__(self, calls_per_second: CallsPerSecond = None, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.limit_calls(calls_per_second)

    def limit_calls(self, calls_per_second: CallsPerSecond) -> None:
        """Change the limits of calls a second, see :class:`QuickBISimulator`; ``None`` for no limits.

        :raises ValueError: a rate is not above 0.
        """
        if calls_per_second is None or isinstance(calls_per_second, (int, float)):
            rates: dict[str | None, float] = {} if calls_per_second is None else {None: float(calls_per_second)}
        else:
            named = calls_per_second.items()
            rates = {None if action == "*" else action: float(rate) for action, rate in named if rate is not None}
        for action, rate in rates.items():
            if rate <= 0:
                raise ValueError(
                    f"calls_per_second of {action or 'every other operation'} must be above 0, got {rate}."
                )
        self._rates = rates
        self._passed: dict[str, deque[float]] = {}

    @property
    def calls_per_second(self) -> dict[str | None, float]:
        """The rates in force; empty if nothing is limited."""
        return dict(self._rates)

    def seconds_to_wait(self, action: str) -> float:
        """Count a call, unless it comes too early.

        :param action: the operation that is called.
        :returns: 0 if the call may pass; otherwise the seconds until the next one may, and the call is not counted.
        """
        rate = self._rates.get(action, self._rates.get(None))
        if rate is None:
            return 0.0
        capacity = max(1, int(rate))
        window = capacity / rate
        now = self._now()
        passed = self._passed.setdefault(action, deque(maxlen=capacity))
        if len(passed) == capacity:
            waited = now - passed[0]
            if 0 <= waited < window:
                return window - waited
        passed.append(now)
        return 0.0
