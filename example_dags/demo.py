"""``make demo``: Airflow lists, awaits and sends mail tasks of a local Quick BI, and tells what happens."""

from __future__ import annotations

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

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
DAG_FILE = Path(__file__).with_name("quickbi_demo.py")
LIMIT_SECONDS = 240

SALES, BOARD = "daily-sales", "board-report"
#: What Airflow's log says -> what a person wants to know.
_LOG = re.compile(
    r"\]\s+(?P<text>.*?)\s+\[airflow\.task\.operators|\]\s+(?P<print>(?:archive|refresh|notify)_\w+.*?)\s+\["
)
_ACTIONS = {
    "GetMailTaskList": "which mail tasks are there?",
    "GetMailTaskStatus": "how is {mail}?",
    "ManualRunMailTask": "send {mail}!",
}


class Story:
    """Tells what happens, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    def notify(self, who: str, what: str) -> None:
        """Print a line.

        :param who: acts.
        :param what: happens.
        """
        with self._lock:
            print(f"{time.monotonic() - self._begun:6.1f} s  {who:<9} {what}", flush=True)


def main() -> int:
    """Run the demo and return its exit status: 0 only if both deliveries were really observed."""
    story = Story()
    airflow = str(Path(sys.executable).with_name("airflow"))
    environment = _environment()
    if not (HOME / "airflow.db").exists():
        story.notify("Airflow", "makes its database (only the first time)")
        subprocess.run(  # noqa: S603 - our own Airflow
            [airflow, "db", "migrate"], env=environment, check=True, capture_output=True, timeout=LIMIT_SECONDS
        )
    (HOME / "dags").mkdir(exist_ok=True)
    copyfile(DAG_FILE, HOME / "dags" / DAG_FILE.name)

    with LocalQuickBI() as quickbi:
        since = _set_the_scene(quickbi)
        environment["AIRFLOW_CONN_QUICKBI_DEFAULT"] = quickbi.connection_uri_json(status_calls_per_second=20)
        story.notify("Quick BI", f"runs at {quickbi.url} with 3 mail tasks; yesterday's daily-sales is SENT")
        story.notify("Airflow", "runs the DAG quickbi_demo; it takes some seconds to start")
        quickbi.when_called(None, _teller(story, quickbi))
        status = _run_dag(airflow, environment, since, story)
        delivered = [run for run in quickbi.runs(SALES) if run["status"] == "SENT"]
        poller, starts = quickbi.mails_sent(BOARD), quickbi.starts(BOARD)
        if status == 0 and len(delivered) == 2 and poller == 1 and starts == 1 and _went_on():
            print("\nBoth reports were delivered before anything went on, and the board got its mail once:")
            print("a worker was lost after sending, and the retry joined the run instead of sending again.")
            return 0
        print(f"\nThe deliveries were not observed (Airflow's exit status {status}, mails {poller}, starts {starts}).")
        print(f"Airflow's log: {(HOME / 'airflow.log').relative_to(ROOT)}")
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
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }


def _set_the_scene(quickbi: LocalQuickBI) -> datetime:
    """Make mail tasks and yesterday's run; today's run begins when somebody asks for it, and takes some seconds."""
    now = datetime.now(UTC).replace(microsecond=0)
    quickbi.add_mail_task("Daily sales", mail_id=SALES, owner="Wang Fang")
    quickbi.add_mail_task("董事会月报", mail_id=BOARD, owner="Li Lei")
    quickbi.add_mail_task("Stock levels", mail_id="stock-levels", owner="Wang Fang", paused=True)
    quickbi.add_run(SALES, exec_time=now - timedelta(days=1), status="SENT")
    quickbi.set_manual_start(BOARD, duration=6, outcome="SENT")

    def begin(_call: Call) -> None:
        quickbi.add_run(SALES, duration=4, outcome="SENT")

    quickbi.when_called("GetMailTaskList", begin, nth=1)
    return now - timedelta(hours=1)


def _teller(story: Story, quickbi: LocalQuickBI) -> Callable[[Call], None]:
    asked: dict[str, str] = {}

    def notify(call: Call) -> None:
        mail = call.mail_id or ""
        states = ", ".join(run["status"] for run in quickbi.runs(mail)[-1:]) if mail else ""
        line = _ACTIONS.get(call.action, call.action).format(mail=mail)
        if asked.get(call.action + mail) != states or not mail:
            story.notify("Quick BI", f"is asked: {line}{' It is ' + states + '.' if states else ''}")
        asked[call.action + mail] = states

    return notify


def _run_dag(airflow: str, environment: dict[str, str], since: datetime, story: Story) -> int:
    """Run the DAG in Airflow, telling what its log says, and return Airflow's exit status."""
    command = [airflow, "dags", "test", "quickbi_demo", "--conf", f'{{"since": "{since.isoformat()}"}}']
    with (
        (HOME / "airflow.log").open("w", encoding="utf-8") as log,
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
                found = _LOG.search(line)
                if found and not found[0].startswith("] Done."):
                    story.notify("Airflow", (found["text"] or found["print"]).strip())
                elif "RuntimeError: the worker is lost" in line:
                    story.notify("Airflow", "the worker is lost: the mail is on its way, and nobody waits for it")
            return process.wait(LIMIT_SECONDS)
        finally:
            stop.cancel()
            _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """Leave no process behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _went_on() -> bool:
    log = (HOME / "airflow.log").read_text(encoding="utf-8")
    return "archive_report goes on" in log and "notify_board goes on" in log


if __name__ == "__main__":
    sys.exit(main())
