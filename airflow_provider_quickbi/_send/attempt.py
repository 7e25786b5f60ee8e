"""One try of a start: start a run unless that may have been done, find its run and monitor it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_quickbi._metrics import count_outcome
from airflow_provider_quickbi._send.monitor import RunMonitor
from airflow_provider_quickbi._send.options import OnRunFailed
from airflow_provider_quickbi._send.record import StartRecord
from airflow_provider_quickbi._send.starter import Starter
from airflow_provider_quickbi._send.state import AttemptState, Phase
from airflow_provider_quickbi._send.store import RecordStore
from airflow_provider_quickbi._wait import messages
from airflow_provider_quickbi._wait.outlets import publish
from airflow_provider_quickbi._wait.reasons import explained
from airflow_provider_quickbi._wait.state import Evaluation, Outcome, WaitGroup, WaitState
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import TransientError
from airflow_provider_quickbi.exceptions import (
    QuickBIRunFailed,
    QuickBIStartUnknown,
    QuickBIUnavailable,
    outcome_error,
)

if TYPE_CHECKING:
    from airflow_provider_quickbi._send.options import RunOptions, RunTask
    from airflow_provider_quickbi._wait.events import Event
    from airflow_provider_quickbi.api.models import Run
    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook


@dataclass(eq=False, slots=True)
class StartAttempt:
    """One try, in one worker process; after a deferral it continues in another one."""

    task: RunTask
    options: RunOptions
    state: AttemptState
    hook: QuickBIHook
    context: Any
    records: RecordStore = field(init=False)
    monitor: RunMonitor = field(init=False)
    starter: Starter = field(init=False)

    def __post_init__(self) -> None:
        self.records = RecordStore(self.task, self.context, self.state, self.options.timeout)
        self.monitor = RunMonitor(self.task, self.options, self.state, self.hook, self.context)
        self.starter = Starter(self.options, self.state, self.hook, self.records, self.monitor, self.task.log)

    def begin(self) -> dict[str, Any]:
        """Start a run, unless an earlier try may have done so, and return it."""
        with self.records.recording_the_end():
            return self._advance()

    def resume(self, event: Event) -> dict[str, Any]:
        """Resume after a trigger's event, and return the run."""
        with self.records.recording_the_end():
            record = self.records.stored()
            if record is not None and record != self.state.record:
                # A worker that resumed this deferral before this one has recorded more than the deferral knows.
                self._recover(record)
                return self._advance()
            return self._advance(self.monitor.read(event))

    def _advance(self, group: WaitGroup | None = None) -> dict[str, Any]:
        """Go from phase to phase.

        :param group: what a trigger has found out for the phase that the try is in.
        """
        while True:
            match self.state.phase:
                case Phase.PREPARING:
                    self._prepare()
                case Phase.STARTING:
                    self.starter.start()
                case Phase.AWAITING_OTHER_RUN:
                    self._other_run_finished(group or self.monitor.other_run())
                case Phase.LOCATING_RUN:
                    self._run_located(group or self.monitor.run_of_start())
                case Phase.MONITORING:
                    result = self._run_finished(group or self.monitor.own_run())
                    if result is not None:
                        return result
            group = None

    def _prepare(self) -> None:
        """Find out what is meant, and recover what an earlier try may have started."""
        if not self.state.subject.id:
            self.monitor.wait_until_allowed()
            try:
                self.state.subject = self.state.subject.find(self.hook)
            except QuickBIUnavailable as error:
                self.monitor.back_off(TransientError(str(error)))
                return
            self.state.reset_backoff()
            self.task.check_found(self.state.subject)
        if (record := self.records.open()) is not None:
            self._recover(record)
        else:
            self.state.phase = Phase.STARTING

    def _recover(self, record: StartRecord) -> None:
        """Look for the run of a start that another worker made or was about to make."""
        self.task.log.info(
            "%s may have been started after %s: looking for its %s before anything is %s.",
            self.state.subject.title,
            messages.at(record.recorded_at),
            self.state.subject.words.run,
            self.state.subject.words.start_past,
        )
        self.state.record = record
        self.state.called = False
        self.state.run = None
        self.state.phase = Phase.LOCATING_RUN if record.attached_to is None else Phase.MONITORING

    def _other_run_finished(self, group: WaitGroup) -> None:
        """Go on to the start after another run is finished, one way or the other."""
        if group.evaluation.outcome not in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.MISSED):
            self._fail(group.evaluation)
        self.state.run = None
        self.state.phase = Phase.STARTING
        self.state.reset_backoff()

    def _run_located(self, group: WaitGroup) -> None:
        """Go on to monitor the run that was found, or decide what it means that there is none."""
        evaluation, record, words = group.evaluation, self.monitor.required_record(), self.state.subject.words
        if evaluation.outcome is Outcome.SEEN and evaluation.run is not None:
            self.records.keep(replace(record, attached_to=evaluation.run.run_id))
            self.task.log.info(
                "%s %s %s: it is the first new one since %s. A scheduled %s in the same minute is indistinguishable.",
                words.run.capitalize(),
                messages.named(evaluation.run),
                f"is this task's {words.run}"
                if self.state.called
                else f"is from an earlier try; attached to it, nothing is {words.start_past}",
                messages.at(record.recorded_at),
                words.run,
            )
            self.state.run = evaluation.run
            self.state.phase = Phase.MONITORING
            return
        if evaluation.outcome is Outcome.WRONG_TIMEZONE and evaluation.run is not None:
            # Once the zone is put right and the task is cleared, it monitors this run and starts nothing.
            self.records.keep(replace(record, attached_to=evaluation.run.run_id))
            count_outcome(group)
            message = (
                f"{evaluation.message} The {words.started} was started; clearing this task monitors its {words.run} "
                f"and {words.start}s nothing."
                if self.records.survives
                else self.state.final(evaluation.message)
            )
            raise outcome_error(replace(evaluation, message=message))
        if evaluation.outcome is Outcome.NOT_STARTED:
            evaluation = replace(evaluation, message=self._none_appeared(group.waits[0]))
            if not record.accepted and not self.state.called:
                self.task.log.info("%s No %s of an earlier start is visible.", evaluation.message, words.run)
                self.state.phase = Phase.STARTING
                return
        count_outcome(group)
        if evaluation.outcome is Outcome.NOT_STARTED and not record.accepted:
            raise QuickBIStartUnknown(
                f"{evaluation.message} {self.state.what_was_started()} A retry looks again before it {words.start}s."
            )
        self._fail(evaluation)

    def _none_appeared(self, wait: WaitState) -> str:
        message = (
            f"{messages.describe(wait, CLOCK.time())} None appeared within start_timeout ({wait.start_timeout:,.0f} s)."
        )
        known, other = self.monitor.required_record().known, wait.ignored_run
        if known and other is not None and other.run_id not in known:
            message += (
                f" {self.state.subject.words.run.capitalize()} {other.run_id} is new, but started before: if the "
                f"clocks differ by more than clock_skew ({self.options.clock_skew:,.0f} s), set clock_skew."
            )
        return message

    def _run_finished(self, group: WaitGroup) -> dict[str, Any] | None:
        """Return the run that is finished, raise what its outcome means, or go on to start anew (``None``)."""
        evaluation = explained(group.evaluation, self.state.subject, self.hook.get_conn, self.task.log)
        if evaluation.outcome in (Outcome.SUCCEEDED, Outcome.SEEN):
            count_outcome(group)
            self.task.log.info("%s", evaluation.message)
            (result,) = group.results()
            publish(self.context, self.task, group)
            return result
        retries = evaluation.outcome is Outcome.FAILED and self.options.on_failed is OnRunFailed.RETRY
        if retries and evaluation.run is not None and self.monitor.required_record().inferred:
            self.task.log.info('%s It is from an earlier try: starting again (on_failed="retry").', evaluation.message)
            self._forget_until(evaluation.run)
            return None
        count_outcome(group)
        if retries:
            raise QuickBIRunFailed(evaluation.message)
        if evaluation.outcome is Outcome.FAILED:
            raise outcome_error(evaluation)
        return self._fail(evaluation)

    def _fail(self, evaluation: Evaluation) -> NoReturn:
        """Raise what an outcome means, with what a person must know to go on."""
        if evaluation.outcome is not Outcome.UNAVAILABLE:
            evaluation = replace(evaluation, message=self.state.final(evaluation.message))
        raise outcome_error(evaluation)

    def _forget_until(self, failed: Run) -> None:
        """Let only runs match that are newer than one of an earlier try that ``FAILED``, where nothing is kept."""
        recorded_at = failed.started_at.timestamp() + self.options.clock_skew
        self.state.record = StartRecord(
            subject=self.state.subject, recorded_at=recorded_at, known=(failed.run_id,), inferred=True
        )
        self.state.run = None
        self.state.phase = Phase.STARTING
