"""``make demo``: Airflow lists, refreshes, sends and awaits what a local Quick BI has, and every step is printed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING

from airflow_provider_quickbi.testing import LocalQuickBI

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.testing import Call
    from airflow_provider_quickbi.testing.datasets import DatasetStore

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
LOG = HOME / "airflow.log"
DAG_FILE = Path(__file__).parent / "dags" / "quickbi_demo.py"
LIMIT_SECONDS = 240

SALES, BOARD, FIGURES = "daily-sales", "board-report", "board-figures"
#: The tasks that must not run before a report is sent.
DOWNSTREAM = frozenset({"archive_report", "notify_board"})
#: What the provider logs, with the name of its logger.
_PROVIDER_LINE = re.compile(
    r"\[info +\]\s+(?P<text>.*?)\s+\[(?:airflow\.task\.operators\.(?!airflow\.)|airflow_provider_quickbi)"
)
#: What the DAG's own tasks print, and why its first try to send fails.
_TASK_LINE = re.compile(r"^(?P<task>archive_report|notify_board): (?P<text>.*)")
_WORKER_LOSS = re.compile(r"RuntimeError: (?P<text>Simulated worker loss.*)")


class Transcript:
    """Prints what happens, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._last = ("", "")

    def add(self, who: str, what: str) -> None:
        """Print a line, unless it repeats the last one of the same actor.

        :param who: the actor.
        :param what: what it does.
        """
        with self._lock:
            if (who, what) != self._last:
                print(f"{time.monotonic() - self._started:6.1f} s  {who:<14} {what}", flush=True)
            self._last = (who, what)


def main() -> int:
    """Run the demo and return its exit status: 0 only if both reports were sent once and downstream work followed."""
    transcript = Transcript()
    airflow = str(Path(sys.executable).with_name("airflow"))
    environment = _environment()
    if not (HOME / "airflow.db").exists():
        transcript.add("Airflow", "creates its database, the first time only")
        subprocess.run(  # noqa: S603 - our own Airflow
            [airflow, "db", "migrate"], env=environment, check=True, capture_output=True, timeout=LIMIT_SECONDS
        )
    (HOME / "dags").mkdir(exist_ok=True)
    copyfile(DAG_FILE, HOME / "dags" / DAG_FILE.name)

    with LocalQuickBI() as quickbi:
        since = _add_mail_tasks(quickbi)
        datasets = quickbi.datasets
        datasets.add("董事会数据", dataset_id=FIGURES)
        datasets.set_start(FIGURES, duration=4)
        environment["AIRFLOW_CONN_QUICKBI_DEFAULT"] = json.dumps(quickbi.connection(status_calls_per_second=20))
        transcript.add("Quick BI", f"listens on {quickbi.url} with 3 mail tasks and 1 dataset; yesterday's run is SENT")
        transcript.add("Airflow", "runs the DAG quickbi_demo; loading it takes some seconds")
        quickbi.when_called(None, _recorder(transcript, quickbi, datasets))
        status, finished = _run_dag(airflow, environment, since, transcript)
        sales, board, starts = quickbi.mails_sent(SALES), quickbi.mails_sent(BOARD), quickbi.starts(BOARD)
        (figures,) = datasets.runs(FIGURES) or [{"ended_at": None}]
        fresh = figures["ended_at"] is not None and figures["ended_at"] <= quickbi.runs(BOARD)[0]["exec_time"]
    if (status, sales, board, starts, fresh) == (0, 2, 1, 1, True) and finished >= DOWNSTREAM:
        print("\nBoth reports were sent before downstream work started. The board's figures were refreshed first,")
        print("and the board got its mail once: a worker was lost after sending, and the retry attached to the run.")
        return 0
    missing = ", ".join(sorted(DOWNSTREAM - finished)) or "none"
    print(f"\nFailed: exit status {status}, board mails {board}, starts {starts}, missing downstream tasks: {missing}.")
    print(f"Airflow's log: {LOG.relative_to(ROOT)}")
    return 1


def _environment() -> dict[str, str]:
    HOME.mkdir(exist_ok=True)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))},
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "NO_COLOR": "1",
        # Quick BI and Airflow's own API listen on loopback, which no proxy can reach.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }


def _add_mail_tasks(quickbi: LocalQuickBI) -> datetime:
    """Add mail tasks and yesterday's run; today's starts with the first request, so that there is something to await.

    :param quickbi: where to add them.
    :returns: an instant between both runs.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    quickbi.add_mail_task("Daily sales", mail_id=SALES, owner="Wang Fang")
    quickbi.add_mail_task("董事会月报", mail_id=BOARD, owner="Li Lei")
    quickbi.add_mail_task("Stock levels", mail_id="stock-alert", owner="Wang Fang", paused=True)
    quickbi.add_run(SALES, exec_time=now - timedelta(days=1), status="SENT")
    quickbi.set_manual_start(BOARD, duration=6, outcome="SENT")

    def start_run(_call: Call) -> None:
        quickbi.add_run(SALES, duration=4, outcome="SENT")

    quickbi.when_called("GetMailTaskList", start_run, nth=1)
    return now - timedelta(hours=1)


def _recorder(transcript: Transcript, quickbi: LocalQuickBI, datasets: DatasetStore) -> Callable[[Call], None]:
    """Return a callback that prints each request whose response differs from the last one to the same request."""
    known: dict[str, str] = {}

    def record(call: Call) -> None:
        dataset_id = call.params.get("CubeId")
        subject_id = call.mail_id or dataset_id or ""
        runs = datasets.runs(dataset_id) if dataset_id else quickbi.runs(subject_id) if subject_id else []
        status = str(runs[-1]["status"]) if runs else "no run yet"
        request = f"{call.action} {subject_id}".strip()
        if call.action not in ("GetMailTaskStatus", "QueryLastAccelerationEngineJob"):
            transcript.add("Quick BI", f"receives {request}")
        elif known.get(request) != status:
            transcript.add("Quick BI", f"receives {request}, responds: {status}")
        known[request] = status

    return record


def _run_dag(
    airflow: str, environment: dict[str, str], since: datetime, transcript: Transcript
) -> tuple[int, frozenset[str]]:
    """Run the DAG in Airflow and print what its log says.

    :returns: Airflow's exit status, and the tasks of the DAG's own that did their work.
    """
    command = [airflow, "dags", "test", "quickbi_demo", "--conf", json.dumps({"since": since.isoformat()})]
    finished: set[str] = set()
    with (
        LOG.open("w", encoding="utf-8") as log,
        subprocess.Popen(  # noqa: S603 - our own Airflow
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        ) as process,
    ):
        stop = threading.Timer(LIMIT_SECONDS, _kill, [process])
        stop.start()
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            for line in process.stdout:
                log.write(line)
                if printed := _TASK_LINE.search(line):
                    finished.add(printed["task"])
                    transcript.add(printed["task"], printed["text"])
                elif logged := _PROVIDER_LINE.search(line) or _WORKER_LOSS.search(line):
                    transcript.add("Airflow", logged["text"])
            return process.wait(LIMIT_SECONDS), frozenset(finished)
        finally:
            stop.cancel()
            _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """Leave no process behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
