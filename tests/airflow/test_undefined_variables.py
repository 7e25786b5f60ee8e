"""Templates that use what a DAG run does not have: what is missing, what to write instead, and no retry."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

DUE = datetime(2026, 1, 31, 1, tzinfo=UTC)
MAIL = "{{ dag_run.conf.mail }}"


def context_of(**dag_run):
    return {
        "dag_run": SimpleNamespace(conf={"empty": None}, **dag_run),
        "params": {"key": "mail"},
        "ti": SimpleNamespace(xcom_pull=lambda task_ids: {}),
    }


def rendered(name, value, native, context):
    """Render one argument of a sensor and return it."""
    from airflow.providers.common.compat.sdk import DAG

    with DAG("d", schedule=None, render_template_as_native_obj=native):
        given = {name: value} if name in ("mail_id", "subscribe_name") else {"mail_id": "m", name: value}
        task = QuickBIMailTaskSensor(task_id="t", **given)
    task.render_template_fields(context)
    return getattr(task, name)


def problem(name, value, native, context):
    with pytest.raises(Exception, match="not defined") as caught:
        rendered(name, value, native, context)
    assert type(caught.value).__name__ == "QuickBIArgumentError"
    return str(caught.value)


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize(
    ("name", "template", "missing", "remedy"),
    [
        ("mail_id", "{{ no_such }}", "no_such", "no_such | default('<mail id>', true)"),
        ("mail_id", MAIL, "dag_run.conf.mail", "dag_run.conf.mail | default('<mail id>', true)"),
        ("mail_id", "{{ dag_run.conf['mail'] }}", "dag_run.conf['mail']", "dag_run.conf['mail'] | default("),
        ("mail_id", "{{ dag_run.conf.empty.mail | upper }}", "dag_run.conf.empty.mail", "dag_run.conf.empty.mail | "),
        ("subscribe_name", "{{ params.team }}", "params.team", "params.team | default('<subscribe name>', true)"),
        (
            "mail_id",
            "{{ params.team.mail }}",
            "params.team",
            "(params.team | default({})).mail | default('<mail id>', true)",
        ),
        (
            "mail_id",
            "{{ dag_run.conf.mail.strip() }}",
            "dag_run.conf.mail",
            "(dag_run.conf.mail | default('<mail id>', true)).strip(...)",
        ),
        ("mail_id", "{{ ti.xcom_pull(task_ids='a').mail }}", "ti.xcom_pull(...).mail", "ti.xcom_pull(...).mail | "),
        (
            "mail_id",
            "{{ dag_run.conf.mail | default(params.mail) }}",
            "params.mail",
            "params.mail | default('<mail id>'",
        ),
        (
            "mail_id",
            "{{ dag_run.conf[params.key] }}",
            "{{ dag_run.conf[params.key] }}",
            "... | default('<mail id>', true)",
        ),
        ("mail_id", "sales-{{ ds }}", "ds", "ds | default(dag_run.run_after | ds, true)"),
        ("executed_after", "{{ ts }}", "ts", "ts | default(dag_run.run_after | ts, true)"),
        ("executed_after", "{{ logical_date }}", "logical_date", "logical_date | default(dag_run.run_after, true)"),
        ("executed_before", "{{ params.until }}", "params.until", "params.until | default(dag_run.run_after, true)"),
        ("deadline", "{{ data_interval_end }}", "data_interval_end", "data_interval_end | default(dag_run.run_after"),
    ],
)
def test_what_is_missing_is_written_as_in_the_template_and_what_to_write_works(
    airflow, name, template, missing, remedy, native
):
    context = context_of(run_after=DUE)
    for value in (template, ["m", template]) if name in ("mail_id", "subscribe_name") else (template,):
        said = problem(name, value, native, context)

        assert said.startswith(f"t: {name} uses {missing}, which is not defined in this DAG run. Correct the name")
        assert ('use window="day"' in said) == name.startswith("executed_")
        assert f", or write {{{{ {remedy}" in said
        written = re.findall("{{.*?}}", said)[-1].replace("xcom_pull(...)", "xcom_pull('a')").replace("(...)", "()")
        if "..." not in written:
            found = rendered(name, written, native, context)
            assert str(found) in ("<mail id>", "<subscribe name>", "2026-01-31", str(DUE), DUE.isoformat())


def test_an_undefined_item_of_a_list_that_a_template_gives_is_found(airflow):
    said = problem("mail_id", "{{ ['m', no_such] }}", True, context_of())

    assert "mail_id uses no_such," in said


def test_where_no_dag_run_has_a_run_after_the_data_interval_is_proposed(airflow):
    assert "{{ params.x | default(data_interval_end, true) }}" in problem(
        "deadline", "{{ params.x }}", False, context_of()
    )


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        *((kind, MAIL) for kind in ("sensor", "deferred sensor", "run operator", "list operator")),
        *((kind, ["m2", MAIL]) for kind in ("sensor", "deferred sensor")),
    ],
)
def test_a_task_fails_once(airflow, kind, argument, native):
    def task():
        if kind == "run operator":
            return QuickBIRunMailTaskOperator(task_id="t", mail_id=argument)
        if kind == "list operator":
            return QuickBIListMailTasksOperator(task_id="t", subscribe_name=argument)
        return QuickBIMailTaskSensor(task_id="t", mail_id=argument, deferrable=kind == "deferred sensor")

    ran = airflow.run(task, retries=2, render_template_as_native_obj=native)

    assert ran.states == {"t": "failed"}, ran.log
    name = "subscribe_name" if kind == "list operator" else "mail_id"
    assert f"t: {name} uses dag_run.conf.mail," in str(ran.error("t"))


@pytest.mark.parametrize("variable", ["params.since", "data_interval_end", "logical_date", "ds"])
def test_what_to_write_works_in_a_dag_run_without_a_logical_date(
    airflow, airflow_version, quickbi, sensor_of, monkeypatch, variable
):
    quickbi.clock.advance(60)
    quickbi.add_mail_task("Report", mail_id="m2")
    quickbi.add_run("m2")
    if airflow_version >= (3,):
        from airflow.sdk import DAG

        monkeypatch.setattr(DAG, "test", functools.partialmethod(DAG.test, logical_date=None))
    elif variable != "params.since":
        pytest.skip("every DAG run has a logical date there")

    def run(template):
        return airflow.run(lambda: sensor_of("poke", "wait", mail_id="m2", executed_after=template))

    said = str(run(f"{{{{ {variable} }}}}").error("wait"))
    assert f"executed_after uses {variable}," in said
    ran = run(re.findall("{{.*?}}", said)[-1])

    assert ran.states == {"wait": "success"}, ran.log
