"""Mail tasks, runs and schedules as the clock passes; no network."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_quickbi.testing import Clock, Refusal
from airflow_provider_quickbi.testing.mails import MailStore

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOON = datetime(2026, 7, 1, 12, 0, 0, tzinfo=SHANGHAI)


@pytest.fixture
def clock() -> Clock:
    clock = Clock(SHANGHAI)
    clock.freeze(NOON)
    return clock


@pytest.fixture
def store(clock: Clock) -> MailStore:
    return MailStore(clock)


def statuses(store: MailStore, mail_id: str) -> list[str]:
    now = store.clock.time()
    return [run.status_at(now) for run in store.latest_runs(store._get(mail_id), 100)]


# The clock


def test_a_clock_runs_with_real_time_until_it_is_moved() -> None:
    clock = Clock()
    assert abs(clock.time() - time.time()) < 1
    clock.advance(3600)
    assert abs(clock.time() - time.time() - 3600) < 1


def test_a_frozen_clock_moves_only_when_told() -> None:
    clock = Clock()
    stopped = clock.freeze(NOON)
    assert stopped == clock.now() == NOON
    assert clock.advance(90) == NOON + timedelta(seconds=90)
    assert clock.set("2026-07-01T00:00:00") == clock.now() == datetime(2026, 7, 1, tzinfo=UTC)
    clock.reset()
    assert abs(clock.time() - time.time()) < 1


def test_a_clock_can_be_set_back_but_not_advanced_backwards() -> None:
    clock = Clock(SHANGHAI)
    assert abs((clock.set("2020-01-01T08:00:00") - datetime(2020, 1, 1, tzinfo=UTC)).total_seconds()) < 1
    with pytest.raises(ValueError, match=r"Use set\(\)"):
        clock.advance(-1)


# Runs


def test_a_run_appears_then_is_processing_then_has_its_outcome(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.add_run(mail_id, appears_after=5, duration=10, outcome="FAILED")
    assert statuses(store, mail_id) == []
    clock.advance(5)
    assert statuses(store, mail_id) == ["PROCESSING"]
    clock.advance(9)
    assert statuses(store, mail_id) == ["PROCESSING"]
    clock.advance(1)
    assert statuses(store, mail_id) == ["FAILED"]


def test_a_run_is_sent_at_once_unless_told_otherwise(store: MailStore) -> None:
    mail_id = store.add_mail_task("m")
    store.add_run(mail_id)
    assert statuses(store, mail_id) == ["SENT"]


def test_a_run_with_a_status_keeps_it_until_it_is_finished(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    run = store.add_run(mail_id, status="QUEUED")
    clock.advance(1_000_000)
    assert statuses(store, mail_id) == ["QUEUED"]
    store.finish_run(int(run), "SENT")
    assert statuses(store, mail_id) == ["SENT"]


def test_a_run_with_a_status_and_a_duration_ends_with_its_outcome(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.add_run(mail_id, status="RENDERING", duration=5)
    assert statuses(store, mail_id) == ["RENDERING"]
    clock.advance(5)
    assert statuses(store, mail_id) == ["SENT"]


def test_finishing_a_run_makes_it_appear(store: MailStore) -> None:
    mail_id = store.add_mail_task("m")
    run = store.add_run(mail_id, appears_after=100, duration=100)
    store.finish_run(run, "FAILED")
    assert statuses(store, mail_id) == ["FAILED"]


def test_a_run_of_the_future_appears_when_its_time_comes(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.add_run(mail_id, exec_time=NOON + timedelta(hours=1))
    assert statuses(store, mail_id) == []
    clock.advance(3600)
    assert statuses(store, mail_id) == ["SENT"]


def test_the_latest_run_is_the_one_that_was_executed_last_not_the_one_added_last(store: MailStore) -> None:
    mail_id = store.add_mail_task("m")
    today = store.add_run(mail_id, exec_time="2026-07-01T11:00:00")
    store.add_run(mail_id, exec_time="2026-06-30T11:00:00", status="FAILED")
    assert [str(run.run_id) for run in store.latest_runs(store._get(mail_id))] == [today]


def test_runs_of_the_same_second_are_told_apart_by_their_id(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.add_run(mail_id, exec_time=NOON - timedelta(seconds=0.2))
    store.add_run(mail_id, exec_time=NOON - timedelta(seconds=0.1))
    third = store.add_run(mail_id, exec_time=NOON - timedelta(seconds=0.5))
    assert [str(run.run_id) for run in store.latest_runs(store._get(mail_id))] == [third]


def test_task_ids_increase_by_one_beyond_what_a_float_can_tell_apart(store: MailStore) -> None:
    mail_id = store.add_mail_task("m")
    first, second = store.add_run(mail_id), store.add_run(mail_id)
    assert int(second) == int(first) + 1
    assert float(first) == float(second)
    assert int(second) < 2**63


def test_an_execution_time_has_whole_seconds_and_the_zone_of_the_store(store: MailStore) -> None:
    mail_id = store.add_mail_task("m")
    store.add_run(mail_id, exec_time="2026-07-01T04:00:00.900+00:00")
    assert store.runs(mail_id)[0]["exec_time"] == "2026-07-01T12:00:00+08:00"


def test_mails_sent_counts_only_runs_that_reached_sent(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.add_run(mail_id)
    store.add_run(mail_id, outcome="FAILED")
    store.add_run(mail_id, duration=60)
    assert store.mails_sent(mail_id) == 1
    clock.advance(60)
    assert store.mails_sent(mail_id) == 2


def test_what_is_not_there_is_a_key_error_that_names_it(store: MailStore) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        store.add_run("nowhere")
    with pytest.raises(KeyError, match="17"):
        store.finish_run("17")
    with pytest.raises(ValueError, match="already"):
        store.add_mail_task("m", mail_id=store.add_mail_task("m"))


# Schedules


def test_a_schedule_starts_runs_as_the_clock_passes(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.add_schedule(mail_id, every=300, duration=60)
    clock.advance(299)
    assert statuses(store, mail_id) == []
    clock.advance(1)
    assert statuses(store, mail_id) == ["PROCESSING"]
    clock.advance(900)
    assert statuses(store, mail_id) == ["PROCESSING", "SENT", "SENT", "SENT"]
    runs = store._get(mail_id).runs
    assert [store.local_time(run.started_at).strftime("%H:%M") for run in runs] == ["12:05", "12:10", "12:15", "12:20"]
    assert {run.origin for run in runs} == {"schedule"}


def test_a_schedule_of_listed_times_starts_at_each_of_them(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.add_schedule(mail_id, times=["2026-07-01T14:00:00", NOON + timedelta(hours=1)])
    clock.advance(3600)
    assert len(statuses(store, mail_id)) == 1
    clock.advance(86400)
    assert len(statuses(store, mail_id)) == 2


def test_schedules_of_several_mails_start_in_the_order_of_their_times(store: MailStore, clock: Clock) -> None:
    one, other = store.add_mail_task("one"), store.add_mail_task("other")
    store.add_schedule(one, every=20)
    store.add_schedule(other, every=30, first=NOON + timedelta(seconds=10))
    clock.advance(40)
    runs = sorted([*store._get(one).runs, *store._get(other).runs], key=lambda run: run.run_id)
    assert [run.started_at - NOON.timestamp() for run in runs] == [10, 20, 40, 40]


def test_a_paused_mail_skips_its_times_and_goes_on_when_resumed(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m", paused=True)
    store.add_schedule(mail_id, every=60)
    clock.advance(120)
    assert statuses(store, mail_id) == []
    store.set_paused(mail_id, False)
    clock.advance(60)
    assert statuses(store, mail_id) == ["SENT"]


def test_a_removed_mail_takes_its_schedule_along(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.add_schedule(mail_id, every=60)
    store.remove_mail_task(mail_id)
    clock.advance(120)
    assert store.mail_tasks() == []


@pytest.mark.parametrize("schedule", [{"every": 0}, {"every": -1}, {"cron": "daily"}])
def test_a_schedule_that_makes_no_sense_is_a_mistake(store: MailStore, schedule: dict[str, object]) -> None:
    mail_id = store.add_mail_task("m")
    with pytest.raises(ValueError, match=r"every|cron"):
        store.add_schedule(mail_id, **schedule)  # type: ignore[arg-type]


# Manual starts


def refused(store: MailStore, mail_id: str) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        store.start_run(store._get(mail_id))
    return refusal.value


def test_a_manual_start_counts_and_goes_as_told(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.set_manual_start(mail_id, duration=30, appears_after=2, outcome=["FAILED", "SENT"])
    store.start_run(store._get(mail_id))
    assert statuses(store, mail_id) == []
    clock.advance(2)
    assert statuses(store, mail_id) == ["PROCESSING"]
    clock.advance(30)
    store.start_run(store._get(mail_id))
    clock.advance(32)
    assert statuses(store, mail_id) == ["SENT", "FAILED"]
    assert store.starts(mail_id) == 2


def test_a_start_is_refused_while_a_run_is_under_way_even_if_it_has_not_appeared(
    store: MailStore, clock: Clock
) -> None:
    mail_id = store.add_mail_task("m")
    store.set_manual_start(mail_id, duration=30, appears_after=10)
    store.start_run(store._get(mail_id))
    assert refused(store, mail_id).code == "MailTask.Already.Running"
    clock.advance(39)
    assert refused(store, mail_id).code == "MailTask.Already.Running"
    clock.advance(1)
    store.start_run(store._get(mail_id))
    assert store.starts(mail_id) == 2


def test_a_mail_can_be_told_to_run_twice_at_a_time(store: MailStore) -> None:
    mail_id = store.add_mail_task("m")
    store.set_manual_start(mail_id, duration=math.inf, refuse_while_running=False)
    store.start_run(store._get(mail_id))
    store.start_run(store._get(mail_id))
    assert statuses(store, mail_id) == ["PROCESSING", "PROCESSING"]


def test_a_run_of_the_future_does_not_keep_a_mail_from_starting(store: MailStore) -> None:
    mail_id = store.add_mail_task("m")
    store.add_run(mail_id, exec_time=NOON + timedelta(hours=1), duration=60)
    store.start_run(store._get(mail_id))


def test_the_schedule_limit_refuses_the_next_calls_with_its_minutes(store: MailStore) -> None:
    mail_id = store.add_mail_task("m")
    store.limit_manual_starts(mail_id, calls=2, announced_minutes=7)
    for _ in range(2):
        refusal = refused(store, mail_id)
        assert refusal.code == "MailApi.Beyond.ScheduleLimit"
        assert refusal.message.endswith("Requests Are Frequent. Please Try Again In 7 Minutes.")
    store.start_run(store._get(mail_id))


def test_the_schedule_limit_of_minutes_counts_down_and_may_speak_chinese(store: MailStore, clock: Clock) -> None:
    mail_id = store.add_mail_task("m")
    store.limit_manual_starts(mail_id, minutes=5, language="zh")
    assert refused(store, mail_id).message.endswith("请5分钟后重试。")
    clock.advance(200)
    assert refused(store, mail_id).message.endswith("请2分钟后重试。")
    clock.advance(100)
    store.start_run(store._get(mail_id))
    with pytest.raises(KeyError, match="fr"):
        store.limit_manual_starts(mail_id, calls=1, language="fr")


def test_a_start_can_be_refused_with_any_code_for_some_calls_or_for_ever(store: MailStore) -> None:
    mail_id = store.add_mail_task("m")
    store.refuse_manual_start(mail_id, "Timer.Schedule.Task", times=2)
    store.refuse_manual_start(mail_id, "Mail.Subject.Error", times=None)
    codes = [refused(store, mail_id).code for _ in range(4)]
    assert codes == ["Timer.Schedule.Task"] * 2 + ["Mail.Subject.Error"] * 2
    assert store.starts(mail_id) == 0
