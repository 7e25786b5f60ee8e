"""The mail tasks of a simulator, their runs and their schedules: pure logic on top of a clock."""

from __future__ import annotations

import heapq
import math
import threading
import uuid
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Final, Literal

from airflow_provider_quickbi.testing.clock import Clock, to_timestamp
from airflow_provider_quickbi.testing.errors import SCHEDULE_LIMIT_MESSAGES, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from zoneinfo import ZoneInfo

SENT: Final = "SENT"
FAILED: Final = "FAILED"
PROCESSING: Final = "PROCESSING"

FIRST_TASK_ID: Final = 7218865303929605212
"""The TaskId that the documentation shows. Ids go up by one from here: above 2^53, a float confuses neighbours."""

Origin = Literal["manual", "schedule", "added"]
"""What started a run: ManualRunMailTask, a schedule, or the test itself."""


@dataclass(slots=True)
class Run:
    """One execution of a mail task.

    It starts at ``started_at``, shows up in GetMailTaskStatus at ``appears_at``, reads as ``running_status`` until
    ``ends_at`` and as ``outcome`` from then on. All times are seconds since 1970 of the simulator's clock.
    """

    task_id: int
    mail_id: str
    started_at: float
    appears_at: float
    ends_at: float
    outcome: str
    origin: Origin
    running_status: str = PROCESSING
    final_status: str | None = None

    def status_at(self, now: float) -> str:
        """Return the status at a time."""
        if self.final_status is not None:
            return self.final_status
        return self.outcome if now >= self.ends_at else self.running_status

    def sort_key(self) -> tuple[float, int]:
        """Order runs by execution time, then by id."""
        return (math.floor(self.started_at), self.task_id)


@dataclass(slots=True)
class Schedule:
    """When runs of a mail start by themselves, and how they go.

    :param times: the times still to come, ascending, in seconds since 1970; may be endless.
    """

    times: Iterator[float]
    duration: float
    appears_after: float
    outcomes: list[str]


@dataclass(slots=True)
class ManualStart:
    """How ManualRunMailTask behaves for one mail.

    :param duration: seconds that a run is processing once it appeared.
    :param appears_after: seconds until the run shows up.
    :param outcomes: the outcome of each run in turn; the last one stays.
    :param refuse_while_running: whether a start is refused with ``MailTask.Already.Running`` while a run is processing.
    """

    duration: float
    appears_after: float
    outcomes: list[str]
    refuse_while_running: bool = True
    limited_until: float = -math.inf
    limited_calls: int = 0
    limit_minutes: int = 5
    limit_language: str = "en"
    refusals: list[tuple[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class MailTask:
    """A subscription and everything that happened to it."""

    mail_id: str
    subscribe_name: str
    paused: bool
    owner: str
    owner_id: str
    manual: ManualStart
    runs: list[Run] = field(default_factory=list)
    starts: int = 0
    forgotten_sent: Counter[str] = field(default_factory=Counter)


def cron_times(line: str, after: datetime) -> Iterator[float]:
    """Yield the times of a cron line, in seconds since 1970, without end.

    :param line: five fields; croniter, which Airflow brings along, reads them.
    :param after: where to begin; its zone is that of the line.
    :raises ValueError: it is not a cron line, or croniter is not installed.
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


def _outcomes(outcome: str | Sequence[str]) -> list[str]:
    outcomes = [outcome] if isinstance(outcome, str) else list(outcome)
    if not outcomes:
        raise ValueError("outcome must name at least one status.")
    return outcomes


def _next_outcome(outcomes: list[str]) -> str:
    return outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]


class MailStore:
    """The mail tasks of an organisation. Safe to use from several threads.

    :param clock: decides when runs appear, end and are due.
    :param zone: the time zone of execution times, and of times given without an offset.
    :param run_duration: seconds that a manual or scheduled run is processing unless its mail says otherwise.
    :param run_appears_after: seconds until such a run shows up unless its mail says otherwise.
    :param runs_kept: how many runs of a mail are kept; the oldest are forgotten, the counters keep counting.
    """

    def __init__(
        self,
        clock: Clock,
        zone: ZoneInfo,
        *,
        run_duration: float = 0.0,
        run_appears_after: float = 0.0,
        runs_kept: int = 10_000,
    ) -> None:
        self.clock = clock
        self.zone = zone
        self._run_duration = run_duration
        self._run_appears_after = run_appears_after
        self._runs_kept = runs_kept
        self._lock = threading.RLock()
        self._mails: dict[str, MailTask] = {}
        self._runs: dict[int, Run] = {}
        self._due: list[tuple[float, int, str, Schedule]] = []
        self._due_number = 0
        self._last_task_id = FIRST_TASK_ID

    # Mail tasks

    def add_mail(
        self,
        name: str,
        *,
        mail_id: str | None = None,
        owner: str = "owner",
        owner_id: str | None = None,
        paused: bool = False,
    ) -> MailTask:
        """Add a mail task.

        :param name: its ``SubscribeName``; names need not be unique.
        :param mail_id: its ``MailId``; default a new UUID.
        :param owner: its ``BizOwnerName``.
        :param owner_id: its ``BizOwnerUserId``; by default made from the owner's name.
        :param paused: whether its schedule is paused.
        :raises ValueError: there is a mail task with this id already.
        """
        with self._lock:
            chosen_id = mail_id or str(uuid.uuid4())
            if chosen_id in self._mails:
                raise ValueError(f"There is a mail task with the id {chosen_id} already.")
            chosen_owner_id = owner_id or uuid.uuid5(uuid.NAMESPACE_OID, owner).hex
            manual = ManualStart(self._run_duration, self._run_appears_after, [SENT])
            mail = MailTask(chosen_id, name, paused, owner, chosen_owner_id, manual)
            self._mails[chosen_id] = mail
            return mail

    def remove_mail(self, mail_id: str) -> None:
        """Remove a mail task with its runs and schedules.

        :raises KeyError: there is no such mail task.
        """
        with self._lock:
            for run in self.mail(mail_id).runs:
                self._runs.pop(run.task_id, None)
            del self._mails[mail_id]
            self._due = [entry for entry in self._due if entry[2] != mail_id]
            heapq.heapify(self._due)

    def mail(self, mail_id: str) -> MailTask:
        """Return a mail task, after the runs that are due have started.

        :raises KeyError: there is no such mail task.
        """
        with self._lock:
            self.start_due_runs()
            try:
                return self._mails[mail_id]
            except KeyError:
                raise KeyError(f"There is no mail task with the id {mail_id}.") from None

    def find_mail(self, mail_id: str) -> MailTask | None:
        """Return a mail task, or None if there is none with this id."""
        with self._lock:
            self.start_due_runs()
            return self._mails.get(mail_id)

    def mails(self) -> list[MailTask]:
        """Return every mail task in the order in which they were added."""
        with self._lock:
            self.start_due_runs()
            return list(self._mails.values())

    def set_paused(self, mail_id: str, paused: bool) -> None:
        """Pause or resume the schedule of a mail task.

        :raises KeyError: there is no such mail task.
        """
        with self._lock:
            self.mail(mail_id).paused = paused

    # Runs

    def add_run(
        self,
        mail_id: str,
        *,
        exec_time: datetime | str | float | None = None,
        status: str | None = None,
        duration: float | None = None,
        outcome: str = SENT,
        appears_after: float = 0.0,
        origin: Origin = "added",
    ) -> Run:
        """Add a run.

        :param mail_id: of which mail.
        :param exec_time: when it starts; default now. May lie in the past or the future; without an offset it is in the
            store's time zone.
        :param status: its status. With ``duration``, the status while it runs; without, the status it keeps until
            :meth:`finish_run`.
        :param duration: seconds from its appearance until it ends with ``outcome``; default 0, or for ever if
            ``status`` is given.
        :param outcome: its status once the duration is over.
        :param appears_after: seconds from ``exec_time`` until it shows up.
        :param origin: what started it.
        :raises KeyError: there is no such mail task.
        """
        with self._lock:
            mail = self.mail(mail_id)
            now = self.clock.time()
            started_at = now if exec_time is None else to_timestamp(exec_time, self.zone)
            if duration is None:
                duration = 0.0 if status is None else math.inf
            return self._start(mail, started_at, duration, appears_after, outcome, origin, status or PROCESSING)

    def finish_run(self, task_id: str | int, status: str = SENT) -> None:
        """Give a run a status from now on, whatever its duration says; it also shows up, if it had not yet.

        :param task_id: which run.
        :param status: ``"SENT"``, ``"FAILED"`` or anything else.
        :raises KeyError: there is no such run.
        """
        with self._lock:
            self.start_due_runs()
            run = self._runs.get(int(task_id))
            if run is None:
                raise KeyError(f"There is no run with the task id {task_id}.")
            run.final_status = status
            run.appears_at = min(run.appears_at, self.clock.time())

    def find_run(self, task_id: int) -> Run | None:
        """Return a run that has appeared, or None."""
        with self._lock:
            run = self._runs.get(task_id)
            return run if run is not None and run.appears_at <= self.clock.time() else None

    def latest_runs(self, mail: MailTask, number: int = 1) -> list[Run]:
        """Return the latest runs of a mail that have appeared, the latest first.

        :param mail: of which mail.
        :param number: at most how many.
        """
        with self._lock:
            now = self.clock.time()
            latest: list[Run] = []
            for run in reversed(mail.runs):
                if len(latest) == number:
                    break
                if run.appears_at <= now:
                    latest.append(run)
            return latest

    def exec_time(self, run: Run) -> datetime:
        """Return when a run started: whole seconds in the store's time zone."""
        return datetime.fromtimestamp(math.floor(run.started_at), self.zone)

    def mails_sent(self, mail_id: str, origin: str | None = None) -> int:
        """Count the runs of a mail that reached ``SENT``.

        :param mail_id: of which mail.
        :param origin: only runs started like this: ``"manual"``, ``"schedule"`` or ``"added"``; default all.
        :raises KeyError: there is no such mail task.
        """
        with self._lock:
            mail = self.mail(mail_id)
            now = self.clock.time()
            kept = sum(run.status_at(now) == SENT for run in mail.runs if origin in (None, run.origin))
            forgotten = mail.forgotten_sent
            return kept + (forgotten.total() if origin is None else forgotten[origin])

    # Schedules

    def add_schedule(
        self,
        mail_id: str,
        *,
        every: float | None = None,
        cron: str | None = None,
        times: Iterable[datetime | str | float] = (),
        first: datetime | str | float | None = None,
        duration: float | None = None,
        appears_after: float | None = None,
        outcome: str | Sequence[str] = SENT,
    ) -> None:
        """Let runs of a mail start by themselves as the clock passes. A paused mail skips its times.

        :param mail_id: of which mail.
        :param every: seconds between two runs.
        :param cron: a cron line such as ``30 8 * * *``, in the store's time zone.
        :param times: single times at which a run starts; may be combined with ``every`` and ``cron``.
        :param first: when the first run of ``every`` starts; default ``every`` seconds from now.
        :param duration: seconds that a run is processing; default the store's.
        :param appears_after: seconds until a run shows up; default the store's.
        :param outcome: the status a run ends with; a sequence gives one to each run in turn, the last one stays.
        :raises KeyError: there is no such mail task.
        :raises ValueError: none of the three is given, ``every`` is not above 0, or ``cron`` is not a cron line.
        """
        upcoming = [iter(sorted(to_timestamp(time, self.zone) for time in times))] if times else []
        if every is not None:
            if every <= 0:
                raise ValueError(f"every must be above 0 seconds, got {every}.")
            begin = self.clock.time() + every if first is None else to_timestamp(first, self.zone)
            upcoming.append(count(begin, every))
        if cron is not None:
            upcoming.append(cron_times(cron, datetime.fromtimestamp(self.clock.time(), self.zone)))
        if not upcoming:
            raise ValueError('A schedule needs every=<seconds>, cron="30 8 * * *" or times=[...].')
        with self._lock:
            self.mail(mail_id)
            length = self._run_duration if duration is None else duration
            delay = self._run_appears_after if appears_after is None else appears_after
            outcomes = _outcomes(outcome)
            for due in upcoming:
                self._expect(mail_id, Schedule(due, length, delay, outcomes))

    def start_due_runs(self) -> None:
        """Start every scheduled run whose time has come."""
        if not self._due:
            return
        with self._lock:
            now = self.clock.time()
            while self._due and self._due[0][0] <= now:
                due, _, mail_id, schedule = heapq.heappop(self._due)
                mail = self._mails[mail_id]
                if not mail.paused:
                    outcome = _next_outcome(schedule.outcomes)
                    self._start(mail, due, schedule.duration, schedule.appears_after, outcome, "schedule", PROCESSING)
                self._expect(mail_id, schedule)

    # Manual starts

    def set_manual_start(
        self,
        mail_id: str,
        *,
        duration: float | None = None,
        appears_after: float | None = None,
        outcome: str | Sequence[str] | None = None,
        refuse_while_running: bool | None = None,
    ) -> None:
        """Decide how the runs that ManualRunMailTask starts go; what is not given stays as it is.

        :param mail_id: of which mail.
        :param duration: seconds that a run is processing once it appeared; ``math.inf`` until :meth:`finish_run`.
        :param appears_after: seconds until a run shows up in GetMailTaskStatus.
        :param outcome: the status a run ends with; a sequence gives one to each run in turn, the last one stays.
        :param refuse_while_running: whether a start is refused while a run is processing; default it is.
        :raises KeyError: there is no such mail task.
        """
        with self._lock:
            manual = self.mail(mail_id).manual
            if duration is not None:
                manual.duration = duration
            if appears_after is not None:
                manual.appears_after = appears_after
            if outcome is not None:
                manual.outcomes = _outcomes(outcome)
            if refuse_while_running is not None:
                manual.refuse_while_running = refuse_while_running

    def limit_manual_starts(
        self, mail_id: str, *, calls: int = 0, minutes: float = 0, announced_minutes: int = 5, language: str = "en"
    ) -> None:
        """Refuse manual starts with ``MailApi.Beyond.ScheduleLimit``.

        :param mail_id: of which mail.
        :param calls: how many calls to refuse.
        :param minutes: for how many minutes of the simulator's clock to refuse; the message names what is left of them.
        :param announced_minutes: the minutes that the message names when ``calls`` are counted.
        :param language: ``"en"`` or ``"zh"``: the language of the message.
        :raises KeyError: there is no such mail task.
        :raises ValueError: the language is not known.
        """
        if language not in SCHEDULE_LIMIT_MESSAGES:
            raise ValueError(f"language must be one of {', '.join(SCHEDULE_LIMIT_MESSAGES)}, got {language!r}.")
        with self._lock:
            manual = self.mail(mail_id).manual
            manual.limited_calls = calls
            manual.limited_until = self.clock.time() + minutes * 60 if minutes else -math.inf
            manual.limit_minutes = announced_minutes
            manual.limit_language = language

    def refuse_manual_start(self, mail_id: str, code: str, *, times: int | None = 1) -> None:
        """Refuse manual starts with a code such as ``"Timer.Schedule.Task"``.

        :param mail_id: of which mail.
        :param code: the ``Code`` of the refusal.
        :param times: how many calls to refuse; None for every one from now on.
        :raises KeyError: there is no such mail task.
        """
        with self._lock:
            self.mail(mail_id).manual.refusals.append((code, math.inf if times is None else times))

    def start_manually(self, mail: MailTask) -> Run:
        """Start a run as ManualRunMailTask does.

        :param mail: of which mail.
        :raises Refusal: ``Timer.Schedule.Task`` and the like, ``MailApi.Beyond.ScheduleLimit`` or
            ``MailTask.Already.Running``.
        """
        with self._lock:
            now = self.clock.time()
            manual = mail.manual
            self._refuse_as_told(manual)
            self._refuse_beyond_limit(manual, now)
            if manual.refuse_while_running and any(
                run.status_at(now) == PROCESSING and run.started_at <= now for run in mail.runs
            ):
                raise Refusal("MailTask.Already.Running")
            mail.starts += 1
            outcome = _next_outcome(manual.outcomes)
            return self._start(mail, now, manual.duration, manual.appears_after, outcome, "manual", PROCESSING)

    def clear(self) -> None:
        """Forget every mail task, run and schedule. Task ids go on increasing."""
        with self._lock:
            self._mails.clear()
            self._runs.clear()
            self._due.clear()

    @staticmethod
    def _refuse_as_told(manual: ManualStart) -> None:
        if manual.refusals:
            code, left = manual.refusals[0]
            if left <= 1:
                manual.refusals.pop(0)
            else:
                manual.refusals[0] = (code, left - 1)
            raise Refusal(code)

    @staticmethod
    def _refuse_beyond_limit(manual: ManualStart, now: float) -> None:
        if now < manual.limited_until:
            minutes = math.ceil((manual.limited_until - now) / 60)
        elif manual.limited_calls > 0:
            manual.limited_calls -= 1
            minutes = manual.limit_minutes
        else:
            return
        raise Refusal("MailApi.Beyond.ScheduleLimit", SCHEDULE_LIMIT_MESSAGES[manual.limit_language] % minutes)

    def _start(
        self,
        mail: MailTask,
        started_at: float,
        duration: float,
        appears_after: float,
        outcome: str,
        origin: Origin,
        running_status: str,
    ) -> Run:
        self._last_task_id += 1
        appears_at = started_at + appears_after
        run = Run(
            self._last_task_id,
            mail.mail_id,
            started_at,
            appears_at,
            appears_at + duration,
            outcome,
            origin,
            running_status,
        )
        insort(mail.runs, run, key=Run.sort_key)
        self._runs[run.task_id] = run
        if len(mail.runs) > self._runs_kept:
            forgotten = mail.runs.pop(0)
            del self._runs[forgotten.task_id]
            if (forgotten.final_status or forgotten.outcome) == SENT:
                mail.forgotten_sent[forgotten.origin] += 1
        return run

    def _expect(self, mail_id: str, schedule: Schedule) -> None:
        due = next(schedule.times, None)
        if due is None:
            return
        self._due_number += 1
        heapq.heappush(self._due, (due, self._due_number, mail_id, schedule))
