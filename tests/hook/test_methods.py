"""What a hook loads and when, its methods, names, and the poller that waits share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quickbi.api import rate_limit
from airflow_provider_quickbi.api.errors import (
    ErrorKind,
    QuickBIError,
    TransientError,
)
from airflow_provider_quickbi.api.operations import StatusQuery
from airflow_provider_quickbi.exceptions import (
    QuickBIConnectionError,
    QuickBIRequestError,
    QuickBIUnavailable,
)
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

from .reading import VARIABLE

# Nothing before it is needed


def test_making_a_hook_looks_nothing_up(monkeypatch: pytest.MonkeyPatch):
    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("no connection may be looked up")

    monkeypatch.setattr(QuickBIHook, "get_connection", forbidden)
    assert QuickBIHook().quickbi_conn_id == "quickbi_default"
    assert QuickBIHook("nowhere").quickbi_conn_id == "nowhere"
    QuickBIHook(quickbi_conn_id="nowhere").close()


def test_getting_the_client_connects_to_nobody(hook: QuickBIHook, quickbi: LocalQuickBI):
    assert hook.get_conn() is hook.get_conn()
    assert quickbi.connections_opened == 0


def test_the_connection_is_read_once(hook: QuickBIHook, monkeypatch: pytest.MonkeyPatch):
    mail_tasks = hook.get_mail_task_list()
    monkeypatch.delenv(VARIABLE)
    assert hook.get_mail_task_list() == mail_tasks


def test_a_closed_hook_can_be_used_again(hook: QuickBIHook, quickbi: LocalQuickBI):
    for _ in range(2):
        hook.get_mail_task_list()
        hook.get_mail_task_list()
        hook.close()
        hook.close()
    assert quickbi.connections_opened == 2


# The methods


def test_mail_tasks_are_listed_page_by_page_or_all_of_them(hook: QuickBIHook, quickbi: LocalQuickBI):
    ids = [quickbi.add_mail_task(f"r{number}", owner="Wang", paused=number % 2 == 0) for number in range(7)]
    page = hook.get_mail_task_list(page_num=2, page_size=3)
    assert [task.mail_id for task in page.mail_tasks] == ids[3:6]
    assert (page.page_num, page.page_size, page.total_num) == (2, 3, 7)
    assert [task.mail_id for task in hook.iter_mail_tasks(page_size=3)] == ids
    assert [task.mail_id for task in hook.iter_mail_tasks(user_nick="Wang", paused=True)] == ids[::2]
    assert list(hook.iter_mail_tasks(user_nick="Nobody")) == []


def test_the_state_of_a_run_is_given(hook: QuickBIHook, quickbi: LocalQuickBI):
    mail_id = quickbi.add_mail_task("Daily sales")
    assert hook.get_mail_task_status(mail_id) == []
    first = quickbi.add_run(mail_id, exec_time="2026-07-01T08:00:00")
    second = quickbi.add_run(mail_id, exec_time="2026-07-02T08:00:00", status="FAILED")
    assert [(run.task_id, run.status) for run in hook.get_mail_task_status(mail_id)] == [(second, "FAILED")]
    assert [(run.task_id, run.status) for run in hook.get_mail_task_status(mail_id, first)] == [(first, "SENT")]


def test_a_mail_is_started_once_whatever_happens_to_the_response(hook: QuickBIHook, quickbi: LocalQuickBI):
    mail_id = quickbi.add_mail_task("Daily sales")
    assert hook.manual_run_mail_task(mail_id) is True
    rate_limit.forget_rate_limiters()  # the next start would have to wait a second
    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    with pytest.raises(TransientError) as caught:
        hook.manual_run_mail_task(mail_id)
    assert caught.value.may_have_arrived
    assert quickbi.starts(mail_id) == 2


def test_any_other_operation_can_be_called(hook: QuickBIHook, quickbi: LocalQuickBI):
    quickbi.register("AddUser", lambda params: {**params})
    assert hook.call("AddUser", {"Admin": True, "Name": "王芳", "Age": 7, "Left": None}) == {
        "Admin": "true",
        "Name": "王芳",
        "Age": "7",
    }
    quickbi.fail("AddUser", Fault.html_503())
    with pytest.raises(TransientError):
        hook.call("AddUser")
    quickbi.fail("AddUser", Fault.html_503())
    assert hook.call("AddUser", repeatable=True) == {}


def test_reads_are_repeated(hook: QuickBIHook, quickbi: LocalQuickBI):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail(None, Fault.reset(), Fault.throttled(), Fault.html_503())
    assert hook.get_mail_task_status(mail_id) == []


# Names


def test_names_are_looked_up_in_their_order_with_one_listing(
    hook: QuickBIHook, quickbi: LocalQuickBI, logged: list[str]
):
    first = quickbi.add_mail_task("Daily sales", owner="Wang Fang")
    second = quickbi.add_mail_task("Weekly", owner="Li Na", paused=True)
    assert [task.mail_id for task in hook.find_mail_tasks(["Weekly", "Daily sales"])] == [second, first]
    assert quickbi.count() == 1
    assert f"INFO Mail task 'Daily sales' has MailId {first}." in logged
    assert f"WARNING Mail task 'Weekly' (MailId {second}) is paused: its schedule starts no runs." in logged


def test_an_owner_distinguishes_two_of_the_same_name(hook: QuickBIHook, quickbi: LocalQuickBI):
    quickbi.add_mail_task("Daily sales", owner="Wang Fang")
    wanted = quickbi.add_mail_task("Daily sales", owner="Li Na", owner_id="u-2")
    assert [task.mail_id for task in hook.find_mail_tasks(["Daily sales"], "Li Na")] == [wanted]
    assert [task.mail_id for task in hook.find_mail_tasks(["Daily sales"], "u-2")] == [wanted]


def test_a_name_that_fits_several_or_none_lists_the_candidates(hook: QuickBIHook, quickbi: LocalQuickBI):
    first = quickbi.add_mail_task("Daily sales", owner="Wang Fang")
    second = quickbi.add_mail_task("Daily sales", owner="Li Na")
    with pytest.raises(QuickBIRequestError) as several:
        hook.find_mail_tasks(["Daily sales"])
    assert f"MailId {first} of Wang Fang, MailId {second} of Li Na" in str(several.value)
    assert "Set mail_id, or mail_owner as well" in str(several.value)
    with pytest.raises(QuickBIRequestError, match=r"found MailId .* of Wang Fang, .*Check mail_owner"):
        hook.find_mail_tasks(["Daily sales"], "Nobody")
    with pytest.raises(QuickBIRequestError, match=r"none of the 2 mail tasks .* is named 'Weekly'.*not be visible"):
        hook.find_mail_tasks(["Weekly"])


def test_a_name_that_cannot_be_looked_up_now_may_be_later(hook: QuickBIHook, quickbi: LocalQuickBI):
    quickbi.fail("GetMailTaskList", Fault.html_503(), times=None)
    with pytest.raises(QuickBIUnavailable, match="Quick BI is unreachable: GetMailTaskList: "):
        hook.find_mail_tasks(["Weekly"])


# The poller that waits share


def test_waits_of_one_connection_share_a_poller(quickbi: LocalQuickBI):
    mail_id = quickbi.add_mail_task("Daily sales")

    async def main() -> None:
        async with QuickBIHook().status_poller() as first, QuickBIHook().status_poller() as second:
            assert first is second
            response = await first.subscribe().poll_once(StatusQuery(mail_id, None))
            assert response.outcome == ()

    asyncio.run(asyncio.wait_for(main(), 20))
    assert quickbi.connections_opened == 1


def test_a_changed_connection_gets_another_poller(quickbi: LocalQuickBI, connection: Callable[..., None]):
    async def main() -> None:
        hook = QuickBIHook()
        async with hook.status_poller() as first:
            connection(password="another-secret")
            async with hook.status_poller() as second:
                assert first is not second
                refused = (await second.subscribe().poll_once(StatusQuery("m", None))).outcome
                assert isinstance(refused, QuickBIError)
                assert refused.kind is ErrorKind.CREDENTIALS

    asyncio.run(asyncio.wait_for(main(), 20))


def test_pacing_conn_id_names_the_redis_through_which_processes_share_the_limit(
    quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = json.loads(quickbi.connection_json())
    described["extra"] = {**described["extra"], "pacing_conn_id": "shared_redis"}
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", json.dumps(described))
    monkeypatch.setenv("AIRFLOW_CONN_SHARED_REDIS", "redis://:hidden@127.0.0.1:6380/2")
    for settings in (
        QuickBIHook().quickbi_connection.settings,
        asyncio.run(QuickBIHook().read_connection_async()).settings,
    ):
        assert settings.pacing is not None
        assert (settings.pacing.host, settings.pacing.port) == ("127.0.0.1", 6380)
        assert "hidden" not in repr(settings)

    monkeypatch.setenv("AIRFLOW_CONN_SHARED_REDIS", "http://127.0.0.1")
    with pytest.raises(QuickBIConnectionError, match=r"'shared_redis': conn_type is 'http'\. It must be 'redis'"):
        _ = QuickBIHook().quickbi_connection
