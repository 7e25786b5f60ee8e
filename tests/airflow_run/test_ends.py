"""How a task ends: sent, failed, seen, late, out of time, cleared; and what is left for the next try."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout

from airflow_provider_quickbi.exceptions import (
    QuickBIConnectionError,
    QuickBIMailTaskFailed,
    QuickBIRunFailed,
    QuickBIStartUnknown,
    QuickBIUnavailable,
)
from airflow_provider_quickbi.testing import Fault


@pytest.mark.parametrize("duration", [0, 240])
def test_the_xcom_is_the_run_in_every_mode(duration: float, task: Any, quickbi: Any, mail_id: str, newest: Any) -> None:
    quickbi.set_manual_start(mail_id, duration=duration)
    result = task.run()
    assert result == newest()
    assert set(result) == {"mail_id", "task_id", "status", "exec_time"}
    assert result["exec_time"] == "2026-03-02T09:00:00+08:00"
    assert isinstance(result["task_id"], str)


@pytest.mark.parametrize(("duration", "status"), [(240, "PROCESSING"), (0, "SENT")])
@pytest.mark.parametrize("appears_after", [0, 90])
def test_without_waiting_the_xcom_is_the_run_as_first_seen(
    appears_after: float,
    duration: float,
    status: str,
    make_task: Any,
    store: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    world: Any,
) -> None:
    quickbi.set_manual_start(mail_id, duration=duration, appears_after=appears_after)
    task = make_task(store=store, deferrable=deferrable, wait_for_completion=False)
    result = task.run()
    assert starts() == 1
    run = quickbi.runs(mail_id)[-1]
    seen = {"mail_id": mail_id, "task_id": run["task_id"], "status": status, "exec_time": run["exec_time"]}
    assert result == seen
    assert world.elapsed() < 240
    assert not task.noted


def test_without_waiting_a_retry_gives_the_same_run(
    make_task: Any, new_store: Any, deferrable: bool, die_at: Any, starts: Any, quickbi: Any, mail_id: str
) -> None:
    from airflow_provider_quickbi._send import attempt

    die_at(attempt, "count_outcome")
    task = make_task(store=new_store(), deferrable=deferrable, wait_for_completion=False)
    result = task.run()
    assert len(task.errors) == 1
    assert (starts(), result["task_id"]) == (1, quickbi.runs(mail_id)[-1]["task_id"])


def test_a_run_that_failed_is_final(task: Any, quickbi: Any, mail_id: str, starts: Any) -> None:
    quickbi.set_manual_start(mail_id, outcome="FAILED")
    with pytest.raises(QuickBIMailTaskFailed) as raised:
        task.run()
    assert len(task.errors) == 1
    assert raised.value.run is not None
    assert raised.value.run.run_id == quickbi.runs(mail_id)[-1]["task_id"]
    assert starts() == 1
    assert not task.noted


@pytest.mark.parametrize("duration", [0, 240])
def test_on_failed_retry_sends_anew_with_each_retry(
    duration: float, make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    quickbi.set_manual_start(mail_id, outcome=["FAILED", "FAILED", "SENT"], duration=duration)
    task = make_task(store=store, deferrable=deferrable, on_failed="retry")
    result = task.run()
    assert [type(error) for error in task.errors] == [QuickBIRunFailed] * 2
    assert (starts(), result) == (3, newest())
    assert not task.noted


def test_on_failed_retry_fails_when_there_are_no_retries_left(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any
) -> None:
    quickbi.set_manual_start(mail_id, outcome="FAILED")
    task = make_task(store=store, deferrable=deferrable, on_failed="retry", retries=1)
    with pytest.raises(QuickBIRunFailed):
        task.run()
    assert starts() == 2


@pytest.mark.parametrize("listed", ["latest", 5])
def test_on_failed_retry_joins_the_run_that_a_crashed_retry_had_started(
    listed: Any,
    store: Any,
    make_task: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
    die_at: Any,
    crash: Any,
) -> None:
    from airflow_provider_quickbi.api.client import QuickBIClient

    quickbi.shapes.status_list = listed
    quickbi.set_manual_start(mail_id, outcome=["FAILED", "SENT"])
    die_at(QuickBIClient, "ManualRunMailTask", 2, after=True)
    task = make_task(store=store, deferrable=deferrable, on_failed="retry")
    result = task.run()
    assert [type(error) for error in task.errors] == [QuickBIRunFailed, crash]
    assert (starts(), result) == (2, newest())


@pytest.mark.parametrize("end", ["success", "failed", "timeout", "refused"])
def test_clearing_a_task_that_has_ended_sends_a_new_mail(
    end: str,
    make_task: Any,
    store: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
    world: Any,
) -> None:
    task = make_task(store=store, deferrable=deferrable, timeout=1000, retries=2)
    if end == "failed":
        quickbi.set_manual_start(mail_id, outcome=["FAILED", "SENT"])
    elif end == "timeout":
        quickbi.set_manual_start(mail_id, duration=2000)
        world.after(500, lambda: quickbi.set_manual_start(mail_id, duration=10))
    elif end == "refused":
        world.after(70, lambda: quickbi.fail("GetMailTaskStatus", Fault.error("InvalidAccessKeyId.NotFound"), times=9))
    if end == "success":
        task.run()
    else:
        with pytest.raises((AirflowFailException, AirflowSensorTimeout)):
            task.run()
        assert len(task.errors) == 1
    assert not task.noted
    world.advance(1000)
    quickbi.clear_faults()
    task.clear()
    result = task.run()
    assert (starts(), result) == (2, newest())
    assert result["status"] == "SENT"
    assert not task.noted


def test_clearing_sends_a_new_mail_each_time_even_within_a_second(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    quickbi.shapes.status_list = 10
    quickbi.set_manual_start(mail_id, duration=0)
    task = make_task(store=store, deferrable=deferrable)
    for number in range(1, 4):
        assert task.run() == newest()
        assert starts() == number
        task.clear()


@pytest.mark.parametrize("error", [QuickBIUnavailable, QuickBIStartUnknown])
def test_clearing_a_task_that_does_not_know_what_it_sent_looks_before_it_sends(
    error: type[Exception],
    make_task: Any,
    new_store: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
) -> None:
    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    if error is QuickBIUnavailable:
        quickbi.when_called(
            "ManualRunMailTask", lambda call: quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=None) and None
        )
    else:
        quickbi.set_manual_start(mail_id, appears_after=400)
    task = make_task(store=new_store(), deferrable=deferrable, retries=0, unreachable_timeout=200)
    with pytest.raises(error):
        task.run()
    quickbi.clear_faults()
    task.clear()
    assert task.run() == newest()
    assert starts() == 1


@pytest.mark.parametrize("known", [True, False], ids=["run known", "run not known"])
def test_clearing_a_task_that_was_stopped_looks_for_its_run_only_while_that_may_be_what_is_wanted(
    known: bool,
    make_task: Any,
    new_store: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
    world: Any,
    die_at: Any,
    crash: Any,
) -> None:
    """The worker is killed, or somebody marks the task as failed: nothing tells the task that it has ended."""

    def stopped() -> Any:
        task = make_task(store=new_store(), deferrable=deferrable, retries=0, timeout=3600)
        die_at(task.store, "set", 3 if known else 2, after=True)
        with pytest.raises(crash):
            task.run()
        return task

    task = stopped()
    world.advance(1800)
    task.clear()
    assert (task.run(), starts()) == (newest(), 1)

    task = stopped()
    assert starts() == 2
    world.advance(2 * 24 * 3600)
    quickbi.add_run(mail_id, exec_time=datetime.fromtimestamp(world.now - 24 * 3600, UTC))
    task.clear()
    assert (task.run(), starts()) == (newest(), 3)


def test_an_unavailable_quick_bi_while_waiting_is_retried_and_the_retry_joins_the_same_run(
    make_task: Any, new_store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, newest: Any, world: Any
) -> None:
    quickbi.set_manual_start(mail_id, duration=900)
    world.after(100, lambda: quickbi.fail("GetMailTaskStatus", Fault.reset(), times=None))
    world.after(800, quickbi.clear_faults)
    task = make_task(store=new_store(), deferrable=deferrable, unreachable_timeout=300)
    result = task.run()
    assert {type(error) for error in task.errors} == {QuickBIUnavailable}
    assert (starts(), result) == (1, newest())


def test_a_run_that_is_not_over_in_time_is_a_timeout_that_says_what_it_was_doing(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, world: Any
) -> None:
    quickbi.set_manual_start(mail_id, duration=math.inf)
    task = make_task(store=store, deferrable=deferrable, timeout=timedelta(minutes=30))
    with pytest.raises(AirflowSensorTimeout, match=r"is PROCESSING\. The mail was started\..*sends the mail again"):
        task.run()
    assert len(task.errors) == 1
    assert starts() == 1
    assert world.elapsed() == pytest.approx(1800, abs=1)
    assert not task.noted


def test_a_run_that_is_over_at_the_last_look_is_a_success(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str
) -> None:
    quickbi.set_manual_start(mail_id, duration=100)
    task = make_task(store=store, deferrable=deferrable, timeout=100, poll_interval=90)
    assert task.run()["status"] == "SENT"


def test_a_timeout_while_it_is_not_known_whether_the_mail_was_started_says_so(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, starts: Any
) -> None:
    quickbi.fail("ManualRunMailTask", Fault.reset())
    task = make_task(store=store, deferrable=deferrable, timeout=120)
    with pytest.raises(AirflowSensorTimeout, match=r"not known whether Quick BI accepted the start\. Check the"):
        task.run()
    assert starts() == 0


def test_execution_timeout_ends_a_deferred_wait_and_the_retry_joins_the_run(
    make_task: Any, store: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any, world: Any
) -> None:
    quickbi.set_manual_start(mail_id, duration=900)
    task = make_task(store=store, deferrable=True, execution_timeout=timedelta(minutes=10))
    with pytest.raises(AirflowTaskTimeout, match=r"execution_timeout is over.*PROCESSING"):
        task.attempt()
    assert world.elapsed() == pytest.approx(600, abs=1)
    assert task.retry() == newest()
    assert starts() == 1


def test_a_connection_that_is_broken_while_the_task_waits_fails_for_good_and_says_what_was_sent(
    make_task: Any, store: Any, starts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(store=store, deferrable=True)
    wait = task.wait_in_the_triggerer

    def wait_without_connection(deferred: Any) -> Any:
        monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", '{"conn_type": "quickbi"}')
        return wait(deferred)

    task.wait_in_the_triggerer = wait_without_connection
    with pytest.raises(QuickBIConnectionError, match=r"login .*is missing.*The mail was started\."):
        task.run()
    assert starts() == 1
    assert bool(task.noted) == (store is not None)  # clearing the task looks for the run before it sends


@pytest.fixture
def notified(world: Any) -> list[float]:
    return []


@pytest.mark.parametrize(
    ("when", "hindrance"),
    [(60, None), (60, "limit"), (100, "other"), (10, "appears late")],
    ids=["while waiting", "while the limit holds", "while another run is under way", "before it appears"],
)
def test_a_late_delivery_is_told_once_and_the_wait_goes_on(
    when: float,
    hindrance: str | None,
    make_task: Any,
    store: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
    world: Any,
    notified: list[Any],
) -> None:
    if hindrance == "limit":
        quickbi.limit_manual_starts(mail_id, calls=1, announced_minutes=5)
    elif hindrance == "other":
        other = quickbi.add_run(mail_id, status="PROCESSING")
        world.after(200, lambda: quickbi.finish_run(other))
    elif hindrance == "appears late":
        quickbi.set_manual_start(mail_id, appears_after=200)
    late_at = datetime.fromtimestamp(world.now + when, UTC)
    task = make_task(
        store=store,
        deferrable=deferrable,
        deadline=late_at,
        on_late_callback=lambda context: notified.append((world.elapsed(), context["quickbi_late"])),
    )
    result = task.run()
    assert (starts(), result) == (1, newest())
    ((told_at, message),) = notified
    assert told_at == pytest.approx(when, abs=0.5)
    assert message.startswith("Late: Mail task daily-sales")
    if hindrance == "limit":
        assert "was not started yet" in message
        assert world.elapsed() == pytest.approx(300 + 240, abs=60)


def test_a_delivery_in_time_is_not_told_of(
    make_task: Any, store: Any, deferrable: bool, world: Any, notified: list[Any]
) -> None:
    late_at = datetime.fromtimestamp(world.now + 400, UTC)
    make_task(store=store, deferrable=deferrable, deadline=late_at, on_late_callback=notified.append).run()
    assert notified == []


def test_a_deadline_may_be_a_wall_time_of_the_day_on_which_the_dag_run_began(
    make_task: Any, store: Any, deferrable: bool, world: Any, notified: list[Any]
) -> None:
    make_task(
        store=store,
        deferrable=deferrable,
        deadline="09:02 Asia/Shanghai",
        on_late_callback=lambda context: notified.append(world.elapsed()),
    ).run()
    assert notified == [pytest.approx(120, abs=0.5)]


def test_a_deadline_that_is_none_fails_for_good_before_anything_is_sent(make_task: Any, starts: Any) -> None:
    task = make_task()
    task.arguments["deadline"] = "{{ ds }}"
    make = task.operator

    def rendered() -> Any:
        operator = make()
        operator.deadline = "soon"
        return operator

    task.operator = rendered
    with pytest.raises(AirflowFailException, match="deadline is 'soon'"):
        task.run()
    assert starts() == 0


def test_a_mail_id_that_is_rendered_to_nothing_fails_for_good(make_task: Any) -> None:
    task = make_task()
    make = task.operator

    def rendered() -> Any:
        operator = make()
        operator.mail_id = None
        return operator

    task.operator = rendered
    with pytest.raises(AirflowFailException, match="both mail_id and subscribe_name rendered empty"):
        task.run()


def test_being_killed_says_that_nothing_is_called_back(make_task: Any, log: Any) -> None:
    make_task().operator().on_kill()
    assert "a mail that was started is still sent" in log.text


@pytest.mark.parametrize(
    "event",
    [
        None,
        "sent",
        {},
        {"kind": "finished"},
        {"kind": "resume"},
        {"carry": {}},
        {"carry": {"phase": "x"}, "kind": "over"},
    ],
)
def test_an_event_that_is_not_understood_is_no_success_and_starts_nothing(
    event: Any, make_task: Any, starts: Any
) -> None:
    task = make_task(deferrable=True)
    with pytest.raises((RuntimeError, ValueError)):
        task.operator().execute_complete(task.context(), event=event)
    assert starts() == 0


def test_an_event_of_a_kind_that_is_not_known_is_no_success(
    make_task: Any, new_store: Any, starts: Any, newest: Any
) -> None:
    task = make_task(store=new_store(), deferrable=True)
    wait = task.wait_in_the_triggerer
    kinds = iter(["delivered"])
    task.wait_in_the_triggerer = lambda deferred: {**(event := wait(deferred)), "kind": next(kinds, event["kind"])}
    result = task.run()
    assert [type(error) for error in task.errors] == [RuntimeError]
    assert (starts(), result) == (1, newest())
