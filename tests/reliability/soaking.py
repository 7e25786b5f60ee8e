"""Many waits and sends against a Quick BI that goes wrong at random, each end held against the truth.

Every end is held against what the server truly knew. The decisions follow from the seed, the timing does not.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import random
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_quickbi._wait.state import WaitGroup
from airflow_provider_quickbi.api import rate_limit, status_poller
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

from .faulty import FaultyQuickBI
from .sends import Senders, hurried
from .stories import Oracle, Story, WaitPlan, begin, notify, play, what_is_wrong
from .waits import Triggerer, Waiters

#: Seconds within which everything finishes once nothing goes wrong any more.
DRAIN = 90.0
#: Bytes by which a run may leave the process larger, whatever it has done.
MEMORY_BOUND = 1_500_000
#: Stories and sends that go on at the same time.
STORIES = 24
SENDS = 12
#: Seconds between two replacements of a secret, the second of which would find the query made again.
BETWEEN_SECRETS = 8.0
#: Waits that can hold a worker at the same time.
WORKERS = 40
_STEADY, _CHANGING, _SENDING = "soak_steady", "soak_changing", "soak_sending"


@dataclass(slots=True)
class Report:
    """What a soak has shown.

    :param seed: which repeats its decisions.
    :param seconds: for which waits and sends were started.
    :param violations: what must not have happened.
    :param survived: faults by kind.
    :param oddities: true responses of an odd shape, by kind.
    :param outcomes: ends of waits and sends.
    :param stories: waits by kind.
    :param counts: what else happened.
    :param calls: by operation and how the server saw them end.
    :param grown: bytes by which the process grew.
    """

    seed: int
    seconds: float
    violations: list[str] = field(default_factory=list)
    survived: Counter[str] = field(default_factory=Counter)
    oddities: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    stories: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    grown: int = 0

    def __str__(self) -> str:
        parts = [f"seed {self.seed}, {self.seconds:g} s of new waits and sends"]
        for title, table in (
            ("faults survived", self.survived),
            ("odd but true responses read", self.oddities),
            ("waits and sends", self.stories),
            ("their ends", self.outcomes),
            ("on the way", self.counts),
            ("calls", self.calls),
        ):
            parts.append(f"\n{title}: {table.total():,}" if title != "on the way" else f"\n{title}:")
            parts += [f"  {name:<48} {number:>8,}" for name, number in sorted(table.items(), key=lambda row: -row[1])]
        parts.append(f"\nmemory left behind: {self.grown:,} bytes; connections, asyncio tasks and threads: none")
        parts += [f"VIOLATION (seed {self.seed}): {violation}" for violation in self.violations]
        parts.append(f"\n{'FAILED' if self.violations else 'ok'}")
        return "\n".join(parts)


def run(seed: int, seconds: float) -> Report:
    """Start waits and sends for some seconds, wait until all of them have finished, and check what is left.

    :param seed: of every decision.
    :param seconds: for which new ones are started.
    """
    report = Report(seed, seconds)
    with ExitStack() as stack:
        reports = stack.enter_context(FaultyQuickBI(seed))
        sends = stack.enter_context(FaultyQuickBI(seed))
        stack.enter_context(_connections(reports, sends))
        stack.enter_context(hurried())
        # A worker has one thread; if many set up Airflow 2.11's models at once, SQLAlchemy can block for ever.
        QuickBIHook(_STEADY).get_conn().close()
        noticed = stack.enter_context(_unhandled())
        tracing = not tracemalloc.is_tracing()
        if tracing:
            tracemalloc.start()
        try:
            # What is imported, cached and pooled once is there before it is measured.
            sends.calm = True
            _once(Report(seed, 1.0), reports, sends, seed - 1, 1.0)
            before = _left(reports, sends)
            _once(report, reports, sends, seed, seconds)
            after = _left(reports, sends)
        finally:
            if tracing:
                tracemalloc.stop()
        report.violations += noticed
        report.grown = after.memory - before.memory
        for name in ("connections", "descriptors", "threads", "pollers", "rate_limiters"):
            had, has = getattr(before, name), getattr(after, name)
            if has > had:
                report.violations.append(f"{name} grew from {had} to {has}")
        if report.grown > MEMORY_BOUND:
            report.violations.append(f"memory grew by {report.grown:,} bytes, more than {MEMORY_BOUND:,}")
    return report


def _once(report: Report, reports: FaultyQuickBI, sends: FaultyQuickBI, seed: int, seconds: float) -> None:
    reports.seed = sends.seed = seed
    _renew_secret(reports, seed)
    with (
        ThreadPoolExecutor(WORKERS, "worker") as workers,
        ThreadPoolExecutor(SENDS, "sender") as senders,
        asyncio.Runner() as runner,
    ):
        soak = _Soak(report, reports, sends, workers, senders)
        runner.get_loop().set_exception_handler(soak.note_unhandled)
        runner.run(soak.run(seed, seconds))
    for quickbi in (reports, sends):
        report.survived.update(quickbi.injected)
        report.oddities.update(quickbi.oddities)
        for action, ends in quickbi.counters().items():
            report.calls.update({f"{action} {code}": number for code, number in ends.items()})
        report.violations += [f"the server failed: {error!r}" for error in quickbi.callback_errors]
        quickbi.forget_everything()
    rate_limit.forget_rate_limiters()


class _Soak:
    """One soak in one event loop."""

    def __init__(
        self,
        report: Report,
        reports: FaultyQuickBI,
        sends: FaultyQuickBI,
        workers: ThreadPoolExecutor,
        senders: ThreadPoolExecutor,
    ) -> None:
        self.report = report
        self.reports = reports
        self.sends = sends
        self.senders = senders
        self.triggerer = Triggerer(report.counts)
        self.waiters = Waiters(self.triggerer, workers, report.counts, _STEADY, _CHANGING)
        self.back: list[tuple[float, float]] = []

    async def run(self, seed: int, seconds: float) -> None:
        """Live through it."""
        end = time.monotonic() + seconds
        weather = asyncio.create_task(self._weather(random.Random(f"{seed}/weather")))
        lanes = [self._stories(lane, end, seed) for lane in range(STORIES)]
        lanes += [self._sends(lane, end, seed) for lane in range(SENDS)]
        pending = {asyncio.create_task(lane, name=f"lane {number}") for number, lane in enumerate(lanes)}
        _, pending = await asyncio.wait(pending, timeout=seconds)
        weather.cancel()
        await asyncio.wait({weather})
        self._clear_up()
        _, pending = await asyncio.wait(pending, timeout=DRAIN) if pending else (set(), set())
        for lane in pending:
            self._violated(f"{lane.get_name()} was left for ever: {lane.get_stack(limit=1)}")
            lane.cancel()
        await asyncio.sleep(0.1)
        others = asyncio.all_tasks() - {asyncio.current_task()} - pending
        if others:
            self._violated(f"asyncio tasks were left: {sorted(map(repr, others))[:5]}")

    def note_unhandled(self, _loop: Any, context: dict[str, Any]) -> None:
        """Record what nobody has handled in the event loop."""
        self._violated(f"unhandled in the event loop: {context.get('message')}: {context.get('exception')!r}")

    def _violated(self, what: str) -> None:
        self.report.violations.append(what)

    # What happens around the waits

    async def _weather(self, dice: random.Random) -> None:
        """Restart the triggerer, let clocks jump, drop connections and replace a secret, now and then."""
        replaced_at = time.monotonic()
        for number in itertools.count(1):
            await asyncio.sleep(dice.uniform(0.2, 0.8))
            match dice.randrange(6):
                case 0:
                    self.report.counts["restarts of the triggerer"] += 1
                    self.triggerer.restart()
                case 1:
                    # Further ahead than clock_skew and a minute it would prove a wrong time zone.
                    self.report.survived["clock jumps forward"] += 1
                    clock = dice.choice((self.reports, self.sends)).clock
                    ahead = (clock.now() - datetime.now(UTC)).total_seconds()
                    clock.advance(max(0.0, min(dice.uniform(1.0, 60.0), 90.0 - ahead)))
                case 2:
                    self.report.survived["clock jumps back, and forward again"] += 1
                    await self._jump_back(dice)
                case 3:
                    self.report.survived["wall clock off by minutes"] += 1
                    dice.choice((self.reports, self.sends)).clock.skew = dice.uniform(-600.0, 600.0)
                case 4:
                    self.report.survived["open connections dropped"] += 1
                    await asyncio.to_thread(dice.choice((self.reports, self.sends)).drop_connections)
                case 5 if time.monotonic() - replaced_at > BETWEEN_SECRETS:
                    replaced_at = time.monotonic()
                    self.report.survived["secret replaced"] += 1
                    _renew_secret(self.reports, number)

    async def _jump_back(self, dice: random.Random) -> None:
        seconds, began = dice.uniform(5.0, 30.0), time.time()
        clock = self.reports.clock
        clock.set(_moved(clock.now(), -seconds))
        try:
            await asyncio.sleep(dice.uniform(0.2, 1.0))
        finally:
            clock.advance(seconds)
            self.back.append((began, time.time()))

    def _clear_up(self) -> None:
        for quickbi in (self.reports, self.sends):
            quickbi.calm = True
            quickbi.clock.skew = 0.0

    # Waits

    async def _stories(self, lane: int, end: float, seed: int) -> None:
        number = lane
        while time.monotonic() < end:
            await self._story(number, seed)
            number += STORIES

    async def _story(self, number: int, seed: int) -> None:
        story = notify(number, seed)
        begin(story, self.reports)
        waits = [
            asyncio.create_task(self._waited(story, plan, random.Random(f"{seed}/wait/{number}/{position}")))
            for position, plan in enumerate(story.waits)
        ]
        try:
            await play(story, self.reports)
            ended = await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()
        oracle = Oracle(story, self.reports.profile(story.mail_id).notified)
        for plan, group, ended_at in ended:
            steady = not any(
                began < ended_at and over > (plan.wait.finish_by or 0.0) - 10.0 for began, over in self.back
            )
            if (wrong := what_is_wrong(story, plan, group, oracle, ended_at, steady)) is not None:
                self._violated(wrong)
            self.report.outcomes[f"wait {group.evaluation.outcome.value}"] += 1
            self.report.stories[f"wait: {story.name}"] += 1
        self.reports.remove_mail_task(story.mail_id)
        self.reports.forget(story.mail_id)

    async def _waited(self, story: Story, plan: WaitPlan, dice: random.Random) -> tuple[WaitPlan, WaitGroup, float]:
        return plan, await self.waiters.wait(story, plan, dice), time.time()

    # Sends

    async def _sends(self, lane: int, end: float, seed: int) -> None:
        number = lane
        loop = asyncio.get_running_loop()
        senders = Senders(self.sends, _SENDING, self.triggerer, self.report.counts, seed)
        while time.monotonic() < end:
            plan, ended, wrong = await loop.run_in_executor(self.senders, senders.send, number, loop)
            self.report.violations += wrong
            kind = "refresh" if plan.refreshes else "send"
            self.report.outcomes[f"{kind} {ended}"] += 1
            self.report.stories[f"{kind}: {plan.name}"] += 1
            number += SENDS


@dataclass(frozen=True, slots=True)
class _Left:
    """What a process holds."""

    memory: int
    connections: int
    descriptors: int
    threads: int
    pollers: int
    rate_limiters: int


def _left(*servers: FaultyQuickBI) -> _Left:
    until = time.monotonic() + 10.0
    while any(server.open_connections for server in servers) and time.monotonic() < until:
        time.sleep(0.05)
    gc.collect()
    descriptors = Path("/proc/self/fd")
    return _Left(
        memory=tracemalloc.get_traced_memory()[0],
        connections=sum(server.open_connections for server in servers),
        descriptors=len(list(descriptors.iterdir())) if descriptors.exists() else 0,
        threads=threading.active_count(),
        pollers=sum(map(len, status_poller._pollers.values())),
        rate_limiters=len(rate_limit._rate_limiters),
    )


def _moved(moment: Any, seconds: float) -> Any:
    from datetime import timedelta

    return moment + timedelta(seconds=seconds)


def _renew_secret(quickbi: FaultyQuickBI, number: int) -> None:
    """Replace the secret of the changing connection, at once in Airflow and in Quick BI."""
    secret = f"soak-secret-{number % 10}"
    connection = quickbi.connection(**_EXTRA) | {"login": "changing-key", "password": secret}
    os.environ[f"AIRFLOW_CONN_{_CHANGING.upper()}"] = json.dumps(connection)
    quickbi.add_account("changing-key", secret)


#: Pacing is tried elsewhere; here it would only leave less time for faults.
_EXTRA: dict[str, Any] = {"status_calls_per_second": 1000, "read_timeout": 0.4, "connect_timeout": 5}


@contextmanager
def _connections(reports: FaultyQuickBI, sends: FaultyQuickBI) -> Iterator[None]:
    names = [f"AIRFLOW_CONN_{conn_id.upper()}" for conn_id in (_STEADY, _CHANGING, _SENDING)]
    kept = {name: os.environ.get(name) for name in names}
    os.environ[names[0]] = reports.connection_json(**_EXTRA)
    os.environ[names[2]] = sends.connection_json(**_EXTRA)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _unhandled() -> Iterator[list[str]]:
    """Record what threads and destructors raise and nobody handles."""
    noticed: list[str] = []

    def record(kind: str) -> Callable[[Any], None]:
        return lambda unhandled: noticed.append(f"unhandled in {kind}: {unhandled.exc_value!r}")

    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = record("a thread"), record("a destructor")
    try:
        yield noticed
    finally:
        threading.excepthook, sys.unraisablehook = hooks
