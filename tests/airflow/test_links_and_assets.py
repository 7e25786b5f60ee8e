"""What a task leaves behind besides its XCom: the link to the console, and the extras of asset events."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def report(quickbi):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report")


def link_of(ran, task_id):
    """Return the link as the web server makes it, from the serialized DAG."""
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        find = getattr(SerializedDagModel, "get_dag", None)
        stored = SerializedDagModel.get(ran.dag_id, session=session)
        assert stored is not None
        dag = find(ran.dag_id, session=session) if find else stored.dag
        task_instance = session.query(TaskInstance).filter_by(dag_id=ran.dag_id, task_id=task_id).one()
        return dag.get_task(task_id).get_extra_links(task_instance, "Quick BI")


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_the_console_link_needs_no_connection_to_be_shown(airflow, quickbi, report, sensor, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_HONGKONG", quickbi.connection_json(region="cn-hongkong"))
    monkeypatch.setenv("AIRFLOW_CONN_OWN", quickbi.connection_json(console_url="https://bi.example.com/console"))

    ran = airflow.run(
        lambda: [
            sensor("report"),
            sensor("unknown", mail_id="report", quickbi_conn_id="hongkong"),
            sensor("own", mail_id="report", quickbi_conn_id="own"),
        ]
    )

    for name in ("QUICKBI_DEFAULT", "HONGKONG", "OWN"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name}")
    assert link_of(ran, "report") == "https://bi.aliyun.com/"
    assert link_of(ran, "own") == "https://bi.example.com/console"
    assert link_of(ran, "unknown") == ""


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_the_link_is_there_although_the_task_failed(airflow, quickbi, sensor):
    quickbi.deny("Mail.Forbidden.Access")

    ran = airflow.run(lambda: sensor("report"))

    assert ran.states == {"report": "failed"}
    assert link_of(ran, "report") == "https://bi.aliyun.com/"


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_task_that_fails_before_it_knows_its_connection_reads_no_link_that_is_not_there(
    airflow, quickbi, report, sensor, sensor_of, mode
):
    from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator

    deferrable: Any = {"deferrable": mode == "deferrable"}
    missing: Any = {"quickbi_conn_id": "no_such_connection"}
    ran = airflow.run(
        lambda: [
            sensor("no_connection", mail_id="report", **missing),
            sensor("wrong_argument", mail_id="{{ '' }}"),
            sensor("wrong_template", mail_id="{{ 1 / 0 }}"),
            QuickBIRunMailTaskOperator(task_id="send", mail_id="{{ '' }}", **deferrable),
            QuickBIRunMailTaskOperator(task_id="send_no_connection", mail_id="report", **deferrable, **missing),
            QuickBIListMailTasksOperator(task_id="list", page_size="{{ 'many' }}"),
        ],
        retries=0,
    )

    assert set(ran.states.values()) == {"failed"}
    assert ran.notified("XCom not found") == []
    assert link_of(ran, "no_connection") == ""


def test_asset_events_carry_the_run(airflow, quickbi, report, sensor, run_of):
    from airflow.providers.common.compat.sdk import Asset

    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    ran = airflow.run(lambda: sensor("report", outlets=[mail_task_asset("report"), Asset(uri="s3://reports/daily")]))

    assert ran.asset_extras() == [run_of("report"), run_of("report")]


def test_each_asset_gets_the_run_of_its_mail_task(airflow, quickbi, report, sensor, run_of):
    from airflow.providers.common.compat.sdk import Asset

    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    quickbi.add_mail_task("Stock", mail_id="Umsatz/täglich")
    quickbi.add_run("Umsatz/täglich")
    outlets = {
        "report": mail_task_asset("report"),
        "other": mail_task_asset("Umsatz/täglich"),
        "both": Asset(uri="s3://reports/both"),
    }

    ran = airflow.run(lambda: sensor("wait", mail_id=["report", "Umsatz/täglich"], outlets=list(outlets.values())))

    runs = [run_of("report"), run_of("Umsatz/täglich")]
    assert ran.states == {"wait": "success"}
    assert sorted(ran.asset_extras(), key=str) == sorted([runs[0], runs[1], {"runs": runs}], key=str)


def test_a_report_that_is_not_out_yet_is_not_notified_as_one(airflow, quickbi, run_of):
    from airflow.providers.common.compat.sdk import Asset

    from airflow_provider_quickbi.assets.quickbi import mail_task_asset
    from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

    quickbi.add_mail_task("report", mail_id="report", run_duration=3600)

    def send(outlet):
        return QuickBIRunMailTaskOperator(
            task_id="send", mail_id="report", poll_interval=0.05, wait_for_completion=False, outlets=[outlet]
        )

    with pytest.raises(ValueError, match="wait_for_completion=False: put the outlet on the sensor"):
        send(mail_task_asset("report"))

    ran = airflow.run(lambda: send(Asset(uri="s3://reports/begun")))

    assert ran.states == {"send": "success"}
    assert ran.asset_extras() == [run_of("report")]
    assert run_of("report")["status"] == "PROCESSING"


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_wait_that_fails_causes_no_asset_event(airflow, quickbi, sensor):
    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report", status="FAILED")

    ran = airflow.run(
        lambda: [
            sensor("report", outlets=[mail_task_asset("report")]),
            sensor("soft", mail_id="report", soft_fail=True, outlets=[mail_task_asset("report")]),
        ]
    )

    assert ran.states == {"report": "failed", "soft": "skipped"}
    assert ran.asset_extras() == []


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_an_alias_gets_an_event_for_the_asset_of_each_mail_task(airflow, quickbi, report, sensor, run_of):
    try:
        from airflow.sdk import AssetAlias
    except ImportError:
        from airflow.datasets import DatasetAlias as AssetAlias  # type: ignore[no-redef]

    ran = airflow.run(lambda: sensor("report", outlets=[AssetAlias("delivered")]))

    assert ran.states == {"report": "success"}
    assert ran.asset_extras() == [run_of("report")]


@pytest.mark.parametrize(
    ("written", "elsewhere"), [("cn-hangzhou", False), ("cn-beijing", False), ("us-east-1", True), ("bi.example", True)]
)
def test_an_asset_is_elsewhere_if_hangzhou_does_not_serve_its_region(written, elsewhere):
    from airflow_provider_quickbi.assets.quickbi import is_elsewhere, mail_task_asset

    assert is_elsewhere(mail_task_asset("m", region=written), "cn-hangzhou") is elsewhere
