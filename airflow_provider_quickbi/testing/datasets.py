"""Datasets, and the operations on them: parameters in, the documented ``Result`` out."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.mails import change_rules
from airflow_provider_quickbi.testing.parameters import read_number, write_page
from airflow_provider_quickbi.testing.runs import Run, Subject
from airflow_provider_quickbi.testing.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_quickbi.testing.shapes import Shapes

_LOG_ZONE = timezone(timedelta(hours=8))
_FINISHED = ("SUCCESS", "FAILURE", "CANCELED")
#: Status to its code in logs.
_LOG_STATUS = {"TODO": "0", "RUNNING": "1", "SUCCESS": "2", "FAILURE": "3", "CANCELED": "4"}


@dataclass(slots=True, kw_only=True)
class Dataset(Subject):
    """A dataset ("cube")."""

    workspace_id: str
    accelerated: bool


class DatasetStore(RunStore[Dataset]):
    """The datasets of an organisation; a run is a refresh, its id the ``JobHistoryId``."""

    kind: ClassVar = "dataset"
    running_status: ClassVar = "RUNNING"
    success_status: ClassVar = "SUCCESS"
    failure_status: ClassVar = "FAILURE"
    already_running: ClassVar = "Repeat.Running.Job"
    failure_log: str = "the source table does not exist"
    """What QueryAccelerationLogByCubeId says of a refresh that failed."""

    def add(
        self,
        name: str,
        *,
        dataset_id: str | None = None,
        workspace_id: str = "workspace",
        accelerated: bool = True,
        run_duration: float | None = None,
    ) -> str:
        """Add a dataset.

        :param name: its ``DatasetName``; names need not be unique.
        :param dataset_id: its ``DatasetId``; default a new UUID.
        :param workspace_id: its ``WorkspaceId``.
        :param accelerated: whether it is extracted into the Quick engine; only then can it be refreshed.
        :param run_duration: as ``duration`` of :meth:`set_start`.
        :returns: its ``DatasetId``.
        :raises ValueError: there is a dataset with this id already.
        """
        dataset_id = dataset_id or str(uuid.uuid4())
        rules = self._new_rules()
        self._add(Dataset(id=dataset_id, name=name, rules=rules, workspace_id=workspace_id, accelerated=accelerated))
        self.set_start(dataset_id, duration=run_duration)
        return dataset_id

    def remove(self, dataset_id: str) -> None:
        """Remove a dataset with its refreshes and schedules."""
        self._remove(dataset_id)

    def runs(self, subject_id: str) -> list[dict[str, Any]]:
        """Return the refreshes of a dataset, the oldest first, including those that have not appeared yet.

        :param subject_id: of which dataset.
        :returns: for each ``job_id``, ``status``, ``started_at``, ``ended_at`` (``None`` before) and ``origin``.
        :raises KeyError: there is no such dataset.
        """
        now = self.clock.time()
        return [
            {
                "job_id": str(run.run_id),
                "status": run.status_at(now),
                "started_at": self.exec_time(run).isoformat(),
                "ended_at": self.changed_at(run).isoformat() if run.status_at(now) in _FINISHED else None,
                "origin": run.origin,
            }
            for run in self.get(subject_id).runs
        ]

    def changed_at(self, run: Run) -> datetime:
        """Return when the status of a refresh changed last."""
        changed = run.ends_at if run.ends_at <= self.clock.time() else run.started_at
        return datetime.fromtimestamp(math.floor(changed), self.zone)

    def set_start(
        self,
        dataset_id: str,
        *,
        duration: float | None = None,
        appears_after: float | None = None,
        outcome: str | Sequence[str] | None = None,
        refuse_while_running: bool | None = None,
        refuse_after_failure: bool | None = None,
    ) -> None:
        """Decide how the refreshes that AllotDatasetAccelerationTask starts go; what is not given stays as it is.

        :param dataset_id: of which dataset.
        :param duration: seconds that a refresh runs once it appeared.
        :param appears_after: seconds until its JobHistoryId appears.
        :param outcome: the status a refresh ends with; a sequence gives one to each in turn, the last one stays.
        :param refuse_while_running: whether a start is refused while a refresh is running; default it is.
        :param refuse_after_failure: whether a start is refused with ``Last.Job.Failed`` after a failed refresh, as the
            documentation reads literally; default it is not.
        """
        dataset = self.get(dataset_id)
        change_rules(dataset, duration, appears_after, outcome, refuse_while_running)
        if refuse_after_failure is not None:
            dataset.rules.refuse_after_failure = refuse_after_failure

    def refuse_start(self, dataset_id: str, code: str, *, times: int | None = 1) -> None:
        """Refuse starts with a code; ``times=None`` for every one from now on."""
        self.get(dataset_id).rules.refusals.append((code, math.inf if times is None else times))

    def _check_start(self, subject: Dataset, now: float) -> None:
        if not subject.accelerated:
            raise Refusal("Quick.Job.NotExist")
        super()._check_start(subject, now)
        if subject.rules.refuse_after_failure and any(
            run.status_at(now) == self.failure_status for run in self.latest_runs(subject)
        ):
            raise Refusal("Last.Job.Failed")


def _required_dataset(params: Mapping[str, str], datasets: DatasetStore) -> Dataset:
    dataset = datasets.find(params.get("CubeId", ""))
    if dataset is None:
        raise Refusal("Cube.Not.Exist")
    return dataset


def allot_dataset_acceleration_task(params: Mapping[str, str], datasets: DatasetStore, _shapes: Shapes) -> bool:
    """Carry out AllotDatasetAccelerationTask: start a refresh; the result is only true."""
    datasets.start_run(_required_dataset(params, datasets))
    return True


def query_last_acceleration_engine_job(
    params: Mapping[str, str], datasets: DatasetStore, _shapes: Shapes
) -> dict[str, object]:
    """Carry out QueryLastAccelerationEngineJob: the latest refresh; an empty object if there is none."""
    for run in datasets.latest_runs(_required_dataset(params, datasets)):
        status = run.status_at(datasets.clock.time())
        return {
            "JobHistoryId": str(run.run_id),
            "Status": f"{status} "
            if status == datasets.success_status
            else status,  # the documentation's sample has a blank
            "GmtCreate": datasets.exec_time(run).replace(tzinfo=None).isoformat(" "),
            "GmtModified": datasets.changed_at(run).replace(tzinfo=None).isoformat(" "),
        }
    return {}


def query_acceleration_log_by_cube_id(
    params: Mapping[str, str], datasets: DatasetStore, _shapes: Shapes
) -> dict[str, object]:
    """Carry out QueryAccelerationLogByCubeId: the logs of the refreshes that started within a time span."""
    dataset = _required_dataset(params, datasets)
    try:
        first, last = (
            datetime.fromisoformat(params[name]).replace(tzinfo=_LOG_ZONE) for name in ("StartDate", "EndDate")
        )
    except (KeyError, ValueError):
        raise Refusal("Invalid.Parameter", "StartDate and EndDate must be times such as 2026-07-01 08:00:00.") from None
    logs = []
    for run in datasets.latest_runs(dataset, len(dataset.runs)):
        started = datetime.fromtimestamp(math.floor(run.started_at), UTC).astimezone(_LOG_ZONE)
        if first <= started <= last:
            status = run.status_at(datasets.clock.time())
            logs.append(
                {
                    "JobId": dataset.id,
                    "JobHistoryId": str(run.run_id),
                    "JobStatus": _LOG_STATUS.get(status, "5"),
                    "JonStartDate": started.strftime("%Y/%m/%d %H:%M:%S"),
                    "Duration": int((datasets.changed_at(run) - started).total_seconds()),
                    "Log": datasets.failure_log if status == datasets.failure_status else status.lower(),
                }
            )
    return write_page(logs, read_number(params, "PageNo", 1), read_number(params, "PageSize", 10))


def query_dataset_list(params: Mapping[str, str], datasets: DatasetStore, _shapes: Shapes) -> dict[str, object]:
    """Carry out QueryDatasetList: one page of a workspace's datasets."""
    keyword, workspace_id = params.get("Keyword", ""), params.get("WorkspaceId", "")
    if not workspace_id:
        raise Refusal("Invalid.Parameter", "The parameter WorkspaceId is required.")
    found = [
        {
            "DatasetId": dataset.id,
            "DatasetName": dataset.name,
            "WorkspaceId": dataset.workspace_id,
            "OpenOfflineAcceleration": dataset.accelerated,
        }
        for dataset in datasets.all()
        if dataset.workspace_id == workspace_id and keyword in dataset.name
    ]
    return write_page(found, read_number(params, "PageNum", 1), read_number(params, "PageSize", 10))


DATASET_OPERATIONS = {
    "AllotDatasetAccelerationTask": allot_dataset_acceleration_task,
    "QueryAccelerationLogByCubeId": query_acceleration_log_by_cube_id,
    "QueryDatasetList": query_dataset_list,
    "QueryLastAccelerationEngineJob": query_last_acceleration_engine_job,
}
