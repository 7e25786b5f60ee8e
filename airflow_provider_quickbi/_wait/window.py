"""From a DAG run to the window in which the run at Quick BI must start: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from airflow_provider_quickbi._wait.selector import RunSelector

if TYPE_CHECKING:
    from datetime import tzinfo

#: DAG runs closer together than this come more than once a day; a day on which the clocks go forward has 23 hours.
_LESS_THAN_A_DAY = timedelta(hours=23)


class Window(StrEnum):
    """Which runs match where neither the run nor a time is given."""

    AUTO = "auto"
    DAY = "day"
    SCHEDULE = "schedule"
    LATEST = "latest"


class Cause(StrEnum):
    """What started a DAG run, as far as it matters to the window."""

    SCHEDULE = "scheduled"
    ASSET = "asset-triggered"
    PERSON = "manual"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DueTime:
    """When a DAG run was due, and when the next ones are.

    :param cause: what started it.
    :param due: end of its data interval, else its ``run_after`` or start; ``None`` if there is no DAG run.
    :param next_due: when the next DAG runs are due by the DAG's schedule; empty where it has none.
    """

    cause: Cause
    due: datetime | None = None
    next_due: tuple[datetime, ...] = ()

    @property
    def more_than_once_a_day(self) -> bool:
        """Whether the DAG runs more than once a day."""
        instants = [] if self.due is None else [self.due, *self.next_due]
        return any(later - earlier < _LESS_THAN_A_DAY for earlier, later in pairwise(instants))


def resolve_auto(due: DueTime) -> Window:
    """Return the window that ``auto`` means for a DAG run."""
    if due.cause is Cause.SCHEDULE:
        return Window.SCHEDULE if due.more_than_once_a_day else Window.DAY
    return Window.DAY if due.cause is Cause.ASSET else Window.LATEST


def select_window(
    window: Window, due: DueTime, *, timezone: tzinfo, clock_skew: timedelta, now: datetime
) -> tuple[RunSelector, str]:
    """Return which runs match, and why.

    :param timezone: in which Quick BI writes times; a ``day`` is one of its calendar days.
    :param clock_skew: how far a ``schedule`` window starts before the DAG run was due.
    :param now: stands in for the due time where there is no DAG run.
    """
    chosen = resolve_auto(due) if window is Window.AUTO else window
    at = due.due or now
    if chosen is Window.DAY:
        day = at.astimezone(timezone).date()
        selector = RunSelector(
            executed_after=datetime.combine(day, time(), timezone),
            executed_before=datetime.combine(day + timedelta(days=1), time(), timezone),
        )
    elif chosen is Window.SCHEDULE:
        later = next((instant for instant in due.next_due if instant > at), None)
        selector = RunSelector(executed_after=at - clock_skew, executed_before=later)
    else:
        selector = RunSelector()
    return selector, _reason(window, chosen, due, at, timezone)


def _reason(window: Window, chosen: Window, due: DueTime, at: datetime, timezone: tzinfo) -> str:
    setting = f'window="{chosen}"' if window is chosen else f'window="{window}" means "{chosen}" here'
    if due.cause is Cause.UNKNOWN:
        return f"{setting}: no DAG run"
    when = f" due {at.astimezone(timezone).isoformat(timespec='seconds')}" if chosen is not Window.LATEST else ""
    return f"{setting}: {due.cause} DAG run{when}; set window or executed_after to change it"
