"""From a sensor's arguments and its DAG run to a wait that starts: of what, which runs, how long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from airflow_provider_quickbi import _airflow, _options
from airflow_provider_quickbi._wait.deferral import FOREVER
from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi._wait.window import select_window
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.exceptions import QuickBIConnectionUnreadable, QuickBIUnavailable
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_quickbi._wait.options import SensorOptions
    from airflow_provider_quickbi._wait.subject import Subject
    from airflow_provider_quickbi.api.models import MailTask

#: Seconds between two attempts to look a name up, at most.
_LOOKUP_INTERVAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a task waits.

    :param since: when it started to wait, seconds since the epoch.
    :param timeout: seconds.
    :param unreachable_timeout: seconds of continuous outage.
    :param poke_interval: seconds between two polls.
    """

    since: float
    timeout: float
    unreachable_timeout: float
    poke_interval: float

    @property
    def finish_by(self) -> float:
        """When the wait is given up, seconds since the epoch."""
        return self.since + self.timeout

    @property
    def lookup_interval(self) -> float:
        """Seconds between two attempts to look names up."""
        return min(self.poke_interval, _LOOKUP_INTERVAL_SECONDS)


def start_group(
    task: Any, context: Any, options: SensorOptions, limits: Limits, late_at: float | None, lookup_since: float
) -> WaitGroup:
    """Return a wait group of which nothing is known yet.

    :param lookup_since: when names were first looked up, seconds since the epoch.
    :raises QuickBIConnectionError: if the Airflow connection is wrong.
    :raises QuickBIUnavailable: if it cannot be read, or names could not be looked up for too long.
    """
    subjects: Sequence[Subject] = options.subjects
    if not all(subject.id for subject in subjects):
        subjects = _look_up(task, options, limits, lookup_since)

    def timezone() -> str:
        return QuickBIHook(task.quickbi_conn_id).quickbi_connection.settings.timezone

    return new_group(options, subjects, limits, context, task.dag if task.has_dag() else None, timezone, late_at)


def new_group(
    options: SensorOptions,
    subjects: Sequence[Subject],
    limits: Limits,
    context: Any,
    dag: Any,
    timezone: Callable[[], str],
    late_at: float | None = None,
) -> WaitGroup:
    """Return a wait group of subjects whose ids are known.

    :param dag: of the task, ``None`` if it has none.
    :param timezone: returns the connection's; called only if the window depends on it.
    """
    selector, reason = _select(options, context, dag, timezone)
    waits = [
        WaitState(
            subject=subject,
            selector=selector,
            since=limits.since,
            window_reason=reason,
            on_failed=options.on_failed,
            start_timeout=options.start_timeout,
            finish_by=limits.finish_by,
            unreachable_timeout=limits.unreachable_timeout,
            clock_skew=options.clock_skew,
        )
        for subject in subjects
    ]
    return WaitGroup.of(waits, required=_options.required_of(options.require, len(waits)), late_at=late_at)


def names_of(options: SensorOptions) -> tuple[list[str], str | None]:
    """Return the names to look up, and the owner of these mail tasks, ``None`` for any."""
    return [subject.name for subject in options.subjects], options.subjects[0].scope or None


def subjects_of(mail_tasks: Sequence[MailTask]) -> list[Subject]:
    """Return what is waited for."""
    return [MailTaskSubject(mail_task.mail_id, mail_task.subscribe_name) for mail_task in mail_tasks]


def unreachable_seconds(timeout: float | None, silent_fail: bool) -> float:
    """Return how long an outage may last; with ``silent_fail`` only the task's ``timeout`` ends it."""
    return FOREVER if silent_fail or timeout is None else timeout


def _select(options: SensorOptions, context: Any, dag: Any, timezone: Callable[[], str]) -> tuple[RunSelector, str]:
    if options.run_id is not None:
        return RunSelector(run_id=options.run_id), ""
    if options.executed_after is not None or options.executed_before is not None:
        return RunSelector(executed_after=options.executed_after, executed_before=options.executed_before), ""
    return select_window(
        options.window,
        _airflow.due_time(context, dag),
        timezone=ZoneInfo(timezone()),
        clock_skew=timedelta(seconds=options.clock_skew),
        now=CLOCK.now(),
    )


def _look_up(task: Any, options: SensorOptions, limits: Limits, started: float) -> Sequence[Subject]:
    """Look names up, as patiently as a status is polled, but holding the worker."""
    log = WaitLog(task.log)
    while True:
        try:
            with QuickBIHook(task.quickbi_conn_id) as hook:
                return subjects_of(hook.find_mail_tasks(*names_of(options)))
        except QuickBIUnavailable as error:
            now = CLOCK.time()
            if now >= limits.finish_by:
                raise AirflowSensorTimeout(f"Timed out before the name could be looked up. {error}") from None
            if now - started >= limits.unreachable_timeout or isinstance(error, QuickBIConnectionUnreadable):
                raise
            log.report(f"{error} Retrying the name lookup.", now)
        CLOCK.sleep(limits.lookup_interval)
