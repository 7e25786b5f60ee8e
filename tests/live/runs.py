"""DAG runs of a real Airflow, followed through its REST API; every wait has an end."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.testing import Call, LocalQuickBI
    from dev.standalone import Airflow, Api

#: How many seconds a run, or a step of it, may take on a slow machine.
PATIENCE = 150.0
_FINISHED = ("success", "failed")
#: Which state shows that a task waits in its mode.
WAITING = {"poke": "running", "reschedule": "up_for_reschedule", "deferrable": "deferred"}


T = TypeVar("T")


def until(poll_once: Callable[[], T], what: str, *, timeout: float = PATIENCE, explain: Callable[[], str] = str) -> T:
    """Poll until there is something, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := poll_once()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {timeout:g} s: {what}\n{explain()}")
        time.sleep(0.25)
    return found


class Run:
    """A DAG run."""

    def __init__(self, airflow: Airflow, api: Api, dag_id: str, run_id: str) -> None:
        self._airflow = airflow
        self._api = api
        self.dag_id = dag_id
        self.run_id = run_id
        self._path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"

    @classmethod
    def triggered(cls, airflow: Airflow, api: Api, dag_id: str, conf: dict[str, Any] | None = None) -> Run:
        response = api.post(f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf or {}})
        return cls(airflow, api, dag_id, response["dag_run_id"])

    def get(self, name: str) -> str:
        """Return one of the fields that the API has of it."""
        return str(self._api.get(self._path)[name])

    @property
    def state(self) -> str:
        return self.get("state")

    def tasks(self, task_id: str | None = None) -> list[dict[str, Any]]:
        found = self._api.get(f"{self._path}/taskInstances?limit=200")["task_instances"]
        return sorted(
            (task for task in found if task_id in (None, task["task_id"])),
            key=lambda task: (task["task_id"], task["map_index"]),
        )

    def states(self) -> dict[str, str]:
        """Return task id, with its map index if it has one, to state."""
        return {_name(task): str(task["state"]) for task in self.tasks()}

    def reaches(self, task_id: str, state: str) -> None:
        """Wait until a task is in a state."""
        self.sees(lambda: self.states().get(task_id) == state, f"{task_id} is {state}")

    def sees(self, poll_once: Callable[[], T], what: str) -> T:
        """Wait until there is something, which must be before the run has finished."""

        def poll_while_it_runs() -> T:
            finished = self.state in _FINISHED
            found = poll_once()
            assert found or not finished, f"The run finished without: {what}\n{self.describe()}"
            return found

        return until(poll_while_it_runs, what, explain=self.describe)

    def states_until_finished(self) -> dict[str, set[str]]:
        """Wait until the run has finished and return every state in which each task was seen."""
        seen: dict[str, set[str]] = {}

        def poll_once() -> bool:
            for task, state in self.states().items():
                seen.setdefault(task, set()).add(state)
            return self.state in _FINISHED

        until(poll_once, f"{self.dag_id} has finished", explain=self.describe)
        return seen

    def finish(self, timeout: float = PATIENCE) -> str:
        """Wait until the run has finished and return its state."""
        until(lambda: self.state in _FINISHED, f"{self.dag_id} has finished", timeout=timeout, explain=self.describe)
        return self.state

    def succeed(self, timeout: float = PATIENCE) -> None:
        """Wait until the run has finished; it must have succeeded."""
        assert self.finish(timeout) == "success", self.describe()

    def xcom(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        entry = self._api.get(
            f"{self._path}/taskInstances/{task_id}/xcomEntries/{key}?deserialize=true&map_index={map_index}"
        )
        return entry["value"]

    def links(self, task_id: str) -> dict[str, str]:
        links: dict[str, str] = self._api.get(f"{self._path}/taskInstances/{task_id}/links")["extra_links"]
        return links

    def logs(self) -> str:
        """Return the ends of the logs of its tasks, as they lie in Airflow's home."""
        folder = Path(self._airflow.home, "logs", f"dag_id={self.dag_id}", f"run_id={self.run_id}")
        files = sorted(path for path in folder.rglob("*.log*") if path.is_file())
        return "\n".join(f"{path.relative_to(folder)}:\n{_readable(path)}" for path in files)

    def describe(self) -> str:
        return f"{self.dag_id} is {self.state}: {self.states()}\n{self.logs()}"


def _readable(log: Path) -> str:
    lines = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            what = [error["exc_value"] for error in entry.get("error_detail") or []]
            lines.append(" ".join(["   ", entry["timestamp"][11:19], entry["level"], entry["event"], *what]))
        except (ValueError, KeyError, TypeError):
            lines.append(f"    {line}")
    return "\n".join(line for line in lines[-25:] if "group::" not in line)


def _name(task: dict[str, Any]) -> str:
    return str(task["task_id"]) if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]"


def status_calls(quickbi: LocalQuickBI, mail_id: str) -> list[Call]:
    """Return the successful status calls of a mail task, in the order of their numbers."""
    found = [call for call in quickbi.calls if call.action == "GetMailTaskStatus" and call.mail_id == mail_id]
    return sorted((call for call in found if call.code == "OK"), key=lambda call: call.number)


def start_calls(quickbi: LocalQuickBI, mail_id: str) -> list[Call]:
    """Return the calls that were to send a mail, whatever the response."""
    return [call for call in quickbi.calls if call.action == "ManualRunMailTask" and call.mail_id == mail_id]


class RunWhileWatched:
    """A mail task's run that starts after one response about the mail task and ends after two.

    Before, there is only yesterday's run, which must not count. A throttled call does not count.
    """

    def __init__(self, quickbi: LocalQuickBI, mail_id: str) -> None:
        self._quickbi = quickbi
        self._mail_id = quickbi.add_mail_task(mail_id, mail_id=mail_id)
        self._sent_with: int | None = None
        self.task_id = ""
        quickbi.add_run(mail_id, exec_time=datetime.now(UTC) - timedelta(days=1))
        quickbi.when_called("GetMailTaskStatus", self._move_on)

    def _move_on(self, call: Call) -> None:
        responses = len(status_calls(self._quickbi, self._mail_id))
        if call.mail_id != self._mail_id or not responses:
            return
        if not self.task_id:
            self.task_id = self._quickbi.add_run(self._mail_id, status="PROCESSING")
        elif responses > 1 and self._sent_with is None:
            self._quickbi.finish_run(self.task_id)
            self._sent_with = call.number

    @property
    def responses_since_sent(self) -> int:
        """How many status responses there were since the run was ``SENT``."""
        assert self._sent_with is not None, f"{self._mail_id} was not polled often enough"
        return sum(call.number >= self._sent_with for call in status_calls(self._quickbi, self._mail_id))


@dataclass
class Watched:
    """A run in which a sensor of each mode watched a mail of its own."""

    run: Run
    mails: dict[str, RunWhileWatched]
    seen: dict[str, set[str]]


def worker_starts(airflow: Airflow, run: Run, task_id: str) -> int:
    """Count the worker processes that a task took: each begins its log with where it runs."""
    folder = Path(airflow.home, "logs", f"dag_id={run.dag_id}", f"run_id={run.run_id}", f"task_id={task_id}")
    lines = [line for log in folder.glob("attempt=*.log") for line in log.read_text().splitlines()]
    return sum(json.loads(line)["event"].startswith("DAG bundles loaded") for line in lines if line.startswith("{"))
