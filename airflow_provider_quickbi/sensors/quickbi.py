"""The sensors: wait until a report was really sent, or a dataset was really refreshed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_quickbi import connection
from airflow_provider_quickbi._wait.options import MAIL_TASK_NAMES, MAIL_TASK_OVERRIDES, WINDOW_OVERRIDES
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW, DEFAULT_UNREACHABLE_TIMEOUT, OnFailed, OnMissed
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi._wait.window import Window
from airflow_provider_quickbi.sensors.dataset import QuickBIDatasetRefreshSensor
from airflow_provider_quickbi.sensors.waiting import RunSensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from airflow.providers.common.compat.sdk import Context

__all__ = ["QuickBIDatasetRefreshSensor", "QuickBIMailTaskSensor"]

#: A task's own argument on the left wins over ``default_args`` on the right.
_OVERRIDES = (
    *MAIL_TASK_OVERRIDES,
    *WINDOW_OVERRIDES,
    (("quickbi_task_id",), ("executed_after", "executed_before")),
    (("quickbi_task_id",), ("on_failed",)),
    (("executed_after", "executed_before", "window"), ("quickbi_task_id",)),
)


class QuickBIMailTaskSensor(RunSensor):
    """Wait until a run of a Quick BI mail task is ``SENT``.

    Quick BI shows the latest run of a mail task, or the one with a given TaskId. How the sensor selects a run:
    ``quickbi_task_id`` names it; ``executed_after`` and ``executed_before`` bound when it must start; otherwise
    ``window`` derives these bounds from when this DAG run was due. Once a matching run has been seen, only that run is
    monitored.

    In all modes (``poke``, ``reschedule``, deferrable) the outcome is the same: success with the run as XCom;
    ``QuickBIMailTaskFailed`` if it ``FAILED``; ``QuickBIRunMissed`` if the latest run started after the window and
    hides any run inside it; ``AirflowSensorTimeout`` if none started in the window or in
    ``start_timeout``, or if it was not finished in time; ``QuickBIRequestError`` if Quick BI refuses;
    ``QuickBIConnectionError`` if a run is dated in the future, which proves a wrong ``timezone``;
    ``QuickBIUnavailable`` (retried) after a long outage.

    Airflow's own arguments of a sensor (``poke_interval``, ``timeout``, ``soft_fail``, ``mode``,
    ``exponential_backoff``, ``max_wait``, ``silent_fail``, ``never_fail``) and ``execution_timeout`` work the same
    whether or not the task is deferred.

    Below Airflow 3.3 a sensor with ``mode="reschedule"`` starts over with each poll: it is not pinned to the run that
    it has seen, an outage is limited by ``timeout``, not ``unreachable_timeout``, and it can only infer from the time
    whether a late report was notified. Use ``deferrable=True`` there.

    Source: operation ``GetMailTaskStatus`` of product ``quickbi-public``, version ``2022-01-01``.

    :param mail_id: the mail task, or a list of them. (templated)
    :param subscribe_name: instead of ``mail_id``: its exact name, or a list of names. (templated)
    :param mail_owner: nickname or user id of its owner in Quick BI, where several have the name. (templated)
    :param quickbi_task_id: TaskId of the run. (templated)
    :param executed_after: the run must start at or after this datetime or ISO 8601 text; without a zone it is in
        Airflow's ``[core] default_timezone``. (templated)
    :param executed_before: the run must start before this; like ``executed_after``. (templated)
    :param window: used where none of the three is given. ``day``: the calendar day, in the connection's ``timezone``,
        on which this DAG run was due. ``schedule``: from when it was due, less ``clock_skew``, to when the next one is.
        ``latest``: the latest run, of any age. ``auto`` (default): ``schedule`` for scheduled and backfilled DAG
        runs of a DAG that runs more than once a day, else ``day``; ``day`` if triggered by an asset; ``latest`` if
        started by hand. (templated)
    :param on_failed: ``fail`` (default), or ``wait`` to wait for a later run in the window. (templated)
    :param on_missed: ``fail`` (default) or ``skip`` if the run can no longer be seen. (templated)
    :param start_timeout: seconds or timedelta within which a matching run must be seen, counted from
        ``executed_after`` where that is later than the start of the wait; ``None`` (default) for no limit. (templated)
    :param unreachable_timeout: maximum continuous outage, in seconds or as timedelta; default 30 minutes. (templated)
    :param clock_skew: seconds by which Quick BI's clock may differ from this machine's; default 60. (templated)
    :param require: with several mail tasks: ``all`` (default), ``any`` or how many must be sent. (templated)
    :param deadline: when the report is late: a datetime, ISO 8601 text, or a wall time in a zone on the day on which
        the DAG run started, such as ``09:00 Asia/Shanghai``. The task keeps waiting. (templated)
    :param on_late_callback: called once with the context if the report is late: a callable, a notifier, or a list.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    :param deferrable: whether to wait in the triggerer; default ``[operators] default_deferrable``.
    :param start_in_triggerer: whether a deferrable task starts in the triggerer if it needs no worker; default
        ``True``. Airflow 3.3 and later.
    :param end_in_triggerer: whether a deferred task whose run has succeeded finishes in the triggerer, without starting
        another worker, where none is needed; default ``True``. Airflow 3.3 and later.
    :param poke_interval: seconds or timedelta between two polls; default 30 seconds.
    """

    subject_kind = MailTaskSubject.kind
    _one_of = MAIL_TASK_NAMES
    template_fields: Sequence[str] = (
        "mail_id",
        "subscribe_name",
        "mail_owner",
        "quickbi_task_id",
        "executed_after",
        "executed_before",
        "window",
        "on_failed",
        "on_missed",
        "start_timeout",
        "unreachable_timeout",
        "clock_skew",
        "require",
        "deadline",
        "quickbi_conn_id",
    )

    def __init__(
        self,
        *,
        mail_id: str | Sequence[str] | None = None,
        subscribe_name: str | Sequence[str] | None = None,
        mail_owner: str | None = None,
        quickbi_task_id: str | int | None = None,
        executed_after: datetime | str | None = None,
        executed_before: datetime | str | None = None,
        window: str = Window.AUTO.value,
        on_failed: str = OnFailed.FAIL.value,
        on_missed: str = OnMissed.FAIL.value,
        start_timeout: float | timedelta | str | None = None,
        unreachable_timeout: float | timedelta | str = DEFAULT_UNREACHABLE_TIMEOUT,
        clock_skew: float | timedelta | str = DEFAULT_CLOCK_SKEW,
        require: str | int = "all",
        deadline: datetime | str | None = None,
        on_late_callback: Callable[[Context], Any] | Sequence[Callable[[Context], Any]] | None = None,
        quickbi_conn_id: str = connection.DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        start_in_triggerer: bool = True,
        end_in_triggerer: bool = True,
        poke_interval: float | timedelta = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.mail_id = mail_id
        self.subscribe_name = subscribe_name
        self.mail_owner = mail_owner
        self.quickbi_task_id = quickbi_task_id
        self.executed_after = executed_after
        self.executed_before = executed_before
        self.window = window
        self.on_failed = on_failed
        self.on_missed = on_missed
        self.start_timeout = start_timeout
        self.unreachable_timeout = unreachable_timeout
        self.clock_skew = clock_skew
        self.require = require
        self.deadline = deadline
        self.on_late_callback = on_late_callback
        self.quickbi_conn_id = quickbi_conn_id
        self.deferrable = deferrable
        self.start_in_triggerer = start_in_triggerer
        self.end_in_triggerer = end_in_triggerer
        self._prepare(kwargs.get("default_args"), _OVERRIDES)

    def on_kill(self) -> None:
        """Log that a report in progress is still sent."""
        self.log.info("Wait cancelled; a report in progress is still sent.")
