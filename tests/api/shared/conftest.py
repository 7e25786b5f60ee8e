"""A real Redis of the tests' own, which can be taken away and given back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quickbi.api import shared_rate_limit
from airflow_provider_quickbi.api.shared_rate_limit import RedisServer, RedisSettings

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
        """Let it accept connections and send nothing."""
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
    """A Redis that works and is empty."""
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
