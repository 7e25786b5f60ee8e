"""A caller that signs as the specification asks for, independent of the provider's own client."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests
from alibabacloud_tea_openapi.utils import Utils
from darabonba.request import DaraRequest

from airflow_provider_quickbi.testing import LocalQuickBI, fixtures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

quickbi = fixtures.quickbi
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
REQUEST_ID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")


def sign(
    host: str,
    action: str,
    params: dict[str, str],
    *,
    access_key_id: str,
    access_key_secret: str,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    version: str = "2022-01-01",
) -> dict[str, str]:
    """Return the headers of a signed request, signed by the official signer."""
    request = DaraRequest()
    request.method = method
    request.pathname = "/"
    request.query = params
    request.headers = {
        "host": host,
        "x-acs-action": action,
        "x-acs-version": version,
        "x-acs-date": Utils.get_timestamp(),
        "x-acs-signature-nonce": uuid.uuid4().hex,
        "x-acs-content-sha256": EMPTY_SHA256,
        **(headers or {}),
    }
    request.headers["Authorization"] = Utils.get_authorization(
        request, "ACS3-HMAC-SHA256", request.headers["x-acs-content-sha256"], access_key_id, access_key_secret
    )
    return dict(request.headers)


@pytest.fixture(name="sign")
def sign_fixture() -> Callable[..., dict[str, str]]:
    """The signer, for tests that send requests themselves."""
    return sign


class Caller:
    """Calls operations of a simulator over one pooled session."""

    def __init__(self, quickbi: LocalQuickBI, access_key_id: str = "", access_key_secret: str = "") -> None:
        self.quickbi = quickbi
        self.access_key_id = access_key_id or quickbi.access_key_id
        self.access_key_secret = access_key_secret or quickbi.access_key_secret
        self.session = requests.Session()
        self.session.trust_env = False

    def send(
        self,
        action: str,
        params: dict[str, str] | None = None,
        *,
        headers: dict[str, str] | None = None,
        method: str = "POST",
        version: str = "2022-01-01",
        timeout: float = 5,
        **options: Any,
    ) -> requests.Response:
        signed = sign(
            f"{self.quickbi.host}:{self.quickbi.port}",
            action,
            params or {},
            access_key_id=self.access_key_id,
            access_key_secret=self.access_key_secret,
            headers=headers,
            method=method,
            version=version,
        )
        return self.session.request(
            method, self.quickbi.url + "/", params=params, headers=signed, timeout=timeout, **options
        )

    def __call__(self, action: str, **params: object) -> Any:
        """Call an operation; return its Result, or its Code if it was refused."""
        answer = self.send(action, {name: str(value) for name, value in params.items()}).json()
        return answer["Result"] if answer.get("Success") else answer["Code"]


@pytest.fixture
def make_caller() -> Iterator[Callable[..., Caller]]:
    callers: list[Caller] = []

    def make(quickbi: LocalQuickBI, *key: str) -> Caller:
        callers.append(Caller(quickbi, *key))
        return callers[-1]

    yield make
    for caller in callers:
        caller.session.close()


@pytest.fixture
def call(quickbi: LocalQuickBI, make_caller: Callable[..., Caller]) -> Caller:
    """A caller with the first account of the test's simulator."""
    return make_caller(quickbi)
