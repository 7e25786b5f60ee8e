"""A Redis that is away, slow or wrong costs one warning and no wait."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_quickbi._pacing import redis_settings_of
from airflow_provider_quickbi.api import shared_rate_limit
from airflow_provider_quickbi.api.shared_rate_limit import PROBE_SECONDS, RedisServer, RedisSettings, SharedRateLimiter
from benchmarks.mornings import simulate
from tests.api.shared.conftest import Redis
from tests.api.shared.controlled import SharedMorning


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
    assert sum("available again" in record.message for record in caplog.records) == 2


def acquire_some(limiter: SharedRateLimiter, number: int) -> float:
    async def main() -> float:
        begin = time.monotonic()
        await asyncio.gather(*(limiter.acquire() for _ in range(number)))
        return time.monotonic() - begin

    return asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("what", ["away", "slow", "wrong", "denied", "foreign"])
def test_without_a_working_redis_a_process_paces_itself_and_says_so_once(
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


def test_a_masked_password_is_said_once_and_never_sent(caplog: pytest.LogCaptureFixture, monkeypatch: Any):
    monkeypatch.setitem(sys.modules, "redis", None)  # asked for by whoever connects
    described = {"conn_type": "redis", "host": "127.0.0.1", "port": 1, "login": "", "password": "***"}
    settings = redis_settings_of(SimpleNamespace(conn_id="shared", extra_dejson={}, **described))
    limiter = SharedRateLimiter(1000, "masked", RedisServer(settings))

    acquire_some(limiter, 3)

    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "'shared': password holds Airflow's mask" in warning
    assert "Each process paces itself" in warning


def test_an_idle_connection_that_the_server_closed_is_opened_again(redis: Redis, caplog: pytest.LogCaptureFixture):
    from redis import Redis as Client

    limiter = SharedRateLimiter(100, "queue", RedisServer(redis.settings))
    limiter.acquire_blocking()
    with Client(port=redis.settings.port) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    limiter.acquire_blocking()
    assert not caplog.records


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
