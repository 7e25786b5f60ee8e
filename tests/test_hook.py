"""QuickBIHook: lazy, with every method, and every error in one sentence."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_quickbi.api import rate_limit
from airflow_provider_quickbi.api.errors import (
    ErrorKind,
    NotStartedError,
    QuickBIError,
    ThrottledError,
    TransientError,
    error_from_dict,
)
from airflow_provider_quickbi.api.operations import StatusQuery
from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.exceptions import (
    QuickBIConnectionError,
    QuickBIConnectionUnreadable,
    QuickBIRequestError,
    QuickBIUnavailable,
)
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

VARIABLE = "AIRFLOW_CONN_QUICKBI_DEFAULT"
SECRETS = {"password": "password-to-be-masked", "security_token": "token-to-be-masked"}


@pytest.fixture(scope="module", autouse=True)
def _airflow_has_warned() -> None:
    """Import what Airflow needs for connections once; it and its dependencies warn about each other."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("AIRFLOW_CONN_WARM_UP", '{"conn_type": "quickbi", "login": "the-id", "password": "the-secret"}')
        read(QuickBIHook("warm_up"), "blocking")
        read(QuickBIHook("warm_up"), "async")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not pause between attempts; the tests of the client cover the pauses."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda self, attempt, asked_for: 0.0)


@pytest.fixture
def hook(quickbi: LocalQuickBI, connection: Callable[..., None]) -> Iterator[QuickBIHook]:
    """A hook with the connection to the local Quick BI."""
    connection()
    with QuickBIHook() as made:
        yield made


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, quickbi: LocalQuickBI) -> Callable[..., None]:
    """Change the connection; parts are those of Airflow's JSON form."""

    def change(**parts: Any) -> None:
        usual = quickbi.connection(status_calls_per_second=1000)
        monkeypatch.setenv(VARIABLE, json.dumps({**usual, **parts}))

    return change


@pytest.fixture
def logged(hook: QuickBIHook, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the hook logs, whatever Airflow's logging does with it."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.getMessage()}")

    logger = logging.getLogger("of this test")
    monkeypatch.setattr(logger, "handlers", [Keep()])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(hook, "_log", logger)
    return lines


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def shows_no_library(error: BaseException) -> bool:
    """Whether a traceback of the error is only about this provider."""
    shown = "".join(traceback.format_exception(error))
    return "urllib3" not in shown and "requests/" not in shown and "During handling" not in shown


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


def test_an_owner_tells_two_of_the_same_name_apart(hook: QuickBIHook, quickbi: LocalQuickBI):
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


# Errors


@pytest.mark.parametrize(
    "call",
    [
        lambda hook: hook.get_mail_task_list(),
        lambda hook: list(hook.iter_mail_tasks()),
        lambda hook: hook.find_mail_tasks(["x"]),
        lambda hook: hook.get_mail_task_status("m"),
        lambda hook: hook.manual_run_mail_task("m"),
        lambda hook: hook.call("GetMailTaskList"),
    ],
)
def test_a_rejected_request_fails_a_task_without_a_retry_and_says_what_to_do(
    hook: QuickBIHook, quickbi: LocalQuickBI, call: Callable[[QuickBIHook], Any]
):
    quickbi.deny("Access.Forbidden")
    with pytest.raises(
        QuickBIRequestError, match=r"Code Access\.Forbidden, RequestId .*Professional edition"
    ) as caught:
        call(hook)
    assert caught.value.code == "Access.Forbidden"
    assert len(caught.value.request_id) == 36
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert shows_no_library(caught.value)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.throttled(), ThrottledError),
        (Fault.html_503(), TransientError),
        (Fault.error("Timer.Schedule.Task"), NotStartedError),
    ],
)
def test_transient_errors_keep_their_class(
    hook: QuickBIHook, quickbi: LocalQuickBI, fault: Fault, expected: type[Exception]
):
    quickbi.fail(None, fault, times=None)
    with pytest.raises(expected) as caught:
        hook.manual_run_mail_task("m")
    assert shows_no_library(caught.value)


def test_a_network_failure_shows_nothing_of_the_http_library(
    hook: QuickBIHook, quickbi: LocalQuickBI, connection: Callable[..., None]
):
    connection(port=free_port())
    with pytest.raises(TransientError) as caught:
        hook.get_mail_task_list()
    assert not caught.value.may_have_arrived
    assert shows_no_library(caught.value)


def read(hook: QuickBIHook, how: str) -> Any:
    if how == "blocking":
        return hook.quickbi_connection
    return asyncio.run(asyncio.wait_for(hook.read_connection_async(), 20))


#: The loader of Airflow 3.0 to 3.2 warns about itself when it looks for a connection in the database.
without_airflows_own_warnings = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("how", ["blocking", "async"])
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"login": ""}, "login (AccessKey ID) is missing. auth_type access_key requires it."),
        ({"extra": {"region": "mars-1"}}, "region is 'mars-1'. It must be one of"),
        ({"extra": {"read_timeout": -1}}, "read_timeout is -1. It must be a number from 0.001 to 300."),
        ({"schema": "ftp"}, "schema is 'ftp'. It must be https or http."),
    ],
)
def test_a_field_that_is_wrong_is_an_error_that_names_connection_and_field(
    connection: Callable[..., None], how: str, parts: dict[str, Any], said: str
):
    connection(**parts)
    with pytest.raises(QuickBIConnectionError) as caught:
        read(QuickBIHook(), how)
    assert str(caught.value).startswith(f"Connection 'quickbi_default': {said}")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("how", ["blocking", "async"])
@pytest.mark.parametrize("extra", ['{"region": ', '["region"]', "region=cn-hangzhou"])
@without_airflows_own_warnings
def test_an_extra_that_is_no_json_object_is_not_taken_for_an_empty_one(
    connection: Callable[..., None], how: str, extra: str
):
    connection(extra=extra)
    # Airflow 3.0 to 3.2 says of such a connection itself that it is not there.
    with pytest.raises((QuickBIConnectionError, QuickBIUnavailable), match=r"^Connection 'quickbi_default'"):
        read(QuickBIHook(), how)


@pytest.mark.parametrize("how", ["blocking", "async"])
@without_airflows_own_warnings
def test_a_connection_that_does_not_exist_is_an_error_that_says_how_to_add_one_and_is_retried(how: str):
    with pytest.raises(QuickBIUnavailable) as caught:
        read(QuickBIHook("nowhere"), how)
    assert str(caught.value).startswith("Connection 'nowhere' does not exist")
    assert "AIRFLOW_CONN_NOWHERE" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert isinstance(caught.value, RuntimeError)
    assert not isinstance(caught.value, AirflowException)


@pytest.mark.parametrize("how", ["blocking", "async"])
def test_a_connection_that_cannot_be_read_is_an_error_that_is_retried_and_quotes_nothing(
    monkeypatch: pytest.MonkeyPatch, how: str
):
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError("no access to quickbi://id:the-secret@host")

    monkeypatch.setattr(QuickBIHook, "get_connection", refuse)
    monkeypatch.setattr("airflow.providers.common.compat.connection.get_async_connection", refuse)
    with pytest.raises(
        QuickBIUnavailable, match=r"^Connection 'quickbi_default' cannot be read now \(PermissionError\)\."
    ) as caught:
        read(QuickBIHook(), how)
    error = caught.value
    assert isinstance(error, QuickBIConnectionUnreadable)
    assert "the-secret" not in str(error)
    assert copy.copy(error).as_dict() == error.as_dict()
    kept = error_from_dict(json.loads(json.dumps(error.as_dict())))
    assert isinstance(kept, TransientError)
    assert (str(kept), kept.may_have_arrived) == (str(error), False)


@without_airflows_own_warnings
def test_methods_without_a_connection_raise_an_error_that_is_retried():
    with pytest.raises(QuickBIUnavailable, match="Connection 'nowhere' does not exist"):
        QuickBIHook("nowhere").get_mail_task_status("m")
    with pytest.raises(QuickBIUnavailable, match="Connection 'nowhere' does not exist"):
        QuickBIHook("nowhere").find_mail_tasks(["Daily sales"])


@pytest.mark.parametrize("how", ["blocking", "async"])
def test_a_plus_in_a_uri_is_refused_before_any_request(
    monkeypatch: pytest.MonkeyPatch, quickbi: LocalQuickBI, how: str
):
    where = f"{quickbi.host}:{quickbi.port}/http"
    monkeypatch.setenv(VARIABLE, f"quickbi://the-id:the-secret@{where}?auth_type=sts&security_token=CAIS+x/y%3D")
    with pytest.raises(QuickBIConnectionError, match=r"security_token contains a blank\..* write \+ as %2B"):
        read(QuickBIHook(), how)
    monkeypatch.setenv(VARIABLE, f"quickbi://the-id:the-secret@{where}?auth_type=sts&security_token=CAIS%2Bx/y%3D")
    assert dict(read(QuickBIHook(), how).settings.credentials.fields)["security_token"] == "CAIS+x/y="
    assert quickbi.calls == []


class FromVault(QuickBIHook):
    """A hook as users write it, whose connection is elsewhere."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        from airflow.providers.common.compat.sdk import Connection

        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return Connection(conn_id=conn_id, conn_type="quickbi", login="id-of-vault", password="the-secret")


@pytest.mark.parametrize("how", ["blocking", "async"])
@pytest.mark.parametrize("there", [True, False])
def test_a_subclass_that_overrides_get_connection_is_obeyed(
    monkeypatch: pytest.MonkeyPatch, connection: Callable[..., None], how: str, there: bool
):
    if there:
        connection(login="id-of-the-environment")
    found = read(FromVault(), how)
    assert dict(found.settings.credentials.fields)["access_key_id"] == "id-of-vault"


@without_airflows_own_warnings
def test_a_connection_that_only_the_synchronous_lookup_finds_is_found(monkeypatch: pytest.MonkeyPatch):
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    async def not_found(*_: Any, **__: Any) -> Any:
        raise AirflowNotFoundException("The conn_id isn't defined")

    monkeypatch.setattr("airflow.providers.common.compat.connection.get_async_connection", not_found)
    monkeypatch.setattr(BaseHook, "get_connection", FromVault.get_connection)
    found = read(QuickBIHook(), "async")
    assert dict(found.settings.credentials.fields)["access_key_id"] == "id-of-vault"


def test_an_asynchronous_task_has_a_client(hook: QuickBIHook, quickbi: LocalQuickBI):
    mail_id = quickbi.add_mail_task("Daily sales")
    task_id = quickbi.add_run(mail_id, status="SENT")

    async def main() -> None:
        async with hook.get_async_conn() as client:
            assert [run.task_id for run in await client.get_mail_task_status(mail_id)] == [task_id]
        quickbi.deny("Access.Forbidden")
        with pytest.raises(QuickBIRequestError, match=r"Code Access\.Forbidden"):
            async with hook.get_async_conn() as client:
                await client.get_mail_task_status(mail_id)

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("how", ["blocking", "async"])
def test_a_connection_of_alibaba_clouds_provider_can_be_used(monkeypatch: pytest.MonkeyPatch, how: str):
    extra = {"access_key_id": "the-id", "access_key_secret": "the-secret", "auth_type": "AK", "region": "cn-shanghai"}
    written = json.dumps({"conn_type": "alibaba_cloud", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_ALIBABA_CLOUD_DEFAULT", written)
    found = read(QuickBIHook("alibaba_cloud_default"), how)
    assert found.settings.endpoint.host == "quickbi-public.cn-hangzhou.aliyuncs.com"
    assert dict(found.settings.credentials.fields)["access_key_id"] == "the-id"


@pytest.mark.parametrize("how", ["blocking", "async"])
@pytest.mark.parametrize("valid", [True, False])
def test_secrets_are_masked_before_anything_else_happens(
    connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, how: str, valid: bool
):
    import airflow.providers.common.compat.sdk as compat

    masked: list[str] = []

    def mask(secret: str) -> None:
        """Do as in the triggerer of Airflow 3.0, which cannot be told of a secret from its event loop."""
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        masked.append(secret)

    monkeypatch.setattr(compat, "mask_secret", mask, raising=False)
    connection(
        password=SECRETS["password"],
        extra={"security_token": SECRETS["security_token"], "region": "cn-hangzhou" if valid else "mars-1"},
    )
    hook = QuickBIHook()
    if valid:
        assert read(hook, how).settings.credentials.auth_type == "sts"
    else:
        with pytest.raises(QuickBIConnectionError):
            read(hook, how)
    assert set(SECRETS.values()) <= set(masked)


# test_connection


def test_a_connection_that_works_says_what_was_reached_as_whom(
    hook: QuickBIHook, quickbi: LocalQuickBI, connection: Callable[..., None]
):
    quickbi.add_mail_task("a")
    quickbi.add_mail_task("b")
    quickbi.add_account("LTAI5tExampleKey", "secret")
    connection(login="LTAI5tExampleKey", password="secret")
    assert hook.test_connection() == (
        True,
        f"Reached Quick BI at 127.0.0.1:{quickbi.port} as access_key LTAI***eKey; mail tasks visible: 2.",
    )


def test_a_short_accesskey_is_hidden_too(hook: QuickBIHook, quickbi: LocalQuickBI, connection: Callable[..., None]):
    quickbi.add_account("LTAI5", "secret")
    connection(login="LTAI5", password="secret")
    assert "as access_key LT***; " in hook.test_connection()[1]


def test_a_service_that_counts_nothing_still_works(hook: QuickBIHook, quickbi: LocalQuickBI):
    quickbi.register("GetMailTaskList", lambda params: {"Data": []})
    assert hook.test_connection()[0]
    assert hook.test_connection()[1].endswith("; mail tasks visible: unknown.")


REGION = "Also check the region: an AccessKey is valid only for organizations in its own region."


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (
            lambda quickbi, connection: quickbi.deny("Access.Forbidden"),
            ["rejected the request: ", "Code Access.Forbidden", "Professional edition", "administrator", REGION],
        ),
        (
            lambda quickbi, connection: quickbi.deny("Forbidden.RAM"),
            ["rejected the request: ", "Code Forbidden.RAM", "Check the RAM policy", REGION],
        ),
        (
            lambda quickbi, connection: connection(login="LTAIunknownKey"),
            [
                "LTAI***nKey rejected the request: ",
                "Code InvalidAccessKeyId.NotFound",
                "Check the AccessKey ID",
                REGION,
            ],
        ),
        (
            lambda quickbi, connection: connection(password="wrong"),
            ["rejected the request: ", "Code SignatureDoesNotMatch", "Check the AccessKey Secret", REGION],
        ),
        (
            lambda quickbi, connection: setattr(quickbi.clock, "skew", 3600),
            ["rejected the request: ", "Code InvalidTimeStamp.Expired", "Check this machine's clock"],
        ),
        (
            lambda quickbi, connection: connection(port=free_port()),
            [
                "cannot be reached: ",
                "no connection to 127.0.0.1:",
                "Check region, network, endpoint, proxies and the route",
            ],
        ),
        (
            lambda quickbi, connection: quickbi.fail(None, Fault.html_503(), times=None),
            ["cannot be reached: ", "not a JSON object", "Check region, network, endpoint, proxies and the route"],
        ),
        (
            lambda quickbi, connection: quickbi.fail(None, Fault.redirect("https://login.example/x"), times=None),
            ["rejected the request: ", "redirects to https://login.example", "Check the endpoint's host"],
        ),
        (
            lambda quickbi, connection: connection(extra={"timezone": "Mars"}),
            ["Connection 'quickbi_default': timezone is 'Mars'. It must be an IANA name"],
        ),
    ],
    ids=["denied", "ram", "unknown key", "wrong secret", "clock", "no route", "broken", "redirect", "field"],
)
def test_a_connection_that_does_not_work_says_why_and_what_to_do(
    hook: QuickBIHook,
    quickbi: LocalQuickBI,
    connection: Callable[..., None],
    prepare: Callable[..., Any],
    said: list[str],
):
    prepare(quickbi, connection)
    works, sentence = hook.test_connection()
    assert not works
    assert [part for part in said if part not in sentence] == [], sentence
    assert (REGION in sentence) == (REGION in said), sentence
    assert ".." not in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert quickbi.access_key_secret not in sentence


@without_airflows_own_warnings
def test_a_connection_that_is_not_there_says_so(quickbi: LocalQuickBI):
    works, sentence = QuickBIHook("nowhere").test_connection()
    assert not works
    assert sentence.startswith("Connection 'nowhere' does not exist")


def test_testing_a_connection_leaves_nothing_open(hook: QuickBIHook, quickbi: LocalQuickBI):
    hook.test_connection()
    assert hook._client is not None
    assert hook._client._transport._session is None


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
