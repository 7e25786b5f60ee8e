"""A local Quick BI seen as one of datasets: what a test says of a mail task and its runs happens to a dataset.

So one test proves what holds for both. A dataset is a mail task in the simulator's store, and its refreshes are runs;
the operations on datasets are answered as Quick BI documents them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_quickbi.testing import LocalQuickBI
from airflow_provider_quickbi.testing.errors import Refusal

#: Marks a test of what holds for mails and for refreshes.
both = pytest.mark.parametrize("kind", ["mail", "dataset"], indirect=True)

ACTIONS = {"ManualRunMailTask": "AllotDatasetAccelerationTask", "GetMailTaskStatus": "QueryLastAccelerationEngineJob"}
#: The documentation's own sample has the blank.
STATUSES = {"SENT": "SUCCESS ", "FAILED": "FAILURE", "PROCESSING": "RUNNING"}
CODES = {"MailTask.Already.Running": "Repeat.Running.Job", "Mail.Not.Found": "Cube.Not.Exist"}
LOG = "java.sql.SQLException: Access denied\n  for the reader of the source"
WORKSPACE = "workspace-1"


def job_id(task_id: Any) -> str:
    """Return the JobHistoryId that stands for a run."""
    return f"{int(task_id):032x}"


class Datasets:
    """Translates what a test says of mail tasks; everything else is the simulator's own.

    :param quickbi: the simulator.
    """

    def __init__(self, quickbi: LocalQuickBI) -> None:
        self._quickbi = quickbi
        self._logs = 0
        self._register()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._quickbi, name)

    def _register(self) -> None:
        self._quickbi.register("AllotDatasetAccelerationTask", self._start)
        self._quickbi.register("QueryLastAccelerationEngineJob", self._latest)
        self._quickbi.register("QueryAccelerationLogByCubeId", self._logs_of)
        self._quickbi.register("QueryDatasetList", self._list)

    def reset(self) -> None:
        self._quickbi.reset()
        self._register()

    # What a test says

    def fail(
        self, action: str | None, *faults: Any, times: int | None = 1, mail_id: str | None = None, **options: Any
    ) -> Any:
        translated = ACTIONS.get(action or "", action)
        if mail_id is None:
            return self._quickbi.fail(translated, *faults, times=times, **options)
        in_turn = itertools.cycle(faults)

        def choose(call: Any) -> Any:
            return next(in_turn) if call.params.get("CubeId") == mail_id else None

        return self._quickbi.fail(translated, choose, times=None if times is None else times * len(faults), **options)

    def count(self, action: str | None = None, code: str | None = None) -> int:
        return self._quickbi.count(ACTIONS.get(action or "", action), code)

    def when_called(self, action: str | None, callback: Any, *, nth: int | None = None) -> None:
        self._quickbi.when_called(ACTIONS.get(action or "", action), callback, nth=nth)

    def refuse_manual_start(self, mail_id: str, code: str, *, times: int | None = 1) -> None:
        self._quickbi.refuse_manual_start(mail_id, CODES.get(code, code), times=times)

    def runs(self, mail_id: str) -> list[dict[str, Any]]:
        """Return the refreshes as their XComs show them, with ``task_id`` as their id in the simulator."""
        return [
            {"task_id": str(run.task_id), "origin": run.origin, **self._xcom(run)}
            for run in list(self._quickbi._store.mail(mail_id).runs)
        ]

    def xcom(self, mail_id: str, position: int = -1) -> dict[str, Any]:
        """Return the XCom that the newest refresh, or another one, should give."""
        return self._xcom(self._quickbi._store.mail(mail_id).runs[position])

    def _xcom(self, run: Any) -> dict[str, Any]:
        status = self._status(run).strip()
        finished = status in ("SUCCESS", "FAILURE", "CANCELED")
        started = self._quickbi._store.exec_time(run)
        return {
            "dataset_id": run.mail_id,
            "job_id": job_id(run.task_id),
            "status": status,
            "started_at": started.isoformat(),
            "ended_at": self._ended(run).isoformat() if finished else None,
        }

    def _status(self, run: Any) -> str:
        status = run.status_at(self._quickbi.clock.time())
        return STATUSES.get(status, status)

    def _ended(self, run: Any) -> datetime:
        ends_at = run.ends_at if run.final_status is None and math.isfinite(run.ends_at) else run.started_at
        return datetime.fromtimestamp(math.floor(ends_at), self._quickbi._store.zone)

    # What Quick BI answers

    def _cube(self, params: Mapping[str, str]) -> Any:
        found = self._quickbi._store.find_mail(params.get("CubeId", ""))
        if found is None:
            raise Refusal("Cube.Not.Exist", "The cube does not exist.")
        return found

    def _start(self, params: Mapping[str, str]) -> bool:
        cube = self._cube(params)
        try:
            self._quickbi._store.start_manually(cube)
        except Refusal as refusal:
            raise Refusal(CODES.get(refusal.code, refusal.code), refusal.message) from None
        return True

    def _latest(self, params: Mapping[str, str]) -> dict[str, Any] | None:
        runs = self._quickbi._store.latest_runs(self._cube(params))
        if not runs:
            return None
        (run,) = runs
        zone = self._quickbi._store.zone
        written = "%Y-%m-%d %H:%M:%S"
        return {
            "JobHistoryId": job_id(run.task_id),
            "Status": self._status(run),
            "GmtCreate": datetime.fromtimestamp(math.floor(run.started_at), zone).strftime(written),
            "GmtModified": self._ended(run).strftime(written),
        }

    def _logs_of(self, params: Mapping[str, str]) -> dict[str, Any]:
        span = params["StartDate"], params["EndDate"]
        logs = [
            {"JobId": "1", "JobHistoryId": job_id(run.task_id), "JobStatus": "3", "Log": LOG}
            for run in self._cube(params).runs
            if span[0] <= self._quickbi._store.exec_time(run).strftime("%Y-%m-%d %H:%M:%S") <= span[1]
            and self._status(run) in ("FAILURE", "CANCELED")
        ]
        return {"PageNum": 1, "PageSize": 10, "TotalNum": len(logs), "Data": logs}

    def _list(self, params: Mapping[str, str]) -> dict[str, Any]:
        found = [
            {"DatasetId": cube.mail_id, "DatasetName": cube.subscribe_name, "OpenOfflineAcceleration": not cube.paused}
            for cube in self._quickbi._store.mails()
            if params.get("WorkspaceId") == WORKSPACE and params.get("Keyword", "") in cube.subscribe_name
        ]
        return {"PageNum": 1, "PageSize": 100, "TotalNum": len(found), "Data": found}
