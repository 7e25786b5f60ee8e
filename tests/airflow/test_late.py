"""A report that is late: one notification, and the wait goes on."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest

from airflow_provider_quickbi.testing import Fault

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])


@pytest.fixture
def notified(quickbi):
    """Record what an ``on_late_callback`` gets; the run is sent some polls later."""

    class Notified(list):
        looks_until_sent = 3

        def __call__(self, context):
            self.append(context["quickbi_late"])
            poll_count = itertools.count(1)

            def record(call):
                if next(poll_count) == self.looks_until_sent:
                    quickbi.finish_run(quickbi.runs("report")[-1]["task_id"])

            quickbi.when_called("GetMailTaskStatus", record)

    return Notified()


@pytest.fixture
def report(quickbi):
    quickbi.add_mail_task("report", mail_id="report")
    return quickbi.add_run("report", status="PROCESSING")


def test_a_delivery_that_becomes_late_is_notified_once(airflow, report, sensor, notified, run_of, remembers):
    # A rescheduled sensor that remembers nothing notifies in the first poke_interval after the deadline.
    poke_interval, notified.looks_until_sent = (0.05, 3) if remembers else (4, 1)
    deadline = datetime.now(UTC) + timedelta(seconds=1)

    ran = airflow.run(
        lambda: sensor("report", deadline=deadline.isoformat(), on_late_callback=notified, poke_interval=poke_interval)
    )

    assert ran.states == {"report": "success"}
    assert ran.xcoms() == {"report": run_of("report")}
    assert len(notified) == 1
    assert f"Late: Mail task report: Run {report}" in notified[0]
    assert len(ran.notified("Late: Mail task report", "Still waiting.")) == 1


def test_a_delivery_that_is_late_from_the_start_is_notified_once(airflow, report, sensor, notified):
    deadline = datetime.now(UTC) - timedelta(hours=1)

    ran = airflow.run(lambda: sensor("report", deadline=deadline, on_late_callback=[notified]))

    assert ran.states == {"report": "success"}
    assert len(notified) == 1


def test_a_retry_does_not_notify_again_where_airflow_keeps_what_was_notified(airflow, quickbi, report, sensor, mode):
    if mode == "deferrable" and AIRFLOW == (3, 0):
        pytest.skip("a retry resumes with the event of the failed try there: apache/airflow#56704")
    notified = []
    unanswered = 1 if mode == "deferrable" else 5  # so that the look after the first one fails, tried again or not
    quickbi.when_called("GetMailTaskStatus", lambda call: quickbi.finish_run(report), nth=1 + unanswered + 2)

    def notify(context):
        notified.append(context["quickbi_late"])
        if len(notified) == 1:
            quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=unanswered)

    deadline = datetime.now(UTC) - timedelta(hours=1)
    ran = airflow.run(
        lambda: sensor("report", deadline=deadline, on_late_callback=notify, unreachable_timeout=0),
        retries=1,
        retry_delay=timedelta(0),
    )

    assert ran.states == {"report": "success"}
    assert ran.notified("QuickBIUnavailable")
    # Below 3.3 each try may notify; a rescheduled one knows by the time that the first try has.
    assert len(notified) in ((1,) if AIRFLOW >= (3, 3) else (1, 2))


def test_a_callback_that_fails_ends_nothing_and_keeps_nobody_from_being_notified(airflow, report, sensor, notified):
    def fail(context):
        raise RuntimeError("the pager is broken")

    ran = airflow.run(
        lambda: sensor("report", deadline=datetime.now(UTC) - timedelta(hours=1), on_late_callback=[fail, notified])
    )

    assert ran.states == {"report": "success"}
    assert len(notified) == 1
    assert "the pager is broken" in ran.log


def test_nobody_is_notified_of_a_delivery_in_time(airflow, quickbi, report, sensor, notified, at_poll):
    at_poll("report", 3, lambda: quickbi.finish_run(report))

    ran = airflow.run(
        lambda: sensor("report", deadline="{{ macros.datetime(2100, 1, 1).isoformat() }}", on_late_callback=notified)
    )

    assert ran.states == {"report": "success"}
    assert notified == []


def test_the_limits_of_the_wait_stay_after_somebody_was_notified(airflow, report, sensor, notified, mode):
    notified.looks_until_sent = 10_000
    # A rescheduled sensor counts from the start of its task, and its first poll must still be in time.
    timeout = 4 if mode == "reschedule" else 0.8

    ran = airflow.run(
        lambda: [
            sensor(
                "report", deadline=datetime.now(UTC) - timedelta(hours=1), on_late_callback=notified, timeout=timeout
            ),
        ]
    )

    assert ran.states == {"report": "failed"}
    assert type(ran.error("report")).__name__ == "AirflowSensorTimeout"
    assert len(notified) == 1


def test_execution_timeout_stays_after_a_late_notification(airflow, report, sensor_of, notified):
    notified.looks_until_sent = 10_000

    ran = airflow.run(
        lambda: sensor_of(
            "deferrable",
            "report",
            deadline=datetime.now(UTC) - timedelta(hours=1),
            on_late_callback=notified,
            execution_timeout=timedelta(seconds=4),  # the first poll must still be in time
        )
    )

    assert ran.states == {"report": "up_for_retry"}
    assert type(ran.error("report")).__name__ == "AirflowTaskTimeout"
    assert len(notified) == 1


def test_a_callback_that_outlasts_the_timeout_takes_no_last_poll_away(airflow, quickbi, report, sensor_of, run_of):
    """Airflow itself would say that the sensor timed out, without another poll."""

    def notify(context):
        quickbi.finish_run(report)
        time.sleep(1.1)

    ran = airflow.run(
        lambda: sensor_of("poke", "report", deadline=datetime.now(UTC), on_late_callback=notify, timeout=1)
    )

    assert ran.states == {"report": "success"}, ran.log
    assert ran.xcoms() == {"report": run_of("report")}
