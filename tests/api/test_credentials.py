"""Every Alibaba Cloud credential type against services that run on this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from requests.adapters import HTTPAdapter

from airflow_provider_quickbi.api import credentials, vendor
from airflow_provider_quickbi.api.client import AsyncQuickBIClient
from airflow_provider_quickbi.api.credentials import AUTH_TYPES, Credentials, CredentialSource, CredentialSpec
from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError, QuickBIError, TransientError
from airflow_provider_quickbi.api.settings import REGIONS
from airflow_provider_quickbi.testing import LocalQuickBI

MARK = "SECRET-that-nobody-may-see"
BOUND = 20.0


def expiration(hours: float = 1.0) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


class StandIn:
    """A service that gives credentials: the STS, the instance metadata, or a local address.

    Gives ``id-1``, then ``id-2`` and so on, unless ``answer`` is set to a status and a body.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self.given = 0
        self.response: tuple[int, str] | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._guard = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.serve(self)

            do_PUT = do_POST = do_GET  # noqa: N815 - the names that the base class calls

            def log_message(self, *args: Any) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def serve(self, request: Any) -> None:
        parts = urlsplit(request.path)
        with self._guard:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.asked.append((request.command, parts.path, dict(parse_qsl(parts.query)), headers))
        self.may_answer.wait(2.0)
        status, body = self.response or (200, self.regular(request.command, parts.path, dict(parse_qsl(parts.query))))
        raw = body.encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(raw)))
        request.end_headers()
        request.wfile.write(raw)

    def regular(self, method: str, path: str, query: dict[str, str]) -> str:
        if method == "PUT":
            return "metadata-token"
        if path == "/latest/meta-data/ram/security-credentials/":
            return "the-role"
        with self._guard:
            self.given += 1
            fields = {
                "AccessKeyId": f"id-{self.given}",
                "AccessKeySecret": f"secret-{self.given}",
                "SecurityToken": f"token-{self.given}",
                "Expiration": expiration(),
            }
        if query.get("Action", "").startswith("AssumeRole"):
            return json.dumps({"RequestId": "R", "Credentials": fields})
        return json.dumps({"Code": "Success", **fields})

    @property
    def actions(self) -> list[str]:
        return [query.get("Action", "") for _, _, query, _ in self.asked]

    def close(self) -> None:
        self.may_answer.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(BOUND)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A service that gives credentials, where the vendor's providers look for one."""
    vendor.credentials()
    from alibabacloud_credentials.provider import ecs_ram_role
    from Tea.core import TeaCore

    schedulers: list[Any] = []

    class Scheduler(ecs_ram_role.BackgroundScheduler):  # type: ignore[misc, name-defined] - the vendor has no types
        def start(self, *args: Any, **kwargs: Any) -> None:
            schedulers.append(self)
            super().start(*args, **kwargs)

    service = StandIn()
    create = ecs_ram_role.EcsRamRoleCredentialsProvider.__init__

    def look_here(provider: Any, *args: Any, **kwargs: Any) -> None:
        create(provider, *args, **kwargs)
        provider._EcsRamRoleCredentialsProvider__metadata_service_host = service.url

    monkeypatch.setattr(ecs_ram_role, "BackgroundScheduler", Scheduler)
    monkeypatch.setattr(ecs_ram_role, "atexit", SimpleNamespace(register=lambda *args, **kwargs: None))
    monkeypatch.setattr(ecs_ram_role.EcsRamRoleCredentialsProvider, "__init__", look_here)
    monkeypatch.setattr(credentials, "_providers", {})
    monkeypatch.setattr(TeaCore, "_sessions", {})
    # The vendor loads all CA certificates for every address, also where there is no TLS.
    monkeypatch.setattr(TeaCore, "get_adapter", staticmethod(lambda *args, **kwargs: HTTPAdapter()))
    yield service
    for scheduler in schedulers:
        scheduler.shutdown(wait=False)
    for session in TeaCore._sessions.values():
        session.close()
    service.close()


@pytest.fixture
def spec_of(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], CredentialSpec]:
    """Return what a connection would say for each credential type."""
    from alibabacloud_credentials.utils import auth_util

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "oidc-token").write_text("the-oidc-token")

    def make(auth_type: str, **more: Any) -> CredentialSpec:
        key = {"access_key_id": "own-id", "access_key_secret": "own-secret"}
        fields: dict[str, Any] = {
            "access_key": key,
            "sts": {**key, "security_token": "own-token"},
            "ram_role_arn": {
                **key,
                "role_arn": "acs:ram::1:role/report",
                "role_session_name": "airflow",
                "role_session_expiration": 1200,
                "policy": '{"Version": "1"}',
                "external_id": "external",
                "sts_endpoint": stand_in.url,
            },
            "ecs_ram_role": {"role_name": "the-role", "disable_imds_v1": True},
            "oidc_role_arn": {
                "role_arn": "acs:ram::1:role/report",
                "oidc_provider_arn": "acs:ram::1:oidc-provider/k8s",
                "oidc_token_file_path": str(tmp_path / "oidc-token"),
                "sts_endpoint": stand_in.url,
            },
            "credentials_uri": {"credentials_uri": f"{stand_in.url}/credentials?for=airflow"},
            "bearer": {"bearer_token": "own-bearer-token"},
            "default": {},
        }[auth_type]
        if auth_type == "default":
            monkeypatch.setattr(auth_util, "environment_access_key_id", "own-id")
            monkeypatch.setattr(auth_util, "environment_access_key_secret", "own-secret")
        return CredentialSpec.of(auth_type, **{**fields, **more})

    return make


RENEWED = Credentials("id-1", "secret-1", "token-1")
OWN = {
    "access_key": Credentials("own-id", "own-secret"),
    "sts": Credentials("own-id", "own-secret", "own-token"),
    "bearer": Credentials(bearer_token="own-bearer-token"),
    "default": Credentials("own-id", "own-secret"),
}
FETCHED = sorted(set(AUTH_TYPES) - set(OWN))


@pytest.mark.parametrize("auth_type", AUTH_TYPES)
def test_each_type_gives_the_same_credentials_blocking_and_not(spec_of: Callable[..., Any], auth_type: str):
    source = CredentialSource(spec_of(auth_type))
    expected = OWN.get(auth_type, RENEWED)
    assert source.get() == expected
    assert asyncio.run(asyncio.wait_for(source.get_async(), BOUND)) == expected


def test_an_assumed_role_is_asked_for_with_everything_that_was_set(stand_in: StandIn, spec_of: Callable[..., Any]):
    CredentialSource(spec_of("ram_role_arn", security_token="own-token")).get()
    [(_, _, query, _)] = stand_in.asked
    asked = {
        "Action": "AssumeRole",
        "RoleArn": "acs:ram::1:role/report",
        "RoleSessionName": "airflow",
        "DurationSeconds": "1200",
        "Policy": '{"Version": "1"}',
        "ExternalId": "external",
        "AccessKeyId": "own-id",
        "SecurityToken": "own-token",
    }
    assert asked.items() <= query.items()


def test_a_role_for_an_oidc_token_is_asked_for_with_the_token_in_the_file(
    stand_in: StandIn, spec_of: Callable[..., Any]
):
    CredentialSource(spec_of("oidc_role_arn")).get()
    [(_, _, query, _)] = stand_in.asked
    asked = {
        "Action": "AssumeRoleWithOIDC",
        "OIDCProviderArn": "acs:ram::1:oidc-provider/k8s",
        "OIDCToken": "the-oidc-token",
        "RoleArn": "acs:ram::1:role/report",
    }
    assert asked.items() <= query.items()


def test_the_instance_metadata_is_asked_with_a_token_of_its_own(stand_in: StandIn, spec_of: Callable[..., Any]):
    CredentialSource(spec_of("ecs_ram_role")).get()
    assert [(method, path) for method, path, _, _ in stand_in.asked] == [
        ("PUT", "/latest/api/token"),
        ("GET", "/latest/meta-data/ram/security-credentials/the-role"),
    ]
    assert stand_in.asked[-1][3]["x-aliyun-ecs-metadata-token"] == "metadata-token"


def test_the_instances_role_is_looked_up_if_it_is_not_named(stand_in: StandIn, spec_of: Callable[..., Any]):
    assert CredentialSource(CredentialSpec.of("ecs_ram_role")).get() == RENEWED
    assert "/latest/meta-data/ram/security-credentials/" in [path for _, path, _, _ in stand_in.asked]


@pytest.mark.parametrize("auth_type", AUTH_TYPES)
def test_each_type_signs_requests_that_the_service_accepts(
    quickbi: LocalQuickBI, connect: Callable[..., Any], spec_of: Callable[..., Any], auth_type: str
):
    expected = OWN.get(auth_type, RENEWED)
    if auth_type == "bearer":
        quickbi.add_bearer_token(expected.bearer_token)
    else:
        quickbi.add_account(
            expected.access_key_id, expected.access_key_secret, security_token=expected.security_token or None
        )
    caller = connect(credentials=spec_of(auth_type))
    assert caller.get_mail_task_list().total_num == 0
    assert quickbi.count(code="OK") == quickbi.count() == 1


def test_credentials_are_fetched_once_for_many_calls_and_clients(
    quickbi: LocalQuickBI, stand_in: StandIn, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    quickbi.add_account("id-1", "secret-1", security_token="token-1")
    spec = spec_of("credentials_uri")
    for caller in (connect(credentials=spec), connect(credentials=spec)):
        for _ in range(5):
            caller.get_mail_task_list()
    assert stand_in.given == 1


def test_one_provider_serves_all_clients_so_that_none_leaves_a_thread_behind(
    stand_in: StandIn, spec_of: Callable[..., Any]
):
    for auth_type in ("ecs_ram_role", "default"):
        spec = spec_of(auth_type)
        CredentialSource(spec).get()
        before = threading.active_count()
        for _ in range(5):
            CredentialSource(CredentialSpec(spec.auth_type, spec.fields)).get()
        assert threading.active_count() <= before


def test_many_who_wait_on_one_event_loop_fetch_once_and_the_loop_goes_on(
    stand_in: StandIn, spec_of: Callable[..., Any]
):
    source = CredentialSource(spec_of("credentials_uri"))
    stand_in.may_answer.clear()

    async def main() -> list[Credentials]:
        waiting = [asyncio.create_task(source.get_async()) for _ in range(10)]
        while not stand_in.asked:
            await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        stand_in.may_answer.set()
        return list(await asyncio.gather(*waiting))

    assert set(asyncio.run(asyncio.wait_for(main(), BOUND))) == {RENEWED}
    assert len(stand_in.asked) == 1


def test_one_who_stops_waiting_does_not_stop_the_others(stand_in: StandIn, spec_of: Callable[..., Any]):
    source = CredentialSource(spec_of("credentials_uri"))
    stand_in.may_answer.clear()

    async def main() -> Credentials:
        impatient = asyncio.create_task(source.get_async())
        patient = asyncio.create_task(source.get_async())
        while not stand_in.asked:
            await asyncio.sleep(0.001)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        stand_in.may_answer.set()
        return await patient

    assert asyncio.run(asyncio.wait_for(main(), BOUND)) == RENEWED
    assert len(stand_in.asked) == 1


def test_a_failed_fetch_is_not_kept(stand_in: StandIn, spec_of: Callable[..., Any]):
    source = CredentialSource(spec_of("credentials_uri"))

    async def main() -> Credentials:
        stand_in.response = (503, "busy")
        with pytest.raises(TransientError):
            await source.get_async()
        stand_in.response = None
        return await source.get_async()

    assert asyncio.run(asyncio.wait_for(main(), BOUND)) == RENEWED


def test_a_source_serves_one_event_loop_after_another(stand_in: StandIn, spec_of: Callable[..., Any]):
    source = CredentialSource(spec_of("credentials_uri"))
    for _ in range(3):
        assert asyncio.run(asyncio.wait_for(source.get_async(), BOUND)) == RENEWED
    assert len(stand_in.asked) == 1


# Credentials that the service refuses although they should be valid


@pytest.fixture
def expired_first(quickbi: LocalQuickBI) -> None:
    """The first credentials that the stand-in gives have expired, the second have not."""
    quickbi.add_account("id-1", "secret-1", security_token="token-1", security_token_expires_at=1)
    quickbi.add_account("id-2", "secret-2", security_token="token-2")


@pytest.mark.usefixtures("expired_first")
@pytest.mark.parametrize("auth_type", FETCHED)
def test_an_expired_token_is_renewed_once_and_the_call_succeeds(
    quickbi: LocalQuickBI, stand_in: StandIn, connect: Callable[..., Any], spec_of: Callable[..., Any], auth_type: str
):
    caller = connect(credentials=spec_of(auth_type))
    assert caller.get_mail_task_list().total_num == 0
    assert [call.code for call in quickbi.calls] == ["InvalidSecurityToken.Expired", "OK"]
    assert stand_in.given == 2
    caller.get_mail_task_list()
    assert stand_in.given == 2


@pytest.mark.usefixtures("expired_first")
def test_a_start_with_an_expired_token_starts_one_mail(
    quickbi: LocalQuickBI, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    mail_id = quickbi.add_mail_task("Daily sales")
    assert connect(credentials=spec_of("credentials_uri")).manual_run_mail_task(mail_id)
    assert quickbi.starts(mail_id) == 1


@pytest.mark.usefixtures("expired_first")
def test_many_calls_that_meet_an_expired_token_together_renew_it_once(
    quickbi: LocalQuickBI, stand_in: StandIn, spec_of: Callable[..., Any], settings_of: Callable[..., Any]
):
    async def main() -> None:
        async with AsyncQuickBIClient(settings_of(quickbi, credentials=spec_of("credentials_uri"))) as client:
            await asyncio.gather(*(client.call("GetMailTaskList", repeatable=True) for _ in range(20)))

    asyncio.run(asyncio.wait_for(main(), BOUND))
    assert stand_in.given == 2


def test_a_token_that_stays_expired_is_refused_after_one_renewal(
    quickbi: LocalQuickBI, stand_in: StandIn, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    for number in range(1, 9):
        quickbi.add_account(
            f"id-{number}", f"secret-{number}", security_token=f"token-{number}", security_token_expires_at=1
        )
    with pytest.raises(PermanentError) as caught:
        connect(credentials=spec_of("credentials_uri")).get_mail_task_list()
    assert caught.value.code == "InvalidSecurityToken.Expired"
    assert (quickbi.count(), stand_in.given) == (2, 2)


def test_credentials_that_nothing_can_renew_are_not_sent_twice(
    quickbi: LocalQuickBI, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    quickbi.add_account("own-id", "own-secret", security_token="own-token", security_token_expires_at=1)
    with pytest.raises(PermanentError):
        connect(credentials=spec_of("sts")).get_mail_task_list()
    assert quickbi.count() == 1


# What can go wrong with the stand-in

ANSWERS = {
    "denied": (403, {"Code": "NoPermission", "Message": MARK}, PermanentError),
    "unknown key": (404, {"Code": "InvalidAccessKeyId.NotFound", "Message": MARK}, PermanentError),
    "refused without JSON": (400, MARK, PermanentError),
    "throttled": (400, {"Code": "Throttling.User", "Message": MARK}, TransientError),
    "broken": (500, {"Code": "InternalError", "Message": MARK}, TransientError),
    "HTML 503": (503, f"<html>{MARK}</html>", TransientError),
    "too many": (429, MARK, TransientError),
    "no JSON": (200, MARK, TransientError),
    "other JSON": (200, {"Code": "Success", "StartRecord": MARK}, PermanentError),
    "half of it": (200, {"Code": "Success", "AccessKeyId": MARK}, PermanentError),
    "a list": (200, [MARK], PermanentError),
}


@pytest.mark.parametrize(
    ("auth_type", "status", "body", "expected"),
    [
        pytest.param(auth_type, *response, id=f"{auth_type}-{name}")
        for auth_type in FETCHED
        for name, response in ANSWERS.items()
        # The provider of the instance metadata keeps the Code of a refusal to itself.
        if (auth_type, name) != ("ecs_ram_role", "throttled")
    ],
)
def test_an_answer_without_credentials_is_an_error_that_does_not_quote_it(
    stand_in: StandIn,
    spec_of: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    auth_type: str,
    status: int,
    body: Any,
    expected: type[QuickBIError],
):
    stand_in.response = (status, body if isinstance(body, str) else json.dumps(body))
    with caplog.at_level(logging.DEBUG), pytest.raises(QuickBIError) as caught:
        CredentialSource(spec_of(auth_type)).get()
    error = caught.value
    assert type(error) is expected
    assert error.action == "credentials"
    assert f"cannot fetch credentials of type {auth_type}" in str(error)
    if isinstance(error, TransientError):
        assert not error.may_have_arrived
    else:
        assert error.kind is ErrorKind.CREDENTIALS
        assert all(field in error.hint for field in AUTH_TYPES[auth_type].required)
    shown = f"{error!r} {error} {error.args} {error.as_dict()} {caplog.text}"
    shown += "".join(traceback.format_exception(error))
    assert MARK not in shown


@pytest.mark.parametrize("auth_type", ["ram_role_arn", "oidc_role_arn", "credentials_uri"])
def test_the_code_of_a_refusal_is_passed_on(stand_in: StandIn, spec_of: Callable[..., Any], auth_type: str):
    stand_in.response = (403, json.dumps({"Code": "EntityNotExist.Role", "Message": MARK}))
    with pytest.raises(PermanentError) as caught:
        CredentialSource(spec_of(auth_type)).get()
    assert (caught.value.code, caught.value.http_status) == ("EntityNotExist.Role", 403)


@pytest.mark.parametrize("auth_type", FETCHED)
def test_a_service_that_is_not_there_is_asked_again_later(
    stand_in: StandIn, spec_of: Callable[..., Any], auth_type: str
):
    spec = spec_of(auth_type)
    stand_in.server.shutdown()
    stand_in.server.server_close()
    with pytest.raises(TransientError) as caught:
        CredentialSource(spec).get()
    assert not caught.value.may_have_arrived


def test_credentials_that_have_expired_before_they_came_are_no_credentials(
    stand_in: StandIn, spec_of: Callable[..., Any]
):
    stand_in.response = (
        200,
        json.dumps(
            {
                "Code": "Success",
                "AccessKeyId": "id",
                "AccessKeySecret": MARK,
                "SecurityToken": MARK,
                "Expiration": expiration(-1),
            }
        ),
    )
    with pytest.raises(PermanentError) as caught:
        CredentialSource(spec_of("credentials_uri")).get()
    assert MARK not in str(caught.value)


def test_a_token_file_that_is_not_there_is_a_permanent_error_that_names_the_field(spec_of: Callable[..., Any]):
    with pytest.raises(PermanentError, match="oidc_token_file_path"):
        CredentialSource(spec_of("oidc_role_arn", oidc_token_file_path="/nowhere/token")).get()


def test_a_chain_that_finds_nothing_is_a_permanent_error(
    stand_in: StandIn, spec_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    spec = spec_of("default")
    from alibabacloud_credentials.utils import auth_util

    monkeypatch.setattr(auth_util, "environment_access_key_id", None)
    stand_in.response = (404, MARK)
    with pytest.raises(PermanentError) as caught:
        CredentialSource(spec).get()
    assert MARK not in str(caught.value)


def test_a_start_without_credentials_has_reached_nobody(
    quickbi: LocalQuickBI, stand_in: StandIn, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    mail_id = quickbi.add_mail_task("Daily sales")
    stand_in.response = (503, "busy")
    with pytest.raises(TransientError) as caught:
        connect(credentials=spec_of("credentials_uri")).manual_run_mail_task(mail_id)
    assert not caught.value.may_have_arrived
    assert quickbi.count() == 0


# Logging


def test_the_vendors_packages_add_no_handlers_and_say_nothing_even_at_debug(
    stand_in: StandIn, spec_of: Callable[..., Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    loggers = [logging.getLogger(name) for name in vendor._LOGGERS]
    for logger in loggers:  # The official SDK, which other tests import, adds some.
        logger.handlers.clear()
    vendor.signing()
    with caplog.at_level(logging.DEBUG):
        for logger in loggers:
            caplog.set_level(logging.DEBUG, logger.name)
        stand_in.response = (403, json.dumps({"Code": "NoPermission", "Message": MARK}))
        for auth_type in FETCHED:
            with pytest.raises(QuickBIError):
                CredentialSource(spec_of(auth_type)).get()
    assert [logger.handlers for logger in loggers] == [[], [], []]
    assert [record for record in caplog.records if record.name in vendor._LOGGERS] == []
    output = capfd.readouterr()
    assert MARK not in output.out + output.err
    assert output.err == ""


def test_who_else_uses_a_logger_of_that_name_is_heard(caplog: pytest.LogCaptureFixture):
    vendor.credentials()
    with caplog.at_level(logging.INFO, "credentials"):
        logging.getLogger("credentials").info("of somebody else")
    assert "of somebody else" in caplog.text


def test_a_new_process_gets_no_handlers_from_the_vendors_packages():
    program = (
        "import logging\n"
        "from airflow_provider_quickbi.api import vendor\n"
        "vendor.signing(); vendor.credentials()\n"
        "print([logging.getLogger(name).handlers for name in vendor._LOGGERS], logging.getLogger().handlers)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env=_environment()
    )
    assert done.stdout.strip() == "[[], [], []] []"


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.mark.parametrize("region", REGIONS)
def test_a_role_is_assumed_at_the_vpc_endpoint_of_the_region_inside_a_vpc(region: str):
    assert credentials.default_sts_endpoint(region, "vpc") == f"sts-vpc.{region}.aliyuncs.com"
    assert credentials.default_sts_endpoint(region, "public") is None
