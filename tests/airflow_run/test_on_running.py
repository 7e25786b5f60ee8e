"""A run of the mail task is under way when ours is to be started: waited for, attached to, skipped or refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_quickbi._send import monitor
from airflow_provider_quickbi.exceptions import QuickBIRunFailed
from airflow_provider_quickbi.testing import Fault

SEEN = "seen by its status"
UNSEEN = "known only by the refusal"


@pytest.fixture(params=[SEEN, UNSEEN])
def other(request: pytest.FixtureRequest, quickbi: Any, mail_id: str, world: Any) -> str:
    """A run that began ten seconds ago, takes two minutes, and shows up at once or after a minute."""
    task_id = quickbi.add_run(mail_id, status="PROCESSING", appears_after=0 if request.param == SEEN else 60)
    world.advance(10)
    world.after(110, lambda: quickbi.finish_run(task_id, "SENT"))
    return str(task_id)


@pytest.mark.parametrize("ends", ["SENT", "FAILED"])
def test_wait_lets_the_run_under_way_finish_and_then_starts_ours(
    ends: str, task: Any, other: str, quickbi: Any, mail_id: str, world: Any, starts: Any, newest: Any
) -> None:
    world.after(105, lambda: quickbi.finish_run(other, ends))
    result = task.run()
    assert (starts(), result) == (1, newest())
    assert result["task_id"] != other
    assert quickbi.runs(mail_id)[-1]["origin"] == "manual"
    assert world.elapsed() >= 110 + 240
    assert task.errors == []
    assert not task.noted


def test_attach_joins_the_run_under_way_and_starts_none(
    make_task: Any, store: Any, deferrable: bool, other: str, starts: Any, newest: Any
) -> None:
    task = make_task(store=store, deferrable=deferrable, on_running="attach")
    result = task.run()
    assert starts() == 0
    assert result == newest()
    assert result["task_id"] == other
    assert not task.noted


def test_attach_joins_the_same_run_again_after_a_crash(
    make_task: Any, new_store: Any, deferrable: bool, other: str, starts: Any, die_at: Any, crash: Any
) -> None:
    task = make_task(store=new_store(), deferrable=deferrable, on_running="attach")
    die_at(task, "wait_in_the_triggerer") if deferrable else die_at(monitor, "wait_until_finished")
    task.retry_delay = 300
    result = task.run()
    assert [type(error) for error in task.errors] == [crash]
    assert (starts(), result["task_id"]) == (0, other)


@pytest.mark.parametrize(("on_running", "error"), [("skip", AirflowSkipException), ("fail", AirflowFailException)])
def test_skip_and_fail_start_nothing_and_leave_no_note(
    on_running: str, error: type[Exception], make_task: Any, store: Any, deferrable: bool, other: str, starts: Any
) -> None:
    task = make_task(store=store, deferrable=deferrable, on_running=on_running)
    with pytest.raises(error, match=rf'nothing was started \(on_running="{on_running}"\)'):
        task.run()
    assert starts() == 0
    assert not task.noted
    assert task.deferrals == []


def test_waiting_for_a_run_under_way_holds_no_worker(
    make_task: Any, store: Any, other: str, world: Any, starts: Any
) -> None:
    task = make_task(store=store, deferrable=True)
    task.run()
    assert starts() == 1
    assert sum(world.slept) < 1
    assert all(deferral.timeout.total_seconds() > 900 for deferral in task.deferrals)


def test_attach_starts_ours_if_the_run_that_was_in_the_way_never_shows_up(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    quickbi.refuse_manual_start(mail_id, "MailTask.Already.Running")
    result = make_task(store=store, deferrable=deferrable, on_running="attach").run()
    assert (starts(), result) == (1, newest())


def test_a_run_that_never_ends_is_waited_for_until_the_timeout_and_nothing_is_sent(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any
) -> None:
    quickbi.add_run(mail_id, status="PROCESSING", duration=math.inf)
    task = make_task(store=store, deferrable=deferrable, timeout=600)
    with pytest.raises(AirflowSensorTimeout, match=r"is PROCESSING\. Nothing was sent\."):
        task.run()
    assert starts() == 0
    assert not task.noted


def test_being_refused_for_ever_ends_with_the_timeout(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, world: Any
) -> None:
    quickbi.refuse_manual_start(mail_id, "MailTask.Already.Running", times=None)
    task = make_task(store=store, deferrable=deferrable, timeout=600)
    with pytest.raises(AirflowSensorTimeout, match=r"could be started\. Nothing was sent\."):
        task.run()
    assert starts() == 0
    assert world.elapsed() == pytest.approx(600, abs=1)
    assert quickbi.count("ManualRunMailTask") == 10


def test_a_refusal_because_of_the_run_of_an_earlier_try_joins_that_run_and_does_not_wait_to_send_again(
    make_task: Any, new_store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, newest: Any
) -> None:
    """The run of the first try shows up so late that the retry has already tried to start another one."""
    quickbi.set_manual_start(mail_id, appears_after=800)
    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    task = make_task(store=new_store(), deferrable=deferrable)
    result = task.run()
    assert len(task.errors) == 1
    assert quickbi.count("ManualRunMailTask") == 2
    assert (starts(), result) == (1, newest())


@pytest.mark.parametrize("on_running", ["skip", "fail", "attach", "wait"])
def test_the_run_of_an_earlier_try_is_joined_whatever_on_running_says(
    on_running: str,
    make_task: Any,
    new_store: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=800)
    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    task = make_task(store=new_store(), deferrable=deferrable, on_running=on_running)
    result = task.run()
    assert (starts(), result) == (1, newest())


def test_a_status_that_nobody_knows_counts_as_under_way(
    task: Any, quickbi: Any, mail_id: str, world: Any, starts: Any
) -> None:
    other = quickbi.add_run(mail_id, status="QUEUED")
    world.after(100, lambda: quickbi.finish_run(other, "FAILED"))
    task.run()
    assert starts() == 1
    assert world.elapsed() >= 100 + 240


def test_an_attached_run_that_failed_is_no_reason_to_send_in_the_same_try(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, world: Any, starts: Any, newest: Any
) -> None:
    other = quickbi.add_run(mail_id, status="PROCESSING")
    world.after(100, lambda: quickbi.finish_run(other, "FAILED"))
    task = make_task(store=store, deferrable=deferrable, on_running="attach", on_failed="retry")
    result = task.run()
    assert [type(error) for error in task.errors] == [QuickBIRunFailed]
    assert (starts(), result) == (1, newest())
