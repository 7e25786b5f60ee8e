"""The run operator in Airflow: its start record is in Airflow's own store, survives a retry, and ends as finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_quickbi._send.store import RECORD_KEY
from airflow_provider_quickbi.testing import Fault

MAIL = "daily-sales"


@pytest.fixture
def has_store(airflow_version: tuple[int, ...]) -> bool:
    """Whether this Airflow keeps the record of a start: ``task_state_store`` came with Airflow 3.3."""
    return airflow_version >= (3, 3)


@pytest.fixture
def _needs_store(has_store: bool) -> None:
    if not has_store:
        pytest.skip("task_state_store came with Airflow 3.3")


@pytest.fixture
def parse(airflow: Any, quickbi: Any) -> Callable[..., Any]:
    """Parse a DAG with one task that sends the mail."""
    quickbi.add_mail_task("Daily sales", mail_id=MAIL)
    quickbi.add_run(MAIL, exec_time="2026-01-01T08:00:00")

    def parse(**arguments: Any) -> Any:
        from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

        given: dict[str, Any] = {
            "mail_id": MAIL,
            "poll_interval": 0.05,
            "retries": 3,
            "retry_delay": timedelta(0),
        } | arguments
        return airflow.parse(lambda: QuickBIRunMailTaskOperator(task_id="send", **given))

    return parse


def unfinished(dag: Any) -> list[Any]:
    """Return the start records that the task has not finished, read from Airflow's database."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(TaskStateStoreModel).filter(TaskStateStoreModel.dag_id == dag.dag_id)
        kept = [
            json.loads(row.value) if isinstance(row.value, str) else row.value for row in rows if row.key == RECORD_KEY
        ]
        return [record for record in kept if not record["finished"]]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "held"])
def test_a_hook_that_fails_after_the_mail_was_sent_does_not_send_it_again(
    deferrable: bool, parse: Any, airflow: Any, quickbi: Any
) -> None:
    dag = parse(deferrable=deferrable, retries=1)
    quickbi.set_manual_start(MAIL, duration=0)
    calls: list[Any] = []

    def audit(context: Any, result: Any = None) -> None:
        calls.append(result)
        if len(calls) == 1:
            raise RuntimeError("the audit database is away")

    dag.get_task("send")._post_execute_hook = audit
    ran = airflow.run_parsed(dag)
    assert (ran.states["send"], ran.tries["send"], quickbi.starts(MAIL)) == ("success", 2, 1)
    assert len(calls) == 2


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "held"])
def test_a_retry_after_a_lost_try_attaches_to_the_run(
    deferrable: bool, parse: Any, airflow: Any, quickbi: Any, has_store: bool
) -> None:
    """The first try ends when it can no longer poll what became of its start."""
    dag = parse(deferrable=deferrable, unreachable_timeout=0)
    seen: list[Any] = []

    def lose(call: Any) -> Fault:
        quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=1 if deferrable else 5)
        return Fault.answer_lost()

    def poll_once(call: Any) -> None:
        if has_store and quickbi.count("ManualRunMailTask"):
            seen.extend(unfinished(dag))

    quickbi.when_called("ManualRunMailTask", lose, nth=1)
    quickbi.when_called("GetMailTaskStatus", poll_once)
    ran = airflow.run_parsed(dag)
    assert (ran.states["send"], ran.tries["send"]) == ("success", 2)
    assert quickbi.starts(MAIL) == 1
    if has_store:
        assert seen
        assert all(MAIL in str(record) for record in seen)
        assert unfinished(dag) == []


@pytest.mark.usefixtures("_needs_store")
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "held"])
def test_clearing_a_task_that_was_successful_sends_a_new_mail(
    deferrable: bool, parse: Any, airflow: Any, quickbi: Any
) -> None:
    from airflow.models.taskinstance import TaskInstance, clear_task_instances
    from airflow.sdk.definitions.dag import _run_task
    from airflow.utils.session import create_session

    dag = parse(deferrable=deferrable)
    quickbi.set_manual_start(MAIL, appears_after=0.1, duration=0.1)
    assert (airflow.run_parsed(dag).states["send"], quickbi.starts(MAIL)) == ("success", 1)
    assert unfinished(dag) == []
    with create_session() as session:
        clear_task_instances(session.query(TaskInstance).filter(TaskInstance.dag_id == dag.dag_id).all(), session)
    with create_session() as session:
        (again,) = session.query(TaskInstance).filter(TaskInstance.dag_id == dag.dag_id)
        again.try_number += 1
        session.flush()
        _run_task(ti=again, task=dag.get_task("send"), run_triggerer=True)
    assert (airflow.outcome(dag).states["send"], quickbi.starts(MAIL)) == ("success", 2)
    assert unfinished(dag) == []


@pytest.mark.usefixtures("_needs_store")
def test_a_run_that_failed_leaves_no_unfinished_record(parse: Any, airflow: Any, quickbi: Any) -> None:
    dag = parse(deferrable=True)
    quickbi.set_manual_start(MAIL, appears_after=0.1, duration=0.1, outcome="FAILED")
    ran = airflow.run_parsed(dag)
    assert (ran.states["send"], ran.tries["send"], quickbi.starts(MAIL)) == ("failed", 1, 1)
    assert unfinished(dag) == []
