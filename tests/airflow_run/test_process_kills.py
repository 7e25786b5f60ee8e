"""Processes are killed for real: a worker during its call or while it waits, and a triggerer while it waits."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_quickbi.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Real seconds that anything may take.
LIMIT = 30.0
MAIL = "daily-sales"


class Processes:
    """Forks processes that run a leg of a try or a trigger.

    :param server: of ``processes.py``.
    :param folder: for what they find out.
    """

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self._jobs, self._pids = server.stdin, server.stdout
        self._folder = folder
        self._numbers = itertools.count(1)
        self.connection = ""

    def begin(self, **job: Any) -> Process:
        response = self._folder / f"{next(self._numbers)}.json"
        job |= {"connection": self.connection, "response": str(response)}
        print(json.dumps(job), file=self._jobs, flush=True)
        return Process(int(self._pids.readline()), response)


class Process:
    """A process that can be killed.

    :param pid: its id.
    :param answer: the file into which it writes its result.
    """

    def __init__(self, pid: int, response: Path) -> None:
        self.pid = pid
        self.response = response

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def outcome(self) -> dict[str, Any]:
        """Wait for its end and return what it found out."""
        outcome = self.ended()
        assert outcome is not None, "the process was killed"
        return outcome

    def ended(self) -> dict[str, Any] | None:
        """Wait for its end; ``None`` if it was killed."""
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            if self.response.exists():
                return dict(json.loads(self.response.read_text()))
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return dict(json.loads(self.response.read_text())) if self.response.exists() else None
            time.sleep(0.01)
        self.kill()
        raise AssertionError("the process did not end")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    script = Path(__file__).with_name("processes.py")
    log = tmp_path_factory.mktemp("processes")
    with (
        (log / "log.txt").open("w") as errors,
        subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if line.strip() == "ready":
                    break
            else:
                raise AssertionError((log / "log.txt").read_text()[-2000:])
            yield Processes(server, log)
        finally:
            server.stdin.close()
            server.terminate()
            server.wait(LIMIT)


@pytest.fixture
def processes(server: Processes, quickbi: Any) -> Processes:
    server.connection = quickbi.connection_json(status_calls_per_second=1000)
    quickbi.add_mail_task("Daily sales", mail_id=MAIL, run_duration=1e6)
    quickbi.add_run(MAIL, exec_time="2026-01-01T08:00:00")
    return server


@pytest.fixture(params=[True, False], ids=["recorded", "unrecorded"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """A try of a task whose waits are short."""
    return {
        "kind": "worker",
        "store": str(tmp_path / "store.json") if request.param else "",
        "try_number": 1,
        "dag_run_started": datetime.now(UTC).isoformat(),
        "arguments": {
            "mail_id": MAIL, "poll_interval": 0.05, "start_timeout": 1, "timeout": LIMIT, "deferrable": False
        },
    }  # fmt: skip


def kill_when_called(quickbi: Any, action: str, nth: int, victim: list[Process], fault: Fault | None = None) -> None:
    """Kill a process at its nth call; the call is carried out all the same unless there is a fault."""

    def kill(call: Any) -> Fault | None:
        while not victim:
            time.sleep(0.001)
        victim[0].kill()
        return fault

    quickbi.when_called(action, kill, nth=nth)


def finish_when_called(quickbi: Any, task_id: str) -> None:
    quickbi.when_called("GetMailTaskStatus", lambda call: quickbi.finish_run(task_id), nth=1)


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "held"])
def test_a_worker_killed_while_its_call_is_in_flight_has_sent_one_mail_and_the_retry_attaches_to_it(
    deferrable: bool, processes: Processes, job: Any, quickbi: Any
) -> None:
    job["arguments"]["deferrable"] = deferrable
    victim: list[Process] = []
    kill_when_called(quickbi, "ManualRunMailTask", 1, victim)
    victim.append(processes.begin(**job))
    assert victim[0].ended() is None
    until = time.monotonic() + LIMIT
    while quickbi.starts(MAIL) == 0:
        assert time.monotonic() < until
        time.sleep(0.01)
    run = quickbi.runs(MAIL)[-1]
    quickbi.finish_run(run["task_id"])
    outcome = processes.begin(**job | {"try_number": 2}).outcome()
    assert outcome["result"] == {"mail_id": MAIL, **{key: run[key] for key in ("task_id", "exec_time")}} | {
        "status": "SENT"
    }
    assert quickbi.starts(MAIL) == 1


def test_a_worker_killed_while_its_call_is_lost_has_sent_nothing_and_the_retry_sends_one(
    processes: Processes, job: Any, quickbi: Any
) -> None:
    victim: list[Process] = []
    kill_when_called(quickbi, "ManualRunMailTask", 1, victim, Fault.reset())
    victim.append(processes.begin(**job))
    assert victim[0].ended() is None
    quickbi.set_manual_start(MAIL, duration=0)
    outcome = processes.begin(**job | {"try_number": 2}).outcome()
    assert outcome["result"]["status"] == "SENT"
    assert quickbi.starts(MAIL) == 1


def test_a_worker_killed_while_it_waits_is_followed_by_one_that_attaches_to_the_same_run(
    processes: Processes, job: Any, quickbi: Any
) -> None:
    victim: list[Process] = []
    kill_when_called(quickbi, "GetMailTaskStatus", 4, victim)
    victim.append(processes.begin(**job))
    assert victim[0].ended() is None
    run = quickbi.runs(MAIL)[-1]
    finish_when_called(quickbi, run["task_id"])
    outcome = processes.begin(**job | {"try_number": 2}).outcome()
    assert outcome["result"]["task_id"] == run["task_id"]
    assert quickbi.starts(MAIL) == 1


def test_a_triggerer_killed_while_it_waits_is_followed_by_one_that_waits_for_the_same_run(
    processes: Processes, job: Any, quickbi: Any
) -> None:
    job["arguments"]["deferrable"] = True
    path, arguments = processes.begin(**job).outcome()["trigger"]
    run = quickbi.runs(MAIL)[-1]
    assert quickbi.starts(MAIL) == 1
    victim: list[Process] = []
    kill_when_called(quickbi, "GetMailTaskStatus", 3, victim)
    victim.append(processes.begin(kind="trigger", path=path, arguments=arguments))
    assert victim[0].ended() is None
    finish_when_called(quickbi, run["task_id"])
    event = processes.begin(kind="trigger", path=path, arguments=arguments).outcome()["event"]
    outcome = processes.begin(**job, event=event).outcome()
    assert outcome["result"]["task_id"] == run["task_id"]
    assert outcome["result"]["status"] == "SENT"
    assert quickbi.starts(MAIL) == 1
