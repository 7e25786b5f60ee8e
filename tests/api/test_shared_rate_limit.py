"""One allowance for several processes, kept in a real Redis; time is controlled unless processes are the point."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_quickbi._pacing import redis_settings_of
from airflow_provider_quickbi.api import shared_rate_limit
from airflow_provider_quickbi.api.rate_limit import RateLimiter, rate_limiter
from airflow_provider_quickbi.api.shared_rate_limit import PROBE_SECONDS, RedisServer, RedisSettings, SharedRateLimiter
from tests.test_pacing_simulation import ACTION, SKEW, Morning, Process, simulate

ACCOUNT = ("https://quickbi.example/", "access_key:LTAI-known-to-few")
#: Set where these tests must run, so that a missing Redis is an error.
REQUIRED = "QUICKBI_TEST_REDIS"


class Redis:
    """A Redis server of the tests' own that can be taken away and given back."""

    def __init__(self, program: str, folder: Path, port: int) -> None:
        self._command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None
        self.settings = RedisSettings("127.0.0.1", port, timeout=0.5)

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.settings.port), 1).close()
            except OSError:
                assert time.monotonic() < until, "redis-server did not start"
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self.resume()
            self._process.kill()
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
def redis_program() -> str:
    """Return the program of a Redis server; tests that need it are left out where it or redis-py is not installed."""
    try:
        import redis  # noqa: F401 - only whether it is there
    except ImportError:
        missing = "redis-py is missing: pip install 'airflow-provider-quickbi[redis]'"
    else:
        if program := shutil.which("redis-server"):
            return program
        missing = "redis-server is missing: install Redis, on Debian with apt-get install redis-server"
    if os.environ.get(REQUIRED):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="module")
def _shared_redis(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Redis(redis_program, tmp_path_factory.mktemp("redis"), port)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(_shared_redis: Redis) -> Redis:
    """A Redis that answers and is empty."""
    from redis import Redis as Client

    _shared_redis.stop()
    _shared_redis.start()
    with Client(port=_shared_redis.settings.port) as client:
        client.flushall()
    return _shared_redis


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a process keeps open."""
    scripts: list[Any] = []
    connect = RedisServer._connect

    def recording(server: RedisServer) -> Any:
        scripts.append(connect(server))
        return scripts[-1]

    monkeypatch.setattr(RedisServer, "_connect", recording)
    yield
    for script in scripts:
        script.registered_client.close()
    shared_rate_limit._server.cache_clear()


class Time:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class ControlledServer(RedisServer):
    """A real Redis and the real script, but for the server's clock."""

    def __init__(self, settings: RedisSettings, clock: Callable[[], float]) -> None:
        from redis import Redis as Client

        super().__init__(settings, clock)
        self.client = Client(port=settings.port, protocol=2)
        self.away = False

    def __del__(self) -> None:
        self.client.close()

    def _connect(self) -> Any:
        own_clock = "redis.call('TIME')"
        assert own_clock in shared_rate_limit._RESERVE
        script = self.client.register_script(
            shared_rate_limit._RESERVE.replace(own_clock, "cjson.decode(redis.call('GET', 'now'))")
        )

        def reserve(**arguments: Any) -> Any:
            if self.away:
                raise ConnectionError("away")
            now = round(self._clock() * 1e6)
            self.client.set("now", json.dumps([str(now // 1_000_000), str(now % 1_000_000)]))
            return script(**arguments)

        return reserve


class Simulated(SharedRateLimiter):
    """Asks Redis within the event loop, whose time does not pass meanwhile; each one is a process of its own."""

    async def _try_acquire(self) -> float:
        return self.try_acquire()


class SharedMorning(Morning):
    """Processes that share one Quick BI, and a Redis to share its allowance."""

    def __init__(self, redis: Redis, rate: float, processes: int, **options: Any) -> None:
        self.settings = redis.settings
        self.servers: list[ControlledServer] = []
        super().__init__(rate, processes, **options)

    def _process(self, number: int) -> Process:
        numbers = random.Random(self.random.random())
        skew = self.random.uniform(-SKEW, SKEW)

        def clock() -> float:
            return self.loop.time() + 1e9

        server = ControlledServer(self.settings, clock)
        self.servers.append(server)
        return Process(
            Simulated(
                self.rate,
                "queue",
                server,
                clock=clock,
                wall_clock=lambda: clock() + skew,
                uniform=numbers.uniform,
            )
        )

    def take_redis_away(self, away: bool = True) -> None:
        for server in self.servers:
            server.away = away


@pytest.mark.parametrize("rate", [1, 3, 10])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_allowance_without_being_throttled(redis: Redis, processes: int, rate: float):
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
        asked: list[float] = []

        async def ask(process: Process) -> None:
            while True:
                await morning.poll(process)
                asked.append(morning.loop.time())

        tasks = [[asyncio.create_task(ask(process)) for _ in range(20)] for process in morning.processes]
        await asyncio.sleep(60)
        for task in tasks[0]:
            task.cancel()  # and the slot that it holds in Redis stays there
        await asyncio.sleep(60)
        for task in tasks[1] + tasks[2]:
            task.cancel()
        return asked

    asked = simulate(main())
    slot = RateLimiter(1).slot
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert len(asked) >= 100
    assert sum(gap > 1.5 * slot for gap in gaps) == 1
    assert max(gaps) <= 2.2 * slot


def test_redis_goes_and_comes_back_while_waits_go_on(redis: Redis, caplog: pytest.LogCaptureFixture):
    async def main() -> SharedMorning:
        morning = SharedMorning(redis, 1, 2)
        morning.begin(40, 1.0)
        await asyncio.sleep(120)
        morning.take_redis_away()
        await asyncio.sleep(300)
        assert all(type(server._clock()) is float and server._reported for server in morning.servers)
        morning.take_redis_away(False)
        await asyncio.sleep(2 * PROBE_SECONDS)
        assert not any(server._reported for server in morning.servers)
        for process in morning.processes:
            process.calls = process.throttled = 0
        await asyncio.sleep(300)
        again = morning.throttled_share, sum(process.calls for process in morning.processes)
        await morning.send_all()
        assert again[0] < 0.01
        assert again[1] >= 0.8 * 300
        return morning

    with caplog.at_level(logging.INFO, logger=shared_rate_limit.__name__):
        morning = simulate(main())
    assert len(morning.delays()) == 40
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2  # one for each process
    assert sum("answers again" in record.message for record in caplog.records) == 2


def test_a_call_alone_need_not_wait(redis: Redis):
    clock = Time()
    limiter = Simulated(1, "queue", ControlledServer(redis.settings, clock), clock=clock, wall_clock=clock)
    for _ in range(5):
        assert limiter.try_acquire() == 0
        clock.now += 7.3


def test_what_the_service_asks_for_is_waited(redis: Redis):
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


# What is kept in Redis


def test_what_redis_keeps_tells_nothing_of_the_account_and_expires(redis: Redis):
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


# Redis away, slow or wrong


def acquire_some(limiter: SharedRateLimiter, number: int) -> float:
    async def main() -> float:
        begin = time.monotonic()
        await asyncio.gather(*(limiter.acquire() for _ in range(number)))
        return time.monotonic() - begin

    return asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("what", ["away", "slow", "wrong", "denied", "foreign"])
def test_without_a_redis_that_answers_rightly_a_process_paces_itself_and_says_so_once(
    what: str, redis: Redis, caplog: pytest.LogCaptureFixture
):
    from redis import Redis as Client

    settings = redis.settings
    limiter = SharedRateLimiter(200, "queue", RedisServer(settings))
    if what == "away":
        redis.stop()
    elif what == "slow":
        redis.suspend()
    elif what == "denied":
        settings = RedisSettings("127.0.0.1", settings.port, password="not-to-be-seen")
        limiter = SharedRateLimiter(200, "queue", RedisServer(settings))
    elif what == "foreign":
        with Client(port=settings.port) as client:
            client.set("queue", "somebody else's")
    else:
        limiter._server._reserve = lambda **arguments: b"soon"
    seconds = acquire_some(limiter, 40)
    assert 39 / 200 <= seconds <= 39 / 200 + 3
    (record,) = [record for record in caplog.records if record.name == shared_rate_limit.__name__]
    assert record.levelno == logging.WARNING
    assert f"127.0.0.1:{settings.port}" in record.message
    assert "not-to-be-seen" not in record.message


def test_redis_taken_away_and_given_back(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    from redis import Redis as Client

    monkeypatch.setattr(shared_rate_limit, "PROBE_SECONDS", 0.2)
    limiter = SharedRateLimiter(100, "queue", RedisServer(redis.settings))
    with caplog.at_level(logging.INFO, logger=shared_rate_limit.__name__):
        acquire_some(limiter, 5)
        redis.stop()
        acquire_some(limiter, 40)
        redis.start()
        acquire_some(limiter, 40)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    with Client(port=redis.settings.port) as client:
        assert client.exists("queue")


def test_a_missing_redis_py_is_said_and_no_reason_to_fail(caplog: pytest.LogCaptureFixture, monkeypatch: Any):
    monkeypatch.setitem(sys.modules, "redis", None)
    limiter = SharedRateLimiter(100, "queue", RedisServer(RedisSettings("127.0.0.1", 1)))
    limiter.acquire_blocking()
    acquire_some(limiter, 3)
    (record,) = caplog.records
    assert "pip install 'airflow-provider-quickbi[redis]'" in record.message


def test_an_idle_connection_that_the_server_closed_is_opened_again(redis: Redis, caplog: pytest.LogCaptureFixture):
    from redis import Redis as Client

    limiter = SharedRateLimiter(100, "queue", RedisServer(redis.settings))
    limiter.acquire_blocking()
    with Client(port=redis.settings.port) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    limiter.acquire_blocking()
    assert not caplog.records


# Real processes

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
    rate, files = 10.0, [tmp_path / f"{number}" for number in range(4)]
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


# The connection


def connection(**fields: Any) -> Any:
    known = {"conn_id": "pacing", "conn_type": "redis", "host": "redis", "port": None, "login": None, "password": None}
    return SimpleNamespace(**known | {"extra_dejson": {}} | fields)


def test_a_redis_connection_is_read_as_airflow_reads_it():
    assert redis_settings_of(connection()) == RedisSettings("redis", 6379)
    extra = {"db": "3", "ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": "none", "else": 1}
    settings = redis_settings_of(connection(port=6380, login="me", password="secret", extra_dejson=extra))
    assert settings == RedisSettings(
        "redis", 6380, 3, "me", "secret", True, (("ssl_ca_certs", "/ca.pem"), ("ssl_cert_reqs", "none"))
    )
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"conn_type": "http"}, "conn_type"),
        ({"host": " "}, "host"),
        ({"extra_dejson": {"db": "first"}}, "db"),
        ({"extra_dejson": {"ssl": "maybe"}}, "ssl"),
    ],
)
def test_a_connection_that_is_none_is_refused_with_the_field_s_name(fields: dict[str, Any], field: str):
    with pytest.raises(ValueError, match=f"Connection 'pacing': {field} "):
        redis_settings_of(connection(**fields))
