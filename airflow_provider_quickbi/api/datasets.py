"""Datasets, their refreshes (extractions into the Quick engine) and the logs of these, read from the service's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from datetime import timezone as fixed_offset
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_quickbi.api.models import (
    Run,
    fold_keys,
    printable,
    read_flag,
    read_optional_text,
    read_text,
    read_time,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The zone of the times in acceleration logs, as documented.
LOG_ZONE = fixed_offset(timedelta(hours=8))
#: Longest log text that is kept, in characters; its end says why a refresh failed.
MAX_LOG_CHARACTERS = 4000


#: How the kind of a dataset is stored, and written in asset URIs.
DATASET = "dataset"


class RefreshStatus(StrEnum):
    """The documented statuses of a refresh; any other one means that it has not finished."""

    TODO = "TODO"  # the service's name for a refresh that is queued
    CHECK_DEPENDENCY = "CHECK_DEPENDENCY"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELED = "CANCELED"


#: The statuses of a refresh that has finished; the one definition.
TERMINAL_REFRESH_STATUSES = frozenset({RefreshStatus.SUCCESS, RefreshStatus.FAILURE, RefreshStatus.CANCELED})


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset ("cube") as ``QueryDatasetList`` describes it.

    :param dataset_id: its id (``DatasetId``, elsewhere ``CubeId``).
    :param dataset_name: its name; names need not be unique; empty if the service did not say.
    :param workspace_id: the workspace that it belongs to; empty if the service did not say.
    :param acceleration_enabled: whether extraction is enabled (``OpenOfflineAcceleration``); ``None`` if the service
        did not say.
    """

    dataset_id: str
    dataset_name: str
    workspace_id: str = ""
    acceleration_enabled: bool | None = None

    @classmethod
    def from_json(cls, item: Any) -> Dataset:
        """Read one element of ``Result.Data``.

        :raises MalformedResponse: if ``DatasetId`` is missing or of another type.
        """
        what = "a dataset"
        folded = fold_keys(item, what)
        unsaid = folded.get("openofflineacceleration") is None
        return cls(
            dataset_id=read_text(folded, "DatasetId", what),
            dataset_name=read_optional_text(folded, "DatasetName"),
            workspace_id=read_optional_text(folded, "WorkspaceId"),
            acceleration_enabled=None if unsaid else read_flag(folded, "OpenOfflineAcceleration", what),
        )


@dataclass(frozen=True, slots=True)
class DatasetRefreshJob(Run):
    """One refresh of a dataset as ``QueryLastAccelerationEngineJob`` describes it.

    :param dataset_id: the dataset that is refreshed.
    :param job_id: the refresh's id (``JobHistoryId``).
    :param status: upper-case status; see :class:`RefreshStatus` for the documented ones.
    :param started_at: when it started, in whole seconds, with its offset.
    :param ended_at: when it finished; ``None`` before that, or if the service did not say.
    """

    dataset_id: str
    job_id: str
    status: str
    started_at: datetime
    ended_at: datetime | None = None

    DOCUMENTED: ClassVar = frozenset(RefreshStatus)
    TERMINAL: ClassVar = TERMINAL_REFRESH_STATUSES
    SUCCESS: ClassVar = RefreshStatus.SUCCESS

    @classmethod
    def from_json(cls, item: Any, *, dataset_id: str, timezone: tzinfo) -> DatasetRefreshJob:
        """Read ``Result``, which does not repeat the dataset.

        :param dataset_id: the requested dataset.
        :param timezone: the zone in which the service writes times.
        :raises MalformedResponse: if ``JobHistoryId``, ``Status`` or ``GmtCreate`` is missing or cannot be read, or
            ``GmtModified`` cannot be read.
        """
        what = "a refresh of a dataset"
        folded = fold_keys(item, what)
        status = read_text(folded, "Status", what).upper()
        ended = status in TERMINAL_REFRESH_STATUSES and bool(read_optional_text(folded, "GmtModified"))
        return cls(
            dataset_id=dataset_id,
            job_id=read_text(folded, "JobHistoryId", what),
            status=status,
            started_at=read_time(folded, "GmtCreate", what, timezone=timezone),
            ended_at=read_time(folded, "GmtModified", what, timezone=timezone) if ended else None,
        )

    @property
    def subject_id(self) -> str:
        """The dataset's id."""
        return self.dataset_id

    @property
    def run_id(self) -> str:
        """The JobHistoryId."""
        return self.job_id

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON for an XCom, an event or an asset extra; times are ISO 8601 with their offset."""
        return {
            "dataset_id": self.dataset_id,
            "job_id": self.job_id,
            "status": self.status,
            "started_at": self.started_at.isoformat(),
            "ended_at": self.ended_at and self.ended_at.isoformat(),
        }

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> DatasetRefreshJob:
        """Read back what :meth:`as_dict` wrote."""
        ended_at = item["ended_at"]
        return cls(
            dataset_id=item["dataset_id"],
            job_id=item["job_id"],
            status=item["status"],
            started_at=datetime.fromisoformat(item["started_at"]),
            ended_at=None if ended_at is None else datetime.fromisoformat(ended_at),
        )


@dataclass(frozen=True, slots=True)
class RefreshLog:
    """The log of one refresh as ``QueryAccelerationLogByCubeId`` describes it.

    :param job_id: the refresh's id (``JobHistoryId``).
    :param status: the code of its status: ``0`` pending, ``1`` running, ``2`` succeeded, ``3`` failed, ``4``
        cancelled, ``5`` warning; empty if the service did not say.
    :param log: the end of its text, at most :data:`MAX_LOG_CHARACTERS` characters; empty if there is none.
    """

    job_id: str
    status: str
    log: str

    @classmethod
    def from_json(cls, item: Any) -> RefreshLog:
        """Read one element of ``Result.Data``.

        :raises MalformedResponse: if ``JobHistoryId`` is missing or of another type.
        """
        what = "a log of a refresh"
        folded = fold_keys(item, what)
        text = folded.get("log")
        lines = text.strip()[-MAX_LOG_CHARACTERS:].splitlines() if isinstance(text, str) else []
        return cls(
            job_id=read_text(folded, "JobHistoryId", what),
            status=read_optional_text(folded, "JobStatus"),
            log="\n".join(printable(line) for line in lines),
        )
