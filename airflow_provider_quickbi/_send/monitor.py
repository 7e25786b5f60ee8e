"""What a start attempt waits for, on the worker or in the triggerer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowTaskTimeout

from airflow_provider_quickbi._send.state import Phase
from airflow_provider_quickbi._wait import deadline
from airflow_provider_quickbi._wait.deferral import FIRST_EVENT_SECONDS, PollOptions, defer_pause, defer_wait
from airflow_provider_quickbi._wait.evaluate import evaluate_group
from airflow_provider_quickbi._wait.events import Event, EventKind, finished_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Evaluation, Outcome, WaitGroup, WaitState
from airflow_provider_quickbi._wait.sync import poll_once, wait_until_finished
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import PermanentError, QuickBIError, TransientError
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy
from airflow_provider_quickbi.exceptions import QuickBIConnectionError, QuickBIUnavailable, task_error

if TYPE_CHECKING:
    from airflow_provider_quickbi._send.options import RunOptions, RunTask
    from airflow_provider_quickbi._send.record import StartRecord
    from airflow_provider_quickbi._send.state import AttemptState
    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

#: How patiently a start is tried again that the service did not process.
_PATIENCE = RetryPolicy(first_delay=2.0, max_delay=60.0)
_MOST_DOUBLINGS = 10
#: A pause of up to this many seconds is not worth a deferral, whose event would come later.
_SHORT_PAUSE = FIRST_EVENT_SECONDS + 2.0


@dataclass(frozen=True, eq=False, slots=True)
class RunMonitor:
    """Waits for a run, or until a start may be tried, on behalf of a start attempt."""

    task: RunTask
    options: RunOptions
    state: AttemptState
    hook: QuickBIHook
    context: Any

    # Waiting for a run

    def other_run(self) -> WaitGroup:
        """Wait until another run is finished."""
        run = self.state.run
        if run is None:
            raise RuntimeError("no run to wait for, although this try should have seen one")
        return self._wait(RunSelector(run_id=run.run_id), run=run)

    def run_of_start(self) -> WaitGroup:
        """Wait until this task's run is seen."""
        record = self.required_record()
        return self._wait(
            record.selector(self.options.clock_skew),
            start_timeout=self.options.start_timeout,
            start_requested_at=record.recorded_at if self.state.called or record.accepted else None,
            until_seen=True,
        )

    def own_run(self) -> WaitGroup:
        """Wait until this task's run is finished."""
        record = self.required_record()
        return self._wait(
            RunSelector(run_id=record.attached_to, other_than=record.known),
            start_timeout=self.options.start_timeout,
            until_seen=not self.task.wait_for_completion,
            run=self.state.run,
        )

    def required_record(self) -> StartRecord:
        """Return the record of the start."""
        if self.state.record is None:
            raise RuntimeError("no start record, although this try should have written one")
        return self.state.record

    def _wait(self, selector: RunSelector, **known: Any) -> WaitGroup:
        wait = WaitState(
            subject=self.state.subject,
            selector=selector,
            since=CLOCK.time(),
            finish_by=self.state.finish_by,
            unreachable_timeout=self.options.unreachable_timeout,
            clock_skew=self.options.clock_skew,
            polled=True,  # a start says itself which run it waits for
            **known,
        )
        group = WaitGroup.of([wait], late_at=self.state.late_at)
        if wait.run is not None:
            group = evaluate_group(group, 0, [wait.run], CLOCK.time())
        if group.evaluation.outcome.final:
            return group
        get_conn, interval = self.hook.get_conn, self.options.poll_interval
        if not self.task.deferrable:
            return wait_until_finished(group, get_conn, interval=interval, log=self.task.log, on_late=self._notify_late)
        if wait.run is None:
            group = poll_once(group, get_conn, NO_RETRY)
            if group.evaluation.outcome.final:
                return group
        return self._defer(group)

    def _defer(self, group: WaitGroup, _event: Event | None = None) -> NoReturn:
        if group.is_late(CLOCK.time()):
            group = self._notify_late(group)
        self.task.log.debug("%s Waiting in the triggerer.", group.evaluation.message)
        options = PollOptions(
            quickbi_conn_id=self.task.quickbi_conn_id,
            poke_interval=self.options.poll_interval,
            execute_by=self.state.execute_by,
            carry=self.state.as_dict(),
        )
        defer_wait(self.task, group, options)

    def read(self, event: Event) -> WaitGroup | None:
        """Return the wait group from a trigger's event, ``None`` after a pause."""
        if self.state.phase in (Phase.PREPARING, Phase.STARTING) and event.kind is EventKind.RESUME:
            return None
        try:
            return finished_group(event, notify_late=self._notify_late, defer_again=self._defer)
        except QuickBIConnectionError as error:
            raise QuickBIConnectionError(f"{error} {self.state.what_was_started()}") from None

    def _notify_late(self, group: WaitGroup) -> WaitGroup:
        self.state.late_at = None
        deadline.notify(self.task.on_late_callback, self.context, group, self.task.log)
        return group.notified()

    # Waiting until a start may be tried

    def back_off(self, error: QuickBIError) -> None:
        """Plan another attempt after one that the service did not process, slower each time, or give up.

        :raises QuickBIRequestError: if trying again does not help.
        :raises QuickBIUnavailable: after ``unreachable_timeout``.
        """
        if isinstance(error, PermanentError):
            raise task_error(error) from None
        now = CLOCK.time()
        self.state.not_processed += 1
        delay = _PATIENCE.delay(min(self.state.not_processed, _MOST_DOUBLINGS), error.retry_after)
        if isinstance(error, TransientError):
            since = self.state.unreachable_since = self.state.unreachable_since or now
            left = since + self.options.unreachable_timeout - now
            if left <= 0:
                raise QuickBIUnavailable(
                    f"{self.state.subject.title}: Quick BI was unreachable for {now - since:,.0f} s "
                    f"(unreachable_timeout). {self.state.what_was_started()} Last error: {error}"
                )
            delay = min(delay, left)
        self.pause(delay, error)

    def pause(self, seconds: float, why: QuickBIError) -> None:
        """Delay the next attempt to start."""
        self.state.not_before = CLOCK.time() + seconds
        self.task.log.info("%s Trying again in %.0f s. %s", self.state.what_was_started(), seconds, why)

    def wait_until_allowed(self) -> None:
        """Wait until a start may be tried, and notify on the way if the report is late.

        :raises AirflowTaskTimeout: if ``execution_timeout`` is over.
        :raises AirflowSensorTimeout: if ``timeout`` is over.
        """
        state = self.state
        while True:
            now = CLOCK.time()
            if state.late_at is not None and now >= state.late_at:
                wait = WaitState(subject=state.subject, selector=RunSelector(), since=now)
                evaluation = Evaluation(Outcome.WAITING, f"{state.subject.title} has not been started yet.")
                self._notify_late(WaitGroup(waits=(wait,), evaluations=(evaluation,), late_at=state.late_at))
            if state.execute_by is not None and now >= state.execute_by:
                raise AirflowTaskTimeout(
                    f"execution_timeout is over; {state.subject.title} could not be started. {state.what_was_started()}"
                )
            if now >= state.finish_by:
                raise AirflowSensorTimeout(
                    state.final(
                        f"{state.subject.title}: timed out before the {state.subject.words.started} could be started."
                    )
                )
            if now >= state.not_before:
                return
            due = (state.not_before, state.finish_by, state.execute_by, state.late_at)
            until = min(instant for instant in due if instant is not None)
            if self.task.deferrable and until - now > _SHORT_PAUSE:
                defer_pause(self.task, until, state.as_dict())
            CLOCK.sleep(until - now)
