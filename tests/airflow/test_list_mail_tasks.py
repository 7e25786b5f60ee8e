"""QuickBIListMailTasksOperator: which mail tasks it lists, and what its list is good for."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_quickbi.testing import Fault

from .test_arguments import LIST

MAILS = {
    "a": ("Daily sales", "Li Ming", False),
    "b": ("Daily stock", "Wang Fang", True),
    "c": ("Weekly sales", "Li Ming", False),
    "d": ("Daily sales", "Wang Fang", False),
    "e": ("Monthly [draft]", "Li Ming", True),
}


@pytest.fixture
def mails(quickbi):
    for mail_id, (name, owner, paused) in MAILS.items():
        quickbi.add_mail_task(name, mail_id=mail_id, owner=owner, owner_id=f"id-{owner[:2]}", paused=paused)


@pytest.fixture
def listing(airflow):
    """List mail tasks with several sets of arguments; return task -> MailIds."""

    def run(**cases):
        from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator

        ran = airflow.run(
            lambda: [QuickBIListMailTasksOperator(task_id=task_id, **cases[task_id]) for task_id in cases]
        )
        assert set(ran.states.values()) == {"success"}, ran.log
        return {task_id: "".join(mail_task["mail_id"] for mail_task in found) for task_id, found in ran.xcoms().items()}

    return run


def test_the_xcom_is_a_list_of_plain_dicts(airflow, mails):
    from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator

    ran = airflow.run(lambda: QuickBIListMailTasksOperator(task_id="list", max_mail_tasks=2))

    assert ran.xcoms() == {
        "list": [
            {
                "mail_id": "a",
                "subscribe_name": "Daily sales",
                "paused": False,
                "biz_owner_user_id": "id-Li",
                "biz_owner_name": "Li Ming",
            },
            {
                "mail_id": "b",
                "subscribe_name": "Daily stock",
                "paused": True,
                "biz_owner_user_id": "id-Wa",
                "biz_owner_name": "Wang Fang",
            },
        ]
    }


def test_mail_tasks_are_listed_by_name_glob_owner_and_state(listing, mails):
    assert listing(
        everything={},
        exact={"subscribe_name": "Daily sales"},
        glob={"subscribe_name": "Daily s*"},
        letter={"subscribe_name": "?aily st[no]ck"},
        brackets={"subscribe_name": "Monthly [draft]"},
        case={"subscribe_name": "daily sales"},
        paused={"paused": True},
        running={"paused": False},
        owner={"user_nick": "Wang Fang"},
        together={"user_nick": "Li Ming", "paused": False, "subscribe_name": "Weekly*"},
        small_pages={"page_size": 2},
    ) == {
        "everything": "abcde",
        "exact": "ad",
        "glob": "abd",
        "letter": "b",
        "brackets": "e",
        "case": "",
        "paused": "be",
        "running": "acd",
        "owner": "bd",
        "together": "c",
        "small_pages": "abcde",
    }


def test_templates_may_render_to_true_none_or_nothing(listing, mails, quickbi):
    assert listing(
        paused={"paused": "{{ 'True' }}"},
        running={"paused": "{{ false }}"},
        either={"paused": "{{ none }}", "user_nick": "{{ '' }}", "subscribe_name": "{{ none }}"},
        numbers={"page_size": "{{ 2 }}", "max_mail_tasks": "{{ 1 + 2 }}"},
        empty_numbers={"page_size": "{{ '' }}", "max_mail_tasks": "{{ none }}"},
    ) == {"paused": "be", "running": "acd", "either": "abcde", "numbers": "abc", "empty_numbers": "abcde"}
    assert {call.params.get("Paused") for call in quickbi.calls} == {"true", "false", None}
    assert {call.params.get("UserNick") for call in quickbi.calls} == {None}


def test_no_page_is_read_that_is_not_needed(listing, mails, quickbi):
    assert listing(some={"page_size": 2, "max_mail_tasks": 3}) == {"some": "abc"}

    assert [call.params["PageNum"] for call in quickbi.calls] == ["1", "2"]


def test_the_list_can_be_mapped_over(airflow, mails, quickbi, sensor, mode, run_of):
    from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator
    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    for mail_id in ("a", "d"):
        quickbi.add_run(mail_id)
    modes: dict[str, dict[str, Any]] = {
        "poke": {},
        "reschedule": {"mode": "reschedule"},
        "deferrable": {"deferrable": True},
    }

    def make():
        mail_tasks = QuickBIListMailTasksOperator(task_id="list", subscribe_name="Daily*", paused=False)
        QuickBIMailTaskSensor.partial(task_id="wait", timeout=120, poke_interval=0.05, **modes[mode]).expand(
            mail_id=mail_tasks.output.map(lambda mail_task: mail_task["mail_id"])
        )

    ran = airflow.run(make)

    assert ran.states == {"list": "success", "wait[0]": "success", "wait[1]": "success"}
    found = ran.xcoms()
    assert (found["wait[0]"], found["wait[1]"]) == (run_of("a"), run_of("d"))


def test_a_wrong_rendered_argument_is_final_before_any_call(airflow, quickbi, expect):
    from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator

    ran = airflow.run(
        lambda: [
            QuickBIListMailTasksOperator(task_id="paused", paused="{{ 'maybe' }}"),
            QuickBIListMailTasksOperator(task_id="size", page_size="{{ 'large' }}"),
        ]
    )

    assert ran.states == {"paused": "failed", "size": "failed"}
    expect.raised(ran, "paused", "QuickBIArgumentError", f"paused: {LIST['paused'][1]}, not 'maybe'")
    expect.raised(ran, "size", "QuickBIArgumentError", f"size: {LIST['page_size'][1]}, not 'large'")
    assert quickbi.calls == []


def test_a_refusal_is_final_and_a_silence_is_retried(airflow, quickbi, expect):
    from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator

    def make():
        return QuickBIListMailTasksOperator(task_id="list")

    quickbi.deny("Access.Forbidden")
    refused = airflow.run(make)
    quickbi.allow()
    quickbi.fail("GetMailTaskList", Fault.html_503(), times=None)
    silent = airflow.run(make)

    assert refused.states == {"list": "failed"}
    expect.raised(refused, "list", "QuickBIRequestError", "Access.Forbidden", "RequestId")
    assert silent.states == {"list": "up_for_retry"}
    expect.raised(silent, "list", "QuickBIUnavailable", "GetMailTaskList", "503")
