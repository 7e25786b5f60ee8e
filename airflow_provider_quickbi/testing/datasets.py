"""Datasets of a local Quick BI: refreshes that start, run and end as its clock passes, and the operations on them.

A refresh goes as a run of a mail task does, so it is kept in a store of its own of the same kind.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.state import FAILED, PROCESSING, SENT, MailStore, MailTask, Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_quickbi.testing.simulator import QuickBISimulator

#: How the store calls what Quick BI calls the status of a refresh.
_STATUSES: Final = {"SUCCESS": SENT, "FAILURE": FAILED, "RUNNING": PROCESSING}
_WRITTEN: Final = {kept: written for written, kept in _STATUSES.items()}
_FINISHED: Final = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
_CODES: Final = {"MailTask.Already.Running": ("Repeat.Running.Job", "The job is already running.")}
_TIME: Final = "%Y-%m-%d %H:%M:%S"


class LocalDatasets:
    """The datasets of a local Quick BI, which answers the operations on them from now on.

    :param quickbi: the local Quick BI; its :meth:`reset` forgets the operations, :meth:`reset` here brings them back.
    """

    def __init__(self, quickbi: QuickBISimulator) -> None:
        self._quickbi = quickbi
        self.log = "Extraction failed: the data source did not answer."
        """What QueryAccelerationLogByCubeId says of a refresh that failed."""
        self.reset()

    def reset(self) -> None:
        """Forget every dataset, and answer the operations on datasets."""
        self._workspaces: dict[str, str] = {}
        self._zone = ZoneInfo(self._quickbi.timezone)
        self._store = MailStore(self._quickbi.clock, self._zone)
        for action, handler in (
            ("AllotDatasetAccelerationTask", self._start),
            ("QueryLastAccelerationEngineJob", self._latest),
            ("QueryAccelerationLogByCubeId", self._logs),
            ("QueryDatasetList", self._list),
        ):
            self._quickbi.register(action, handler)

    def add_dataset(
        self, name: str, *, dataset_id: str | None = None, workspace_id: str = "workspace", extracted: bool = True
    ) -> str:
        """Add a dataset and return its id.

        :param name: its name; names need not be unique.
        :param dataset_id: its id; default a new UUID.
        :param workspace_id: the workspace that it belongs to.
        :param extracted: whether extraction is enabled; if not, no refresh can be started.
        :raises ValueError: there is a dataset with this id already.
        """
        added = self._store.add_mail(name, mail_id=dataset_id, paused=not extracted)
        self._workspaces[added.mail_id] = workspace_id
        return added.mail_id

    def remove_dataset(self, dataset_id: str) -> None:
        """Remove a dataset with its refreshes.

        :raises KeyError: there is no such dataset.
        """
        self._store.remove_mail(dataset_id)
        del self._workspaces[dataset_id]

    def set_refresh(
        self,
        dataset_id: str,
        *,
        duration: float | None = None,
        appears_after: float | None = None,
        outcome: str | Sequence[str] | None = None,
        refuse_while_running: bool | None = None,
    ) -> None:
        """Decide how the refreshes that are started go; what is not given stays as it is.

        :param dataset_id: of which dataset.
        :param duration: seconds that a refresh runs once it appeared; ``math.inf`` until :meth:`finish_refresh`.
        :param appears_after: seconds until it shows up.
        :param outcome: the status it ends with; a sequence gives one to each refresh in turn, the last one stays.
        :param refuse_while_running: whether a start is refused with ``Repeat.Running.Job`` while one runs; default yes.
        :raises KeyError: there is no such dataset.
        """
        given = [outcome] if isinstance(outcome, str) else outcome
        self._store.set_manual_start(
            dataset_id,
            duration=duration,
            appears_after=appears_after,
            outcome=None if given is None else [_STATUSES.get(one, one) for one in given],
            refuse_while_running=refuse_while_running,
        )

    def refuse_refresh(self, dataset_id: str, code: str, *, times: int | None = 1) -> None:
        """Refuse starts with a code such as ``Last.Job.Failed``.

        :param dataset_id: of which dataset.
        :param code: the ``Code`` of the refusal.
        :param times: how many calls to refuse; None for every one from now on.
        :raises KeyError: there is no such dataset.
        """
        self._store.refuse_manual_start(dataset_id, code, times=times)

    def add_refresh(
        self,
        dataset_id: str,
        *,
        started_at: datetime | str | None = None,
        status: str | None = None,
        duration: float | None = None,
        outcome: str = "SUCCESS",
        appears_after: float = 0.0,
    ) -> str:
        """Add a refresh, as if something had started it, and return its JobHistoryId.

        :param dataset_id: of which dataset.
        :param started_at: when it starts: a datetime or an ISO 8601 string; default now.
        :param status: its status; with ``duration``, the one while it runs.
        :param duration: seconds from its appearance until it ends with ``outcome``; default 0.
        :param outcome: its status once the duration is over.
        :param appears_after: seconds from its start until it shows up.
        :raises KeyError: there is no such dataset.
        """
        run = self._store.add_run(
            dataset_id,
            exec_time=started_at,
            status=None if status is None else _STATUSES.get(status, status),
            duration=duration,
            outcome=_STATUSES.get(outcome, outcome),
            appears_after=appears_after,
        )
        return _job_id(run)

    def finish_refresh(self, job_id: str, status: str = "SUCCESS") -> None:
        """Give a refresh a status from now on, whatever its duration says.

        :param job_id: which refresh.
        :param status: ``SUCCESS``, ``FAILURE``, ``CANCELED`` or anything else.
        :raises KeyError: there is no such refresh.
        """
        self._store.finish_run(int(job_id, 16), _STATUSES.get(status, status))

    def refreshes(self, dataset_id: str) -> list[dict[str, str | None]]:
        """Return the refreshes of a dataset, the oldest first, including those that have not appeared yet.

        :param dataset_id: of which dataset.
        :returns: for each ``job_id``, ``status``, ``started_at``, ``ended_at`` (ISO 8601) and ``origin``.
        :raises KeyError: there is no such dataset.
        """
        return [
            {
                "job_id": _job_id(run),
                "status": self._status(run),
                "started_at": self._store.exec_time(run).isoformat(),
                "ended_at": self._ended(run).isoformat() if self._status(run) in _FINISHED else None,
                "origin": run.origin,
            }
            for run in list(self._store.mail(dataset_id).runs)
        ]

    def starts(self, dataset_id: str) -> int:
        """Count the starts of a refresh that were accepted, whether or not the client got to know.

        :raises KeyError: there is no such dataset.
        """
        return self._store.mail(dataset_id).starts

    # Answering

    def _cube(self, params: Mapping[str, str]) -> MailTask:
        found = self._store.find_mail(params.get("CubeId", ""))
        if found is None:
            raise Refusal("Cube.Not.Exist", "The cube does not exist.")
        return found

    def _start(self, params: Mapping[str, str]) -> bool:
        cube = self._cube(params)
        if cube.paused:
            raise Refusal("Quick.Job.NotExist", "The quick engine job does not exist.")
        try:
            self._store.start_manually(cube)
        except Refusal as refusal:
            code, message = _CODES.get(refusal.code, (refusal.code, refusal.message))
            raise Refusal(code, message) from None
        return True

    def _latest(self, params: Mapping[str, str]) -> dict[str, str] | None:
        for run in self._store.latest_runs(self._cube(params)):
            return {
                "JobHistoryId": _job_id(run),
                "Status": f"{self._status(run)} ",  # the blank is documented
                "GmtCreate": self._store.exec_time(run).strftime(_TIME),
                "GmtModified": self._ended(run).strftime(_TIME),
            }
        return None

    def _logs(self, params: Mapping[str, str]) -> dict[str, Any]:
        begin, end = params.get("StartDate", ""), params.get("EndDate", "9")
        logs = [
            {"JobId": "1", "JobHistoryId": _job_id(run), "JobStatus": "3", "Log": self.log}
            for run in self._cube(params).runs
            if begin <= self._store.exec_time(run).strftime(_TIME) <= end
            and self._status(run) in _FINISHED - {"SUCCESS"}
        ]
        return {"PageNum": 1, "PageSize": 10, "TotalNum": len(logs), "Data": logs}

    def _list(self, params: Mapping[str, str]) -> dict[str, Any]:
        found = [
            {
                "DatasetId": cube.mail_id,
                "DatasetName": cube.subscribe_name,
                "WorkspaceId": self._workspaces[cube.mail_id],
                "OpenOfflineAcceleration": not cube.paused,
            }
            for cube in self._store.mails()
            if self._workspaces[cube.mail_id] == params.get("WorkspaceId")
            and params.get("Keyword", "") in cube.subscribe_name
        ]
        size = int(params.get("PageSize") or 10)
        begin = (int(params.get("PageNum") or 1) - 1) * size
        return {
            "PageNum": begin // size + 1,
            "PageSize": size,
            "TotalNum": len(found),
            "Data": found[begin : begin + size],
        }

    def _status(self, run: Run) -> str:
        status = run.status_at(self._quickbi.clock.time())
        return _WRITTEN.get(status, status)

    def _ended(self, run: Run) -> datetime:
        """Return when a refresh ended; one that :meth:`finish_refresh` ended has no duration."""
        ends_at = run.started_at if run.final_status is not None or math.isinf(run.ends_at) else run.ends_at
        return datetime.fromtimestamp(math.floor(ends_at), self._zone)


def _job_id(run: Run) -> str:
    return f"{run.task_id:032x}"
