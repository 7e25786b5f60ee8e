"""Where a deferred wait starts and where it ends: every row of the tables in docs/sensor.md."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, BaseOperator
from jinja2 import Undefined

from airflow_provider_quickbi import _airflow
from airflow_provider_quickbi._wait.placement import Ending, ending_of, settled, starts_in_triggerer
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.assets.quickbi import mail_task_asset
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

DOCS = Path(__file__).resolve().parent.parent / "docs"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Subclass(QuickBIMailTaskSensor):
    def pre_execute(self, context: Any) -> None:
        """Do something."""

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Do something."""


class Overriding(QuickBIMailTaskSensor):
    def execute_complete(self, context: Any, event: Any = None) -> Any:
        """Return something else."""
        return super().execute_complete(context, event)["task_id"]


def rows_of(section: str) -> list[str]:
    text = (DOCS / "sensor.md").read_text(encoding="utf-8").partition(f"### {section}")[2].partition("###")[0]
    return re.findall(r"^\| (.+?) \| (?:in|on) ", text, re.MULTILINE)


def made(sensor: type[QuickBIMailTaskSensor] = QuickBIMailTaskSensor, **given: Any) -> QuickBIMailTaskSensor:
    of_dag = (
        "params",
        "user_defined_macros",
        "user_defined_filters",
        "render_template_as_native_obj",
        "jinja_environment_kwargs",
        "template_undefined",
    )
    dag = {name: given.pop(name) for name in of_dag if name in given}
    with DAG("d", schedule=None, start_date=START, **dag):
        return sensor(**{"task_id": "t", "mail_id": "m", "deferrable": True, **given})


def other_task(dag: DAG | None = None) -> BaseOperator:
    return BaseOperator(task_id="other")


# Where a wait starts: what the row says, and a task of which it speaks

LISTENERS = (
    "runs where a plugin has listeners (such as OpenLineage's, or that of Airflow's example DAGs), "
    "or with a custom `[core] xcom_backend`"
)
STARTS: dict[str, list[dict[str, Any]]] = {
    "is none of the below": [
        {},
        {"mail_id": None, "subscribe_name": ["Daily sales", "Weekly sales"]},
        {"executed_after": "{{ data_interval_end }}", "executed_before": "{{ macros.ds_add(ds, 1) }}"},
        {"mail_id": "{{ dag_run.conf['mail_id'] }}", "quickbi_conn_id": "quickbi_{{ ds_nodash }}"},
        {"outlets": [mail_task_asset("m")], "on_success_callback": print, "end_in_triggerer": False},
        {"mail_id": "m", "user_defined_macros": {"ds": "other"}},
        {"soft_fail": True, "retries": 3, "exponential_backoff": True, "max_wait": timedelta(minutes=5)},
    ],
    "has a template that needs more than the DAG run's own values, such as `ti`, `var`, `conn` or `params`": [
        {"mail_id": "{{ ti.xcom_pull('list') }}"},
        {"subscribe_name": "{{ var.value.name }}", "mail_id": None},
        {"quickbi_conn_id": "{{ conn.quickbi.host }}"},
        {"executed_after": "{{ prev_start_date_success }}"},
        {"mail_id": ["m", "{{ task.task_id }}"]},
        {"mail_id": "{% include 'name.txt' %}"},
        {"mail_id": "{{ unfinished"},
        {"mail_id": "{% for event in dag_run.consumed_asset_events %}{{ event }}{% endfor %}"},
        {"mail_id": "{{ dag_run['conf'] }}"},
        {"mail_id": "{% set run = dag_run %}{{ run.clear_number }}"},
        {"mail_id": "{{ macros.a_plugin.name() }}"},
    ],
    "uses `render_template_as_native_obj`, or its DAG sets `jinja_environment_kwargs`": [
        {"mail_id": "['a', 'b']", "render_template_as_native_obj": True},
        {"mail_id": "[[ ds ]]", "jinja_environment_kwargs": {"variable_start_string": "[["}},
    ],
    "has a template, and its DAG sets `user_defined_macros`, `user_defined_filters` or `template_undefined`": [
        {"mail_id": "{{ ds }}", "user_defined_macros": {"ds": "other"}},
        {"mail_id": "{{ ds }}", "user_defined_filters": {"upper": str}},
        {"mail_id": "{{ ds }}", "template_undefined": Undefined},
        {"mail_id": "{# {{ ds }} #}m", "user_defined_macros": {"ds": "other"}},
    ],
    "has `params`, or its DAG has": [{"params": {"region": "eu"}}],
    "is mapped, or in a mapped task group": [],
    "has a `deadline`, an `execution_timeout` or inlets": [
        {"deadline": "09:00 Asia/Shanghai"},
        {"execution_timeout": timedelta(hours=1)},
        {"inlets": [Asset("a")]},
    ],
    "has an `on_execute_callback` or a `pre_execute`": [{"on_execute_callback": print}, {"pre_execute": print}],
    "has a pool of its own, `max_active_tis_per_dag` or `max_active_tis_per_dagrun`": [
        {"pool": "reports"},
        {"max_active_tis_per_dag": 1},
        {"max_active_tis_per_dagrun": 1},
    ],
    "is a subclass of the sensor": [{"sensor": Subclass}],
    "runs where triggers have queues (`[triggerer] queues_enabled`)": [],
    LISTENERS: [],
    "has `start_in_triggerer=False`": [{"start_in_triggerer": False}, {"deferrable": False}],
}


def test_every_row_of_both_tables_is_tried() -> None:
    assert rows_of("Where a wait starts") == list(STARTS)
    assert rows_of("Where a wait ends") == list(ENDS)


@pytest.mark.parametrize(
    ("row", "given"),
    [(row, given) for row, cases in STARTS.items() for given in cases],
    ids=lambda value: str(value)[:60],
)
def test_a_wait_starts_where_the_table_says(row: str, given: dict[str, Any]) -> None:
    task = made(**given)

    assert starts_in_triggerer(task, supported=True) is (row == "is none of the below")
    assert not starts_in_triggerer(task, supported=False)


def test_the_output_of_a_task_is_rendered_on_a_worker() -> None:
    with DAG("d", schedule=None, start_date=START):
        listed: Any = other_task().output
        task = QuickBIMailTaskSensor(task_id="t", mail_id=listed, deferrable=True)
    assert not starts_in_triggerer(task, supported=True)


def test_a_wait_starts_on_a_worker_where_triggers_have_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    task = made()
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    assert not starts_in_triggerer(task, supported=True)


@pytest.mark.skipif(not _airflow.triggers_start_tasks(), reason="Airflow 3.3 and later")
def test_mapped_tasks_start_on_a_worker() -> None:
    from airflow.sdk import task_group

    with DAG("d", schedule=None, start_date=START) as dag:
        QuickBIMailTaskSensor.partial(task_id="mapped", deferrable=True).expand(mail_id=["a", "b"])

        @task_group
        def reports(name: str) -> None:
            QuickBIMailTaskSensor(task_id="grouped", mail_id="m", deferrable=True)

        reports.expand(name=["a", "b"])

    for task_id in ("mapped", "reports.grouped"):
        task = dag.get_task(task_id)
        assert task.start_from_trigger is False, task_id
        assert task.start_trigger_args is None, task_id


# What Airflow is told


@pytest.mark.skipif(not _airflow.triggers_start_tasks(), reason="Airflow 3.3 and later")
def test_a_cluster_policy_may_still_change_where_a_task_starts() -> None:
    task = made()
    assert task.start_from_trigger is True
    task.pool = "reports"
    assert task.start_from_trigger is False


@pytest.mark.skipif(not _airflow.triggers_start_tasks(), reason="Airflow 3.3 and later")
def test_what_airflow_stores_of_a_start_is_the_same_with_each_parse_and_makes_the_trigger() -> None:
    from airflow_provider_quickbi.triggers.starting import QuickBISensorTrigger

    given: dict[str, Any] = {
        "executed_after": START,
        "start_timeout": timedelta(hours=1),
        "mail_id": ["a", "{{ ds }}"],
        "timeout": 60,
    }
    arguments = made(**given).start_trigger_args
    assert arguments == made(**given).start_trigger_args
    assert arguments is not None
    assert arguments.timeout == timedelta(seconds=60 + 900)
    forever = made(timeout=timedelta(days=36500)).start_trigger_args
    assert forever is not None
    assert forever.timeout is not None
    assert forever.timeout < timedelta(days=366 * 10)  # MySQL stores no time after January 2038
    kwargs = arguments.trigger_kwargs
    assert kwargs is not None
    assert json.loads(json.dumps(kwargs)) == kwargs
    path, serialized = QuickBISensorTrigger(**kwargs).serialize()
    assert path == arguments.trigger_cls
    assert QuickBISensorTrigger(**serialized).serialize()[1] == serialized
    assert serialized["arguments"]["executed_after"] == "2026-01-01T00:00:00+00:00"
    assert serialized["arguments"]["start_timeout"] == 3600.0


def test_below_airflow_3_3_every_wait_starts_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_airflow, "triggers_start_tasks", lambda: False)
    task = made()
    assert task.start_from_trigger is False
    assert task.start_trigger_args is None


# Where a wait ends


def ending(sensor: type[QuickBIMailTaskSensor] = QuickBIMailTaskSensor, **given: Any) -> Ending:
    supported, several, is_open, ended_before, returned = (
        given.pop(name, default) for name, default in DEFAULTS.items()
    )
    selector = RunSelector() if is_open else RunSelector(executed_after=datetime(2026, 7, 1, tzinfo=UTC))
    group = WaitGroup.of([WaitState(subject=MailTaskSubject("m"), selector=selector, since=0.0)], required=1)
    task = made(sensor, **given)
    if returned:
        of_dag: Any = task.dag
        of_dag.add_result(task.output)
    return settled(ending_of(task, supported=supported), group, several=several, ended_before=ended_before)


DEFAULTS = {
    "supported": True,
    "several": False,
    "is_open": False,
    "ended_before": False,
    "returns_dag_result": False,
}
ENDS: dict[str, dict[str, Any]] = {
    "is none of the below": {},
    "has outlets or `multiple_outputs`": {"outlets": [mail_task_asset("m")]},
    "has an `on_success_callback` or a `post_execute`": {"on_success_callback": print},
    'accepts any latest run (`window="latest"`, runs by hand)': {"is_open": True},
    "is a subclass of the sensor": {"sensor": Overriding},
    "returns the DAG's result (`add_result`)": {"returns_dag_result": True},
    "starts in the triggerer as a retry or after being cleared": {"ended_before": True},
    LISTENERS: {"supported": False},
    "has `end_in_triggerer=False`": {"end_in_triggerer": False},
}


@pytest.mark.parametrize("row", ENDS)
def test_a_wait_ends_where_the_table_says(row: str) -> None:
    if "returns_dag_result" in ENDS[row] and not _airflow.triggers_start_tasks():
        pytest.skip("a DAG returns no result below Airflow 3.3")
    assert ending(**ENDS[row]) is (Ending.WORKER if ENDS[row] else Ending.TRIGGERER)


def test_what_a_task_stores_where_it_ends_in_the_triggerer() -> None:
    assert ending(several=True) is Ending.TRIGGERER_WITH_LIST
    assert ending(do_xcom_push=False) is Ending.TRIGGERER_WITHOUT_XCOM
    assert ending(do_xcom_push=False, several=True) is Ending.TRIGGERER_WITHOUT_XCOM


def test_a_task_with_several_outputs_ends_on_a_worker() -> None:
    assert ending(multiple_outputs=True) is Ending.WORKER


@pytest.mark.skipif(not _airflow.triggers_start_tasks(), reason="Airflow 3.3 and later")
def test_a_custom_xcom_backend_and_listeners_keep_tasks_on_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time import xcom
    from airflow.sdk.listener import get_listener_manager

    assert _airflow.triggers_end_tasks()
    with monkeypatch.context() as patch:
        patch.setattr(xcom, "XCom", type("Encrypted", (BaseXCom,), {}))
        assert not _airflow.triggers_end_tasks()
    with monkeypatch.context() as patch:
        patch.setattr(type(get_listener_manager()), "has_listeners", True)
        assert not _airflow.triggers_end_tasks()
        assert made().start_from_trigger is False


def test_a_task_with_post_execute_ends_on_a_worker() -> None:
    assert ending(Subclass) is Ending.WORKER
    assert ending(post_execute=lambda context, result: None) is Ending.WORKER
