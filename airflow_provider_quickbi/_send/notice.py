"""A mail that a callback starts: at most once per DAG run, and without waiting for anything."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._airflow import callback_state_store, run_started
from airflow_provider_quickbi._metrics import count_start
from airflow_provider_quickbi._send.record import StartRecord, StartResult, classify_response, latest
from airflow_provider_quickbi._send.starter import wrong_timezone
from airflow_provider_quickbi._wait import messages
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import QuickBIError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_quickbi._wait.subject import MailTaskSubject
    from airflow_provider_quickbi.api.models import MailTaskRun

#: Key of the start records of a task's callbacks, by mail task, in Airflow's ``task_state_store`` (3.3 and later).
NOTICES_KEY = "quickbi_notices"


class Notice:
    """One mail that a callback is to start; each method logs at most one line, and what happens logs exactly one.

    A run that has started since the DAG run did is taken for an earlier start by one of its callbacks. The record in
    ``task_state_store`` also knows of a start whose run is not visible yet, or whose response was lost.

    :param context: of the callback; what it holds depends on where Airflow runs the callback.
    """

    def __init__(self, subject: MailTaskSubject, context: Any, log: Any) -> None:
        self._subject = subject
        self._store = callback_state_store(context)
        self._since = run_started(context)
        self._log = log

    def may_start(self, runs: Sequence[MailTaskRun]) -> bool:
        """Whether the mail is to be started: nothing stands in the way, and this DAG run has not started it yet.

        :param runs: of the mail task, just polled.
        """
        runs = [run for run in runs if run.mail_id == self._subject.id]
        newest, recorded = latest(runs), self._recorded()
        if (misdated := wrong_timezone(self._subject, runs)) is not None:
            return self._refuse("error", misdated)
        if recorded is not None:
            return self._refuse("info", f"this callback started it at {messages.at(recorded.recorded_at)}")
        if newest is None:
            return True
        # Not a moment earlier: a notice of the DAG run before must not stand for one of this DAG run.
        if self._since is not None and newest.started_at >= self._since.replace(microsecond=0):
            since = self._since.isoformat(timespec="seconds")
            return self._refuse("info", f"run {messages.named(newest)} has started since this DAG run did ({since})")
        if not newest.is_terminal:
            return self._refuse("warning", f"run {messages.named(newest)} is {newest.status}")
        return True

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Record the start that is made inside the block, and log what its response means."""
        record = StartRecord(subject=self._subject, recorded_at=CLOCK.time())
        self._keep(record)
        try:
            yield
        except QuickBIError as error:
            if classify_response(error) is StartResult.UNKNOWN:
                self._log.warning(
                    "%s: it is not known whether it was started (%s); nothing is sent again.",
                    self._subject.title,
                    error,
                )
                return
            self._keep(None)
            refused = classify_response(error) in (StartResult.REFUSED, StartResult.NOT_PROCESSED)
            self._refuse("error" if refused else "warning", str(error))
        else:
            count_start(self._subject)
            self._keep(replace(record, accepted=True))
            self._log.info("%s: started; not waiting for its run.", self._subject.title)

    def _refuse(self, level: str, why: str) -> bool:
        getattr(self._log, level)("%s: nothing was started: %s.", self._subject.title, why.rstrip("."))
        return False

    def _recorded(self) -> StartRecord | None:
        """Return the record of an earlier start in this DAG run; one that was cleared has started anew since."""
        record = StartRecord.from_dict(self._records().get(self._subject.id))
        if record is None or (self._since is not None and record.recorded_at < self._since.timestamp()):
            return None
        return record

    def _records(self) -> dict[str, Any]:
        kept = None if self._store is None else self._store.get(NOTICES_KEY)
        return kept if isinstance(kept, dict) else {}

    def _keep(self, record: StartRecord | None) -> None:
        if self._store is None:
            return
        others = {mail_id: kept for mail_id, kept in self._records().items() if mail_id != self._subject.id}
        try:
            self._store.set(NOTICES_KEY, others | ({} if record is None else {self._subject.id: record.as_dict()}))
        except Exception:  # noqa: BLE001 - each version and process raises its own
            # A try that is to be repeated has no store any more when its on_retry_callback runs.
            self._store = None
