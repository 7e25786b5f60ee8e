"""The operator that refreshes a dataset; import it from ``airflow_provider_quickbi.operators.quickbi``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_quickbi import _options, connection
from airflow_provider_quickbi._options import OptionError
from airflow_provider_quickbi._send.options import (
    DEFAULT_POLL_INTERVAL,
    DEFAULT_START_TIMEOUT,
    DEFAULT_TIMEOUT,
    OnRunFailed,
    OnRunning,
)
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW, DEFAULT_UNREACHABLE_TIMEOUT
from airflow_provider_quickbi._wait.subject import DatasetSubject
from airflow_provider_quickbi.operators.starting import StartOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_quickbi._options import Arguments
    from airflow_provider_quickbi._wait.subject import Subject


class QuickBIRefreshDatasetOperator(StartOperator):
    """Refresh a Quick BI dataset (extract it into the Quick engine) now, at most once, and wait until that is finished.

    The latest JobHistoryId and the time are recorded before the single start call, see ``QuickBIRunMailTaskOperator``:
    after a crash, retry or lost response, the operator looks for that refresh and never starts a second one. Triggers
    never start a refresh. Clearing a finished task refreshes the dataset again.

    The outcome is that of ``QuickBIDatasetRefreshSensor``: success with the refresh as XCom ``{dataset_id, job_id,
    status, started_at, ended_at}``; ``QuickBIDatasetRefreshFailed`` if it is ``FAILURE`` or ``CANCELED``, with the end
    of its log where Quick BI gives it; ``QuickBIRunMissed`` if a later refresh hides it, because Quick BI shows only
    the latest; ``AirflowSensorTimeout`` if it was not finished in time, which is never retried;
    ``QuickBIRequestError`` if Quick BI refuses, for example after a refresh that failed (``Last.Job.Failed``);
    ``QuickBIConnectionError`` if its date proves a wrong ``timezone``. ``QuickBIUnavailable`` and
    ``QuickBIStartUnknown`` are retried; the retry looks for the refresh before it starts one.

    Sources: operations ``AllotDatasetAccelerationTask``, ``QueryLastAccelerationEngineJob``,
    ``QueryAccelerationLogByCubeId`` and ``QueryDatasetList`` of product ``quickbi-public``, version ``2022-01-01``.

    :param dataset_id: the dataset (``CubeId``). (templated)
    :param dataset_name: instead of ``dataset_id``: its exact name, with ``workspace_id``. (templated)
    :param workspace_id: the workspace in which the name is looked up. (templated)
    :param wait_for_completion: whether to wait until the refresh is finished (default), or only until it is seen.
    :param deferrable: whether to wait in the triggerer; default ``[operators] default_deferrable``.
    :param poll_interval: seconds or timedelta between two polls; default 30 seconds. (templated)
    :param on_running: if a refresh is already active: ``wait`` (default) until it is finished and then start,
        ``attach`` to it without a start, ``skip`` the task, or ``fail``. (templated)
    :param on_failed: ``fail`` (default): a refresh that failed is final; ``retry``: Airflow's ``retries`` start again.
        Quick BI may refuse a start after one that failed. (templated)
    :param start_timeout: seconds or timedelta within which a started refresh must be seen; default 5 minutes.
        (templated)
    :param timeout: seconds or timedelta that one try may take in total; default 3 hours. (templated)
    :param unreachable_timeout: maximum continuous outage, in seconds or as timedelta; default 30 minutes. (templated)
    :param clock_skew: seconds by which Quick BI's clock may differ from this machine's; default 60. (templated)
    :param deadline: when the data is late, see ``QuickBIMailTaskSensor``. The task keeps waiting. (templated)
    :param on_late_callback: called once with the context if the data is late: a callable, a notifier, or a list.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    """

    template_fields: Sequence[str] = (
        "dataset_id",
        "dataset_name",
        "workspace_id",
        "poll_interval",
        "on_running",
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
        dataset_id: str | None = None,
        dataset_name: str | None = None,
        workspace_id: str | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta | str = DEFAULT_POLL_INTERVAL,
        on_running: str = OnRunning.WAIT.value,
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
        self.dataset_id = dataset_id
        self.dataset_name = dataset_name
        self.workspace_id = workspace_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.on_running = on_running
        self.on_failed = on_failed
        self.start_timeout = start_timeout
        self.timeout = timeout
        self.unreachable_timeout = unreachable_timeout
        self.clock_skew = clock_skew
        self.deadline = deadline
        self.on_late_callback = on_late_callback
        self.quickbi_conn_id = quickbi_conn_id
        self._check_arguments(
            kwargs.get("default_args"),
            [
                (("dataset_id",), ("dataset_name",)),
                (("dataset_id",), ("workspace_id",)),
                (("dataset_name", "workspace_id"), ("dataset_id",)),
            ],
            ("dataset_id", "dataset_name"),
        )

    def _read_subject(self, arguments: Arguments) -> Subject:
        read = partial(arguments.read, parse=_options.text, unknown=None)
        dataset_id, name, workspace_id = read("dataset_id"), read("dataset_name"), read("workspace_id")
        if arguments.given("dataset_id") and arguments.given("workspace_id"):
            raise OptionError("workspace_id is only for looking up dataset_name: omit it with dataset_id")
        if self.dataset_name is not None and not arguments.given("workspace_id"):
            raise OptionError("dataset_name is unique only in a workspace: set workspace_id")
        if dataset_id is None and (name is None or workspace_id is None) and not arguments.parsing:
            raise OptionError("both dataset_id and dataset_name rendered empty")
        return DatasetSubject(dataset_id or "", name or "", workspace_id or "")

    def on_kill(self) -> None:
        """Log that a started refresh continues."""
        self.log.warning("Task stopped; a started refresh continues.")
