"""Which run is this task's where that needs more than one task or try: wrong clocks, restarts, names, old records."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from airflow_provider_quickbi._send import monitor
from airflow_provider_quickbi._send.record import StartRecord
from airflow_provider_quickbi._send.store import RECORD_KEY
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.exceptions import QuickBIConnectionError, QuickBIRequestError
from airflow_provider_quickbi.testing import Fault

from .tries import Case, Crash, deferred, recorded


def test_a_scheduled_run_in_the_same_minute_is_accepted_and_the_log_says_that_it_is_indistinguishable(
    case: Case, log: Any
) -> None:
    case.start_with(appears_after=100, refuse_while_running=False)
    times = [case.quickbi.clock.now()]
    case.quickbi.when_called(
        "ManualRunMailTask", lambda call: case.quickbi.add_schedule(case.mail_id, times=times, duration=30), nth=1
    )
    result = case.task().run()
    assert (case.starts(), result) == (1, case.newest("schedule"))
    assert "A scheduled run in the same minute is indistinguishable" in log.text


@deferred
def test_the_run_stays_pinned_when_the_triggerer_restarts_after_a_scheduled_one_started(case: Case) -> None:
    """The run is kept as soon as it is seen, before it is waited for, so that a restart cannot lose it."""
    case.start_with(appears_after=70, duration=600)
    times = [case.quickbi.clock.now() + timedelta(seconds=300)]
    case.quickbi.add_schedule(case.mail_id, times=times, duration=1)

    def die_once() -> None:
        if case.world.elapsed() > 330:
            case.world.in_triggerer = lambda: None
            raise Crash("in the triggerer")

    case.world.in_triggerer = die_once
    task = case.task()
    assert task.run() == case.newest("manual")
    assert (case.starts(), task.restarts) == (1, 1)


@recorded
def test_a_clock_of_quick_bi_that_is_far_ahead_is_named_and_sends_nothing_twice(case: Case) -> None:
    case.quickbi.clock.set(case.quickbi.clock.now() + timedelta(minutes=10))
    with pytest.raises(QuickBIConnectionError):
        case.task().run()
    assert case.starts() == 1
    assert case.task(clock_skew=900).run() == case.newest()
    assert case.starts() == 1


@recorded
def test_a_run_that_was_read_in_the_wrong_zone_names_the_zone_and_is_monitored_once_that_is_put_right(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = case.quickbi.connection_json(status_calls_per_second=1000, read_timeout=0.3)
    west = json.loads(right)
    west["extra"] = {**west["extra"], "timezone": "Asia/Tokyo"}
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", json.dumps(west))
    with pytest.raises(QuickBIConnectionError, match=r"1\.0 h before this task started it.*Set timezone"):
        case.task().run()
    assert case.starts() == 1
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", right)
    assert case.task().run() == case.newest()
    assert case.starts() == 1


def test_a_clock_of_quick_bi_that_is_far_behind_is_named_and_can_be_configured(case: Case) -> None:
    case.quickbi.clock.set(case.quickbi.clock.now() - timedelta(minutes=5))
    with pytest.raises(AirflowSensorTimeout, match=r"is new, but started before.*set clock_skew"):
        case.task().run()
    assert case.starts() == 1
    assert case.task(clock_skew=600).run() == case.newest()
    assert case.starts() == 2


@recorded
def test_a_known_run_that_the_service_no_longer_knows_is_never_replaced_by_another(case: Case) -> None:
    task = case.task()
    case.die_at(task, "wait_in_the_triggerer") if case.deferrable else case.die_at(monitor, "wait_until_finished", 2)
    nothing = Fault.custom(200, {"RequestId": "1", "Success": True, "Result": []})

    def forget(call: Any) -> None:
        if call.params.get("TaskId"):
            case.fail("GetMailTaskStatus", nothing, times=None)

    case.fail("ManualRunMailTask", Fault.answer_lost())
    case.quickbi.when_called("GetMailTaskStatus", forget)
    with pytest.raises(AirflowSensorTimeout):
        task.run()
    assert case.starts() == 1


def test_a_name_that_several_have_needs_the_owner_and_the_error_lists_the_candidates(case: Case) -> None:
    other = case.quickbi.add_mail_task("Daily sales", owner="Li Na")
    with pytest.raises(QuickBIRequestError) as raised:
        case.task(subscribe_name="Daily sales").run()
    for text in (case.mail_id, other, "Wang Fang", "Li Na"):
        assert text in str(raised.value)
    assert case.starts() == case.quickbi.starts(other) == 0
    task = case.task(subscribe_name="Daily sales", mail_owner="Wang Fang")
    assert task.run() == case.newest() | {"subscribe_name": "Daily sales"}
    assert (case.starts(), case.quickbi.starts(other)) == (1, 0)


@recorded
def test_a_paused_subscription_is_sent(case: Case) -> None:
    case.quickbi.set_paused(case.mail_id)
    case.task(subscribe_name="Daily sales").run()
    assert case.starts() == 1


def test_a_record_is_read_back_as_it_was_written_and_nothing_else_is_taken_for_one() -> None:
    run = MailTaskRun.from_dict(
        {"mail_id": "m", "task_id": "1", "status": "SENT", "exec_time": "2026-03-01T09:00:00+08:00"}
    )
    record = StartRecord.of(MailTaskSubject("m"), [run], 1)
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


@recorded
def test_a_record_of_another_mail_task_is_ignored(case: Case) -> None:
    assert case.store is not None
    record = StartRecord(subject=MailTaskSubject("another"), recorded_at=1, attached_to="1")
    case.store.set(RECORD_KEY, record.as_dict())
    assert case.task().run() == case.newest()
    assert case.starts() == 1
