"""What people do with a provider: mapped values, ``default_args``, outlets, other zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator

from .test_arguments import RENDERED, RUN, SENSOR

OTHER = "quickbi://cn-hangzhou/mail-task/m1"


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_mapped_value_that_is_wrong_is_not_retried_and_gets_the_same_sentence(airflow, quickbi, mode):
    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    quickbi.add_mail_task("Report", mail_id="report")
    deferrable = {"deferrable": mode == "deferrable"}

    ran = airflow.run(
        lambda: [
            QuickBIMailTaskSensor.partial(task_id="ids", **deferrable).expand(mail_id=["", None]),
            QuickBIMailTaskSensor.partial(task_id="runs", mail_id="report", **deferrable).expand(
                quickbi_task_id=["latest"]
            ),
            QuickBIRunMailTaskOperator.partial(task_id="starts", mail_id="report", **deferrable).expand(
                on_running=["stop"]
            ),
        ],
        retries=2,
    )

    assert set(ran.states.values()) == {"failed"}, ran.log
    for task, said in {
        "ids[0]": RENDERED["empty_mail"][1],
        "ids[1]": SENSOR["no mail task"][1],
        "runs[0]": RENDERED["no_run"][1],
        "starts[0]": RUN["on_running"][1],
    }.items():
        assert ran.tries[task] == 1
        assert said in ran.log
    assert quickbi.starts("report") == 0


def test_listed_mail_tasks_that_are_expanded_as_they_are_fail_once_with_what_to_write(
    airflow, airflow_version, quickbi
):
    from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    quickbi.add_mail_task("Report", mail_id="report")

    def make():
        listed = QuickBIListMailTasksOperator(task_id="listed")
        QuickBIMailTaskSensor.partial(task_id="wait").expand(mail_id=listed.output)
        QuickBIRunMailTaskOperator.partial(task_id="send").expand(mail_id=listed.output)

    ran = airflow.run(make, retries=2)

    assert ran.states == {"listed": "success", "wait[0]": "failed", "send[0]": "failed"}, ran.log
    for task in ("wait[0]", "send[0]"):
        assert ran.tries[task] == 1
        # Airflow 2.11 calls no callback of a mapped task whose arguments are refused; its log has the sentence.
        said = ran.log if airflow_version < (3,) else str(ran.error(task))
        assert '.expand(mail_id=listed.output.map(lambda m: m["mail_id"]))' in said
    assert quickbi.starts("report") == 0


def test_a_tasks_own_argument_wins_over_a_default_of_another(airflow, quickbi):
    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    quickbi.add_mail_task("By name", mail_id="by-name")
    quickbi.add_mail_task("Sent", mail_id="sent", run_duration=0)
    run = quickbi.add_run("by-name")

    ran = airflow.run_parsed(
        airflow.parse(
            lambda: [
                QuickBIMailTaskSensor(task_id="named", subscribe_name="By name", timeout=1),
                QuickBIMailTaskSensor(task_id="run", mail_id="by-name", quickbi_task_id=run),
                QuickBIRunMailTaskOperator(task_id="send", mail_id="sent", poll_interval=0.1),
            ],
            default_args={
                "mail_id": "of-all",
                "executed_after": datetime(2030, 1, 1, tzinfo=UTC),
                "on_failed": "retry",
                "timeout": timedelta(seconds=60),
            },
        )
    )

    # The sensor by name keeps the default's executed_after, which excludes nothing that it was given itself.
    assert ran.states["run"] == ran.states["send"] == "success", ran.log
    assert "needs either" not in ran.log


def test_an_outlet_of_a_mail_task_that_is_not_waited_for_is_refused_while_the_dag_is_parsed(airflow):
    from airflow.providers.common.compat.sdk import Asset

    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    for make in (QuickBIMailTaskSensor, QuickBIRunMailTaskOperator):
        with pytest.raises(ImportError, match="outlet quickbi://cn-hangzhou/mail-task/m1 is not of"):
            airflow.parse(lambda make=make: make(task_id="t", mail_id="m2", outlets=[Asset(OTHER)]))


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_only_mail_tasks_that_were_sent_get_an_event(airflow, quickbi, sensor_of, mode):
    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    for mail_id in ("m1", "m2"):
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
    quickbi.add_run("m2")

    ran = airflow.run(
        lambda: sensor_of(
            mode, "any", mail_id=["m1", "m2"], require="any", outlets=[mail_task_asset("m1"), mail_task_asset("m2")]
        )
    )

    assert ran.states == {"any": "success"}, ran.log
    assert [extra["mail_id"] for extra in ran.asset_extras()] == ["m2"]


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
@pytest.mark.parametrize("given", [{"mail_id": "{{ 'm2' }}"}, {"subscribe_name": "Second"}], ids=["template", "name"])
def test_a_mail_task_that_is_not_the_outlets_fails_before_any_event(airflow, quickbi, sensor_of, mode, given):
    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    quickbi.add_mail_task("Second", mail_id="m2")
    quickbi.add_run("m2")

    ran = airflow.run(
        lambda: [
            sensor_of(mode, "wait", outlets=[mail_task_asset("m1")], **given),
            QuickBIRunMailTaskOperator(
                task_id="send", deferrable=mode == "deferrable", outlets=[mail_task_asset("m1")], **given
            ),
        ]
    )

    assert ran.states == {"wait": "failed", "send": "failed"}, ran.log
    assert all("outlet quickbi://cn-hangzhou/mail-task/m1 is not of" in str(ran.error(task)) for task in ran.states)
    assert ran.asset_extras() == []
    assert quickbi.starts("m2") == 0


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_only_assets_of_the_connections_region_get_an_event(airflow, quickbi, sensor_of, mode, monkeypatch):
    from airflow_provider_quickbi.api.settings import Endpoint
    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    try:
        from airflow.sdk import AssetAlias
    except ImportError:
        from airflow.datasets import DatasetAlias as AssetAlias  # type: ignore[no-redef]
    monkeypatch.setattr(Endpoint, "region", "us-east-1")  # of the simulator's address, which is of none
    quickbi.add_mail_task("m1", mail_id="m1")
    quickbi.add_run("m1")

    def outlets():
        return [mail_task_asset("m1"), mail_task_asset("m1", region="us-east-1"), AssetAlias("sent")]

    ran = airflow.run(
        lambda: [
            sensor_of(mode, "wait", mail_id="m1", outlets=outlets()),
            QuickBIRunMailTaskOperator(
                task_id="send", mail_id="m1", poll_interval=0.05, deferrable=mode == "deferrable", outlets=outlets()
            ),
        ]
    )

    assert set(ran.states.values()) == {"success"}, ran.log
    assert {uri for uri, _ in ran.asset_events()} == {"quickbi://us-east-1/mail-task/m1"}
    said = ran.notified("mail-task/m1 gets no event: connection 'quickbi_default' is of region us-east-1")
    assert len(said) == 2, ran.log


def test_a_task_that_only_lists_has_no_asset_of_a_delivery(airflow):
    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    with pytest.raises(ImportError, match="this task only lists mail tasks"):
        airflow.parse(lambda: QuickBIListMailTasksOperator(task_id="list", outlets=[mail_task_asset("m1")]))


def test_a_naive_time_is_read_as_airflow_itself_reads_it(airflow, quickbi, sensor_of, monkeypatch):
    from airflow_provider_quickbi import _airflow

    quickbi.add_mail_task("m2", mail_id="m2")
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "Asia/Shanghai")
    assert str(_airflow.default_timezone()) == "Asia/Shanghai"
    now = datetime.now(UTC)
    quickbi.add_run("m2", exec_time=now - timedelta(minutes=30))
    naive = (now + timedelta(hours=8) - timedelta(hours=1)).replace(tzinfo=None)  # an hour ago in Shanghai

    ran = airflow.run(lambda: sensor_of("poke", "wait", mail_id="m2", executed_after=naive))

    assert ran.states == {"wait": "success"}, ran.log
