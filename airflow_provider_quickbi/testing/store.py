"""Keeps subjects of one kind with their runs: pure logic on top of a clock."""

from __future__ import annotations

import math
import threading
from bisect import insort
from datetime import datetime
from itertools import count, islice
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

from airflow_provider_quickbi.testing.clock import Clock, When, to_timestamp
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.runs import Origin, Run, StartRules, Subject, next_outcome, read_outcomes
from airflow_provider_quickbi.testing.schedules import Schedule, Timetable, upcoming

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from zoneinfo import ZoneInfo

FIRST_RUN_ID: Final = 7218865303929605212
"""The TaskId that the documentation shows. Ids go up by one from here: above 2^53, a float confuses neighbours."""

S = TypeVar("S", bound=Subject)


class RunStore(Generic[S]):
    """Subjects of one kind, and their runs. Safe to use from several threads."""

    kind: ClassVar[str]
    running_status: ClassVar[str]
    success_status: ClassVar[str]
    failure_status: ClassVar[str]
    already_running: ClassVar[str]

    def __init__(self, clock: Clock, zone: ZoneInfo, run_duration: float = 0.0, run_appears_after: float = 0.0) -> None:
        self.clock = clock
        self.zone = zone
        self._run_duration = run_duration
        self._run_appears_after = run_appears_after
        self._lock = threading.RLock()
        self._subjects: dict[str, S] = {}
        self._runs: dict[int, Run] = {}
        self._timetable = Timetable()
        self._ids = count(FIRST_RUN_ID + 1)

    # Subjects

    def _new_rules(self) -> StartRules:
        return StartRules(self._run_duration, self._run_appears_after, [self.success_status])

    def _add(self, subject: S) -> None:
        with self._lock:
            if subject.id in self._subjects:
                raise ValueError(f"There is a {self.kind} with the id {subject.id} already.")
            self._subjects[subject.id] = subject

    def _remove(self, subject_id: str) -> None:
        with self._lock:
            for run in self.get(subject_id).runs:
                self._runs.pop(run.run_id, None)
            del self._subjects[subject_id]
            self._timetable.remove(subject_id)

    def get(self, subject_id: str) -> S:
        """Return a subject, after the runs that are due have started; there must be one with this id."""
        subject = self.find(subject_id)
        if subject is None:
            raise KeyError(f"There is no {self.kind} with the id {subject_id}.")
        return subject

    def find(self, subject_id: str) -> S | None:
        """Return a subject, or ``None`` if there is none with this id."""
        with self._lock:
            self._start_due_runs()
            return self._subjects.get(subject_id)

    def all(self) -> list[S]:
        """Return every subject in the order in which they were added."""
        with self._lock:
            self._start_due_runs()
            return list(self._subjects.values())

    def clear(self) -> None:
        """Forget every subject, run and schedule. Ids of runs go on increasing."""
        with self._lock:
            self._subjects.clear()
            self._runs.clear()
            self._timetable.remove()

    # Runs

    def add_run(
        self,
        subject_id: str,
        *,
        exec_time: When | None = None,
        status: str | None = None,
        duration: float | None = None,
        outcome: str | None = None,
        appears_after: float = 0.0,
    ) -> str:
        """Add a run, as if something had started it. Without further arguments it has succeeded at once.

        :param exec_time: when it starts: a datetime or an ISO 8601 string, without an offset in the simulator's time
            zone. Default now; may lie in the past or the future.
        :param status: with ``duration``, its status while it runs; without, the status that it keeps until
            :meth:`finish_run`.
        :param duration: seconds from its appearance until it ends with ``outcome``; default 0.
        :param outcome: its status once the duration is over; default success.
        :param appears_after: seconds from ``exec_time`` until it appears; default 0.
        :returns: its id, as a string.
        :raises KeyError: there is no such mail task or dataset.
        """
        with self._lock:
            started_at = self.clock.time() if exec_time is None else to_timestamp(exec_time, self.zone)
            if duration is None:
                duration = 0.0 if status is None else math.inf
            subject = self.get(subject_id)
            run = self._start(
                subject, started_at, duration, appears_after, outcome or self.success_status, "added", status
            )
            return str(run.run_id)

    def finish_run(self, run_id: str | int, status: str | None = None) -> None:
        """Give a run a status, by default success, from now on, whatever its duration says; it also appears.

        :raises KeyError: there is no such run.
        """
        with self._lock:
            self._start_due_runs()
            run = self._runs.get(int(run_id))
            if run is None:
                raise KeyError(f"There is no run with the id {run_id}.")
            now = self.clock.time()
            run.outcome = status or self.success_status
            run.ends_at = min(run.ends_at, now)
            run.appears_at = min(run.appears_at, now)

    def runs(self, subject_id: str) -> list[dict[str, Any]]:
        """Return the runs, the oldest first, including those that have not appeared yet.

        :returns: for each ``task_id``, ``status``, ``exec_time`` (ISO 8601) and ``origin`` (``manual``, ``schedule`` or
            ``added``).
        """
        with self._lock:
            now = self.clock.time()
            return [
                {
                    "task_id": str(run.run_id),
                    "status": run.status_at(now),
                    "exec_time": self.exec_time(run).isoformat(),
                    "origin": run.origin,
                }
                for run in self.get(subject_id).runs
            ]

    def starts(self, subject_id: str) -> int:
        """Count the starts through the API that were accepted, whether or not the client got to know."""
        return self.get(subject_id).rules.accepted

    def succeeded(self, subject_id: str, origin: str | None = None) -> int:
        """Count the runs that have succeeded: all, or those of origin ``manual``, ``schedule`` or ``added``."""
        return sum(
            run["status"] == self.success_status for run in self.runs(subject_id) if origin in (None, run["origin"])
        )

    def find_run(self, run_id: int) -> Run | None:
        """Return a run that has appeared, or ``None``."""
        with self._lock:
            run = self._runs.get(run_id)
            return run if run is not None and run.appears_at <= self.clock.time() else None

    def latest_runs(self, subject: S, number: int = 1) -> list[Run]:
        """Return the latest runs that have appeared, at most so many, the latest first."""
        with self._lock:
            now = self.clock.time()
            return list(islice((run for run in reversed(subject.runs) if run.appears_at <= now), number))

    def exec_time(self, run: Run) -> datetime:
        """Return when a run started: whole seconds in the store's time zone."""
        return datetime.fromtimestamp(math.floor(run.started_at), self.zone)

    # Schedules

    def add_schedule(
        self,
        subject_id: str,
        *,
        every: float | None = None,
        cron: str | None = None,
        times: Iterable[When] = (),
        first: When | None = None,
        duration: float | None = None,
        appears_after: float | None = None,
        outcome: str | Sequence[str] | None = None,
    ) -> None:
        """Let runs start by themselves as the clock passes. A paused mail task skips its times.

        :param every: seconds between two runs.
        :param cron: a cron line such as ``30 8 * * *``, in the simulator's time zone.
        :param times: single times at which a run starts; may be combined with ``every`` and ``cron``.
        :param first: when the first run of ``every`` starts; default ``every`` seconds from now.
        :param duration: seconds that a run takes; default ``run_duration`` of the simulator.
        :param appears_after: seconds until a run appears; default ``run_appears_after`` of the simulator.
        :param outcome: the status a run ends with; a sequence gives one to each run in turn, the last one stays.
        :raises KeyError: there is no such mail task or dataset.
        :raises ValueError: none of the three is given, ``every`` is not above 0, or ``cron`` is not a cron line.
        """
        due = upcoming(self.clock.time(), self.zone, every, cron, times, first)
        with self._lock:
            self.get(subject_id)
            length = self._run_duration if duration is None else duration
            delay = self._run_appears_after if appears_after is None else appears_after
            outcomes = read_outcomes(self.success_status if outcome is None else outcome)
            for series in due:
                self._timetable.expect(subject_id, Schedule(series, length, delay, outcomes))

    def _start_due_runs(self) -> None:
        for due, subject_id, schedule in self._timetable.pop(self.clock.time()):
            subject = self._subjects[subject_id]
            if not subject.paused:
                outcome = next_outcome(schedule.outcomes)
                self._start(subject, due, schedule.duration, schedule.appears_after, outcome, "schedule")

    # Starts through the API

    def start_run(self, subject: S) -> None:
        """Start a run as the API does.

        :raises Refusal: as the rules of the subject say, or because a run is active.
        """
        with self._lock:
            now = self.clock.time()
            self._check_start(subject, now)
            rules = subject.rules
            rules.accepted += 1
            self._start(subject, now, rules.duration, rules.appears_after, next_outcome(rules.outcomes), "manual")

    def _check_start(self, subject: S, now: float) -> None:
        rules = subject.rules
        if rules.refusals:
            code, left = rules.refusals[0]
            rules.refusals[:1] = [(code, left - 1)] if left > 1 else []
            raise Refusal(code)
        if rules.refuse_while_running and any(
            run.status_at(now) == self.running_status and run.started_at <= now for run in subject.runs
        ):
            raise Refusal(self.already_running)

    def _start(
        self,
        subject: S,
        started_at: float,
        duration: float,
        appears_after: float,
        outcome: str,
        origin: Origin,
        running_status: str | None = None,
    ) -> Run:
        appears_at = started_at + appears_after
        run = Run(
            next(self._ids),
            subject.id,
            started_at,
            appears_at,
            appears_at + duration,
            outcome,
            origin,
            running_status or self.running_status,
        )
        insort(subject.runs, run, key=Run.sort_key)
        self._runs[run.run_id] = run
        return run
