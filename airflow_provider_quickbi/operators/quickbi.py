"""The operators: list mail tasks, send one at most once, refresh a dataset at most once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.sdk import conf

from airflow_provider_quickbi import _options, connection
from airflow_provider_quickbi._options import Arguments, OptionError
from airflow_provider_quickbi._send.options import (
    DEFAULT_POLL_INTERVAL,
    DEFAULT_START_TIMEOUT,
    DEFAULT_TIMEOUT,
    OnRunFailed,
    OnRunning,
    OnScheduleLimit,
    read_mail_task,
)
from airflow_provider_quickbi._templates import TemplatedTask
from airflow_provider_quickbi._wait.options import MAIL_TASK_NAMES, MAIL_TASK_OVERRIDES
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW, DEFAULT_UNREACHABLE_TIMEOUT
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.lookup import matches
from airflow_provider_quickbi.api.paging import DEFAULT_PAGE_SIZE
from airflow_provider_quickbi.assets.quickbi import is_quickbi
from airflow_provider_quickbi.exceptions import argument_errors, task_error
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.links.quickbi import QuickBIConsoleLink
from airflow_provider_quickbi.operators.dataset import QuickBIRefreshDatasetOperator
from airflow_provider_quickbi.operators.starting import StartOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_quickbi._wait.subject import Subject

__all__ = ["QuickBIListMailTasksOperator", "QuickBIRefreshDatasetOperator", "QuickBIRunMailTaskOperator"]


class QuickBIListMailTasksOperator(TemplatedTask):
    """List the Quick BI mail tasks that the AccessKey may see.

    The XCom is a list of dicts ``{mail_id, subscribe_name, paused, biz_owner_user_id, biz_owner_name}``, ready for
    ``.expand()``.

    Source: operation ``GetMailTaskList`` of product ``quickbi-public``, version ``2022-01-01``.

    :param user_nick: only mail tasks of the owner with this nickname. (templated)
    :param paused: only paused mail tasks (``True``), only those that are not (``False``), or both (``None``, the
        default). (templated)
    :param subscribe_name: only mail tasks with this name; ``*``, ``?`` and ``[...]`` make it a glob. (templated)
    :param page_size: mail tasks per call; default 25. (templated)
    :param max_mail_tasks: how many to return at most; ``None`` (default) for all. Further pages are not read.
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
        with argument_errors():
            _ListOptions.read(Arguments(self, parsing=True))
            if outlets := list(filter(is_quickbi, self.outlets)):
                raise OptionError(
                    f"outlet {outlets[0].uri}: this task only lists mail tasks, so it emits no quickbi:// asset event; "
                    "move the outlet to the sensor that waits for the run"
                )

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the mail tasks."""
        with argument_errors(self.task_id):
            options = _ListOptions.read(Arguments(self))
        found: list[dict[str, Any]] = []
        with QuickBIHook(self.quickbi_conn_id) as hook:
            QuickBIConsoleLink.store(self, context, hook.quickbi_connection.console_url)
            try:
                for mail_task in hook.get_conn().iter_mail_tasks(options.user_nick, options.paused, options.page_size):
                    if options.subscribe_name is None or matches(mail_task, options.subscribe_name):
                        found.append(mail_task.as_dict())
                        if len(found) == options.max_mail_tasks:
                            break
            except QuickBIError as error:
                raise task_error(error) from None
        self.log.info("Found %d mail tasks.", len(found))
        return found


class QuickBIRunMailTaskOperator(StartOperator):
    """Send the report of a Quick BI mail task now, at most once, and wait until exactly that run has finished.

    Before its single start call, the operator records the latest TaskIds and the time. Where Airflow keeps this record
    across retries (3.3 and later), a retry or a restarted worker first looks for a run that is new since then and
    attaches to it. If the call's response is lost, the operator looks for the run and does not send again in that try.
    Triggers never start a run. Clearing a finished task sends the mail again.

    The outcome is that of ``QuickBIMailTaskSensor``: success with the run as XCom; ``QuickBIMailTaskFailed`` if it
    ``FAILED``; ``AirflowSensorTimeout`` if it was not finished in time, which is never retried; ``QuickBIRequestError``
    if Quick BI refuses; ``QuickBIConnectionError`` if the run's date proves a wrong ``timezone``.
    ``QuickBIUnavailable`` and ``QuickBIStartUnknown`` are retried; the retry, or clearing the task after the last one,
    looks for the run before it sends.

    Sources: operations ``ManualRunMailTask`` and ``GetMailTaskStatus`` of product ``quickbi-public``, version
    ``2022-01-01``.

    :param mail_id: the mail task. (templated)
    :param subscribe_name: instead of ``mail_id``: its exact name. (templated)
    :param mail_owner: nickname or user id of its owner in Quick BI, where several have the name. (templated)
    :param wait_for_completion: whether to wait until the run is finished (default), or only until it is seen; the
        XCom's ``task_id`` can then be passed to a sensor.
    :param deferrable: whether to wait in the triggerer; default ``[operators] default_deferrable``.
    :param poll_interval: seconds or timedelta between two polls; default 30 seconds. (templated)
    :param on_running: if a run is already active: ``wait`` (default) until it is finished and then start,
        ``attach`` to it without a start, ``skip`` the task, or ``fail``. (templated)
    :param on_schedule_limit: if Quick BI blocks starts for some minutes: ``wait`` (default) as long as it says, or
        ``fail``. (templated)
    :param on_failed: ``fail`` (default): a run that ``FAILED`` is final; ``retry``: Airflow's ``retries`` send again.
        (templated)
    :param start_timeout: seconds or timedelta within which a started run must be seen; default 5 minutes. (templated)
    :param timeout: seconds or timedelta that one try may take in total; default 3 hours. (templated)
    :param unreachable_timeout: maximum continuous outage, in seconds or as timedelta; default 30 minutes. (templated)
    :param clock_skew: seconds by which Quick BI's clock may differ from this machine's; default 60. (templated)
    :param deadline: when the report is late, see ``QuickBIMailTaskSensor``. The task keeps waiting. (templated)
    :param on_late_callback: called once with the context if the report is late: a callable, a notifier, or a list.
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

    def __init__(
        self,
        *,
        mail_id: str | None = None,
        subscribe_name: str | None = None,
        mail_owner: str | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta | str = DEFAULT_POLL_INTERVAL,
        on_running: str = OnRunning.WAIT.value,
        on_schedule_limit: str = OnScheduleLimit.WAIT.value,
        on_failed: str = OnRunFailed.FAIL.value,
        start_timeout: float | timedelta | str = DEFAULT_START_TIMEOUT,
        timeout: float | timedelta | str = DEFAULT_TIMEOUT,
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
        self._check_arguments(kwargs.get("default_args"), MAIL_TASK_OVERRIDES, MAIL_TASK_NAMES)

    def _read_subject(self, arguments: Arguments) -> Subject:
        return read_mail_task(arguments)

    def on_kill(self) -> None:
        """Log that a started mail is still sent."""
        self.log.warning("Task stopped; a started mail is still sent.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ListOptions:
    user_nick: str | None
    paused: bool | None
    subscribe_name: str | None
    page_size: int
    max_mail_tasks: int | None

    @classmethod
    def read(cls, arguments: Arguments) -> Self:
        read = arguments.read
        return cls(
            user_nick=read("user_nick", _options.optional_text, None),
            paused=read("paused", _options.flag, None),
            subscribe_name=read("subscribe_name", _options.optional_text, None),
            page_size=read("page_size", _options.count, None) or DEFAULT_PAGE_SIZE,
            max_mail_tasks=read("max_mail_tasks", _options.count, None),
        )
