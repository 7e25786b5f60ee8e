"""A DAG may be scheduled by a dataset's refresh, and datasets do not queue with mail tasks."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from airflow_provider_quickbi._options import OptionError
from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import DatasetSubject, MailTaskSubject
from airflow_provider_quickbi._watch import stream as streams
from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.testing import LocalQuickBI
from airflow_provider_quickbi.triggers import watching
from airflow_provider_quickbi.triggers.quickbi import (
    QuickBIDatasetRefreshEventTrigger,
    QuickBIMailTaskEventTrigger,
    QuickBIMailTaskTrigger,
)
from tests.datasets import Datasets
from tests.test_event_trigger import KeptWithTheAsset, Watching, until

pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")

POLL = "QueryLastAccelerationEngineJob"


@pytest.fixture
def cubes(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch) -> Datasets:
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json())
    monkeypatch.setattr(streams, "_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(streams, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(watching, "HAND_OVER_SECONDS", 0.0)
    monkeypatch.setattr(watching, "_STORING", RetryPolicy(attempts=2, first_delay=0.001))
    monkeypatch.setattr(aio, "FIRST_POLL_SECONDS", 0.0)
    cubes = Datasets(quickbi)
    cubes.add_mail_task("Sales", mail_id="cube")
    return cubes


def watcher(**arguments: Any) -> QuickBIDatasetRefreshEventTrigger:
    """Make a watcher as the triggerer makes it, from what is stored."""
    given = {"dataset_id": "cube", "poll_interval": 0.01, **arguments}
    classpath, kwargs = QuickBIDatasetRefreshEventTrigger(**given).serialize()
    assert classpath == "airflow_provider_quickbi.triggers.quickbi.QuickBIDatasetRefreshEventTrigger"
    return QuickBIDatasetRefreshEventTrigger(**json.loads(json.dumps(kwargs)))


async def poll_again(cubes: Datasets, times: int = 3) -> None:
    seen = cubes.count(POLL)
    await until(lambda: cubes.count(POLL) >= seen + times)


def test_a_refresh_fires_once_when_it_has_succeeded(cubes: Datasets) -> None:
    async def scenario() -> None:
        cubes.add_run("cube")  # before the watcher started: not emitted
        async with Watching(watcher()) as watched:
            await poll_again(cubes)
            task_id = cubes.add_run("cube", status="PROCESSING")
            await poll_again(cubes)
            assert watched.payloads == []
            cubes.finish_run(task_id)
            await until(lambda: bool(watched.payloads))
            await poll_again(cubes, 5)
        assert watched.payloads == [cubes.xcom("cube")]
        assert set(watched.payloads[0]) == {"dataset_id", "job_id", "status", "started_at", "ended_at"}

    asyncio.run(scenario())


def test_a_failed_extraction_fires_only_if_statuses_name_it(cubes: Datasets) -> None:
    async def scenario() -> None:
        async with Watching(watcher()) as by_default, Watching(watcher(statuses=["failure", "canceled"])) as failed:
            await poll_again(cubes, 4)
            cubes.add_run("cube", outcome="FAILED", duration=0)
            await until(lambda: bool(failed.payloads))
            await poll_again(cubes, 4)
        assert [payload["status"] for payload in failed.payloads] == ["FAILURE"]
        assert by_default.payloads == []

    asyncio.run(scenario())


def test_what_was_seen_survives_a_restart_of_the_triggerer(cubes: Datasets) -> None:
    async def scenario() -> None:
        store = KeptWithTheAsset()
        async with Watching(watcher(), store) as first:
            await poll_again(cubes)
            cubes.add_run("cube")
            await until(lambda: bool(first.payloads))
            await until(lambda: store.holds("SUCCESS"))
        cubes.clock.advance(5)
        cubes.add_run("cube")  # while nobody watched
        async with Watching(watcher(), store) as second:
            await until(lambda: bool(second.payloads))
            await poll_again(cubes)
        assert [payload["job_id"] for payload in second.payloads] == [cubes.xcom("cube")["job_id"]]

    asyncio.run(scenario())


def test_watchers_of_datasets_share_a_poll_loop_that_is_not_that_of_mail_tasks() -> None:
    mails = QuickBIMailTaskEventTrigger(mail_id="cube")
    assert watcher().shared_stream_key() == watcher(dataset_id="other").shared_stream_key()
    assert watcher().shared_stream_key() != mails.shared_stream_key()


@pytest.mark.parametrize(
    "wrong",
    [
        {"dataset_id": " "},
        {"dataset_id": None},
        {"dataset_id": "{{ x }}"},
        {"statuses": []},
        {"statuses": "SENT"},
        {"statuses": "CANCELLED"},
    ],
)
def test_a_watcher_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((OptionError, ValueError)):
        watcher(**wrong)


def trigger(subject: MailTaskSubject | DatasetSubject) -> QuickBIMailTaskTrigger:
    now = time.time()
    wait = WaitState(subject=subject, selector=RunSelector(), since=now, finish_by=now + 60)
    return QuickBIMailTaskTrigger(
        quickbi_conn_id="quickbi_default", group=encode_group(WaitGroup.of([wait])), poke_interval=0.1
    )


def test_a_dataset_does_not_wait_in_the_queue_of_mail_tasks(cubes: Datasets) -> None:
    """Thirty waits for mails share one call per second; the dataset's wait has finished long before them."""

    async def first_event(wait: QuickBIMailTaskTrigger) -> Any:
        return await anext(aiter(wait.run()))

    async def scenario() -> tuple[float, Any]:
        mails = []
        for number in range(30):
            cubes._quickbi.add_mail_task(f"Report {number}", mail_id=f"report-{number}")
            mails.append(asyncio.create_task(first_event(trigger(MailTaskSubject(f"report-{number}")))))
        await until(lambda: cubes._quickbi.count("GetMailTaskStatus") >= 1)
        cubes.when_called("GetMailTaskStatus", lambda call: cubes.add_run("cube") and None, nth=4)
        began = time.monotonic()
        event = await first_event(trigger(DatasetSubject("cube")))
        for mail in mails:
            mail.cancel()
        await asyncio.gather(*mails, return_exceptions=True)
        return time.monotonic() - began, event

    took, event = asyncio.run(scenario())
    (evaluation,) = event.payload["group"]["evaluations"]
    assert evaluation["outcome"] == "succeeded"
    assert cubes.count(POLL) >= 4
    assert cubes._quickbi.count("GetMailTaskStatus") < 10
    assert took < 8
