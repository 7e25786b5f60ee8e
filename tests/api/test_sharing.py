"""One client for one account in an event loop, and one call for equal questions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_quickbi.api import sharing
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.errors import PermanentError, TransientError
from airflow_provider_quickbi.api.models import Question
from airflow_provider_quickbi.api.settings import ClientSettings
from airflow_provider_quickbi.api.sharing import shared_board
from airflow_provider_quickbi.testing import Fault, LocalQuickBI


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 20))


@pytest.fixture
def account(quickbi: LocalQuickBI, settings_of: Callable[..., ClientSettings]) -> ClientSettings:
    return settings_of(quickbi)


class Held:
    """Holds the answers of a local Quick BI back until they are let go."""

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


def test_equal_questions_share_one_call_and_its_answer(quickbi: LocalQuickBI, account: ClientSettings, held: Held):
    mail_id = quickbi.add_mail_task("Daily sales")
    task_id = quickbi.add_run(mail_id)

    async def main() -> None:
        async with shared_board(account) as board:
            looks = [asyncio.create_task(board.watch().look(Question(mail_id, None))) for _ in range(50)]
            await held.until_arrived()
            await asyncio.sleep(0)
            held.let_go.set()
            answers = await asyncio.gather(*looks)
            assert len({id(answer) for answer in answers}) == 1
            assert [found.task_id for found in answers[0].outcome] == [task_id]

    run(main())
    assert quickbi.count() == 1


def test_different_questions_are_different_calls(quickbi: LocalQuickBI, account: ClientSettings):
    first, second = quickbi.add_mail_task("a"), quickbi.add_mail_task("b")
    task_id = quickbi.add_run(first)
    questions = [Question(first, None), Question(first, task_id), Question(second, None)]

    async def main() -> None:
        async with shared_board(account) as board:
            answers = await asyncio.gather(*(board.watch().look(question) for question in questions for _ in range(5)))
            assert [len(answer.outcome) for answer in answers] == [1] * 10 + [0] * 5

    run(main())
    assert quickbi.count() == 3


def test_one_who_stops_waiting_does_not_stop_the_others(quickbi: LocalQuickBI, account: ClientSettings, held: Held):
    mail_id = quickbi.add_mail_task("Daily sales")

    async def main() -> None:
        async with shared_board(account) as board:
            looks = [asyncio.create_task(board.watch().look(Question(mail_id, None))) for _ in range(3)]
            await held.until_arrived()
            looks[0].cancel()
            looks[2].cancel()
            await asyncio.sleep(0)
            held.let_go.set()
            assert (await looks[1]).outcome == ()
            assert looks[0].cancelled()
            assert looks[2].cancelled()

    run(main())
    assert quickbi.count() == 1


def test_the_last_one_who_stops_waiting_ends_the_call_and_the_next_one_asks_anew(
    quickbi: LocalQuickBI, account: ClientSettings, held: Held
):
    mail_id = quickbi.add_mail_task("Daily sales")

    async def main() -> None:
        async with shared_board(account) as board:
            watch = board.watch()
            looks = [asyncio.create_task(watch.look(Question(mail_id, None))) for _ in range(2)]
            await held.until_arrived()
            [call] = asyncio.all_tasks() - {*looks, asyncio.current_task(), *outer}
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, call, return_exceptions=True)
            assert call.cancelled()
            held.let_go.set()
            assert (await watch.look(Question(mail_id, None))).outcome == ()

    outer: set[Any] = set()

    async def bounded() -> None:
        outer.add(asyncio.current_task())
        await asyncio.wait_for(main(), 20)

    asyncio.run(bounded())
    assert quickbi.count() == 2


def test_an_error_is_given_to_all_who_wait_and_not_kept(quickbi: LocalQuickBI, account: ClientSettings):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("GetMailTaskStatus", Fault.html_503())

    async def main() -> None:
        async with shared_board(account) as board:
            watches = [board.watch() for _ in range(5)]
            question = Question(mail_id, None)
            answers = await asyncio.gather(*(watch.look(question) for watch in watches))
            assert len({id(answer.outcome) for answer in answers}) == 1
            assert isinstance(answers[0].outcome, TransientError)
            assert answers[0].outcome.__traceback__ is None
            assert (await watches[0].look(question, max_age=1000)).outcome == ()

    run(main())
    assert quickbi.count() == 2


def test_a_refusal_is_an_answer_and_no_exception(quickbi: LocalQuickBI, account: ClientSettings):
    async def main() -> None:
        async with shared_board(account) as board:
            answer = await board.watch().look(Question("unknown", None))
            assert isinstance(answer.outcome, PermanentError)

    run(main())


def test_an_answer_that_is_young_enough_is_taken_by_others(quickbi: LocalQuickBI, account: ClientSettings):
    mail_id = quickbi.add_mail_task("Daily sales")

    async def main() -> None:
        async with shared_board(account) as board:
            first, second = board.watch(), board.watch()
            question = Question(mail_id, None)
            answer = await first.look(question)
            assert await second.look(question, max_age=1000) is answer
            assert await second.look(question) is not answer

    run(main())
    assert quickbi.count() == 2


def test_what_nobody_watches_any_more_is_forgotten(
    quickbi: LocalQuickBI, account: ClientSettings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sharing, "KEPT_SECONDS", 0.0)
    mail_id = quickbi.add_mail_task("Daily sales")
    task_id = quickbi.add_run(mail_id)

    async def main() -> None:
        async with shared_board(account) as board:
            first, second = board.watch(), board.watch()
            await first.look(Question(mail_id, None))
            await second.look(Question(mail_id, None))
            await second.look(Question(mail_id, task_id))
            assert set(board._topics) == {Question(mail_id, None), Question(mail_id, task_id)}
            first.close()
            assert set(board._topics) == {Question(mail_id, task_id)}
            second.close()
            second.close()
            assert board._topics == {}
            await first.look(Question(mail_id, None), max_age=1000)
            first.close()
            assert board._topics == {}

    run(main())
    assert quickbi.count() == 4


def test_an_answer_outlives_the_wait_that_asked_for_it_for_a_while(quickbi: LocalQuickBI, account: ClientSettings):
    mail_id = quickbi.add_mail_task("Daily sales")

    async def main() -> None:
        async with shared_board(account) as board:
            for _ in range(5):
                watch = board.watch()
                await watch.look(Question(mail_id, None), max_age=1000)
                watch.close()

    run(main())
    assert quickbi.count() == 1


def test_all_waits_of_an_account_share_one_client_and_its_connection(quickbi: LocalQuickBI, account: ClientSettings):
    mail_ids = [quickbi.add_mail_task("r") for _ in range(10)]

    async def wait(mail_id: str) -> Any:
        async with shared_board(replace(account)) as board:
            for _ in range(3):
                await board.watch().look(Question(mail_id, None))
            return board

    async def main() -> set[int]:
        async with shared_board(account):
            return {id(await wait(mail_id)) for mail_id in mail_ids}

    assert len(run(main())) == 1
    assert quickbi.count() == 30
    assert quickbi.connections_opened == 1


def test_connections_are_closed_when_the_last_one_leaves(account: ClientSettings, quickbi: LocalQuickBI):
    async def main() -> None:
        async with shared_board(account) as outer:
            async with shared_board(account) as inner:
                assert inner is outer
                await inner.watch().look(Question("m", None))
                session = inner.client._session
            assert not session.closed
            await outer.watch().look(Question("m", None))
        assert session.closed
        assert sharing._boards[asyncio.get_running_loop()] == {}
        async with shared_board(account) as board:
            assert board is not outer

    run(main())
    assert quickbi.connections_opened == 1


def test_a_wait_that_fails_leaves_too(account: ClientSettings):
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with shared_board(account):
                raise ZeroDivisionError
        assert sharing._boards[asyncio.get_running_loop()] == {}

    run(main())


def test_another_secret_is_another_account(quickbi: LocalQuickBI, account: ClientSettings):
    other = replace(
        account,
        credentials=CredentialSpec.of(
            "access_key", access_key_id=quickbi.access_key_id, access_key_secret="another secret"
        ),
    )

    async def main() -> None:
        async with shared_board(account) as right, shared_board(other) as wrong:
            assert right is not wrong
            mail_id = quickbi.add_mail_task("Daily sales")
            assert (await right.watch().look(Question(mail_id, None))).outcome == ()
            refused = (await wrong.watch().look(Question(mail_id, None))).outcome
            assert isinstance(refused, PermanentError)
            assert refused.code == "SignatureDoesNotMatch"

    run(main())


def test_each_event_loop_has_a_board_of_its_own(account: ClientSettings):
    boards: list[Any] = []

    async def main() -> None:
        async with shared_board(account) as board:
            await board.watch().look(Question("m", None))
            boards.append(board)

    run(main())
    run(main())
    assert boards[0] is not boards[1]


def test_the_first_user_counts_the_calls(quickbi: LocalQuickBI, account: ClientSettings):
    mail_id = quickbi.add_mail_task("Daily sales")
    told: list[tuple[str, str]] = []

    async def main() -> None:
        async with shared_board(account, lambda action, result: told.append((action, result))) as board:
            await board.watch().look(Question(mail_id, None))

    run(main())
    assert told == [("GetMailTaskStatus", "answered")]
