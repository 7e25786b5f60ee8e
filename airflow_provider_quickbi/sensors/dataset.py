"""The sensor for a dataset's refresh; import it from ``airflow_provider_quickbi.sensors.quickbi``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_quickbi import connection
from airflow_provider_quickbi._wait.options import WINDOW_OVERRIDES
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW, DEFAULT_UNREACHABLE_TIMEOUT, OnFailed, OnMissed
from airflow_provider_quickbi._wait.subject import DatasetSubject
from airflow_provider_quickbi._wait.window import Window
from airflow_provider_quickbi.sensors.waiting import RunSensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from airflow.providers.common.compat.sdk import Context


class QuickBIDatasetRefreshSensor(RunSensor):
    """Wait until a refresh of a Quick BI dataset (an extraction into the Quick engine) is ``SUCCESS``.

    Quick BI shows only the latest refresh of a dataset. How the sensor selects one: ``executed_after`` and
    ``executed_before`` bound when it must start; otherwise ``window`` derives these bounds from when this DAG run was
    due. Once a matching refresh has been seen, it is monitored; a later one that matches as well takes its place,
    because it hides the earlier one and its data is newer.

    The outcomes and Airflow's own arguments of a sensor are those of ``QuickBIMailTaskSensor``, in all modes alike:
    success with the refresh as XCom ``{dataset_id, job_id, status, started_at, ended_at}``;
    ``QuickBIDatasetRefreshFailed`` if it is ``FAILURE`` or ``CANCELED``, with the end of its log where Quick BI gives
    it; ``QuickBIRunMissed`` if the latest refresh started after the window.

    Source: operation ``QueryLastAccelerationEngineJob`` of product ``quickbi-public``, version ``2022-01-01``.

    :param dataset_id: the dataset (``CubeId``). (templated)
    :param executed_after: the refresh must start at or after this datetime or ISO 8601 text; without a zone it is in
        Airflow's ``[core] default_timezone``. (templated)
    :param executed_before: it must start before this; like ``executed_after``. (templated)
    :param window: used where neither is given: ``auto`` (default), ``day``, ``schedule`` or ``latest``, see
        ``QuickBIMailTaskSensor``. (templated)
    :param on_failed: ``fail`` (default), or ``wait`` to wait for a later refresh in the window. (templated)
    :param on_missed: ``fail`` (default) or ``skip`` if the refresh can no longer be seen. (templated)
    :param start_timeout: seconds or timedelta within which a matching refresh must be seen, counted from
        ``executed_after`` where that is later than the start of the wait; ``None`` (default) for no limit. (templated)
    :param unreachable_timeout: maximum continuous outage, in seconds or as timedelta; default 30 minutes. (templated)
    :param clock_skew: seconds by which Quick BI's clock may differ from this machine's; default 60. (templated)
    :param deadline: when the data is late, see ``QuickBIMailTaskSensor``. The task keeps waiting. (templated)
    :param on_late_callback: called once with the context if the data is late: a callable, a notifier, or a list.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    :param deferrable: whether to wait in the triggerer; default ``[operators] default_deferrable``.
    :param start_in_triggerer: whether a deferrable task starts in the triggerer if it needs no worker; default
        ``True``. Airflow 3.3 and later.
    :param end_in_triggerer: whether a deferred task whose run has succeeded finishes in the triggerer, without starting
        another worker, where none is needed; default ``True``. Airflow 3.3 and later.
    :param poke_interval: seconds or timedelta between two polls; default 30 seconds.
    """

    subject_kind = DatasetSubject.kind
    template_fields: Sequence[str] = (
        "dataset_id",
        "executed_after",
        "executed_before",
        "window",
        "on_failed",
        "on_missed",
        "start_timeout",
        "unreachable_timeout",
        "clock_skew",
        "deadline",
        "quickbi_conn_id",
    )

    def __init__(
        self,
        *,
        dataset_id: str,
        executed_after: datetime | str | None = None,
        executed_before: datetime | str | None = None,
        window: str = Window.AUTO.value,
        on_failed: str = OnFailed.FAIL.value,
        on_missed: str = OnMissed.FAIL.value,
        start_timeout: float | timedelta | str | None = None,
        unreachable_timeout: float | timedelta | str = DEFAULT_UNREACHABLE_TIMEOUT,
        clock_skew: float | timedelta | str = DEFAULT_CLOCK_SKEW,
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
        self.dataset_id = dataset_id
        self.executed_after = executed_after
        self.executed_before = executed_before
        self.window = window
        self.on_failed = on_failed
        self.on_missed = on_missed
        self.start_timeout = start_timeout
        self.unreachable_timeout = unreachable_timeout
        self.clock_skew = clock_skew
        self.deadline = deadline
        self.on_late_callback = on_late_callback
        self.quickbi_conn_id = quickbi_conn_id
        self.deferrable = deferrable
        self.start_in_triggerer = start_in_triggerer
        self.end_in_triggerer = end_in_triggerer
        self._prepare(kwargs.get("default_args"), WINDOW_OVERRIDES)

    def on_kill(self) -> None:
        """Log that a refresh in progress continues."""
        self.log.info("Wait cancelled; a refresh in progress continues.")
