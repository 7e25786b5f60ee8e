"""A connection that is only in Airflow's metadata database, as most users keep theirs."""

from __future__ import annotations

import json

import pytest

from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

CONN_ID = "quickbi_in_database"


@pytest.fixture(autouse=True)
def _in_database(airflow, quickbi, monkeypatch):
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    monkeypatch.delenv("AIRFLOW_CONN_QUICKBI_DEFAULT")
    parts = quickbi.connection(status_calls_per_second=1000, read_timeout=5)
    extra = json.dumps(parts.pop("extra"))
    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id == CONN_ID).delete()
        session.add(Connection(conn_id=CONN_ID, extra=extra, **parts))
    yield
    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id == CONN_ID).delete()


def test_a_sensor_finds_it_in_every_mode(airflow, quickbi, sensor, run_of, at_poll):
    quickbi.add_mail_task("Report", mail_id="report")
    task_id = quickbi.add_run("report", status="PROCESSING")
    at_poll("report", 3, lambda: quickbi.finish_run(task_id))

    ran = airflow.run(lambda: sensor("report", quickbi_conn_id=CONN_ID, unreachable_timeout=3))

    assert ran.states == {"report": "success"}, ran.log
    assert ran.xcoms() == {"report": run_of("report")}
    assert ran.notified("does not exist") == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_operator_that_sends_finds_it(airflow, quickbi, deferrable):
    quickbi.add_mail_task("Report", mail_id="report")
    quickbi.set_manual_start("report", duration=0.5)

    ran = airflow.run(
        lambda: QuickBIRunMailTaskOperator(
            task_id="send",
            mail_id="report",
            quickbi_conn_id=CONN_ID,
            deferrable=deferrable,
            poll_interval=0.1,
            unreachable_timeout=3,
        )
    )

    assert ran.states == {"send": "success"}, ran.log
    assert quickbi.starts("report") == 1
    assert ran.notified("does not exist") == []


def test_an_asynchronous_task_finds_it(airflow, quickbi, airflow_version):
    if airflow_version < (3, 2):
        pytest.skip("asynchronous tasks exist since Airflow 3.2")
    quickbi.add_mail_task("Report", mail_id="report")
    task_id = quickbi.add_run("report", status="SENT")

    ran = airflow.run_source(f"""
from datetime import datetime, timezone
from airflow.sdk import dag, task
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

@dag(dag_id="asynchronous", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))
def asynchronous():
    @task
    async def latest():
        async with QuickBIHook({CONN_ID!r}).get_async_conn() as client:
            return [run.task_id for run in await client.get_mail_task_status("report")]

    latest()

asynchronous()
""")

    assert ran.states == {"latest": "success"}, ran.log
    assert ran.xcoms() == {"latest": [task_id]}
