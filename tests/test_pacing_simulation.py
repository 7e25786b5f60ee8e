"""Simulated mornings with many waits: how soon they are seen, how few calls are throttled, how processes share."""

from __future__ import annotations

import asyncio
import statistics
from itertools import pairwise

import pytest

from benchmarks.mornings import Morning, simulate


@pytest.mark.parametrize(("waits", "rate"), [(60, 1), (60, 3), (300, 10), (1000, 50)])
def test_one_process_detects_its_mails_almost_optimally_and_is_not_throttled(waits: int, rate: float):
    least = waits / rate

    async def main() -> Morning:
        morning = Morning(rate)
        morning.begin(waits, least / 4)
        await asyncio.sleep(1.6 * least)
        await morning.send_all()
        return morning

    morning = simulate(main())
    assert len(morning.delays()) == waits
    assert morning.throttled_share < 0.01
    assert max(morning.delays()) <= 1.15 * least
    assert statistics.fmean(morning.delays()) <= 1.15 * least / 2


def test_no_wait_starves_however_many_there_are():
    async def main() -> tuple[Morning, dict[int, list[float]]]:
        morning = Morning(1)
        polls: dict[int, list[float]] = {}

        async def poll_once(number: int) -> None:
            while True:
                await morning.poll(morning.processes[0])
                polls.setdefault(number, []).append(morning.loop.time())
                await asyncio.sleep(5.0)

        tasks = [asyncio.create_task(poll_once(number)) for number in range(100)]
        await asyncio.sleep(1000)
        for task in tasks:
            task.cancel()
        return morning, polls

    _, polls = simulate(main())
    assert len(polls) == 100
    gaps = [later - earlier for times in polls.values() for earlier, later in pairwise(times)]
    assert max(gaps) <= 1.15 * 100


@pytest.mark.parametrize("rate", [1, 3, 10, 50])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_that_do_not_communicate_share_the_limit(processes: int, rate: float):
    shares: list[list[int]] = []

    async def main(seed: int) -> Morning:
        morning = Morning(rate, processes, seed=seed)
        morning.begin(60 * processes, 1.0 / rate)
        await asyncio.sleep(1500 / rate)
        shares.append([process.calls for process in morning.processes])
        await morning.send_all()
        return morning

    mornings = [simulate(main(seed)) for seed in range(3)]
    assert statistics.fmean(morning.throttled_share for morning in mornings) < 0.1
    assert all(len(morning.delays()) == 60 * processes for morning in mornings)
    assert all(sum(share) >= 0.65 * 1500 for share in shares)
    assert all(min(share) >= 0.4 * sum(share) / processes for share in shares)


def test_of_three_processes_on_one_call_a_second_none_is_slow_and_few_calls_are_throttled():
    waits = 21

    async def main(seed: int) -> Morning:
        morning = Morning(1, 3, seed=seed)
        morning.begin(waits, waits / 4)
        await asyncio.sleep(60)
        await morning.send_all()
        return morning

    mornings = [simulate(main(seed)) for seed in range(20)]
    assert statistics.fmean(morning.throttled_share for morning in mornings) < 0.1
    assert max(max(morning.delays()) for morning in mornings) <= 1.3 * waits


def test_two_processes_on_one_call_a_second_alternate_without_throttling():
    async def main() -> tuple[list[int], int]:
        morning = Morning(1, 2)
        morning.begin(40, 1.0)
        await asyncio.sleep(600)
        calls = [process.calls for process in morning.processes]
        throttled = sum(process.throttled for process in morning.processes)
        await asyncio.sleep(600)
        for wait in morning.waits:
            wait.cancel()
        later = [process.calls - before for process, before in zip(morning.processes, calls, strict=True)]
        return later, sum(process.throttled for process in morning.processes) - throttled

    calls, throttled = simulate(main())
    assert min(calls) >= 0.35 * 600
    assert throttled <= 0.05 * 600


def test_the_full_rate_returns_some_time_after_throttling_has_stopped():
    async def main() -> list[float]:
        morning = Morning(1)
        limiter = morning.processes[0].limiter
        rates = []
        for _ in range(20):
            await limiter.acquire()
            limiter.throttled()
        rates.append(limiter.rate / limiter.limit)
        while morning.loop.time() < 1000:
            await morning.poll(morning.processes[0])
            rates.append(limiter.rate / limiter.limit)
        begun_at, calls = morning.loop.time(), morning.processes[0].calls
        while morning.loop.time() < begun_at + 100:
            await morning.poll(morning.processes[0])
        rates.append((morning.processes[0].calls - calls) / 100 / morning.rate)
        return rates

    *rates, at_last = simulate(main())
    assert rates[0] <= 0.2
    assert rates == sorted(rates)
    assert rates[-1] == 1.0
    assert at_last >= 0.9


def test_a_network_with_variable_latency_costs_few_calls():
    async def main() -> Morning:
        morning = Morning(1, jitter=0.015)
        morning.begin(60, 1.0)
        await asyncio.sleep(2000)
        for wait in morning.waits:
            wait.cancel()
        return morning

    morning = simulate(main())
    assert morning.throttled_share < 0.03
    assert morning.processes[0].calls >= 0.7 * 2000
