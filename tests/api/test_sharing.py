"""One client per account and event loop, and one call for equal status queries."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_quickbi.api import status_poller
from airflow_provider_quickbi.api.clock import Clock
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.errors import PermanentError, TransientError
from airflow_provider_quickbi.api.models import Run
from airflow_provider_quickbi.api.operations import StatusQuery
from airflow_provider_quickbi.api.settings import ClientSettings
from airflow_provider_quickbi.api.status_poller import KEPT_SECONDS, StatusResponse, shared_poller
from airflow_provider_quickbi.testing import Fault, LocalQuickBI


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 20))


def runs_of(response: StatusResponse) -> tuple[Run, ...]:
    assert isinstance(response.outcome, tuple)
    return response.outcome


@pytest.fixture
def account(quickbi: LocalQuickBI, settings_of: Callable[..., ClientSettings]) -> ClientSettings:
    return settings_of(quickbi)


class Held:
    """Holds back the responses of a local Quick BI until released."""

    def __init__(self, quickbi: LocalQuickBI) -> None:
        self.arrived = threading.Event()
        self.let_go = threading.Event()
        quickbi.when_called("GetMailTaskStatus", self.hold)

    def hold(self, call: Any) -> None:
        self.arrived.set()
        self.let_go.wait(20)

    async def until_arrived(self) -> None:
        while not self.arrived.is_set():
            await asyncio.sleep(0.001)


@pytest.fixture
def held(quickbi: LocalQuickBI) -> Iterator[Held]:
    held = Held(quickbi)
    yield held
    held.let_go.set()


def test_equal_queries_share_one_call_and_its_response(quickbi: LocalQuickBI, account: ClientSettings, held: Held):
    mail_id = quickbi.add_mail_task("Daily sales")
    task_id = quickbi.add_run(mail_id)

    async def main() -> None:
        async with shared_poller(account) as poller:
            polls = [asyncio.create_task(poller.subscribe().poll_once(StatusQuery(mail_id, None))) for _ in range(50)]
            await held.until_arrived()
            await asyncio.sleep(0)
            held.let_go.set()
            responses = await asyncio.gather(*polls)
            assert len({id(response) for response in responses}) == 1
            assert [found.run_id for found in runs_of(responses[0])] == [task_id]

    run(main())
    assert quickbi.count() == 1


def test_different_queries_are_different_calls(quickbi: LocalQuickBI, account: ClientSettings):
    first, second = quickbi.add_mail_task("a"), quickbi.add_mail_task("b")
    task_id = quickbi.add_run(first)
    status_queries = [StatusQuery(first, None), StatusQuery(first, task_id), StatusQuery(second, None)]

    async def main() -> None:
        async with shared_poller(account) as poller:
            responses = await asyncio.gather(
                *(poller.subscribe().poll_once(status_query) for status_query in status_queries for _ in range(5))
            )
            assert [len(runs_of(response)) for response in responses] == [1] * 10 + [0] * 5

    run(main())
    assert quickbi.count() == 3


def test_cancelling_one_waiter_does_not_cancel_the_others(quickbi: LocalQuickBI, account: ClientSettings, held: Held):
    mail_id = quickbi.add_mail_task("Daily sales")

    async def main() -> None:
        async with shared_poller(account) as poller:
            polls = [asyncio.create_task(poller.subscribe().poll_once(StatusQuery(mail_id, None))) for _ in range(3)]
            await held.until_arrived()
            polls[0].cancel()
            polls[2].cancel()
            await asyncio.sleep(0)
            held.let_go.set()
            assert (await polls[1]).outcome == ()
            assert polls[0].cancelled()
            assert polls[2].cancelled()

    run(main())
    assert quickbi.count() == 1


def test_cancelling_the_last_waiter_cancels_the_call_and_the_next_poll_makes_a_new_one(
    quickbi: LocalQuickBI, account: ClientSettings, held: Held
):
    mail_id = quickbi.add_mail_task("Daily sales")

    async def main() -> None:
        async with shared_poller(account) as poller:
            subscription = poller.subscribe()
            polls = [asyncio.create_task(subscription.poll_once(StatusQuery(mail_id, None))) for _ in range(2)]
            await held.until_arrived()
            [call] = asyncio.all_tasks() - {*polls, asyncio.current_task(), *outer}
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, call, return_exceptions=True)
            assert call.cancelled()
            held.let_go.set()
            assert (await subscription.poll_once(StatusQuery(mail_id, None))).outcome == ()

    outer: set[Any] = set()

    async def bounded() -> None:
        outer.add(asyncio.current_task())
        await asyncio.wait_for(main(), 20)

    asyncio.run(bounded())
    assert quickbi.count() == 2


def test_an_error_is_returned_to_all_waiters_and_not_kept(quickbi: LocalQuickBI, account: ClientSettings):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("GetMailTaskStatus", Fault.html_503())

    async def main() -> None:
        async with shared_poller(account) as poller:
            subscriptions = [poller.subscribe() for _ in range(5)]
            status_query = StatusQuery(mail_id, None)
            responses = await asyncio.gather(*(subscription.poll_once(status_query) for subscription in subscriptions))
            assert len({id(response.outcome) for response in responses}) == 1
            assert isinstance(responses[0].outcome, TransientError)
            assert responses[0].outcome.__traceback__ is None
            assert (await subscriptions[0].poll_once(status_query, max_age=1000)).outcome == ()

    run(main())
    assert quickbi.count() == 2


def test_a_refusal_is_a_response_and_not_an_exception(quickbi: LocalQuickBI, account: ClientSettings):
    async def main() -> None:
        async with shared_poller(account) as poller:
            response = await poller.subscribe().poll_once(StatusQuery("unknown", None))
            assert isinstance(response.outcome, PermanentError)

    run(main())


def test_a_recent_response_is_reused_by_others(quickbi: LocalQuickBI, account: ClientSettings):
    mail_id = quickbi.add_mail_task("Daily sales")

    async def main() -> None:
        async with shared_poller(account) as poller:
            first, second = poller.subscribe(), poller.subscribe()
            status_query = StatusQuery(mail_id, None)
            response = await first.poll_once(status_query)
            assert await second.poll_once(status_query, max_age=1000) is response
            assert await second.poll_once(status_query) is not response

    run(main())
    assert quickbi.count() == 2


def test_responses_without_subscriptions_are_dropped_after_a_while(quickbi: LocalQuickBI, account: ClientSettings):
    ahead = 0.0
    mail_id = quickbi.add_mail_task("Daily sales")
    task_id = quickbi.add_run(mail_id)

    latest, pinned = StatusQuery(mail_id, None), StatusQuery(mail_id, task_id)

    async def main() -> None:
        nonlocal ahead
        async with shared_poller(account, clock=Clock(monotonic=lambda: time.monotonic() + ahead)) as poller:
            first, second, third = (poller.subscribe() for _ in range(3))
            await first.poll_once(latest)
            await second.poll_once(pinned)
            first.close()
            ahead += KEPT_SECONDS - 1
            second.close()
            second.close()
            assert set(poller._topics) == {latest, pinned}
            ahead += 1
            await third.poll_once(pinned, max_age=1000)
            third.close()
            assert set(poller._topics) == {pinned}
            await first.poll_once(latest, max_age=1000)
            ahead += KEPT_SECONDS
            first.close()
            assert set(poller._topics) == {latest}

    run(main())
    assert quickbi.count() == 3


def test_a_response_outlives_its_subscription_for_a_while(quickbi: LocalQuickBI, account: ClientSettings):
    mail_id = quickbi.add_mail_task("Daily sales")

    async def main() -> None:
        async with shared_poller(account) as poller:
            for _ in range(5):
                subscription = poller.subscribe()
                await subscription.poll_once(StatusQuery(mail_id, None), max_age=1000)
                subscription.close()

    run(main())
    assert quickbi.count() == 1


def test_all_waits_of_an_account_share_one_client_and_its_connection(quickbi: LocalQuickBI, account: ClientSettings):
    mail_ids = [quickbi.add_mail_task("r") for _ in range(10)]

    async def wait(mail_id: str) -> Any:
        async with shared_poller(replace(account)) as poller:
            for _ in range(3):
                await poller.subscribe().poll_once(StatusQuery(mail_id, None))
            return poller

    async def main() -> set[int]:
        async with shared_poller(account):
            return {id(await wait(mail_id)) for mail_id in mail_ids}

    assert len(run(main())) == 1
    assert quickbi.count() == 30
    assert quickbi.connections_opened == 1


def test_connections_are_closed_when_the_last_user_leaves(account: ClientSettings, quickbi: LocalQuickBI):
    async def main() -> None:
        async with shared_poller(account) as outer:
            async with shared_poller(account) as inner:
                assert inner is outer
                await inner.subscribe().poll_once(StatusQuery("m", None))
                session = inner.client._transport._session
            assert session is not None
            assert not session.closed
            await outer.subscribe().poll_once(StatusQuery("m", None))
        assert session.closed
        assert status_poller._pollers[asyncio.get_running_loop()] == {}
        async with shared_poller(account) as poller:
            assert poller is not outer

    run(main())
    assert quickbi.connections_opened == 1


def test_a_failing_user_leaves_too(account: ClientSettings):
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with shared_poller(account):
                raise ZeroDivisionError
        assert status_poller._pollers[asyncio.get_running_loop()] == {}

    run(main())


def test_another_secret_is_another_account(quickbi: LocalQuickBI, account: ClientSettings):
    other = replace(
        account,
        credentials=CredentialSpec.of(
            "access_key", access_key_id=quickbi.access_key_id, access_key_secret="another secret"
        ),
    )

    async def main() -> None:
        async with shared_poller(account) as right, shared_poller(other) as wrong:
            assert right is not wrong
            mail_id = quickbi.add_mail_task("Daily sales")
            assert (await right.subscribe().poll_once(StatusQuery(mail_id, None))).outcome == ()
            refused = (await wrong.subscribe().poll_once(StatusQuery(mail_id, None))).outcome
            assert isinstance(refused, PermanentError)
            assert refused.code == "SignatureDoesNotMatch"

    run(main())


def test_each_event_loop_has_its_own_poller(account: ClientSettings):
    pollers: list[Any] = []

    async def main() -> None:
        async with shared_poller(account) as poller:
            await poller.subscribe().poll_once(StatusQuery("m", None))
            pollers.append(poller)

    run(main())
    run(main())
    assert pollers[0] is not pollers[1]


def test_the_on_call_of_the_first_user_counts(quickbi: LocalQuickBI, account: ClientSettings):
    mail_id = quickbi.add_mail_task("Daily sales")
    reported: list[tuple[str, str]] = []

    async def main() -> None:
        async with shared_poller(account, lambda action, result: reported.append((action, result))) as poller:
            await poller.subscribe().poll_once(StatusQuery(mail_id, None))

    run(main())
    assert reported == [("GetMailTaskStatus", "ok")]
