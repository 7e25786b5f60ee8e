"""What a task starts and waits for: a mail task that runs, or a dataset that is refreshed; pure.

Everything in which the two differ is here: the operations, the form of a run, and the words for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from airflow_provider_quickbi.api.dataset_operations import (
    RefreshQuery,
    allot_dataset_acceleration_task,
    read_refresh_log,
)
from airflow_provider_quickbi.api.datasets import DATASET, DatasetRefreshJob
from airflow_provider_quickbi.api.models import MAIL_TASK, MailTaskRun
from airflow_provider_quickbi.api.operations import StatusQuery, manual_run_mail_task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_quickbi.api.models import Run
    from airflow_provider_quickbi.api.operations import Operation, RunQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How sentences speak of a subject.

    :param subject: what it is.
    :param run: one execution of it.
    :param runs: several.
    :param run_id: what the service calls the id of a run.
    :param started_at: what the service calls the time at which it started.
    :param result: what a person gets of it.
    :param started: what a start starts.
    :param start: the verb for that.
    :param start_past: its participle.
    :param failed: what a failure means, and where to look.
    :param missed: what to set to accept another run.
    """

    subject: str
    run: str
    runs: str
    run_id: str
    started_at: str
    result: str
    started: str
    start: str
    start_past: str
    failed: str
    missed: str


class Finder(Protocol):
    """Looks names up: the hook."""

    def find_mail_task(self, subscribe_name: str, owner: str | None) -> tuple[str, str]:
        """Return MailId and name of the one mail task with a name."""

    def find_dataset(self, dataset_name: str, workspace_id: str) -> tuple[str, str]:
        """Return id and name of the one dataset with a name."""


@dataclass(frozen=True, slots=True)
class Subject(ABC):
    """A mail task or a dataset.

    :param id: its id; empty until its name was looked up.
    :param name: its name; empty if it is not known. It does not distinguish subjects.
    :param scope: in which the name is unique: a mail task's owner, a dataset's workspace; empty if it is not known.
    """

    id: str
    name: str = field(default="", compare=False)
    scope: str = field(default="", compare=False)

    #: How its kind is stored, and written in asset URIs.
    kind: ClassVar[str]
    #: The type of its runs.
    run_type: ClassVar[type[Run]]
    #: Whether a run can be queried after a later one has started.
    shows_earlier_runs: ClassVar[bool]
    #: Key of its name in XComs.
    name_key: ClassVar[str]
    words: ClassVar[Words]

    @property
    def title(self) -> str:
        """What a person knows it by."""
        what = self.words.subject.capitalize()
        if not self.id:
            return f"{what} {self.name!r}"
        return f"{what} {self.id} ({self.name})" if self.name else f"{what} {self.id}"

    @abstractmethod
    def query(self, run_id: str | None) -> RunQuery:
        """Return the query for Quick BI.

        :param run_id: the run that is waited for; ``None`` for the latest one.
        """

    @abstractmethod
    def start(self) -> Operation[bool]:
        """Return the operation that starts a run."""

    def failure_log(self, run: Run) -> Operation[str] | None:  # noqa: ARG002 - what a mail task's runs do not have
        """Return the operation that reads the log of a run that has failed, ``None`` if the service has none."""
        return None

    @abstractmethod
    def find(self, finder: Finder) -> Subject:
        """Look its name up.

        :returns: the subject with its id.
        """

    @abstractmethod
    def no_run(self) -> dict[str, Any]:
        """Return the XCom of a run of which nothing is known."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"kind": self.kind, "id": self.id, "name": self.name, "scope": self.scope}


@dataclass(frozen=True, slots=True)
class MailTaskSubject(Subject):
    """A mail task, which is sent."""

    kind: ClassVar = MAIL_TASK
    run_type: ClassVar = MailTaskRun
    shows_earlier_runs: ClassVar = True
    name_key: ClassVar = "subscribe_name"
    words: ClassVar = Words(
        subject="mail task",
        run="run",
        runs="runs",
        run_id="TaskId",
        started_at="execTime",
        result="report",
        started="mail",
        start="send",
        start_past="sent",
        failed="Quick BI did not send the report. See the subscription's send log in the Quick BI console.",
        missed='To accept the latest run, set window="latest"; to check one run, set quickbi_task_id.',
    )

    def query(self, run_id: str | None) -> RunQuery:
        """Return the query for one run, or for the latest one."""
        return StatusQuery(self.id, run_id)

    def start(self) -> Operation[bool]:
        """Return ``ManualRunMailTask``."""
        return manual_run_mail_task(self.id)

    def find(self, finder: Finder) -> Subject:
        """Look the name up among the mail tasks that the AccessKey may see."""
        return MailTaskSubject(*finder.find_mail_task(self.name, self.scope or None), self.scope)

    def no_run(self) -> dict[str, Any]:
        """Return the keys of a run."""
        return {"mail_id": self.id, "task_id": None, "status": None, "exec_time": None}


@dataclass(frozen=True, slots=True)
class DatasetSubject(Subject):
    """A dataset, which is refreshed."""

    kind: ClassVar = DATASET
    run_type: ClassVar = DatasetRefreshJob
    shows_earlier_runs: ClassVar = False
    name_key: ClassVar = "dataset_name"
    words: ClassVar = Words(
        subject="dataset",
        run="refresh",
        runs="refreshes",
        run_id="JobHistoryId",
        started_at="GmtCreate",
        result="data",
        started="refresh",
        start="start",
        start_past="started",
        failed="Quick BI did not refresh the data. See the dataset's acceleration log in the Quick BI console.",
        missed='To accept the latest refresh, set window="latest".',
    )

    def query(self, run_id: str | None) -> RunQuery:  # noqa: ARG002 - the service shows only the latest
        """Return the query for the latest refresh: others cannot be queried."""
        return RefreshQuery(self.id)

    def start(self) -> Operation[bool]:
        """Return ``AllotDatasetAccelerationTask``."""
        return allot_dataset_acceleration_task(self.id)

    def failure_log(self, run: Run) -> Operation[str] | None:
        """Return ``QueryAccelerationLogByCubeId`` around the start of a refresh."""
        return read_refresh_log(self.id, run.run_id, run.started_at)

    def find(self, finder: Finder) -> Subject:
        """Look the name up among the datasets of its workspace."""
        return DatasetSubject(*finder.find_dataset(self.name, self.scope), self.scope)

    def no_run(self) -> dict[str, Any]:
        """Return the keys of a refresh."""
        return {"dataset_id": self.id, "job_id": None, "status": None, "started_at": None, "ended_at": None}


SUBJECT_TYPES: tuple[type[Subject], ...] = (MailTaskSubject, DatasetSubject)
_TYPES: dict[str, type[Subject]] = {subject.kind: subject for subject in SUBJECT_TYPES}


def read_subject(item: Mapping[str, Any]) -> Subject:
    """Read back what :meth:`Subject.as_dict` wrote.

    :raises KeyError: if it is something else, or of a kind that this release does not know.
    """
    return _TYPES[item["kind"]](item["id"], item.get("name", ""), item.get("scope", ""))
