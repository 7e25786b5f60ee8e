"""Runs tries of the run operator in this process, with deferrals, retries and clears, and in a time of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_quickbi._send.store import RECORD_KEY
from airflow_provider_quickbi.api import rate_limit
from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.clock import Clock
from airflow_provider_quickbi.operators.quickbi import QuickBIRefreshDatasetOperator, QuickBIRunMailTaskOperator
from tests.datasets import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.api.errors import QuickBIError
    from airflow_provider_quickbi.testing import Fault, LocalQuickBI

#: When the tests start, in their own time.
BEGIN = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
DAY = timedelta(days=1)
#: What Airflow never tries again.
FINAL = (AirflowFailException, AirflowSensorTimeout, AirflowSkipException)
#: Real seconds that a trigger may take.
TRIGGER_LIMIT = 20.0
#: How often the time may be read before it passes; more often is a loop that waits for nothing.
PATIENCE = 20_000


#: For tests of which only some of the cases make sense.
recorded = pytest.mark.parametrize("keeps_records", [True], ids=["recorded"])
unrecorded = pytest.mark.parametrize("keeps_records", [False], ids=["unrecorded"])
deferred = pytest.mark.parametrize("deferrable", [True], ids=["deferred"])
held = pytest.mark.parametrize("deferrable", [False], ids=["held"])


class Crash(BaseException):
    """The death of a process: nothing catches it."""


class World:
    """A time that stands still unless somebody sleeps, for the operator, the triggers and Quick BI alike."""

    def __init__(self, quickbi: LocalQuickBI) -> None:
        self.quickbi = quickbi
        self.now = BEGIN.timestamp()
        self.slept: list[float] = []
        self._reads = 0
        self.before_sleeping: Callable[[], Any] = lambda: None
        self.in_triggerer: Callable[[], Any] = lambda: None
        self._plans: list[tuple[float, Callable[[], Any]]] = []
        quickbi.clock.freeze(at=BEGIN)
        self._pass_to(self.now)

    def time(self) -> float:
        self._reads += 1
        assert self._reads < PATIENCE, "a loop waits for nothing"
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass, as a process does that holds a worker slot."""
        self.slept.append(seconds)
        self.before_sleeping()
        self.advance(seconds)

    async def sleep_in_the_triggerer(self, seconds: float) -> None:
        self.in_triggerer()
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        until = self.now + max(0.0, seconds)
        while plans := [plan for plan in self._plans if plan[0] <= until]:
            due = min(plans, key=lambda plan: plan[0])
            self._plans.remove(due)
            self._pass_to(max(due[0], self.now))
            due[1]()
        self._pass_to(until)

    def _pass_to(self, instant: float) -> None:
        if instant > self.now:
            self._reads = 0
        self.quickbi.clock.advance(instant - self.now)
        self.now = instant
        self.quickbi.clock.skew = instant - time.time()  # by which it takes requests for too old

    def after(self, seconds: float, do: Callable[[], Any]) -> None:
        """Do something as soon as so many seconds have passed."""
        self._plans.append((self.now + seconds, do))

    def elapsed(self) -> float:
        return self.now - BEGIN.timestamp()

    def clock(self) -> Clock:
        """Return the clock that goes by this time."""
        return Clock(self.time, self.time, self.sleep, self.sleep_in_the_triggerer)


class Store:
    """What ``task_state_store`` of Airflow 3.3 does: keeps JSON from try to try."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.before: Callable[[str, Any], Any] = lambda action, value: None

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else default

    def set(self, key: str, value: Any) -> None:
        self.before("set", value)
        self.kept[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.before("delete", None)
        self.kept.pop(key, None)


@dataclass
class Deferral:
    """One stay in the triggerer.

    :param trigger: name of the trigger's class.
    :param arguments: of the trigger.
    :param began: when, in seconds since the start.
    :param timeout: of the framework.
    """

    trigger: str
    arguments: dict[str, Any]
    began: float
    timeout: timedelta


@dataclass
class Task:
    """One task instance: its tries follow each other as Airflow has them follow.

    :param world: its time.
    :param arguments: of the operator.
    :param store: where start records are kept; ``None`` below Airflow 3.3.
    :param retries: of the task.
    :param retry_delay: seconds between two tries.
    :param kind: what is started: ``mail`` or ``dataset``.
    """

    world: World
    arguments: dict[str, Any]
    store: Store | None
    retries: int = 3
    retry_delay: float = 60.0
    kind: str = "mail"
    try_number: int = 1
    max_tries: int = 0
    dag_run: Any = None
    deferrals: list[Deferral] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    restarts: int = 0
    before_resuming: Callable[[], Any] = lambda: None
    before_recording: Callable[[], Any] = lambda: None

    def __post_init__(self) -> None:
        self.max_tries = self.retries
        self.dag_run = self.dag_run or SimpleNamespace(start_date=datetime.fromtimestamp(self.world.now, UTC))

    def operator(self) -> Any:
        operator = QuickBIRunMailTaskOperator if self.kind == "mail" else QuickBIRefreshDatasetOperator
        return operator(task_id="send", retries=self.retries, **self.arguments)

    def context(self) -> dict[str, Any]:
        task_instance = SimpleNamespace(
            dag_id="reports",
            task_id="send",
            run_id="manual",
            map_index=-1,
            try_number=self.try_number,
            max_tries=self.max_tries,
            xcom_push=lambda key, value: json.dumps(value),
        )
        context = {"ti": task_instance, "dag_run": self.dag_run}
        return context if self.store is None else {**context, "task_state_store": self.store}

    def attempt(self) -> Any:
        """Make one try, with all its deferrals; each leg is a new process."""
        resume = "execute"
        arguments: dict[str, Any] = {}
        while True:
            rate_limit.forget_rate_limiters()
            try:
                result = getattr(self.operator(), resume)(self.context(), **arguments)
            except TaskDeferred as deferred:
                event = self.wait_in_the_triggerer(deferred)
                resume = deferred.method_name
                arguments = {**(deferred.kwargs or {}), "event": event}
                self.before_resuming()
            except FINAL:
                self.before_recording()
                raise
            else:
                self.before_recording()
                return result

    def wait_in_the_triggerer(self, deferred: TaskDeferred) -> Any:
        """Run a trigger as a triggerer does that knows it only from the database, and return its event."""
        path, arguments = deferred.trigger.serialize()
        name = path.rpartition(".")[2]
        self.deferrals.append(Deferral(name, arguments, self.world.elapsed(), deferred.timeout))
        while True:
            rate_limit.forget_rate_limiters()
            try:
                return asyncio.run(first_event(revived(path, arguments)))
            except Crash:
                self.restarts += 1

    def retry(self) -> Any:
        """Make the next try, after the delay between tries."""
        self.world.advance(self.retry_delay)
        self.try_number += 1
        return self.attempt()

    def run(self) -> Any:
        """Make tries until one succeeds, one fails for good, or there are no retries left."""
        while True:
            try:
                return self.attempt()
            except (Exception, Crash) as error:
                self.errors.append(error)
                if isinstance(error, FINAL) or self.try_number > self.max_tries:
                    raise
            self.world.advance(self.retry_delay)
            self.try_number += 1

    def die_once_before_recording(self) -> None:
        """Let the process die once between the end of a try and the moment when Airflow records it."""

        def die() -> None:
            self.before_recording = lambda: None
            raise Crash("before Airflow has recorded the end")

        self.before_recording = die

    def clear(self) -> None:
        """Do what clearing a task does; it is to be tried again as often as at first."""
        self.max_tries = self.try_number + self.retries
        self.try_number += 1

    @property
    def has_unfinished_record(self) -> bool:
        """Whether the record of a start is left that the task has not finished."""
        record = None if self.store is None else self.store.get(RECORD_KEY)
        return record is not None and not record["finished"]


def revived(path: str, arguments: dict[str, Any]) -> Any:
    """Make a trigger from what the database holds of it."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))


async def first_event(trigger: Any) -> Any:
    async def first() -> Any:
        async for event in trigger.run():
            return json.loads(json.dumps(event.payload))
        raise AssertionError("the trigger gave no event")

    return await asyncio.wait_for(first(), TRIGGER_LIMIT)


class Case:
    """One mail task or dataset, and tasks that send or refresh it on one kind of Airflow and in one mode.

    :param world: the time.
    :param kind: ``mail`` or ``dataset``, of which the tests speak as if it were a mail task.
    :param mail_id: of the mail task or the dataset.
    :param store: of all its tasks; ``None`` below Airflow 3.3.
    :param deferrable: whether they wait in the triggerer.
    """

    def __init__(self, world: World, kind: str, mail_id: str, store: Store | None, *, deferrable: bool) -> None:
        self.world = world
        self.quickbi: Any = world.quickbi
        self.kind = kind
        self.mail_id = mail_id
        self.store = store
        self.deferrable = deferrable
        self._patch = pytest.MonkeyPatch()

    def task(self, *, retries: int = 3, **arguments: Any) -> Task:
        """Make a task that sends the mail or refreshes the dataset."""
        if not arguments.keys() & {"subscribe_name", "dataset_name"}:
            arguments.setdefault("mail_id" if self.kind == "mail" else "dataset_id", self.mail_id)
        given = {"poll_interval": 60, "deferrable": self.deferrable, **arguments}
        return Task(self.world, given, self.store, retries=retries, kind=self.kind)

    def starts(self) -> int:
        """Count the runs that were started through the API."""
        return int(self.quickbi.starts(self.mail_id))

    def newest(self, origin: str | None = None) -> dict[str, Any]:
        """Return the XCom that the newest run should give.

        :param origin: the newest run that came about in this way; by default of all.
        """
        runs = [run for run in self.quickbi.runs(self.mail_id) if origin in (None, run["origin"])]
        shown = (
            ("task_id", "status", "exec_time")
            if self.kind == "mail"
            else ("job_id", "status", "started_at", "ended_at")
        )
        return {f"{self.kind}_id": self.mail_id, **{key: runs[-1][key] for key in shown}}

    def run_id(self, xcom: dict[str, Any]) -> str:
        """Return the id of the run that an XCom names."""
        return str(xcom["task_id" if self.kind == "mail" else "job_id"])

    @property
    def succeeded(self) -> str:
        """The status that means success."""
        return "SENT" if self.kind == "mail" else "SUCCESS"

    def die_at(self, owner: Any, name: str, nth: int = 1, *, after: bool = False) -> None:
        """Let the process die at the nth call of a method, or of a client's operation, before or after it is done."""
        name = ACTIONS.get(name, name) if self.kind == "dataset" else name
        method = name if hasattr(owner, name) else "do"
        real = getattr(owner, method)
        calls = itertools.count(1)

        def call(*args: Any, **kwargs: Any) -> Any:
            if method != name and args[1].action != name:
                return real(*args, **kwargs)
            this = next(calls)
            if this == nth and not after:
                raise Crash(f"before {name}")
            result = real(*args, **kwargs)
            if this == nth:
                raise Crash(f"after {name}")
            return result

        self._patch.setattr(owner, method, call)

    def start_with(self, **arguments: Any) -> None:
        """Set how runs that are started behave."""
        self.quickbi.set_manual_start(self.mail_id, **arguments)

    def fail(self, action: str, *faults: Fault, times: int | None = 1) -> None:
        """Let Quick BI fail at an operation."""
        self.quickbi.fail(action, *faults, times=times)

    def in_an_outage(self, begin: float, end: float, fault: Fault) -> None:
        """Let no status be had between two times, in seconds from now."""
        self.world.after(begin, lambda: self.quickbi.fail("GetMailTaskStatus", fault, times=None))
        self.world.after(end, self.quickbi.clear_faults)

    def refuse_starts(self, number: float, error: QuickBIError) -> None:
        """Let the first calls that start a mail fail before anything is sent."""
        real = QuickBIClient.do
        refused = itertools.count(1)

        def call(client: Any, operation: Any, **kwargs: Any) -> Any:
            if not operation.repeatable and next(refused) <= number:
                raise error
            return real(client, operation, **kwargs)

        self._patch.setattr(QuickBIClient, "do", call)

    def close(self) -> None:
        """Undo what the case has changed."""
        self._patch.undo()
