"""What the sensors have in common: wait for runs, in a worker, rescheduled, or in the triggerer."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_quickbi import _airflow, _instants, _options
from airflow_provider_quickbi._metrics import DetectionDelay
from airflow_provider_quickbi._options import Arguments, OptionError
from airflow_provider_quickbi._send.options import OnRunFailed
from airflow_provider_quickbi._templates import TemplatedTask
from airflow_provider_quickbi._wait import deadline as late_notice
from airflow_provider_quickbi._wait import memory
from airflow_provider_quickbi._wait.conclusion import conclude, softened
from airflow_provider_quickbi._wait.deferral import PollOptions, defer_wait
from airflow_provider_quickbi._wait.evaluate import evaluate_group
from airflow_provider_quickbi._wait.events import Event, EventKind, finished_group
from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi._wait.options import READERS
from airflow_provider_quickbi._wait.outlets import unrelated_outlets
from airflow_provider_quickbi._wait.placement import Ending, ending_of, settled
from airflow_provider_quickbi._wait.start import Limits, start_group, unreachable_seconds
from airflow_provider_quickbi._wait.start_arguments import StartArguments, StartsInTriggerer
from airflow_provider_quickbi._wait.state import OnFailed, Outcome, WaitGroup
from airflow_provider_quickbi._wait.sync import poll_once, seconds_until_next_poll
from airflow_provider_quickbi._wait.window import Window
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy
from airflow_provider_quickbi.exceptions import QuickBIConnectionUnreadable, QuickBIUnavailable, argument_errors
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.links.quickbi import QuickBIConsoleLink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_quickbi._wait.subject import Subject

#: Arguments that are not set, where that is not ``None``; and choices of the operators that no sensor has.
_UNSET_VALUES = {"on_failed": OnFailed.FAIL.value, "window": Window.AUTO.value, "require": "all"}
_OTHER_CHOICES = {"on_failed": OnRunFailed}


class RunSensor(TemplatedTask, BaseSensorOperator):
    """Wait until runs have succeeded; subclasses define the subjects and the arguments."""

    operator_extra_links = (QuickBIConsoleLink(),)
    ui_color = "#e8f1ff"

    #: Whether the arguments are set and checked.
    made = False
    start_from_trigger = StartsInTriggerer()
    start_trigger_args = StartArguments()

    #: Kind of what is waited for, see :class:`airflow_provider_quickbi._wait.subject.Subject`.
    subject_kind: ClassVar[str]
    deferrable: bool
    start_in_triggerer: bool
    end_in_triggerer: bool
    quickbi_conn_id: str
    on_missed: str
    deadline: datetime | str | None
    on_late_callback: Any

    #: Arguments of which one is given, and which may be a list.
    _one_of: ClassVar[tuple[str, ...]] = ()

    def _names_several(self) -> bool:
        """Whether the XCom is a list."""
        return Arguments(self, rendered=self.rendered).names_several(*self._one_of)

    def _prepare(
        self,
        default_args: Mapping[str, Any] | None,
        overrides: Sequence[tuple[Sequence[str], Sequence[str]]],
    ) -> None:
        """Check the arguments while the DAG is parsed, as far as they are known.

        :param overrides: arguments that win over others from there, see :func:`_options.settle_defaults`.
        :raises QuickBIArgumentError: for the first one that is wrong.
        """
        settle = partial(
            _options.settle_defaults, self, default_args, unset_values=_UNSET_VALUES, other_choices=_OTHER_CHOICES
        )
        settle(overrides)
        self.rendered = frozenset(name for name in self._one_of if _options.is_template(getattr(self, name)))
        if not self.rendered and not self._names_several():
            settle([(self._one_of, ("require",))])  # which says how many of several
        self._since: float | None = None
        self._lookup_since: float | None = None
        self._group: WaitGroup | None = None
        self._log_of_wait: WaitLog | None = None
        self._delay = DetectionDelay()
        with argument_errors():
            if self._one_of:
                _options.need_one_of(self, *self._one_of)
            arguments = Arguments(self, parsing=True, rendered=self.rendered)
            options = READERS[self.subject_kind](arguments, _airflow.default_timezone())
            if not _options.is_template(self.deadline):
                _instants.deadline("deadline", self.deadline, CLOCK.now(), _airflow.default_timezone())
            self._check_outlets(options.subjects)
        self.made = True

    def _check_outlets(self, subjects: Sequence[Subject]) -> None:
        known = [subject for subject in subjects if subject.id]
        if known and (unrelated := unrelated_outlets(self.outlets, known)):
            raise OptionError(f"outlet {unrelated[0]} is not of a {known[0].words.subject} that this task waits for")

    def execute(self, context: Context) -> Any:
        """Wait, in this worker or in the triggerer."""
        self._group = self._log_of_wait = self._since = self._lookup_since = None
        self._delay = DetectionDelay()
        with softened(self):
            self._store_link(context)
            if self.deferrable:
                return self._wait_deferred(context)
            self._since = CLOCK.time()  # just before Airflow's own clock for `timeout` starts
            # Airflow 2.11 takes a call through super() for one from outside a task: it warns, or even refuses.
            return inspect.unwrap(BaseSensorOperator.execute)(self, context)

    def _wait_deferred(self, context: Context) -> Any:
        """Hand the wait to the triggerer; if that cannot end the task, a poll that takes no call from others may do."""
        group = self._start(context)
        ending = self._ending(group)
        if ending is Ending.WORKER and self._has_reserved_calls():
            group = self._poll(group, NO_RETRY)  # what fails is left to the triggerer
        else:
            for position in group.unfinished():
                group = evaluate_group(group, position, None, CLOCK.time())
        if group.is_late(CLOCK.time()):
            group = self._notify_late(group, context)
        if group.evaluation.outcome.final:
            return self._conclude(group, context)
        if not any(wait.polled for wait in group.waits):  # else the first poll's line has said it
            WaitLog(self.log).report(group.evaluation.message, CLOCK.time())
        timeout = _airflow.seconds_of(self.execution_timeout)
        return defer_wait(self, group, self._poll_options(None if timeout is None else CLOCK.time() + timeout, ending))

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll each unfinished wait once, and decide."""
        with softened(self):
            known = self._group or (memory.restore(context) if self.reschedule else None)
            try:
                group = self._poll(known or self._start(context), RetryPolicy())
            except QuickBIConnectionUnreadable as error:
                if not self.reschedule or _airflow.first_reschedule_date(self, context) is None:
                    raise
                if CLOCK.time() >= self._started_at(context) + (_airflow.seconds_of(self.timeout) or 0.0):
                    raise QuickBIUnavailable(str(error)) from None
                self._report(f"{error} Trying again.", None)
                return False
            if group.is_late(CLOCK.time()):
                group = self._notify_late(group, context) if self._notifies_late(group, context) else group.notified()
            if group.evaluation.outcome is Outcome.WAITING and _timed_out(group, CLOCK.time()):
                group = self._poll(group, RetryPolicy())  # Airflow would end the wait now, without a last poll
            self._group = group
            if group.evaluation.outcome is Outcome.WAITING:
                self._report(group.evaluation.message, known)
                if self.reschedule and group != known:
                    memory.remember(group, context)
                return False
            if self.reschedule:
                memory.forget(context)
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(group, context))

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Handle the trigger's event.

        :param event: of :class:`airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskTrigger`.
        """
        QuickBIConsoleLink.resumed(self)
        with softened(self):
            decoded = Event.decode(event)
            if decoded.kind is EventKind.START:
                self._since, self._lookup_since = decoded.carry["since"], decoded.carry.get("lookup_since")
                self._store_link(context)
                return self._wait_deferred(context)
            group = finished_group(
                decoded,
                notify_late=partial(self._notify_late, context=context),
                defer_again=self._defer_again,
            )
            return self._conclude(group, context)

    def _defer_again(self, group: WaitGroup, event: Event) -> NoReturn:
        defer_wait(self, group, self._poll_options(event.carry.get("execute_by"), self._ending(group)))

    def _ending(self, group: WaitGroup) -> Ending:
        ending = ending_of(self, supported=_airflow.triggers_end_tasks())
        return settled(ending, group, several=self._names_several())

    def _poll_options(self, execute_by: float | None, ending: Ending) -> PollOptions:
        return PollOptions(
            quickbi_conn_id=self.quickbi_conn_id,
            poke_interval=self.poke_interval,
            exponential_backoff=bool(self.exponential_backoff),
            max_wait=_airflow.seconds_of(self.max_wait),
            execute_by=execute_by,
            carry={"execute_by": execute_by},
            ending=ending,
        )

    def _start(self, context: Context) -> WaitGroup:
        """Read the rendered arguments and return a wait group of which nothing is known yet."""
        zone = _airflow.default_timezone()
        with argument_errors(self.task_id):
            options = READERS[self.subject_kind](Arguments(self, rendered=self.rendered), zone)
            late = _instants.deadline("deadline", self.deadline, _airflow.run_started(context) or CLOCK.now(), zone)
        limits = Limits(
            since=self._started_at(context),
            timeout=_airflow.seconds_of(self.timeout) or 0.0,
            unreachable_timeout=unreachable_seconds(options.unreachable_timeout, self.silent_fail),
            poke_interval=self.poke_interval,
        )
        late_at = late_notice.pending(late.timestamp() if late else None, context)
        lookup_since = CLOCK.time() if self._lookup_since is None else self._lookup_since
        group = start_group(self, context, options, limits, late_at, lookup_since)
        with argument_errors(self.task_id):
            self._check_outlets([wait.subject for wait in group.waits])
        return group

    def _has_reserved_calls(self) -> bool:
        """Whether all processes of the account share one queue, so that a poll here is none too many."""
        return QuickBIHook(self.quickbi_conn_id).quickbi_connection.settings.pacing is not None

    def _poll(self, group: WaitGroup, retries: RetryPolicy) -> WaitGroup:
        with QuickBIHook(self.quickbi_conn_id) as hook:
            return poll_once(group, hook.get_conn, retries, log=WaitLog(self.log), delay=self._delay)

    def _conclude(self, group: WaitGroup, context: Context) -> Any:
        return conclude(self, group, context, several=self._names_several())

    def _notify_late(self, group: WaitGroup, context: Context) -> WaitGroup:
        late_notice.notify(self.on_late_callback, context, group, self.log)
        return group.notified()

    def _notifies_late(self, group: WaitGroup, context: Context) -> bool:
        """Whether notifying is pending; below Airflow 3.3 a rescheduled sensor can only infer it from the time."""
        if not self.reschedule or _airflow.task_state_store(context) is not None or group.late_at is None:
            return True
        first_poll = _airflow.first_reschedule_date(self, context) is None
        return first_poll or CLOCK.time() - group.late_at < self.poke_interval

    def _report(self, message: str, known: WaitGroup | None) -> None:
        """Log what is new; a rescheduled sensor logged the rest in its last poke."""
        if self._log_of_wait is None:
            self._log_of_wait = WaitLog(self.log)
            if known is not None and known.evaluation.message == message:
                return
        self._log_of_wait.report(message, CLOCK.time())

    def _get_next_poke_interval(self, *args: Any, **kwargs: Any) -> float:
        """Sleep until something can happen: not past a deadline, and not before the window."""
        interval: float = super()._get_next_poke_interval(*args, **kwargs)
        return interval if self._group is None else seconds_until_next_poll(self._group, interval, CLOCK.time())

    def _store_link(self, context: Context) -> None:
        """Store the link, and fail before the wait if there is no connection; later the wait tolerates that."""
        try:
            QuickBIConsoleLink.store(self, context, QuickBIHook(self.quickbi_conn_id).quickbi_connection.console_url)
        except QuickBIConnectionUnreadable:
            if not self.reschedule or _airflow.first_reschedule_date(self, context) is None:
                raise

    def _started_at(self, context: Context) -> float:
        """Return when Airflow starts to count ``timeout``: at the first poll, regardless of later reschedules."""
        if not self.reschedule or self.deferrable:
            return CLOCK.time() if self._since is None else self._since
        first = _airflow.first_reschedule_date(self, context) or context["ti"].start_date
        return first.timestamp() if first else CLOCK.time()


def _timed_out(group: WaitGroup, now: float) -> bool:
    waits = [group.waits[position] for position in group.unfinished()]
    return any(wait.finish_by is not None and wait.finish_by <= now for wait in waits)
