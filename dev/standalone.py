"""Starts Airflow with a home of its own and stops all of its processes, for the playground and the live tests."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

#: Seconds until every component of Airflow must be healthy.
START_TIMEOUT = 240.0
#: Seconds that Airflow may take to shut down before it is killed.
STOP_TIMEOUT = 40.0
#: Seconds that a command such as ``airflow db migrate`` may take.
COMMAND_TIMEOUT = 240.0
#: Seconds that Airflow's own APIs may take to respond, and a DAG file to be parsed, on a busy machine.
RESPONSE_TIMEOUT = 120.0
#: The components whose health is checked.
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")

#: Below the ephemeral ports of Linux, macOS and Windows.
_SERVER_PORTS = range(20000, 32768)


class AirflowDidNotStartError(RuntimeError):
    """Airflow was not healthy in time, or it exited; the message shows the end of its log."""


class Program:
    """A command in a session of its own, so that everything it starts can be found and stopped with it.

    :param name: its name in messages, and of its log file.
    :param command: the command line.
    :param environment: its complete environment.
    :param log: the file to which its output is appended.
    """

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, which is also its session id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the command itself is still running."""
        return self._process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """Return every live process of its session, even if its parent is gone."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def stop(self, timeout: float = STOP_TIMEOUT) -> list[str]:
        """Stop it as Ctrl-C does, and kill what is left.

        :param timeout: seconds that it may take to shut down.
        :returns: the command lines of the processes that had to be killed.
        """
        if self.running:
            self._process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + timeout
        while self.processes() and time.monotonic() < deadline:
            self._process.poll()
            time.sleep(0.1)
        left = [_describe(process) for process in self.processes()]
        self.kill()
        return left

    def kill(self) -> None:
        """Kill every process of its session at once."""
        while processes := self.processes():
            for process in processes:
                with suppress(psutil.Error):
                    process.kill()
            self._process.poll()
            time.sleep(0.02)
        self._process.wait()

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Airflow:
    """An Airflow with its own home, database and ports, without example DAGs; every visitor is its administrator.

    It listens on 127.0.0.1 only and ignores any other Airflow that the environment describes. As a context manager it
    stops everything that was started with :meth:`start`.

    :param home: its ``AIRFLOW_HOME``; created if missing.
    :param dags: the folder with its DAGs.
    :param port: of the API server; default a free one.
    :param settings: further environment variables, such as ``AIRFLOW_CONN_QUICKBI_DEFAULT``.
    """

    def __init__(
        self, home: Path, dags: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        api, self._worker_logs, self._trigger_logs = free_ports(3)
        self.port = port or api
        self.url = f"http://127.0.0.1:{self.port}"
        self.programs: list[Program] = []
        self.environment = _foreign_environment() | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": str(RESPONSE_TIMEOUT),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": str(round(RESPONSE_TIMEOUT)),
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self._trigger_logs),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self._worker_logs),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": str(RESPONSE_TIMEOUT),
            # Airflow fails a task that resumes before its supervisor has noticed that it was deferred.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            **(settings or {}),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, *arguments: str, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a command such as ``db migrate`` until it exits.

        :param arguments: what follows ``airflow``.
        :param timeout: seconds that it may take.
        :returns: its output.
        :raises AirflowDidNotStartError: if it fails.
        """
        done = subprocess.run(  # noqa: S603 - our own command line
            _command(arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise AirflowDidNotStartError(
                f"airflow {' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-4000:]}"
            )
        return done.stdout

    def start(self, *arguments: str, name: str | None = None, settings: Mapping[str, str] | None = None) -> Program:
        """Start a command that keeps running, such as ``standalone`` or ``triggerer``.

        :param arguments: what follows ``airflow``.
        :param name: of the program and its log; default the first argument.
        :param settings: environment variables for this command only.
        """
        name = name or arguments[0]
        program = Program(name, _command(arguments), self.environment | dict(settings or {}), self.home / f"{name}.log")
        self.programs.append(program)
        return program

    def stop(self, timeout: float = STOP_TIMEOUT) -> list[str]:
        """Stop everything that was started, the latest first.

        :param timeout: seconds that each program may take to shut down.
        :returns: the command lines of the processes that had to be killed.
        """
        killed = []
        while self.programs:
            killed += self.programs[-1].stop(timeout)
            self.programs.pop()
        return killed

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Return the live processes of everything that was started.

        :param word: only processes with this word in their command line; default all.
        """
        found = []
        for process in (process for program in self.programs for process in program.processes()):
            with suppress(psutil.Error):
                if not word or word in process.cmdline():
                    found.append(process)
        return found

    def wait_until_healthy(self, timeout: float = START_TIMEOUT, components: tuple[str, ...] = COMPONENTS) -> None:
        """Wait until the API server responds and every component has sent a heartbeat.

        :param timeout: seconds.
        :param components: the components to check.
        :raises AirflowDidNotStartError: if that takes longer, or a program exits.
        """
        deadline = time.monotonic() + timeout
        while unhealthy := self.unhealthy(components):
            for program in self.programs:
                if not program.running:
                    raise AirflowDidNotStartError(f"airflow {program.name} exited:\n{program.log_tail()}")
            if time.monotonic() > deadline:
                logs = "\n".join(program.log_tail() for program in self.programs)
                raise AirflowDidNotStartError(f"Not healthy within {timeout:g} s: {', '.join(unhealthy)}\n{logs}")
            time.sleep(0.5)

    def unhealthy(self, components: tuple[str, ...] = COMPONENTS) -> list[str]:
        """Return which components are not healthy, or ``["api-server"]`` if it does not respond."""
        try:
            with _session() as session:
                health = session.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
        except (requests.RequestException, ValueError):
            return ["api-server"]
        return [name for name in components if (health.get(name) or {}).get("status") != "healthy"]

    def api(self) -> Api:
        """Return a client of its REST API."""
        return Api(self.url)


class Api:
    """The stable REST API (v2) as its administrator.

    :param url: of the API server.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url}/api/v2"
        self._session = _session()
        response = self._session.get(f"{url}/auth/token", timeout=30)
        response.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def close(self) -> None:
        """Close its connections."""
        self._session.close()

    def request(self, method: str, path: str, json: Any = None) -> Any:
        """Return the decoded response to a request.

        :param method: such as ``GET``.
        :param path: what follows ``/api/v2``.
        :param json: the body.
        :raises requests.HTTPError: if it is refused; the message holds the response.
        """
        response = self._session.request(method, self._url + path, json=json, timeout=RESPONSE_TIMEOUT)
        if not response.ok:
            raise requests.HTTPError(
                f"{method} {path}: {response.status_code} {response.text[:1000]}", response=response
            )
        return response.json() if response.content else None

    def get(self, path: str) -> Any:
        """Return the decoded response to a ``GET``."""
        return self.request("GET", path)

    def post(self, path: str, json: Any) -> Any:
        """Return the decoded response to a ``POST``."""
        return self.request("POST", path, json)


def free_ports(number: int) -> list[int]:
    """Return unused ports of 127.0.0.1, outside the range that the operating system gives to clients.

    :param number: how many.
    """
    found: list[int] = []
    while len(found) < number:
        port = random.choice(_SERVER_PORTS)  # noqa: S311 - not for security
        if port not in found and _is_free(port):
            found.append(port)
    return found


def free_port(preferred: int) -> int:
    """Return a port of 127.0.0.1 if it is unused, otherwise another free one.

    :param preferred: the port.
    """
    return preferred if _is_free(preferred) else free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def ending_on(*signals: signal.Signals) -> Iterator[None]:
    """Interrupt the block on the first of some signals, as Ctrl-C does; ignore further ones during the shutdown.

    :param signals: such as ``SIGTERM``; only in the main thread.
    """

    def interrupt(*_: Any) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before: dict[signal.Signals, Callable[..., Any] | int | None] = {
        number: signal.signal(number, interrupt) for number in signals
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy for loopback
    return session


def _command(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def _foreign_environment() -> dict[str, str]:
    """Return the environment without settings of another Airflow, and with no proxy for loopback."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment["NO_PROXY"] = environment["no_proxy"] = "127.0.0.1,localhost"
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def _describe(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return f"process {process.pid}"
