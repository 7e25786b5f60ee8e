"""What a wait is for and what it has learnt so far, for one run and for several: frozen values.

Times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_quickbi._wait.selector import RunSelector
    from airflow_provider_quickbi._wait.subject import Subject
    from airflow_provider_quickbi.api.errors import QuickBIError
    from airflow_provider_quickbi.api.models import Run
    from airflow_provider_quickbi.api.operations import RunQuery

DEFAULT_UNREACHABLE_TIMEOUT = 1800.0
#: Seconds by which the clocks of Quick BI and of this machine may differ.
DEFAULT_CLOCK_SKEW = 60.0
#: A run this many seconds further in the future than the clock skew has been dated in another time zone.
FUTURE_TOLERANCE = 60.0


class Outcome(StrEnum):
    """What a poll means for the wait."""

    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    SEEN = "seen"
    FAILED = "failed"
    NOT_STARTED = "not_started"
    WINDOW_OVER = "window_over"
    MISSED = "missed"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    WRONG_TIMEZONE = "wrong_timezone"

    @property
    def final(self) -> bool:
        """Whether the wait is finished."""
        return self is not Outcome.WAITING


#: Of several reasons why a wait group fails, the one that decides what the task does: the first of these.
WORST_FIRST = (
    Outcome.REFUSED,
    Outcome.WRONG_TIMEZONE,
    Outcome.FAILED,
    Outcome.MISSED,
    Outcome.WINDOW_OVER,
    Outcome.NOT_STARTED,
    Outcome.TIMED_OUT,
    Outcome.UNAVAILABLE,
)


class OnFailed(StrEnum):
    """What a run that failed means: the wait fails, or it goes on until a later run."""

    FAIL = "fail"
    WAIT = "wait"


class OnMissed(StrEnum):
    """What to do if the run can no longer be seen: fail the task, or skip it."""

    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a poll means, and why.

    :param outcome: what it means.
    :param message: one sentence for a person.
    :param run: the matching run, as last seen.
    :param error: why Quick BI refused or could not be reached.
    """

    outcome: Outcome
    message: str
    run: Run | None = None
    error: QuickBIError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitState:
    """One wait for one run: of what, which one, how long, and what has been learnt.

    :param subject: the mail task or the dataset.
    :param selector: which runs match.
    :param since: when the wait started.
    :param window_reason: why this window holds, for the first log line; empty if the user named the run.
    :param on_failed: what a run that failed means; with one id there is no later run to wait for.
    :param start_timeout: seconds within which a matching run must be seen; ``None`` for no limit. They are counted
        from the start of the wait, or from ``executed_after`` where that is later.
    :param finish_by: when the wait is given up; ``None`` for never.
    :param unreachable_timeout: seconds of continuous outage after which the wait is given up.
    :param clock_skew: seconds by which Quick BI's clock may differ from this machine's.
    :param until_seen: whether the wait is finished as soon as a matching run is seen, whatever its status.
    :param start_requested_at: when this task requested the run; ``None`` if it did not.
    :param run: the matching run, as last seen; the wait is pinned to it.
    :param ignored_run: the newest run seen that does not match.
    :param other_subject_id: of a run in a response that held runs of other subjects only; ``None`` if it did not.
    :param start_by_since: from when ``start_timeout`` is counted.
    :param polled: whether a poll has succeeded.
    :param unreachable_since: since when no poll has succeeded; ``None`` if the last one did.
    :param error: why the last poll failed.
    """

    subject: Subject
    selector: RunSelector
    since: float
    window_reason: str = ""
    on_failed: OnFailed = OnFailed.FAIL
    start_timeout: float | None = None
    finish_by: float | None = None
    unreachable_timeout: float = DEFAULT_UNREACHABLE_TIMEOUT
    clock_skew: float = DEFAULT_CLOCK_SKEW
    until_seen: bool = False
    start_requested_at: float | None = None
    run: Run | None = None
    ignored_run: Run | None = None
    other_subject_id: str | None = None
    start_by_since: float | None = None
    polled: bool = False
    unreachable_since: float | None = None
    error: QuickBIError | None = None

    @property
    def title(self) -> str:
        """What a person knows the subject by."""
        return self.subject.title

    @property
    def polls_from(self) -> float:
        """When polling makes sense: no run can match before the window, and one that was seen has started."""
        after = self.selector.executed_after
        return 0.0 if after is None or self.run is not None else after.timestamp()

    @property
    def window_ends_at(self) -> float | None:
        """When no run can start any more that matches; ``None`` for never, or once a run has been seen."""
        before = self.selector.executed_before
        return None if before is None or self.run is not None else before.timestamp() + self.clock_skew

    @property
    def start_by(self) -> float | None:
        """When a matching run must have been seen; ``None`` for no limit or if one has been seen.

        ``None`` also while the last poll failed: what could not be queried may have started.
        """
        if self.start_timeout is None or self.run is not None or self.error is not None:
            return None
        return max(self.since, self.polls_from, self.start_by_since or 0.0) + self.start_timeout

    @property
    def gives_up_at(self) -> float | None:
        """The next instant at which the wait may end if nothing changes; ``None`` for never."""
        ends = self.window_ends_at if self.error is None else None
        limits = [limit for limit in (self.start_by, self.finish_by, ends) if limit is not None]
        if self.unreachable_since is not None:
            limits.append(self.unreachable_since + self.unreachable_timeout)
        return min(limits, default=None)

    def status_query(self, now: float) -> RunQuery | None:
        """Return the query for Quick BI, or ``None`` if no response could matter yet."""
        if now < self.polls_from:
            return None
        return self.subject.query(self.run.run_id if self.run else self.selector.run_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitGroup:
    """What one task waits for: one run or several of different subjects, and how many of them must succeed.

    :param waits: one for each subject.
    :param evaluations: what is known of each, in the same order.
    :param required: how many must succeed.
    :param late_at: when the report becomes late and somebody is notified; ``None`` for never, or once notified.
    """

    waits: tuple[WaitState, ...]
    evaluations: tuple[Evaluation, ...] = ()
    required: int = 1
    late_at: float | None = None

    @classmethod
    def of(cls, waits: Sequence[WaitState], *, required: int | None = None, late_at: float | None = None) -> WaitGroup:
        """Return a group of which nothing is known yet.

        :param waits: one for each subject.
        :param required: how many must succeed; ``None`` for all.
        :param late_at: when the report becomes late; ``None`` for never.
        """
        evaluations = tuple(Evaluation(Outcome.WAITING, f"{wait.title}: not polled yet.") for wait in waits)
        needed = len(waits) if required is None else required
        return cls(waits=tuple(waits), evaluations=evaluations, required=needed, late_at=late_at)

    def unfinished(self) -> list[int]:
        """Return the positions of the waits that are not finished."""
        return [position for position, evaluation in enumerate(self.evaluations) if not evaluation.outcome.final]

    def updated(self, position: int, wait: WaitState, evaluation: Evaluation) -> WaitGroup:
        """Return the group after one of its waits was evaluated."""
        return replace(
            self,
            waits=(*self.waits[:position], wait, *self.waits[position + 1 :]),
            evaluations=(*self.evaluations[:position], evaluation, *self.evaluations[position + 1 :]),
        )

    @property
    def evaluation(self) -> Evaluation:
        """What the whole group means: ``SUCCEEDED`` once enough have, something else as soon as enough cannot be."""
        if len(self.evaluations) == 1:
            return self.evaluations[0]
        succeeded = [found for found in self.evaluations if found.outcome is Outcome.SUCCEEDED]
        lost = [found for found in self.evaluations if found.outcome.final and found.outcome is not Outcome.SUCCEEDED]
        subject = self.waits[0].subject
        count = (
            f"{len(succeeded)} of {len(self.evaluations)} {subject.words.subject}s are {subject.run_type.SUCCESS}, "
            f"{self.required} required."
        )
        if len(succeeded) >= self.required:
            return Evaluation(Outcome.SUCCEEDED, count)
        if len(self.evaluations) - len(lost) < self.required:
            worst = min(lost, key=lambda found: WORST_FIRST.index(found.outcome))
            return Evaluation(
                worst.outcome, " ".join([count, *(found.message for found in lost)]), worst.run, worst.error
            )
        return Evaluation(Outcome.WAITING, count)

    def is_late(self, now: float) -> bool:
        """Whether it is time to notify somebody that the report is late."""
        return self.late_at is not None and now >= self.late_at and not self.evaluation.outcome.final

    def notified(self) -> WaitGroup:
        """Return the group after somebody was notified that the report is late."""
        return replace(self, late_at=None)

    def results(self) -> list[dict[str, Any]]:
        """Return one run for each subject as plain JSON; what is not known is ``None``."""
        return [
            (found.run.as_dict() if found.run else wait.subject.no_run())
            | ({wait.subject.name_key: wait.subject.name} if wait.subject.name else {})
            for wait, found in zip(self.waits, self.evaluations, strict=True)
        ]
