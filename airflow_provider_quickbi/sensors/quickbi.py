"""QuickBIMailTaskSensor: wait until a report really went out."""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_quickbi import _options, connection
from airflow_provider_quickbi._metrics import Detection, count_outcome
from airflow_provider_quickbi._wait import deadline
from airflow_provider_quickbi._wait.evaluate import (
    DEFAULT_UNREACHABLE_TIMEOUT,
    OnFailed,
    Outcome,
    RunSelector,
    WaitGroup,
    WaitState,
)
from airflow_provider_quickbi._wait.events import carried, publish, raise_for, read_event
from airflow_provider_quickbi._wait.logging import Progress
from airflow_provider_quickbi._wait.sync import poll_once, seconds_until_next_poll
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy
from airflow_provider_quickbi.exceptions import QuickBIConnectionUnreadable, QuickBIUnavailable
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.links.quickbi import QuickBIConsoleLink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context

#: Seconds that the framework's own limit of a deferral comes after ours, which looks once more before it gives up.
BACKSTOP_SECONDS = 900.0
#: Key of what a rescheduled sensor has learnt, in Airflow's ``task_state_store`` (3.3 and later).
STATE_KEY = "quickbi_wait"
#: Seconds between two attempts to look a name up, at the most.
_LOOKUP_INTERVAL_SECONDS = 30.0
_FOREVER = 1e10


class QuickBIMailTaskSensor(BaseSensorOperator):
    """Wait until a run of a Quick BI mail task is ``SENT``.

    Which run counts: ``quickbi_task_id`` names it; with ``executed_after`` it is the first one that began at or after
    that instant; with neither it is the latest one, whatever its age. Once it has been seen, only that run is followed.

    In all modes (``poke``, ``reschedule``, deferrable) the outcome is the same: success with the run as XCom;
    ``QuickBIMailTaskFailed`` if it ``FAILED``; ``AirflowSensorTimeout`` if it did not start or was not over in time;
    ``QuickBIRequestError`` if Quick BI refuses; ``QuickBIUnavailable`` (retried) if it could not be asked for long.

    Airflow's own arguments of a sensor (``poke_interval``, ``timeout``, ``soft_fail``, ``mode``,
    ``exponential_backoff``, ``max_wait``, ``silent_fail``, ``never_fail``) and ``execution_timeout`` mean the same
    deferred as not deferred.

    Below Airflow 3.3 a sensor with ``mode="reschedule"`` begins anew with each look: it does not stay with the run that
    it has seen, an outage ends in its ``timeout`` and not in ``unreachable_timeout``, and it knows by the time only
    whether somebody was told that the delivery is late. Let it be deferrable there.

    Source: operation ``GetMailTaskStatus`` of product ``quickbi-public``, version ``2022-01-01``.

    :param mail_id: the mail task, or a list of them. (templated)
    :param subscribe_name: instead of ``mail_id``: its exact name, or a list of names. (templated)
    :param mail_owner: nickname or user id of its owner in Quick BI, where several have the name. (templated)
    :param quickbi_task_id: TaskId of the run. (templated)
    :param executed_after: a datetime or ISO 8601 text; without a zone it is UTC. (templated)
    :param on_failed: ``fail`` (default), or ``wait`` to wait for a later run if one ``FAILED``. (templated)
    :param start_timeout: seconds or timedelta within which a run that counts must be seen, counted from
        ``executed_after`` where that is later than the begin of the wait; ``None`` (default) for no limit. (templated)
    :param unreachable_timeout: seconds or timedelta of nothing but failed attempts to ask; default 30 minutes.
        (templated)
    :param require: with several mail tasks: ``all`` (default), ``any`` or how many must be sent. (templated)
    :param deadline: when the delivery is late: a datetime, ISO 8601 text, or a wall time in a zone on the day on
        which the DAG run began, such as ``09:00 Asia/Shanghai``. The wait goes on. (templated)
    :param on_late_callback: called once with the context if the delivery is late: a callable, a notifier, or a list.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    :param deferrable: whether to wait in the triggerer; default ``[operators] default_deferrable``.
    :param poke_interval: seconds or timedelta between two looks; default 30 seconds.
    """

    template_fields: Sequence[str] = (
        "mail_id",
        "subscribe_name",
        "mail_owner",
        "quickbi_task_id",
        "executed_after",
        "on_failed",
        "start_timeout",
        "unreachable_timeout",
        "require",
        "deadline",
        "quickbi_conn_id",
    )
    operator_extra_links = (QuickBIConsoleLink(),)
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        mail_id: str | Sequence[str] | None = None,
        subscribe_name: str | Sequence[str] | None = None,
        mail_owner: str | None = None,
        quickbi_task_id: str | int | None = None,
        executed_after: datetime | str | None = None,
        on_failed: str = OnFailed.FAIL.value,
        start_timeout: float | timedelta | str | None = None,
        unreachable_timeout: float | timedelta | str = DEFAULT_UNREACHABLE_TIMEOUT,
        require: str | int = "all",
        deadline: datetime | str | None = None,
        on_late_callback: Callable[[Context], Any] | Sequence[Callable[[Context], Any]] | None = None,
        quickbi_conn_id: str = connection.DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.mail_id = mail_id
        self.subscribe_name = subscribe_name
        self.mail_owner = mail_owner
        self.quickbi_task_id = quickbi_task_id
        self.executed_after = executed_after
        self.on_failed = on_failed
        self.start_timeout = start_timeout
        self.unreachable_timeout = unreachable_timeout
        self.require = require
        self.deadline = deadline
        self.on_late_callback = on_late_callback
        self.quickbi_conn_id = quickbi_conn_id
        self.deferrable = deferrable
        self._delivery: WaitGroup | None = None
        self._progress: Progress | None = None
        self._detection = Detection()
        self._rendered = frozenset(name for name in _NAMES if _options.is_template(getattr(self, name)))
        self._check_what_is_known()

    def _check_what_is_known(self) -> None:
        """Refuse, while the DAG is parsed, what cannot be right whatever the templates render to."""
        if (self.mail_id is None) == (self.subscribe_name is None):
            raise ValueError(f"{type(self).__name__} needs either mail_id or subscribe_name")
        if self.quickbi_task_id is not None and self.executed_after is not None:
            raise ValueError("quickbi_task_id and executed_after cannot be given together: the first names the run")
        if self.quickbi_task_id is not None and self.on_failed == OnFailed.WAIT:
            raise ValueError("on_failed='wait' waits for a later run and cannot be given with quickbi_task_id")
        _options.check_known(self, _ARGUMENTS)
        if not _options.is_template(self.deadline):
            _options.deadline("deadline", self.deadline, datetime.now(UTC))

    # Waiting in a worker: poke and reschedule mode

    def execute(self, context: Context) -> Any:
        """Wait, in this worker or in the triggerer."""
        self._delivery = self._progress = None
        self._detection = Detection()
        with self._softened():
            self._store_link(context)
            if self.deferrable:
                return self._wait_deferred(self._first_poll(self._start_wait(context)), context)
            # Airflow 2.11 takes a call through super() for one from outside a task: it warns, or even refuses.
            return inspect.unwrap(BaseSensorOperator.execute)(self, context)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once at every mail task that is not settled, and decide."""
        with self._softened():
            return self._poke(context)

    def _poke(self, context: Context) -> bool | PokeReturnValue:
        known = self._delivery or self._restored(context)
        group = self._poll_once(known or self._start_wait(context), RetryPolicy())
        if group.is_late(time.time()):
            group = self._notify_late(group, context) if self._notifies_late(group, context) else group.notified()
        self._delivery = group
        evaluation = group.evaluation
        if evaluation.outcome is Outcome.WAITING:
            self._report(evaluation.message, known)
            if self.reschedule and group != known:
                self._remember(group, context)
            return False
        self._forget(context)
        return PokeReturnValue(is_done=True, xcom_value=self._conclude(group, context))

    def _report(self, message: str, known: WaitGroup | None) -> None:
        """Tell what is new; a rescheduled sensor told the rest when it was last here."""
        if self._progress is None:
            self._progress = Progress(self.log)
            if known is not None and known.evaluation.message == message:
                return
        self._progress.report(message, time.time())

    def _get_next_poke_interval(self, *args: Any, **kwargs: Any) -> float:
        """Sleep until something can happen: not past a limit, and not before ``executed_after``."""
        interval: float = super()._get_next_poke_interval(*args, **kwargs)
        if self._delivery is None:
            return interval
        return seconds_until_next_poll(self._delivery, interval, time.time())

    # Waiting in the triggerer

    def _wait_deferred(self, group: WaitGroup, context: Context) -> Any:
        """Finish if the delivery is settled, else hand it to the triggerer."""
        now = time.time()
        if group.is_late(now):
            group = self._notify_late(group, context)
        if group.evaluation.outcome.final:
            return self._conclude(group, context)
        self.log.info("%s Waiting in the triggerer.", group.evaluation.message)
        self._defer(group, None if self.execution_timeout is None else now + self.execution_timeout.total_seconds())
        return None

    def _defer(self, group: WaitGroup, execute_by: float | None, polls: list[list[float]] | None = None) -> None:
        from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

        finish_by = max(wait.finish_by or 0.0 for wait in group.waits)
        self.defer(
            trigger=QuickBIMailTaskTrigger(
                quickbi_conn_id=self.quickbi_conn_id,
                group=group.as_dict(),
                poke_interval=self.poke_interval,
                exponential_backoff=bool(self.exponential_backoff),
                max_wait=self._max_wait_seconds(),
                execute_by=execute_by,
                carry={"execute_by": execute_by},
                polls=polls,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, finish_by - time.time()) + BACKSTOP_SECONDS),
        )

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Do what the trigger's event says.

        :param context: of the task.
        :param event: of :class:`airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskTrigger`.
        """
        with self._softened():
            return self._complete(context, event)

    def _complete(self, context: Context, event: Any) -> Any:
        from airflow_provider_quickbi.triggers.quickbi import EventKind

        kind, group, message = read_event(event)
        if kind == EventKind.CONNECTION:
            raise AirflowFailException(message)
        if kind == EventKind.EXECUTION_TIMEOUT:
            raise AirflowTaskTimeout(f"execution_timeout is over. {message}")
        if kind == EventKind.LATE and not group.evaluation.outcome.final:
            self._defer(self._notify_late(group, context), carried(event).get("execute_by"))
        if kind == EventKind.LEARNT and not group.evaluation.outcome.final:
            self._defer(group, carried(event).get("execute_by"), event.get("polls"))
        if kind not in (EventKind.SETTLED, EventKind.LATE):
            raise RuntimeError(f"The trigger's event is of kind {kind!r}, which is not known and counts as no delivery")
        return self._conclude(group, context)

    def on_kill(self) -> None:
        """Say that nothing is called back."""
        self.log.info("The wait was ended. Nothing is called back: a mail that is under way goes out.")

    # What all modes share

    @contextmanager
    def _softened(self) -> Iterator[None]:
        """Skip where ``soft_fail`` or ``never_fail`` asks for it, in all modes alike, and say why in the log."""
        try:
            yield
        except (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout) as error:
            if not (self.soft_fail or self.never_fail):
                raise
            raise self._skip(error) from error
        except RuntimeError as error:
            if not self.never_fail:
                raise
            raise self._skip(error) from error

    def _skip(self, error: BaseException) -> AirflowSkipException:
        reason = f"{type(error).__name__}: {error}"
        self.log.warning("%s Skipping, as soft_fail or never_fail asks for.", reason)
        return AirflowSkipException(reason)

    def _start_wait(self, context: Context) -> WaitGroup:
        """Read the rendered arguments and return a delivery of which nothing is known yet."""
        try:
            return self._delivery_of(context)
        except _options.ArgumentError as error:
            raise AirflowFailException(f"{self.task_id}: {error}") from None

    def _delivery_of(self, context: Context) -> WaitGroup:
        names = {name: partial(_options.texts, rendered=name in self._rendered) for name in _NAMES}
        given = _options.read_all(self, _ARGUMENTS | names)
        if not given["mail_id"] and not given["subscribe_name"]:
            raise _options.ArgumentError("neither mail_id nor subscribe_name was rendered to anything")
        since = self._started_at(context)
        unreachable = given["unreachable_timeout"]
        unreachable = _FOREVER if self.silent_fail or unreachable is None else unreachable
        mail_ids = given["mail_id"] or self._mail_ids_of(
            given["subscribe_name"], given["mail_owner"], since, unreachable
        )
        if given["quickbi_task_id"] is not None and len(mail_ids) > 1:
            raise _options.ArgumentError("quickbi_task_id names one run and cannot be given with several mail tasks")
        template = WaitState(
            mail_id="",
            selector=RunSelector(task_id=given["quickbi_task_id"], executed_after=given["executed_after"]),
            since=since,
            on_failed=OnFailed(given["on_failed"]),
            start_timeout=given["start_timeout"],
            finish_by=since + self._timeout_seconds(),
            unreachable_timeout=unreachable,
        )
        late = _options.deadline("deadline", self.deadline, deadline.run_started(context) or datetime.now(UTC))
        return WaitGroup.of(
            [replace(template, mail_id=mail_id) for mail_id in mail_ids],
            required=_options.required_of(given["require"], len(mail_ids)),
            late_at=deadline.pending(late.timestamp() if late else None, context),
        )

    def _mail_ids_of(
        self, names: tuple[str, ...], owner: str | None, since: float, unreachable_timeout: float
    ) -> tuple[str, ...]:
        """Look names up, as patiently as a status is asked for, but holding the worker."""
        begun = time.time()
        progress = Progress(self.log)
        while True:
            try:
                with QuickBIHook(self.quickbi_conn_id) as hook:
                    return tuple(mail_task.mail_id for mail_task in hook.find_mail_tasks(names, owner))
            except QuickBIUnavailable as error:
                now = time.time()
                if now >= since + self._timeout_seconds():
                    raise AirflowSensorTimeout(f"The timeout is over and no name could be looked up. {error}") from None
                if now - begun >= unreachable_timeout:
                    raise
                progress.report(f"{error} Looking the names up again.", now)
            time.sleep(min(self.poke_interval, _LOOKUP_INTERVAL_SECONDS))

    def _first_poll(self, group: WaitGroup) -> WaitGroup:
        """Take the first look on the worker; what is throttled or unreachable is left to the triggerer."""
        return self._poll_once(group, NO_RETRY)

    def _poll_once(self, group: WaitGroup, retries: RetryPolicy) -> WaitGroup:
        with QuickBIHook(self.quickbi_conn_id) as hook:
            return poll_once(group, hook.get_conn, retries, self._detection)

    def _conclude(self, group: WaitGroup, context: Context) -> Any:
        """Return the XCom of a delivery that was sent, or raise what its verdict means."""
        evaluation = group.evaluation
        count_outcome(group)
        if evaluation.outcome is Outcome.UNAVAILABLE and self.silent_fail:
            raise AirflowSensorTimeout(evaluation.message)
        if evaluation.outcome is not Outcome.SENT:
            raise_for(evaluation)
        self.log.info("%s", evaluation.message)
        self._warn_about_old_runs(group, context)
        results = group.results()
        publish(context, self.outlets, [result for result in results if result["status"] == "SENT"])
        return results if self._is_several() else results[0]

    def _is_several(self) -> bool:
        """Whether a list was given, or rendered, so that the result is a list, too."""
        name = "mail_id" if self.mail_id is not None else "subscribe_name"
        return _options.as_list(getattr(self, name), rendered=name in self._rendered) is not None

    def _warn_about_old_runs(self, group: WaitGroup, context: Context) -> None:
        """Say that the latest run may be an old one, where nothing says which run counts."""
        began = deadline.run_started(context)
        for wait, evaluation in zip(group.waits, group.evaluations, strict=True):
            unfenced = wait.selector.task_id is None and wait.selector.executed_after is None
            if unfenced and began is not None and evaluation.run is not None and evaluation.run.exec_time < began:
                self.log.warning(
                    "Run %s of mail task %s began at %s, before this DAG run (%s). Give executed_after to wait for a "
                    "later one.",
                    evaluation.run.task_id,
                    wait.mail_id,
                    evaluation.run.exec_time.isoformat(),
                    began.isoformat(),
                )

    def _notify_late(self, group: WaitGroup, context: Context) -> WaitGroup:
        deadline.notify(self.on_late_callback, context, group, self.log)
        return group.notified()

    def _notifies_late(self, group: WaitGroup, context: Context) -> bool:
        """Whether nobody was told yet; below Airflow 3.3 a rescheduled sensor knows it only by the time."""
        if not self.reschedule or "task_state_store" in context or group.late_at is None:
            return True
        first_look = deadline.first_reschedule_date(self, context) is None
        return first_look or time.time() - group.late_at < self.poke_interval

    def _store_link(self, context: Context) -> None:
        """Store the link, and fail before the wait if there is no connection; later the wait outlasts that."""
        try:
            QuickBIConsoleLink.store(context, QuickBIHook(self.quickbi_conn_id).quickbi_connection.console_url)
        except QuickBIConnectionUnreadable:
            if not self.reschedule or deadline.first_reschedule_date(self, context) is None:
                raise

    # Time and memory, as Airflow counts and keeps them

    def _started_at(self, context: Context) -> float:
        """Return when Airflow begins to count ``timeout``: with the first look, whatever was rescheduled since."""
        if not self.reschedule or self.deferrable:
            return time.time()
        first = deadline.first_reschedule_date(self, context) or context["ti"].start_date
        return first.timestamp() if first else time.time()

    def _timeout_seconds(self) -> float:
        timeout: Any = self.timeout
        return float(timeout.total_seconds() if isinstance(timeout, timedelta) else timeout)

    def _max_wait_seconds(self) -> float | None:
        max_wait: Any = self.max_wait
        return max_wait.total_seconds() if isinstance(max_wait, timedelta) else max_wait

    def _restored(self, context: Context) -> WaitGroup | None:
        """Return what this try learnt before it was rescheduled, where Airflow keeps it (3.3 and later)."""
        store = context.get("task_state_store") if self.reschedule else None
        if store is None:
            return None
        kept = store.get(STATE_KEY)
        if not isinstance(kept, dict) or kept.get("try_number") != context["ti"].try_number:
            return None
        try:
            return WaitGroup.from_dict(cast("Any", kept["group"]))
        except (KeyError, ValueError):
            return None

    def _remember(self, group: WaitGroup, context: Context) -> None:
        if (store := context.get("task_state_store")) is not None:
            store.set(STATE_KEY, {"try_number": context["ti"].try_number, "group": group.as_dict()})

    def _forget(self, context: Context) -> None:
        if self.reschedule and (store := context.get("task_state_store")) is not None:
            store.delete(STATE_KEY)


def _on_failed(name: str, value: Any) -> str:
    return _options.choice(name, value, [choice.value for choice in OnFailed])


def _task_id(name: str, value: Any) -> str | None:
    written = _options.text(name, value)
    if written is not None and not (written.isascii() and written.isdigit() and len(written) <= 20):
        raise _options.ArgumentError(f"{name} must be a whole number such as 7218865303929605212, not {written[:60]!r}")
    return written


def _require(_name: str, value: Any) -> Any:
    _options.required_of(value, 1_000_000)
    return value


#: Arguments that take one text or several.
_NAMES = ("mail_id", "subscribe_name")
#: How each templated argument is read.
_ARGUMENTS: dict[str, Callable[[str, Any], Any]] = {
    "mail_id": _options.texts,
    "subscribe_name": _options.texts,
    "mail_owner": _options.text,
    "quickbi_task_id": _task_id,
    "executed_after": _options.instant,
    "on_failed": _on_failed,
    "start_timeout": _options.seconds,
    "unreachable_timeout": _options.seconds,
    "require": _require,
}
