"""What can go wrong with refreshes: whether their operations are allowed, and the zone of their times."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_quickbi._check.refusals import finding_for
from airflow_provider_quickbi._check.report import failed, ok
from airflow_provider_quickbi.api.errors import ErrorKind, QuickBIError
from airflow_provider_quickbi.api.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_quickbi._check.exchange import ObservedClient
    from airflow_provider_quickbi._check.report import Finding

#: Its exchanges are not recorded: the readings that a recording is compared with are those of mail tasks.
ACTIONS = ("QueryLastAccelerationEngineJob", "AllotDatasetAccelerationTask")
#: Seconds by which a refresh may lie in the future without proving another zone.
_TOLERANCE = 120.0


def check_refreshes(client: ObservedClient, dataset_id: str, *, probe_start: bool, now: float) -> Iterator[Finding]:
    """Yield what a dataset's latest refresh shows, and whether a start is allowed.

    :param dataset_id: a dataset that must be visible.
    :param probe_start: whether to request a start of a nonexistent dataset, which starts nothing.
    :param now: seconds since the epoch.
    """
    last, start = ACTIONS
    try:
        jobs = client.query_last_acceleration_engine_job(dataset_id, retries=RetryPolicy(attempts=3))
    except QuickBIError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            yield failed(last, f"the dataset is not visible, Code {error.code}", "Check the dataset id (CubeId)")
        else:
            yield finding_for(error, last, client.exchanges)
    else:
        yield ok(last, f"allowed, the latest refresh is {jobs[0].status}" if jobs else "allowed, never refreshed")
        if jobs and (ahead := jobs[0].started_at.timestamp() - now) > _TOLERANCE:
            yield failed(
                "refresh times",
                f"the latest refresh is {ahead / 3600:.1f} h in the future",
                f"timezone ({client.settings.timezone}) is not the zone of Quick BI's times",
            )
    if probe_start:
        try:
            client.allot_dataset_acceleration_task(uuid4().hex)
        except QuickBIError as error:
            allowed = error.kind is ErrorKind.NOT_FOUND
            seen = f"allowed: a nonexistent dataset returns Code {error.code}"
            yield ok(start, seen) if allowed else finding_for(error, start, client.exchanges)
