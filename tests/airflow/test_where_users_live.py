"""What people do with a provider: mapped values, ``default_args``, outlets, other zones."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_quickbi.operators.quickbi import (
    QuickBIListMailTasksOperator,
    QuickBIRefreshDatasetOperator,
    QuickBIRunMailTaskOperator,
)
from airflow_provider_quickbi.sensors.quickbi import QuickBIDatasetRefreshSensor, QuickBIMailTaskSensor
from tests.datasets import both

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
            QuickBIDatasetRefreshSensor.partial(task_id="data", **deferrable).expand_kwargs([{"dataset_id": ""}]),
            QuickBIRefreshDatasetOperator.partial(task_id="refreshes", **deferrable).expand_kwargs(
                [{"dataset_id": "d", "on_running": "stop"}]
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
        "data[0]": "dataset_id is empty",
        "refreshes[0]": RUN["on_running"][1],
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
        QuickBIMailTaskSensor.partial(task_id="wait_kwargs").expand_kwargs(listed.output)
        QuickBIRunMailTaskOperator.partial(task_id="send_kwargs").expand_kwargs(listed.output)
        listed >> QuickBIMailTaskSensor(task_id="wait_text", mail_id="{{ ti.xcom_pull('listed') }}", timeout=5)
        listed >> QuickBIRunMailTaskOperator(task_id="send_text", mail_id="{{ ti.xcom_pull('listed') }}")

    ran = airflow.run(make, retries=2)

    refused = ("wait[0]", "send[0]", "wait_kwargs[0]", "send_kwargs[0]", "wait_text", "send_text")
    assert ran.states == {"listed": "success"} | dict.fromkeys(refused, "failed"), ran.log
    for task in refused:
        assert ran.tries[task] == 1
        # Airflow 2.11 and 3.0 call no callback of a mapped task whose arguments are refused; the log has the sentence.
        said = ran.log if airflow_version < (3, 1) else str(ran.error(task))
        assert 'map(lambda m: m["mail_id"])' in said
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
    assert ran.states == {"named": "failed", "run": "success", "send": "success"}, ran.log
    assert type(ran.error("named")).__name__ == "AirflowSensorTimeout"


DAY = datetime(2030, 1, 1, tzinfo=UTC)
MAIL_SENSOR, DATASET_SENSOR = "sensors.QuickBIMailTaskSensor", "sensors.QuickBIDatasetRefreshSensor"
MAIL_OPERATOR, DATASET_OPERATOR = "operators.QuickBIRunMailTaskOperator", "operators.QuickBIRefreshDatasetOperator"
#: The class, ``default_args``, the task's own arguments, and what it then has or what is refused.
DEFAULTS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any] | str]] = {
    "window": (MAIL_SENSOR, {"executed_after": DAY}, {"mail_id": "m", "window": "latest"}, {"executed_after": None}),
    "window, as by default": (
        MAIL_SENSOR,
        {"executed_after": DAY, "window": "auto"},
        {"mail_id": "m", "window": "auto"},
        {"executed_after": None},
    ),
    "window that is not its own": (
        MAIL_SENSOR,
        {"executed_after": DAY, "window": "day"},
        {"mail_id": "m"},
        {"executed_after": DAY, "window": "day"},
    ),
    "window and a time": (
        MAIL_SENSOR,
        {"executed_before": DAY},
        {"mail_id": "m", "window": "day", "executed_after": "2026-01-31"},
        {"executed_before": DAY, "executed_after": "2026-01-31"},
    ),
    "window of a dataset": (
        DATASET_SENSOR,
        {"executed_after": DAY},
        {"dataset_id": "d", "window": "latest"},
        {"executed_after": None},
    ),
    "run and on_failed": (
        MAIL_SENSOR,
        {"on_failed": "wait", "executed_after": DAY},
        {"mail_id": "m", "quickbi_task_id": "1"},
        {"on_failed": "fail", "executed_after": None},
    ),
    "run and its own on_failed": (
        MAIL_SENSOR,
        {"on_failed": "wait"},
        {"mail_id": "m", "quickbi_task_id": "1", "on_failed": "wait"},
        SENSOR["run and later run"][1],
    ),
    "run and several mail tasks": (MAIL_SENSOR, {"mail_id": ["a", "b"]}, {"quickbi_task_id": "1"}, "selects one run"),
    "contradictory times": (
        MAIL_SENSOR,
        {"executed_before": "2026-01-30"},
        {"mail_id": "m", "executed_after": "2026-01-31"},
        "must be later than executed_after",
    ),
    "require": (MAIL_SENSOR, {"require": 2}, {"mail_id": "m"}, {"require": "all"}),
    "require, with several by default": (
        MAIL_SENSOR,
        {"require": 2, "mail_id": ["a", "b"]},
        {"subscribe_name": "N"},
        {"require": "all", "mail_id": None},
    ),
    "require of several": (MAIL_SENSOR, {"require": 2}, {"mail_id": ["a", "b", "c"]}, {"require": 2}),
    "require of a template": (MAIL_SENSOR, {"require": 2}, {"mail_id": "{{ x }}"}, {"require": 2}),
    "its own require": (MAIL_SENSOR, {"require": 2}, {"mail_id": "m", "require": 2}, RENDERED["too_many"][1][12:]),
    "mail_id as by default, and a name": (
        MAIL_SENSOR,
        {"mail_id": "m"},
        {"mail_id": "m", "subscribe_name": "N"},
        SENSOR["two ways to name it"][1],
    ),
    "name of a dataset": (
        DATASET_OPERATOR,
        {"dataset_id": "d"},
        {"dataset_name": "N", "workspace_id": "w"},
        {"dataset_id": None},
    ),
    "id of a dataset": (
        DATASET_OPERATOR,
        {"dataset_name": "N", "workspace_id": "w"},
        {"dataset_id": "d"},
        {"dataset_name": None, "workspace_id": None},
    ),
    **{
        f"on_failed {value} in {name}": (name, {"on_failed": value}, of, expected)
        for name, of, foreign, own in (
            (MAIL_SENSOR, {"mail_id": "m"}, "retry", "wait"),
            (DATASET_SENSOR, {"dataset_id": "d"}, "retry", "wait"),
            (MAIL_OPERATOR, {"mail_id": "m"}, "wait", "retry"),
            (DATASET_OPERATOR, {"dataset_id": "d"}, "wait", "retry"),
        )
        for value, expected in (
            (foreign, {"on_failed": "fail"}),
            (own, {"on_failed": own}),
            ("{{ params.x }}", {"on_failed": "{{ params.x }}"}),
            ("never", "on_failed must be one of"),
        )
    },
    **{
        f"on_failed of another class as its own in {name}": (
            name,
            {"on_failed": foreign},
            {"mail_id": "m", "on_failed": foreign},
            "on_failed must be one of",
        )
        for name, foreign in ((MAIL_SENSOR, "retry"), (MAIL_OPERATOR, "wait"))
    },
}


def _class_of(name: str) -> Any:
    module, _, name = name.partition(".")
    return getattr(importlib.import_module(f"airflow_provider_quickbi.{module}.quickbi"), name)


@pytest.mark.parametrize("case", DEFAULTS)
def test_default_args_give_way_to_a_tasks_own_arguments_and_to_nothing_else(airflow, case):
    name, default_args, own, expected = DEFAULTS[case]

    def parse():
        return airflow.parse(lambda: _class_of(name)(task_id="t", **own), default_args=default_args)

    if isinstance(expected, str):
        with pytest.raises(ImportError) as refusal:
            parse()
        assert expected in str(refusal.value)
    else:
        task = parse().get_task("t")
        assert {name: getattr(task, name) for name in expected} == expected


def test_a_mapped_tasks_own_argument_wins_over_a_default_of_another(airflow, quickbi):
    quickbi.add_mail_task("N", mail_id="m")
    quickbi.add_run("m")

    ran = airflow.run_parsed(
        airflow.parse(
            lambda: [
                QuickBIMailTaskSensor.partial(task_id="names", window="latest").expand(subscribe_name=["N"]),
                QuickBIMailTaskSensor.partial(task_id="windows", subscribe_name="N").expand(window=["latest"]),
                QuickBIMailTaskSensor.partial(task_id="both", subscribe_name="N").expand(mail_id=["of-all"]),
            ],
            default_args={"mail_id": "of-all", "executed_after": DAY, "retries": 2, "timeout": 5},
        )
    )

    assert ran.states == {"names[0]": "success", "windows[0]": "success", "both[0]": "failed"}, ran.log
    assert ran.tries["both[0]"] == 1


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
    said = ran.notified("mail-task/m1: no asset event emitted; connection 'quickbi_default' uses region us-east-1")
    assert len(said) == 2, ran.log


def test_a_task_that_only_lists_has_no_asset_of_a_delivery(airflow):
    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    with pytest.raises(ImportError, match="this task only lists mail tasks"):
        airflow.parse(lambda: QuickBIListMailTasksOperator(task_id="list", outlets=[mail_task_asset("m1")]))


@both
@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_naive_time_is_read_as_airflow_itself_reads_it(airflow, quickbi, sensor, at_poll, monkeypatch):
    from airflow_provider_quickbi import _airflow

    quickbi.add_mail_task("m2", mail_id="m2")
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "Asia/Shanghai")
    assert str(_airflow.default_timezone()) == "Asia/Shanghai"
    now = datetime.now(UTC)
    run = quickbi.add_run("m2", status="PROCESSING", exec_time=now - timedelta(minutes=30))
    at_poll("m2", 2, lambda: quickbi.finish_run(run))
    naive = (now + timedelta(hours=8) - timedelta(hours=1)).replace(tzinfo=None)  # an hour ago in Shanghai
    late: list[Any] = []

    ran = airflow.run(
        lambda: sensor("wait", mail_id="m2", executed_after=naive, deadline=naive, on_late_callback=late.append)
    )

    assert ran.states == {"wait": "success"}, ran.log
    assert len(late) == 1
