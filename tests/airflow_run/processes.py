"""Runs legs of a try in processes of their own, which can be killed: reads jobs from standard input, forks for each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi.api import rate_limit, vendor
from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator


class FileStore:
    """A ``task_state_store`` in a file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text())) if self.path.exists() else {}

    def _write(self, kept: dict[str, Any]) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(kept))
        new.replace(self.path)

    def get(self, key: str, default: Any = None) -> Any:
        return self._read().get(key, default)

    def set(self, key: str, value: Any) -> None:
        self._write(self._read() | {key: value})

    def delete(self, key: str) -> None:
        self._write({name: value for name, value in self._read().items() if name != key})


def run_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Run one leg of a try."""
    task_instance = SimpleNamespace(
        task_id="send", try_number=job["try_number"], max_tries=9, xcom_push=lambda key, value: None
    )
    context: Any = {
        "ti": task_instance,
        "dag_run": SimpleNamespace(start_date=datetime.fromisoformat(job["dag_run_started"]).astimezone(UTC)),
    }
    if job["store"]:
        context["task_state_store"] = FileStore(job["store"])
    operator = QuickBIRunMailTaskOperator(task_id="send", retries=9, **job["arguments"])
    try:
        if "event" in job:
            return {"result": operator.execute_complete(context, event=job["event"])}
        return {"result": operator.execute(context)}
    except TaskDeferred as deferred:
        return {"trigger": deferred.trigger.serialize()}
    except Exception as error:  # noqa: BLE001 - goes to the test, which did not expect it
        return {"error": type(error).__name__, "message": str(error)}


def run_trigger(job: dict[str, Any]) -> dict[str, Any]:
    """Run a trigger until its event."""
    module, _, name = job["path"].rpartition(".")
    trigger = getattr(import_module(module), name)(**job["arguments"])

    async def first() -> Any:
        async for event in trigger.run():
            return event.payload
        raise AssertionError("the trigger gave no event")

    return {"event": asyncio.run(first())}


def serve() -> None:
    """Fork for each job; the process's id goes to standard output and what it finds out into the job's file."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    rate_limit.CALLS_PER_SECOND["ManualRunMailTask"] = 1000.0
    aio.FRESH_SECONDS = aio.FIRST_POLL_SECONDS = 0.0
    vendor.signing()
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if pid := os.fork():
            print(pid, flush=True)
            continue
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what is logged is no result
        os.environ["AIRFLOW_CONN_QUICKBI_DEFAULT"] = job["connection"]
        outcome = run_trigger(job) if job["kind"] == "trigger" else run_worker(job)
        response = Path(job["response"])
        response.with_suffix(".new").write_text(json.dumps(outcome))
        response.with_suffix(".new").replace(response)
        os._exit(0)


if __name__ == "__main__":
    serve()
