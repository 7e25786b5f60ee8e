"""The clock of the simulator: real time unless a test moves it."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, tzinfo

When = datetime | str | float
"""A datetime, an ISO 8601 string, or seconds since 1970; without an offset in the simulator's time zone."""


def to_timestamp(when: When, zone: tzinfo) -> float:
    """Return an instant in seconds since 1970; one without an offset is read in ``zone``."""
    if isinstance(when, (int, float)):
        return float(when)
    moment = datetime.fromisoformat(when) if isinstance(when, str) else when
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


class Clock:
    """Decides what time it is for runs, schedules and limits. Safe to use from several threads.

    It runs with real time until it is moved. Moving it starts the scheduled runs that became due and finishes the runs
    whose duration is over; nobody waits. The date of a signature is checked against real time, with which clients sign.

    :param zone: the time zone that times without an offset are read in.
    """

    skew: float = 0.0
    """Seconds that the server is ahead of the real time when it checks signatures."""

    def __init__(self, zone: tzinfo = UTC) -> None:
        self.zone = zone
        self._lock = threading.RLock()
        self._offset = 0.0
        self._frozen_at: float | None = None

    def time(self) -> float:
        """Return the simulated time in seconds since 1970."""
        with self._lock:
            return time.time() + self._offset if self._frozen_at is None else self._frozen_at

    def now(self) -> datetime:
        """Return the simulated time as a datetime in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, seconds: float) -> datetime:
        """Move the time forward and return it.

        :raises ValueError: ``seconds`` is negative; use :meth:`set` to go back.
        """
        if seconds < 0:
            raise ValueError(f"advance() only moves forward, got {seconds} seconds. Use set() to go back.")
        with self._lock:
            return self.set(self.time() + seconds)

    def set(self, when: When) -> datetime:
        """Move the time to an instant and return it; a frozen clock stays frozen there."""
        with self._lock:
            if self._frozen_at is not None:
                return self.freeze(when)
            self._offset = to_timestamp(when, self.zone) - time.time()
            return self.now()

    def freeze(self, at: When | None = None) -> datetime:
        """Let time stand still, by default where it is; only :meth:`advance` and :meth:`set` move it."""
        with self._lock:
            self._frozen_at = self.time() if at is None else to_timestamp(at, self.zone)
            return self.now()

    def reset(self) -> None:
        """Go back to real time without skew."""
        with self._lock:
            self._offset, self._frozen_at, self.skew = 0.0, None, 0.0
