"""The operators: list mail tasks, and send one at most once."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    conf,
)

from airflow_provider_quickbi import arguments, connection, lateness
from airflow_provider_quickbi.api.attempts import ONE_ATTEMPT, Retries
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.lookup import matches
from airflow_provider_quickbi.api.operations import DEFAULT_PAGE_SIZE
from airflow_provider_quickbi.delivery import DEFAULT_UNREACHABLE_TIMEOUT, Delivery, Fence, Outcome, Wait
from airflow_provider_quickbi.exceptions import (
    QuickBIMailTaskFailed,
    QuickBIRunFailed,
    QuickBIStartUnknown,
    QuickBIUnavailable,
    task_error,
)
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.links.quickbi import QuickBIConsoleLink
from airflow_provider_quickbi.metrics import count_outcome, count_start
from airflow_provider_quickbi.outcomes import carried, publish, raise_for, read_event
from airflow_provider_quickbi.starting import (
    DEFAULT_CLOCK_SKEW,
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
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_quickbi.api.models import MailTaskRun

#: Seconds that the framework's own limit of a deferral comes after ours.
BACKSTOP_SECONDS = 900.0
#: Key of the note in Airflow's ``task_state_store`` (3.3 and later).
NOTE_KEY = "quickbi_start"
#: Reads on the way to a start are tried again for about a minute.
_PATIENT = Retries(attempts=8, first_delay=1.0, max_delay=15.0)
#: Starts that never reached the service are tried again so often in one try, so many seconds apart.
_UNSENT_ATTEMPTS = 4
_UNSENT_DELAY = 5.0


class QuickBIListMailTasksOperator(BaseOperator):
    """List the Quick BI mail tasks that the AccessKey may see.

    The XCom is a list of dicts ``{mail_id, subscribe_name, paused, biz_owner_user_id, biz_owner_name}``, ready for
    ``.expand()``.

    Source: operation ``GetMailTaskList`` of product ``quickbi-public``, version ``2022-01-01``.

    :param user_nick: only mail tasks of the owner with this nickname. (templated)
    :param paused: only paused mail tasks (``True``), only those that are not (``False``), or both (``None``, the
        default). (templated)
    :param subscribe_name: only mail tasks with this name; ``*``, ``?`` and ``[...]`` make it a glob. (templated)
    :param page_size: mail tasks a call; default 25. (templated)
    :param max_mail_tasks: how many to return at the most; ``None`` (default) for all. Further pages are not read.
        (templated)
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    """

    template_fields: Sequence[str] = (
        "user_nick",
        "paused",
        "subscribe_name",
        "page_size",
        "max_mail_tasks",
        "quickbi_conn_id",
    )
    operator_extra_links = (QuickBIConsoleLink(),)
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        user_nick: str | None = None,
        paused: bool | str | None = None,
        subscribe_name: str | None = None,
        page_size: int | str = DEFAULT_PAGE_SIZE,
        max_mail_tasks: int | str | None = None,
        quickbi_conn_id: str = connection.DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.user_nick = user_nick
        self.paused = paused
        self.subscribe_name = subscribe_name
        self.page_size = page_size
        self.max_mail_tasks = max_mail_tasks
        self.quickbi_conn_id = quickbi_conn_id
        arguments.check_known(self, _LIST_ARGUMENTS)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the mail tasks."""
        given = arguments.read_all(self, _LIST_ARGUMENTS)
        most = given["max_mail_tasks"]
        name = given["subscribe_name"]
        found: list[dict[str, Any]] = []
        with QuickBIHook(self.quickbi_conn_id) as hook:
            QuickBIConsoleLink.store(context, hook.quickbi_connection.console_url)
            try:
                for mail_task in hook.get_conn().iter_mail_tasks(
                    given["user_nick"], given["paused"], given["page_size"] or DEFAULT_PAGE_SIZE
                ):
                    if name is None or matches(mail_task, name):
                        found.append(mail_task.as_dict())
                        if len(found) == most:
                            break
            except QuickBIError as error:
                raise task_error(error) from None
        self.log.info("%d mail tasks.", len(found))
        return found


class QuickBIRunMailTaskOperator(BaseOperator):
    """Send the report of a Quick BI mail task now, at most once, and wait until exactly that run is over.

    Before the one starting call the latest TaskId and the time are noted; where Airflow keeps the note over a retry (3.3
    and later) a retry, or a worker that was restarted, first looks for a run that is new since then and joins it. If
    the call's answer is lost, the run is looked for and nothing is sent again in the same try. Triggers start nothing.

    The outcome is that of ``QuickBIMailTaskSensor``: success with the run as XCom; ``QuickBIMailTaskFailed`` if it
    ``FAILED``; ``AirflowSensorTimeout`` if it was not over in time, which is never retried; ``QuickBIRequestError`` if
    Quick BI refuses. ``QuickBIUnavailable`` and ``QuickBIStartUnknown`` are retried, and the retry sends nothing twice.

    Sources: operations ``ManualRunMailTask`` and ``GetMailTaskStatus`` of product ``quickbi-public``, version
    ``2022-01-01``.

    :param mail_id: the mail task. (templated)
    :param subscribe_name: instead of ``mail_id``: its exact name. (templated)
    :param mail_owner: nickname or user id of its owner in Quick BI, where several have the name. (templated)
    :param wait_for_completion: whether to wait until the run is over (default), or only until it is seen, so that the
        XCom's ``task_id`` can be given to a sensor.
    :param deferrable: whether to wait in the triggerer; default ``[operators] default_deferrable``.
    :param poll_interval: seconds or timedelta between two looks; default 30 seconds. (templated)
    :param on_running: if a run is under way already: ``wait`` (default) until it is over and then start ours,
        ``attach`` to it and start none, ``skip`` the task, or ``fail``. (templated)
    :param on_schedule_limit: if the service wants no start for some minutes: ``wait`` (default) as long as it says, or
        ``fail``. (templated)
    :param on_failed: ``fail`` (default): a run that ``FAILED`` is final; ``retry``: Airflow's ``retries`` send anew.
        (templated)
    :param appear_timeout: seconds or timedelta within which a started run must be seen; default 5 minutes. (templated)
    :param timeout: seconds or timedelta that one try may take in all; default 3 hours. (templated)
    :param unreachable_timeout: seconds or timedelta of nothing but failed attempts to ask; default 30 minutes.
        (templated)
    :param clock_skew: seconds that Quick BI's clock may be behind this machine's; default 60. (templated)
    :param deadline: when the delivery is late, see ``QuickBIMailTaskSensor``. The wait goes on. (templated)
    :param on_late_callback: called once with the context if the delivery is late: a callable, a notifier, or a list.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    """

    template_fields: Sequence[str] = (
        "mail_id",
        "subscribe_name",
        "mail_owner",
        "poll_interval",
        "on_running",
        "on_schedule_limit",
        "on_failed",
        "appear_timeout",
        "timeout",
        "unreachable_timeout",
        "clock_skew",
        "deadline",
        "quickbi_conn_id",
    )
    operator_extra_links = (QuickBIConsoleLink(),)
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        mail_id: str | None = None,
        subscribe_name: str | None = None,
        mail_owner: str | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta | str = 30,
        on_running: str = OnRunning.WAIT.value,
        on_schedule_limit: str = OnScheduleLimit.WAIT.value,
        on_failed: str = OnRunFailed.FAIL.value,
        appear_timeout: float | timedelta | str = 300,
        timeout: float | timedelta | str = 3 * 3600,
        unreachable_timeout: float | timedelta | str = DEFAULT_UNREACHABLE_TIMEOUT,
        clock_skew: float | timedelta | str = DEFAULT_CLOCK_SKEW,
        deadline: datetime | str | None = None,
        on_late_callback: Callable[[Context], Any] | Sequence[Callable[[Context], Any]] | None = None,
        quickbi_conn_id: str = connection.DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mail_id = mail_id
        self.subscribe_name = subscribe_name
        self.mail_owner = mail_owner
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.on_running = on_running
        self.on_schedule_limit = on_schedule_limit
        self.on_failed = on_failed
        self.appear_timeout = appear_timeout
        self.timeout = timeout
        self.unreachable_timeout = unreachable_timeout
        self.clock_skew = clock_skew
        self.deadline = deadline
        self.on_late_callback = on_late_callback
        self.quickbi_conn_id = quickbi_conn_id
        if (mail_id is None) == (subscribe_name is None):
            raise ValueError(f"{type(self).__name__} needs either mail_id or subscribe_name")
        arguments.check_known(self, _RUN_ARGUMENTS)

    def execute(self, context: Context) -> Any:
        """Send the mail, unless a note says that an earlier try may have done so; then wait for its run."""
        given = arguments.read_all(self, _RUN_ARGUMENTS)
        now = time.time()
        with QuickBIHook(self.quickbi_conn_id) as hook:
            QuickBIConsoleLink.store(context, hook.quickbi_connection.console_url)
            mail_id = (
                given["mail_id"] or hook.find_mail_tasks([given["subscribe_name"]], given["mail_owner"])[0].mail_id
            )
            late = arguments.deadline("deadline", self.deadline, lateness.run_began(context) or datetime.now(UTC))
            course = {
                "mail_id": mail_id,
                "begun": now,
                "execute_by": None if self.execution_timeout is None else now + self.execution_timeout.total_seconds(),
                "late_at": late.timestamp() if late else None,
            }
            return _Try(self, given, course, hook, context).run()

    def resume_waiting_to_start(self, context: Context, event: Any = None) -> Any:
        """Start the mail after the run that was under way, or after the minutes that the service asked for.

        :param context: of the task.
        :param event: of a trigger.
        """
        given = arguments.read_all(self, _RUN_ARGUMENTS)
        with QuickBIHook(self.quickbi_conn_id) as hook:
            attempt = _Try(self, given, carried(event), hook, context)
            if attempt.reads_that_it_may_go_on(event):
                return attempt.start()
        return None

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Do what the trigger's event says of our run.

        :param context: of the task.
        :param event: of :class:`airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskTrigger`.
        """
        given = arguments.read_all(self, _RUN_ARGUMENTS)
        with QuickBIHook(self.quickbi_conn_id) as hook:
            return _Try(self, given, carried(event), hook, context).conclude_event(event)

    def on_kill(self) -> None:
        """Say that nothing is called back."""
        self.log.warning("The task was stopped. Quick BI cannot call a mail back: one that was started goes out.")


class _Try:
    """One try of the run operator, over all its deferrals.

    :param task: the operator.
    :param given: its arguments as values.
    :param course: what this try must remember from one deferral to the next, as plain JSON.
    :param hook: of this worker process.
    :param context: of the task.
    """

    def __init__(
        self,
        task: QuickBIRunMailTaskOperator,
        given: dict[str, Any],
        course: dict[str, Any],
        hook: QuickBIHook,
        context: Any,
    ) -> None:
        self.task = task
        self.given = given
        self.course = course
        self.hook = hook
        self.context = context
        self.log = task.log
        self.mail_id: str = course["mail_id"]
        self.finish_by: float = course["begun"] + (given["timeout"] or 1e10)

    # The note

    def _store(self) -> Any:
        return self.context.get("task_state_store")

    def _kept_note(self) -> Note | None:
        """Return what an earlier try noted; where Airflow keeps nothing, a retry takes the DAG run's begin for it."""
        if (store := self._store()) is not None:
            note = Note.from_dict(store.get(NOTE_KEY))
            return note if note is not None and note.mail_id == self.mail_id else None
        began = lateness.run_began(self.context)
        if began is not None and lateness.is_retry(self.task, self.context):
            return Note(mail_id=self.mail_id, noted_at=began.timestamp())
        return None

    def _keep(self, note: Note) -> None:
        self.course["note"] = note.as_dict()
        if (store := self._store()) is not None:
            store.set(NOTE_KEY, note.as_dict())

    def _drop_note(self) -> None:
        self.course.pop("note", None)
        if (store := self._store()) is not None:
            store.delete(NOTE_KEY)

    # Before the start

    def run(self) -> Any:
        """Join the run of an earlier try, or start one."""
        note = self._kept_note()
        if note is None:
            return self.start()
        self.log.info(
            "An earlier try may have started mail task %s after %s: looking for its run before anything is sent.",
            self.mail_id,
            datetime.fromtimestamp(note.noted_at, UTC).isoformat(timespec="seconds"),
        )
        self.course["recovered"] = True
        return self._follow(note)

    def start(self) -> Any:
        """Start our run, once nothing stands in the way, and follow it."""
        self.course["recovered"] = False
        unsent = 0
        while True:
            execute_by = self.course.get("execute_by")
            if execute_by is not None and time.time() >= execute_by:
                raise AirflowTaskTimeout(f"execution_timeout is over; mail task {self.mail_id} was not started.")
            if time.time() >= self.finish_by:
                raise AirflowSensorTimeout(
                    f"Mail task {self.mail_id}: the timeout is over and the mail could not be started. Nothing was sent."
                )
            run = self._latest_run()
            if run is not None and under_way(run):
                if self._attaches():
                    return self._attach(run)
                self._wait_for_other(run)
                continue
            note = Note(mail_id=self.mail_id, noted_at=time.time(), task_id=run.task_id if run else None)
            self._keep(note)
            self.log.info("Starting mail task %s; its latest run is %s.", self.mail_id, run.task_id if run else "none")
            answer = self._call()
            match meaning_of(answer):
                case StartAnswer.ACCEPTED:
                    count_start()
                    note = replace(note, accepted=True)
                    self._keep(note)
                    return self._follow(note)
                case StartAnswer.UNKNOWN:
                    self.log.warning(
                        "It is not known whether mail task %s was started (%s). Looking for its run; nothing is sent "
                        "again in this try.",
                        self.mail_id,
                        answer,
                    )
                    return self._follow(note)
            self._drop_note()
            if meaning_of(answer) is StartAnswer.RUNNING and self._attaches():
                self.log.info("A run of mail task %s is under way that was not seen yet: looking for it.", self.mail_id)
                self.course["recovered"] = True  # If it does not appear, starting is safe: ours was refused.
                return self._follow(replace(note, noted_at=run.exec_time.timestamp() if run else 0.0))
            if isinstance(answer, QuickBIError):
                unsent = self._hold_on(answer, unsent)

    def _call(self) -> bool | QuickBIError:
        try:
            return self.hook.get_conn().manual_run_mail_task(self.mail_id)
        except QuickBIError as error:
            return error

    def _latest_run(self) -> MailTaskRun | None:
        try:
            return latest(self.hook.get_conn().get_mail_task_status(self.mail_id, retries=_PATIENT))
        except QuickBIError as error:
            raise task_error(error) from None

    def _hold_on(self, error: QuickBIError, unsent: int) -> int:
        """Wait after a start that carried out nothing, or give up."""
        match meaning_of(error):
            case StartAnswer.NOT_SENT:
                if unsent + 1 >= _UNSENT_ATTEMPTS:
                    raise QuickBIUnavailable(f"Quick BI could not be asked to send mail task {self.mail_id}: {error}")
                time.sleep(_UNSENT_DELAY)
                return unsent + 1
            case StartAnswer.RUNNING:
                self._refuse_running("a run is under way")
                self._pause(self.given["poll_interval"] or 1.0, f"A run is under way: {error}")
            case StartAnswer.LATER:
                if self.given["on_schedule_limit"] == OnScheduleLimit.FAIL and error.kind.value == "not_started":
                    raise AirflowFailException(f"Nothing was sent: {error} (on_schedule_limit='fail')")
                seconds = DEFAULT_PAUSE if error.retry_after is None else error.retry_after
                self._pause(seconds if error.kind.value == "not_started" else error.retry_after or 1.0, str(error))
            case _:
                raise task_error(error) from None
        return unsent

    def _attaches(self) -> bool:
        return bool(self.given["on_running"] == OnRunning.ATTACH)

    def _refuse_running(self, what: str) -> None:
        if self.given["on_running"] == OnRunning.SKIP:
            raise AirflowSkipException(f"Mail task {self.mail_id}: {what}; nothing was started (on_running='skip')")
        if self.given["on_running"] == OnRunning.FAIL:
            raise AirflowFailException(f"Mail task {self.mail_id}: {what}; nothing was started (on_running='fail')")

    def _attach(self, run: MailTaskRun) -> Any:
        self.log.info("Run %s is under way: attached to it; nothing was started.", run.task_id)
        note = Note(mail_id=self.mail_id, noted_at=time.time(), accepted=True, joined=run.task_id)
        self._keep(note)
        return self._follow(note)

    def _wait_for_other(self, run: MailTaskRun) -> None:
        """Wait until a run that is under way is over."""
        self._refuse_running(f"run {run.task_id} of {run.exec_time.isoformat()} is {run.status}")
        self.log.info("Run %s is %s: ours is started when it is over.", run.task_id, run.status)
        delivery = Delivery.of([self._wait(Fence(task_id=run.task_id), run=run)], late_at=self.course.get("late_at"))
        if self.task.deferrable:
            self._defer_to_trigger(delivery, "resume_waiting_to_start")
        self._check_other(self._settle(delivery))

    def _check_other(self, delivery: Delivery) -> None:
        """Raise unless the run that was under way is over, one way or the other."""
        if delivery.verdict.outcome not in (Outcome.SENT, Outcome.FAILED):
            raise_for(delivery.verdict)

    def _pause(self, seconds: float, why: str) -> None:
        until = min(time.time() + seconds, self.finish_by, self.course.get("execute_by") or self.finish_by)
        self.log.info("Nothing was sent. Trying again in %.0f s. %s", max(0.0, until - time.time()), why)
        if not self.task.deferrable or seconds <= 2.0:
            time.sleep(max(0.0, until - time.time()))
            return
        from airflow_provider_quickbi.triggers.quickbi import QuickBIPauseTrigger

        self.task.defer(
            trigger=QuickBIPauseTrigger(until=until, carry=self.course),
            method_name="resume_waiting_to_start",
            timeout=timedelta(seconds=seconds + BACKSTOP_SECONDS),
        )

    def reads_that_it_may_go_on(self, event: Any) -> bool:
        """Check the event of what was waited for before the start; raises if the start must not be tried."""
        from airflow_provider_quickbi.triggers.quickbi import EventKind

        if isinstance(event, dict) and event.get("kind") == EventKind.OVER:
            return True
        kind, delivery, message = read_event(event)
        if kind == EventKind.LATE and not delivery.verdict.outcome.final:
            self._defer_to_trigger(self._tell_late(delivery), "resume_waiting_to_start")
        self._raise_for_kind(kind, message)
        self._check_other(delivery)
        return True

    # After the start

    def _wait(self, fence: Fence, **known: Any) -> Wait:
        return Wait(
            mail_id=self.mail_id,
            fence=fence,
            since=time.time(),
            finish_by=self.finish_by,
            unreachable_timeout=self.given["unreachable_timeout"] or 1e10,
            **known,
        )

    def _follow(self, note: Note) -> Any:
        """Look for the run of a note, and wait for it."""
        self.course["note"] = note.as_dict()
        wait = self._wait(
            note.fence(self.given["clock_skew"] or 0.0),
            start_timeout=self.given["appear_timeout"],
            until_seen=not self.task.wait_for_completion,
        )
        delivery = Delivery.of([wait], late_at=self.course.get("late_at"))
        delivery = look(delivery, self.hook.get_conn, ONE_ATTEMPT if self.task.deferrable else Retries())
        self._note_run(delivery)
        if delivery.verdict.outcome.final:
            return self.conclude(delivery)
        if self.task.deferrable:
            self._defer_to_trigger(delivery, "execute_complete")
        return self.conclude(self._settle(delivery))

    def _settle(self, delivery: Delivery) -> Delivery:
        return settle(
            delivery,
            self.hook.get_conn,
            interval=self.given["poll_interval"] or 0.0,
            log=self.log,
            on_late=self._tell_late,
        )

    def _defer_to_trigger(self, delivery: Delivery, method_name: str) -> NoReturn:
        from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

        if delivery.is_late(time.time()):
            delivery = self._tell_late(delivery)
        self.log.info("%s Waiting in the triggerer.", delivery.verdict.message)
        self.task.defer(
            trigger=QuickBIMailTaskTrigger(
                quickbi_conn_id=self.task.quickbi_conn_id,
                delivery=delivery.as_dict(),
                poke_interval=self.given["poll_interval"] or 0.0,
                execute_by=self.course.get("execute_by"),
                carry=self.course,
            ),
            method_name=method_name,
            timeout=timedelta(seconds=max(0.0, self.finish_by - time.time()) + BACKSTOP_SECONDS),
        )
        raise AssertionError("defer() does not return")

    def conclude_event(self, event: Any) -> Any:
        """Do what a trigger's event says of our run."""
        from airflow_provider_quickbi.triggers.quickbi import EventKind

        kind, delivery, message = read_event(event)
        self._note_run(delivery)
        if kind == EventKind.LATE and not delivery.verdict.outcome.final:
            self._defer_to_trigger(self._tell_late(delivery), "execute_complete")
        self._raise_for_kind(kind, message)
        return self.conclude(delivery)

    def _raise_for_kind(self, kind: str, message: str) -> None:
        from airflow_provider_quickbi.triggers.quickbi import EventKind

        if kind == EventKind.CONNECTION:
            raise AirflowFailException(message)
        if kind == EventKind.EXECUTION_TIMEOUT:
            raise AirflowTaskTimeout(f"execution_timeout is over. {message}")
        if kind not in (EventKind.SETTLED, EventKind.LATE):
            raise RuntimeError(f"The trigger's event is of kind {kind!r}, which is not known and counts as no delivery")

    def _note_run(self, delivery: Delivery) -> None:
        """Remember which run is ours, and say so once."""
        note = Note.from_dict(self.course.get("note"))
        run = delivery.waits[0].run
        if note is None or run is None or note.joined is not None:
            return
        self._keep(replace(note, joined=run.task_id))
        self.log.info(
            "Run %s of %s is ours: it is the first new one since the mail was started. One that the schedule started "
            "in the same minute could not be told apart.",
            run.task_id,
            run.exec_time.isoformat(),
        )

    def conclude(self, delivery: Delivery) -> Any:
        """Return the XCom of a run that counts, or raise what its verdict means."""
        verdict = delivery.verdict
        count_outcome(delivery)
        if verdict.outcome is Outcome.NOT_STARTED:
            return self._conclude_without_run(verdict.message)
        if verdict.outcome is Outcome.UNAVAILABLE:
            raise_for(verdict)  # The note is kept: the retry joins the run.
        if self._retries_an_earlier_failure(verdict.outcome):
            self.log.info("%s It is the run of an earlier try: sending anew (on_failed='retry').", verdict.message)
            return self.start()
        self._drop_note()
        if verdict.outcome is Outcome.FAILED and self.given["on_failed"] == OnRunFailed.RETRY:
            raise QuickBIRunFailed(verdict.message)
        if verdict.outcome is Outcome.FAILED:
            raise QuickBIMailTaskFailed(verdict.message, verdict.run)
        if verdict.outcome not in (Outcome.SENT, Outcome.SEEN):
            raise_for(verdict)
        self.log.info("%s", verdict.message)
        results = delivery.results()
        publish(self.context, self.task.outlets, [result for result in results if result["status"] == "SENT"])
        return results[0]

    def _retries_an_earlier_failure(self, outcome: Outcome) -> bool:
        """Whether this retry is there to send anew, on an Airflow that keeps no note of what the last try saw."""
        return (
            outcome is Outcome.FAILED
            and self.given["on_failed"] == OnRunFailed.RETRY
            and bool(self.course.get("recovered"))
            and self._store() is None
        )

    def _conclude_without_run(self, message: str) -> Any:
        """Decide what it means that no run appeared in time."""
        note = Note.from_dict(self.course.get("note"))
        if note is not None and note.accepted:
            self._drop_note()
            raise AirflowSensorTimeout(
                f"{message} Quick BI had accepted the start, so nothing is sent again. Look into the console before "
                "you clear this task: that sends the mail anew."
            )
        if self.course.get("recovered"):
            self.log.info("%s The earlier try started nothing that can be seen.", message)
            self._drop_note()
            return self.start()
        raise QuickBIStartUnknown(
            f"{message} It is not known whether Quick BI accepted the start. A retry looks again before it sends."
        )

    def _tell_late(self, delivery: Delivery) -> Delivery:
        self.course["late_at"] = None
        lateness.tell(self.task.on_late_callback, self.context, delivery, self.log)
        return delivery.told()


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    return lambda name, value: arguments.choice(name, value, choices)


_LIST_ARGUMENTS: dict[str, Callable[[str, Any], Any]] = {
    "user_nick": arguments.optional_text,
    "paused": arguments.flag,
    "subscribe_name": arguments.optional_text,
    "page_size": arguments.count,
    "max_mail_tasks": arguments.count,
}

_RUN_ARGUMENTS: dict[str, Callable[[str, Any], Any]] = {
    "mail_id": arguments.text,
    "subscribe_name": arguments.text,
    "mail_owner": arguments.text,
    "poll_interval": arguments.seconds,
    "on_running": _one_of(*OnRunning),
    "on_schedule_limit": _one_of(*OnScheduleLimit),
    "on_failed": _one_of(*OnRunFailed),
    "appear_timeout": arguments.seconds,
    "timeout": arguments.seconds,
    "unreachable_timeout": arguments.seconds,
    "clock_skew": arguments.seconds,
}
