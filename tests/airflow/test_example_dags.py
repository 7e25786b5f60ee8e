"""The example DAGs: they parse anywhere, and do what they say."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "example_dags"
SHOWN = {
    "quickbi_list_and_wait": {"list_mail_tasks", "report_sent"},
    "quickbi_send_report": {"refresh", "send_report", "notify"},
    "quickbi_wait_for_scheduled_report": {"report_sent", "archive"},
}


@pytest.fixture
def no_network(monkeypatch):
    """Let every attempt to reach anything fail, and leave no connection to Quick BI."""

    def refuse(*args):
        raise AssertionError(f"a DAG file reaches for the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("AIRFLOW_CONN_QUICKBI_DEFAULT", raising=False)


def test_the_examples_parse_without_a_network_and_without_quick_bi(airflow, no_network):
    bag = airflow.bag(EXAMPLES)

    assert bag.import_errors == {}
    for dag_id, task_ids in SHOWN.items():
        assert set(bag.dags[dag_id].task_ids) == task_ids


@pytest.mark.parametrize("dag_id", SHOWN)
def test_an_example_does_what_it_says_once_its_report_is_out(dag_id, airflow, quickbi):
    quickbi.clock.advance(60)  # a DAG run that is started by hand waits for a report of later than now
    for mail_id, name in (("daily-sales", "Daily sales"), ("daily-stock", "Daily stock"), ("weekly", "Weekly sales")):
        quickbi.add_mail_task(name, mail_id=mail_id)
        quickbi.add_run(mail_id)

    ran = airflow.run_file(EXAMPLES / f"{dag_id}.py")

    assert set(ran.states.values()) == {"success"}
    assert {task.partition("[")[0] for task in ran.states} == SHOWN[dag_id]
    assert quickbi.starts("daily-sales") == (dag_id == "quickbi_send_report")
    assert quickbi.count(action="GetMailTaskStatus") > 0
