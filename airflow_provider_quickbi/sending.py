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

from airflow_provider_quickbi import lateness
from airflow_provider_quickbi.api.errors import ErrorKind, NotStartedError, PermanentError, QuickBIError, TransientError
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.api.retries import ONE_ATTEMPT, Retries
from airflow_provider_quickbi.delivery import Delivery, Fence, Outcome, Verdict, Wait, describe
from airflow_provider_quickbi.exceptions import (
    QuickBIConnectionError,
    QuickBIRunFailed,
    QuickBIStartUnknown,
    QuickBIUnavailable,
    task_error,
)
from airflow_provider_quickbi.metrics import count_outcome, count_start
from airflow_provider_quickbi.outcomes import publish, raise_for, read_event
from airflow_provider_quickbi.progress import FIRST_EVENT_SECONDS
from airflow_provider_quickbi.starting import (
    DEFAULT_PAUSE,
    Note,
    OnRunFailed,
    OnRunning,
    OnScheduleLimit,
    StartAnswer,
    latest,
    meaning_of,
    under_way,
)
from airflow_provider_quickbi.waiting import look, settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
    from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

#: Seconds that the framework's own limit of a deferral comes after ours.
BACKSTOP_SECONDS = 900.0
#: Key of the note in Airflow's ``task_state_store`` (3.3 and later).
NOTE_KEY = "quickbi_start"
FOREVER = 1e10
#: Seconds after which a cleared task no longer looks for what an earlier try may have started; ``timeout`` if shorter.
_LONGEST_OPEN_SECONDS = 24 * 3600.0
#: How patiently a start is tried again that the service did not take.
_PATIENCE = Retries(first_delay=2.0, max_delay=60.0)
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
    OUTWAITING = "outwaiting"
    #: Looking for the run of a start.
    LOOKING = "looking"
    #: Waiting until our run is over.
    FOLLOWING = "following"


@dataclass(slots=True, kw_only=True)
class Course:
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
    note: Note | None = None
    called: bool = False
    run: MailTaskRun | None = None
    not_before: float = 0.0
    not_taken: int = 0
    unreachable_since: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self) | {
            "phase": self.phase.value,
            "note": self.note.as_dict() if self.note else None,
            "run": self.run.as_dict() if self.run else None,
        }

    @classmethod
    def from_dict(cls, item: dict[str, Any]) -> Course:
        """Read back what :meth:`as_dict` wrote, by this release, an earlier one, or a later one that has added to it.

        :raises ValueError: if it is something else.
        """
        try:
            known = {field.name: item[field.name] for field in fields(cls) if field.name in item}
            return cls(
                **known
                | {
                    "phase": Phase(item["phase"]),
                    "note": Note.from_dict(item["note"]) if item.get("note") else None,
                    "run": MailTaskRun.from_dict(item["run"]) if item.get("run") else None,
                }
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not the course of a try: {type(error).__name__}: {error}") from None


class Sending:
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
        course: Course,
        hook: QuickBIHook,
        context: Any,
    ) -> None:
        self.task = task
        self.given = given
        self.course = course
        self.hook = hook
        self.context = context
        self.log = task.log
        self.poll_interval: float = 30.0 if given["poll_interval"] is None else given["poll_interval"]

    @property
    def mail_id(self) -> str:
        """The mail task; its name as long as nothing more is known."""
        return self.course.mail_id or repr(self.given["subscribe_name"])

    def begin(self) -> dict[str, Any]:
        """Send the mail, unless an earlier try may have done so, and return its run."""
        with self._noting_the_end():
            return self._go_on()

    def resume(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on after a trigger's event, and return the run.

        :param event: of a trigger of ours.
        """
        with self._noting_the_end():
            note = self._stored_note()
            if note is not None and note != self.course.note:
                # A worker that resumed this deferral before us has noted more than the deferral knows.
                self._take_up(note)
                return self._go_on()
            return self._go_on(self._read(event))

    def _go_on(self, delivery: Delivery | None = None) -> dict[str, Any]:
        """Go from phase to phase.

        :param delivery: what a trigger has found out for the phase that the try is in.
        """
        while True:
            match self.course.phase:
                case Phase.PREPARING:
                    self._prepare()
                case Phase.STARTING:
                    self._start()
                case Phase.OUTWAITING:
                    self._outwaited(delivery or self._settle(self._wait_for_other()))
                case Phase.LOOKING:
                    self._looked(delivery or self._settle(self._wait_until_seen()))
                case Phase.FOLLOWING:
                    result = self._followed(delivery or self._settle(self._wait_until_over()))
                    if result is not None:
                        return result
            delivery = None

    # The note

    def _store(self) -> Any:
        return self.context.get("task_state_store")

    def _stored_note(self) -> Note | None:
        store = self._store()
        note = None if store is None else Note.from_dict(store.get(NOTE_KEY))
        return note if note is not None and note.mail_id == self.mail_id else None

    def _guessed_note(self) -> Note | None:
        """Return the DAG run's begin as a note for a retry, where Airflow keeps nothing from one try to the next."""
        began = lateness.run_began(self.context)
        if self._store() is not None or began is None or not lateness.is_retry(self.task, self.context):
            return None
        return Note(mail_id=self.mail_id, noted_at=began.timestamp(), guessed=True)

    def _keep(self, note: Note) -> None:
        self.course.note = note
        if (store := self._store()) is not None:
            store.set(NOTE_KEY, note.as_dict())

    def _delete_note(self) -> None:
        if self.course.note is not None and (store := self._store()) is not None:
            store.delete(NOTE_KEY)
        self.course.note = None

    @contextmanager
    def _noting_the_end(self) -> Iterator[None]:
        """Note that the task has come to its end, or forget the start if a retry is to send anew.

        The note stays: what Airflow has not recorded, because the worker was killed or a hook of the author's failed,
        it tries again.
        """
        try:
            yield
        except QuickBIRunFailed:
            self._delete_note()
            raise
        except (AirflowFailException, AirflowSensorTimeout, AirflowSkipException):
            self._note_the_end()
            raise
        else:
            self._note_the_end()

    def _note_the_end(self) -> None:
        if self.course.note is not None:
            self._keep(replace(self.course.note, over=True))

    # Preparing

    def _prepare(self) -> None:
        """Find out which mail task is meant, and take up what an earlier try may have started."""
        if not self.course.mail_id:
            self._wait_until_allowed()
            try:
                (found,) = self.hook.find_mail_tasks([self.given["subscribe_name"]], self.given["mail_owner"])
            except QuickBIUnavailable as error:
                self._try_again(TransientError(str(error), kind=ErrorKind.TRANSIENT))
                return
            self.course.mail_id = found.mail_id
            self._taken()
        if (note := self._open_note() or self._guessed_note()) is not None:
            self._take_up(note)
        else:
            self.course.phase = Phase.STARTING

    def _open_note(self) -> Note | None:
        """Return the stored note, unless the task was cleared since and the note is of no use for that."""
        note = self._stored_note()
        if note is None or lateness.is_retry(self.task, self.context):
            return note
        # A try that was cut short may not have taken longer than that; what is found later is somebody else's run.
        stale = time.time() - note.noted_at > min(_or_forever(self.given["timeout"]), _LONGEST_OPEN_SECONDS)
        if not note.over and not stale:
            return note
        self.log.info(
            "The task was cleared: what it started %s is over, and the mail is sent anew.", _at(note.noted_at)
        )
        self._store().delete(NOTE_KEY)
        return None

    def _take_up(self, note: Note) -> None:
        """Look for the run of a start that another worker made or was about to make."""
        self.log.info(
            "Mail task %s may have been started after %s: looking for its run before anything is sent.",
            self.mail_id,
            _at(note.noted_at),
        )
        self.course.note = note
        self.course.called = False
        self.course.run = None
        self.course.phase = Phase.LOOKING if note.joined is None else Phase.FOLLOWING

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
        note, newest = self.course.note, latest(runs)
        if note is not None and any(map(note.fence(self._clock_skew()).admits, runs)):
            self.log.info("A run has appeared that may be that of the earlier start: nothing is sent.")
            self.course.phase = Phase.LOOKING
        elif newest is not None and under_way(newest):
            self._meet(newest)
        else:
            self._call(note or Note.of(self.mail_id, runs, time.time()), runs)
        return None

    def _meet(self, other: MailTaskRun) -> None:
        """Decide what to do about a run that is under way."""
        self.course.run = other
        if self._attaches():
            self.log.info("Run %s is under way: attached to it; nothing is started.", other.task_id)
            self._keep(Note(mail_id=self.mail_id, noted_at=time.time(), joined=other.task_id))
            self.course.phase = Phase.FOLLOWING
            return
        self._refuse_running(f"run {other.task_id} of {other.exec_time.isoformat()} is {other.status}")
        self.log.info("Run %s is %s: ours is started when it is over.", other.task_id, other.status)
        self.course.phase = Phase.OUTWAITING

    def _call(self, note: Note, runs: Sequence[MailTaskRun]) -> None:
        """Make the one starting call, after its note was kept, and do what its answer means."""
        earlier, newest = self.course.note, latest(runs)
        note = replace(note, guessed=False, over=False)
        self._keep(note)
        self.log.info(
            "Starting mail task %s; its latest run is %s.", self.mail_id, newest.task_id if newest else "none"
        )
        try:
            answer: bool | QuickBIError = self.hook.get_conn().manual_run_mail_task(self.mail_id)
        except QuickBIError as error:
            answer = error
        meaning = meaning_of(answer)
        if meaning in (StartAnswer.ACCEPTED, StartAnswer.UNKNOWN):
            self.course.called = True
            self.course.phase = Phase.LOOKING
            if meaning is StartAnswer.ACCEPTED:
                count_start()
                self._keep(replace(note, accepted=True))
            else:
                self.log.warning(
                    "It is not known whether mail task %s was started (%s). Looking for its run; nothing is sent again "
                    "in this try.",
                    self.mail_id,
                    answer,
                )
            return
        if earlier is None:
            self._delete_note()
        else:
            self._keep(earlier)
        if isinstance(answer, QuickBIError):
            self._hold_on(answer, runs)

    def _hold_on(self, error: QuickBIError, runs: Sequence[MailTaskRun]) -> None:
        """Decide when to try again after a start that carried out nothing, or give up."""
        meaning = meaning_of(error)
        if meaning in (StartAnswer.NOT_TAKEN, StartAnswer.REFUSED):
            self._try_again(error)
            return
        self._taken()
        if isinstance(error, NotStartedError):
            if self.given["on_schedule_limit"] == OnScheduleLimit.FAIL:
                raise AirflowFailException(self._final(f"{error} (on_schedule_limit='fail')."))
            self._pause(error.retry_after or DEFAULT_PAUSE, error)
            return
        if self.course.note is not None:
            self.log.info("The run that is under way may be that of the earlier start: looking for it.")
            self.course.phase = Phase.LOOKING
        elif self._attaches():
            self.log.info("A run of mail task %s is under way that was not seen yet: looking for it.", self.mail_id)
            newest = latest(runs)
            self._keep(Note.of(self.mail_id, runs, newest.exec_time.timestamp() if newest else 0.0))
            self.course.phase = Phase.LOOKING
        else:
            self._refuse_running("a run is under way")
        self._pause(self.poll_interval, error)

    def _try_again(self, error: QuickBIError) -> None:
        """Plan another attempt after one that the service did not take, slower each time, or give up."""
        if isinstance(error, PermanentError):
            raise task_error(error) from None
        now = time.time()
        self.course.not_taken += 1
        delay = _PATIENCE.delay(min(self.course.not_taken, _MOST_DOUBLINGS), error.retry_after)
        if isinstance(error, TransientError):
            since = self.course.unreachable_since = self.course.unreachable_since or now
            left = since + _or_forever(self.given["unreachable_timeout"]) - now
            if left <= 0:
                raise QuickBIUnavailable(
                    f"Mail task {self.mail_id}: Quick BI could not be asked for {now - since:,.0f} s "
                    f"(unreachable_timeout). {self._what_was_sent()} Last: {error}"
                )
            delay = min(delay, left)
        self._pause(delay, error)

    def _taken(self) -> None:
        self.course.not_taken = 0
        self.course.unreachable_since = None

    def _pause(self, seconds: float, why: QuickBIError) -> None:
        self.course.not_before = time.time() + seconds
        self.log.info("%s Trying again in %.0f s. %s", self._what_was_sent(), seconds, why)

    def _wait_until_allowed(self) -> None:
        """Wait until the start may be tried; it ends when the time is over, and tells on the way if it is late."""
        course = self.course
        while True:
            now = time.time()
            if course.late_at is not None and now >= course.late_at:
                verdict = Verdict(Outcome.WAITING, f"Mail task {self.mail_id} was not started yet.")
                self._tell_late(Delivery(waits=(self._wait(Fence()),), verdicts=(verdict,), late_at=course.late_at))
            if course.execute_by is not None and now >= course.execute_by:
                raise AirflowTaskTimeout(
                    f"execution_timeout is over; mail task {self.mail_id} could not be started. {self._what_was_sent()}"
                )
            if now >= course.finish_by:
                raise AirflowSensorTimeout(
                    self._final(f"Mail task {self.mail_id}: the timeout is over and the mail could not be started.")
                )
            if now >= course.not_before:
                return
            due = (course.not_before, course.finish_by, course.execute_by, course.late_at)
            until = min(instant for instant in due if instant is not None)
            if self.task.deferrable and until - now > _SHORT_PAUSE:
                self._defer_until(until)
            time.sleep(until - now)

    def _defer_until(self, until: float) -> None:
        from airflow_provider_quickbi.triggers.quickbi import QuickBIPauseTrigger

        self.task.defer(
            trigger=QuickBIPauseTrigger(until=until, carry=self.course.as_dict()),
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
        if self.course.note is None:
            return "Nothing was sent."
        if self.course.note.accepted or self.course.note.joined is not None:
            return "The mail was started."
        if self.course.called:
            return "It is not known whether Quick BI accepted the start."
        return "This try sent nothing; it is not known whether an earlier one did."

    def _final(self, message: str) -> str:
        """Add to the message of an error after which nothing is retried what a person must know to go on."""
        if self.course.note is None:
            return f"{message} {self._what_was_sent()}"
        return (
            f"{message} {self._what_was_sent()} Look into the Quick BI console before you clear this task: that sends "
            "the mail anew."
        )

    # Waiting

    def _wait(self, fence: Fence, **known: Any) -> Wait:
        return Wait(
            mail_id=self.mail_id,
            fence=fence,
            since=time.time(),
            finish_by=self.course.finish_by,
            unreachable_timeout=_or_forever(self.given["unreachable_timeout"]),
            **known,
        )

    def _wait_for_other(self) -> Wait:
        return self._wait(Fence(task_id=self._run().task_id), run=self._run())

    def _wait_until_seen(self) -> Wait:
        return self._wait(
            self._note().fence(self._clock_skew()), start_timeout=self.given["appear_timeout"], until_seen=True
        )

    def _wait_until_over(self) -> Wait:
        return self._wait(
            Fence(task_id=self._note().joined),
            start_timeout=self.given["appear_timeout"],
            until_seen=not self.task.wait_for_completion,
            run=self.course.run,
        )

    def _note(self) -> Note:
        if self.course.note is None:
            raise RuntimeError("there is no note of a start, which this try should have made")
        return self.course.note

    def _run(self) -> MailTaskRun:
        if self.course.run is None:
            raise RuntimeError("there is no run to wait for, which this try should have seen")
        return self.course.run

    def _clock_skew(self) -> float:
        return self.given["clock_skew"] or 0.0

    def _settle(self, wait: Wait) -> Delivery:
        """Wait in this worker, or have the triggerer wait."""
        delivery = Delivery.of([wait], late_at=self.course.late_at)
        if wait.run is not None:
            delivery = delivery.judged(0, [wait.run], time.time())
        if delivery.verdict.outcome.final:
            return delivery
        if not self.task.deferrable:
            return settle(
                delivery, self.hook.get_conn, interval=self.poll_interval, log=self.log, on_late=self._tell_late
            )
        if wait.run is None:
            delivery = look(delivery, self.hook.get_conn, ONE_ATTEMPT)
            if delivery.verdict.outcome.final:
                return delivery
        return self._defer(delivery)

    def _defer(self, delivery: Delivery) -> NoReturn:
        from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

        if delivery.is_late(time.time()):
            delivery = self._tell_late(delivery)
        self.log.info("%s Waiting in the triggerer.", delivery.verdict.message)
        self.task.defer(
            trigger=QuickBIMailTaskTrigger(
                quickbi_conn_id=self.task.quickbi_conn_id,
                delivery=delivery.as_dict(),
                poke_interval=self.poll_interval,
                execute_by=self.course.execute_by,
                carry=self.course.as_dict(),  # not kwargs of defer(), which dag.test() loses
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, self.course.finish_by - time.time()) + BACKSTOP_SECONDS),
        )
        raise AssertionError("defer() does not return")

    def _read(self, event: Mapping[str, Any]) -> Delivery | None:
        """Return what a trigger has found out; ``None`` after a mere pause."""
        from airflow_provider_quickbi.triggers.quickbi import EventKind

        if self.course.phase in (Phase.PREPARING, Phase.STARTING) and event.get("kind") == EventKind.OVER:
            return None
        kind, delivery, message = read_event(event)
        if kind == EventKind.LATE and not delivery.verdict.outcome.final:
            self._defer(self._tell_late(delivery))
        if kind == EventKind.CONNECTION:
            raise QuickBIConnectionError(self._final(message))
        if kind == EventKind.EXECUTION_TIMEOUT:
            raise AirflowTaskTimeout(f"execution_timeout is over. {message}")
        if kind not in (EventKind.SETTLED, EventKind.LATE):
            raise RuntimeError(f"The trigger's event is of kind {kind!r}, which is not known and counts as no delivery")
        return delivery

    def _tell_late(self, delivery: Delivery) -> Delivery:
        self.course.late_at = None
        lateness.tell(self.task.on_late_callback, self.context, delivery, self.log)
        return delivery.told()

    # What was waited for

    def _outwaited(self, delivery: Delivery) -> None:
        """Go on to start ours after another run is over, one way or the other."""
        verdict = delivery.verdict
        if verdict.outcome not in (Outcome.SENT, Outcome.FAILED):
            self._fail(verdict)
        self.course.run = None
        self.course.phase = Phase.STARTING
        self._taken()

    def _looked(self, delivery: Delivery) -> None:
        """Go on to follow the run that was found, or decide what it means that there is none."""
        verdict, note = delivery.verdict, self._note()
        if verdict.outcome is Outcome.NOT_STARTED:
            verdict = replace(verdict, message=self._say_that_none_appeared(delivery.waits[0]))
        if verdict.outcome is Outcome.SEEN and verdict.run is not None:
            self._keep(replace(note, joined=verdict.run.task_id))
            self.log.info(
                "Run %s of %s is %s: it is the first new one since %s. One that the schedule started in the same "
                "minute could not be told apart.",
                verdict.run.task_id,
                verdict.run.exec_time.isoformat(),
                "ours" if self.course.called else "joined, and nothing is sent in this try",
                _at(note.noted_at),
            )
            self.course.run = verdict.run
            self.course.phase = Phase.FOLLOWING
            return
        if verdict.outcome is Outcome.NOT_STARTED and not note.accepted and not self.course.called:
            self.log.info("%s Nothing can be seen of an earlier start.", verdict.message)
            self.course.phase = Phase.STARTING
            return
        count_outcome(delivery)
        if verdict.outcome is Outcome.NOT_STARTED and not note.accepted:
            raise QuickBIStartUnknown(f"{verdict.message} {self._what_was_sent()} A retry looks again before it sends.")
        self._fail(verdict)

    def _say_that_none_appeared(self, wait: Wait) -> str:
        message = f"{describe(wait, time.time())} None appeared within appear_timeout ({wait.start_timeout:,.0f} s)."
        known, other = self._note().known, wait.overlooked
        if known and other is not None and other.task_id not in known:
            message += (
                f" Run {other.task_id} is new, but began before: if the clocks differ by more than clock_skew "
                f"({self._clock_skew():,.0f} s), set clock_skew."
            )
        return message

    def _followed(self, delivery: Delivery) -> dict[str, Any] | None:
        """Return the run that is over, raise what its verdict means, or go on to send anew (``None``)."""
        verdict = delivery.verdict
        if verdict.outcome in (Outcome.SENT, Outcome.SEEN):
            count_outcome(delivery)
            return self._result(delivery)
        retries = verdict.outcome is Outcome.FAILED and self.given["on_failed"] == OnRunFailed.RETRY
        if retries and verdict.run is not None and self._note().guessed:
            self.log.info("%s It is the run of an earlier try: sending anew (on_failed='retry').", verdict.message)
            self._forget_until(verdict.run)
            return None
        count_outcome(delivery)
        if retries:
            raise QuickBIRunFailed(verdict.message)
        if verdict.outcome is Outcome.FAILED:
            raise_for(verdict)
        return self._fail(verdict)

    def _fail(self, verdict: Verdict) -> NoReturn:
        """Raise what a verdict means, with what a person must know to go on."""
        if verdict.outcome is Outcome.UNAVAILABLE:
            raise_for(verdict)
        raise_for(replace(verdict, message=self._final(verdict.message)))

    def _forget_until(self, failed: MailTaskRun) -> None:
        """Let only runs count that are newer than one of an earlier try that ``FAILED``, where nothing is kept."""
        noted_at = failed.exec_time.timestamp() + self._clock_skew()
        self.course.note = Note(mail_id=self.mail_id, noted_at=noted_at, known=(failed.task_id,), guessed=True)
        self.course.run = None
        self.course.phase = Phase.STARTING

    def _result(self, delivery: Delivery) -> dict[str, Any]:
        """Return the XCom of our run."""
        self.log.info("%s", delivery.verdict.message)
        (result,) = delivery.results()
        publish(self.context, self.task.outlets, [result])
        return result


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _or_forever(seconds: float | None) -> float:
    return FOREVER if seconds is None else seconds
