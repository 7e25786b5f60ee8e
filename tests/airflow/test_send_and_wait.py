"""QuickBIRunMailTaskOperator where nothing goes wrong; what happens otherwise is tested in ``tests/airflow_run``."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["holding the worker", "deferrable"])
def send(request):
    def make(task_id="send", mail_id="report", **arguments):
        from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

        given = {"poll_interval": 0.05, "timeout": 120, "deferrable": request.param, **arguments}
        return QuickBIRunMailTaskOperator(task_id=task_id, mail_id=mail_id, **given)

    return make


def test_a_mail_is_sent_once_and_waited_for(airflow, quickbi, send, run_of):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report")
    quickbi.set_manual_start("report", duration=0.5)

    ran = airflow.run(send)

    assert ran.states == {"send": "success"}
    assert ran.xcoms() == {"send": run_of("report")}
    assert run_of("report")["status"] == "SENT"
    assert quickbi.starts("report") == 1
    assert quickbi.mails_sent("report", "manual") == 1


def test_a_run_that_is_only_started_can_be_waited_for_by_a_sensor(airflow, quickbi, send, sensor_of, run_of, at_poll):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.set_manual_start("report", duration=float("inf"))
    at_poll("report", 4, lambda: quickbi.finish_run(run_of("report")["task_id"]))

    def make():
        started = send(wait_for_completion=False)
        return started >> sensor_of(
            "poke", "wait", mail_id="report", quickbi_task_id="{{ ti.xcom_pull(task_ids='send')['task_id'] }}"
        )

    ran = airflow.run(make)

    assert ran.states == {"send": "success", "wait": "success"}
    found = ran.xcoms()
    assert found["send"] == {**run_of("report"), "status": "PROCESSING"}
    assert found["wait"] == run_of("report")
    assert quickbi.starts("report") == 1


def test_a_run_that_failed_is_final(airflow, quickbi, send, expect):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.set_manual_start("report", duration=0.5, outcome="FAILED")

    ran = airflow.run(send)

    assert ran.states == {"send": "failed"}
    expect.raised(ran, "send", "QuickBIMailTaskFailed", "FAILED", quickbi.runs("report")[0]["task_id"])
    assert quickbi.starts("report") == 1


def test_a_mail_task_is_sent_by_its_name_and_its_asset_is_updated(airflow, quickbi, send, run_of):
    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    quickbi.add_mail_task("Daily sales", mail_id="report", owner="Wang Fang")

    ran = airflow.run(
        lambda: send(mail_id=None, subscribe_name="{{ 'Daily sales' }}", outlets=[mail_task_asset("report")])
    )

    sent = run_of("report") | {"subscribe_name": "Daily sales"}
    assert ran.xcoms() == {"send": sent}
    assert ran.asset_extras() == [sent]
    assert ran.xcoms("quickbi_console_url") == {"send": "https://bi.aliyun.com/"}


def test_another_run_that_is_active_is_waited_for_first(airflow, quickbi, send, run_of, at_poll):
    quickbi.add_mail_task("report", mail_id="report")
    other = quickbi.add_run("report", status="PROCESSING")
    at_poll("report", 3, lambda: quickbi.finish_run(other))

    ran = airflow.run(send)

    assert ran.states == {"send": "success"}
    assert ran.xcoms()["send"]["task_id"] == run_of("report")["task_id"] != other
    assert quickbi.starts("report") == 1
