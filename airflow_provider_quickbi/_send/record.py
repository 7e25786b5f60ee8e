"""Starting a run at most once: what is recorded before the call, and what each response to it means; pure functions.

Neither ``ManualRunMailTask`` nor ``AllotDatasetAccelerationTask`` returns the id of its run, and both may be carried
out although their response is lost. So the latest ids and the time are recorded before the call; a run that is new
since then is this task's run, and while there is such a record, nothing is started before a run that is new since then
was looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait.selector import KNOWN_RUNS, RunSelector
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW
from airflow_provider_quickbi._wait.subject import Subject, read_subject
from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    NotStartedError,
    PermanentError,
    QuickBIError,
    ThrottledError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_quickbi.api.models import Run


class StartResult(StrEnum):
    """What the response to the starting call means."""

    ACCEPTED = "accepted"
    #: It may have been carried out.
    UNKNOWN = "unknown"
    #: The service wants no start for some time.
    TOO_EARLY = "too_early"
    RUNNING = "running"
    #: The service did not decide on it: rate limited, or not reached.
    NOT_PROCESSED = "not_processed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecord:
    """What is known before a start, kept where it survives a retry.

    :param subject: what is started.
    :param recorded_at: when it was recorded, seconds since the epoch.
    :param known: ids of the runs that were there already, the latest first.
    :param accepted: whether the service is known to have accepted the call.
    :param attached_to: id of this task's run, once it is known.
    :param inferred: whether nothing was recorded, and the start of the DAG run stands in for it.
    :param finished: whether the task has finished with this start. Should Airflow not have recorded that, a retry
        comes to the same outcome; clearing the task starts anew.
    """

    subject: Subject
    recorded_at: float
    known: tuple[str, ...] = ()
    accepted: bool = False
    attached_to: str | None = None
    inferred: bool = False
    finished: bool = False

    @classmethod
    def of(cls, subject: Subject, runs: Iterable[Run], recorded_at: float) -> StartRecord:
        """Record what there is.

        :param recorded_at: seconds since the epoch.
        """
        newest_first = sorted(runs, key=lambda run: run.age_order, reverse=True)
        return cls(
            subject=subject, recorded_at=recorded_at, known=tuple(run.run_id for run in newest_first[:KNOWN_RUNS])
        )

    def selector(self, clock_skew: float = DEFAULT_CLOCK_SKEW) -> RunSelector:
        """Return which run is this task's: another id, and not before the record but for the clocks' difference.

        :param clock_skew: seconds that the service's clock may be behind.
        """
        if self.attached_to is not None:
            return RunSelector(run_id=self.attached_to)
        recorded = datetime.fromtimestamp(int(self.recorded_at), UTC)
        return RunSelector(other_than=self.known, executed_after=recorded - timedelta(seconds=clock_skew))

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "subject": self.subject.as_dict(),
            "recorded_at": self.recorded_at,
            "known": list(self.known),
            "accepted": self.accepted,
            "attached_to": self.attached_to,
            "inferred": self.inferred,
            "finished": self.finished,
        }

    @classmethod
    def from_dict(cls, item: Any) -> StartRecord | None:
        """Read back what :meth:`as_dict` wrote; ``None`` for anything else."""
        try:
            return cls(
                subject=read_subject(item["subject"]),
                recorded_at=float(item["recorded_at"]),
                known=tuple(item.get("known", ())),
                accepted=bool(item.get("accepted")),
                attached_to=item.get("attached_to"),
                inferred=bool(item.get("inferred")),
                finished=bool(item.get("finished")),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def latest(runs: Iterable[Run]) -> Run | None:
    """Return the newest of the runs."""
    return max(runs, key=lambda run: run.age_order, default=None)


def classify_response(response: bool | QuickBIError) -> StartResult:
    """Return what the response to the starting call means.

    :param response: ``True``, or the error.
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
