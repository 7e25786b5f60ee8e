"""Runs one measurement in a process of its own that has Airflow imported and nothing else done."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

_STARTED = "started"
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["benchmarks.waits", "benchmarks.peers"])


class Isolated:
    """A function that runs in a new process; a context manager that leaves no process behind.

    The function gets a callable to say that what is measured has started, then the arguments.

    :param function: of a module.
    :param arguments: of the function; they must be picklable, as must be its result.
    :param connection: the connection ``quickbi_default`` as JSON.
    :param redis_port: of a local Redis, which the connection ``benchmark_redis`` leads to.
    """

    def __init__(
        self, function: Callable[..., Any], *arguments: Any, connection: str, redis_port: int | None = None
    ) -> None:
        self._pipe, child = _processes.Pipe()
        connections = {"AIRFLOW_CONN_QUICKBI_DEFAULT": connection}
        if redis_port is not None:
            connections["AIRFLOW_CONN_BENCHMARK_REDIS"] = f"redis://127.0.0.1:{redis_port}"
        self._process = _processes.Process(target=_run, args=(child, function, arguments, connections), daemon=True)
        self._process.start()
        child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.is_alive():
            self._process.terminate()
        self._process.join(10)
        self._pipe.close()

    def wait_until_started(self, timeout: float = 60.0) -> None:
        """Wait until the function says that it has started.

        :param timeout: seconds.
        """
        assert self._receive(timeout) == _STARTED

    def result(self, timeout: float) -> Any:
        """Return the function's result.

        :param timeout: seconds.
        :raises TimeoutError: if it is not there in time.
        """
        return self._receive(timeout)

    def _receive(self, timeout: float) -> Any:
        if not self._pipe.poll(timeout):
            raise TimeoutError(f"A measurement has not finished after {timeout:.0f} s.")
        response = self._pipe.recv()
        if isinstance(response, BaseException):
            raise response
        return response


def _run(
    pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], connections: dict[str, str]
) -> None:
    os.environ.update(connections)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):  # what is logged is written, but not shown
        os.dup2(nowhere, output)
    try:
        response = function(lambda: pipe.send(_STARTED), *arguments)
    except Exception as error:
        response = RuntimeError(f"{type(error).__name__}: {error}")
    pipe.send(response)
