"""What becomes of a wait and of a mail when the process that cares for it is killed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psutil
import pytest

from airflow_provider_quickbi._airflow import triggers_start_tasks
from airflow_provider_quickbi.testing import DOCUMENTED_CALLS_PER_SECOND, Call, Fault, LocalQuickBI
from tests.live.runs import Run, start_calls, status_calls, worker_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dev.standalone import Airflow
    from tests.live.conftest import Component


def process_that_called(airflow: Airflow, call: Call) -> psutil.Process:
    """Return the process that holds the client's end of a call's connection."""
    for process in airflow.processes():
        with suppress(psutil.Error):
            if any(end.laddr and end.laddr.port == call.remote_port for end in process.net_connections("tcp")):
                return process
    raise AssertionError(f"Nobody holds port {call.remote_port}")


@pytest.fixture
def unlimited(quickbi: LocalQuickBI) -> Iterator[None]:
    """Nothing is throttled, so that each task sees its run before it is deferred and is pinned to it."""
    quickbi.limit_calls(None)
    yield
    quickbi.limit_calls(DOCUMENTED_CALLS_PER_SECOND)


@pytest.mark.usefixtures("unlimited")
def test_waits_end_rightly_although_the_triggerer_is_killed_and_their_runs_end_meanwhile(
    quickbi: LocalQuickBI, trigger: Callable[..., Run], triggerer: Component
) -> None:
    waited = quickbi.add_mail_task("Waited for", mail_id="live-waited")
    counts = quickbi.add_run(waited, status="PROCESSING")
    sent = quickbi.add_mail_task("Sent", mail_id="live-sent", run_duration=float("inf"))
    wait = trigger("live_wait", {"mail_id": waited})
    send = trigger("live_send", {"mail_id": sent})
    wait.reaches("wait", "deferred")
    send.reaches("send", "deferred")
    wait.sees(lambda: len(status_calls(quickbi, waited)) > 1, "the triggerer polls")

    triggerer.kill()
    started = quickbi.runs(sent)[0]["task_id"]
    quickbi.finish_run(counts)
    quickbi.finish_run(started)
    quickbi.add_run(waited, exec_time=datetime.now(UTC) + timedelta(seconds=1))  # later ones, which do not count
    quickbi.add_run(sent, exec_time=datetime.now(UTC) + timedelta(seconds=1))
    before = quickbi.count("GetMailTaskStatus")
    triggerer.start()
    wait.succeed()
    send.succeed()

    assert quickbi.count("GetMailTaskStatus") > before
    assert wait.xcom("wait")["task_id"] == counts
    assert send.xcom("send")["task_id"] == started
    assert [task["try_number"] for task in wait.tasks() + send.tasks()] == [1, 1]
    assert len(start_calls(quickbi, sent)) == 1


def test_a_mail_is_not_sent_again_when_the_worker_is_killed_right_after_it_was_started(
    airflow: Airflow, quickbi: LocalQuickBI, trigger: Callable[..., Run]
) -> None:
    mail_id = quickbi.add_mail_task("Once in spite of all", mail_id="live-killed", run_duration=3)
    quickbi.fail("ManualRunMailTask", Fault.hang(processed=True), mail_id=mail_id)

    run = trigger("live_send", {"mail_id": mail_id})
    call = run.sees(lambda: start_calls(quickbi, mail_id), "the mail is started")[0]
    assert quickbi.starts(mail_id) == 1
    worker = process_that_called(airflow, call)
    assert "airflow worker" in " ".join(worker.cmdline())
    worker.kill()
    run.succeed()

    task = run.tasks("send")[0]
    assert (task["state"], task["try_number"]) == ("success", 2)
    assert run.xcom("send")["task_id"] == quickbi.runs(mail_id)[0]["task_id"]
    assert len(start_calls(quickbi, mail_id)) == quickbi.starts(mail_id) == quickbi.mails_sent(mail_id) == 1


@pytest.mark.skipif(not triggers_start_tasks(), reason="Airflow 3.3 and later")
@pytest.mark.usefixtures("unlimited")
def test_waits_that_take_no_worker_are_not_lost_with_the_scheduler_and_the_triggerer(
    airflow: Airflow, quickbi: LocalQuickBI, trigger: Callable[..., Run], scheduler: Component, triggerer: Component
) -> None:
    mail_ids = [quickbi.add_mail_task(f"Many {number}", mail_id=f"live-many-{number}") for number in range(8)]
    for mail_id in mail_ids:
        quickbi.add_run(mail_id, exec_time=datetime.now(UTC) - timedelta(days=1))  # yesterday's, which does not count
    began = datetime.now(UTC).replace(microsecond=0)

    run = trigger("live_many", {"executed_after": began.isoformat()})
    run.sees(lambda: "deferred" in run.states().values(), "waits start")
    scheduler.kill()
    triggerer.kill()
    counts = {mail_id: quickbi.add_run(mail_id, status="PROCESSING") for mail_id in mail_ids}
    scheduler.start()
    triggerer.start()
    run.sees(lambda: all(status_calls(quickbi, mail_id) for mail_id in mail_ids), "each is polled")

    for mail_id in mail_ids:
        quickbi.finish_run(counts[mail_id])
    run.sees(lambda: "success" in run.states().values(), "waits end")
    scheduler.kill()
    triggerer.kill()
    for mail_id in mail_ids:
        quickbi.add_run(mail_id, outcome="FAILED", exec_time=datetime.now(UTC) + timedelta(seconds=1))
    scheduler.start()
    triggerer.start()
    run.succeed()

    assert [run.xcom(task["task_id"])["task_id"] for task in run.tasks()] == list(counts.values())
    assert {task["try_number"] for task in run.tasks()} == {1}
    assert sum(worker_starts(airflow, run, task["task_id"]) for task in run.tasks()) == 0
