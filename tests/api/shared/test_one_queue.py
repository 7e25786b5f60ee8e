"""One queue for several processes, kept in a real Redis; time is controlled unless processes are the point."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_provider_quickbi.api.clock import Clock
from airflow_provider_quickbi.api.rate_limit import RateLimiter, rate_limiter
from airflow_provider_quickbi.api.shared_rate_limit import RedisSettings, SharedRateLimiter
from benchmarks.mornings import ACTION, Process, simulate
from tests.api.shared.conftest import Redis
from tests.api.shared.controlled import ControlledServer, SharedMorning, Simulated, Time

ACCOUNT = ("https://quickbi.example/", "access_key:LTAI-known-to-few")


@pytest.mark.parametrize("rate", [1, 3, 10])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_limit_without_being_throttled(redis: Redis, processes: int, rate: float):
    waits = 60

    async def main() -> SharedMorning:
        morning = SharedMorning(redis, rate, processes)
        morning.begin(waits, waits / rate / 4)
        await asyncio.sleep(3 * waits / rate)
        await morning.send_all()
        return morning

    morning = simulate(main())
    assert len(morning.delays()) == waits
    assert morning.throttled_share < 0.01
    assert max(morning.delays()) <= 1.15 * waits / rate
    assert statistics.fmean(morning.delays()) <= 1.15 * waits / rate / 2


def test_a_process_with_more_waits_gets_more_calls(redis: Redis):
    counts = [48, 9, 3]

    async def main() -> list[int]:
        morning = SharedMorning(redis, 1, 3)
        for process, count in zip(morning.processes, counts, strict=True):
            morning.waits += [asyncio.create_task(morning.wait(process, 1.0)) for _ in range(count)]
        await asyncio.sleep(600)
        before = [process.calls for process in morning.processes]
        await asyncio.sleep(1200)
        for wait in morning.waits:
            wait.cancel()
        return [process.calls - calls for process, calls in zip(morning.processes, before, strict=True)]

    calls = simulate(main())
    assert sum(calls) >= 0.92 * 1200
    for made, count in zip(calls, counts, strict=True):
        assert made / sum(calls) == pytest.approx(count / sum(counts), rel=0.15)


def test_a_process_whose_waits_have_become_many_need_not_wait_for_the_slot_it_got_as_a_small_one(redis: Redis):
    async def main() -> float:
        morning = SharedMorning(redis, 1, 2)
        large, small = morning.processes
        morning.waits += [asyncio.create_task(morning.wait(large, 1.0)) for _ in range(60)]
        morning.waits.append(asyncio.create_task(morning.wait(small, 1.0)))
        await asyncio.sleep(300)
        for wait in morning.waits[:60]:
            wait.cancel()
        left_at, before = morning.loop.time(), small.calls
        while small.calls == before:
            await asyncio.sleep(0.1)
        morning.waits[-1].cancel()
        return morning.loop.time() - left_at

    assert simulate(main()) <= 4.0


def test_a_process_that_dies_costs_one_slot(redis: Redis):
    async def main() -> list[float]:
        morning = SharedMorning(redis, 1, 3)
        called: list[float] = []

        async def call(process: Process) -> None:
            while True:
                await morning.poll(process)
                called.append(morning.loop.time())

        tasks = [[asyncio.create_task(call(process)) for _ in range(20)] for process in morning.processes]
        await asyncio.sleep(60)
        for task in tasks[0]:
            task.cancel()  # and the slot that it holds in Redis stays there
        await asyncio.sleep(60)
        for task in tasks[1] + tasks[2]:
            task.cancel()
        return called

    called = simulate(main())
    slot = RateLimiter(1).slot
    gaps = [later - earlier for earlier, later in pairwise(called)]
    assert len(called) >= 100
    assert sum(gap > 1.5 * slot for gap in gaps) == 1
    assert max(gaps) <= 2.2 * slot


def test_a_call_alone_need_not_wait(redis: Redis):
    clock = Time()
    limiter = Simulated(1, "queue", ControlledServer(redis.settings, clock), clock=clock, wall_clock=clock)
    for _ in range(5):
        assert limiter.try_acquire() == 0
        clock.now += 7.3


def test_the_pause_that_the_service_requests_is_made(redis: Redis):
    clock = Time()
    limiter = Simulated(10, "queue", ControlledServer(redis.settings, clock), clock=clock, wall_clock=clock)
    limiter.try_acquire()
    limiter.throttled(retry_after=30.0)
    begin = clock.now
    limiter.acquire_blocking(clock.sleep)
    assert 30.0 <= clock.now - begin <= 32.0


def test_a_caller_that_wakes_too_late_takes_another_slot_but_not_for_ever(redis: Redis):
    clock = Time()
    limiter = Simulated(1, "queue", ControlledServer(redis.settings, clock), clock=clock, wall_clock=clock)
    limiter.try_acquire()
    limiter.try_acquire()
    assert limiter._slot_at is not None
    clock.now = limiter._slot_at + 0.8
    assert limiter.try_acquire() > 0
    clock.now += 0.8
    assert limiter.try_acquire() == 0


def test_a_server_whose_clock_was_set_back_holds_nobody_up(redis: Redis):
    clock = Time()
    limiters = [
        Simulated(1, "queue", ControlledServer(redis.settings, clock), clock=clock, wall_clock=clock) for _ in range(2)
    ]
    for limiter in limiters:
        limiter.acquire_blocking(clock.sleep)
    clock.now -= 86400
    for limiter in limiters:
        limiter._slot_at = None
        begin = clock.now
        limiter.acquire_blocking(clock.sleep)
        assert clock.now - begin <= 3


def test_what_redis_keeps_reveals_nothing_of_the_account_and_expires(redis: Redis):
    from redis import Redis as Client

    limiter = rate_limiter(ACCOUNT, ACTION, 1.0, redis.settings)
    assert limiter.try_acquire() == 0
    with Client(port=redis.settings.port, decode_responses=True) as client:
        (key,) = client.keys()
        assert ACTION in key
        assert 0 < client.ttl(key) < 3600
        kept = f"{key} {client.hgetall(key)}"
    assert not any(part in kept for part in ("LTAI", "quickbi.example", "known-to-few"))


def test_operations_accounts_and_rates_have_queues_of_their_own_and_a_connection_the_same(redis: Redis):
    same = rate_limiter(ACCOUNT, ACTION, 1.0, redis.settings)
    assert same is rate_limiter(ACCOUNT, ACTION, 1.0, RedisSettings("127.0.0.1", redis.settings.port, timeout=0.5))
    assert isinstance(same, SharedRateLimiter)
    others = [
        rate_limiter(ACCOUNT, "GetMailTaskList", 1.0, redis.settings),
        rate_limiter(("https://other.example/", ACCOUNT[1]), ACTION, 1.0, redis.settings),
        rate_limiter(ACCOUNT, ACTION, 2.0, redis.settings),
    ]
    assert same.try_acquire() == 0
    assert [other.try_acquire() for other in others] == [0, 0, 0]
    assert type(rate_limiter(ACCOUNT, ACTION)) is RateLimiter


_CALLER = """
import asyncio, sys, time
from airflow_provider_quickbi.api.rate_limit import rate_limiter
from airflow_provider_quickbi.api.shared_rate_limit import RedisSettings

async def call(limiter):
    while True:
        await limiter.acquire()
        print(time.time(), flush=True)

async def main(port, rate, waits):
    account = ("https://quickbi.example/", "somebody")
    limiter = rate_limiter(account, "GetMailTaskStatus", rate, RedisSettings("127.0.0.1", port))
    await asyncio.gather(*(call(limiter) for _ in range(waits)))

asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
"""


def test_processes_that_are_killed_while_they_hold_a_slot_hold_up_nobody(redis: Redis, tmp_path: Path):
    rate, files = 4.0, [tmp_path / f"{number}" for number in range(4)]
    processes = []
    try:
        for file in files:
            with file.open("w") as output:
                arguments = [sys.executable, "-c", _CALLER, str(redis.settings.port), str(rate), "5"]
                processes.append(subprocess.Popen(arguments, stdout=output))
        until = time.monotonic() + 60
        while not all(file.stat().st_size for file in files):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(2)
        killed_at = []
        for process in processes[:3]:
            process.kill()
            process.wait()
            killed_at.append(time.time())
            time.sleep(1)
        time.sleep(1)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    made = sorted(float(line) for file in files for line in file.read_text().splitlines())
    both = [instant for instant in made if killed_at[0] - 2 <= instant]
    gaps = [later - earlier for earlier, later in pairwise(both)]
    slot = RateLimiter(rate).slot
    assert min(gaps) >= 0.5 * slot
    assert len(both) >= 0.8 * (both[-1] - both[0]) / slot - 3
    for instant in killed_at:
        after = [gap for begin, gap in zip(both, gaps, strict=False) if abs(begin - instant) < 0.5]
        assert max(after) <= 3.5 * slot


def test_a_shared_limiter_sleeps_as_the_clock_that_it_is_given(redis: Redis):
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(seconds)

    limiter = rate_limiter(ACCOUNT, ACTION, 20.0, redis.settings, Clock(sleep_async=sleep))

    async def acquire_three() -> None:
        for _ in range(3):
            await limiter.acquire()

    asyncio.run(asyncio.wait_for(acquire_three(), 10))
    assert slept
