"""What a finished task leaves: its XCom, its record, and what clearing it, timeouts, templates and events do."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout

from airflow_provider_quickbi._send import attempt
from airflow_provider_quickbi.exceptions import (
    QuickBIConnectionError,
    QuickBIDatasetRefreshFailed,
    QuickBIMailTaskFailed,
    QuickBIStartUnknown,
    QuickBIUnavailable,
)
from airflow_provider_quickbi.testing import Fault
from tests.datasets import STATUSES, both

from .tries import DAY, Case, Crash, Task, deferred, held, recorded, unrecorded


@both
@pytest.mark.parametrize("duration", [0, 240])
def test_the_xcom_is_the_run_in_every_mode(duration: float, case: Case) -> None:
    case.start_with(duration=duration)
    result = case.task().run()
    assert result == case.newest()
    begin = "2026-03-02T09:00:00+08:00"
    if case.kind == "mail":
        assert set(result) == {"mail_id", "task_id", "status", "exec_time"}
        assert (result["status"], result["exec_time"], type(result["task_id"])) == ("SENT", begin, str)
    else:
        assert set(result) == {"dataset_id", "job_id", "status", "started_at", "ended_at"}
        assert (result["status"], result["started_at"]) == ("SUCCESS", begin)
        assert result["ended_at"] == ("2026-03-02T09:04:00+08:00" if duration else begin)


@both
@pytest.mark.parametrize(("duration", "status"), [(240, "PROCESSING"), (0, "SENT")])
@pytest.mark.parametrize("appears_after", [0, 90])
def test_without_waiting_the_xcom_is_the_run_as_first_seen(
    appears_after: float, duration: float, status: str, case: Case
) -> None:
    case.start_with(duration=duration, appears_after=appears_after)
    task = case.task(wait_for_completion=False)
    result = task.run()
    assert case.starts() == 1
    assert case.run_id(result) == case.run_id(case.newest())
    assert result["status"] == (status if case.kind == "mail" else STATUSES[status])
    assert result.keys() == case.newest().keys()
    assert case.world.elapsed() < 240
    assert not task.has_unfinished_record


@both
@recorded
def test_without_waiting_a_retry_gives_the_same_run(case: Case) -> None:
    case.die_at(attempt, "count_outcome")
    task = case.task(wait_for_completion=False)
    result = task.run()
    assert len(task.errors) == 1
    assert (case.starts(), case.run_id(result)) == (1, case.run_id(case.newest()))


@both
def test_the_error_of_a_failed_run_has_the_run(case: Case) -> None:
    case.start_with(outcome="FAILED")
    raised: Any
    error = QuickBIMailTaskFailed if case.kind == "mail" else QuickBIDatasetRefreshFailed
    with pytest.raises(error) as raised:
        case.task().run()
    assert raised.value.run.as_dict() == case.newest()
    assert ("java.sql.SQLException" in str(raised.value)) is (case.kind == "dataset")


# Clearing


@both
@pytest.mark.parametrize("end", ["success", "failed", "timeout", "refused"])
def test_clearing_a_finished_task_sends_a_new_mail(end: str, case: Case) -> None:
    task = case.task(timeout=1000, retries=2)
    if end == "failed":
        case.start_with(outcome=["FAILED", "SENT"])
    elif end == "timeout":
        case.start_with(duration=2000)
        case.world.after(500, lambda: case.start_with(duration=10))
    elif end == "refused":
        denied = Fault.error("InvalidAccessKeyId.NotFound")
        case.world.after(70, lambda: case.fail("GetMailTaskStatus", denied, times=9))
    if end == "success":
        task.run()
    else:
        with pytest.raises((AirflowFailException, AirflowSensorTimeout)):
            task.run()
        assert len(task.errors) == 1
    assert not task.has_unfinished_record
    case.world.advance(1000)
    case.quickbi.clear_faults()
    task.clear()
    result = task.run()
    assert (case.starts(), result) == (2, case.newest())
    assert result["status"] == case.succeeded
    assert not task.has_unfinished_record


@both
def test_clearing_sends_a_new_mail_each_time_even_within_a_second(case: Case) -> None:
    case.quickbi.status_list = 10
    case.start_with(duration=0)
    task = case.task()
    for number in range(1, 4):
        assert task.run() == case.newest()
        assert case.starts() == number
        task.clear()


@both
@recorded
@pytest.mark.parametrize("error", [QuickBIUnavailable, QuickBIStartUnknown])
def test_clearing_a_task_that_does_not_know_what_it_sent_polls_before_it_sends(
    error: type[Exception], case: Case
) -> None:
    case.fail("ManualRunMailTask", Fault.answer_lost())
    if error is QuickBIUnavailable:
        case.quickbi.when_called(
            "ManualRunMailTask", lambda call: case.fail("GetMailTaskStatus", Fault.html_503(), times=None)
        )
    else:
        case.start_with(appears_after=400)
    task = case.task(retries=0, unreachable_timeout=200)
    with pytest.raises(error):
        task.run()
    case.quickbi.clear_faults()
    task.clear()
    assert task.run() == case.newest()
    assert case.starts() == 1


@both
@recorded
@pytest.mark.parametrize("known", [True, False], ids=["run known", "run not known"])
def test_clearing_a_task_that_was_stopped_polls_for_its_run_only_while_that_may_be_what_is_wanted(
    known: bool, case: Case
) -> None:
    """The worker is killed, or somebody marks the task as failed: nothing notifies the task that it has ended."""

    def stopped() -> Task:
        task = case.task(retries=0, timeout=3600)
        case.die_at(task.store, "set", 3 if known else 2, after=True)
        with pytest.raises(Crash):
            task.run()
        case.close()
        return task

    task = stopped()
    case.world.advance(1800)
    task.clear()
    assert (task.run(), case.starts()) == (case.newest(), 1)

    task = stopped()
    assert case.starts() == 2
    case.world.advance(2 * DAY.total_seconds())
    case.quickbi.add_run(case.mail_id, exec_time=datetime.fromtimestamp(case.world.now, UTC) - DAY)
    task.clear()
    assert (task.run(), case.starts()) == (case.newest(), 3)


# Timeouts and connections


@both
@deferred
def test_execution_timeout_ends_a_deferred_wait_and_the_retry_attaches_to_the_run(case: Case) -> None:
    case.start_with(duration=900)
    task = case.task(execution_timeout=timedelta(minutes=10))
    with pytest.raises(AirflowTaskTimeout, match=r"execution_timeout is over.*(PROCESSING|RUNNING)"):
        task.attempt()
    assert case.world.elapsed() == pytest.approx(600, abs=1)
    assert task.retry() == case.newest()
    assert case.starts() == 1


@deferred
def test_execution_timeout_ends_a_pause_before_the_start(case: Case) -> None:
    case.quickbi.limit_manual_starts(case.mail_id, minutes=60)
    task = case.task(execution_timeout=timedelta(minutes=10), retries=0)
    with pytest.raises(AirflowTaskTimeout):
        task.attempt()
    assert case.world.elapsed() == pytest.approx(600, abs=1)
    assert case.starts() == 0


@both
@deferred
def test_a_connection_that_breaks_while_the_task_waits_fails_for_good_and_says_what_was_sent(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = case.task()
    wait = task.wait_in_the_triggerer

    def wait_without_connection(deferred: Any) -> Any:
        monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", '{"conn_type": "quickbi"}')
        return wait(deferred)

    monkeypatch.setattr(task, "wait_in_the_triggerer", wait_without_connection)
    with pytest.raises(QuickBIConnectionError, match=r"login .*is missing.*The (mail|refresh) was started\."):
        task.run()
    assert case.starts() == 1
    # Clearing the task looks for the run before it sends.
    assert task.has_unfinished_record == (case.store is not None)


# Templates


@held
@unrecorded
@pytest.mark.parametrize(
    ("argument", "rendered", "says"),
    [
        ("deadline", "soon", "deadline is 'soon'"),
        ("mail_id", None, "both mail_id and subscribe_name rendered empty"),
    ],
    ids=["deadline", "mail_id"],
)
def test_a_template_that_renders_to_nonsense_fails_for_good_before_anything_is_sent(
    argument: str, rendered: str | None, says: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = case.task() if argument == "mail_id" else case.task(deadline="{{ ds }}")
    make = task.operator

    def render() -> Any:
        operator = make()
        setattr(operator, argument, rendered)
        return operator

    monkeypatch.setattr(task, "operator", render)
    with pytest.raises(AirflowFailException, match=says):
        task.run()
    assert case.starts() == 0


# Kills and events


@held
@unrecorded
def test_a_task_that_is_killed_says_that_the_mail_is_still_sent(case: Case, log: Any) -> None:
    case.task().operator().on_kill()
    assert "a started mail is still sent" in log.text


@deferred
@unrecorded
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
def test_an_event_that_is_not_understood_is_no_success_and_starts_nothing(event: Any, case: Case) -> None:
    task = case.task()
    with pytest.raises((RuntimeError, ValueError)):
        task.operator().execute_complete(task.context(), event=event)
    assert case.starts() == 0


@both
@deferred
@recorded
def test_an_event_of_an_unknown_kind_is_no_success(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    task = case.task()
    wait = task.wait_in_the_triggerer
    kinds = iter(["delivered"])
    monkeypatch.setattr(
        task,
        "wait_in_the_triggerer",
        lambda deferred: {**(event := wait(deferred)), "kind": next(kinds, event["kind"])},
    )
    result = task.run()
    assert [type(error) for error in task.errors] == [RuntimeError]
    assert (case.starts(), result) == (1, case.newest())


@both
@recorded
@pytest.mark.parametrize("end", ["failed", "timeout", "none appeared"])
def test_a_failure_that_is_not_recorded_is_reached_again(end: str, case: Case) -> None:
    shapes: dict[str, dict[str, Any]] = {
        "failed": {"outcome": "FAILED"},
        "timeout": {"duration": math.inf},
        "none appeared": {"appears_after": 10**6},
    }
    case.start_with(**shapes[end])
    task = case.task(timeout=600)
    task.die_once_before_recording()
    with pytest.raises((AirflowFailException, AirflowSensorTimeout)):
        task.run()
    assert [type(error) for error in task.errors][:1] == [Crash]
    assert len(task.errors) == 2
    assert case.starts() == 1


@both
@pytest.mark.parametrize("wait_for_completion", [True, False])
def test_a_success_that_is_not_recorded_is_reached_again(wait_for_completion: bool, case: Case) -> None:
    """The worker is killed, or a hook of the author's fails, when the operator has returned its result."""
    task = case.task(wait_for_completion=wait_for_completion)
    task.die_once_before_recording()
    result = task.run()
    assert [type(error) for error in task.errors] == [Crash]
    assert case.starts() == 1
    assert (case.run_id(result), result["status"]) == (case.run_id(case.newest()), case.newest()["status"])
    task.clear()
    assert case.run_id(task.run()) != case.run_id(result)
    assert case.starts() == 2
