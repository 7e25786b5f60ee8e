"""The rate limiter: the rate, the order of callers, and throttling; time is controlled."""

from __future__ import annotations

import asyncio
import heapq
import math
import subprocess
import sys
import threading
import time
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_quickbi.api.rate_limit import RateLimiter, rate_limiter

ACCOUNT = ("https://quickbi.example/", "access_key:id")


class Clock:
    """Time that passes only when somebody sleeps, possibly a little too long; also the shared wall clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.late: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + (self.late.pop() if self.late else 0.0)


def limited(rate: float, clock: Clock) -> RateLimiter:
    return RateLimiter(rate, clock=clock, wall_clock=clock)


def calls(limiter: RateLimiter, clock: Clock, number: int) -> list[float]:
    """Return the times of a number of calls."""
    made = []
    for _ in range(number):
        limiter.acquire_blocking(clock.sleep)
        made.append(clock.now)
    return made


def gaps(made: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(made)]


@pytest.mark.parametrize("rate", [0.01, 1, 50])
def test_the_first_call_does_not_wait(rate: float):
    assert limited(rate, Clock()).try_acquire() == 0.0


@pytest.mark.parametrize("rate", [0.1, 1, 2.5, 50])
def test_calls_use_nearly_the_whole_limit_and_never_more(rate: float):
    clock = Clock()
    made = calls(limited(rate, clock), clock, 101)
    assert rate * 0.9 <= 100 / (made[-1] - made[0]) <= rate
    assert min(gaps(made)) >= 0.9 / rate


def test_an_early_caller_learns_how_long_to_wait():
    clock = Clock()
    limiter = limited(1, clock)
    limiter.try_acquire()
    first = limiter.try_acquire()
    assert 1.0 <= first <= 1.2
    clock.now += 0.5
    assert limiter.try_acquire() == pytest.approx(first - 0.5)
    clock.now += first - 0.5
    assert limiter.try_acquire() == pytest.approx(0.0, abs=1e-6)


def test_unused_time_is_not_saved_up():
    clock = Clock()
    limiter = limited(1, clock)
    limiter.try_acquire()
    clock.now += 3600
    assert min(gaps(calls(limiter, clock, 5))) >= 1.0


@given(st.lists(st.floats(min_value=0, max_value=3), max_size=40))
@settings(deadline=None)
def test_however_late_callers_wake_two_calls_are_never_less_than_a_second_apart(late: list[float]):
    clock = Clock()
    clock.late = late
    assert min(gaps(calls(limited(1, clock), clock, 40))) >= 1.0


@given(st.lists(st.floats(min_value=0, max_value=0.2), max_size=200))
@settings(max_examples=30, deadline=None)
def test_however_late_callers_wake_no_second_has_more_calls_than_allowed(late: list[float]):
    clock = Clock()
    clock.late = late
    made = calls(limited(50, clock), clock, 200)
    assert max(sum(begin <= other < begin + 1 for other in made) for begin in made) <= 50


def test_waking_a_little_late_each_time_does_not_cost_calls():
    clock = Clock()
    clock.late = [0.015] * 100
    made = calls(limited(1, clock), clock, 101)
    assert (made[-1] - made[0]) / 100 <= 1.1


# Throttling


def test_throttling_again_and_again_slows_down_but_never_to_a_standstill():
    clock = Clock()
    limiter = limited(1, clock)
    full = limiter.rate
    for _ in range(50):
        limiter.acquire_blocking(clock.sleep)
        limiter.throttled()
    assert full / 32 <= limiter.rate <= full / 8


def test_a_burst_of_throttled_calls_counts_once():
    clock = Clock()
    limiter = limited(10, clock)
    full = limiter.rate
    limiter.try_acquire()
    limiter.throttled()
    clock.now += 10
    for _ in range(20):
        limiter.throttled()
    assert limiter.rate >= full / 4


def test_calls_without_throttling_restore_the_full_rate_and_no_more():
    clock = Clock()
    limiter = limited(1, clock)
    full = limiter.rate
    for _ in range(10):
        limiter.acquire_blocking(clock.sleep)
        limiter.throttled()
    assert limiter.rate < full / 2
    for _ in range(3000):
        limiter.acquire_blocking(clock.sleep)
        limiter.succeeded()
    assert limiter.rate == full
    assert min(gaps(calls(limiter, clock, 20))) >= 1.0


def test_a_throttled_call_is_not_repeated_at_once():
    clock = Clock()
    limiter = limited(1, clock)
    limiter.try_acquire()
    limiter.throttled()
    assert limiter.try_acquire() >= 0.5


@pytest.mark.parametrize("seconds", [5.0, 30.0, 600.0])
def test_a_retry_after_is_honoured(seconds: float):
    clock = Clock()
    limiter = limited(10, clock)
    limiter.try_acquire()
    limiter.throttled(retry_after=seconds)
    begin = clock.now
    limiter.acquire_blocking(clock.sleep)
    assert seconds <= clock.now - begin <= seconds + 2.0


def test_a_shorter_retry_after_does_not_shorten_a_longer_one():
    clock = Clock()
    limiter = limited(10, clock)
    limiter.try_acquire()
    limiter.throttled(retry_after=30.0)
    limiter.throttled(retry_after=1.0)
    begin = clock.now
    limiter.acquire_blocking(clock.sleep)
    assert clock.now - begin >= 30.0


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_that_do_not_communicate_share_one_limit(processes: int):
    """The service allows one call per second; each process calls whenever its own limiter allows it."""
    clock = Clock()
    random = Random(processes)
    limiters = [RateLimiter(1.0, clock=clock, wall_clock=clock, uniform=random.uniform) for _ in range(processes)]
    passed, made, refused = -math.inf, [0] * processes, 0
    due = [(clock.now + random.random(), index) for index in range(processes)]
    heapq.heapify(due)
    while clock.now < 1000.0 + 1800:
        clock.now, index = heapq.heappop(due)
        wait = limiters[index].try_acquire()
        if wait == 0:
            if clock.now - passed >= 1.0:
                passed = clock.now
                made[index] += 1
                limiters[index].succeeded()
            else:
                refused += 1
                limiters[index].throttled()
        heapq.heappush(due, (clock.now + wait + random.uniform(0.0005, 0.003), index))
    assert sum(made) >= 0.5 * 1800
    assert min(made) >= 0.2 * sum(made) / processes
    assert refused <= 0.5 * sum(made)


# The order of callers


def test_waiting_callers_of_one_event_loop_are_served_first_come_first_served():
    clock = Clock()

    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        await asyncio.sleep(0)

    limiter = RateLimiter(1, clock=clock, wall_clock=clock, sleep=sleep)
    served: list[tuple[int, float]] = []

    async def caller(number: int) -> None:
        await limiter.acquire()
        served.append((number, clock.now))

    async def main() -> None:
        await asyncio.gather(*(caller(number) for number in range(50)))

    asyncio.run(asyncio.wait_for(main(), 20))
    assert [number for number, _ in served] == list(range(50))
    assert min(gaps([moment for _, moment in served])) >= 1.0


def test_a_cancelled_caller_does_not_hold_up_the_others():
    limiter = RateLimiter(1000)
    served: list[int] = []

    async def caller(number: int) -> None:
        await limiter.acquire()
        served.append(number)

    async def main() -> None:
        waiting = [asyncio.create_task(caller(number)) for number in range(10)]
        await asyncio.sleep(0)
        for left in (0, 3, 4, 9):
            waiting[left].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 20))
    assert [number for number in served if number not in {0, 3, 4, 9}] == [1, 2, 5, 6, 7, 8]


def test_threads_and_event_loops_share_one_limiter():
    limiter = RateLimiter(500)
    begin = time.monotonic()

    def blocking() -> None:
        for _ in range(25):
            limiter.acquire_blocking()

    async def waiting() -> None:
        for _ in range(25):
            await limiter.acquire()

    threads = [threading.Thread(target=blocking) for _ in range(2)]
    threads.append(threading.Thread(target=lambda: asyncio.run(waiting())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert time.monotonic() - begin >= 74 / 500 - 0.05


# Which limiter


def test_all_callers_of_an_account_share_the_limiter_of_an_operation():
    assert rate_limiter(ACCOUNT, "GetMailTaskList") is rate_limiter(ACCOUNT, "GetMailTaskList")
    assert rate_limiter(ACCOUNT, "GetMailTaskStatus", 5.0) is rate_limiter(ACCOUNT, "GetMailTaskStatus", 5.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((ACCOUNT, "GetMailTaskList"), (ACCOUNT, "GetMailTaskStatus")),
        ((ACCOUNT, "GetMailTaskList"), (("https://other.example/", "access_key:id"), "GetMailTaskList")),
        ((ACCOUNT, "GetMailTaskList"), (("https://quickbi.example/", "access_key:other"), "GetMailTaskList")),
        ((ACCOUNT, "GetMailTaskStatus", 1.0), (ACCOUNT, "GetMailTaskStatus", 2.0)),
    ],
)
def test_other_operations_accounts_and_rates_have_their_own_limiters(first: Any, second: Any):
    assert rate_limiter(*first) is not rate_limiter(*second)


@pytest.mark.parametrize(
    ("action", "configured", "rate"),
    [
        ("GetMailTaskStatus", 1.0, 1.0),
        ("GetMailTaskStatus", 0.2, 0.2),
        ("ManualRunMailTask", 7.0, 1.0),
        ("GetMailTaskList", 7.0, 50.0),
        ("AnythingElse", 7.0, 50.0),
    ],
)
def test_the_documented_limits_apply_and_only_that_of_the_status_can_be_configured(
    action: str, configured: float, rate: float
):
    assert 0.9 * rate <= rate_limiter(ACCOUNT, action, configured).rate <= rate


def test_a_blocking_call_imports_what_takes_long_before_it_gets_its_slot():
    program = """
import sys
from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.rate_limit import RateLimiter
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint

def acquire_blocking(self, sleep):
    print([name for name in ("requests", "alibabacloud_tea_openapi.utils") if name not in sys.modules])
    sys.exit()

RateLimiter.acquire_blocking = acquire_blocking
key = CredentialSpec.of("access_key", access_key_id="LTAI", access_key_secret="secret")
QuickBIClient(ClientSettings(Endpoint("127.0.0.1", "http", 1), key)).get_mail_task_status("mail")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
