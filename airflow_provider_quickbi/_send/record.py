"""Starting a mail at most once: what is noted before the call, and what each answer to it means. Pure functions.

``ManualRunMailTask`` gives no TaskId and may be carried out although its answer is lost. So the latest TaskIds and the
time are noted before the call; a run that is new since then is ours, and while there is such a note, nothing is started
before a run that is new since then was looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait.evaluate import KNOWN_RUNS, RunSelector
from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    NotStartedError,
    PermanentError,
    QuickBIError,
    ThrottledError,
    TransientError,
)
from airflow_provider_quickbi.api.models import MailTaskRun, MailTaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

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


class StartResult(StrEnum):
    """What the answer to the starting call means."""

    ACCEPTED = "accepted"
    #: It may have been carried out.
    UNKNOWN = "unknown"
    #: The service wants no start for some time.
    TOO_EARLY = "later"
    RUNNING = "running"
    #: It did not get as far as being decided on: throttled, or the service was not reached.
    NOT_PROCESSED = "not_processed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecord:
    """What is known before a start, kept where it survives a retry.

    :param mail_id: the mail task.
    :param noted_at: when it was noted, seconds since the epoch.
    :param known: TaskIds of the runs that were there already, the latest first.
    :param accepted: whether the service is known to have accepted the call.
    :param joined: TaskId of the run that is ours, once it is known.
    :param guessed: whether nothing was noted, and the DAG run's begin stands in for it.
    :param over: whether the task has come to its end with this start. Should Airflow not have recorded that end, a
        retry comes to the same one; clearing the task begins anew.
    """

    mail_id: str
    recorded_at: float
    known: tuple[str, ...] = ()
    accepted: bool = False
    attached_to: str | None = None
    inferred: bool = False
    over: bool = False

    @classmethod
    def of(cls, mail_id: str, runs: Iterable[MailTaskRun], recorded_at: float) -> StartRecord:
        """Note what there is.

        :param mail_id: the mail task.
        :param runs: that there are already.
        :param noted_at: seconds since the epoch.
        """
        newest_first = sorted(runs, key=lambda run: run.age_order, reverse=True)
        return cls(
            mail_id=mail_id, recorded_at=recorded_at, known=tuple(run.task_id for run in newest_first[:KNOWN_RUNS])
        )

    def selector(self, clock_skew: float = DEFAULT_CLOCK_SKEW) -> RunSelector:
        """Return which run is ours: another TaskId, and not before the note but for the clocks' difference.

        :param clock_skew: seconds that the service's clock may be behind.
        """
        if self.attached_to is not None:
            return RunSelector(task_id=self.attached_to)
        noted = datetime.fromtimestamp(int(self.recorded_at), UTC)
        return RunSelector(other_than=self.known, executed_after=noted - timedelta(seconds=clock_skew))

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "mail_id": self.mail_id,
            "recorded_at": self.recorded_at,
            "known": list(self.known),
            "accepted": self.accepted,
            "attached_to": self.attached_to,
            "inferred": self.inferred,
            "over": self.over,
        }

    @classmethod
    def from_dict(cls, item: Any) -> StartRecord | None:
        """Read back what :meth:`as_dict` wrote; ``None`` for anything else."""
        try:
            return cls(
                mail_id=str(item["mail_id"]),
                recorded_at=float(item["recorded_at"]),
                known=tuple(item.get("known", ())),
                accepted=bool(item.get("accepted")),
                attached_to=item.get("attached_to"),
                inferred=bool(item.get("inferred")),
                over=bool(item.get("over")),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def latest(runs: Iterable[MailTaskRun]) -> MailTaskRun | None:
    """Return the newest of the runs."""
    return max(runs, key=lambda run: run.age_order, default=None)


def is_active(run: MailTaskRun | None) -> bool:
    """Whether a run is not over; a status that nobody knows counts as not over."""
    return run is not None and run.status not in (MailTaskStatus.SENT, MailTaskStatus.FAILED)


def classify_response(response: bool | QuickBIError) -> StartResult:
    """Return what the answer to the starting call means.

    :param answer: ``True``, or the error.
    """
    match response:
        case NotStartedError():
            return StartResult.TOO_EARLY
        case AlreadyRunningError():
            return StartResult.RUNNING
        case ThrottledError() | TransientError(may_have_arrived=False):
            return StartResult.NOT_PROCESSED
        case PermanentError():
            return StartResult.REFUSED
        case QuickBIError():
            return StartResult.UNKNOWN
        case _:
            return StartResult.ACCEPTED
