"""Counts calls against the limits that Quick BI documents for each operation.

The documented limits: https://help.aliyun.com/zh/quick-bi/developer-reference/412695
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

DOCUMENTED_CALLS_PER_SECOND: Final[Mapping[str, float]] = {"GetMailTaskStatus": 1, "ManualRunMailTask": 1, "*": 50}
"""Calls a second for each operation; ``"*"`` stands for every operation that is not named."""

CallsPerSecond = Mapping[str, float] | float | None


class RateLimiter:
    """Lets at most so many calls of an operation through in any second, counted for the whole organisation.

    A rate below 1 lets one call through in ``1 / rate`` seconds. Refused calls are not counted.

    :param calls_per_second: see :meth:`limit_calls`.
    :param now: returns the time in seconds.
    """

    def __init__(self, calls_per_second: CallsPerSecond, now: Callable[[], float]) -> None:
        self._now = now
        self.limit_calls(calls_per_second)

    def limit_calls(self, calls_per_second: CallsPerSecond) -> None:
        """Change the limits of calls a second.

        :param calls_per_second: one for each operation, a mapping of operation to limit in which ``"*"`` stands for
            every other operation, or ``None`` for no limits.
        :raises ValueError: a limit is not above 0.
        """
        rates = {"*": calls_per_second} if isinstance(calls_per_second, (int, float)) else calls_per_second
        for action, rate in (rates or {}).items():
            if rate <= 0:
                raise ValueError(f"calls_per_second of {action} must be above 0, got {rate}.")
        self.calls_per_second: dict[str, float] = dict(rates or {})
        self._passed: dict[str, deque[float]] = {}

    def seconds_to_wait(self, action: str) -> float:
        """Count a call and return 0, or return how many seconds it comes too early."""
        rate = self.calls_per_second.get(action, self.calls_per_second.get("*"))
        if rate is None:
            return 0.0
        capacity = max(1, int(rate))
        now, window = self._now(), capacity / rate
        passed = self._passed.setdefault(action, deque(maxlen=capacity))
        if len(passed) == capacity and 0 <= now - passed[0] < window:
            return window - (now - passed[0])
        passed.append(now)
        return 0.0
