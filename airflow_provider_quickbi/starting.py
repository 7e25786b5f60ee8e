"""Starting a mail at most once: what is noted before the call, and what each answer to it means. Pure functions.

``ManualRunMailTask`` gives no TaskId and may be carried out although its answer is lost. So the latest TaskId and the
time are noted before the call; a run that is new since then is ours, and while there is such a note, nothing is started
before a run that is new since then was looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    NotStartedError,
    PermanentError,
    QuickBIError,
    ThrottledError,
    TransientError,
)
from airflow_provider_quickbi.api.models import MailTaskRun, MailTaskStatus
from airflow_provider_quickbi.delivery import Fence

DEFAULT_CLOCK_SKEW = 60.0
#: Seconds after which a start is tried again where the service did not say when.
DEFAULT_PAUSE = 60.0


class OnRunning(StrEnum):
    """What to do if a run of the mail task is under way already."""

    WAIT = "wait"
    ATTACH = "attach"
    SKIP = "skip"
    FAIL = "fail"


class OnScheduleLimit(StrEnum):
    """What to do if the service wants no further start for some minutes."""

    WAIT = "wait"
    FAIL = "fail"


class OnRunFailed(StrEnum):
    """What to do if our run ``FAILED``."""

    FAIL = "fail"
    RETRY = "retry"


class StartAnswer(StrEnum):
    """What the answer to the starting call means."""

    ACCEPTED = "accepted"
    UNKNOWN = "unknown"
    LATER = "later"
    RUNNING = "running"
    NOT_SENT = "not_sent"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is known before a start, kept where it survives a retry.

    :param mail_id: the mail task.
    :param noted_at: when it was noted, seconds since the epoch.
    :param task_id: the latest TaskId at that time; ``None`` if there was no run.
    :param accepted: whether the service is known to have accepted the call.
    :param joined: TaskId of the run that is ours, once it is known.
    """

    mail_id: str
    noted_at: float
    task_id: str | None = None
    accepted: bool = False
    joined: str | None = None

    def fence(self, clock_skew: float = DEFAULT_CLOCK_SKEW) -> Fence:
        """Return which run is ours: another TaskId, and not before the note but for the clocks' difference.

        :param clock_skew: seconds that the service's clock may be behind.
        """
        if self.joined is not None:
            return Fence(task_id=self.joined)
        noted = datetime.fromtimestamp(int(self.noted_at), UTC)
        return Fence(other_than=self.task_id, executed_after=noted - timedelta(seconds=clock_skew))

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "mail_id": self.mail_id,
            "noted_at": self.noted_at,
            "task_id": self.task_id,
            "accepted": self.accepted,
            "joined": self.joined,
        }

    @classmethod
    def from_dict(cls, item: Any) -> Note | None:
        """Read back what :meth:`as_dict` wrote; ``None`` for anything else."""
        if not isinstance(item, Mapping) or not isinstance(item.get("mail_id"), str):
            return None
        if not isinstance(item.get("noted_at"), (int, float)):
            return None
        return cls(
            mail_id=item["mail_id"],
            noted_at=float(item["noted_at"]),
            task_id=item.get("task_id"),
            accepted=bool(item.get("accepted")),
            joined=item.get("joined"),
        )


def latest(runs: Sequence[MailTaskRun]) -> MailTaskRun | None:
    """Return the newest of the runs."""
    return max(runs, key=lambda run: run.age_order, default=None)


def under_way(run: MailTaskRun | None) -> bool:
    """Whether a run is not over; a status that nobody knows counts as not over."""
    return run is not None and run.status not in (MailTaskStatus.SENT, MailTaskStatus.FAILED)


def meaning_of(answer: bool | QuickBIError) -> StartAnswer:
    """Return what the answer to the starting call means.

    :param answer: ``True``, or the error.
    """
    match answer:
        case NotStartedError() | ThrottledError():
            return StartAnswer.LATER
        case AlreadyRunningError():
            return StartAnswer.RUNNING
        case TransientError(reached=False):
            return StartAnswer.NOT_SENT
        case PermanentError():
            return StartAnswer.REFUSED
        case QuickBIError():
            return StartAnswer.UNKNOWN
        case _:
            return StartAnswer.ACCEPTED
