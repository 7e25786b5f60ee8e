"""Runs tasks as a worker and a triggerer do, and gives out everything that they leave behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from .marked import BOUND, CONN_ID
from .saying import say, tried


class Instance:
    """What a task finds in its context: it keeps what it is given."""

    def __init__(self) -> None:
        self.try_number = self.max_tries = 1
        self.dag_id, self.task_id, self.run_id, self.map_index = "d", "t", "r", -1
        self.start_date = datetime.now(UTC)
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.pushed[key] = value


class Store(dict[str, Any]):
    """What ``task_state_store`` does; it never forgets, so that it can be given out."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        """Keep everything."""


class Events(dict[Any, Any]):
    """The asset events of outlets."""

    def __missing__(self, key: Any) -> Any:
        return self.setdefault(key, SimpleNamespace(extra={}))


def run_task(what: str, make: Callable[[], Any]) -> None:
    """Run a task with all its deferrals, as its worker and its triggerer do, and give out all that it leaves behind."""
    import inspect

    from airflow.providers.common.compat.sdk import TaskDeferred

    instance, store, events = Instance(), Store(), Events()
    context: Any = {
        "ti": instance,
        "task_state_store": store,
        "dag_run": SimpleNamespace(start_date=datetime.now(UTC)),
        "outlet_events": events,
    }
    task = make()
    say(f"{what}: rendered fields", {name: getattr(task, name) for name in task.template_fields}, task)
    resume: Callable[[], Any] = partial(inspect.unwrap(type(task).execute), task, context)
    while True:
        try:
            tried(what, resume)
            break
        except TaskDeferred as deferred:
            path, arguments = deferred.trigger.serialize()
            say(f"{what}: deferred", path, arguments, deferred.trigger, deferred)
            module, _, name = path.rpartition(".")
            trigger = getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))
            event = asyncio.run(first_event(trigger))
            say(f"{what}: event", event, trigger.serialize())
            task = make()
            resume = partial(getattr(task, deferred.method_name), context, event=event)
    say(f"{what}: left behind", instance.pushed, dict(store), {str(key): value.extra for key, value in events.items()})


async def first_event(trigger: Any) -> Any:
    """Return a trigger's first event as it comes back out of the database."""
    async with asyncio.timeout(BOUND):
        return json.loads(json.dumps((await anext(trigger.run())).payload))


def tasks() -> dict[str, Callable[[], Any]]:
    """Return what makes a task of each kind."""
    from airflow_provider_quickbi.assets.quickbi import mail_task_asset
    from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    sensor = partial(
        QuickBIMailTaskSensor,
        task_id="t",
        quickbi_conn_id=CONN_ID,
        poke_interval=0.02,
        timeout=0.1,
        outlets=[mail_task_asset("report")],
    )
    send = partial(
        QuickBIRunMailTaskOperator,
        task_id="t",
        mail_id="report",
        quickbi_conn_id=CONN_ID,
        poll_interval=0.02,
        timeout=0.1,
        start_timeout=0.05,
        outlets=[mail_task_asset("report")],
    )
    return {
        "sensor, poke": partial(sensor, mail_id="report"),
        "sensor, deferred": partial(sensor, mail_id="report", deferrable=True),
        "sensor, by name, soft": partial(sensor, subscribe_name="Daily sales", deferrable=True, soft_fail=True),
        "send, held": partial(send, deferrable=False),
        "send, deferred": partial(send, deferrable=True),
        "list": partial(QuickBIListMailTasksOperator, task_id="t", quickbi_conn_id=CONN_ID),
    }
