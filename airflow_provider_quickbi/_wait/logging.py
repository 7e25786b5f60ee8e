"""How often a wait looks and how much it tells: a line when something changes, and a heartbeat that grows rarer."""

from __future__ import annotations

import random
from typing import Any

#: No event of a deferral comes sooner after its trigger began: Airflow 3 may need 5 seconds to notice that a task has
#: deferred itself, and below 3.3 it fails one that is to go on earlier.
FIRST_EVENT_SECONDS = 6.0
FIRST_HEARTBEAT_SECONDS = 600.0
MAX_HEARTBEAT_SECONDS = 6 * 3600.0


class Progress:
    """Tells what a wait is doing.

    :param log: where to.
    """

    __slots__ = ("_begun", "_every", "_log", "_logged", "_next")

    def __init__(self, log: Any) -> None:
        self._log = log
        self._logged: str | None = None
        self._begun = self._next = 0.0
        self._every = FIRST_HEARTBEAT_SECONDS

    def report(self, message: str, now: float) -> None:
        """Log a message if it is not the one told before, or if it is time for a heartbeat.

        :param message: one sentence.
        :param now: seconds since the epoch.
        """
        if message != self._logged:
            self._log.info("%s", message)
            self._logged, self._begun, self._every = message, now, FIRST_HEARTBEAT_SECONDS
            self._next = now + self._every
        elif now >= self._next:
            self._log.info("%s Unchanged for %.0f minutes.", message, (now - self._begun) / 60)
            self._every = min(2 * self._every, MAX_HEARTBEAT_SECONDS)
            self._next = now + self._every


def poke_delay(poke_interval: float, poll_count: int, exponential_backoff: bool, max_wait: float | None) -> float:
    """Return the seconds until the next look, as ``BaseSensorOperator`` counts them.

    :param poke_interval: seconds.
    :param looks: how many looks there were, at least 1.
    :param exponential_backoff: whether the delay doubles from look to look, with jitter.
    :param max_wait: seconds at the most; ``None`` for no limit.
    """
    if not exponential_backoff:
        return poke_interval
    smallest = max(poke_interval * 2.0 ** min(poll_count - 2, 40), 1.0)
    delay = smallest * random.uniform(1.0, 2.0)  # noqa: S311 - spreads calls, protects nothing
    return delay if max_wait is None else min(delay, max_wait)
