"""Arguments that cannot be right are refused: while the DAG is parsed if they are known, else before any call."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

SENSOR: dict[str, tuple[dict[str, Any], str]] = {
    "no mail task": ({}, "needs either mail_id or subscribe_name"),
    "two ways to name it": (
        {"mail_id": "a", "subscribe_name": "A"},
        "takes either mail_id or subscribe_name, not both",
    ),
    "empty mail_id": ({"mail_id": ""}, "mail_id is empty"),
    "no mail_id in the list": ({"mail_id": []}, "mail_id is an empty list"),
    "nothing in the list": ({"mail_id": ["a", None]}, "mail_id has an empty item (None) in its list"),
    "the same mail_id twice": ({"mail_id": ["a", "a"]}, "mail_id lists 'a' twice"),
    "mail_id is no text": ({"mail_id": 1.5}, "mail_id must be text"),
    "mail_id with a line break": ({"mail_id": "a\nb"}, "mail_id has a line break"),
    "run and window": (
        {"mail_id": "a", "quickbi_task_id": "1", "executed_after": "{{ data_interval_end }}"},
        "quickbi_task_id selects the run: omit executed_after and executed_before",
    ),
    "run and later run": (
        {"mail_id": "a", "quickbi_task_id": "1", "on_failed": "wait"},
        'on_failed="wait" waits for a later run',
    ),
    "quickbi_task_id is no number": ({"mail_id": "a", "quickbi_task_id": "latest"}, "quickbi_task_id must be a whole"),
    "executed_after is not a datetime": (
        {"mail_id": "a", "executed_after": "yesterday"},
        "executed_after is 'yesterday'",
    ),
    "executed_after is a number": ({"mail_id": "a", "executed_after": 5}, "executed_after must be a datetime"),
    "on_failed": ({"mail_id": "a", "on_failed": "ignore"}, "on_failed must be one of fail, wait"),
    "start_timeout": ({"mail_id": "a", "start_timeout": -1}, "start_timeout must be 0 or more seconds"),
    "unreachable_timeout": ({"mail_id": "a", "unreachable_timeout": "long"}, "unreachable_timeout must be seconds"),
    "require": ({"mail_id": "a", "require": "most"}, "require must be all, any or a number"),
    "deadline": ({"mail_id": "a", "deadline": "9 o'clock"}, "deadline is"),
    "deadline without a zone that exists": (
        {"mail_id": "a", "deadline": "09:00 Asia/Peking"},
        "unknown time zone 'Asia/Peking'",
    ),
    "deadline with a misspelt zone": (
        {"mail_id": "a", "deadline": "09:00 Asia/Shanghia"},
        "unknown time zone 'Asia/Shanghia'; did you mean Asia/Shanghai?",
    ),
    "deadline without a zone": (
        {"mail_id": "a", "deadline": "09:00"},
        "deadline is '09:00': add the time zone, for example 09:00 Asia/Shanghai",
    ),
    "mail_id and mail_owner": (
        {"mail_id": "a", "mail_owner": "Li Wei"},
        "mail_owner applies only to subscribe_name: remove it, since mail_id is set",
    ),
    "mail_id of a template and mail_owner": (
        {"mail_id": "{{ x }}", "mail_owner": "Li Wei"},
        "mail_owner applies only to subscribe_name",
    ),
    "deadline is a time of day": ({"mail_id": "a", "deadline": time(9)}, "deadline must be a datetime"),
    "more required than given": ({"mail_id": ["a", "b"], "require": 3}, "require is 3, but 2 mail tasks are given"),
}
LIST: dict[str, tuple[dict[str, Any], str]] = {
    "paused": ({"paused": "maybe"}, "paused must be true or false"),
    "page_size": ({"page_size": 0}, "page_size must be a whole number of 1 or more"),
    "max_mail_tasks": ({"max_mail_tasks": 1.5}, "max_mail_tasks must be a whole number of 1 or more"),
}
RUN: dict[str, tuple[dict[str, Any], str]] = {
    "no mail task": ({}, "needs either mail_id or subscribe_name"),
    "empty mail_id": ({"mail_id": " "}, "mail_id is empty"),
    "on_running": ({"mail_id": "a", "on_running": "stop"}, "on_running must be one of wait, attach, skip, fail"),
    "on_schedule_limit": ({"mail_id": "a", "on_schedule_limit": "skip"}, "on_schedule_limit must be one of wait, fail"),
    "on_failed": ({"mail_id": "a", "on_failed": "wait"}, "on_failed must be one of fail, retry"),
    "start_timeout": ({"mail_id": "a", "start_timeout": "soon"}, "start_timeout must be seconds"),
    "deadline": ({"mail_id": "a", "deadline": "9 o'clock"}, "deadline is"),
    "deadline without a zone": ({"mail_id": "a", "deadline": "09:00"}, "add the time zone, for example 09:00 Asia"),
    "two ways to name it": ({"mail_id": "a", "subscribe_name": "A"}, "either mail_id or subscribe_name, not both"),
    "mail_id and mail_owner": ({"mail_id": "a", "mail_owner": "Li Wei"}, "mail_owner applies only to subscribe_name"),
    "mail_id of a template and mail_owner": (
        {"mail_id": "{{ x }}", "mail_owner": "Li Wei"},
        "mail_owner applies only to subscribe_name",
    ),
}


def _refused(airflow, make, text):
    with pytest.raises(ImportError) as refusal:
        airflow.parse(make)
    assert text in str(refusal.value)


@pytest.mark.parametrize("case", SENSOR)
def test_a_sensor_that_cannot_be_right_is_an_import_error(case, airflow):
    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    arguments, text = SENSOR[case]
    _refused(airflow, lambda: QuickBIMailTaskSensor(task_id="wait", **arguments), text)


@pytest.mark.parametrize("case", LIST)
def test_a_list_that_cannot_be_right_is_an_import_error(case, airflow):
    from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator

    arguments, text = LIST[case]
    _refused(airflow, lambda: QuickBIListMailTasksOperator(task_id="list", **arguments), text)


@pytest.mark.parametrize("case", RUN)
def test_a_start_that_cannot_be_right_is_an_import_error(case, airflow):
    from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

    arguments, text = RUN[case]
    _refused(airflow, lambda: QuickBIRunMailTaskOperator(task_id="send", **arguments), text)


RENDERED: dict[str, tuple[dict[str, Any], str]] = {
    "empty_mail": ({"mail_id": "{{ '' }}"}, "mail_id is empty (rendered to ''"),
    "no_mail": ({"mail_id": "{{ none }}"}, "mail_id is empty (rendered to 'None'"),
    "twice": ({"mail_id": "{{ ['a', 'a'] }}"}, "mail_id lists 'a' twice"),
    "empty_name": ({"mail_id": None, "subscribe_name": "{{ '' }}"}, "subscribe_name is empty"),
    "no_instant": (
        {"executed_after": "{{ 'yesterday' }}"},
        "executed_after is 'yesterday', which is not a valid datetime",
    ),
    "empty_instant": ({"executed_after": "{{ '' }}"}, "executed_after is '', which is not a valid datetime"),
    "no_choice": ({"on_failed": "{{ 'perhaps' }}"}, "on_failed must be one of fail, wait, not 'perhaps'"),
    "no_seconds": ({"start_timeout": "{{ 'soon' }}"}, "start_timeout must be seconds or a timedelta, not 'soon'"),
    "below_0": ({"unreachable_timeout": "{{ -1 }}"}, "unreachable_timeout must be 0 or more seconds"),
    "too_many": ({"require": "{{ 3 }}"}, "require is 3, but 1 mail task is given"),
    "no_run": ({"quickbi_task_id": "{{ 'latest' }}"}, "quickbi_task_id must be a whole number"),
    "empty_run": ({"quickbi_task_id": "{{ '' }}"}, "quickbi_task_id is empty"),
    "one_run_of_two": ({"mail_id": "{{ ['a', 'b'] }}", "quickbi_task_id": "1"}, "quickbi_task_id selects one run"),
    "no_deadline": ({"deadline": "{{ 'tomorrow' }}"}, "deadline is 'tomorrow', which is not a valid datetime"),
}


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_what_a_template_renders_to_is_refused_before_any_call(airflow, quickbi, sensor):
    def make():
        for task_id, (arguments, _) in RENDERED.items():
            sensor(task_id, **arguments)
        sensor("soft", mail_id="{{ '' }}", soft_fail=True)

    ran = airflow.run(make)

    assert ran.states == {**dict.fromkeys(RENDERED, "failed"), "soft": "skipped"}
    for task_id, (_, text) in RENDERED.items():
        assert type(ran.error(task_id)).__name__ == "QuickBIArgumentError"
        assert f"{task_id}: " in str(ran.error(task_id))
        assert text in str(ran.error(task_id))
    assert set(ran.tries.values()) == {1}
    assert quickbi.calls == []


def test_a_connection_that_cannot_be_used_is_refused_before_any_call(airflow, quickbi, sensor, monkeypatch, expect):
    monkeypatch.setenv("AIRFLOW_CONN_TYPO", quickbi.connection_json(regoin="cn-hongkong"))
    monkeypatch.setenv("AIRFLOW_CONN_NO_SECRET", '{"conn_type": "quickbi", "login": "LTAI-an-id"}')

    ran = airflow.run(
        lambda: [
            sensor("missing", quickbi_conn_id="nowhere"),
            sensor("typo", quickbi_conn_id="{{ 'typo' }}"),
            sensor("no_secret", quickbi_conn_id="no_secret"),
            sensor("soft", quickbi_conn_id="typo", soft_fail=True),
        ]
    )

    assert ran.states == {"missing": "up_for_retry", "typo": "failed", "no_secret": "failed", "soft": "skipped"}
    expect.raised(
        ran, "missing", "QuickBIConnectionUnreadable", "Connection 'nowhere' does not exist", "AIRFLOW_CONN_NOWHERE"
    )
    expect.raised(ran, "typo", "QuickBIConnectionError", "'typo'", "regoin", "region")
    expect.raised(ran, "no_secret", "QuickBIConnectionError", "'no_secret'", "password (AccessKey Secret) is missing")
    assert {task_id: ran.tries[task_id] for task_id in ("typo", "no_secret", "soft")} == dict.fromkeys(
        ("typo", "no_secret", "soft"), 1
    )
    assert quickbi.calls == []


@pytest.mark.parametrize(
    "instant",
    [
        "2026-01-31T09:00:00",
        "2026-01-31T17:00:00+08:00",
        "2026-01-31 09:00:00Z",
        datetime(2026, 1, 31, 9, tzinfo=UTC),
        "{{ '2026-01-31T09:00:00' }}",
        "{{ macros.datetime(2026, 1, 31, 9) }}",
    ],
    ids=["without a zone", "other zone", "UTC", "datetime", "template", "template of a datetime"],
)
def test_executed_after_without_a_zone_is_utc(instant, airflow, quickbi, sensor_of, run_of, at_poll):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report", exec_time="2026-01-31T16:59:59+08:00")
    at_poll("report", 2, lambda: quickbi.add_run("report", exec_time="2026-01-31T17:00:00+08:00"))

    ran = airflow.run(lambda: sensor_of("poke", "report", executed_after=instant))

    assert ran.xcoms() == {"report": run_of("report")}
    assert ran.xcoms()["report"]["exec_time"] == "2026-01-31T17:00:00+08:00"


@pytest.mark.parametrize("mode", ["reschedule", "deferrable"])
def test_templates_may_render_to_native_objects(airflow, quickbi, sensor, run_of):
    for mail_id in ("1001", "1002"):
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
        quickbi.add_run(mail_id, exec_time=datetime(2026, 1, 31, tzinfo=UTC))
    named = quickbi.runs("1001")[0]["task_id"]

    ran = airflow.run(
        lambda: [
            sensor("number", mail_id="{{ 1001 }}"),
            sensor("numbers", mail_id="{{ [1001, 1002] }}", require="{{ 1 + 1 }}"),
            sensor("run", mail_id="{{ '1001' }}", quickbi_task_id=f"{{{{ {named} }}}}"),
            sensor(
                "times",
                mail_id="1001",
                executed_after="{{ macros.datetime(2026, 1, 30) }}",
                start_timeout="{{ macros.timedelta(hours=1) }}",
                deadline="{{ none }}",
            ),
        ],
        render_template_as_native_obj=True,
    )

    assert ran.xcoms() == {
        "number": run_of("1001"),
        "numbers": [run_of("1001"), run_of("1002")],
        "run": run_of("1001"),
        "times": run_of("1001"),
    }


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_mail_that_a_template_renders_to_nothing_is_never_a_success(airflow, quickbi, sensor):
    quickbi.add_mail_task("a", mail_id="a")
    quickbi.add_run("a")

    ran = airflow.run(
        lambda: [
            sensor("none", mail_id="{{ none }}"),
            sensor("no_name", mail_id=None, subscribe_name="{{ none }}"),
            sensor("one_of_two", mail_id=["a", "{{ none }}"]),
            sensor("empty", mail_id="{{ [] }}"),
        ],
        render_template_as_native_obj=True,
    )

    assert set(ran.states.values()) == {"failed"}
    assert "both mail_id and subscribe_name rendered empty" in str(ran.error("none"))
    assert "both mail_id and subscribe_name rendered empty" in str(ran.error("no_name"))
    assert "mail_id has an empty item (None) in its list" in str(ran.error("one_of_two"))
    assert "mail_id is an empty list" in str(ran.error("empty"))
    assert quickbi.calls == []


@pytest.mark.parametrize("mode", ["poke"])
def test_templates_may_render_to_text(airflow, quickbi, sensor, run_of):
    for mail_id in ("1001", "1002"):
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
        quickbi.add_run(mail_id)

    ran = airflow.run(
        lambda: [
            sensor("list", mail_id="{{ ['1001', '1002'] }}", require="{{ 2 }}"),
            sensor("one", mail_id="{{ 1001 }}", start_timeout="{{ none }}", unreachable_timeout="{{ 60 }}"),
            sensor("each", mail_id=["{{ 1000 + 2 }}"]),
        ]
    )

    assert ran.xcoms() == {
        "list": [run_of("1001"), run_of("1002")],
        "one": run_of("1001"),
        "each": [run_of("1002")],
    }


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_name_that_starts_with_a_bracket_is_a_name_and_gives_one_run(airflow, quickbi, sensor, run_of, at_poll):
    for mail_id, name in {"daily": "[日报] 销售", "year": "[2024]", "quoted": "['a', 'b']"}.items():
        quickbi.add_mail_task(name, mail_id=mail_id)
        quickbi.add_run(mail_id)
    processing = quickbi.runs("daily")[0]["task_id"]
    at_poll("daily", 2, lambda: quickbi.finish_run(processing))

    ran = airflow.run(
        lambda: [
            sensor("literal", subscribe_name="[日报] 销售"),
            sensor("number", subscribe_name="[2024]"),
            sensor("list_like", subscribe_name="['a', 'b']"),
            sensor("rendered", subscribe_name="{{ '[日报] 销售' }}"),
            sensor("rendered_number", subscribe_name="{{ '[2024]' }}"),
            sensor("listed", subscribe_name=["[2024]"]),
            sensor("rendered_list", subscribe_name="{{ ['[2024]'] }}"),
            sensor("rendered_json", subscribe_name="{{ ['[2024]', '[日报] 销售'] | tojson }}"),
        ]
    )
    daily, year = run_of("daily") | {"subscribe_name": "[日报] 销售"}, run_of("year") | {"subscribe_name": "[2024]"}

    assert ran.xcoms() == {
        "literal": daily,
        "number": year,
        "list_like": run_of("quoted") | {"subscribe_name": "['a', 'b']"},
        "rendered": daily,
        "rendered_number": year,
        "listed": [year],
        "rendered_list": [year],
        "rendered_json": [year, daily],
    }


def test_airflows_own_arguments_may_be_timedeltas(airflow, quickbi, sensor, run_of):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report")

    ran = airflow.run(
        lambda: sensor("report", timeout=timedelta(seconds=20), poke_interval=timedelta(seconds=0.05), max_wait=1)
    )

    assert ran.xcoms() == {"report": run_of("report")}
