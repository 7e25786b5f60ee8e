"""Where a deferred wait ends: one worker start if the triggerer can end it, and never more than two."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live.runs import Run, RunWhileWatched

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.testing import LocalQuickBI
    from dev.standalone import Airflow

KINDS = ("plain", "fails", "outlet", "off")


@pytest.fixture(scope="module")
def ended(quickbi: LocalQuickBI, trigger: Callable[..., Run]) -> tuple[Run, dict[str, str]]:
    """A DAG run with a sensor of each kind, each of which sees its run start, go on and end."""
    mails = {kind: RunWhileWatched(quickbi, f"live-ending-{kind}") for kind in KINDS if kind != "fails"}
    quickbi.add_mail_task("live-ending-fails", mail_id="live-ending-fails")
    began = datetime.now(UTC).replace(microsecond=0)
    run = trigger("live_ending", {"executed_after": began.isoformat()})
    run.reaches("fails", "deferred")
    quickbi.add_run("live-ending-fails", outcome="FAILED", duration=5)
    run.finish()
    return run, {kind: mail.task_id for kind, mail in mails.items()}


def worker_starts(airflow: Airflow, run: Run, task_id: str) -> int:
    """Count the worker processes that a task took: each starts its log with where it runs."""
    folder = Path(airflow.home, "logs", f"dag_id={run.dag_id}", f"run_id={run.run_id}", f"task_id={task_id}")
    lines = [line for log in folder.glob("attempt=*.log") for line in log.read_text().splitlines()]
    return sum(json.loads(line)["event"].startswith("DAG bundles loaded") for line in lines if line.startswith("{"))


@pytest.mark.parametrize(("kind", "starts"), [("plain", 1), ("fails", 2), ("outlet", 2), ("off", 2)])
def test_a_wait_takes_as_few_worker_starts_as_its_end_allows(
    kind: str, starts: int, airflow: Airflow, ended: tuple[Run, dict[str, str]]
) -> None:
    run, task_ids = ended
    assert run.states()[kind] == ("failed" if kind == "fails" else "success"), run.describe()
    if kind != "fails":
        assert run.xcom(kind)["task_id"] == task_ids[kind]
        assert run.xcom(f"use_{kind}") == f"run {task_ids[kind]}"
        assert "Quick BI" in run.links(kind)
    assert worker_starts(airflow, run, kind) == starts, run.describe()
