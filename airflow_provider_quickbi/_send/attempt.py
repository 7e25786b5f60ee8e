"""One try of the run operator: start the mail unless that may have been done, find its run and follow it to the end."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_provider_quickbi._metrics import count_outcome, count_start
from airflow_provider_quickbi._send.record import (
    DEFAULT_PAUSE,
    OnRunFailed,
    OnRunning,
    OnScheduleLimit,
    StartRecord,
    StartResult,
    classify_response,
    is_active,
    latest,
)
from airflow_provider_quickbi._wait import deadline
from airflow_provider_quickbi._wait.evaluate import Evaluation, Outcome, RunSelector, WaitGroup, WaitState, describe
from airflow_provider_quickbi._wait.events import publish, raise_for, read_event
from airflow_provider_quickbi._wait.logging import FIRST_EVENT_SECONDS
from airflow_provider_quickbi._wait.sync import poll_once, wait_until_finished
from airflow_provider_quickbi.api.errors import ErrorKind, NotStartedError, PermanentError, QuickBIError, TransientError
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy
from airflow_provider_quickbi.exceptions import (
    QuickBIConnectionError,
    QuickBIRunFailed,
    QuickBIStartUnknown,
    QuickBIUnavailable,
    task_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
    from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

#: Seconds that the framework's own limit of a deferral comes after ours.
BACKSTOP_SECONDS = 900.0
#: Key of the note in Airflow's ``task_state_store`` (3.3 and later).
RECORD_KEY = "quickbi_start"
FOREVER = 1e10
#: Seconds after which a cleared task no longer looks for what an earlier try may have started; ``timeout`` if shorter.
_LONGEST_OPEN_SECONDS = 24 * 3600.0
#: How patiently a start is tried again that the service did not take.
_PATIENCE = RetryPolicy(first_delay=2.0, max_delay=60.0)
_MOST_DOUBLINGS = 10
#: A pause of up to this many seconds is not worth a deferral, whose event would come later.
_SHORT_PAUSE = FIRST_EVENT_SECONDS + 2.0


class Phase(StrEnum):
    """What a try is doing; after a deferral it goes on with it."""

    #: Finding out which mail task is meant, and whether an earlier try may have started it.
    PREPARING = "preparing"
    #: Trying to start the mail, or waiting until that may be tried again.
    STARTING = "starting"
    #: Waiting until another run is over.
    AWAITING_OTHER_RUN = "awaiting_other_run"
    #: Looking for the run of a start.
    LOCATING_RUN = "locating_run"
    #: Waiting until our run is over.
    MONITORING = "monitoring"


@dataclass(slots=True, kw_only=True)
class AttemptState:
    """What a try must remember from one deferral to the next.

    :param finish_by: when ``timeout`` is over, seconds since the epoch.
    :param execute_by: when ``execution_timeout`` is over; ``None`` for never.
    :param late_at: when somebody is to be told that the delivery is late; ``None`` for never, or if it was told.
    :param phase: what it is doing.
    :param mail_id: the mail task; empty until its name was looked up.
    :param note: of the start whose run is looked for or followed, or of an earlier one whose run was not found.
    :param called: whether this try made a starting call that was or may have been carried out.
    :param run: the run that is waited for, as last seen.
    :param not_before: no start is tried before this instant.
    :param not_taken: how many attempts to start in a row the service did not take.
    :param unreachable_since: since when the service could not be asked to start; ``None`` if it could.
    """

    finish_by: float
    execute_by: float | None = None
    late_at: float | None = None
    phase: Phase = Phase.PREPARING
    mail_id: str = ""
    record: StartRecord | None = None
    called: bool = False
    run: MailTaskRun | None = None
    not_before: float = 0.0
    not_processed: int = 0
    unreachable_since: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self) | {
            "phase": self.phase.value,
            "record": self.record.as_dict() if self.record else None,
            "run": self.run.as_dict() if self.run else None,
        }

    @classmethod
    def from_dict(cls, item: dict[str, Any]) -> AttemptState:
        """Read back what :meth:`as_dict` wrote, by this release, an earlier one, or a later one that has added to it.

        :raises ValueError: if it is something else.
        """
        try:
            known = {field.name: item[field.name] for field in fields(cls) if field.name in item}
            return cls(
                **known
                | {
                    "phase": Phase(item["phase"]),
                    "record": StartRecord.from_dict(item["record"]) if item.get("record") else None,
                    "run": MailTaskRun.from_dict(item["run"]) if item.get("run") else None,
                }
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not the course of a try: {type(error).__name__}: {error}") from None


class StartAttempt:
    """One try, in one worker process; what it waits for deferred goes on in another one.

    :param task: the operator.
    :param given: its arguments as values.
    :param course: of this try.
    :param hook: of this worker process.
    :param context: of the task.
    """

    def __init__(
        self,
        task: QuickBIRunMailTaskOperator,
        given: dict[str, Any],
        state: AttemptState,
        hook: QuickBIHook,
        context: Any,
    ) -> None:
        self.task = task
        self.given = given
        self.state = state
        self.hook = hook
        self.context = context
        self.log = task.log
        self.poll_interval: float = 30.0 if given["poll_interval"] is None else given["poll_interval"]

    @property
    def mail_id(self) -> str:
        """The mail task; its name as long as nothing more is known."""
        return self.state.mail_id or repr(self.given["subscribe_name"])

    def begin(self) -> dict[str, Any]:
        """Send the mail, unless an earlier try may have done so, and return its run."""
        with self._recording_the_end():
            return self._advance()

    def resume(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on after a trigger's event, and return the run.

        :param event: of a trigger of ours.
        """
        with self._recording_the_end():
            record = self._stored_record()
            if record is not None and record != self.state.record:
                # A worker that resumed this deferral before us has noted more than the deferral knows.
                self._recover(record)
                return self._advance()
            return self._advance(self._read(event))

    def _advance(self, group: WaitGroup | None = None) -> dict[str, Any]:
        """Go from phase to phase.

        :param delivery: what a trigger has found out for the phase that the try is in.
        """
        while True:
            match self.state.phase:
                case Phase.PREPARING:
                    self._prepare()
                case Phase.STARTING:
                    self._start()
                case Phase.AWAITING_OTHER_RUN:
                    self._other_run_finished(group or self._wait_until_finished(self._wait_for_other()))
                case Phase.LOCATING_RUN:
                    self._run_located(group or self._wait_until_finished(self._wait_until_seen()))
                case Phase.MONITORING:
                    result = self._run_finished(group or self._wait_until_finished(self._wait_until_over()))
                    if result is not None:
                        return result
            group = None

    # The note

    def _store(self) -> Any:
        return self.context.get("task_state_store")

    def _stored_record(self) -> StartRecord | None:
        store = self._store()
        record = None if store is None else StartRecord.from_dict(store.get(RECORD_KEY))
        return record if record is not None and record.mail_id == self.mail_id else None

    def _inferred_record(self) -> StartRecord | None:
        """Return the DAG run's begin as a note for a retry, where Airflow keeps nothing from one try to the next."""
        began = deadline.run_started(self.context)
        if self._store() is not None or began is None or not deadline.is_retry(self.task, self.context):
            return None
        return StartRecord(mail_id=self.mail_id, recorded_at=began.timestamp(), inferred=True)

    def _keep(self, record: StartRecord) -> None:
        self.state.record = record
        if (store := self._store()) is not None:
            store.set(RECORD_KEY, record.as_dict())

    def _delete_record(self) -> None:
        if self.state.record is not None and (store := self._store()) is not None:
            store.delete(RECORD_KEY)
        self.state.record = None

    @contextmanager
    def _recording_the_end(self) -> Iterator[None]:
        """Note that the task has come to its end, or forget the start if a retry is to send anew.

        The note stays: what Airflow has not recorded, because the worker was killed or a hook of the author's failed,
        it tries again.
        """
        try:
            yield
        except QuickBIRunFailed:
            self._delete_record()
            raise
        except (AirflowFailException, AirflowSensorTimeout, AirflowSkipException):
            self._record_the_end()
            raise
        else:
            self._record_the_end()

    def _record_the_end(self) -> None:
        if self.state.record is not None:
            self._keep(replace(self.state.record, over=True))

    # Preparing

    def _prepare(self) -> None:
        """Find out which mail task is meant, and take up what an earlier try may have started."""
        if not self.state.mail_id:
            self._wait_until_allowed()
            try:
                (found,) = self.hook.find_mail_tasks([self.given["subscribe_name"]], self.given["mail_owner"])
            except QuickBIUnavailable as error:
                self._try_again(TransientError(str(error), kind=ErrorKind.TRANSIENT))
                return
            self.state.mail_id = found.mail_id
            self._reset_backoff()
        if (record := self._open_record() or self._inferred_record()) is not None:
            self._recover(record)
        else:
            self.state.phase = Phase.STARTING

    def _open_record(self) -> StartRecord | None:
        """Return the stored note, unless the task was cleared since and the note is of no use for that."""
        record = self._stored_record()
        if record is None or deadline.is_retry(self.task, self.context):
            return record
        # A try that was cut short may not have taken longer than that; what is found later is somebody else's run.
        stale = time.time() - record.recorded_at > min(_or_forever(self.given["timeout"]), _LONGEST_OPEN_SECONDS)
        if not record.over and not stale:
            return record
        self.log.info(
            "The task was cleared: what it started %s is over, and the mail is sent anew.", _at(record.recorded_at)
        )
        self._store().delete(RECORD_KEY)
        return None

    def _recover(self, record: StartRecord) -> None:
        """Look for the run of a start that another worker made or was about to make."""
        self.log.info(
            "Mail task %s may have been started after %s: looking for its run before anything is sent.",
            self.mail_id,
            _at(record.recorded_at),
        )
        self.state.record = record
        self.state.called = False
        self.state.run = None
        self.state.phase = Phase.LOCATING_RUN if record.attached_to is None else Phase.MONITORING

    # Starting

    def _start(self) -> None:
        """Start the mail, once nothing stands in the way."""
        self._wait_until_allowed()
        try:
            runs = [
                run for run in self.hook.get_conn().get_mail_task_status(self.mail_id) if run.mail_id == self.mail_id
            ]
        except QuickBIError as error:
            return self._try_again(error)
        record, newest = self.state.record, latest(runs)
        if record is not None and any(map(record.selector(self._clock_skew()).admits, runs)):
            self.log.info("A run has appeared that may be that of the earlier start: nothing is sent.")
            self.state.phase = Phase.LOCATING_RUN
        elif newest is not None and is_active(newest):
            self._handle_active_run(newest)
        else:
            self._call(record or StartRecord.of(self.mail_id, runs, time.time()), runs)
        return None

    def _handle_active_run(self, other: MailTaskRun) -> None:
        """Decide what to do about a run that is under way."""
        self.state.run = other
        if self._attaches():
            self.log.info("Run %s is under way: attached to it; nothing is started.", other.task_id)
            self._keep(StartRecord(mail_id=self.mail_id, recorded_at=time.time(), attached_to=other.task_id))
            self.state.phase = Phase.MONITORING
            return
        self._refuse_running(f"run {other.task_id} of {other.exec_time.isoformat()} is {other.status}")
        self.log.info("Run %s is %s: ours is started when it is over.", other.task_id, other.status)
        self.state.phase = Phase.AWAITING_OTHER_RUN

    def _call(self, record: StartRecord, runs: Sequence[MailTaskRun]) -> None:
        """Make the one starting call, after its note was kept, and do what its answer means."""
        earlier, newest = self.state.record, latest(runs)
        record = replace(record, inferred=False, over=False)
        self._keep(record)
        self.log.info(
            "Starting mail task %s; its latest run is %s.", self.mail_id, newest.task_id if newest else "none"
        )
        try:
            response: bool | QuickBIError = self.hook.get_conn().manual_run_mail_task(self.mail_id)
        except QuickBIError as error:
            response = error
        result = classify_response(response)
        if result in (StartResult.ACCEPTED, StartResult.UNKNOWN):
            self.state.called = True
            self.state.phase = Phase.LOCATING_RUN
            if result is StartResult.ACCEPTED:
                count_start()
                self._keep(replace(record, accepted=True))
            else:
                self.log.warning(
                    "It is not known whether mail task %s was started (%s). Looking for its run; nothing is sent again "
                    "in this try.",
                    self.mail_id,
                    response,
                )
            return
        if earlier is None:
            self._delete_record()
        else:
            self._keep(earlier)
        if isinstance(response, QuickBIError):
            self._handle_rejected_start(response, runs)

    def _handle_rejected_start(self, error: QuickBIError, runs: Sequence[MailTaskRun]) -> None:
        """Decide when to try again after a start that carried out nothing, or give up."""
        result = classify_response(error)
        if result in (StartResult.NOT_PROCESSED, StartResult.REFUSED):
            self._try_again(error)
            return
        self._reset_backoff()
        if isinstance(error, NotStartedError):
            if self.given["on_schedule_limit"] == OnScheduleLimit.FAIL:
                raise AirflowFailException(self._final(f"{error} (on_schedule_limit='fail')."))
            self._pause(error.retry_after or DEFAULT_PAUSE, error)
            return
        if self.state.record is not None:
            self.log.info("The run that is under way may be that of the earlier start: looking for it.")
            self.state.phase = Phase.LOCATING_RUN
        elif self._attaches():
            self.log.info("A run of mail task %s is under way that was not seen yet: looking for it.", self.mail_id)
            newest = latest(runs)
            self._keep(StartRecord.of(self.mail_id, runs, newest.exec_time.timestamp() if newest else 0.0))
            self.state.phase = Phase.LOCATING_RUN
        else:
            self._refuse_running("a run is under way")
        self._pause(self.poll_interval, error)

    def _try_again(self, error: QuickBIError) -> None:
        """Plan another attempt after one that the service did not take, slower each time, or give up."""
        if isinstance(error, PermanentError):
            raise task_error(error) from None
        now = time.time()
        self.state.not_processed += 1
        delay = _PATIENCE.delay(min(self.state.not_processed, _MOST_DOUBLINGS), error.retry_after)
        if isinstance(error, TransientError):
            since = self.state.unreachable_since = self.state.unreachable_since or now
            left = since + _or_forever(self.given["unreachable_timeout"]) - now
            if left <= 0:
                raise QuickBIUnavailable(
                    f"Mail task {self.mail_id}: Quick BI could not be asked for {now - since:,.0f} s "
                    f"(unreachable_timeout). {self._what_was_sent()} Last: {error}"
                )
            delay = min(delay, left)
        self._pause(delay, error)

    def _reset_backoff(self) -> None:
        self.state.not_processed = 0
        self.state.unreachable_since = None

    def _pause(self, seconds: float, why: QuickBIError) -> None:
        self.state.not_before = time.time() + seconds
        self.log.info("%s Trying again in %.0f s. %s", self._what_was_sent(), seconds, why)

    def _wait_until_allowed(self) -> None:
        """Wait until the start may be tried; it ends when the time is over, and tells on the way if it is late."""
        state = self.state
        while True:
            now = time.time()
            if state.late_at is not None and now >= state.late_at:
                evaluation = Evaluation(Outcome.WAITING, f"Mail task {self.mail_id} was not started yet.")
                self._notify_late(
                    WaitGroup(waits=(self._wait(RunSelector()),), evaluations=(evaluation,), late_at=state.late_at)
                )
            if state.execute_by is not None and now >= state.execute_by:
                raise AirflowTaskTimeout(
                    f"execution_timeout is over; mail task {self.mail_id} could not be started. {self._what_was_sent()}"
                )
            if now >= state.finish_by:
                raise AirflowSensorTimeout(
                    self._final(f"Mail task {self.mail_id}: the timeout is over and the mail could not be started.")
                )
            if now >= state.not_before:
                return
            due = (state.not_before, state.finish_by, state.execute_by, state.late_at)
            until = min(instant for instant in due if instant is not None)
            if self.task.deferrable and until - now > _SHORT_PAUSE:
                self._defer_until(until)
            time.sleep(until - now)

    def _defer_until(self, until: float) -> None:
        from airflow_provider_quickbi.triggers.quickbi import QuickBIPauseTrigger

        self.task.defer(
            trigger=QuickBIPauseTrigger(until=until, carry=self.state.as_dict()),
            method_name="execute_complete",
            timeout=timedelta(seconds=until - time.time() + BACKSTOP_SECONDS),
        )

    def _attaches(self) -> bool:
        return bool(self.given["on_running"] == OnRunning.ATTACH)

    def _refuse_running(self, what: str) -> None:
        if self.given["on_running"] == OnRunning.SKIP:
            raise AirflowSkipException(f"Mail task {self.mail_id}: {what}; nothing was started (on_running='skip')")
        if self.given["on_running"] == OnRunning.FAIL:
            raise AirflowFailException(f"Mail task {self.mail_id}: {what}; nothing was started (on_running='fail')")

    def _what_was_sent(self) -> str:
        if self.state.record is None:
            return "Nothing was sent."
        if self.state.record.accepted or self.state.record.attached_to is not None:
            return "The mail was started."
        if self.state.called:
            return "It is not known whether Quick BI accepted the start."
        return "This try sent nothing; it is not known whether an earlier one did."

    def _final(self, message: str) -> str:
        """Add to the message of an error after which nothing is retried what a person must know to go on."""
        if self.state.record is None:
            return f"{message} {self._what_was_sent()}"
        return (
            f"{message} {self._what_was_sent()} Look into the Quick BI console before you clear this task: that sends "
            "the mail anew."
        )

    # Waiting

    def _wait(self, selector: RunSelector, **known: Any) -> WaitState:
        return WaitState(
            mail_id=self.mail_id,
            selector=selector,
            since=time.time(),
            finish_by=self.state.finish_by,
            unreachable_timeout=_or_forever(self.given["unreachable_timeout"]),
            **known,
        )

    def _wait_for_other(self) -> WaitState:
        return self._wait(RunSelector(task_id=self._run().task_id), run=self._run())

    def _wait_until_seen(self) -> WaitState:
        return self._wait(
            self._required_record().selector(self._clock_skew()),
            start_timeout=self.given["start_timeout"],
            until_seen=True,
        )

    def _wait_until_over(self) -> WaitState:
        return self._wait(
            RunSelector(task_id=self._required_record().attached_to),
            start_timeout=self.given["start_timeout"],
            until_seen=not self.task.wait_for_completion,
            run=self.state.run,
        )

    def _required_record(self) -> StartRecord:
        if self.state.record is None:
            raise RuntimeError("there is no note of a start, which this try should have made")
        return self.state.record

    def _run(self) -> MailTaskRun:
        if self.state.run is None:
            raise RuntimeError("there is no run to wait for, which this try should have seen")
        return self.state.run

    def _clock_skew(self) -> float:
        return self.given["clock_skew"] or 0.0

    def _wait_until_finished(self, wait: WaitState) -> WaitGroup:
        """Wait in this worker, or have the triggerer wait."""
        group = WaitGroup.of([wait], late_at=self.state.late_at)
        if wait.run is not None:
            group = group.evaluated(0, [wait.run], time.time())
        if group.evaluation.outcome.final:
            return group
        if not self.task.deferrable:
            return wait_until_finished(
                group, self.hook.get_conn, interval=self.poll_interval, log=self.log, on_late=self._notify_late
            )
        if wait.run is None:
            group = poll_once(group, self.hook.get_conn, NO_RETRY)
            if group.evaluation.outcome.final:
                return group
        return self._defer(group)

    def _defer(self, group: WaitGroup) -> NoReturn:
        from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

        if group.is_late(time.time()):
            group = self._notify_late(group)
        self.log.info("%s Waiting in the triggerer.", group.evaluation.message)
        self.task.defer(
            trigger=QuickBIMailTaskTrigger(
                quickbi_conn_id=self.task.quickbi_conn_id,
                group=group.as_dict(),
                poke_interval=self.poll_interval,
                execute_by=self.state.execute_by,
                carry=self.state.as_dict(),  # not kwargs of defer(), which dag.test() loses
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, self.state.finish_by - time.time()) + BACKSTOP_SECONDS),
        )
        raise AssertionError("defer() does not return")

    def _read(self, event: Mapping[str, Any]) -> WaitGroup | None:
        """Return what a trigger has found out; ``None`` after a mere pause."""
        from airflow_provider_quickbi.triggers.quickbi import EventKind

        if self.state.phase in (Phase.PREPARING, Phase.STARTING) and event.get("kind") == EventKind.OVER:
            return None
        kind, group, message = read_event(event)
        if kind == EventKind.LATE and not group.evaluation.outcome.final:
            self._defer(self._notify_late(group))
        if kind == EventKind.CONNECTION:
            raise QuickBIConnectionError(self._final(message))
        if kind == EventKind.EXECUTION_TIMEOUT:
            raise AirflowTaskTimeout(f"execution_timeout is over. {message}")
        if kind not in (EventKind.SETTLED, EventKind.LATE):
            raise RuntimeError(f"The trigger's event is of kind {kind!r}, which is not known and counts as no delivery")
        return group

    def _notify_late(self, group: WaitGroup) -> WaitGroup:
        self.state.late_at = None
        deadline.notify(self.task.on_late_callback, self.context, group, self.log)
        return group.notified()

    # What was waited for

    def _other_run_finished(self, group: WaitGroup) -> None:
        """Go on to start ours after another run is over, one way or the other."""
        evaluation = group.evaluation
        if evaluation.outcome not in (Outcome.SENT, Outcome.FAILED):
            self._fail(evaluation)
        self.state.run = None
        self.state.phase = Phase.STARTING
        self._reset_backoff()

    def _run_located(self, group: WaitGroup) -> None:
        """Go on to follow the run that was found, or decide what it means that there is none."""
        evaluation, record = group.evaluation, self._required_record()
        if evaluation.outcome is Outcome.NOT_STARTED:
            evaluation = replace(evaluation, message=self._say_that_none_appeared(group.waits[0]))
        if evaluation.outcome is Outcome.SEEN and evaluation.run is not None:
            self._keep(replace(record, attached_to=evaluation.run.task_id))
            self.log.info(
                "Run %s of %s is %s: it is the first new one since %s. One that the schedule started in the same "
                "minute could not be told apart.",
                evaluation.run.task_id,
                evaluation.run.exec_time.isoformat(),
                "ours" if self.state.called else "joined, and nothing is sent in this try",
                _at(record.recorded_at),
            )
            self.state.run = evaluation.run
            self.state.phase = Phase.MONITORING
            return
        if evaluation.outcome is Outcome.NOT_STARTED and not record.accepted and not self.state.called:
            self.log.info("%s Nothing can be seen of an earlier start.", evaluation.message)
            self.state.phase = Phase.STARTING
            return
        count_outcome(group)
        if evaluation.outcome is Outcome.NOT_STARTED and not record.accepted:
            raise QuickBIStartUnknown(
                f"{evaluation.message} {self._what_was_sent()} A retry looks again before it sends."
            )
        self._fail(evaluation)

    def _say_that_none_appeared(self, wait: WaitState) -> str:
        message = f"{describe(wait, time.time())} None appeared within start_timeout ({wait.start_timeout:,.0f} s)."
        known, other = self._required_record().known, wait.ignored_run
        if known and other is not None and other.task_id not in known:
            message += (
                f" Run {other.task_id} is new, but began before: if the clocks differ by more than clock_skew "
                f"({self._clock_skew():,.0f} s), set clock_skew."
            )
        return message

    def _run_finished(self, group: WaitGroup) -> dict[str, Any] | None:
        """Return the run that is over, raise what its verdict means, or go on to send anew (``None``)."""
        evaluation = group.evaluation
        if evaluation.outcome in (Outcome.SENT, Outcome.SEEN):
            count_outcome(group)
            return self._result(group)
        retries = evaluation.outcome is Outcome.FAILED and self.given["on_failed"] == OnRunFailed.RETRY
        if retries and evaluation.run is not None and self._required_record().inferred:
            self.log.info("%s It is the run of an earlier try: sending anew (on_failed='retry').", evaluation.message)
            self._forget_until(evaluation.run)
            return None
        count_outcome(group)
        if retries:
            raise QuickBIRunFailed(evaluation.message)
        if evaluation.outcome is Outcome.FAILED:
            raise_for(evaluation)
        return self._fail(evaluation)

    def _fail(self, evaluation: Evaluation) -> NoReturn:
        """Raise what a verdict means, with what a person must know to go on."""
        if evaluation.outcome is Outcome.UNAVAILABLE:
            raise_for(evaluation)
        raise_for(replace(evaluation, message=self._final(evaluation.message)))

    def _forget_until(self, failed: MailTaskRun) -> None:
        """Let only runs count that are newer than one of an earlier try that ``FAILED``, where nothing is kept."""
        recorded_at = failed.exec_time.timestamp() + self._clock_skew()
        self.state.record = StartRecord(
            mail_id=self.mail_id, recorded_at=recorded_at, known=(failed.task_id,), inferred=True
        )
        self.state.run = None
        self.state.phase = Phase.STARTING

    def _result(self, group: WaitGroup) -> dict[str, Any]:
        """Return the XCom of our run."""
        self.log.info("%s", group.evaluation.message)
        (result,) = group.results()
        publish(self.context, self.task.outlets, [result])
        return result


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _or_forever(seconds: float | None) -> float:
    return FOREVER if seconds is None else seconds
