"""Which run of a mail task counts, and what its state means for those who wait: pure functions, the same for all modes.

A :class:`WaitState` is a frozen value: what is waited for and what has been learnt so far. :func:`evaluate` takes it, one
answer of Quick BI and the time, and gives the next value and a :class:`Evaluation`. Times are seconds since the epoch.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    NotStartedError,
    QuickBIError,
    ThrottledError,
    TransientError,
    error_from_dict,
)
from airflow_provider_quickbi.api.models import MailTaskRun, MailTaskStatus, StatusQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Version of what is kept in Airflow's database: trigger arguments, events, and what they carry. A release reads what
#: all earlier ones have kept. What is added is ignored by those who do not know it; the version is raised if that would
#: be wrong.
STATE_VERSION = 1

DEFAULT_UNREACHABLE_TIMEOUT = 1800.0
#: Of so many earlier runs is remembered that they do not count; older ones are before the fence.
KNOWN_RUNS = 20

#: Errors after which asking again makes sense.
_ASK_AGAIN = (ThrottledError, TransientError, NotStartedError, AlreadyRunningError)


def check_version(version: Any) -> None:
    """Refuse what a later release has kept if this one would misunderstand it.

    :param version: with which it was kept.
    :raises ValueError: if it is later than :data:`STATE_VERSION`, or no version.
    """
    if not isinstance(version, int) or version > STATE_VERSION:
        raise ValueError(
            f"it is of version {version!r:.20}, and this release of airflow-provider-quickbi understands version "
            f"{STATE_VERSION}. Install the same release on scheduler, workers and triggerers, and restart them"
        )


class Outcome(StrEnum):
    """What a look at a delivery means for the one who waits."""

    WAITING = "waiting"
    SENT = "sent"
    SEEN = "seen"
    FAILED = "failed"
    NOT_STARTED = "not_started"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"

    @property
    def final(self) -> bool:
        """Whether the wait is over."""
        return self is not Outcome.WAITING


class OnFailed(StrEnum):
    """What a run that ``FAILED`` means: the end, or that a later run is waited for."""

    FAIL = "fail"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSelector:
    """Which runs count.

    :param task_id: only the run with this TaskId.
    :param executed_after: only runs whose ``execTime`` is at or after this instant; the first of them is taken.
    :param other_than: no run with one of these TaskIds.
    """

    task_id: str | None = None
    executed_after: datetime | None = None
    other_than: tuple[str, ...] = ()

    def admits(self, run: MailTaskRun) -> bool:
        """Whether a run counts."""
        if self.task_id is not None and run.task_id != self.task_id:
            return False
        if run.task_id in self.other_than:
            return False
        return self.executed_after is None or run.exec_time >= self.executed_after

    def choose(self, runs: Iterable[MailTaskRun]) -> MailTaskRun | None:
        """Return the run that counts: the first after the fence; without one, the latest."""
        admitted = sorted((run for run in runs if self.admits(run)), key=lambda run: run.age_order)
        if not admitted:
            return None
        latest = self.executed_after is None and not self.other_than
        return admitted[-1] if latest else admitted[0]

    def __str__(self) -> str:
        if self.task_id is not None:
            return f"with TaskId {self.task_id}"
        parts = []
        if self.executed_after is not None:
            parts.append(f"that began at or after {self.executed_after.isoformat()}")
        if self.other_than:
            parts.append(f"other than {', '.join(self.other_than[:3])}{', ...' if len(self.other_than) > 3 else ''}")
        return " and ".join(parts) or "at all"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is to be done, and why.

    :param outcome: what it means.
    :param message: one sentence for a person.
    :param run: the run that counts, as last seen.
    :param error: why Quick BI refused or could not be asked.
    """

    outcome: Outcome
    message: str
    run: MailTaskRun | None = None
    error: QuickBIError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON for an event."""
        return {
            "outcome": self.outcome.value,
            "message": self.message,
            "run": self.run.as_dict() if self.run else None,
            "error": self.error.as_dict() if self.error else None,
        }

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> Evaluation:
        """Read back what :meth:`as_dict` wrote.

        :raises ValueError: if it is something else; an unknown outcome never counts as success.
        """
        try:
            return cls(
                outcome=Outcome(item["outcome"]),
                message=str(item["message"]),
                run=MailTaskRun.from_dict(item["run"]) if item.get("run") else None,
                error=error_from_dict(item["error"]) if item.get("error") else None,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not the verdict of a delivery: {type(error).__name__}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitState:
    """One wait for one mail task: what counts, how long, and what has been learnt.

    :param mail_id: the mail task.
    :param fence: which runs count.
    :param since: when the wait began.
    :param on_failed: what a run that failed means; if only one run counts, there is no later one to wait for.
    :param start_timeout: seconds within which a run that counts must be seen; ``None`` for no limit. They are counted
        from the beginning of the wait, or from ``executed_after`` where that is later.
    :param finish_by: when the wait is given up; ``None`` for never.
    :param unreachable_timeout: seconds of nothing but failed attempts to ask after which the wait is given up.
    :param until_seen: whether the wait is over as soon as a run that counts is seen, whatever its state.
    :param run: the run that counts, as last seen; the wait is pinned to it.
    :param overlooked: the newest run seen that does not count.
    :param stray: MailId of a run in an answer that held runs of other mail tasks only; ``None`` if it did not.
    :param start_by_since: from when ``start_timeout`` is counted.
    :param unreachable_since: since when there has been no answer at all; ``None`` if the last look was answered.
    :param error: why the last look was not answered.
    """

    mail_id: str
    selector: RunSelector
    since: float
    on_failed: OnFailed = OnFailed.FAIL
    start_timeout: float | None = None
    finish_by: float | None = None
    unreachable_timeout: float = DEFAULT_UNREACHABLE_TIMEOUT
    until_seen: bool = False
    run: MailTaskRun | None = None
    ignored_run: MailTaskRun | None = None
    other_mail_id: str | None = None
    start_by_since: float | None = None
    unreachable_since: float | None = None
    error: QuickBIError | None = None

    @property
    def polls_from(self) -> float:
        """When there is something to ask: no run can count before the fence, and one that was seen has begun."""
        after = self.selector.executed_after
        return 0.0 if after is None or self.run is not None else after.timestamp()

    @property
    def start_by(self) -> float | None:
        """When a run that counts must have been seen; ``None`` for no limit or if one has been seen.

        ``None`` also while the last look was not answered: what could not be asked is not known not to have started.
        """
        if self.start_timeout is None or self.run is not None or self.error is not None:
            return None
        return max(self.since, self.polls_from, self.start_by_since or 0.0) + self.start_timeout

    @property
    def gives_up_at(self) -> float | None:
        """The next instant at which the wait ends if nothing changes; ``None`` for never."""
        limits = [limit for limit in (self.start_by, self.finish_by) if limit is not None]
        if self.unreachable_since is not None:
            limits.append(self.unreachable_since + self.unreachable_timeout)
        return min(limits, default=None)

    def status_query(self, now: float) -> StatusQuery | None:
        """Return what to ask, or ``None`` if no answer could matter yet."""
        if now < self.polls_from:
            return None
        return StatusQuery(self.mail_id, self.run.task_id if self.run else self.selector.task_id)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON for trigger arguments; it holds nothing secret."""
        after = self.selector.executed_after
        return {
            "mail_id": self.mail_id,
            "task_id": self.selector.task_id,
            "executed_after": after.isoformat() if after else None,
            "other_than": list(self.selector.other_than),
            "since": self.since,
            "on_failed": self.on_failed.value,
            "start_timeout": self.start_timeout,
            "finish_by": self.finish_by,
            "unreachable_timeout": self.unreachable_timeout,
            "until_seen": self.until_seen,
            "run": self.run.as_dict() if self.run else None,
            "ignored_run": self.ignored_run.as_dict() if self.ignored_run else None,
            **({} if self.other_mail_id is None else {"other_mail_id": self.other_mail_id}),
            "start_by_since": self.start_by_since,
            "unreachable_since": self.unreachable_since,
            "error": self.error.as_dict() if self.error else None,
        }

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> WaitState:
        """Read back what :meth:`as_dict` wrote, by this release or an earlier one."""
        after = item.get("executed_after")
        return cls(
            mail_id=item["mail_id"],
            selector=RunSelector(
                task_id=item.get("task_id"),
                executed_after=datetime.fromisoformat(after) if after else None,
                other_than=tuple(item.get("other_than", ())),
            ),
            since=item["since"],
            on_failed=OnFailed(item.get("on_failed", OnFailed.FAIL)),
            start_timeout=item.get("start_timeout"),
            finish_by=item.get("finish_by"),
            unreachable_timeout=item.get("unreachable_timeout", DEFAULT_UNREACHABLE_TIMEOUT),
            until_seen=item.get("until_seen", False),
            run=MailTaskRun.from_dict(item["run"]) if item.get("run") else None,
            ignored_run=MailTaskRun.from_dict(item["ignored_run"]) if item.get("ignored_run") else None,
            other_mail_id=item.get("other_mail_id"),
            start_by_since=item.get("start_by_since"),
            unreachable_since=item.get("unreachable_since"),
            error=error_from_dict(item["error"]) if item.get("error") else None,
        )


def evaluate(
    wait: WaitState, response: Sequence[MailTaskRun] | QuickBIError | None, now: float
) -> tuple[WaitState, Evaluation]:
    """Decide what an answer means; the state is looked at before any deadline.

    :param wait: what is waited for and what is known.
    :param answer: the runs that Quick BI answered with, the error, or ``None`` if nothing was asked.
    :param now: the time.
    :returns: the wait with what was learnt, and the verdict.
    """
    if isinstance(response, QuickBIError):
        if not isinstance(response, _ASK_AGAIN):
            return wait, Evaluation(Outcome.REFUSED, f"Mail task {wait.mail_id}: {response}", wait.run, response)
        silent = isinstance(response, TransientError)
        begin = wait.unreachable_since if wait.unreachable_since is not None else now
        wait = replace(wait, error=response, unreachable_since=begin if silent else None)
    elif response is not None:
        wait = replace(_learn(wait, response), error=None, unreachable_since=None)
        if wait.until_seen and wait.run is not None:
            return wait, Evaluation(Outcome.SEEN, f"{_named(wait, wait.run)} is {wait.run.status}.", wait.run)
        if wait.run is not None and wait.run.status == MailTaskStatus.SENT:
            return wait, Evaluation(Outcome.SENT, f"{_named(wait, wait.run)} is SENT.", wait.run)
        if wait.run is not None and wait.run.status == MailTaskStatus.FAILED:
            if wait.on_failed is OnFailed.FAIL or wait.selector.task_id is not None:
                return wait, Evaluation(
                    Outcome.FAILED,
                    f"{_named(wait, wait.run)} FAILED: Quick BI did not send the report. "
                    "The subscription's send log in the Quick BI console says why.",
                    wait.run,
                )
            wait = _wait_for_a_later_run(wait, wait.run, now)
    return wait, _deadlines(wait, now) or Evaluation(Outcome.WAITING, describe(wait, now), wait.run, wait.error)


def _learn(wait: WaitState, runs: Sequence[MailTaskRun]) -> WaitState:
    own = [run for run in runs if run.mail_id == wait.mail_id]
    selector = wait.selector if wait.run is None else RunSelector(task_id=wait.run.task_id)
    chosen = selector.choose(own)
    if chosen is not None:
        return replace(wait, run=chosen, ignored_run=None, other_mail_id=None)
    others = sorted(own, key=lambda run: run.age_order)
    return replace(
        wait,
        ignored_run=others[-1] if others and wait.run is None else None,
        other_mail_id=runs[0].mail_id if runs and not own and wait.run is None else None,
    )


def _wait_for_a_later_run(wait: WaitState, failed: MailTaskRun, now: float) -> WaitState:
    after = max(failed.exec_time, wait.selector.executed_after or failed.exec_time)
    return replace(
        wait,
        selector=RunSelector(executed_after=after, other_than=(failed.task_id, *wait.selector.other_than)[:KNOWN_RUNS]),
        run=None,
        ignored_run=failed,
        start_by_since=now,
    )


def _deadlines(wait: WaitState, now: float) -> Evaluation | None:
    if wait.start_by is not None and now >= wait.start_by:
        return Evaluation(
            Outcome.NOT_STARTED,
            f"Mail task {wait.mail_id}: no run {wait.selector} started within start_timeout "
            f"({_seconds(wait.start_timeout)}). {_state(wait, now)}",
        )
    if wait.finish_by is not None and now >= wait.finish_by and wait.error is not None:
        return Evaluation(
            Outcome.UNAVAILABLE,
            f"Mail task {wait.mail_id}: the timeout ({_seconds(wait.finish_by - wait.since)}) is over, and Quick BI "
            f"could not be asked once more. This says nothing about the report. Last: {wait.error}",
            wait.run,
            wait.error,
        )
    if wait.finish_by is not None and now >= wait.finish_by:
        return Evaluation(
            Outcome.TIMED_OUT,
            f"Mail task {wait.mail_id}: the timeout ({_seconds(wait.finish_by - wait.since)}) is over. "
            f"{_state(wait, now)}",
            wait.run,
        )
    if wait.unreachable_since is not None and now - wait.unreachable_since >= wait.unreachable_timeout:
        return Evaluation(
            Outcome.UNAVAILABLE,
            f"Mail task {wait.mail_id}: Quick BI could not be asked for {_seconds(now - wait.unreachable_since)} "
            f"(unreachable_timeout). This says nothing about the report. Last: {wait.error}",
            wait.run,
            wait.error,
        )
    return None


def describe(wait: WaitState, now: float) -> str:
    """Say in a sentence what a wait is doing; the sentence changes only when something has changed."""
    return f"Mail task {wait.mail_id}: {_state(wait, now)}"


def _state(wait: WaitState, now: float) -> str:
    if wait.error is not None and isinstance(wait.error, TransientError):
        return f"Quick BI could not be asked: {_reason(wait.error)}"
    if wait.error is not None and isinstance(wait.error, ThrottledError):
        return "Quick BI throttled the question; asking again, slower."
    if wait.error is not None:
        return f"Quick BI put the question off: {_reason(wait.error)}"
    if wait.run is not None:
        odd = (
            ""
            if wait.run.status in list(MailTaskStatus)
            else ", a status that is not documented and counts as unfinished"
        )
        return f"Run {wait.run.task_id} of {wait.run.exec_time.isoformat()} is {wait.run.status}{odd}."
    if now < wait.polls_from:
        return f"Nothing to ask before executed_after, {_instant(wait.polls_from)}."
    if wait.ignored_run is not None:
        return (
            f"No run {wait.selector} yet; the latest is {wait.ignored_run.task_id} of "
            f"{wait.ignored_run.exec_time.isoformat()}, {wait.ignored_run.status}."
        )
    if wait.other_mail_id is not None:
        return f"Quick BI answered with runs of other mail tasks, such as {wait.other_mail_id!r}, and none of this one."
    return f"No run {wait.selector} yet."


def _reason(error: QuickBIError) -> str:
    """Return what an error says but for its RequestId, which is another one each time."""
    same = copy(error)
    same.request_id = ""
    return str(same)


def _named(wait: WaitState, run: MailTaskRun) -> str:
    return f"Mail task {wait.mail_id}: run {run.task_id} of {run.exec_time.isoformat()}"


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:,.0f} s"


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitGroup:
    """What one task waits for: one mail task or several, and how many of them must go out.

    :param waits: one for each mail task.
    :param verdicts: what is known of each, in the same order.
    :param required: how many must be ``SENT``.
    :param late_at: when the delivery becomes late and somebody is to be told; ``None`` for never, or if it was told.
    """

    waits: tuple[WaitState, ...]
    evaluations: tuple[Evaluation, ...] = ()
    required: int = 1
    late_at: float | None = None

    @classmethod
    def of(cls, waits: Sequence[WaitState], *, required: int | None = None, late_at: float | None = None) -> WaitGroup:
        """Return a delivery of which nothing is known yet.

        :param waits: one for each mail task.
        :param required: how many must be ``SENT``; ``None`` for all.
        :param late_at: when it becomes late; ``None`` for never.
        """
        evaluations = tuple(Evaluation(Outcome.WAITING, describe(wait, wait.since)) for wait in waits)
        needed = len(waits) if required is None else required
        return cls(waits=tuple(waits), evaluations=evaluations, required=needed, late_at=late_at)

    def unfinished(self) -> list[int]:
        """Return the positions of the waits that are not over."""
        return [position for position, evaluation in enumerate(self.evaluations) if not evaluation.outcome.final]

    def evaluated(self, position: int, response: Sequence[MailTaskRun] | QuickBIError | None, now: float) -> WaitGroup:
        """Return the delivery after an answer for one of its waits, see :func:`evaluate`."""
        wait, evaluation = evaluate(self.waits[position], response, now)
        return replace(
            self,
            waits=(*self.waits[:position], wait, *self.waits[position + 1 :]),
            evaluations=(*self.evaluations[:position], evaluation, *self.evaluations[position + 1 :]),
        )

    @property
    def evaluation(self) -> Evaluation:
        """What the whole delivery means: ``SENT`` once enough are, something else as soon as enough cannot be."""
        if len(self.evaluations) == 1:
            return self.evaluations[0]
        sent = [evaluation for evaluation in self.evaluations if evaluation.outcome is Outcome.SENT]
        lost = [
            evaluation
            for evaluation in self.evaluations
            if evaluation.outcome.final and evaluation.outcome is not Outcome.SENT
        ]
        count = f"{len(sent)} of {len(self.evaluations)} mail tasks are SENT, {self.required} required."
        if len(sent) >= self.required:
            return Evaluation(Outcome.SENT, count)
        if len(self.evaluations) - len(lost) < self.required:
            worst = min(lost, key=lambda evaluation: _WORST_FIRST.index(evaluation.outcome))
            return Evaluation(
                worst.outcome, " ".join([count, *(evaluation.message for evaluation in lost)]), worst.run, worst.error
            )
        return Evaluation(Outcome.WAITING, count)

    def is_late(self, now: float) -> bool:
        """Whether it is time to tell somebody that the delivery is late."""
        return self.late_at is not None and now >= self.late_at and not self.evaluation.outcome.final

    def notified(self) -> WaitGroup:
        """Return the delivery after somebody was told that it is late."""
        return replace(self, late_at=None)

    def results(self) -> list[dict[str, Any]]:
        """Return one run for each mail task as plain JSON; what is not known is ``None``."""
        return [
            evaluation.run.as_dict()
            if evaluation.run
            else {"mail_id": wait.mail_id, "task_id": None, "status": None, "exec_time": None}
            for wait, evaluation in zip(self.waits, self.evaluations, strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON for trigger arguments and events; it holds nothing secret."""
        return {
            "waits": [wait.as_dict() for wait in self.waits],
            "evaluations": [evaluation.as_dict() for evaluation in self.evaluations],
            "required": self.required,
            "late_at": self.late_at,
        }

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> WaitGroup:
        """Read back what :meth:`as_dict` wrote, by this release or an earlier one.

        :raises ValueError: if it is something else.
        """
        try:
            waits = tuple(WaitState.from_dict(wait) for wait in item["waits"])
            group = cls(
                waits=waits,
                evaluations=tuple(Evaluation.from_dict(evaluation) for evaluation in item["evaluations"]),
                required=int(item["required"]),
                late_at=item.get("late_at"),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a delivery: {type(error).__name__}: {error}") from None
        if not waits or len(waits) != len(group.evaluations) or not 1 <= group.required <= len(waits):
            raise ValueError("not a delivery: its parts do not fit together")
        return group


#: Of several reasons why a delivery is lost, the one that decides what the task does.
_WORST_FIRST = (
    Outcome.REFUSED,
    Outcome.FAILED,
    Outcome.NOT_STARTED,
    Outcome.TIMED_OUT,
    Outcome.UNAVAILABLE,
)
