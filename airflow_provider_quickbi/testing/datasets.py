"""Datasets, and the operations on them: parameters in, the documented ``Result`` out."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.mails import read_number, write_page
from airflow_provider_quickbi.testing.runs import Run, RunStore, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOG_ZONE = timezone(timedelta(hours=8))
_FINISHED = ("SUCCESS", "FAILURE", "CANCELED")
#: The codes of the service's statuses in logs; ``TODO`` is its name for a refresh that is queued.
_LOG_STATUS = {"TODO": "0", "RUNNING": "1", "SUCCESS": "2", "FAILURE": "3", "CANCELED": "4"}


class DatasetStore(RunStore):
    """The datasets ("cubes") of an organisation; a run is a refresh, its id the ``JobHistoryId``."""

    kind: ClassVar = "dataset"
    running_status: ClassVar = "RUNNING"
    success_status: ClassVar = "SUCCESS"
    already_running: ClassVar = "Repeat.Running.Job"

    failure_log: str = "the source table does not exist"
    """What QueryAccelerationLogByCubeId says of a refresh that failed."""

    def add(self, name: str, *, dataset_id: str | None = None, workspace_id: str = "workspace") -> str:
        """Add a dataset that is extracted into the Quick engine.

        :param name: its ``DatasetName``; names need not be unique.
        :param dataset_id: its ``DatasetId``; default a new UUID.
        :param workspace_id: its ``WorkspaceId``.
        :returns: its ``DatasetId``.
        :raises ValueError: there is a dataset with this id already.
        """
        return self._add(dataset_id, name, workspace_id=workspace_id)

    def _describe(self, run: Run, now: float) -> dict[str, Any]:
        status = run.status_at(now)
        return {
            "job_id": str(run.run_id),
            "status": status,
            "started_at": self.local_time(run.started_at).isoformat(),
            "ended_at": self._changed_at(run).isoformat() if status in _FINISHED else None,
        }

    def _changed_at(self, run: Run) -> datetime:
        return self.local_time(run.ends_at if run.ends_at <= self.clock.time() else run.started_at)

    # Operations

    def _required_dataset(self, params: Mapping[str, str]) -> Subject:
        return self._get(params.get("CubeId", ""), refusal="Cube.Not.Exist")

    def allot_dataset_acceleration_task(self, params: Mapping[str, str]) -> bool:
        """Carry out AllotDatasetAccelerationTask: start a refresh; the result is only true."""
        self.start_run(self._required_dataset(params))
        return True

    def query_last_acceleration_engine_job(self, params: Mapping[str, str]) -> dict[str, Any]:
        """Carry out QueryLastAccelerationEngineJob: the latest refresh; an empty object if there is none."""
        for run in self.latest_runs(self._required_dataset(params)):
            status = run.status_at(self.clock.time())
            return {
                "JobHistoryId": str(run.run_id),
                "Status": "SUCCESS " if status == "SUCCESS" else status,  # the documentation's sample has a blank
                "GmtCreate": self.local_time(run.started_at).replace(tzinfo=None).isoformat(" "),
                "GmtModified": self._changed_at(run).replace(tzinfo=None).isoformat(" "),
            }
        return {}

    def query_acceleration_log_by_cube_id(self, params: Mapping[str, str]) -> dict[str, Any]:
        """Carry out QueryAccelerationLogByCubeId: the logs of the refreshes that started within a time span."""
        dataset = self._required_dataset(params)
        try:
            dates = (datetime.fromisoformat(params.get(name, "")) for name in ("StartDate", "EndDate"))
            first, last = (date.replace(tzinfo=_LOG_ZONE) for date in dates)
        except ValueError:
            raise Refusal("Invalid.Parameter", "StartDate and EndDate must be like 2026-07-01 08:00:00.") from None
        logs = []
        for run in self.latest_runs(dataset, None):
            started, status = self.local_time(run.started_at), run.status_at(self.clock.time())
            if first <= started <= last:
                logs.append(
                    {
                        "JobId": dataset.id,
                        "JobHistoryId": str(run.run_id),
                        "JobStatus": _LOG_STATUS.get(status, "5"),
                        "JonStartDate": started.astimezone(_LOG_ZONE).strftime("%Y/%m/%d %H:%M:%S"),
                        "Duration": int((self._changed_at(run) - started).total_seconds()),
                        "Log": self.failure_log if status == "FAILURE" else status.lower(),
                    }
                )
        return write_page(logs, read_number(params, "PageNo", 1), read_number(params, "PageSize", 10))

    def query_dataset_list(self, params: Mapping[str, str]) -> dict[str, Any]:
        """Carry out QueryDatasetList: one page of a workspace's datasets."""
        keyword, workspace_id = params.get("Keyword", ""), params.get("WorkspaceId", "")
        if not workspace_id:
            raise Refusal("Invalid.Parameter", "The parameter WorkspaceId is required.")
        found = [
            {
                "DatasetId": dataset.id,
                "DatasetName": dataset.name,
                "WorkspaceId": workspace_id,
                "OpenOfflineAcceleration": True,
            }
            for dataset in self._all()
            if dataset.details["workspace_id"] == workspace_id and keyword in dataset.name
        ]
        return write_page(found, read_number(params, "PageNum", 1), read_number(params, "PageSize", 10))
