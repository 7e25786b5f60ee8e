"""The outcome table of the sensor, row by row, in every mode, with and without ``soft_fail``."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_quickbi.testing import Fault

DEFERRED = "Pausing task as DEFERRED"
UNANSWERED = [Fault.html_503(), Fault.reset(), Fault.internal_error(), Fault.empty_502(), Fault.half_json()]


# SENT


def test_a_run_that_is_sent_is_a_success_with_the_run_as_xcom(wait, quickbi, at_look, run_of, expect):
    def prepare(mail_id):
        task_id = quickbi.add_run(mail_id, status="PROCESSING")
        at_look(mail_id, 2, lambda: quickbi.finish_run(task_id, "SENT"))

    ran = wait(prepare)

    expect.success(ran, {"hard": run_of("hard"), "soft": run_of("soft")})
    xcom = ran.xcoms()["hard"]
    assert isinstance(xcom["task_id"], str)
    assert datetime.fromisoformat(xcom["exec_time"]).utcoffset() == timedelta(hours=8)


def test_a_run_that_is_sent_at_the_first_look_ends_the_wait_there(wait, quickbi, poll_count, run_of, expect):
    ran = wait(quickbi.add_run)

    expect.success(ran, {"hard": run_of("hard"), "soft": run_of("soft")})
    assert len(poll_count("hard")) == len(poll_count("soft")) == 1
    assert DEFERRED not in ran.log


def test_an_old_run_is_a_success_with_a_warning_that_names_its_time_and_the_argument(wait, quickbi, ago, expect):
    ran = wait(lambda mail_id: quickbi.add_run(mail_id, exec_time=ago.day))

    assert set(ran.states.values()) == {"success"}
    assert len(ran.notified("before this DAG run", "executed_after", quickbi.runs("hard")[0]["exec_time"])) == 2


def test_a_status_that_nobody_knows_keeps_waiting_and_is_told(wait, quickbi, at_look, run_of, expect, mode, remembers):
    def prepare(mail_id):
        task_id = quickbi.add_run(mail_id, status="QUEUED")
        at_look(mail_id, 4, lambda: quickbi.finish_run(task_id, "SENT"))

    ran = wait(prepare)

    expect.success(ran, {"hard": run_of("hard"), "soft": run_of("soft")})
    notified = ran.notified("an undocumented status", "hard")
    assert len(notified) == (1 if remembers else 3)


# FAILED


def test_a_run_that_failed_is_final(wait, quickbi, at_look, run_of, expect):
    def prepare(mail_id):
        task_id = quickbi.add_run(mail_id, status="PROCESSING")
        at_look(mail_id, 2, lambda: quickbi.finish_run(task_id, "FAILED"))

    ran = wait(prepare)

    expect.final(ran, "QuickBIMailTaskFailed", run_of("hard")["task_id"], run_of("hard")["exec_time"], "FAILED")
    assert ran.error("hard").run.task_id == run_of("hard")["task_id"]
    assert ran.notified("Skipping", run_of("soft")["task_id"])


def test_a_run_that_failed_at_the_first_look_is_final(wait, quickbi, expect):
    ran = wait(lambda mail_id: quickbi.add_run(mail_id, status="FAILED"))

    expect.final(ran, "QuickBIMailTaskFailed", "FAILED")
    assert DEFERRED not in ran.log


def test_on_failed_wait_waits_for_a_later_run(wait, quickbi, at_look, run_of, expect):
    def prepare(mail_id):
        quickbi.add_run(mail_id, status="FAILED")
        at_look(mail_id, 2, lambda: quickbi.add_run(mail_id, status="PROCESSING"))
        at_look(mail_id, 3, lambda: quickbi.finish_run(run_of(mail_id)["task_id"], "SENT"))

    ran = wait(prepare, on_failed="wait")

    expect.success(ran, {"hard": run_of("hard"), "soft": run_of("soft")})
    assert len(quickbi.runs("hard")) == 2


# Nothing that counts, or not in time


def test_a_run_that_does_not_start_is_a_timeout_that_says_so(wait, expect, poll_count):
    ran = wait(start_timeout=0.5)

    expect.final(ran, "AirflowSensorTimeout", "none started within start_timeout", "hard")
    assert len(poll_count("hard")) >= 2


def test_an_old_run_does_not_count_as_started(wait, quickbi, ago, expect):
    ran = wait(
        lambda mail_id: quickbi.add_run(mail_id, exec_time=ago.day),
        executed_after=ago.hour,
        start_timeout=timedelta(seconds=0.5),
    )

    expect.final(
        ran, "AirflowSensorTimeout", "start_timeout", ago.hour.isoformat(), quickbi.runs("hard")[0]["exec_time"]
    )


def test_a_run_that_is_not_over_in_time_is_a_timeout_that_says_what_it_was_doing_after_a_last_look(
    wait, quickbi, poll_count, run_of, expect
):
    ran = wait(lambda mail_id: quickbi.add_run(mail_id, status="PROCESSING"), poke_interval=1000, timeout=2)

    expect.final(ran, "AirflowSensorTimeout", "timed out after 2 s", run_of("hard")["task_id"], "is PROCESSING")
    for mail_id in ("hard", "soft"):
        first, *_, last = poll_count(mail_id)
        assert last.monotonic_time - first.monotonic_time > 1


def test_a_run_that_the_last_look_finds_sent_is_a_success(wait, quickbi, at_look, poll_count, run_of, expect):
    def prepare(mail_id):
        task_id = quickbi.add_run(mail_id, status="PROCESSING")
        at_look(mail_id, 2, lambda: quickbi.finish_run(task_id, "SENT"))

    ran = wait(prepare, poke_interval=1000, timeout=2)

    expect.success(ran, {"hard": run_of("hard"), "soft": run_of("soft")})


def test_there_is_no_call_before_executed_after(wait, quickbi, run_of, expect):
    instant = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)

    ran = wait(lambda mail_id: quickbi.add_run(mail_id, exec_time=instant), executed_after=instant.isoformat())

    expect.success(ran, {"hard": run_of("hard"), "soft": run_of("soft")})
    assert min(call.wall_time for call in quickbi.calls) >= instant.timestamp()
    assert f"No poll before executed_after, {instant.isoformat()}" in ran.log


# Which run


def test_a_run_before_the_fence_does_not_count(wait, quickbi, at_look, ago, run_of, expect):
    def prepare(mail_id):
        quickbi.add_run(mail_id, exec_time=ago.day, status="SENT")
        at_look(mail_id, 2, lambda: quickbi.add_run(mail_id, exec_time=ago.hour, status="SENT"))

    ran = wait(prepare, executed_after=ago.hour)

    expect.success(ran, {"hard": run_of("hard"), "soft": run_of("soft")})
    assert datetime.fromisoformat(ran.xcoms()["hard"]["exec_time"]) == ago.hour


def test_the_wait_stays_with_the_run_that_it_has_seen(wait, quickbi, at_look, ago, expect, poll_count, remembers):
    seen = {}

    def prepare(mail_id):
        seen[mail_id] = quickbi.add_run(mail_id, exec_time=ago.hour, status="PROCESSING")
        at_look(mail_id, 2, lambda: quickbi.add_run(mail_id, exec_time=ago.now, status="PROCESSING"))
        at_look(mail_id, 3, lambda: quickbi.finish_run(seen[mail_id], "FAILED"))
        at_look(mail_id, 4, lambda: quickbi.finish_run(quickbi.runs(mail_id)[-1]["task_id"], "SENT"))

    ran = wait(prepare, executed_after=ago.day)

    if remembers:
        expect.final(ran, "QuickBIMailTaskFailed", seen["hard"])
        assert [call.params.get("TaskId") for call in poll_count("hard")] == [None, seen["hard"], seen["hard"]]
    else:
        assert set(ran.states.values()) == {"success"}


def test_quickbi_task_id_names_the_run(wait, quickbi, ago, poll_count, run_of, expect):
    quickbi.add_mail_task("Another", mail_id="other")
    named = quickbi.add_run("other", exec_time=ago.day, status="SENT")
    quickbi.add_run("other", exec_time=ago.hour, status="FAILED")

    ran = wait(mail_id="other", quickbi_task_id=int(named))

    expect.success(ran, {"hard": run_of("other", 0), "soft": run_of("other", 0)})
    assert {call.params["TaskId"] for call in poll_count("other")} == {named}


# Quick BI does not answer


def test_throttling_is_waited_out(wait, quickbi, run_of, expect):
    def prepare(mail_id):
        quickbi.add_run(mail_id)
        quickbi.fail("GetMailTaskStatus", Fault.throttled(), times=7, mail_id=mail_id)

    ran = wait(prepare)

    expect.success(ran, {"hard": run_of("hard"), "soft": run_of("soft")})
    assert quickbi.count(code="Throttling.User") == 14


def test_throttling_does_not_count_for_unreachable_timeout(wait, quickbi, expect):
    ran = wait(
        lambda mail_id: quickbi.fail("GetMailTaskStatus", Fault.throttled(), times=None, mail_id=mail_id),
        unreachable_timeout=0.1,
        timeout=1,
    )

    expect.retried(ran, "QuickBIUnavailable", "timed out after 1 s, and the last poll failed")


def test_a_service_that_does_not_answer_is_waited_out(wait, quickbi, run_of, expect):
    def prepare(mail_id):
        quickbi.add_run(mail_id)
        quickbi.fail("GetMailTaskStatus", *UNANSWERED, times=2, mail_id=mail_id)

    ran = wait(prepare)

    expect.success(ran, {"hard": run_of("hard"), "soft": run_of("soft")})


def test_a_service_that_answers_nothing_for_long_is_unavailable_and_the_task_is_retried(
    wait, quickbi, expect, remembers
):
    ran = wait(
        lambda mail_id: quickbi.fail("GetMailTaskStatus", *UNANSWERED[:2], times=None, mail_id=mail_id),
        unreachable_timeout=timedelta(seconds=0.5),
        timeout=120 if remembers else 1.5,
    )

    expect.retried(ran, "QuickBIUnavailable", "says nothing about the report")


def test_a_retry_after_an_outage_goes_on_in_the_same_window(airflow, quickbi, sensor, ago, run_of):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report", exec_time=ago.day - timedelta(hours=6))
    quickbi.fail("GetMailTaskStatus", *UNANSWERED[:2], times=None)

    def recovered(context):
        quickbi.clear_faults()
        quickbi.add_run("report")

    ran = airflow.run(
        lambda: sensor(
            "report", window="day", unreachable_timeout=timedelta(seconds=0.5), timeout=2, on_retry_callback=recovered
        ),
        retry_delay=timedelta(0),
    )

    assert ran.states == {"report": "success"}, ran.log
    assert ran.tries == {"report": 2}
    assert ran.xcoms() == {"report": run_of("report")}


def test_a_connection_that_cannot_be_read_for_a_while_ends_no_wait(
    airflow, quickbi, sensor, at_look, run_of, monkeypatch
):
    from airflow_provider_quickbi import exceptions
    from airflow_provider_quickbi.hooks import lookup

    there = quickbi.connection_json(status_calls_per_second=1000)
    quickbi.add_mail_task("report", mail_id="report")
    task_id = quickbi.add_run("report", status="PROCESSING")
    at_look("report", 1, lambda: monkeypatch.delenv("AIRFLOW_CONN_QUICKBI_DEFAULT"))
    at_look("report", 2, lambda: quickbi.finish_run(task_id))
    refused = []

    def unreadable(*args, **kwargs):
        refused.append(args)
        if len(refused) == 2:
            monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", there)
        return exceptions.QuickBIConnectionUnreadable(*args, **kwargs)

    monkeypatch.setattr(lookup, "QuickBIConnectionUnreadable", unreadable)
    ran = airflow.run(lambda: sensor("report"))

    assert ran.states == {"report": "success"}, ran.log
    assert ran.tries == {"report": 1}
    assert ran.xcoms() == {"report": run_of("report")}
    assert len(refused) == 2


def test_a_connection_that_stays_unreadable_is_retried_after_unreachable_timeout(
    airflow, quickbi, sensor, at_look, monkeypatch, remembers
):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report", status="PROCESSING")
    at_look("report", 1, lambda: monkeypatch.delenv("AIRFLOW_CONN_QUICKBI_DEFAULT"))

    ran = airflow.run(
        lambda: sensor("report", unreachable_timeout=0.3, timeout=120 if remembers else 1.5, soft_fail=True)
    )

    assert ran.states == {"report": "up_for_retry"}, ran.log
    assert type(ran.error("report")).__name__ == "QuickBIUnavailable"
    assert ran.notified("Connection 'quickbi_default' does not exist, or Airflow cannot read it")


# Quick BI refuses


def _rotate_secret(quickbi):
    quickbi.change_account(quickbi.access_key_id, access_key_secret="rotated")


def _skew_clock(quickbi):
    quickbi.clock.skew = 3600


REFUSALS = {
    "wrong secret": (_rotate_secret, "SignatureDoesNotMatch", "Check the AccessKey Secret"),
    "wrong clock": (_skew_clock, "InvalidTimeStamp.Expired", "Check this machine's clock"),
    "deleted mail task": (lambda quickbi: quickbi.remove_mail_task("hard"), "Mail.Not.Found", "Check mail_id"),
    "no RAM policy": (lambda quickbi: quickbi.deny("Forbidden.RAM"), "Forbidden.RAM", "Check the RAM policy"),
    "unknown code": (lambda quickbi: quickbi.deny("Never.Heard.Of"), "Never.Heard.Of", "Never.Heard.Of"),
}


@pytest.mark.parametrize(
    ("refusal", "poll_once"), [*((refusal, 1) for refusal in REFUSALS), ("wrong secret", 2), ("no RAM policy", 2)]
)
def test_a_refusal_is_final_and_says_what_to_do(refusal, poll_once, wait, quickbi, at_look, expect):
    refuse, code, hint = REFUSALS[refusal]
    quickbi.add_mail_task("The report", mail_id="hard")
    quickbi.add_run("hard", status="PROCESSING")
    at_look("hard", poll_once, lambda: refuse(quickbi))

    ran = wait(mails=False, mail_id="hard")

    expect.final(ran, "QuickBIRequestError", "GetMailTaskStatus", f"Code {code}", "RequestId", hint)
    assert ran.error("hard").code == code
    assert len(ran.error("hard").request_id) == 36
    assert quickbi.access_key_secret not in ran.log


# The arguments that Airflow's sensors have


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


def test_silent_fail_waits_for_a_service_that_does_not_answer_for_long(airflow, quickbi, run_of, sensor, at_look):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report")
    faulty = quickbi.fail("GetMailTaskStatus", Fault.reset(), times=None)
    begun = datetime.now(UTC)
    quickbi.when_called(
        "GetMailTaskStatus",
        lambda call: quickbi.faults.remove(faulty) if datetime.now(UTC) - begun > timedelta(seconds=1.5) else None,
    )

    ran = airflow.run(lambda: sensor("report", silent_fail=True, unreachable_timeout=0.1))

    assert ran.states == {"report": "success"}
    assert ran.xcoms() == {"report": run_of("report")}


def test_exponential_backoff_and_max_wait_space_the_looks(airflow, quickbi, mode, sensor, at_look, poll_count):
    quickbi.add_mail_task("report", mail_id="report")
    task_id = quickbi.add_run("report", status="PROCESSING")
    at_look("report", 4, lambda: quickbi.finish_run(task_id))

    ran = airflow.run(
        lambda: sensor("report", poke_interval=0.1, exponential_backoff=True, max_wait=timedelta(seconds=0.4))
    )

    assert ran.states == {"report": "success"}
    times = [call.monotonic_time for call in poll_count("report")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(gaps) == 3
    # The backoff begins at a second, which max_wait cuts; the first look of a trigger is spread over poke_interval.
    assert all(gap >= 0.39 for gap in gaps[1 if mode == "deferrable" else 0 :])


@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize("mode", ["poke", "deferrable"])  # of a rescheduled task only the running time counts
def test_execution_timeout_ends_a_try(mode, soft_fail, airflow, quickbi, sensor, expect):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report", status="PROCESSING")

    ran = airflow.run(lambda: sensor("report", soft_fail=soft_fail, execution_timeout=timedelta(seconds=1)))

    if soft_fail:
        assert ran.states == {"report": "skipped"}
    else:
        assert ran.states == {"report": "up_for_retry"}
        expect.raised(ran, "report", "AirflowTaskTimeout")


# Deferring


def test_a_first_look_that_is_throttled_defers(airflow, quickbi, run_of, poll_count, sensor_of):
    quickbi.add_mail_task("report", mail_id="report")
    quickbi.add_run("report")
    quickbi.fail("GetMailTaskStatus", Fault.throttled())

    ran = airflow.run(lambda: sensor_of("deferrable", "report"))

    assert ran.states == {"report": "success"}
    assert ran.xcoms() == {"report": run_of("report")}
    assert [call.code for call in poll_count("report")] == ["Throttling.User", "OK"]
