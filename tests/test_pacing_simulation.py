"""A simulated morning with many waits: real rate limiters and tasks on an event loop whose clock jumps ahead."""

from __future__ import annotations

import asyncio
import random
import selectors
import statistics
from collections.abc import Coroutine
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_quickbi.api.rate_limit import RateLimiter
from airflow_provider_quickbi.testing.limits import RateLimiter as ServiceLimiter

ACTION = "GetMailTaskStatus"
#: Round-trip time to the service and its jitter, in seconds.
TRAVEL, JITTER = 0.02, 0.004
#: Difference between the wall clocks of machines, in seconds.
SKEW = 0.003


class _Selector(selectors.SelectSelector):
    """Advances time by what the event loop would have waited."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return []


class _Loop(asyncio.SelectorEventLoop):
    """An event loop on which an hour passes as soon as all tasks sleep for an hour."""

    def __init__(self) -> None:
        self.jumping = _Selector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


def simulate(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


@dataclass
class Process:
    """The statistics of one process.

    :param limiter: its rate limiter.
    :param calls: how many of its calls succeeded.
    :param throttled: how many were throttled.
    :param seen_at: when it detected that its mails were sent.
    """

    limiter: RateLimiter
    calls: int = 0
    throttled: int = 0
    seen_at: list[float] = field(default_factory=list)


class Morning:
    """Processes that share one Quick BI with a rate limit; create it on a simulated event loop.

    :param rate: calls a second.
    :param processes: how many.
    :param seed: of the random numbers.
    :param jitter: mean variation of the latency, in seconds.
    """

    def __init__(self, rate: float, processes: int = 1, *, seed: int = 1, jitter: float = JITTER) -> None:
        self.rate = rate
        self.random = random.Random(seed)
        self.jitter = jitter
        self.loop = asyncio.get_running_loop()
        self.service = ServiceLimiter({ACTION: rate}, now=self.loop.time)
        self.processes = [self._process(number) for number in range(processes)]
        self.waits: list[asyncio.Task[None]] = []
        self.sent_at = float("inf")

    def _process(self, number: int) -> Process:
        numbers = random.Random(self.random.random())
        skew = self.random.uniform(-SKEW, SKEW)
        return Process(RateLimiter(self.rate, self.loop.time, lambda: self.loop.time() + skew, numbers.uniform))

    async def poll(self, process: Process) -> float | None:
        """Call once, when the limiter allows it; return when the call arrived, ``None`` if it was throttled."""
        await process.limiter.acquire()
        await asyncio.sleep(TRAVEL / 2 + self.random.expovariate(1 / self.jitter))
        passed = self.service.seconds_to_wait(ACTION) == 0
        arrived_at = self.loop.time()
        await asyncio.sleep(TRAVEL / 2)
        if passed:
            process.calls += 1
            process.limiter.succeeded()
        else:
            process.throttled += 1
            process.limiter.throttled()
        return arrived_at if passed else None

    async def wait(self, process: Process, poke_interval: float) -> None:
        """Wait for one mail, as the trigger does."""
        await asyncio.sleep(self.random.uniform(0, poke_interval))
        while True:
            if (known_at := await self.poll(process)) is None:
                continue
            if known_at >= self.sent_at:
                process.seen_at.append(self.loop.time())
                return
            await asyncio.sleep(poke_interval)

    def begin(self, waits: int, poke_interval: float) -> None:
        """Start waits for distinct mails, spread over the processes."""
        for number in range(waits):
            process = self.processes[number % len(self.processes)]
            self.waits.append(asyncio.create_task(self.wait(process, poke_interval)))

    async def send_all(self) -> None:
        """Send all mails, and return when all have been detected."""
        self.sent_at = self.loop.time()
        await asyncio.gather(*self.waits)

    @property
    def throttled_share(self) -> float:
        throttled = sum(process.throttled for process in self.processes)
        return throttled / (throttled + sum(process.calls for process in self.processes))

    def delays(self) -> list[float]:
        return [seen - self.sent_at for process in self.processes for seen in process.seen_at]


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
