"""What one try of a start must remember from one deferral to the next, and what it may say of it; pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._send.record import StartRecord
from airflow_provider_quickbi._wait.subject import Subject, read_subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_quickbi.api.models import Run


class Phase(StrEnum):
    """What a try is doing; it resumes in the same phase after a deferral."""

    #: Finding out what is meant, and whether an earlier try may have started it.
    PREPARING = "preparing"
    #: Trying to start it, or waiting until that may be tried again.
    STARTING = "starting"
    #: Waiting until another run is finished.
    AWAITING_OTHER_RUN = "awaiting_other_run"
    #: Looking for the run of a start.
    LOCATING_RUN = "locating_run"
    #: Waiting until this task's run is finished.
    MONITORING = "monitoring"


@dataclass(slots=True, kw_only=True)
class AttemptState:
    """The state of one try.

    :param subject: what is started; without an id until its name was looked up.
    :param finish_by: when ``timeout`` is over, seconds since the epoch.
    :param execute_by: when ``execution_timeout`` is over; ``None`` for never.
    :param late_at: when somebody is notified that the report is late; ``None`` for never, or once notified.
    :param phase: what it is doing.
    :param record: of the start whose run is looked for or monitored, or of an earlier one whose run was not found.
    :param called: whether this try made a starting call that was or may have been carried out.
    :param run: the run that is waited for, as last seen.
    :param not_before: no start is tried before this instant.
    :param not_processed: how many attempts to start in a row the service did not process.
    :param unreachable_since: since when Quick BI was unreachable; ``None`` if it was not.
    """

    subject: Subject
    finish_by: float
    execute_by: float | None = None
    late_at: float | None = None
    phase: Phase = Phase.PREPARING
    record: StartRecord | None = None
    called: bool = False
    run: Run | None = None
    not_before: float = 0.0
    not_processed: int = 0
    unreachable_since: float | None = None

    def reset_backoff(self) -> None:
        """Forget failed attempts: Quick BI has processed one."""
        self.not_processed = 0
        self.unreachable_since = None

    def what_was_started(self) -> str:
        """Say what is known of the start."""
        words = self.subject.words
        if self.record is None:
            return f"Nothing was {words.start_past}."
        if self.record.accepted or self.record.attached_to is not None:
            return f"The {words.started} was started."
        if self.called:
            return "It is not known whether Quick BI accepted the start."
        return f"This try {words.start_past} nothing; it is not known whether an earlier one did."

    def final(self, message: str) -> str:
        """Add to the message of an error that is not retried what a person must know to go on."""
        if self.record is None:
            return f"{message} {self.what_was_started()}"
        words = self.subject.words
        return (
            f"{message} {self.what_was_started()} Check the Quick BI console before you clear this task: clearing "
            f"{words.start}s the {words.started} again."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self) | {
            "subject": self.subject.as_dict(),
            "phase": self.phase.value,
            "record": self.record.as_dict() if self.record else None,
            "run": self.run.as_dict() if self.run else None,
        }

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> AttemptState:
        """Read back what :meth:`as_dict` wrote, in this release, an earlier one, or a later one that has added to it.

        :raises ValueError: if it is something else.
        """
        try:
            subject = read_subject(item["subject"])
            known = {field.name: item[field.name] for field in fields(cls) if field.name in item}
            return cls(
                **known
                | {
                    "subject": subject,
                    "phase": Phase(item["phase"]),
                    "record": StartRecord.from_dict(item["record"]) if item.get("record") else None,
                    "run": subject.run_type.from_dict(item["run"]) if item.get("run") else None,
                }
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not the state of a start attempt: {type(error).__name__}: {error}") from None
