"""QuickBIMailTaskSensor: wait until a report was really sent."""

from __future__ import annotations

import inspect
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_quickbi import _airflow, _options, connection
from airflow_provider_quickbi._metrics import DetectionDelay
from airflow_provider_quickbi._options import Arguments, OptionError
from airflow_provider_quickbi._wait import deadline as late_notice
from airflow_provider_quickbi._wait import memory
from airflow_provider_quickbi._wait.conclusion import conclude, softened
from airflow_provider_quickbi._wait.deferral import PollOptions, defer_wait
from airflow_provider_quickbi._wait.events import Event, finished_group
from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi._wait.options import SensorOptions
from airflow_provider_quickbi._wait.outlets import unrelated_outlets
from airflow_provider_quickbi._wait.start import Limits, start_group, unreachable_seconds
from airflow_provider_quickbi._wait.state import (
    DEFAULT_CLOCK_SKEW,
    DEFAULT_UNREACHABLE_TIMEOUT,
    OnFailed,
    OnMissed,
    Outcome,
    WaitGroup,
)
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi._wait.sync import poll_once, seconds_until_next_poll
from airflow_provider_quickbi._wait.window import Window
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy
from airflow_provider_quickbi.exceptions import (
    QuickBIArgumentError,
    QuickBIConnectionUnreadable,
    QuickBIUnavailable,
)
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.links.quickbi import QuickBIConsoleLink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context

#: Arguments that take one text or several.
_NAMES = ("mail_id", "subscribe_name")
#: Arguments that exclude each other; a task's own argument wins over one from ``default_args``.
_EXCLUSIVE = (
    (("mail_id",), ("subscribe_name", "mail_owner")),
    (("quickbi_task_id",), ("executed_after", "executed_before")),
)


class QuickBIMailTaskSensor(BaseSensorOperator):
    """Wait until a run of a Quick BI mail task is ``SENT``.

    Quick BI shows the latest run of a mail task, or one whose TaskId is given. Which run the sensor waits for:
    ``quickbi_task_id`` names it; ``executed_after`` and ``executed_before`` bound when it must start; otherwise
    ``window`` derives these bounds from when this DAG run was due. Once a matching run has been seen, only that run is
    monitored.

    In all modes (``poke``, ``reschedule``, deferrable) the outcome is the same: success with the run as XCom;
    ``QuickBIMailTaskFailed`` if it ``FAILED``; ``QuickBIRunMissed`` if the latest run started after the window, so that
    a run inside it can no longer be seen; ``AirflowSensorTimeout`` if none started in the window or in
    ``start_timeout``, or if it was not finished in time; ``QuickBIRequestError`` if Quick BI refuses;
    ``QuickBIConnectionError`` if a run is dated in the future, which proves a wrong ``timezone``;
    ``QuickBIUnavailable`` (retried) after a long outage.

    Airflow's own arguments of a sensor (``poke_interval``, ``timeout``, ``soft_fail``, ``mode``,
    ``exponential_backoff``, ``max_wait``, ``silent_fail``, ``never_fail``) and ``execution_timeout`` mean the same
    deferred as not deferred.

    Below Airflow 3.3 a sensor with ``mode="reschedule"`` starts anew with each poll: it is not pinned to the run that
    it has seen, an outage ends in its ``timeout`` and not in ``unreachable_timeout``, and it knows only by the time
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
        ``latest``: the latest run, whatever its age. ``auto`` (default): ``schedule`` for scheduled and backfilled DAG
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
        the DAG run started, such as ``09:00 Asia/Shanghai``. The wait goes on. (templated)
    :param on_late_callback: called once with the context if the report is late: a callable, a notifier, or a list.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    :param deferrable: whether to wait in the triggerer; default ``[operators] default_deferrable``.
    :param poke_interval: seconds or timedelta between two polls; default 30 seconds.
    """

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
    operator_extra_links = (QuickBIConsoleLink(),)
    ui_color = "#e8f1ff"

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
        _options.settle_defaults(self, kwargs.get("default_args"), _EXCLUSIVE, {"on_failed": OnFailed})
        self._group: WaitGroup | None = None
        self._log_of_wait: WaitLog | None = None
        self._delay = DetectionDelay()
        self._rendered = frozenset(name for name in _NAMES if _options.is_template(getattr(self, name)))
        try:
            _options.need_one_of(self, *_NAMES)
            options = SensorOptions.read(Arguments(self, parsing=True), _airflow.default_timezone())
            if not _options.is_template(deadline):
                _options.deadline("deadline", deadline, datetime.now(UTC), _airflow.default_timezone())
            self._check_outlets(options.mail_ids)
        except OptionError as error:
            raise QuickBIArgumentError(str(error)) from None

    def _check_outlets(self, mail_ids: Sequence[str]) -> None:
        subjects = [MailTaskSubject(mail_id) for mail_id in mail_ids]
        if subjects and (unrelated := unrelated_outlets(self.outlets, subjects)):
            raise OptionError(f"outlet {unrelated[0]} is not of a mail task that this task waits for")

    def execute(self, context: Context) -> Any:
        """Wait, in this worker or in the triggerer."""
        self._group = self._log_of_wait = None
        self._delay = DetectionDelay()
        with softened(self):
            self._store_link(context)
            if self.deferrable:
                return self._wait_deferred(context)
            # Airflow 2.11 takes a call through super() for one from outside a task: it warns, or even refuses.
            return inspect.unwrap(BaseSensorOperator.execute)(self, context)

    def _wait_deferred(self, context: Context) -> Any:
        """Finish if the first poll is enough, else hand the wait to the triggerer."""
        group = self._poll(self._start(context), NO_RETRY)  # what fails is left to the triggerer
        if group.is_late(time.time()):
            group = self._notify_late(group, context)
        if group.evaluation.outcome.final:
            return self._conclude(group, context)
        if not any(wait.polled for wait in group.waits):  # else the first poll's line has said it
            self.log.info("%s", group.evaluation.message)
        timeout = _airflow.seconds_of(self.execution_timeout)
        return defer_wait(self, group, self._poll_options(None if timeout is None else time.time() + timeout))

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll every mail task once that is not finished, and decide."""
        with softened(self):
            known = self._group or (memory.restore(context) if self.reschedule else None)
            try:
                group = self._poll(known or self._start(context), RetryPolicy())
            except QuickBIConnectionUnreadable as error:
                if not self.reschedule or _airflow.first_reschedule_date(self, context) is None:
                    raise
                if time.time() >= self._started_at(context) + (_airflow.seconds_of(self.timeout) or 0.0):
                    raise QuickBIUnavailable(str(error)) from None
                self._report(f"{error} Trying again.", None)
                return False
            if group.is_late(time.time()):
                group = self._notify_late(group, context) if self._notifies_late(group, context) else group.notified()
            self._group = group
            if group.evaluation.outcome is Outcome.WAITING:
                self._report(group.evaluation.message, known)
                if self.reschedule and group != known:
                    memory.remember(group, context)
                return False
            if self.reschedule:
                memory.forget(context)
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(group, context))

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Do what the trigger's event says.

        :param context: of the task.
        :param event: of :class:`airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskTrigger`.
        """
        with softened(self):
            group = finished_group(
                Event.decode(event),
                notify_late=partial(self._notify_late, context=context),
                defer_again=self._defer_again,
            )
            return self._conclude(group, context)

    def on_kill(self) -> None:
        """Log that a report in progress is still sent."""
        self.log.info("Wait cancelled; a report in progress is still sent.")

    def _defer_again(self, group: WaitGroup, event: Event) -> NoReturn:
        defer_wait(self, group, self._poll_options(event.carry.get("execute_by")), event.polls)

    def _poll_options(self, execute_by: float | None) -> PollOptions:
        return PollOptions(
            quickbi_conn_id=self.quickbi_conn_id,
            poke_interval=self.poke_interval,
            exponential_backoff=bool(self.exponential_backoff),
            max_wait=_airflow.seconds_of(self.max_wait),
            execute_by=execute_by,
            carry={"execute_by": execute_by},
        )

    def _start(self, context: Context) -> WaitGroup:
        """Read the rendered arguments and return a wait group of which nothing is known yet."""
        zone = _airflow.default_timezone()
        try:
            options = SensorOptions.read(Arguments(self), zone, self._rendered)
            self._check_outlets(options.mail_ids)
            late = _options.deadline(
                "deadline", self.deadline, _airflow.run_started(context) or datetime.now(UTC), zone
            )
        except OptionError as error:
            raise QuickBIArgumentError(f"{self.task_id}: {error}") from None
        limits = Limits(
            since=self._started_at(context),
            timeout=_airflow.seconds_of(self.timeout) or 0.0,
            unreachable_timeout=unreachable_seconds(options.unreachable_timeout, self.silent_fail),
            poke_interval=self.poke_interval,
        )
        late_at = late_notice.pending(late.timestamp() if late else None, context)
        return start_group(self, context, options, limits, late_at)

    def _poll(self, group: WaitGroup, retries: RetryPolicy) -> WaitGroup:
        with QuickBIHook(self.quickbi_conn_id) as hook:
            return poll_once(group, hook.get_conn, retries, log=WaitLog(self.log), delay=self._delay)

    def _conclude(self, group: WaitGroup, context: Context) -> Any:
        name = "mail_id" if self.mail_id is not None else "subscribe_name"
        several = _options.as_list(getattr(self, name), rendered=name in self._rendered) is not None
        return conclude(self, group, context, several=several)

    def _notify_late(self, group: WaitGroup, context: Context) -> WaitGroup:
        late_notice.notify(self.on_late_callback, context, group, self.log)
        return group.notified()

    def _notifies_late(self, group: WaitGroup, context: Context) -> bool:
        """Whether nobody was notified yet; below Airflow 3.3 a rescheduled sensor knows it only by the time."""
        if not self.reschedule or _airflow.task_state_store(context) is not None or group.late_at is None:
            return True
        first_poll = _airflow.first_reschedule_date(self, context) is None
        return first_poll or time.time() - group.late_at < self.poke_interval

    def _report(self, message: str, known: WaitGroup | None) -> None:
        """Log what is new; a rescheduled sensor logged the rest in its last poke."""
        if self._log_of_wait is None:
            self._log_of_wait = WaitLog(self.log)
            if known is not None and known.evaluation.message == message:
                return
        self._log_of_wait.report(message, time.time())

    def _get_next_poke_interval(self, *args: Any, **kwargs: Any) -> float:
        """Sleep until something can happen: not past a deadline, and not before the window."""
        interval: float = super()._get_next_poke_interval(*args, **kwargs)
        return interval if self._group is None else seconds_until_next_poll(self._group, interval, time.time())

    def _store_link(self, context: Context) -> None:
        """Store the link, and fail before the wait if there is no connection; later the wait outlasts that."""
        try:
            QuickBIConsoleLink.store(context, QuickBIHook(self.quickbi_conn_id).quickbi_connection.console_url)
        except QuickBIConnectionUnreadable:
            if not self.reschedule or _airflow.first_reschedule_date(self, context) is None:
                raise

    def _started_at(self, context: Context) -> float:
        """Return when Airflow starts to count ``timeout``: with the first poll, whatever was rescheduled since."""
        if not self.reschedule or self.deferrable:
            return time.time()
        first = _airflow.first_reschedule_date(self, context) or context["ti"].start_date
        return first.timestamp() if first else time.time()
