"""Waits as they live: a first poll in a worker, triggers that are killed and made anew, or a worker that is held."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from typing import Any

from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.events import Event, EventKind
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import WaitGroup
from airflow_provider_quickbi._wait.sync import poll_once, wait_until_finished
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger
from tests.xcoms import task_instance

from .stories import Story, WaitPlan, named_run

log = logging.getLogger(__name__)


def through_json(value: Any) -> Any:
    """Return what comes out of a database that holds plain JSON."""
    return json.loads(json.dumps(value, allow_nan=False))


class Triggerer:
    """Runs triggers in the event loop, kills them at random and makes them anew, as a triggerer that is restarted.

    :param counts: what happened.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self._running: set[asyncio.Task[Any]] = set()
        self._numbers = itertools.count()

    def restart(self) -> None:
        """Kill every trigger at once; each is made anew from what was serialised."""
        for task in self._running:
            task.cancel()

    async def run(self, trigger: Any, dice: random.Random) -> Any:
        """Run a trigger until it gives its event, whatever happens to the triggerer.

        :param trigger: as the task deferred to it.
        :param dice: decide when it is killed.
        :returns: the event's payload, out of the database.
        """
        path, kept = trigger.serialize()
        module, _, name = path.rpartition(".")
        make: Callable[..., Any] = getattr(import_module(module), name)
        ti = task_instance(f"soak-{next(self._numbers)}")
        while True:
            kept = through_json(kept)
            self.counts["triggers"] += 1
            incarnation = make(**kept)
            incarnation.task_instance = ti
            task = asyncio.create_task(self._events(incarnation))
            self._running.add(task)
            try:
                await asyncio.wait({task}, timeout=dice.choice((None, None, dice.uniform(0.0, 1.0))))
                task.cancel()
                await asyncio.wait({task})
            finally:
                task.cancel()
                self._running.discard(task)
            if not task.cancelled():
                (payload,) = task.result()
                return through_json(payload)
            self.counts["triggers killed and made anew"] += 1

    @staticmethod
    async def _events(trigger: Any) -> list[Any]:
        try:
            return [event.payload async for event in trigger.run()]
        finally:
            await trigger.cleanup()


class Waiters:
    """Those who wait in a soak.

    :param triggerer: where they wait deferred.
    :param workers: where they look first, or wait.
    :param counts: what happened.
    :param steady_conn_id: a connection that never changes.
    :param changing_conn_id: a connection whose secret is replaced now and then.
    """

    def __init__(
        self,
        triggerer: Triggerer,
        workers: ThreadPoolExecutor,
        counts: Counter[str],
        steady_conn_id: str,
        changing_conn_id: str,
    ) -> None:
        self.triggerer = triggerer
        self.workers = workers
        self.counts = counts
        self.steady_conn_id = steady_conn_id
        self.changing_conn_id = changing_conn_id

    async def wait(self, story: Story, plan: WaitPlan, dice: random.Random) -> WaitGroup:
        """Wait to the end.

        :param story: whose mail task is waited for.
        :param plan: how.
        :param dice: decide what is left open.
        """
        await asyncio.sleep(plan.joins_after)
        if (run := named_run(story, plan)) is not None:
            while not run.task_id:
                await asyncio.sleep(0.01)
            plan.wait = replace(plan.wait, selector=RunSelector(run_id=run.task_id))
        late_at = None if plan.late_after is None else time.time() + plan.late_after
        group = WaitGroup.of([plan.wait], late_at=late_at)
        notified: list[float] = []
        if plan.holds_worker:
            self.counts["waits in a worker"] += 1
            group = await self._in_worker(self._wait_until_finished, group, plan, notified)
        else:
            self.counts["waits in the triggerer"] += 1
            group = await self._deferred(group, plan, dice, notified)
        if len(notified) > 1:
            raise AssertionError(f"{story.mail_id}: {len(notified)} notifications that it is late")
        self.counts["late notifications"] += len(notified)
        return group

    async def _in_worker(self, work: Callable[..., WaitGroup], *args: Any) -> WaitGroup:
        return await asyncio.get_running_loop().run_in_executor(self.workers, work, *args)

    def _wait_until_finished(self, group: WaitGroup, plan: WaitPlan, notified: list[float]) -> WaitGroup:
        def on_late(late: WaitGroup) -> WaitGroup:
            notified.append(time.time())
            return late.notified()

        with QuickBIHook(self.steady_conn_id) as hook:
            return wait_until_finished(group, hook.get_conn, interval=plan.poke_interval, log=log, on_late=on_late)

    def _first_poll(self, group: WaitGroup) -> WaitGroup:
        with QuickBIHook(self.steady_conn_id) as hook:
            return poll_once(group, hook.get_conn, NO_RETRY)

    async def _deferred(
        self, group: WaitGroup, plan: WaitPlan, dice: random.Random, notified: list[float]
    ) -> WaitGroup:
        conn_id = dice.choice((self.steady_conn_id, self.changing_conn_id))
        if conn_id == self.steady_conn_id:
            group = await self._in_worker(self._first_poll, group)
        while not group.evaluation.outcome.final:
            trigger = QuickBIMailTaskTrigger(
                quickbi_conn_id=conn_id, group=encode_group(group), poke_interval=plan.poke_interval
            )
            event = await self.triggerer.run(trigger, dice)
            decoded = Event.decode(event)
            assert decoded.group is not None
            kind, group, message = decoded.kind, decoded.group, decoded.message
            if kind == EventKind.LATE:
                notified.append(time.time())
                group = group.notified()
            elif kind != EventKind.FINISHED:
                raise AssertionError(f"the trigger ended with {kind}: {message}")
        return group
