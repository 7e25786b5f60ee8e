"""A simulated morning with many waits: real rate limiters and tasks on an event loop whose clock jumps ahead."""

from __future__ import annotations

import asyncio
import random
import selectors
import statistics
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quickbi._wait.schedule import Duration, Durations, PendingPoll, PollSchedule
from airflow_provider_quickbi.api.rate_limit import CALLER, RateLimiter
from airflow_provider_quickbi.testing.calls import RateLimiter as ServiceLimiter

ACTION = "GetMailTaskStatus"
#: Round-trip time to the service and its jitter, in seconds.
TRAVEL, JITTER = 0.02, 0.004
#: Past runs of a report that can be known.
MOST_KNOWN = 10
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
    """Run a coroutine on an event loop whose clock jumps ahead, and return its result."""
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

    :param rate: calls per second.
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
        self.processes = [self._process() for _ in range(processes)]
        self.waits: list[asyncio.Task[None]] = []
        self.sent_at = float("inf")

    def _process(self) -> Process:
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
        """The share of all calls that were throttled."""
        throttled = sum(process.throttled for process in self.processes)
        return throttled / (throttled + sum(process.calls for process in self.processes))

    def delays(self) -> list[float]:
        """Return the seconds from the end of the reports until each was seen."""
        return [seen - self.sent_at for process in self.processes for seen in process.seen_at]


@dataclass(frozen=True)
class Report:
    """A mail task whose runs take about as long each time.

    :param number: distinguishes it from the others.
    :param seconds: what this morning's run takes.
    :param past: past runs, as roughly as polls have seen them.
    """

    number: int
    seconds: float
    past: list[Duration]


def make_reports(number: int, known: int, seed: int, *, surprise: float = 0.0, scale: float = 1.0) -> list[Report]:
    """Return reports that take 10 minutes in the median, each within some 15 % of its usual time.

    :param number: of reports.
    :param known: past runs of each, :data:`MOST_KNOWN` at most; which reports there are does not depend on it.
    :param seed: of the random numbers.
    :param surprise: share of the reports whose run takes any time up to 4,000 s instead.
    :param scale: how many seconds of the report's pass in one.
    """
    numbers = random.Random(seed)
    reports = []
    for index in range(number):
        typical = 600 / scale * numbers.lognormvariate(0, 0.7)
        takes = [typical * numbers.lognormvariate(0, 0.15) for _ in range(MOST_KNOWN + 1)]
        seconds = numbers.uniform(10, 4000) / scale if numbers.random() < surprise else takes[0]
        past = []
        for taken in takes[1:]:
            gap = numbers.uniform(10, 120) / scale
            least = max(0.0, taken - numbers.uniform(0, gap))
            past.append(Duration(least, least + gap))
        reports.append(Report(index, seconds, past[:known]))
    return reports


class LearntMorning(Morning):
    """Reports that all start at once, of which some past runs are known, on one call per second.

    :param reports: what is waited for.
    :param seed: of the random numbers.
    """

    def __init__(self, reports: Sequence[Report], seed: int) -> None:
        super().__init__(1.0, seed=seed)
        self.reports = reports
        self.seen_after: list[float] = []
        self.durations = Durations()
        self.processes[0].limiter.choose = PollSchedule(self.durations, self.loop.time).choose
        for report in reports:
            for duration in report.past:
                self.durations.learn(report.number, duration)

    async def watch(self, report: Report, poke_interval: float) -> None:
        """Wait for a report as the triggerer does."""
        await asyncio.sleep(self.random.uniform(0, 30))
        polled_at = 0.0
        while True:
            CALLER.set(PendingPoll(report.number, 0.0, polled_at) if polled_at else None)
            arrived_at = await self.poll(self.processes[0])
            if arrived_at is None:
                continue
            if arrived_at >= report.seconds:
                self.seen_after.append(self.loop.time() - report.seconds)
                self.durations.learn(report.number, Duration(polled_at, arrived_at))
                return
            polled_at = arrived_at
            await asyncio.sleep(poke_interval)


def simulate_detection(
    known: int, seed: int, *, chosen: bool = True, reports: int = 300, surprise: float = 0.0
) -> list[float]:
    """Return the seconds from the end of each report's run until it was seen.

    :param known: how many past runs of each report are known.
    :param seed: of the random numbers.
    :param chosen: whether calls go where they matter most; otherwise they go round.
    :param reports: how many.
    :param surprise: share of the runs that take any time between 10 s and 4,000 s instead of the usual one.
    """

    async def main() -> list[float]:
        morning = LearntMorning(make_reports(reports, known, seed, surprise=surprise), seed)
        if not chosen:
            morning.processes[0].limiter.choose = None
        await asyncio.gather(*(asyncio.create_task(morning.watch(report, 30.0)) for report in morning.reports))
        return morning.seen_after

    return simulate(main())


def mean_detection(known: int, seed: int, *, chosen: bool = True, reports: int = 300) -> float:
    """Return the mean of :func:`simulate_detection`."""
    return statistics.fmean(simulate_detection(known, seed, chosen=chosen, reports=reports))
