"""An Airflow whose parts are processes of their own, as on several machines: CeleryExecutor, PostgreSQL, Redis."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from dev.standalone import Airflow, Program
from tests.distributed import services

_FOLDER = Path(__file__).parent
TRIGGERERS = ("triggerer-1", "triggerer-2")
WORKERS = ("worker-1", "worker-2")
#: Tasks that a worker runs at once.
WORKER_SLOTS = 2
#: Triggers that a triggerer runs at once.
TRIGGERER_CAPACITY = 35
#: How many seconds one step of a test may take on a slow machine.
PATIENCE = 600.0
#: How many seconds the parts may take to end by themselves, all together.
_STOP_SECONDS = 20.0
#: Below the ports that Linux gives to clients, so that no client can take one while its owner starts.
_PORTS = range(20000, 32768)
#: What a worker imports once, and not anew for every task.
_PRELOADED = ("airflow_provider_quickbi.operators.quickbi", "airflow_provider_quickbi.triggers.quickbi")

T = TypeVar("T")


class Cluster(Airflow):
    """Scheduler, DAG processor, API server, two triggerers and two Celery workers, each in a session of its own.

    :param home: its ``AIRFLOW_HOME``.
    :param database_url: an empty PostgreSQL database; it holds Airflow's tables and Celery's results.
    :param broker_url: a Redis database number for Celery.
    :param connection: the connection ``quickbi_default`` as JSON.
    :param pacing_url: what the connection ``pacing_redis`` leads to.
    :param dags: the folder with its DAGs.
    :param settings: further environment variables.
    """

    def __init__(
        self,
        home: Path,
        *,
        database_url: str,
        broker_url: str,
        connection: str,
        pacing_url: str,
        dags: Path = _FOLDER / "dags",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        sqlalchemy_url = database_url.replace("postgresql://", "postgresql+psycopg2://", 1)
        super().__init__(
            home,
            dags,
            port=free_port(),
            settings={
                "AIRFLOW_CONN_QUICKBI_DEFAULT": connection,
                "AIRFLOW_CONN_PACING_REDIS": pacing_url,
                "PYTHONPATH": os.pathsep.join([str(_FOLDER), str(_FOLDER.parent.parent)]),
                "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CORE__HOSTNAME_CALLABLE": "cluster_host.name",
                "AIRFLOW__CORE__PARALLELISM": "8",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": sqlalchemy_url,
                "AIRFLOW__CELERY__BROKER_URL": broker_url,
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{sqlalchemy_url}",
                "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": _PRELOADED}),
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
                # The API server's first response to a worker takes long where the machine is busy.
                "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
                # A worker that was killed: its tasks are given up soon, and so is what it had fetched and not started.
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
                "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
                # A triggerer that was killed: the other one takes its triggers over soon.
                "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
                "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
                "AIRFLOW__TRIGGERER__CAPACITY": str(TRIGGERER_CAPACITY),
                **(settings or {}),
            },
        )
        self._database_url = database_url
        self._parts: dict[str, Program] = {}

    def start_all(self) -> None:
        """Create the tables, start every part and wait until all of them are at work."""
        self.run("db", "migrate")
        self._start_wait("api-server")
        self._start_wait("scheduler")
        self._start_wait("dag-processor")
        for name in TRIGGERERS:
            self._start_wait(name, "triggerer", "--skip-serve-logs")
        for name in WORKERS:
            options = ["--skip-serve-logs", "--without-gossip", "--without-mingle", "--concurrency", str(WORKER_SLOTS)]
            self._start_wait(name, "celery", "worker", "--celery-hostname", name, *options)
        self.wait_until_healthy(PATIENCE)
        self.until(lambda: self._alive_triggerers() == {*TRIGGERERS}, "both triggerers are at work")
        self.until(lambda: all(" ready." in self._parts[name].log_tail(200) for name in WORKERS), "both workers are")

    def kill(self, name: str) -> None:
        """Kill a part with everything it started, as if its machine went down."""
        self._parts[name].kill()
        self.programs.remove(self._parts[name])

    def stop(self, timeout: float = _STOP_SECONDS) -> list[str]:
        """Terminate every part at once, and kill what does not end."""
        for program in self.programs:
            if program.running:
                os.kill(program.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        late = []
        for program in self.programs:
            if program.processes():
                late.append(program.name)
            program.kill()
        self.programs = [program for program in self.programs if program.processes()]
        return late

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows that Airflow's database has, which costs nothing of what the API server would need."""
        with closing(services.connect(self._database_url)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def states(self, dag_id: str, task_id: str) -> dict[str, int]:
        """Return how many instances of a task are in each state."""
        rows = self.query(
            "SELECT coalesce(state, 'none'), count(*) FROM task_instance WHERE dag_id = %s AND task_id = %s GROUP BY 1",
            dag_id,
            task_id,
        )
        return dict(rows)

    def run_states(self) -> list[str]:
        """Return the state of every DAG run."""
        return [state for (state,) in self.query("SELECT state FROM dag_run")]

    def triggers(self) -> dict[str | None, int]:
        """Return how many triggers each triggerer holds; ``None`` stands for those that nobody has yet."""
        return dict(
            self.query("SELECT hostname, count(*) FROM trigger LEFT JOIN job ON job.id = triggerer_id GROUP BY 1")
        )

    def running_on(self, worker: str, dag_id: str) -> list[int]:
        """Return the map indexes of the tasks of a DAG that a worker runs."""
        statement = "SELECT map_index FROM task_instance WHERE hostname = %s AND dag_id = %s AND state = 'running'"
        return sorted(index for (index,) in self.query(statement, worker, dag_id))

    def until(self, poll_once: Callable[[], T], what: str) -> T:
        """Poll until there is something, which must be before a task fails or a part ends."""
        deadline = time.monotonic() + PATIENCE
        while not (found := poll_once()):
            assert not (failed := self._failed()), f"Failed before {what}:\n{failed}"
            ended = [program for program in self.programs if not program.running]
            assert not ended, f"{ended[0].name} ended before {what}:\n{ended[0].log_tail()}"
            assert time.monotonic() < deadline, f"Not within {PATIENCE:g} s: {what}\n{self._describe()}"
            time.sleep(0.5)
        return found

    def _start_wait(self, name: str, *command: str) -> None:
        self._parts[name] = self.start(*(command or (name,)), name=name, settings={"QUICKBI_TEST_HOST": name})

    def _alive_triggerers(self) -> set[str]:
        rows = self.query("SELECT hostname FROM job WHERE job_type = 'TriggererJob' AND state = 'running'")
        return {name for (name,) in rows}

    def _failed(self) -> str:
        """Return which tasks failed, with the ends of their logs."""
        rows = self.query(
            "SELECT dag_id, task_id, map_index FROM task_instance WHERE state IN ('failed', 'upstream_failed')"
        )
        lines = []
        for dag_id, task_id, map_index in rows:
            place = f"task_id={task_id}/{'' if map_index < 0 else f'map_index={map_index}/'}attempt=*.log"
            lines.append(f"{dag_id}.{task_id}[{map_index}]")
            for log in sorted(Path(self.home, "logs").glob(f"dag_id={dag_id}/*/{place}")):
                lines += [f"    {line[:2000]}" for line in log.read_text(errors="replace").splitlines()[-5:]]
        return "\n".join(lines)

    def _describe(self) -> str:
        states = self.query("SELECT dag_id, task_id, state, count(*) FROM task_instance GROUP BY 1, 2, 3")
        logs = [f"{program.name}:\n{program.log_tail(15)}" for program in self.programs]
        return "\n".join([f"tasks: {states}", f"triggers: {self.triggers()}", *logs])


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on and that no client is given."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"None of 200 ports between {_PORTS.start} and {_PORTS.stop} is free")
