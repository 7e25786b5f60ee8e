"""The run operator in Airflow itself: its note is in Airflow's own store, survives a retry, and is gone at the end."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_quickbi._send.store import RECORD_KEY
from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

MAIL = "daily-sales"
AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])

pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")
needs_store = pytest.mark.skipif(AIRFLOW < (3, 3), reason="task_state_store came with Airflow 3.3")

DAG_FILE = """
from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

with DAG("{dag_id}", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    QuickBIRunMailTaskOperator(task_id="send", retry_delay=timedelta(0), **{arguments!r})
"""


@pytest.fixture(scope="session")
def dags() -> Path:
    """The DAGs folder of a migrated Airflow."""
    from airflow.utils import db

    db.initdb()
    folder = Path(os.environ["AIRFLOW_HOME"]) / "dags"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reads be tried again as often as ever, but at once."""
    attempts, *_ = RetryPolicy.__init__.__defaults__
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (attempts, 0.001, 0.002))


@pytest.fixture
def parse(dags: Path, quickbi: Any, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Parse a DAG with one task that sends the mail."""
    quickbi.add_mail_task("Daily sales", mail_id=MAIL)
    quickbi.add_run(MAIL, exec_time="2026-01-01T08:00:00")

    def parse(**arguments: Any) -> Any:
        try:
            from airflow.dag_processing.dagbag import DagBag
        except ImportError:
            from airflow.models.dagbag import DagBag
        dag_id = request.node.name.partition("[")[0] + str(arguments["deferrable"])
        for old in dags.glob("*.py"):
            old.unlink()
        file = dags / f"{dag_id}.py"
        file.write_text(
            DAG_FILE.format(dag_id=dag_id, arguments={"mail_id": MAIL, "poll_interval": 0.05, "retries": 3} | arguments)
        )
        bag = DagBag(file)
        assert not bag.import_errors, bag.import_errors
        return bag.dags[dag_id]

    return parse


def task_instance(dag: Any) -> Any:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        (found,) = session.query(TaskInstance).filter(TaskInstance.dag_id == dag.dag_id)
        session.expunge(found)
        return found


def notes(dag: Any) -> list[Any]:
    """Return the notes of starts that the task has not come to an end with, read from Airflow's database."""
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
    deferrable: bool, parse: Any, quickbi: Any
) -> None:
    dag = parse(deferrable=deferrable, retries=1)
    quickbi.set_manual_start(MAIL, duration=0)
    calls: list[Any] = []

    def audit(context: Any, result: Any = None) -> None:
        calls.append(result)
        if len(calls) == 1:
            raise RuntimeError("the audit database is away")

    dag.get_task("send")._post_execute_hook = audit
    dag.test()
    ran = task_instance(dag)
    assert (ran.state, ran.try_number, quickbi.starts(MAIL)) == ("success", 2, 1)
    assert len(calls) == 2


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "held"])
def test_a_retry_after_a_lost_try_joins_the_run(deferrable: bool, parse: Any, quickbi: Any) -> None:
    """The first try ends when it can no longer ask what became of its start."""
    dag = parse(deferrable=deferrable, unreachable_timeout=0)
    seen: list[Any] = []

    def lose(call: Any) -> Fault:
        quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=1 if deferrable else 5)
        return Fault.answer_lost()

    def poll_once(call: Any) -> None:
        if AIRFLOW >= (3, 3) and quickbi.count("ManualRunMailTask"):
            seen.extend(notes(dag))

    quickbi.when_called("ManualRunMailTask", lose, nth=1)
    quickbi.when_called("GetMailTaskStatus", poll_once)
    dag.test()
    ran = task_instance(dag)
    assert (ran.state, ran.try_number) == ("success", 2)
    assert quickbi.starts(MAIL) == 1
    if AIRFLOW >= (3, 3):
        assert seen
        assert all(MAIL in str(record) for record in seen)
        assert notes(dag) == []


@needs_store
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "held"])
def test_clearing_a_task_that_was_successful_sends_a_new_mail(deferrable: bool, parse: Any, quickbi: Any) -> None:
    from airflow.models.taskinstance import TaskInstance, clear_task_instances
    from airflow.sdk.definitions.dag import _run_task
    from airflow.utils.session import create_session

    dag = parse(deferrable=deferrable)
    quickbi.set_manual_start(MAIL, appears_after=0.1, duration=0.1)
    dag.test()
    assert (task_instance(dag).state, quickbi.starts(MAIL)) == ("success", 1)
    assert notes(dag) == []
    with create_session() as session:
        clear_task_instances(session.query(TaskInstance).filter(TaskInstance.dag_id == dag.dag_id).all(), session)
    with create_session() as session:
        (again,) = session.query(TaskInstance).filter(TaskInstance.dag_id == dag.dag_id)
        again.try_number += 1
        session.flush()
        _run_task(ti=again, task=dag.get_task("send"), run_triggerer=True)
    assert (task_instance(dag).state, quickbi.starts(MAIL)) == ("success", 2)
    assert notes(dag) == []


@needs_store
def test_a_run_that_failed_leaves_no_note(parse: Any, quickbi: Any) -> None:
    dag = parse(deferrable=True)
    quickbi.set_manual_start(MAIL, appears_after=0.1, duration=0.1, outcome="FAILED")
    dag.test()
    ran = task_instance(dag)
    assert (ran.state, ran.try_number, quickbi.starts(MAIL)) == ("failed", 1, 1)
    assert notes(dag) == []
