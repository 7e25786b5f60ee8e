"""Refresh, send, wait and go on, in Airflow itself; and what a refresh leaves behind besides its XCom."""

from __future__ import annotations

import pytest

from tests.datasets import Datasets

from .test_arguments import RUN

MODES = pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "held"])


@pytest.fixture
def cubes(quickbi):
    """Datasets beside mail tasks, in one Quick BI."""
    cubes = Datasets(quickbi)
    cubes.add_mail_task("Sales cube", mail_id="cube", run_duration=1)
    quickbi.add_mail_task("Report", mail_id="report", run_duration=1)
    return cubes


def refresh(deferrable, **arguments):
    from airflow_provider_quickbi.operators.quickbi import QuickBIRefreshDatasetOperator

    given = {"task_id": "refresh", "dataset_id": "cube", "deferrable": deferrable, "poll_interval": 0.05, **arguments}
    return QuickBIRefreshDatasetOperator(**given)


@MODES
def test_refresh_send_wait_and_then_go_on(airflow, quickbi, cubes, deferrable, run_of):
    from airflow.providers.common.compat.sdk import task

    from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator
    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    def make():
        @task
        def announce(job, run):
            return [job["status"], run["status"]]

        fresh = refresh(deferrable)
        send = QuickBIRunMailTaskOperator(
            task_id="send", mail_id="report", wait_for_completion=False, deferrable=deferrable, poll_interval=0.05
        )
        sent = QuickBIMailTaskSensor(
            task_id="sent",
            mail_id="report",
            quickbi_task_id="{{ ti.xcom_pull(task_ids='send')['task_id'] }}",
            deferrable=deferrable,
            poke_interval=0.05,
        )
        fresh >> send >> sent
        announce(fresh.output, sent.output)

    ran = airflow.run(make)

    assert set(ran.states.values()) == {"success"}, ran.log
    xcoms = ran.xcoms()
    assert xcoms["refresh"] == cubes.xcom("cube")
    assert xcoms["sent"] == run_of("report")
    assert xcoms["announce"] == ["SUCCESS", "SENT"]
    assert xcoms["refresh"]["ended_at"] <= xcoms["sent"]["exec_time"]
    assert (cubes.starts("cube"), quickbi.starts("report")) == (1, 1)


@MODES
def test_an_extraction_that_fails_sends_nothing_and_shows_why(airflow, quickbi, cubes, deferrable):
    from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

    cubes.set_manual_start("cube", outcome="FAILED")

    ran = airflow.run(lambda: refresh(deferrable) >> QuickBIRunMailTaskOperator(task_id="send", mail_id="report"))

    assert ran.states == {"refresh": "failed", "send": "upstream_failed"}
    error = ran.error("refresh")
    assert type(error).__name__ == "QuickBIDatasetRefreshFailed"
    assert "End of its log: java.sql.SQLException: Access denied for the reader of the source" in str(error)
    assert quickbi.starts("report") == 0


@MODES
def test_the_asset_event_of_a_dataset_carries_the_refresh(airflow, quickbi, cubes, deferrable):
    from airflow.providers.common.compat.sdk import Asset

    from airflow_provider_quickbi.assets.quickbi import dataset_asset

    outlets = [dataset_asset("cube"), Asset(uri="s3://figures/sales")]

    ran = airflow.run(lambda: refresh(deferrable, outlets=outlets))

    assert ran.asset_extras() == [cubes.xcom("cube")] * 2, ran.log
    assert ran.xcoms("quickbi_console_url") == {"refresh": "https://bi.aliyun.com/"}


@pytest.mark.parametrize("uri", ["quickbi://cn-hangzhou/mail-task/cube", "quickbi://cn-hangzhou/dataset/other"])
def test_the_outlet_of_something_else_is_refused_when_the_dag_is_parsed(airflow, cubes, uri):
    from airflow.providers.common.compat.sdk import Asset

    with pytest.raises(ImportError, match=f"outlet {uri} is not of dataset cube, which this task starts"):
        airflow.parse(lambda: refresh(False, outlets=[Asset(uri=uri)]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dataset_id": None}, "needs either dataset_id or dataset_name"),
        ({"dataset_name": "Sales", "workspace_id": "w"}, "takes either dataset_id or dataset_name, not both"),
        ({"workspace_id": "w"}, "workspace_id is only for looking up dataset_name: omit it with dataset_id"),
        ({"dataset_id": None, "dataset_name": "Sales"}, "dataset_name is unique only in a workspace: set workspace_id"),
        ({"dataset_id": " "}, "dataset_id is empty"),
        ({"on_running": "stop"}, RUN["on_running"][1]),
        ({"on_failed": "wait"}, RUN["on_failed"][1]),
    ],
)
def test_a_wrong_argument_is_refused_when_the_dag_is_parsed(airflow, cubes, arguments, says):
    with pytest.raises(ImportError, match=says):
        airflow.parse(lambda: refresh(False, **arguments))


def test_a_dataset_that_is_rendered_to_nothing_fails_for_good_and_starts_nothing(airflow, quickbi, cubes):
    ran = airflow.run(lambda: refresh(False, dataset_id="{{ params.nothing }}"), params={"nothing": ""})

    assert ran.states == {"refresh": "failed"}
    assert "dataset_id is empty" in str(ran.error("refresh"))
    assert quickbi.count() == 0


def test_the_sensor_renders_its_dataset_and_refuses_one_that_is_empty(airflow, quickbi, cubes):
    from airflow_provider_quickbi.sensors.quickbi import QuickBIDatasetRefreshSensor

    cubes.add_run("cube")

    ran = airflow.run(
        lambda: [
            QuickBIDatasetRefreshSensor(task_id="there", dataset_id="{{ params.cube }}", poke_interval=0.05),
            QuickBIDatasetRefreshSensor(task_id="empty", dataset_id="{{ params.nothing }}", poke_interval=0.05),
        ],
        params={"cube": "cube", "nothing": ""},
    )

    assert ran.states == {"there": "success", "empty": "failed"}
    assert ran.xcoms() == {"there": cubes.xcom("cube")}
    assert "dataset_id is empty" in str(ran.error("empty"))
