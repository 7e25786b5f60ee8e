"""What a hook raises, retries and shows when its connection or Quick BI is not there."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_quickbi.api.errors import (
    NotStartedError,
    ThrottledError,
    TransientError,
    error_from_dict,
)
from airflow_provider_quickbi.exceptions import (
    QuickBIConnectionError,
    QuickBIConnectionUnreadable,
    QuickBIRequestError,
    QuickBIUnavailable,
)
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

from .reading import SECRETS, VARIABLE, free_port, read, shows_no_library, without_airflows_own_warnings


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
    with pytest.raises(QuickBIRequestError, match=r"Code Access\.Forbidden, RequestId ") as caught:
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


@pytest.mark.parametrize("how", ["blocking", "async"])
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"password": "***"}, "password holds Airflow's mask"),
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
        """Do as in the triggerer of Airflow 3.0, which cannot mask a secret from its event loop."""
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
