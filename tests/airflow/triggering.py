"""Makes triggers, and runs them as the triggerer does."""

from __future__ import annotations

import asyncio
import json


async def _event(trigger):
    """Return the event with which a wait ends."""
    return (await anext(trigger.run())).payload


def _events(*triggers, limit=120):
    """Run triggers together on one event loop, as a triggerer does, and return their events."""

    async def run():
        async with asyncio.timeout(limit):
            return await asyncio.gather(*map(_event, triggers))

    return asyncio.run(run())


def _restarted(trigger):
    """Return the trigger that a triggerer makes of what Airflow stored of another one."""
    from importlib import import_module

    from airflow.models.trigger import Trigger

    row = Trigger.from_object(trigger)
    row = Trigger(classpath=row.classpath, kwargs=json.loads(json.dumps(row.kwargs)))
    module, _, name = row.classpath.rpartition(".")
    return getattr(import_module(module), name)(**row.kwargs)
