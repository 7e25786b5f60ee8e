"""One sensor for several mail tasks, and mail tasks that are looked up by their names."""

from __future__ import annotations

import pytest

from airflow_provider_quickbi.testing import Fault


@pytest.fixture
def mails(quickbi):
    """Add mail tasks, each with a run of this status."""

    def add(**statuses):
        return {
            mail_id: (
                quickbi.add_mail_task(f"Report {mail_id}", mail_id=mail_id),
                quickbi.add_run(mail_id, status=status),
            )[1]
            for mail_id, status in statuses.items()
        }

    return add


@pytest.fixture
def named(run_of):
    """The XCom of the newest run of a mail task whose name was given."""
    return lambda mail_id, name=None: run_of(mail_id) | {"subscribe_name": name or f"Report {mail_id}"}


def test_all_of_several_mails_must_be_sent(airflow, quickbi, mails, sensor, at_poll, run_of):
    runs = mails(a="PROCESSING", b="PROCESSING")
    at_poll("b", 2, lambda: quickbi.finish_run(runs["b"]))
    at_poll("a", 4, lambda: quickbi.finish_run(runs["a"]))

    ran = airflow.run(lambda: sensor("wait", mail_id=["a", "b"]))

    assert ran.states == {"wait": "success"}
    assert ran.xcoms() == {"wait": [run_of("a"), run_of("b")]}


def test_any_of_several_mails_is_enough_with_require_any(airflow, quickbi, mails, sensor, at_poll, run_of):
    runs = mails(a="PROCESSING", b="PROCESSING")
    at_poll("b", 3, lambda: quickbi.finish_run(runs["b"]))

    ran = airflow.run(lambda: sensor("wait", mail_id=["a", "b"], require="any"))

    assert ran.states == {"wait": "success"}
    assert ran.xcoms() == {"wait": [run_of("a"), run_of("b")]}
    assert [run["status"] for run in ran.xcoms()["wait"]] == ["PROCESSING", "SENT"]


def test_some_of_several_mails_may_fail_if_enough_are_left(airflow, quickbi, mails, sensor, at_poll):
    runs = mails(a="FAILED", b="PROCESSING", c="SENT")
    at_poll("b", 3, lambda: quickbi.finish_run(runs["b"]))

    ran = airflow.run(lambda: sensor("wait", mail_id=["a", "b", "c"], require=2))

    assert ran.states == {"wait": "success"}
    assert [run["status"] for run in ran.xcoms()["wait"]] == ["FAILED", "SENT", "SENT"]


def test_the_wait_ends_as_soon_as_enough_cannot_be_sent(airflow, quickbi, mails, sensor, at_poll, expect):
    runs = mails(a="PROCESSING", b="PROCESSING")
    at_poll("b", 3, lambda: quickbi.finish_run(runs["b"], "FAILED"))

    ran = airflow.run(lambda: [sensor("wait", mail_id=["a", "b"]), sensor("soft", mail_id=["a", "b"], soft_fail=True)])

    assert ran.states == {"wait": "failed", "soft": "skipped"}
    expect.raised(ran, "wait", "QuickBIMailTaskFailed", "0 of 2 mail tasks are SENT, 2 required", runs["b"])


def test_a_list_of_one_gives_a_list_of_one(airflow, mails, sensor, run_of):
    mails(a="SENT")

    ran = airflow.run(lambda: sensor("wait", mail_id=["a"]))

    assert ran.xcoms() == {"wait": [run_of("a")]}


# Names


def test_a_mail_task_is_found_by_its_name(airflow, quickbi, mails, sensor, named):
    mails(a="SENT", b="SENT")

    ran = airflow.run(
        lambda: [
            sensor("one", subscribe_name="Report b"),
            sensor("two", subscribe_name=["Report b", "Report a"]),
        ]
    )

    assert ran.xcoms() == {"one": named("b"), "two": [named("b"), named("a")]}
    assert ran.notified("Report b", "MailId b")


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_name_that_several_have_needs_the_owner(airflow, quickbi, sensor, named, expect):
    for mail_id, owner in (("a", "Li Ming"), ("b", "Wang Fang")):
        quickbi.add_mail_task("Daily sales", mail_id=mail_id, owner=owner, owner_id=f"id-of-{mail_id}")
        quickbi.add_run(mail_id)

    ran = airflow.run(
        lambda: [
            sensor("ambiguous", subscribe_name="Daily sales"),
            sensor("soft", subscribe_name="Daily sales", soft_fail=True),
            sensor("nick", subscribe_name="Daily sales", mail_owner="Wang Fang"),
            sensor("id", subscribe_name="Daily sales", mail_owner="id-of-a"),
            sensor("nobody", subscribe_name="Daily sales", mail_owner="Zhao Lei"),
            sensor("unknown", subscribe_name="daily sales"),
        ]
    )

    assert ran.states == {
        "ambiguous": "failed",
        "soft": "skipped",
        "nick": "success",
        "id": "success",
        "nobody": "failed",
        "unknown": "failed",
    }
    assert ran.xcoms() == {"nick": named("b", "Daily sales"), "id": named("a", "Daily sales")}
    expect.raised(
        ran, "ambiguous", "QuickBIRequestError", "2 mail tasks", "MailId a of Li Ming", "MailId b of Wang Fang"
    )
    expect.raised(ran, "nobody", "QuickBIRequestError", "Zhao Lei", "MailId a of Li Ming", "Check mail_owner")
    expect.raised(ran, "unknown", "QuickBIRequestError", "'daily sales'", "Check the name", "not be visible")


def test_a_paused_mail_task_is_waited_for_with_a_warning(airflow, quickbi, sensor_of):
    quickbi.add_mail_task("Daily sales", mail_id="a", paused=True)
    quickbi.add_run("a")

    ran = airflow.run(lambda: sensor_of("poke", "wait", subscribe_name="Daily sales"))

    assert ran.states == {"wait": "success"}
    assert ran.notified("'Daily sales' (MailId a) is paused")


@pytest.mark.parametrize("fault", [Fault.throttled(), Fault.reset()], ids=lambda fault: fault.kind)
def test_looking_a_name_up_is_as_patient_as_waiting(fault, airflow, quickbi, mails, sensor_of, named):
    mails(a="SENT")
    quickbi.fail("GetMailTaskList", fault, times=6)

    ran = airflow.run(lambda: sensor_of("poke", "wait", subscribe_name="Report a"))

    assert ran.states == {"wait": "success"}
    assert ran.xcoms() == {"wait": named("a")}


def test_a_name_that_cannot_be_looked_up_for_long_is_unavailability(airflow, quickbi, mails, sensor_of, expect):
    mails(a="SENT")
    quickbi.fail("GetMailTaskList", Fault.reset(), times=None)

    ran = airflow.run(
        lambda: [
            sensor_of("deferrable", "patient", subscribe_name="Report a", unreachable_timeout=0.3),
            sensor_of("poke", "out_of_time", subscribe_name="Report a", timeout=0.3),
        ]
    )

    assert ran.states == {"patient": "up_for_retry", "out_of_time": "failed"}
    expect.raised(ran, "patient", "QuickBIUnavailable", "GetMailTaskList")
    expect.raised(ran, "out_of_time", "AirflowSensorTimeout", "GetMailTaskList")
