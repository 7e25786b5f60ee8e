"""Which run is taken for ours: early, late, beside scheduled ones, with clocks that differ, found by name."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from airflow_provider_quickbi._send.record import StartRecord
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.exceptions import (
    QuickBIConnectionError,
    QuickBIRequestError,
    QuickBIStartUnknown,
    QuickBIUnavailable,
)
from airflow_provider_quickbi.testing import Fault


def test_a_run_that_is_over_before_the_first_look_is_ours(
    task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any, world: Any
) -> None:
    quickbi.set_manual_start(mail_id, duration=0)
    result = task.run()
    assert (starts(), result) == (1, newest())
    assert world.elapsed() < 1
    assert task.deferrals == []


@pytest.mark.parametrize("appears_after", [1, 120, 299])
def test_a_run_that_appears_late_but_in_time_is_ours(
    appears_after: float, task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=appears_after)
    result = task.run()
    assert (starts(), result, task.errors) == (1, newest(), [])


def test_start_timeout_can_be_set(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, newest: Any, world: Any
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=800)
    task = make_task(store=store, deferrable=deferrable, start_timeout=timedelta(minutes=15))
    result = task.run()
    assert (starts(), result, task.errors) == (1, newest(), [])


def test_an_accepted_run_that_appears_too_late_is_not_sent_again(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, world: Any
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=301)
    with pytest.raises(AirflowSensorTimeout, match="start_timeout"):
        make_task(store=store, deferrable=deferrable).run()
    assert starts() == 1
    assert 300 <= world.elapsed() <= 301


def test_an_ambiguous_run_that_appears_between_two_tries_is_joined(
    task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=330)
    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    result = task.run()
    assert [type(error) for error in task.errors] == [QuickBIStartUnknown]
    assert (starts(), result) == (1, newest())


def test_a_scheduled_run_in_the_same_minute_is_accepted_and_the_log_says_that_it_cannot_be_told_apart(
    task: Any, quickbi: Any, mail_id: str, starts: Any, log: Any
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=100, refuse_while_running=False)
    quickbi.when_called(
        "ManualRunMailTask", lambda call: quickbi.add_schedule(mail_id, times=[quickbi.clock.now()], duration=30), nth=1
    )
    result = task.run()
    scheduled = next(run for run in quickbi.runs(mail_id) if run["origin"] == "schedule")
    assert starts() == 1
    assert result["task_id"] == scheduled["task_id"]
    assert "A scheduled run in the same minute is indistinguishable" in log.text


def test_a_scheduled_run_that_begins_after_ours_is_not_mistaken_for_it(
    task: Any, quickbi: Any, mail_id: str, starts: Any
) -> None:
    quickbi.add_schedule(mail_id, every=90, duration=5)
    result = task.run()
    ours = next(run for run in quickbi.runs(mail_id) if run["origin"] == "manual")
    assert (starts(), result["task_id"]) == (1, ours["task_id"])


def test_a_run_that_the_schedule_had_started_an_hour_before_is_never_ours(
    task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any, world: Any
) -> None:
    quickbi.add_run(mail_id, exec_time=quickbi.clock.now() - timedelta(hours=1))
    quickbi.set_manual_start(mail_id, appears_after=90)
    result = task.run()
    assert (starts(), result) == (1, newest())


def test_a_run_that_began_before_the_note_and_shows_up_after_it_is_not_ours(
    task: Any, quickbi: Any, mail_id: str, starts: Any
) -> None:
    began = quickbi.clock.now() - timedelta(seconds=120)
    quickbi.add_run(mail_id, exec_time=began, status="SENT", appears_after=140)
    quickbi.set_manual_start(mail_id, appears_after=100)
    result = task.run()
    ours = next(run for run in quickbi.runs(mail_id) if run["origin"] == "manual")
    assert (starts(), result["task_id"], task.errors) == (1, ours["task_id"], [])


def test_the_run_stays_pinned_when_the_triggerer_restarts_after_a_scheduled_one_began(
    make_task: Any, store: Any, quickbi: Any, mail_id: str, starts: Any, world: Any, crash: Any
) -> None:
    """The first look at the run is kept before it is waited for, so that a restart cannot lose it."""
    quickbi.set_manual_start(mail_id, appears_after=70, duration=600)
    quickbi.add_schedule(mail_id, times=[quickbi.clock.now() + timedelta(seconds=300)], duration=1)

    def die_once() -> None:
        if world.elapsed() > 330:
            world.in_triggerer = lambda: None
            raise crash("in the triggerer")

    world.in_triggerer = die_once
    task = make_task(store=store, deferrable=True)
    result = task.run()
    ours = next(run for run in quickbi.runs(mail_id) if run["origin"] == "manual")
    assert task.restarts == 1
    assert (starts(), result["task_id"]) == (1, ours["task_id"])


def test_the_run_stays_pinned_for_a_retry_after_a_scheduled_one_began(
    make_task: Any, new_store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, world: Any, crash: Any
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=70, duration=900)
    quickbi.add_schedule(mail_id, times=[quickbi.clock.now() + timedelta(seconds=300)], duration=1)
    task = make_task(store=new_store(), deferrable=deferrable, unreachable_timeout=100, retries=9)
    world.after(200, lambda: quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=None))
    world.after(700, quickbi.clear_faults)
    result = task.run()
    ours = next(run for run in quickbi.runs(mail_id) if run["origin"] == "manual")
    assert {type(error) for error in task.errors} == {QuickBIUnavailable}
    assert (starts(), result["task_id"]) == (1, ours["task_id"])


@pytest.mark.parametrize("behind", [1, 59])
def test_a_clock_of_quick_bi_that_is_a_little_behind_does_no_harm(
    behind: float, task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    quickbi.clock.set(quickbi.clock.now() - timedelta(seconds=behind))
    result = task.run()
    assert (starts(), result, task.errors) == (1, newest(), [])


def test_a_clock_of_quick_bi_that_is_ahead_does_no_harm(
    task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    quickbi.clock.set(quickbi.clock.now() + timedelta(seconds=100))
    result = task.run()
    assert (starts(), result, task.errors) == (1, newest(), [])


def test_a_clock_of_quick_bi_that_is_far_ahead_is_named_and_sends_nothing_twice(
    make_task: Any, new_store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    store = new_store()
    quickbi.clock.set(quickbi.clock.now() + timedelta(minutes=10))
    with pytest.raises(QuickBIConnectionError, match=r"in the future.*Correct the clock, or set clock_skew"):
        make_task(store=store, deferrable=deferrable).run()
    assert starts() == 1
    result = make_task(store=store, deferrable=deferrable, clock_skew=900).run()
    assert (starts(), result) == (1, newest())


def test_a_run_that_was_read_in_the_wrong_zone_names_the_zone_and_is_monitored_once_that_is_put_right(
    make_task: Any,
    new_store: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = new_store()
    right = os.environ["AIRFLOW_CONN_QUICKBI_DEFAULT"]
    west = json.loads(right)
    west["extra"] = {**west["extra"], "timezone": "Asia/Tokyo"}
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", json.dumps(west))
    with pytest.raises(QuickBIConnectionError, match=r"1\.0 h before this task started it.*Set timezone"):
        make_task(store=store, deferrable=deferrable).run()
    assert starts() == 1
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", right)
    result = make_task(store=store, deferrable=deferrable).run()
    assert (starts(), result) == (1, newest())


def test_a_clock_of_quick_bi_that_is_far_behind_is_named_and_can_be_configured(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    quickbi.clock.set(quickbi.clock.now() - timedelta(minutes=5))
    with pytest.raises(AirflowSensorTimeout, match=r"is new, but started before.*set clock_skew"):
        make_task(store=store, deferrable=deferrable).run()
    assert starts() == 1
    result = make_task(store=store, deferrable=deferrable, clock_skew=600).run()
    assert (starts(), result) == (2, newest())


@pytest.mark.parametrize("listed", [2, 5])
def test_a_service_that_lists_several_runs_gives_ours_even_within_one_second(
    listed: int, task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    quickbi.shapes.status_list = listed
    quickbi.shapes.shuffle = True
    for _ in range(3):
        quickbi.add_run(mail_id)
    result = task.run()
    assert (starts(), result) == (1, newest())


def test_a_run_of_another_mail_task_in_the_answer_is_not_ours(
    task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    stranger = {"mailId": "stranger", "taskId": 1, "status": "PROCESSING", "execTime": "2026-03-02 09:00:00"}
    body = {"RequestId": "1", "Success": True, "Result": [stranger]}
    quickbi.fail("GetMailTaskStatus", Fault.custom(200, body), Fault.custom(200, body))
    result = task.run()
    assert (starts(), result) == (1, newest())


def test_a_joined_run_that_the_service_no_longer_knows_is_never_replaced_by_another(
    make_task: Any, new_store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, die_at: Any
) -> None:
    from airflow_provider_quickbi._send import monitor

    task = make_task(store=new_store(), deferrable=deferrable)
    die_at(task, "wait_in_the_triggerer") if deferrable else die_at(monitor, "wait_until_finished", 2)
    nothing = Fault.custom(200, {"RequestId": "1", "Success": True, "Result": []})

    def forget() -> None:
        quickbi.fail("GetMailTaskStatus", nothing, times=None)

    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    quickbi.when_called("GetMailTaskStatus", lambda call: forget() if call.params.get("TaskId") else None)
    with pytest.raises(AirflowSensorTimeout, match="The mail was started"):
        task.run()
    assert starts() == 1


def test_a_name_stands_for_its_mail_task(
    make_task: Any, store: Any, deferrable: bool, starts: Any, newest: Any
) -> None:
    task = make_task(store=store, deferrable=deferrable, subscribe_name="Daily sales")
    assert task.run() == newest() | {"subscribe_name": "Daily sales"}
    assert starts() == 1


def test_a_name_that_several_have_needs_the_owner_and_the_error_lists_the_candidates(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    other = quickbi.add_mail_task("Daily sales", owner="Li Na")
    with pytest.raises(QuickBIRequestError) as raised:
        make_task(store=store, deferrable=deferrable, subscribe_name="Daily sales").run()
    for text in (mail_id, other, "Wang Fang", "Li Na"):
        assert text in str(raised.value)
    assert starts() == quickbi.starts(other) == 0
    task = make_task(store=store, deferrable=deferrable, subscribe_name="Daily sales", mail_owner="Wang Fang")
    assert task.run() == newest() | {"subscribe_name": "Daily sales"}
    assert (starts(), quickbi.starts(other)) == (1, 0)


def test_a_name_that_nobody_has_may_not_be_visible(make_task: Any, new_store: Any, starts: Any) -> None:
    with pytest.raises(QuickBIRequestError, match="not be visible to this AccessKey"):
        make_task(store=new_store(), subscribe_name="Daily sail").run()


def test_a_paused_subscription_is_said_and_sent(
    make_task: Any, new_store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, log: Any, caplog: Any
) -> None:
    import logging

    caplog.set_level(logging.WARNING)
    quickbi.set_paused(mail_id)
    make_task(store=new_store(), deferrable=deferrable, subscribe_name="Daily sales").run()
    assert starts() == 1


def test_a_name_is_looked_up_as_patiently_as_a_status(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, starts: Any, world: Any, newest: Any
) -> None:
    quickbi.fail("GetMailTaskList", Fault.html_503(), times=None)
    world.after(300, quickbi.clear_faults)
    task = make_task(store=store, deferrable=deferrable, subscribe_name="Daily sales")
    assert task.run() == newest() | {"subscribe_name": "Daily sales"}
    assert (starts(), task.errors) == (1, [])
    if deferrable:
        assert all(seconds <= 8 for seconds in world.slept)


def test_a_note_is_read_back_as_it_was_written_and_nothing_else_is_taken_for_one(mail_id: str) -> None:
    run = MailTaskRun.from_dict(
        {"mail_id": mail_id, "task_id": "1", "status": "SENT", "exec_time": "2026-03-01T09:00:00+08:00"}
    )
    record = StartRecord.of(MailTaskSubject(mail_id), [run], 1)
    assert StartRecord.from_dict(record.as_dict()) == record
    garbage: Any
    for garbage in (
        None,
        [],
        "",
        {},
        {"mail_id": "1"},
        {"mail_id": "1", "recorded_at": "x"},
        {"mail_id": 1, "known": 3},
    ):
        assert StartRecord.from_dict(garbage) is None


def test_a_note_about_another_mail_task_is_none(
    make_task: Any, new_store: Any, deferrable: bool, quickbi: Any, starts: Any, newest: Any
) -> None:
    from airflow_provider_quickbi._send.store import RECORD_KEY

    store = new_store()
    store.set(RECORD_KEY, StartRecord(subject=MailTaskSubject("another"), recorded_at=1, attached_to="1").as_dict())
    task = make_task(store=store, deferrable=deferrable)
    assert task.run() == newest()
    assert starts() == 1
