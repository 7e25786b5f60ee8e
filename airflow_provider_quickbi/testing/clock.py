"""The clock of the simulator: real time unless a test moves it."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, tzinfo

When = datetime | str | float
"""A datetime, an ISO 8601 string, or seconds since 1970; without an offset in the simulator's time zone."""


def to_timestamp(when: When, zone: tzinfo) -> float:
    """Turn an instant into seconds since 1970.

    :param when: a datetime, an ISO 8601 string, or seconds since 1970. A time without an offset is read in ``zone``.
    :param zone: the time zone of times without an offset.
    :returns: seconds since 1970-01-01T00:00:00Z.
    :raises ValueError: the string is not an ISO 8601 time.
    """
    if isinstance(when, (int, float)):
        return float(when)
    moment = datetime.fromisoformat(when) if isinstance(when, str) else when
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return moment.timestamp()


class Clock:
    """Decides what time it is for mail runs and schedules. Safe to use from several threads.

    It runs with real time until it is moved. Moving it starts the scheduled runs that became due and ends the runs
    whose duration is over; it never makes anybody wait.

    The date of a signature is checked against the real wall clock instead, because clients sign with the real time;
    :attr:`skew` makes the server's wall clock wrong on purpose.

    :param zone: the time zone that times without an offset are read in.
    """

    def __init__(self, zone: tzinfo = UTC) -> None:
        self._zone = zone
        self._lock = threading.Lock()
        self._offset = 0.0
        self._frozen_at: float | None = None
        self._skew = 0.0

    @property
    def skew(self) -> float:
        """Seconds that the server's wall clock is ahead of the real one when it checks signatures; default 0."""
        return self._skew

    @skew.setter
    def skew(self, seconds: float) -> None:
        self._skew = float(seconds)

    def set_skew(self, seconds: float) -> None:
        """Set :attr:`skew`."""
        self.skew = seconds

    @property
    def frozen(self) -> bool:
        """Whether time stands still."""
        return self._frozen_at is not None

    def time(self) -> float:
        """Return the simulated time in seconds since 1970."""
        with self._lock:
            return self._read()

    def now(self) -> datetime:
        """Return the simulated time as a datetime in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def wall_time(self) -> float:
        """Return the time that signatures are checked against: real time plus :attr:`skew`, in seconds since 1970."""
        return time.time() + self._skew

    def advance(self, seconds: float) -> datetime:
        """Move the time forward.

        :param seconds: how far, at least 0.
        :returns: the new time, in UTC.
        :raises ValueError: ``seconds`` is negative; use :meth:`set` to go back.
        """
        if seconds < 0:
            raise ValueError(f"advance() only moves forward, got {seconds} seconds. Use set() to go back.")
        with self._lock:
            if self._frozen_at is None:
                self._offset += seconds
            else:
                self._frozen_at += seconds
            return datetime.fromtimestamp(self._read(), UTC)

    def set(self, when: datetime | str) -> datetime:
        """Move the time to an instant; a frozen clock stays frozen there.

        :param when: a datetime or an ISO 8601 string; without an offset it is in the simulator's time zone.
        :returns: the new time, in UTC.
        """
        target = to_timestamp(when, self._zone)
        with self._lock:
            if self._frozen_at is None:
                self._offset = target - time.time()
            else:
                self._frozen_at = target
            return datetime.fromtimestamp(self._read(), UTC)

    def freeze(self, at: datetime | str | None = None) -> datetime:
        """Let time stand still, so that only :meth:`advance` and :meth:`set` move it.

        :param at: where to stand still; by default where the clock is.
        :returns: the time at which it stands, in UTC.
        """
        target = None if at is None else to_timestamp(at, self._zone)
        with self._lock:
            self._frozen_at = self._read() if target is None else target
            return datetime.fromtimestamp(self._frozen_at, UTC)

    def unfreeze(self) -> datetime:
        """Let a frozen clock run on from where it stands; returns that time, in UTC."""
        with self._lock:
            if self._frozen_at is not None:
                self._offset = self._frozen_at - time.time()
                self._frozen_at = None
            return datetime.fromtimestamp(self._read(), UTC)

    def reset(self) -> None:
        """Go back to real time without skew."""
        with self._lock:
            self._offset = 0.0
            self._frozen_at = None
            self._skew = 0.0

    def _read(self) -> float:
        return time.time() + self._offset if self._frozen_at is None else self._frozen_at
