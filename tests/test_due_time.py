"""When a DAG run was due and when the next ones are, by Airflow's own timetables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_provider_quickbi import _airflow
from airflow_provider_quickbi._wait.window import Cause, DueTime, Window, resolve_auto

SHANGHAI = ZoneInfo("Asia/Shanghai")
START = pendulum.datetime(2026, 1, 1, tz="Asia/Shanghai")
BERLIN = pendulum.datetime(2026, 1, 1, tz="Europe/Berlin")


def dag_of(schedule: Any, start: datetime = START) -> DAG:
    return DAG("d", schedule=schedule, start_date=start, catchup=True)


def run_of(due: datetime, *, run_type: str = "scheduled", start: datetime | None = None) -> SimpleNamespace:
    """A DAG run as the task's context has it."""
    return SimpleNamespace(
        run_type=run_type, data_interval_start=start or due, data_interval_end=due, run_after=due, start_date=due
    )


def due_time(dag: Any, run: Any) -> DueTime:
    return _airflow.due_time({"dag_run": run}, dag)


def shanghai(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=SHANGHAI)  # type: ignore[arg-type, misc]  # year, month, day, hour, minute


@pytest.mark.parametrize(
    ("schedule", "due", "following"),
    [
        ("30 8 * * *", shanghai(2026, 7, 1, 8, 30), [shanghai(2026, 7, 2, 8, 30), shanghai(2026, 7, 3, 8, 30)]),
        ("0 * * * *", shanghai(2026, 7, 1, 8, 0), [shanghai(2026, 7, 1, 9, 0), shanghai(2026, 7, 1, 10, 0)]),
        ("0 9 * * 1", shanghai(2026, 7, 6, 9, 0), [shanghai(2026, 7, 13, 9, 0), shanghai(2026, 7, 20, 9, 0)]),
        (timedelta(hours=6), shanghai(2026, 7, 1, 6, 0), [shanghai(2026, 7, 1, 12, 0), shanghai(2026, 7, 1, 18, 0)]),
        (
            CronTriggerTimetable("30 8 * * *", timezone="Asia/Shanghai"),
            shanghai(2026, 7, 1, 8, 30),
            [shanghai(2026, 7, 2, 8, 30), shanghai(2026, 7, 3, 8, 30)],
        ),
    ],
    ids=["daily", "hourly", "weekly", "six hours", "data intervals of length zero"],
)
def test_the_next_runs_are_due_by_the_dags_own_schedule(schedule: Any, due: datetime, following: list[datetime]):
    found = due_time(dag_of(schedule), run_of(due))
    assert (found.cause, found.due) == (Cause.SCHEDULE, due)
    assert list(found.next_due) == following


def test_a_run_with_a_data_interval_is_due_at_its_end():
    dag = dag_of(CronDataIntervalTimetable("30 8 * * *", timezone="Asia/Shanghai"))
    due = shanghai(2026, 7, 2, 8, 30)
    found = due_time(dag, run_of(due, start=shanghai(2026, 7, 1, 8, 30)))
    assert found.due == due
    assert list(found.next_due) == [shanghai(2026, 7, 3, 8, 30), shanghai(2026, 7, 4, 8, 30)]


def test_a_daily_dag_stays_daily_when_the_clocks_go_forward():
    due = datetime(2026, 3, 28, 8, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    found = due_time(dag_of("30 8 * * *", BERLIN), run_of(due))
    assert found.next_due[0].astimezone(UTC) - due.astimezone(UTC) == timedelta(hours=23)
    assert resolve_auto(found) is Window.DAY


@pytest.mark.parametrize("schedule", [None, "@once", [Asset("s3://bucket/key")]], ids=["none", "once", "asset"])
def test_a_dag_without_a_schedule_of_time_has_no_next_run(schedule: Any):
    assert due_time(dag_of(schedule), run_of(shanghai(2026, 7, 1, 8, 30))).next_due == ()


@pytest.mark.parametrize(
    ("run_type", "cause", "window"),
    [
        ("scheduled", Cause.SCHEDULE, Window.SCHEDULE),
        ("backfill", Cause.SCHEDULE, Window.SCHEDULE),
        ("asset_triggered", Cause.ASSET, Window.DAY),
        ("dataset_triggered", Cause.ASSET, Window.DAY),
        ("manual", Cause.PERSON, Window.LATEST),
        ("operator_triggered", Cause.PERSON, Window.LATEST),
        ("asset_materialization", Cause.PERSON, Window.LATEST),
    ],
)
def test_what_started_the_run_decides_what_auto_means(run_type: str, cause: Cause, window: Window):
    found = due_time(dag_of("0 * * * *"), run_of(shanghai(2026, 7, 1, 8, 0), run_type=run_type))
    assert found.cause is cause
    assert resolve_auto(found) is window


def test_a_run_by_hand_between_two_due_times_has_the_schedules_next_one():
    at = shanghai(2026, 7, 1, 8, 17)
    found = due_time(dag_of("0 * * * *"), run_of(at, run_type="manual"))
    assert found.due == at
    assert found.next_due[0] == shanghai(2026, 7, 1, 9, 0)


def test_a_run_without_a_data_interval_is_due_when_it_was_to_run_after():
    after = shanghai(2026, 7, 1, 8, 5)
    run = SimpleNamespace(
        run_type="manual", data_interval_start=None, data_interval_end=None, run_after=after, start_date=None
    )
    assert due_time(dag_of(None), run) == DueTime(Cause.PERSON, after)


def test_without_a_dag_run_nothing_is_due():
    assert _airflow.due_time({}, dag_of("@daily")) == DueTime(Cause.UNKNOWN)
