"""Many waits in one triggerer: equal status queries share a call, and all waits share connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api import status_poller
from airflow_provider_quickbi.api.operations import StatusQuery
from airflow_provider_quickbi.testing import Fault, LocalQuickBI
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

ASK = "GetMailTaskStatus"


@pytest.fixture(autouse=True)
def fast(quickbi: LocalQuickBI, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lift the rate limit, so that it does not affect what is counted."""
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=1000))


def mails(quickbi: LocalQuickBI, number: int, *, sent_at_poll: int) -> list[str]:
    """Add mail tasks, each with a run that is sent just before its nth poll."""
    mail_ids = [quickbi.add_mail_task(f"Report {index}") for index in range(number)]
    runs = {mail_id: quickbi.add_run(mail_id, status="PROCESSING") for mail_id in mail_ids}
    polls: Counter[str] = Counter()

    def poll_once(call: Any) -> None:
        polls[call.mail_id] += 1
        if polls[call.mail_id] == sent_at_poll:
            quickbi.finish_run(runs[call.mail_id])

    quickbi.when_called(ASK, poll_once)
    return mail_ids


def stored_and_revived(mail_id: str, poke_interval: float, executed_after: datetime | None) -> QuickBIMailTaskTrigger:
    """Return a trigger as the triggerer restores it from the database."""
    now = time.time()
    wait = WaitState(
        subject=MailTaskSubject(mail_id),
        selector=RunSelector(executed_after=executed_after),
        since=now,
        finish_by=now + 60,
    )
    trigger = QuickBIMailTaskTrigger(
        quickbi_conn_id="quickbi_default", group=encode_group(WaitGroup.of([wait])), poke_interval=poke_interval
    )
    return QuickBIMailTaskTrigger(**json.loads(json.dumps(trigger.serialize()[1])))


def outcomes(
    mail_ids: Sequence[str],
    *,
    poke_interval: float,
    executed_after: datetime | None = None,
    then: Callable[[], None] = lambda: None,
) -> Counter[str]:
    """Run a wait for each mail task in one event loop and count the outcomes."""

    async def end_of(trigger: QuickBIMailTaskTrigger) -> str:
        async for event in trigger.run():
            return str(event.payload["group"]["evaluations"][0]["outcome"])
        return "no event"

    async def main() -> Counter[str]:
        waits = [stored_and_revived(mail_id, poke_interval, executed_after) for mail_id in mail_ids]
        ended = await asyncio.gather(*(end_of(wait) for wait in waits))
        then()
        return Counter(ended)

    return asyncio.run(asyncio.wait_for(main(), 50))


def test_a_hundred_waits_for_five_mails_make_the_calls_of_five(quickbi: LocalQuickBI):
    mail_ids = mails(quickbi, 5, sent_at_poll=4)
    assert outcomes(mail_ids * 20, poke_interval=0.5) == {"succeeded": 100}
    # A hundred waits with four polls each would be 400 calls; a busy machine may need a few more than 20.
    assert 20 <= quickbi.count(ASK) <= 40


def test_a_wait_reuses_responses_newer_than_its_last_poll(quickbi: LocalQuickBI):
    mail_id = quickbi.add_mail_task("Report")
    quickbi.add_run(mail_id, status="PROCESSING")

    async def main() -> list[int]:
        from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

        calls = []
        status_query = StatusQuery(mail_id, None)
        async with QuickBIHook().status_poller() as poller:
            often, seldom = poller.subscribe(), poller.subscribe()
            for watch in (often, seldom, often, seldom, seldom, often):
                await watch.poll_once(status_query, max_age=3600)
                calls.append(quickbi.count(ASK))
        return calls

    assert asyncio.run(asyncio.wait_for(main(), 20)) == [1, 1, 2, 2, 3, 3]


def test_first_polls_of_waits_that_start_together_are_spread(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aio, "MAX_SPREAD_SECONDS", 30.0)
    mail_ids = mails(quickbi, 60, sent_at_poll=1)
    assert outcomes(mail_ids, poke_interval=1.0) == {"succeeded": 60}
    begun = sorted(call.monotonic_time for call in quickbi.calls)
    assert begun[-1] - begun[0] > 0.2


def test_no_call_is_made_before_executed_after(quickbi: LocalQuickBI):
    mail_ids = [quickbi.add_mail_task(f"Report {index}") for index in range(20)]
    after = datetime.fromtimestamp(int(time.time()) + 2, UTC)
    for mail_id in mail_ids:
        quickbi.add_run(mail_id, exec_time=after)
    assert outcomes(mail_ids, poke_interval=0.2, executed_after=after) == {"succeeded": 20}
    assert min(call.wall_time for call in quickbi.calls) >= after.timestamp()


def test_all_waits_use_the_same_few_connections(quickbi: LocalQuickBI):
    mail_ids = mails(quickbi, 20, sent_at_poll=5)
    assert outcomes(mail_ids * 5, poke_interval=0.2) == {"succeeded": 100}
    assert quickbi.count(ASK) >= 100
    # One per mail at the same moment; a busy machine may need a few more.
    assert quickbi.connections_opened <= 40


def test_connections_are_closed_when_the_last_wait_ends(quickbi: LocalQuickBI):
    mail_ids = mails(quickbi, 5, sent_at_poll=2)
    open_at_the_end: list[int] = []

    def poll_once() -> None:
        open_at_the_end.append(sum(len(pollers) for pollers in status_poller._pollers.values()))

    assert outcomes(mail_ids * 4, poke_interval=0.1, then=poll_once) == {"succeeded": 20}
    assert open_at_the_end == [0]
    until = time.monotonic() + 10
    while (still_open := quickbi.drop_connections()) and time.monotonic() < until:
        pass
    assert still_open == 0


def test_throttled_first_polls_fail_no_wait(quickbi: LocalQuickBI):
    mail_ids = mails(quickbi, 10, sent_at_poll=2)
    quickbi.fail(ASK, Fault.throttled(), times=15)
    assert outcomes(mail_ids * 3, poke_interval=0.2) == {"succeeded": 30}
    assert quickbi.count(ASK, "Throttling.User") == 15
