"""Where a deferred wait starts and ends: no worker start if none is needed, and never more than two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from airflow_provider_quickbi._airflow import triggers_start_tasks
from tests.live.runs import Run, RunWhileWatched, worker_starts

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.testing import LocalQuickBI
    from dev.standalone import Airflow

#: Below Airflow 3.3, a wait starts and ends on a worker.
TRIGGERS_START_TASKS = triggers_start_tasks()
SENT = ("plain", "named", "two", "outlet", "inlet", "from_worker", "pulled", "off")


@pytest.fixture(scope="module")
def ended(quickbi: LocalQuickBI, trigger: Callable[..., Run]) -> tuple[Run, dict[str, str]]:
    """A DAG run with a sensor of each kind, each of which sees its run start, go on and end."""
    mails = {kind: RunWhileWatched(quickbi, f"live-ending-{kind}") for kind in SENT}
    quickbi.add_mail_task("live-ending-fails", mail_id="live-ending-fails")
    began = datetime.now(UTC).replace(microsecond=0)
    run = trigger("live_ending", {"executed_after": began.isoformat()})
    run.reaches("fails", "deferred")
    quickbi.add_run("live-ending-fails", outcome="FAILED", duration=5)
    run.finish()
    return run, {kind: mail.task_id for kind, mail in mails.items()}


@pytest.mark.parametrize(
    ("kind", "starts"),
    [
        ("plain", 0),
        ("named", 0),
        ("two", 0),
        ("outlet", 1),
        ("inlet", 1),
        ("from_worker", 1),
        ("pulled", 1),
        ("off", 2),
    ],
)
def test_a_wait_takes_as_few_worker_starts_as_it_can(
    kind: str, starts: int, airflow: Airflow, ended: tuple[Run, dict[str, str]]
) -> None:
    run, task_ids = ended
    assert run.states()[kind] == "success", run.describe()
    xcom = run.xcom(kind)
    assert (xcom[0] if kind == "two" else xcom)["task_id"] == task_ids[kind]
    assert run.xcom(f"use_{kind}") == f"run {task_ids[kind]}"
    assert "Quick BI" in run.links(kind)
    assert worker_starts(airflow, run, kind) == (starts if TRIGGERS_START_TASKS else 2), run.describe()


def test_a_task_is_mapped_over_a_list_that_the_triggerer_stored(ended: tuple[Run, dict[str, str]]) -> None:
    run, _ = ended
    assert [task["state"] for task in run.tasks("use_each")] == ["success", "success"], run.describe()


def test_a_failed_run_takes_one_start_and_is_not_retried(airflow: Airflow, ended: tuple[Run, dict[str, str]]) -> None:
    run, _ = ended
    assert run.states()["fails"] == "failed"
    assert [task["try_number"] for task in run.tasks("fails")] == [1]
    assert worker_starts(airflow, run, "fails") == (1 if TRIGGERS_START_TASKS else 2), run.describe()


def test_what_the_triggerer_cannot_render_fails_on_a_worker_with_its_sentence(
    airflow: Airflow, ended: tuple[Run, dict[str, str]]
) -> None:
    run, _ = ended
    assert run.states()["refused"] == "failed"
    assert [task["try_number"] for task in run.tasks("refused")] == [1]
    assert worker_starts(airflow, run, "refused") == 1, run.describe()
