"""Where the record of a start survives a retry: Airflow's ``task_state_store`` (3.3 and later)."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_quickbi._airflow import is_retry, run_started, task_state_store
from airflow_provider_quickbi._send.record import StartRecord
from airflow_provider_quickbi._wait import messages
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.exceptions import QuickBIConnectionError, QuickBIRunFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_quickbi._send.state import AttemptState

RECORD_KEY = "quickbi_start"
#: Seconds after which a cleared task no longer looks for what an earlier try may have started; ``timeout`` if shorter.
_LONGEST_OPEN_SECONDS = 24 * 3600.0


class RecordStore:
    """Keeps the record of a try's start.

    :param state: of the try; its record changes with what is kept.
    :param timeout: of the task, in seconds.
    """

    def __init__(self, task: Any, context: Any, state: AttemptState, timeout: float) -> None:
        self._task = task
        self._context = context
        self._state = state
        self._timeout = timeout
        self._store = task_state_store(context)

    @property
    def survives(self) -> bool:
        """Whether a record survives the task's end: on Airflow 3.3 and later."""
        return self._store is not None

    def stored(self) -> StartRecord | None:
        """Return what is stored for the subject of the try."""
        record = None if self._store is None else StartRecord.from_dict(self._store.get(RECORD_KEY))
        return record if record is not None and record.subject == self._state.subject else None

    def open(self) -> StartRecord | None:
        """Return the record of a start whose run must be located before anything is started."""
        record = self.stored()
        if record is None:
            return self._inferred()
        if is_retry(self._task, self._context):
            return record
        # A try that was cut short may not have taken longer than that; what is found later is somebody else's run.
        stale = CLOCK.time() - record.recorded_at > min(self._timeout, _LONGEST_OPEN_SECONDS)
        if not record.finished and not stale:
            return record
        self._task.log.info(
            "Task cleared: its start of %s is finished, and the %s is %s again.",
            messages.at(record.recorded_at),
            self._state.subject.words.started,
            self._state.subject.words.start_past,
        )
        self._store.delete(RECORD_KEY)
        return None

    def _inferred(self) -> StartRecord | None:
        """Return the DAG run's start as a record for a retry, where Airflow keeps nothing from one try to the next."""
        started = run_started(self._context)
        if self._store is not None or started is None or not is_retry(self._task, self._context):
            return None
        return StartRecord(subject=self._state.subject, recorded_at=started.timestamp(), inferred=True)

    def keep(self, record: StartRecord) -> None:
        """Keep a record."""
        self._state.record = record
        if self._store is not None:
            self._store.set(RECORD_KEY, record.as_dict())

    def delete(self) -> None:
        """Forget the start."""
        if self._state.record is not None and self._store is not None:
            self._store.delete(RECORD_KEY)
        self._state.record = None

    @contextmanager
    def recording_the_end(self) -> Iterator[None]:
        """Record that the task has finished, or forget the start if a retry is to start anew.

        The record stays: what Airflow has not recorded, because the worker was killed or a hook of the author's failed,
        it tries again. A connection that is wrong says nothing of the start, so the run is still looked for.
        """
        try:
            yield
        except QuickBIRunFailed:
            self.delete()
            raise
        except QuickBIConnectionError:
            raise
        except (AirflowFailException, AirflowSensorTimeout, AirflowSkipException):
            self._finish()
            raise
        else:
            self._finish()

    def _finish(self) -> None:
        if self._state.record is not None:
            self.keep(replace(self._state.record, finished=True))
