"""Starting a run: look whether anything stands in the way, make the one call, and decide what its response means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_quickbi._metrics import count_start
from airflow_provider_quickbi._send.options import OnRunning, OnScheduleLimit
from airflow_provider_quickbi._send.record import StartRecord, StartResult, classify_response, latest
from airflow_provider_quickbi._send.state import Phase
from airflow_provider_quickbi._wait import messages
from airflow_provider_quickbi._wait.evaluate import misdated_run
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW, Evaluation, Outcome, WaitState
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import NotStartedError, QuickBIError
from airflow_provider_quickbi.exceptions import outcome_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_quickbi._send.monitor import RunMonitor
    from airflow_provider_quickbi._send.options import RunOptions
    from airflow_provider_quickbi._send.state import AttemptState
    from airflow_provider_quickbi._send.store import RecordStore
    from airflow_provider_quickbi._wait.subject import Subject
    from airflow_provider_quickbi.api.models import Run
    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

#: Seconds after which a start is tried again where the service did not say when.
DEFAULT_PAUSE = 60.0


@dataclass(frozen=True, eq=False, slots=True)
class Starter:
    """Makes the one starting call of a try; each method changes the try's state."""

    options: RunOptions
    state: AttemptState
    hook: QuickBIHook
    records: RecordStore
    monitor: RunMonitor
    log: Any

    def start(self) -> None:
        """Start a run, once nothing stands in the way."""
        self.monitor.wait_until_allowed()
        subject = self.state.subject
        try:
            client = self.hook.get_conn()
            latest_runs = client.do(subject.query(None).operation(client.settings.zone))
            runs = [run for run in latest_runs if run.subject_id == subject.id]
        except QuickBIError as error:
            return self.monitor.back_off(error)
        self._refuse_wrong_timezone(runs)
        record, newest = self.state.record, latest(runs)
        if record is not None and any(map(record.selector(self.options.clock_skew).matches, runs)):
            self.log.info(
                "%s: a new %s may belong to the earlier start; nothing is %s.",
                subject.title,
                subject.words.run,
                subject.words.start_past,
            )
            self.state.phase = Phase.LOCATING_RUN
        elif newest is not None and not newest.is_terminal:
            self._handle_active_run(newest)
        else:
            self._call(record or StartRecord.of(subject, runs, CLOCK.time()), runs)
        return None

    def _refuse_wrong_timezone(self, runs: Sequence[Run]) -> None:
        """Start nothing whose run could not be identified."""
        if (message := wrong_timezone(self.state.subject, runs, self.options.clock_skew)) is not None:
            raise outcome_error(Evaluation(Outcome.WRONG_TIMEZONE, f"{message} {self.state.what_was_started()}"))

    def _handle_active_run(self, other: Run) -> None:
        """Decide what to do about a run that is active."""
        noun = self.state.subject.words.run
        self.state.run = other
        if self.options.on_running is OnRunning.ATTACH:
            self.log.info("%s %s is active: attached to it; nothing is started.", noun.capitalize(), other.run_id)
            self.records.keep(
                StartRecord(subject=self.state.subject, recorded_at=CLOCK.time(), attached_to=other.run_id)
            )
            self.state.phase = Phase.MONITORING
            return
        self._refuse_running(f"{noun} {messages.named(other)} is {other.status}")
        self.log.info(
            "%s %s is %s: waiting for it to finish before the start.", noun.capitalize(), other.run_id, other.status
        )
        self.state.phase = Phase.AWAITING_OTHER_RUN

    def _call(self, record: StartRecord, runs: Sequence[Run]) -> None:
        """Make the one starting call, after its record was kept, and do what its response means."""
        earlier, newest, subject = self.state.record, latest(runs), self.state.subject
        noun = subject.words.run
        record = replace(record, inferred=False, finished=False)
        self.records.keep(record)
        self.log.info(
            "%s: starting; %s.",
            subject.title,
            f"its latest {noun} is {newest.run_id}" if newest else f"no earlier {noun}",
        )
        try:
            response: bool | QuickBIError = self.hook.get_conn().do(subject.start())
        except QuickBIError as error:
            response = error
        result = classify_response(response)
        if result in (StartResult.ACCEPTED, StartResult.UNKNOWN):
            self.state.called = True
            self.state.phase = Phase.LOCATING_RUN
            if result is StartResult.ACCEPTED:
                count_start(subject)
                self.records.keep(replace(record, accepted=True))
            else:
                self.log.warning(
                    "%s: it is not known whether it was started (%s). Looking for its %s; this try %ss nothing again.",
                    subject.title,
                    response,
                    noun,
                    subject.words.start,
                )
            return
        if earlier is None:
            self.records.delete()
        else:
            self.records.keep(earlier)
        if isinstance(response, QuickBIError):
            self._handle_rejected_start(response, runs)

    def _handle_rejected_start(self, error: QuickBIError, runs: Sequence[Run]) -> None:
        """Decide when to try again after a start that carried out nothing, or give up."""
        if classify_response(error) in (StartResult.NOT_PROCESSED, StartResult.REFUSED):
            self.monitor.back_off(error)
            return
        self.state.reset_backoff()
        if isinstance(error, NotStartedError):
            if self.options.on_schedule_limit is OnScheduleLimit.FAIL:
                raise AirflowFailException(self.state.final(f'{error} (on_schedule_limit="fail").'))
            self.monitor.pause(error.retry_after or DEFAULT_PAUSE, error)
            return
        subject, noun = self.state.subject, self.state.subject.words.run
        if self.state.record is not None:
            self.log.info("%s: the active %s may belong to the earlier start; looking for it.", subject.title, noun)
            self.state.phase = Phase.LOCATING_RUN
        elif self.options.on_running is OnRunning.ATTACH:
            self.log.info("%s: a %s not seen before is active; looking for it.", subject.title, noun)
            newest = latest(runs)
            since = newest.started_at.timestamp() if newest else 0.0
            self.records.keep(StartRecord.of(subject, runs, since))
            self.state.phase = Phase.LOCATING_RUN
        else:
            self._refuse_running(f"a {noun} is active")
        self.monitor.pause(self.options.poll_interval, error)

    def _refuse_running(self, what: str) -> None:
        message = f'{self.state.subject.title}: {what}; nothing was started (on_running="{self.options.on_running}")'
        if self.options.on_running is OnRunning.SKIP:
            raise AirflowSkipException(message)
        if self.options.on_running is OnRunning.FAIL:
            raise AirflowFailException(message)


def wrong_timezone(subject: Subject, runs: Sequence[Run], clock_skew: float = DEFAULT_CLOCK_SKEW) -> str | None:
    """Say that a run is dated in the future, which proves a wrong time zone; ``None`` if none is.

    :param runs: that were just polled.
    :param clock_skew: seconds by which the clocks may differ.
    """
    now = CLOCK.time()
    wait = WaitState(subject=subject, selector=RunSelector(), since=now, clock_skew=clock_skew)
    misdated = misdated_run(wait, runs, now)
    return None if misdated is None else messages.wrong_timezone(wait, misdated, now)
