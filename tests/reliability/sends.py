"""Sends and refreshes as they live: the operators in process, a store that survives a crash, and crashes everywhere."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.clock import Clock
from airflow_provider_quickbi.api.flow import Send, Step
from airflow_provider_quickbi.exceptions import QuickBIRunFailed, QuickBIStartUnknown, QuickBIUnavailable
from airflow_provider_quickbi.operators.quickbi import QuickBIRefreshDatasetOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.operators.starting import StartOperator
from tests.datasets import Datasets
from tests.xcoms import XComs

from .faulty import FaultyQuickBI
from .waits import Triggerer, through_json

#: Tries after which a send that has still not finished is taken to be lost.
TRIES = 25
#: Seconds within which a started run is seen; each of them appears within a small part of it.
APPEAR_TIMEOUT = 3.0


class Crash(BaseException):
    """The worker process is gone."""


class Crashes:
    """Lets the worker crash a few times, before or after something that matters.

    :param dice: decide where.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._left = dice.choice((0, 1, 1, 2, 3))
        self.happened = 0

    def maybe(self) -> None:
        """Crash here, or not."""
        if self._left and self._dice.random() < 0.12:
            self._left -= 1
            self.happened += 1
            raise Crash


class Store:
    """Stands for Airflow's ``task_state_store``: plain JSON that survives the worker.

    :param crashes: of the worker.
    """

    def __init__(self, crashes: Crashes) -> None:
        self._crashes = crashes
        self.kept: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """Return what is kept."""
        return through_json(self.kept.get(key, default))

    def set(self, key: str, value: Any, **_options: Any) -> None:
        """Keep something; the worker may crash before and after."""
        self._crashes.maybe()
        self.kept[key] = through_json(value)
        self._crashes.maybe()

    def delete(self, key: str) -> None:
        """Keep something no longer; the worker may crash before."""
        self._crashes.maybe()
        self.kept.pop(key, None)


_current = threading.local()


class HurriedClient(QuickBIClient):
    """Makes short pauses only, and lets its worker crash before and after a request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, clock=Clock(sleep=lambda seconds: time.sleep(min(seconds, 0.05))), **kwargs)

    def _carry_out(self, step: Step) -> Any:
        crashes: Crashes | None = getattr(_current, "crashes", None)
        if crashes is None or not isinstance(step, Send):
            return super()._carry_out(step)
        crashes.maybe()
        response = super()._carry_out(step)
        crashes.maybe()
        return response


@contextmanager
def hurried() -> Iterator[None]:
    """Shorten what a worker sleeps, and let starts follow one another quickly; what is decided stays the same."""
    from airflow_provider_quickbi._send import monitor, starter
    from airflow_provider_quickbi.api import client, rate_limit
    from airflow_provider_quickbi.api.retry import RetryPolicy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "QuickBIClient", HurriedClient)
        patch.setitem(rate_limit.CALLS_PER_SECOND, "ManualRunMailTask", 200.0)
        patch.setattr(monitor, "_PATIENCE", RetryPolicy(first_delay=0.05, max_delay=0.3))
        patch.setattr(starter, "DEFAULT_PAUSE", 0.3)
        patch.setattr(monitor, "_SHORT_PAUSE", 0.05)
        patch.setattr(aio, "FIRST_POLL_SECONDS", 0.0)
        XComs(patch)
        yield


@dataclass(slots=True)
class SendPlan:
    """A task that sends a mail or refreshes a dataset.

    :param name: what kind of story it is.
    :param mail_id: the mail task or the dataset.
    :param refreshes: whether it is a dataset.
    :param outcomes: how its runs end, in turn.
    :param ends: how the task may end: the XCom's status, or the name of an exception.
    :param starts: how many starts Quick BI may have accepted at the end.
    :param duration: seconds of a run.
    :param other: seconds for which another run is active at the start; ``None`` for no other.
    :param denied: the ``Code`` with which every call is refused.
    :param arguments: of the operator.
    """

    name: str
    mail_id: str
    refreshes: bool
    outcomes: tuple[str, ...]
    ends: frozenset[str]
    starts: frozenset[int]
    duration: float
    other: float | None
    denied: str
    arguments: dict[str, Any]


def plan_send(number: int, seed: int) -> SendPlan:
    """Make up a send; the same number and seed give the same one."""
    dice = random.Random(f"{seed}/send/{number}")
    name = dice.choice(
        (*("sent",) * 4, "fails", "fails, then sent", "never finished", "denied", "attached", "only started")
    )
    refreshes = dice.random() < 0.4
    outcomes = {"fails": ("FAILED",), "fails, then sent": ("FAILED", "SENT")}.get(name, ("SENT",))
    ends = {
        "fails": {"QuickBIDatasetRefreshFailed" if refreshes else "QuickBIMailTaskFailed"},
        "never finished": {"AirflowSensorTimeout"},
        "denied": {"QuickBIRequestError"},
        "only started": {"RUNNING", "SUCCESS"} if refreshes else {"PROCESSING", "QUEUED", "SENT"},
    }.get(name, {"SUCCESS" if refreshes else "SENT"})
    starts = {"fails, then sent": {2}, "never finished": {0, 1}, "denied": {0}, "attached": {0, 1}}.get(name, {1})
    arguments: dict[str, Any] = {
        "deferrable": dice.random() < 0.5,
        "poll_interval": 0.2,
        "start_timeout": APPEAR_TIMEOUT,
        "timeout": 3.0 if name == "never finished" else 300.0,
        "on_running": "attach" if name == "attached" else "wait",
        "on_failed": "retry" if name == "fails, then sent" else "fail",
        "wait_for_completion": name != "only started",
    }
    return SendPlan(
        name,
        f"send-{number}",
        refreshes,
        outcomes,
        frozenset(ends),
        frozenset(starts),
        float("inf") if name == "never finished" else dice.uniform(0.0, 0.8),
        dice.uniform(0.3, 1.0) if name == "attached" or (name == "sent" and dice.random() < 0.3) else None,
        "" if name != "denied" else "User.OperationPermission.Error" if refreshes else "Mail.Forbidden.Access",
        arguments,
    )


class Senders:
    """Those who send in a soak.

    :param quickbi: where.
    :param conn_id: of the connection to it.
    :param triggerer: where they wait deferred.
    :param counts: what happened.
    :param seed: of every decision.
    """

    def __init__(
        self, quickbi: FaultyQuickBI, conn_id: str, triggerer: Triggerer, counts: Counter[str], seed: int
    ) -> None:
        self.quickbi = quickbi
        self.conn_id = conn_id
        self.triggerer = triggerer
        self.counts = counts
        self.seed = seed

    def send(self, number: int, loop: asyncio.AbstractEventLoop) -> tuple[SendPlan, str, list[str]]:
        """Send a mail or refresh a dataset, try after try, in a thread of a worker.

        :param number: of the send.
        :param loop: where triggers run.
        :returns: the plan, how it ended, and what is wrong with that.
        """
        plan = plan_send(number, self.seed)
        dice = random.Random(f"{self.seed}/life of send/{number}")
        self._prepare(plan, dice)
        crashes = Crashes(dice)
        store = Store(crashes)
        _current.crashes = crashes
        try:
            end, result = self._tries(plan, store, dice, loop)
        finally:
            _current.crashes = None
        self.counts["crashes of a worker"] += crashes.happened
        wrong = list(self._wrong(plan, end, result))
        self._target(plan).remove_mail_task(plan.mail_id)
        self.quickbi.forget(plan.mail_id)
        return plan, end, wrong

    def _target(self, plan: SendPlan) -> FaultyQuickBI | Datasets:
        return self.quickbi.as_mail_tasks if plan.refreshes else self.quickbi

    def _prepare(self, plan: SendPlan, dice: random.Random) -> None:
        profile = self.quickbi.profile(plan.mail_id)
        profile.trouble = dice.choice((0.0, 0.2, 0.4))
        profile.start_trouble = dice.choice((0.0, 0.4, 0.7))
        profile.listed = dice.choice((1, 3))
        if plan.denied:
            from airflow_provider_quickbi.testing import Fault

            profile.refusal = Fault.error(plan.denied)
        target = self._target(plan)
        target.add_mail_task(plan.mail_id, mail_id=plan.mail_id)
        target.set_manual_start(
            plan.mail_id, duration=plan.duration, appears_after=dice.uniform(0.0, 0.3), outcome=plan.outcomes
        )
        for _ in range(dice.randrange(2)):
            target.add_run(plan.mail_id, exec_time=datetime(2026, 1, 1, tzinfo=UTC))
        if plan.other is not None:
            target.add_run(plan.mail_id, duration=plan.other)

    def _tries(
        self, plan: SendPlan, store: Store, dice: random.Random, loop: asyncio.AbstractEventLoop
    ) -> tuple[str, Any]:
        for try_number in range(1, TRIES + 1):
            self.counts["tries of a send"] += 1
            context = _context(try_number, store)
            try:
                result = self._one_try(plan, context, dice, loop)
            except Crash:
                continue
            except (QuickBIUnavailable, QuickBIStartUnknown, QuickBIRunFailed) as error:
                self.counts[f"retries after {type(error).__name__}"] += 1
                continue
            except (AirflowFailException, AirflowSensorTimeout, AirflowSkipException) as error:
                return type(error).__name__, None
            return str(result["status"]), result
        return "never finished", None

    def _one_try(
        self, plan: SendPlan, context: Any, dice: random.Random, loop: asyncio.AbstractEventLoop
    ) -> dict[str, Any]:
        step: Callable[[], Any] = partial(inspect.unwrap(StartOperator.execute), self._task(plan), context)
        while True:
            try:
                result: dict[str, Any] = step()
                return result
            except TaskDeferred as deferred:
                running = asyncio.run_coroutine_threadsafe(self.triggerer.run(deferred.trigger, dice), loop)
                event = running.result()
                method = getattr(self._task(plan), deferred.method_name)
                step = partial(method, context, event=event, **through_json(deferred.kwargs or {}))

    def _task(self, plan: SendPlan) -> StartOperator:
        given = {"task_id": "send", "quickbi_conn_id": self.conn_id, "retries": TRIES, **plan.arguments}
        if plan.refreshes:
            return QuickBIRefreshDatasetOperator(dataset_id=plan.mail_id, **given)
        return QuickBIRunMailTaskOperator(mail_id=plan.mail_id, **given)

    def _wrong(self, plan: SendPlan, end: str, result: Any) -> Iterator[str]:
        """Give what is wrong with the end of a send, by what the server itself counted."""
        starts = self._target(plan).starts(plan.mail_id)
        runs = self._target(plan).runs(plan.mail_id)
        sent = [run for run in runs if run["origin"] == "manual" and run["status"] in ("SENT", "SUCCESS")]
        what = "refresh" if plan.refreshes else "send"
        shown = f"{what} {plan.name!r} ({plan.mail_id}) ended {end} with {starts} starts and {len(sent)} mails"
        if end not in plan.ends:
            yield f"{shown}; it should have ended {', '.join(sorted(plan.ends))}"
        if starts not in plan.starts:
            yield f"{shown}; there should be {' or '.join(map(str, sorted(plan.starts)))} starts"
        if len(sent) > 1:
            yield f"{shown}: it was sent twice"
        if result is not None:
            named = result["job_id" if plan.refreshes else "task_id"]
            truth = {run["task_id"]: run for run in runs}.get(named)
            if (
                truth is None
                or (truth["origin"] != "manual" and plan.name != "attached")
                or (end in ("SENT", "SUCCESS") and truth["status"] != end)
            ):
                yield f"{shown}; the run that it names is {truth}"


def _context(try_number: int, store: Store) -> dict[str, Any]:
    task_instance = SimpleNamespace(
        try_number=try_number,
        max_tries=TRIES,
        task_id="send",
        xcom_push=lambda key, value: through_json({key: value}),
    )
    return {
        "ti": task_instance,
        "dag_run": SimpleNamespace(start_date=datetime.now(UTC)),
        "task_state_store": store,
    }
