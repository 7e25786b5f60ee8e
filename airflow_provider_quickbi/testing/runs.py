"""What runs at Quick BI, mail tasks and datasets alike: by itself, or started through the API, as the clock passes."""

from __future__ import annotations

import heapq
import math
import threading
import uuid
from abc import ABC, abstractmethod
from bisect import insort
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count, islice
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_quickbi.testing.clock import Clock, When, to_timestamp
from airflow_provider_quickbi.testing.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

FIRST_RUN_ID: Final = 7218865303929605212
"""The TaskId that the documentation shows. Ids go up by one from here: above 2^53, a float confuses neighbours."""


@dataclass(slots=True)
class Run:
    """A run that appears at ``appears_at`` and reads as ``running_status`` until ``ends_at``, then as ``outcome``.

    All times are seconds since 1970 of the simulator's clock. ``origin`` is ``"manual"`` for a run started through the
    API, ``"schedule"``, or ``"added"`` for one that a test added.
    """

    run_id: int
    origin: str
    started_at: float
    appears_at: float
    ends_at: float
    running_status: str
    outcome: str

    def status_at(self, now: float) -> str:
        """Return the status at a time."""
        return self.outcome if now >= self.ends_at else self.running_status


@dataclass(slots=True)
class Refusing:
    """Refuses so many starts, or all until a time; ``%s`` in the message is the number of minutes left."""

    code: str
    message: str | None = None
    calls: float = math.inf
    until: float = math.inf


@dataclass(slots=True)
class Subject:
    """A mail task or a dataset, and how runs started through the API behave."""

    id: str
    name: str
    details: dict[str, Any]
    duration: float
    appears_after: float
    outcomes: list[str]
    paused: bool = False
    refuse_while_running: bool = True
    refusals: list[Refusing] = field(default_factory=list)
    starts: int = 0
    runs: list[Run] = field(default_factory=list)


class RunStore(ABC):
    """Subjects of one kind, and their runs. Safe to use from several threads.

    ``subject_id`` is the id of a mail task or dataset; where there is none with this id, methods raise ``KeyError``.

    :param clock: what time it is, and the time zone of execution times.
    :param run_duration: seconds that a started run takes.
    :param run_appears_after: seconds until a started run appears.
    """

    kind: ClassVar[str]
    running_status: ClassVar[str]
    success_status: ClassVar[str]
    already_running: ClassVar[str]

    def __init__(self, clock: Clock, run_duration: float = 0.0, run_appears_after: float = 0.0) -> None:
        self.clock = clock
        self._run_duration = run_duration
        self._run_appears_after = run_appears_after
        self._lock = threading.RLock()
        self._run_ids = count(FIRST_RUN_ID + 1)
        self.forget_runs()

    def forget_runs(self) -> None:
        """Forget every subject, run and schedule. Ids of runs go on increasing."""
        with self._lock:
            self._subjects: dict[str, Subject] = {}
            self._due: list[tuple[float, int, Subject, Iterator[float], float]] = []

    # Subjects

    def _add(self, subject_id: str | None, name: str, **details: Any) -> str:
        subject_id = subject_id or str(uuid.uuid4())
        with self._lock:
            if subject_id in self._subjects:
                raise ValueError(f"There is a {self.kind} with the id {subject_id} already.")
            self._subjects[subject_id] = Subject(
                subject_id, name, details, self._run_duration, self._run_appears_after, [self.success_status]
            )
        return subject_id

    def remove(self, subject_id: str) -> None:
        """Remove a mail task or a dataset with its runs and schedules."""
        with self._lock:
            del self._subjects[self._get(subject_id).id]

    def _all(self) -> list[Subject]:
        """Return every subject in the order in which they were added, after the runs that are due have started."""
        with self._lock:
            self._start_due_runs()
            return list(self._subjects.values())

    def _get(self, subject_id: str, refusal: str | None = None) -> Subject:
        """Return a subject; if there is none, raise a refusal with this code, or ``KeyError``."""
        with self._lock:
            self._start_due_runs()
            subject = self._subjects.get(subject_id)
        if subject is None:
            raise Refusal(refusal) if refusal else KeyError(f"There is no {self.kind} with the id {subject_id}.")
        return subject

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

        :param exec_time: when it starts; default now; may lie in the past or the future.
        :param status: with ``duration``, its status while it runs; without, the status that it keeps until
            :meth:`finish_run`.
        :param duration: seconds from its appearance until it ends with ``outcome``; default 0.
        :param outcome: its status once the duration is over; default success.
        :param appears_after: seconds from ``exec_time`` until it appears.
        :returns: its id, as a string.
        """
        if duration is None:
            duration = 0.0 if status is None else math.inf
        with self._lock:
            subject = self._get(subject_id)
            started_at = self.clock.time() if exec_time is None else to_timestamp(exec_time, self.clock.zone)
            run = self._start(subject, started_at, appears_after, duration, "added")
            run.running_status, run.outcome = status or self.running_status, outcome or self.success_status
            return str(run.run_id)

    def finish_run(self, run_id: str | int, status: str | None = None) -> None:
        """Give a run a status, by default success, from now on, whatever its duration says; it also appears.

        :raises KeyError: there is no such run.
        """
        with self._lock:
            runs = (run for subject in self._all() for run in subject.runs)
            if (run := next((run for run in runs if run.run_id == int(run_id)), None)) is None:
                raise KeyError(f"There is no run with the id {run_id}.")
            run.outcome = status or self.success_status
            run.ends_at = min(run.ends_at, self.clock.time())
            run.appears_at = min(run.appears_at, self.clock.time())

    def runs(self, subject_id: str) -> list[dict[str, Any]]:
        """Return the runs of a mail task or dataset, the oldest first, including those that have not appeared yet.

        :returns: for each run of a mail task ``task_id``, ``status``, ``exec_time`` (ISO 8601) and ``origin``
            (``manual``, ``schedule`` or ``added``); for each refresh of a dataset ``job_id``, ``status``,
            ``started_at``, ``ended_at`` (``None`` before) and ``origin``.
        """
        with self._lock:
            now = self.clock.time()
            return [{**self._describe(run, now), "origin": run.origin} for run in self._get(subject_id).runs]

    @abstractmethod
    def _describe(self, run: Run, now: float) -> dict[str, Any]:
        """Return what :meth:`runs` says of a run besides its origin."""

    def starts(self, subject_id: str) -> int:
        """Count the starts through the API that were accepted, whether or not the client got to know."""
        return self._get(subject_id).starts

    def succeeded(self, subject_id: str, origin: str | None = None) -> int:
        """Count the runs that have succeeded: all, or those of origin ``manual``, ``schedule`` or ``added``."""
        runs = self.runs(subject_id)
        return sum(run["status"] == self.success_status and origin in (None, run["origin"]) for run in runs)

    def latest_runs(self, subject: Subject, number: int | None = 1) -> list[Run]:
        """Return the latest runs that have appeared, at most so many (None: all), the latest first."""
        with self._lock:
            now = self.clock.time()
            return list(islice((run for run in reversed(subject.runs) if run.appears_at <= now), number))

    def local_time(self, seconds: float) -> datetime:
        """Return seconds since 1970 as whole seconds in the store's time zone."""
        return datetime.fromtimestamp(math.floor(seconds), self.clock.zone)

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
    ) -> None:
        """Let runs start by themselves as the clock passes. A paused mail task skips its times.

        :param every: seconds between two runs.
        :param cron: a cron line such as ``30 8 * * *``, in the simulator's time zone.
        :param times: the times at which a run starts, if neither ``every`` nor ``cron`` is given.
        :param first: when the first run of ``every`` starts; default ``every`` seconds from now.
        :param duration: seconds that a run takes; default ``run_duration`` of the simulator.
        :raises ValueError: ``every`` is not above 0, or ``cron`` is not a cron line.
        """
        now = self.clock.time()
        upcoming: Iterator[float]
        if every is not None:
            if every <= 0:
                raise ValueError(f"every must be above 0 seconds, got {every}.")
            upcoming = count(now + every if first is None else to_timestamp(first, self.clock.zone), every)
        elif cron is not None:
            upcoming = cron_times(cron, datetime.fromtimestamp(now, self.clock.zone))
        else:
            upcoming = iter(sorted(to_timestamp(time, self.clock.zone) for time in times))
        with self._lock:
            self._await(self._get(subject_id), upcoming, self._run_duration if duration is None else duration)

    def _await(self, subject: Subject, upcoming: Iterator[float], duration: float) -> None:
        if (due := next(upcoming, None)) is not None:
            heapq.heappush(self._due, (due, next(self._run_ids), subject, upcoming, duration))

    def _start_due_runs(self) -> None:
        while self._due and self._due[0][0] <= self.clock.time():
            due, _, subject, upcoming, duration = heapq.heappop(self._due)
            if self._subjects.get(subject.id) is subject:
                if not subject.paused:
                    self._start(subject, due, self._run_appears_after, duration, "schedule")
                self._await(subject, upcoming, duration)

    # Starts through the API

    def set_start(
        self,
        subject_id: str,
        *,
        duration: float | None = None,
        appears_after: float | None = None,
        outcome: str | Sequence[str] | None = None,
        refuse_while_running: bool | None = None,
    ) -> None:
        """Decide how runs started through the API behave; what is not given stays as it is.

        :param duration: seconds that a run is active once it appeared; ``math.inf`` until :meth:`finish_run`.
        :param appears_after: seconds until a run appears.
        :param outcome: the status a run ends with; a sequence gives one to each run in turn, the last one stays.
        :param refuse_while_running: whether a start is refused while a run is active; initially yes.
        """
        subject = self._get(subject_id)
        if duration is not None:
            subject.duration = duration
        if appears_after is not None:
            subject.appears_after = appears_after
        if outcome:
            subject.outcomes = [outcome] if isinstance(outcome, str) else list(outcome)
        if refuse_while_running is not None:
            subject.refuse_while_running = refuse_while_running

    def refuse_start(self, subject_id: str, code: str, *, times: int | None = 1) -> None:
        """Refuse starts through the API.

        :param code: the ``Code`` of the refusal, such as ``"Timer.Schedule.Task"``.
        :param times: how many calls to refuse; ``None`` for every one from now on.
        """
        self._get(subject_id).refusals.append(Refusing(code, calls=math.inf if times is None else times))

    def start_run(self, subject: Subject) -> None:
        """Start a run as the API does, or refuse to."""
        with self._lock:
            now = self.clock.time()
            subject.refusals = [entry for entry in subject.refusals if entry.calls >= 1 and now < entry.until]
            if subject.refusals:
                refusing = subject.refusals[0]
                refusing.calls -= 1
                message = refusing.message
                if message and "%s" in message:
                    message %= math.ceil((refusing.until - now) / 60)
                raise Refusal(refusing.code, message)
            active = any(run.started_at <= now and run.status_at(now) == self.running_status for run in subject.runs)
            if active and subject.refuse_while_running:
                raise Refusal(self.already_running)
            subject.starts += 1
            run = self._start(subject, now, subject.appears_after, subject.duration, "manual")
            run.outcome = subject.outcomes.pop(0) if len(subject.outcomes) > 1 else subject.outcomes[0]

    def _start(self, subject: Subject, started_at: float, appears_after: float, duration: float, origin: str) -> Run:
        appears_at = started_at + appears_after
        statuses = self.running_status, self.success_status
        run = Run(next(self._run_ids), origin, started_at, appears_at, appears_at + duration, *statuses)
        insort(subject.runs, run, key=lambda other: (math.floor(other.started_at), other.run_id))
        return run


def cron_times(line: str, after: datetime) -> Iterator[float]:
    """Return the times of a cron line after a time in its zone, in seconds since 1970, without end.

    :raises ValueError: it is not a cron line, or croniter, which Airflow brings along, is not installed.
    """
    try:
        from croniter import CroniterError, croniter
    except ImportError:
        raise ValueError("A cron line needs croniter: install it, or use every=<seconds>.") from None
    try:
        times = croniter(line, after, ret_type=datetime)
    except CroniterError:
        raise ValueError(f"{line!r} is not a cron line such as '30 8 * * *'.") from None
    return (time.timestamp() for time in iter(times.get_next, None))
