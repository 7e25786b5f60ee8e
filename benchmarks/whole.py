"""Waits in a whole Airflow: what they cost all of its processes, beside waits as peers write them."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from benchmarks.report import Row, Section, percent, seconds, times
from benchmarks.server import Server
from dev.standalone import Airflow, Api

TITLE = "In a whole Airflow"
_ROOT = Path(__file__).parent.parent
DAGS = _ROOT / "benchmarks" / "dags"
#: Seconds from the start of the DAG run until all mails are sent.
_SENT_AFTER = 90.0
_IDLE_SECONDS = 20.0
_TIMEOUT = 1500.0
_PARALLELISM = 8
_WORKER_START = re.compile(r"method=PATCH path=/execution/task-instances/[0-9a-f-]+/run query= status_code=200")
NAMES = {
    "ours": "this provider",
    "ours_from_worker": "this provider with start_in_triggerer=False",
    "peer": "peer-style",
}


@dataclass(frozen=True)
class Measured:
    """What one DAG run of waits took.

    :param waits: how many there were.
    :param states: how many ended in each state.
    :param worker_starts: processes that a worker started for their tasks.
    :param cpu_seconds: of all processes of Airflow.
    :param idle_seconds: of which an idle Airflow would have used so many in the same time.
    :param calls: status calls.
    :param throttled: of which so many were throttled.
    :param delays: seconds from the sending of the mails to the end of each task.
    """

    waits: int
    states: dict[str, int]
    worker_starts: int
    cpu_seconds: float
    idle_seconds: float
    calls: int
    throttled: int
    delays: list[float]

    @property
    def cpu_of_a_wait(self) -> float:
        """CPU seconds for each wait, without what an idle Airflow uses."""
        return (self.cpu_seconds - self.idle_seconds) / self.waits

    def describe(self) -> str:
        """Return everything in one line."""
        return (
            f"{self.worker_starts / self.waits:.2f} worker starts and {self.cpu_of_a_wait:.2f} s CPU a wait "
            f"({self.cpu_seconds / self.waits:.2f} s with the idle part), "
            f"{self.throttled} of {self.calls} calls throttled, seen after {seconds(statistics.fmean(self.delays))} "
            f"on average and {seconds(max(self.delays))} at the latest"
        )


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    section = measure_section(6 if quick else 40)
    if not quick:
        section.rows.extend(measure_many(200))
    return section


def measure_section(waits: int) -> Section:
    """Measure so many waits of each kind, one kind after the other in the same Airflow.

    :param waits: how many.
    """
    measured: dict[str, Measured] = {}
    with Server(waits, calls_per_second={"GetMailTaskStatus": 1.0}) as first, standalone(waits, first) as airflow:
        api = airflow.api()
        for style in styles(api):
            first.restart_runs()
            measured[style] = measure(airflow, api, first, style, waits)
            print(f"{NAMES[style]}: {measured[style].describe()}", flush=True)
        api.close()
    return Section(
        TITLE,
        rows(measured, waits),
        f"`airflow standalone` on sqlite with the LocalExecutor (parallelism {_PARALLELISM}); {waits} sensors for as many mails in "
        "one DAG run, not mapped and without outlets, `poke_interval` 30 s, one status call per second allowed by the "
        f"service, all mails sent {_SENT_AFTER:.0f} s after the DAG run was triggered. A worker start is a task process "
        "that registers with Airflow. CPU is that of all processes of Airflow from the trigger to the end of the DAG "
        "run, without what the same Airflow used while it was idle. A wait is detected when its task has ended. "
        "*Peer-style* polls first on the worker, then in a loop for each wait on the official SDK, and ignores errors. "
        "The kinds are measured one after the other.",
    )


def measure_many(waits: int) -> list[Row]:
    """Measure so many waits of this provider alone: the others would take an hour.

    :param waits: how many.
    """
    with Server(waits, calls_per_second={"GetMailTaskStatus": 1.0}) as server, standalone(waits, server) as airflow:
        api = airflow.api()
        styles(api)
        server.restart_runs()
        found = measure(airflow, api, server, "ours", waits)
        api.close()
    print(f"{waits} waits: {found.describe()}", flush=True)
    what = f"{waits} waits"
    return [
        Row(
            f"{what}: worker starts per wait",
            f"{found.worker_starts / waits:.2f}",
            "",
            "0",
            found.states == {"success": waits} and found.worker_starts == 0,
        ),
        Row(
            f"{what}: throttled calls",
            f"{percent(found.throttled, found.calls)} of {found.calls}",
            "",
            "under 2 %",
            found.throttled < 0.02 * found.calls,
        ),
        Row(f"{what}: CPU of all Airflow processes per wait", seconds(found.cpu_of_a_wait)),
        Row(
            f"{what}: mean and last detection (least possible {waits} s)",
            f"{seconds(statistics.fmean(found.delays))}, {seconds(max(found.delays))}",
        ),
    ]


def rows(measured: dict[str, Measured], waits: int) -> list[Row]:
    """Return the table of some kinds of waits.

    :param measured: by kind.
    :param waits: how many there were of each.
    """
    ours = measured["ours"]
    others = {style: value for style, value in measured.items() if style != "ours"}

    def beside(text: dict[str, str]) -> str:
        return "; ".join(f"{NAMES[style]} {value}" for style, value in text.items())

    peer = measured["peer"]
    what = f"{waits} waits"
    return [
        Row(
            f"{what}: tasks that succeeded",
            f"{ours.states.get('success', 0)}",
            beside({style: f"{value.states.get('success', 0)}" for style, value in others.items()}),
            f"{waits}",
            ours.states == {"success": waits},
        ),
        Row(
            f"{what}: worker starts per wait",
            f"{ours.worker_starts / waits:.2f}",
            beside({style: f"{value.worker_starts / waits:.2f}" for style, value in others.items()}),
            "0",
            ours.worker_starts == 0,
        ),
        Row(
            f"{what}: CPU of all Airflow processes per wait",
            f"{seconds(ours.cpu_of_a_wait)} ({times(ours.cpu_of_a_wait / peer.cpu_of_a_wait)} peer-style)",
            beside({style: seconds(value.cpu_of_a_wait) for style, value in others.items()}),
            "at most half of peer-style",
            ours.cpu_of_a_wait <= 0.5 * peer.cpu_of_a_wait,
        ),
        Row(
            f"{what}: throttled calls",
            f"{percent(ours.throttled, ours.calls)} of {ours.calls}",
            beside({s: f"{percent(value.throttled, value.calls)} of {value.calls}" for s, value in others.items()}),
            "under 2 %",
            ours.throttled < 0.02 * ours.calls,
        ),
        Row(
            f"{what}: mean detection",
            seconds(statistics.fmean(ours.delays)),
            beside({style: seconds(statistics.fmean(value.delays)) for style, value in others.items()}),
        ),
        Row(
            f"{what}: last detection (least possible {waits} s)",
            seconds(max(ours.delays)),
            beside({style: seconds(max(value.delays)) for style, value in others.items()}),
        ),
    ]


@contextmanager
def standalone(waits: int, server: Server) -> Iterator[Airflow]:
    """Yield a healthy ``airflow standalone``; nothing of it is left afterwards.

    :param waits: how many its DAGs have.
    :param server: what ``quickbi_default`` leads to.
    """
    settings = airflow_settings(waits) | {
        "PYTHONPATH": str(_ROOT),
        "AIRFLOW_CONN_QUICKBI_DEFAULT": server.connection(),
        "AIRFLOW__CORE__PARALLELISM": str(_PARALLELISM),
    }
    with (
        tempfile.TemporaryDirectory(prefix="quickbi-benchmark-", ignore_cleanup_errors=True) as home,
        Airflow(Path(home), DAGS, settings=settings) as airflow,
    ):
        airflow.start("standalone")
        airflow.wait_until_healthy()
        yield airflow


def airflow_settings(waits: int) -> dict[str, str]:
    """Return the environment that the DAGs of the benchmarks need.

    :param waits: how many each has.
    """
    return {
        "QUICKBI_BENCHMARK_WAITS": str(waits),
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
        "AIRFLOW__LOGGING__FAB_LOGGING_LEVEL": "WARNING",
    }


def styles(api: Api) -> list[str]:
    """Wait until the DAGs are known, and return the kinds of waits that there are."""
    deadline = time.monotonic() + 180
    while True:
        found = {dag["dag_id"].removeprefix("whole_") for dag in api.get("/dags?limit=100")["dags"]}
        if {"ours", "peer"} <= found:
            return [style for style in NAMES if style in found]
        if time.monotonic() > deadline:
            raise TimeoutError(f"The DAGs are not parsed: {api.get('/importErrors')}")
        time.sleep(1)


def measure(airflow: Airflow, api: Api, server: Server, style: str, waits: int) -> Measured:
    """Run one DAG and measure it.

    :param airflow: in which it runs.
    :param api: of that Airflow.
    :param server: what it polls.
    :param style: kind of waits.
    :param waits: how many.
    """
    time.sleep(10)  # what came before it settles
    cpu = _cpu_seconds(airflow)
    time.sleep(_IDLE_SECONDS)
    idle_rate = (_cpu_seconds(airflow) - cpu) / _IDLE_SECONDS
    calls, throttled = server.status_calls()
    cpu, starts, begun = _cpu_seconds(airflow), _worker_starts(airflow), time.time()
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    dag_run = api.post(f"/dags/whole_{style}/dagRuns", {"logical_date": None, "conf": {"since": since}})
    path = f"/dags/whole_{style}/dagRuns/{quote(dag_run['dag_run_id'], safe='')}"
    time.sleep(max(0.0, begun + _SENT_AFTER - time.time()))
    sent_at = time.time()
    server.end_all_runs()
    while (state := api.get(path)["state"]) not in ("success", "failed"):
        if time.time() > begun + _TIMEOUT:
            raise TimeoutError(f"{style} was {state} after {_TIMEOUT:.0f} s")
        time.sleep(2)
    ended_at = time.time()
    cpu = _cpu_seconds(airflow) - cpu
    tasks = _tasks(api, path)
    states: dict[str, int] = {}
    for task in tasks:
        states[str(task["state"])] = states.get(str(task["state"]), 0) + 1
    now_calls, now_throttled = server.status_calls()
    return Measured(
        waits,
        states,
        _worker_starts(airflow) - starts,
        cpu,
        idle_rate * (ended_at - begun),
        now_calls - calls,
        now_throttled - throttled,
        [datetime.fromisoformat(task["end_date"]).timestamp() - sent_at for task in tasks],
    )


def _tasks(api: Api, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = api.get(f"{path}/taskInstances?limit=100&offset={len(found)}")
        found += page["task_instances"]
        if not page["task_instances"] or len(found) >= page["total_entries"]:
            return found


def _cpu_seconds(airflow: Airflow) -> float:
    """Return the CPU time of all processes, those that have ended included: their parents have it."""
    total = 0.0
    for process in airflow.processes():
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def _worker_starts(airflow: Airflow) -> int:
    """Return how many task processes have registered with the API server so far."""
    return sum(len(_WORKER_START.findall(program.log.read_text(errors="replace"))) for program in airflow.programs)
