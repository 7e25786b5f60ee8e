"""Simulated mornings whose processes share a real Redis, by a clock of the tests' own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from airflow_provider_quickbi.api import shared_rate_limit
from airflow_provider_quickbi.api.shared_rate_limit import RedisServer, RedisSettings, SharedRateLimiter
from benchmarks.mornings import SKEW, Morning, Process
from tests.api.shared.conftest import Redis


class Time:
    """Time that passes only when advanced."""

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
    """Calls Redis within the event loop, whose time does not pass meanwhile; each one is a process of its own."""

    async def _try_acquire(self) -> float:
        return self.try_acquire()


class SharedMorning(Morning):
    """Processes that share one Quick BI, and a Redis to share its limit."""

    def __init__(self, redis: Redis, rate: float, processes: int, **options: Any) -> None:
        self.settings = redis.settings
        self.servers: list[ControlledServer] = []
        super().__init__(rate, processes, **options)

    def _process(self) -> Process:
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
