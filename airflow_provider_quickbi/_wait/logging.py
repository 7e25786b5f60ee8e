"""What a wait logs: a line when something changes, and a heartbeat that grows rarer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait import messages

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.state import WaitState

FIRST_HEARTBEAT_SECONDS = 600.0
MAX_HEARTBEAT_SECONDS = 6 * 3600.0
#: Being rate limited for less than this many seconds is normal where waits start together, and not logged.
RATE_LIMITED_SECONDS = 60.0


class WaitLog:
    """Logs what a wait is doing."""

    __slots__ = ("_every", "_limited_since", "_log", "_logged", "_next", "_since")

    def __init__(self, log: Any) -> None:
        self._log = log
        self._logged: str | None = None
        self._limited_since: float | None = None
        self._since = self._next = 0.0
        self._every = FIRST_HEARTBEAT_SECONDS

    def report(self, message: str, now: float) -> None:
        """Log a message if it is not the last one, or if it is time for a heartbeat.

        :param now: seconds since the epoch.
        """
        if message.endswith(messages.RATE_LIMITED):
            self._limited_since = now if self._limited_since is None else self._limited_since
            if now - self._limited_since < RATE_LIMITED_SECONDS:
                return
        else:
            self._limited_since = None
        if message != self._logged:
            self._log.info("%s", message)
            self._logged, self._since, self._every = message, now, FIRST_HEARTBEAT_SECONDS
            self._next = now + self._every
        elif now >= self._next:
            self._log.info("%s Unchanged for %.0f minutes.", message, (now - self._since) / 60)
            self._every = min(2 * self._every, MAX_HEARTBEAT_SECONDS)
            self._next = now + self._every

    def first_poll(self, before: WaitState, after: WaitState) -> None:
        """Log after the first successful poll which run is waited for and why, and whether the latest run matches."""
        if after.polled and not before.polled:
            self._log.info("%s", messages.first_poll(after))
