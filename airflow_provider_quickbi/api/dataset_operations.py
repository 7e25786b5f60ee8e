"""The operations on datasets: start a refresh, read the latest one and its log, and list datasets.

Source: product ``quickbi-public``, version ``2022-01-01``: AllotDatasetAccelerationTask,
QueryLastAccelerationEngineJob, QueryAccelerationLogByCubeId, QueryDatasetList.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi.api.datasets import LOG_ZONE, Dataset, DatasetRefreshJob, RefreshLog
from airflow_provider_quickbi.api.operations import Operation, read_page, read_started

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from airflow_provider_quickbi.api.paging import Page

#: Datasets per page by default; the service's maximum is 1,000.
DEFAULT_DATASET_PAGE_SIZE = 100
#: How far the start of a refresh may differ from what its log says.
_AROUND_START = timedelta(hours=1)
#: Logs per page by default, as the service documents it.
DEFAULT_LOG_PAGE_SIZE = 10


def allot_dataset_acceleration_task(dataset_id: str) -> Operation[bool]:
    """Return the operation that starts a refresh. It is never repeated: the service has no idempotency key."""
    action = "AllotDatasetAccelerationTask"
    return Operation(action, {"CubeId": dataset_id}, lambda result: read_started(result, action), repeatable=False)


def query_last_acceleration_engine_job(dataset_id: str, timezone: tzinfo) -> Operation[tuple[DatasetRefreshJob, ...]]:
    """Return the operation that reads the latest refresh; its result is empty if there is none.

    :param timezone: the zone in which the service writes times.
    """

    def read(result: Any) -> tuple[DatasetRefreshJob, ...]:
        if not result and not isinstance(result, (bool, int, str)):  # not documented for a dataset without a refresh
            return ()
        return (DatasetRefreshJob.from_json(result, dataset_id=dataset_id, timezone=timezone),)

    return Operation("QueryLastAccelerationEngineJob", {"CubeId": dataset_id}, read)


@dataclass(frozen=True, slots=True)
class RefreshQuery:
    """What a ``QueryLastAccelerationEngineJob`` request queries: the latest refresh; others cannot be queried.

    :param dataset_id: the dataset.
    """

    dataset_id: str

    def operation(self, timezone: tzinfo) -> Operation[tuple[DatasetRefreshJob, ...]]:
        """Return the operation, see :func:`query_last_acceleration_engine_job`."""
        return query_last_acceleration_engine_job(self.dataset_id, timezone)


def query_acceleration_log_by_cube_id(
    dataset_id: str,
    started_from: datetime,
    started_to: datetime,
    page_no: int = 1,
    page_size: int = DEFAULT_LOG_PAGE_SIZE,
) -> Operation[Page[RefreshLog]]:
    """Return the operation that reads one page of the logs of a dataset's refreshes.

    :param started_from: start of the time span.
    :param started_to: end of the time span.
    :param page_no: from 1; default 1.
    :param page_size: logs per page; default 10.
    """
    return Operation(
        "QueryAccelerationLogByCubeId",
        {
            "CubeId": dataset_id,
            "StartDate": _written(started_from),
            "EndDate": _written(started_to),
            "PageNo": page_no,
            "PageSize": page_size,
        },
        lambda result: read_page(result, RefreshLog.from_json, "the list of refresh logs", page_no, page_size),
    )


def read_refresh_log(dataset_id: str, job_id: str, started_at: datetime) -> Operation[str]:
    """Return the operation that reads the log of one refresh; its result is empty if there is none.

    :param job_id: the refresh's id (``JobHistoryId``).
    :param started_at: when it started.
    """
    logs = query_acceleration_log_by_cube_id(dataset_id, started_at - _AROUND_START, started_at + _AROUND_START)

    def read(result: Any) -> str:
        return next((found.log for found in logs.read(result).items if found.job_id == job_id), "")

    return Operation(logs.action, logs.parameters, read)


def query_dataset_list(
    workspace_id: str, keyword: str | None = None, page_num: int = 1, page_size: int = DEFAULT_DATASET_PAGE_SIZE
) -> Operation[Page[Dataset]]:
    """Return the operation that reads one page of a workspace's datasets.

    :param keyword: only datasets whose names contain it.
    :param page_num: from 1; default 1.
    :param page_size: datasets per page, at most 1,000; default 100.
    """
    return Operation(
        "QueryDatasetList",
        {"WorkspaceId": workspace_id, "Keyword": keyword or None, "PageNum": page_num, "PageSize": page_size},
        lambda result: read_page(result, Dataset.from_json, "the list of datasets", page_num, page_size),
    )


def _written(time: datetime) -> str:
    return time.astimezone(LOG_ZONE).strftime("%Y-%m-%d %H:%M:%S")
