"""Waits of this provider: trigger objects, made from their serialized arguments and run as the triggerer runs them."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from airflow.providers.common.compat.sdk import BaseSensorOperator  # noqa: F401 - imported before anything is measured

from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Outcome, WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

_TICK = 0.005
aio.FIRST_POLL_SECONDS = 0.0  # nothing is deferred here, so there is nothing that Airflow must notice first


@dataclass
class Outcomes:
    """How waits ended.

    :param seen_at: when each delivery was seen, in seconds since the epoch.
    :param seen: of which mail task each was.
    :param failed: how many waits ended as anything else.
    :param cpu_seconds: of the process.
    """

    seen_at: list[float] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    failed: int = 0
    cpu_seconds: float = 0.0


@dataclass
class Load:
    """What waits do to their event loop.

    :param outcomes: how those that had finished by then had ended.
    :param idle_p99: seconds by which the loop was late in 99 % of cases before there were waits.
    :param busy_p99: the same with them, their start included.
    :param busy_worst: the worst lateness.
    :param bytes_a_wait: memory that the process took for each wait.
    :param cpu_share: CPU time per second.
    """

    outcomes: Outcomes
    idle_p99: float
    busy_p99: float
    busy_worst: float
    bytes_a_wait: float
    cpu_share: float


def trigger_arguments(mail_id: str, poke_interval: float) -> dict[str, Any]:
    """Return the arguments of a trigger as they come out of the database.

    :param mail_id: what is waited for.
    :param poke_interval: seconds.
    """
    since = time.time()
    selector = RunSelector(executed_after=datetime.now(UTC) - timedelta(days=1))
    group = WaitGroup.of(
        [WaitState(subject=MailTaskSubject(mail_id), selector=selector, since=since, finish_by=since + 3600)]
    )
    trigger = QuickBIMailTaskTrigger(
        quickbi_conn_id="quickbi_default", group=encode_group(group), poke_interval=poke_interval
    )
    arguments: dict[str, Any] = json.loads(json.dumps(trigger.serialize()[1]))
    return arguments


def wait_for_all(started: Callable[[], None], mail_ids: Sequence[str], poke_interval: float) -> Outcomes:
    """Wait for the delivery of each of some mail tasks, one wait for each.

    :param started: called when all waits have started.
    :param mail_ids: what is waited for; a mail task may come several times.
    :param poke_interval: seconds.
    """
    return asyncio.run(_wait_for_all(started, mail_ids, poke_interval))


async def _wait_for_all(started: Callable[[], None], mail_ids: Sequence[str], poke_interval: float) -> Outcomes:
    outcomes = Outcomes()
    begun_at = time.process_time()
    waits = await _start(mail_ids, poke_interval, outcomes)
    started()
    await asyncio.gather(*waits)
    outcomes.cpu_seconds = time.process_time() - begun_at
    return outcomes


def measure_load(
    started: Callable[[], None], mail_ids: Sequence[str], poke_interval: float, seconds: float, idle_seconds: float
) -> Load:
    """Let waits run for a while and measure how late the event loop is and what memory they take.

    :param started: called when all waits have started.
    :param mail_ids: what is waited for; a mail task may come several times.
    :param poke_interval: seconds.
    :param seconds: how long from the start of the first wait.
    :param idle_seconds: how long to measure without waits, before.
    """
    return asyncio.run(_measure_load(started, mail_ids, poke_interval, seconds, idle_seconds))


async def _measure_load(
    started: Callable[[], None], mail_ids: Sequence[str], poke_interval: float, seconds: float, idle_seconds: float
) -> Load:
    outcomes = Outcomes()
    # The session, the signer and what else is needed once are there before the waits are counted.
    async with asyncio.timeout(60):
        first = await _start(mail_ids[:1], poke_interval, outcomes)
        await asyncio.sleep(min(poke_interval, 1.0) + 1.0)
    idle = await _lateness(idle_seconds)
    arguments = [trigger_arguments(mail_id, poke_interval) for mail_id in mail_ids]
    gc.collect()
    memory, cpu = _memory(), time.process_time()
    ticking = asyncio.create_task(_lateness(seconds))
    waits = await _start_from(arguments, outcomes)
    started()
    busy = await ticking
    cpu = time.process_time() - cpu
    gc.collect()
    memory = _memory() - memory
    for wait in [*first, *waits]:
        wait.cancel()
    await asyncio.gather(*first, *waits, return_exceptions=True)
    return Load(
        outcomes,
        idle_p99=_percentile(idle, 99),
        busy_p99=_percentile(busy, 99),
        busy_worst=max(busy),
        bytes_a_wait=memory / len(mail_ids),
        cpu_share=cpu / seconds,
    )


async def _start(mail_ids: Sequence[str], poke_interval: float, outcomes: Outcomes) -> list[asyncio.Task[None]]:
    return await _start_from([trigger_arguments(mail_id, poke_interval) for mail_id in mail_ids], outcomes)


async def _start_from(arguments: Sequence[dict[str, Any]], outcomes: Outcomes) -> list[asyncio.Task[None]]:
    waits = []
    for kwargs in arguments:
        await asyncio.sleep(0)  # as the triggerer does between two triggers
        waits.append(asyncio.create_task(_run(QuickBIMailTaskTrigger(**kwargs), outcomes)))
    return waits


async def _run(trigger: QuickBIMailTaskTrigger, outcomes: Outcomes) -> None:
    try:
        async for event in trigger.run():
            evaluations = event.payload["group"]["evaluations"]
            if [evaluation["outcome"] for evaluation in evaluations] == [Outcome.SUCCEEDED]:
                outcomes.seen_at.append(time.time())
                outcomes.seen.append(evaluations[0]["run"]["mail_id"])
            else:
                outcomes.failed += 1
    except Exception:
        outcomes.failed += 1


async def _lateness(seconds: float) -> list[float]:
    """Sleep again and again for a moment, and return by how many seconds the loop was late each time."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    late = []
    while (now := loop.time()) < until:
        await asyncio.sleep(_TICK)
        late.append(max(0.0, loop.time() - now - _TICK))
    return late


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _memory() -> int:
    return int(psutil.Process().memory_info().rss)
