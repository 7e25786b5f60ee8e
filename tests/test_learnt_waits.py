"""Waits in the triggerer learn how long runs take, and the calls go where that matters."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.schedule import Duration
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.shared_client import DURATIONS
from airflow_provider_quickbi._wait.state import WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.testing import LocalQuickBI
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

ACTION = "GetMailTaskStatus"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "FIRST_POLL_SECONDS", 0.0)


def mail_task(quickbi: LocalQuickBI, name: str, age: float) -> str:
    """Add a mail task with a run that started some seconds ago and goes on."""
    mail_id = quickbi.add_mail_task(name)
    quickbi.add_run(mail_id, exec_time=datetime.now(UTC) - timedelta(seconds=age), status="PROCESSING")
    return mail_id


async def wait_for(mail_id: str) -> None:
    now = time.time()
    selector = RunSelector(executed_after=datetime.now(UTC) - timedelta(hours=1))
    wait = WaitState(subject=MailTaskSubject(mail_id), selector=selector, since=now, finish_by=now + 60)
    trigger = QuickBIMailTaskTrigger(
        quickbi_conn_id="quickbi_default", group=encode_group(WaitGroup.of([wait])), poke_interval=0.05
    )
    await anext(QuickBIMailTaskTrigger(**json.loads(json.dumps(trigger.serialize()[1]))).run())


def test_a_wait_learns_how_long_its_run_took(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=1000))
    mail_id = mail_task(quickbi, "Report", 100)
    polls = Counter[str]()

    def finish(call: object) -> None:
        polls[mail_id] += 1
        if polls[mail_id] == 4:
            quickbi.finish_run(quickbi.runs(mail_id)[0]["task_id"])

    quickbi.when_called(ACTION, finish)
    asyncio.run(asyncio.wait_for(wait_for(mail_id), 20))
    learnt = DURATIONS.distribution(MailTaskSubject(mail_id))
    assert learnt is not None
    assert 99 <= learnt.median <= 115


def test_the_wait_whose_run_must_have_finished_is_polled_most(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=20))
    waits, calls = 8, 60
    mail_ids = [mail_task(quickbi, f"Report {number}", 100) for number in range(waits)]
    for number, mail_id in enumerate(mail_ids):
        for _ in range(5):
            DURATIONS.learn(MailTaskSubject(mail_id), Duration(90, 110) if number == 3 else Duration(3000, 3600))

    async def main() -> None:
        tasks = [asyncio.create_task(wait_for(mail_id)) for mail_id in mail_ids]
        async with asyncio.timeout(30):
            while quickbi.count(ACTION) < calls:
                await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    polls = Counter(call.mail_id for call in quickbi.calls if call.action == ACTION)
    assert polls[mail_ids[3]] >= 3 * max(polls[mail_id] for mail_id in mail_ids if mail_id != mail_ids[3])
    assert min(polls[mail_id] for mail_id in mail_ids) >= 1
