"""When runs start by themselves: at intervals, by a cron line, or at listed times."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING

from airflow_provider_quickbi.testing.clock import When, to_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from zoneinfo import ZoneInfo


@dataclass(slots=True)
class Schedule:
    """The times still to come, ascending and perhaps endless, and how the runs go."""

    times: Iterator[float]
    duration: float
    appears_after: float
    outcomes: list[str]


class Timetable:
    """The schedules of all subjects, by when each is due next."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, str, Schedule]] = []
        self._numbers = count(1)

    def expect(self, subject_id: str, schedule: Schedule) -> None:
        """Put a schedule where its next time is; drop it if there is none."""
        due = next(schedule.times, None)
        if due is not None:
            heapq.heappush(self._due, (due, next(self._numbers), subject_id, schedule))

    def pop(self, now: float) -> Iterator[tuple[float, str, Schedule]]:
        """Yield what is due, the earliest first; each schedule is expected again."""
        while self._due and self._due[0][0] <= now:
            due, _, subject_id, schedule = heapq.heappop(self._due)
            yield due, subject_id, schedule
            self.expect(subject_id, schedule)

    def remove(self, subject_id: str | None = None) -> None:
        """Forget the schedules of a subject, or all of them."""
        self._due = [entry for entry in self._due if subject_id not in (None, entry[2])]
        heapq.heapify(self._due)


def upcoming(
    now: float, zone: ZoneInfo, every: float | None, cron: str | None, times: Iterable[When], first: When | None
) -> list[Iterator[float]]:
    """Return the times of a schedule, in seconds since 1970.

    :raises ValueError: none is given, ``every`` is not above 0, or ``cron`` is not a cron line.
    """
    found: list[Iterator[float]] = []
    if times:
        found.append(iter(sorted(to_timestamp(time, zone) for time in times)))
    if every is not None:
        if every <= 0:
            raise ValueError(f"every must be above 0 seconds, got {every}.")
        found.append(count(now + every if first is None else to_timestamp(first, zone), every))
    if cron is not None:
        found.append(cron_times(cron, datetime.fromtimestamp(now, zone)))
    if not found:
        raise ValueError('A schedule needs every=<seconds>, cron="30 8 * * *" or times=[...].')
    return found


def cron_times(line: str, after: datetime) -> Iterator[float]:
    """Yield the times of a cron line, in seconds since 1970, without end.

    :param line: five fields; croniter, which Airflow brings along, reads them.
    :param after: where to begin; its zone is that of the line.
    :raises ValueError: it is not a cron line, or croniter is not installed.
    """
    try:
        from croniter import CroniterError, croniter
    except ImportError:
        raise ValueError("A cron line needs croniter: install it, or use every=<seconds>.") from None
    try:
        times = croniter(line, after, ret_type=datetime)
    except CroniterError:
        raise ValueError(f"{line!r} is not a cron line such as '30 8 * * *'.") from None
    return (time.timestamp() for time in iter(times.get_next, None))
