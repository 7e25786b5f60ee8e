"""The arguments that Airflow's own sensors have mean the same in every mode."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_quickbi.testing import Fault
from tests.datasets import both, dataset_in


@dataset_in("deferrable")
def test_never_fail_skips_whatever_happens(airflow, quickbi, mode, remembers, sensor):
    for mail_id in ("failed", "gone"):
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
    quickbi.add_run("failed", status="FAILED")
    quickbi.fail("GetMailTaskStatus", Fault.reset(), times=None, mail_id="gone")

    ran = airflow.run(
        lambda: [
            sensor("failed", never_fail=True),
            sensor("gone", never_fail=True, unreachable_timeout=0.2, timeout=120 if remembers else 0.5),
        ]
    )

    assert ran.states == {"failed": "skipped", "gone": "skipped"}


def test_silent_fail_waits_through_a_long_outage(airflow, quickbi, run_of, sensor, at_poll):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report")
    quickbi.fail("GetMailTaskStatus", Fault.reset(), times=None)
    begun = datetime.now(UTC)
    quickbi.when_called(
        "GetMailTaskStatus",
        lambda call: quickbi.clear_faults() if datetime.now(UTC) - begun > timedelta(seconds=1.5) else None,
    )

    ran = airflow.run(lambda: sensor("report", silent_fail=True, unreachable_timeout=0.1))

    assert ran.states == {"report": "success"}
    assert ran.xcoms() == {"report": run_of("report")}


def test_exponential_backoff_and_max_wait_space_the_polls(airflow, quickbi, mode, sensor, at_poll, poll_count):
    quickbi.add_mail_task("report", mail_id="report")
    task_id = quickbi.add_run("report", status="PROCESSING")
    at_poll("report", 4, lambda: quickbi.finish_run(task_id))

    ran = airflow.run(
        lambda: sensor("report", poke_interval=0.1, exponential_backoff=True, max_wait=timedelta(seconds=0.4))
    )

    assert ran.states == {"report": "success"}
    times = [call.monotonic_time for call in poll_count("report")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(gaps) == 3
    # The backoff starts at a second, which max_wait cuts; the first poll of a trigger is spread over poke_interval.
    assert all(gap >= 0.39 for gap in gaps[1 if mode == "deferrable" else 0 :])


@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize(  # of a rescheduled task only the running time counts
    ("kind", "mode"), [("mail", "poke"), ("mail", "deferrable"), ("dataset", "deferrable")], indirect=["kind"]
)
def test_execution_timeout_ends_a_try(mode, soft_fail, airflow, quickbi, sensor, expect):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report", status="PROCESSING")

    ran = airflow.run(
        lambda: sensor(  # the timeout comes between two polls, not inside of Airflow's code or a call
            "report", soft_fail=soft_fail, poke_interval=1000, execution_timeout=timedelta(seconds=1)
        )
    )

    if soft_fail:
        assert ran.states == {"report": "skipped"}
    else:
        assert ran.states == {"report": "up_for_retry"}
        expect.raised(ran, "report", "AirflowTaskTimeout")


# Deferring


@both
def test_a_first_poll_that_is_throttled_defers(airflow, quickbi, run_of, poll_count, sensor_of):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report")
    quickbi.fail("GetMailTaskStatus", Fault.throttled())

    ran = airflow.run(lambda: sensor_of("deferrable", "report"))

    assert ran.states == {"report": "success"}
    assert ran.xcoms() == {"report": run_of("report")}
    assert [call.code for call in poll_count("report")] == ["Throttling.User", "OK"]
