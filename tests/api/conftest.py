"""Both clients called in the same way, so that one test proves a rule for the blocking and the asyncio one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from requests.adapters import HTTPAdapter

from airflow_provider_quickbi.api import credentials, vendor
from airflow_provider_quickbi.api.client import AsyncQuickBIClient, QuickBIClient
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.flow import AcquireSlot, Pause, Step
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
from airflow_provider_quickbi.testing import LocalQuickBI

#: Seconds after which a call that hangs fails its test.
BOUND = 30.0


class _Blocking(QuickBIClient):
    """Records its pauses instead of making them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pauses: list[float] = []

    def _carry_out(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return self.pauses.append(step.seconds)
        if isinstance(step, AcquireSlot):
            return step.rate_limiter.try_acquire()
        return super()._carry_out(step)


class _Asyncio(AsyncQuickBIClient):
    """Records its pauses instead of making them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pauses: list[float] = []

    async def _carry_out(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return self.pauses.append(step.seconds)
        if isinstance(step, AcquireSlot):
            return step.rate_limiter.try_acquire()
        return await super()._carry_out(step)


class Caller:
    """A client of one kind, whose methods are called without ``await``.

    :param kind: ``blocking`` or ``asyncio``.
    :param settings: of the client.
    :param options: of the client.
    """

    def __init__(self, kind: str, settings: ClientSettings, **options: Any) -> None:
        self.kind = kind
        self.runner = asyncio.Runner()
        self.client: Any = (_Blocking if kind == "blocking" else _Asyncio)(settings, **options)

    @property
    def pauses(self) -> list[float]:
        """The seconds of each pause that the client wanted to make."""
        return self.client.pauses

    def wait_for(self, result: Any) -> Any:
        """Return the result of a client's method, once available."""
        if not hasattr(result, "__await__"):
            return result

        async def bounded() -> Any:
            async with asyncio.timeout(BOUND):
                return await result

        return self.runner.run(bounded())

    def iter_mail_tasks(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield mail tasks one by one as the client yields them."""
        stream = self.client.iter_mail_tasks(*args, **kwargs)
        if self.kind == "blocking":
            yield from stream
            return
        while True:
            try:
                yield self.wait_for(anext(stream))
            except StopAsyncIteration:
                return

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return lambda *args, **kwargs: self.wait_for(method(*args, **kwargs))

    def end(self) -> None:
        """Close the client and its event loop."""
        self.wait_for(self.client.close())
        self.runner.close()


def settings_for(quickbi: LocalQuickBI, **changes: Any) -> ClientSettings:
    """Return settings for a local Quick BI; ``changes`` are fields of ``ClientSettings``."""
    settings = ClientSettings(
        endpoint=Endpoint(quickbi.host, quickbi.scheme, quickbi.port),
        credentials=CredentialSpec.of(
            "access_key", access_key_id=quickbi.access_key_id, access_key_secret=quickbi.access_key_secret
        ),
        status_calls_per_second=1000.0,
        connect_timeout=5.0,
        read_timeout=10.0,
    )
    return replace(settings, **changes)


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two clients."""
    return str(request.param)


@pytest.fixture
def connect(kind: str, quickbi: LocalQuickBI) -> Iterator[Callable[..., Caller]]:
    """Make clients of this kind for a local Quick BI; fields of the settings may be changed."""
    callers: list[Caller] = []

    def make(to: LocalQuickBI | None = None, *, retries: Any = None, on_call: Any = None, **changes: Any) -> Caller:
        caller = Caller(kind, settings_for(to or quickbi, **changes), retries=retries, on_call=on_call)
        callers.append(caller)
        return caller

    yield make
    for caller in callers:
        caller.end()


@pytest.fixture
def client(connect: Callable[..., Caller]) -> Caller:
    """A client of this kind for the local Quick BI."""
    return connect()


@pytest.fixture
def settings_of() -> Callable[..., ClientSettings]:
    """Return settings for a local Quick BI."""
    return settings_for


def expiration(hours: float = 1.0) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


class StandIn:
    """A credential service: STS, the instance metadata, or a local URL.

    Issues ``id-1``, then ``id-2`` and so on, unless ``response`` is set to a status and a body.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self.issued = 0
        self.response: tuple[int, str] | None = None
        self.may_respond = threading.Event()
        self.may_respond.set()
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
            self.requests.append((request.command, parts.path, dict(parse_qsl(parts.query)), headers))
        self.may_respond.wait(2.0)
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
            self.issued += 1
            fields = {
                "AccessKeyId": f"id-{self.issued}",
                "AccessKeySecret": f"secret-{self.issued}",
                "SecurityToken": f"token-{self.issued}",
                "Expiration": expiration(),
            }
        if query.get("Action", "").startswith("AssumeRole"):
            return json.dumps({"RequestId": "R", "Credentials": fields})
        return json.dumps({"Code": "Success", **fields})

    @property
    def actions(self) -> list[str]:
        return [query.get("Action", "") for _, _, query, _ in self.requests]

    def close(self) -> None:
        self.may_respond.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(BOUND)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A credential service at the address that the vendor's providers use."""
    vendor.credentials()
    from alibabacloud_credentials.provider import ecs_ram_role
    from Tea.core import TeaCore

    schedulers: list[Any] = []

    class Scheduler(ecs_ram_role.BackgroundScheduler):  # the vendor has no types
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
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):  # the vendor's packages use them for every host
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(credentials, "_providers", {})
    monkeypatch.setattr(TeaCore, "_sessions", {})
    # The vendor loads all CA certificates for every URL, even without TLS.
    monkeypatch.setattr(TeaCore, "get_adapter", staticmethod(lambda *args, **kwargs: HTTPAdapter()))
    yield service
    for scheduler in schedulers:
        scheduler.shutdown(wait=False)
    for session in TeaCore._sessions.values():
        session.close()
    service.close()


@pytest.fixture
def spec_of(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], CredentialSpec]:
    """Return the spec of a connection for each credential type."""
    from alibabacloud_credentials.utils import auth_util

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "oidc-token").write_text("the-oidc-token")

    def make(auth_type: str, **more: Any) -> CredentialSpec:
        key = {"access_key_id": "own-id", "access_key_secret": "own-secret"}
        fields: dict[str, dict[str, Any]] = {
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
        }
        if auth_type == "default":
            monkeypatch.setattr(auth_util, "environment_access_key_id", "own-id")
            monkeypatch.setattr(auth_util, "environment_access_key_secret", "own-secret")
        return CredentialSpec.of(auth_type, **{**fields[auth_type], **more})

    return make
