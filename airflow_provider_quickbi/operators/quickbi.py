"""The operators: list mail tasks, and send one at most once."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, conf

from airflow_provider_quickbi import _options, connection
from airflow_provider_quickbi._send.attempt import FOREVER, AttemptState, StartAttempt
from airflow_provider_quickbi._send.record import DEFAULT_CLOCK_SKEW, OnRunFailed, OnRunning, OnScheduleLimit
from airflow_provider_quickbi._wait import deadline
from airflow_provider_quickbi._wait.evaluate import DEFAULT_UNREACHABLE_TIMEOUT
from airflow_provider_quickbi._wait.events import carried, wrap_event_errors
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.lookup import matches
from airflow_provider_quickbi.api.paging import DEFAULT_PAGE_SIZE
from airflow_provider_quickbi.assets.quickbi import is_mail_task
from airflow_provider_quickbi.exceptions import task_error
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.links.quickbi import QuickBIConsoleLink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context


class QuickBIListMailTasksOperator(BaseOperator):
    """List the Quick BI mail tasks that the AccessKey may see.

    The XCom is a list of dicts ``{mail_id, subscribe_name, paused, biz_owner_user_id, biz_owner_name}``, ready for
    ``.expand()``.

    Source: operation ``GetMailTaskList`` of product ``quickbi-public``, version ``2022-01-01``.

    :param user_nick: only mail tasks of the owner with this nickname. (templated)
    :param paused: only paused mail tasks (``True``), only those that are not (``False``), or both (``None``, the
        default). (templated)
    :param subscribe_name: only mail tasks with this name; ``*``, ``?`` and ``[...]`` make it a glob. (templated)
    :param page_size: mail tasks a call; default 25. (templated)
    :param max_mail_tasks: how many to return at the most; ``None`` (default) for all. Further pages are not read.
        (templated)
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    """

    template_fields: Sequence[str] = (
        "user_nick",
        "paused",
        "subscribe_name",
        "page_size",
        "max_mail_tasks",
        "quickbi_conn_id",
    )
    operator_extra_links = (QuickBIConsoleLink(),)
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        user_nick: str | None = None,
        paused: bool | str | None = None,
        subscribe_name: str | None = None,
        page_size: int | str = DEFAULT_PAGE_SIZE,
        max_mail_tasks: int | str | None = None,
        quickbi_conn_id: str = connection.DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.user_nick = user_nick
        self.paused = paused
        self.subscribe_name = subscribe_name
        self.page_size = page_size
        self.max_mail_tasks = max_mail_tasks
        self.quickbi_conn_id = quickbi_conn_id
        _options.check_known(self, _LIST_ARGUMENTS)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the mail tasks."""
        given = _options.read_all(self, _LIST_ARGUMENTS)
        most = given["max_mail_tasks"]
        name = given["subscribe_name"]
        found: list[dict[str, Any]] = []
        with QuickBIHook(self.quickbi_conn_id) as hook:
            QuickBIConsoleLink.store(context, hook.quickbi_connection.console_url)
            try:
                for mail_task in hook.get_conn().iter_mail_tasks(
                    given["user_nick"], given["paused"], given["page_size"] or DEFAULT_PAGE_SIZE
                ):
                    if name is None or matches(mail_task, name):
                        found.append(mail_task.as_dict())
                        if len(found) == most:
                            break
            except QuickBIError as error:
                raise task_error(error) from None
        self.log.info("%d mail tasks.", len(found))
        return found


class QuickBIRunMailTaskOperator(BaseOperator):
    """Send the report of a Quick BI mail task now, at most once, and wait until exactly that run is over.

    Before the one starting call the latest TaskIds and the time are noted; where Airflow keeps the note over a retry
    (3.3 and later) a retry, or a worker that was restarted, first looks for a run that is new since then and joins it.
    If the call's answer is lost, the run is looked for and nothing is sent again in the same try. Triggers start
    nothing. Clearing the task after it has ended sends the mail anew.

    The outcome is that of ``QuickBIMailTaskSensor``: success with the run as XCom; ``QuickBIMailTaskFailed`` if it
    ``FAILED``; ``AirflowSensorTimeout`` if it was not over in time, which is never retried; ``QuickBIRequestError`` if
    Quick BI refuses. ``QuickBIUnavailable`` and ``QuickBIStartUnknown`` are retried; the retry, or clearing the task
    after the last one, looks for the run before it sends.

    Sources: operations ``ManualRunMailTask`` and ``GetMailTaskStatus`` of product ``quickbi-public``, version
    ``2022-01-01``.

    :param mail_id: the mail task. (templated)
    :param subscribe_name: instead of ``mail_id``: its exact name. (templated)
    :param mail_owner: nickname or user id of its owner in Quick BI, where several have the name. (templated)
    :param wait_for_completion: whether to wait until the run is over (default), or only until it is seen, so that the
        XCom's ``task_id`` can be given to a sensor.
    :param deferrable: whether to wait in the triggerer; default ``[operators] default_deferrable``.
    :param poll_interval: seconds or timedelta between two looks; default 30 seconds. (templated)
    :param on_running: if a run is under way already: ``wait`` (default) until it is over and then start ours,
        ``attach`` to it and start none, ``skip`` the task, or ``fail``. (templated)
    :param on_schedule_limit: if the service wants no start for some minutes: ``wait`` (default) as long as it says, or
        ``fail``. (templated)
    :param on_failed: ``fail`` (default): a run that ``FAILED`` is final; ``retry``: Airflow's ``retries`` send anew.
        (templated)
    :param start_timeout: seconds or timedelta within which a started run must be seen; default 5 minutes. (templated)
    :param timeout: seconds or timedelta that one try may take in all; default 3 hours. (templated)
    :param unreachable_timeout: seconds or timedelta of nothing but failed attempts to ask; default 30 minutes.
        (templated)
    :param clock_skew: seconds that Quick BI's clock may be behind this machine's; default 60. (templated)
    :param deadline: when the delivery is late, see ``QuickBIMailTaskSensor``. The wait goes on. (templated)
    :param on_late_callback: called once with the context if the delivery is late: a callable, a notifier, or a list.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    """

    template_fields: Sequence[str] = (
        "mail_id",
        "subscribe_name",
        "mail_owner",
        "poll_interval",
        "on_running",
        "on_schedule_limit",
        "on_failed",
        "start_timeout",
        "timeout",
        "unreachable_timeout",
        "clock_skew",
        "deadline",
        "quickbi_conn_id",
    )
    operator_extra_links = (QuickBIConsoleLink(),)
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        mail_id: str | None = None,
        subscribe_name: str | None = None,
        mail_owner: str | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta | str = 30,
        on_running: str = OnRunning.WAIT.value,
        on_schedule_limit: str = OnScheduleLimit.WAIT.value,
        on_failed: str = OnRunFailed.FAIL.value,
        start_timeout: float | timedelta | str = 300,
        timeout: float | timedelta | str = 3 * 3600,
        unreachable_timeout: float | timedelta | str = DEFAULT_UNREACHABLE_TIMEOUT,
        clock_skew: float | timedelta | str = DEFAULT_CLOCK_SKEW,
        deadline: datetime | str | None = None,
        on_late_callback: Callable[[Context], Any] | Sequence[Callable[[Context], Any]] | None = None,
        quickbi_conn_id: str = connection.DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mail_id = mail_id
        self.subscribe_name = subscribe_name
        self.mail_owner = mail_owner
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.on_running = on_running
        self.on_schedule_limit = on_schedule_limit
        self.on_failed = on_failed
        self.start_timeout = start_timeout
        self.timeout = timeout
        self.unreachable_timeout = unreachable_timeout
        self.clock_skew = clock_skew
        self.deadline = deadline
        self.on_late_callback = on_late_callback
        self.quickbi_conn_id = quickbi_conn_id
        if (mail_id is None) == (subscribe_name is None):
            raise ValueError(f"{type(self).__name__} needs either mail_id or subscribe_name")
        if not wait_for_completion and any(is_mail_task(outlet) for outlet in self.outlets):
            raise ValueError(
                "an outlet quickbi://... says that the report went out, which is not known with "
                "wait_for_completion=False: name the outlet in the sensor that waits for the run"
            )
        _options.check_known(self, _RUN_ARGUMENTS)
        if not _options.is_template(deadline):
            _options.deadline("deadline", deadline, datetime.now(UTC))

    def execute(self, context: Context) -> Any:
        """Send the mail, unless a note says that an earlier try may have done so; then wait for its run."""
        given = _options.read_all(self, _RUN_ARGUMENTS)
        if given["mail_id"] is None and given["subscribe_name"] is None:
            raise AirflowFailException(f"{self.task_id}: neither mail_id nor subscribe_name was rendered to anything")
        try:
            late = _options.deadline("deadline", self.deadline, deadline.run_started(context) or datetime.now(UTC))
        except _options.ArgumentError as error:
            raise AirflowFailException(f"{self.task_id}: {error}") from None
        now = time.time()
        state = AttemptState(
            mail_id=given["mail_id"] or "",
            finish_by=now + (FOREVER if given["timeout"] is None else given["timeout"]),
            execute_by=None if self.execution_timeout is None else now + self.execution_timeout.total_seconds(),
            late_at=deadline.pending(late.timestamp() if late else None, context),
        )
        with QuickBIHook(self.quickbi_conn_id) as hook:
            QuickBIConsoleLink.store(context, hook.quickbi_connection.console_url)
            return StartAttempt(self, given, state, hook, context).begin()

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Go on where this try was deferred.

        :param context: of the task.
        :param event: of a trigger of :mod:`airflow_provider_quickbi.triggers.quickbi`.
        """
        given = _options.read_all(self, _RUN_ARGUMENTS)
        with wrap_event_errors():
            state = AttemptState.from_dict(carried(event))
        with QuickBIHook(self.quickbi_conn_id) as hook:
            return StartAttempt(self, given, state, hook, context).resume(event)

    def on_kill(self) -> None:
        """Say that nothing is called back."""
        self.log.warning("The task was stopped. Quick BI cannot call a mail back: one that was started goes out.")


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    return lambda name, value: _options.choice(name, value, choices)


_LIST_ARGUMENTS: dict[str, Callable[[str, Any], Any]] = {
    "user_nick": _options.optional_text,
    "paused": _options.flag,
    "subscribe_name": _options.optional_text,
    "page_size": _options.count,
    "max_mail_tasks": _options.count,
}

_RUN_ARGUMENTS: dict[str, Callable[[str, Any], Any]] = {
    "mail_id": _options.text,
    "subscribe_name": _options.text,
    "mail_owner": _options.text,
    "poll_interval": _options.seconds,
    "on_running": _one_of(*OnRunning),
    "on_schedule_limit": _one_of(*OnScheduleLimit),
    "on_failed": _one_of(*OnRunFailed),
    "start_timeout": _options.seconds,
    "timeout": _options.seconds,
    "unreachable_timeout": _options.seconds,
    "clock_skew": _options.seconds,
}
