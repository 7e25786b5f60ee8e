"""Requests are signed as specified, exactly as they are sent, and once per attempt."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_quickbi.api import vendor
from airflow_provider_quickbi.api.clock import Clock, use
from airflow_provider_quickbi.api.credentials import Credentials, CredentialSpec
from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError
from airflow_provider_quickbi.api.settings import Endpoint
from airflow_provider_quickbi.api.signing import encode_parameters, sign
from airflow_provider_quickbi.testing import Call, Fault, LocalQuickBI
from airflow_provider_quickbi.testing.signature import SignedRequest

EMPTY_BODY = hashlib.sha256(b"").hexdigest()
ENDPOINT = Endpoint("quickbi-public.cn-hangzhou.aliyuncs.com")
KEY = Credentials("the-id", "the-secret")

ODD_TEXTS = [
    "a&b=c",
    "two words",
    " edges ",
    "line\nbreak",
    "1+1",
    "~tilde~",
    "100%",
    "%41%20",
    "a/b?c#d;e,f:g@h",
    "*'()!$",
    "日报",
    "📊 report 🎉",
    "é\u0301",
    "\u2028",
    '{"json": "[1]"}',
]


class Wire(LocalQuickBI):
    """Keeps the requests as they arrived."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.arrived: list[SignedRequest] = []

    def receive(self, request: SignedRequest, connection_id: int, remote_port: int) -> Call:
        self.arrived.append(request)
        return super().receive(request, connection_id, remote_port)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as server:
        server.register("Echo", dict)
        yield server


@pytest.fixture
def wire_client(wire: Wire, connect: Callable[..., Any]) -> Any:
    return connect(wire)


def signature_by_the_book(method: str, target: str, headers: Mapping[str, str], secret: str) -> str:
    """Compute the signature from the received bytes, as specified."""
    path, _, query = target.partition("?")
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    canonical = "\n".join(
        [
            method,
            path,
            query,
            *(f"{name}:{headers[name].strip()}" for name in signed),
            "",
            ";".join(signed),
            headers["x-acs-content-sha256"],
        ]
    )
    text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def test_the_vendors_signer_reproduces_the_published_vector():
    headers = {
        "host": "ecs.cn-shanghai.aliyuncs.com",
        "x-acs-action": "RunInstances",
        "x-acs-content-sha256": EMPTY_BODY,
        "x-acs-date": "2023-10-26T10:22:32Z",
        "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
        "x-acs-version": "2014-05-26",
    }
    query = {"ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd", "RegionId": "cn-shanghai"}
    authorization = vendor.signing().Utils.get_authorization(
        SimpleNamespace(method="POST", pathname="/", query=query, headers=headers),
        "ACS3-HMAC-SHA256",
        EMPTY_BODY,
        "YourAccessKeyId",
        "YourAccessKeySecret",
    )
    assert authorization == (
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,"
        "SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,"
        "Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    )


def test_the_same_request_at_the_same_time_with_the_same_nonce_has_the_same_signature():
    moment = datetime(2026, 7, 1, 8, 0, tzinfo=UTC)
    first, second = (
        sign("GetMailTaskStatus", {"MailId": "m"}, endpoint=ENDPOINT, credentials=KEY, now=moment, nonce="n")
        for _ in range(2)
    )
    assert first == second
    assert first.headers["x-acs-date"] == "2026-07-01T08:00:00Z"
    assert first.url == "https://quickbi-public.cn-hangzhou.aliyuncs.com/?MailId=m"


@pytest.mark.parametrize("change", ["action", "parameter", "secret", "host", "time", "nonce"])
def test_a_signature_depends_on_everything_that_matters(change: str):
    moment = datetime(2026, 7, 1, 8, 0, tzinfo=UTC)

    def signature(what: str) -> str:
        request = sign(
            "GetMailTaskList" if what == "action" else "GetMailTaskStatus",
            {"MailId": "other" if what == "parameter" else "m"},
            endpoint=Endpoint("elsewhere.example") if what == "host" else ENDPOINT,
            credentials=Credentials("the-id", "other") if what == "secret" else KEY,
            now=moment + timedelta(seconds=1) if what == "time" else moment,
            nonce="other" if what == "nonce" else "n",
        )
        return request.headers["authorization"].rpartition("=")[2]

    assert signature(change) != signature("")


def test_every_header_that_the_specification_requires_is_signed():
    request = sign(
        "GetMailTaskList", {}, endpoint=ENDPOINT, credentials=Credentials("the-id", "the-secret", "the-token")
    )
    signed = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", *(name for name in request.headers if name.startswith("x-acs-"))} <= set(signed)
    assert {"x-acs-accesskey-id", "x-acs-security-token"} <= set(signed)


def test_the_query_arrives_as_it_was_signed(wire: Wire, connect: Callable[..., Any]):
    values = {f"P{number}": text for number, text in enumerate(ODD_TEXTS)}
    assert connect(wire).call("Echo", values) == values
    [request] = wire.arrived
    assert (request.method, request.body) == ("POST", b"")
    target = f"{request.path}?{request.raw_query}"
    expected = signature_by_the_book(request.method, target, request.headers, wire.access_key_secret)
    assert request.headers["authorization"].endswith(expected)
    assert "+" not in target
    assert request.headers["x-acs-content-sha256"] == EMPTY_BODY
    assert request.headers["x-acs-version"] == "2022-01-01"
    assert request.headers["accept"] == "application/json"


@given(values=st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z0-9_.]{0,9}", fullmatch=True), st.text(max_size=12)))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_verifies_at_the_server_and_arrives_unchanged(wire_client: Any, values: dict[str, str]):
    values = {name: value for name, value in values.items() if name not in ("Action", "Version", "Format")}
    assert wire_client.call("Echo", values) == values


def test_every_attempt_has_its_own_nonce(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("GetMailTaskStatus", Fault.html_503(), Fault.reset(), Fault.throttled())
    client.get_mail_task_status(mail_id)
    nonces = [call.headers["x-acs-signature-nonce"] for call in quickbi.calls]
    assert len(nonces) == len(set(nonces)) == 4


def test_every_attempt_has_the_date_at_which_it_is_sent(quickbi: LocalQuickBI, client: Any):
    minutes = itertools.count(1)
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=2)
    with use(Clock(time=lambda: time.time() + 60 * next(minutes))):
        client.get_mail_task_status(mail_id)
    dates = [datetime.fromisoformat(call.headers["x-acs-date"]) for call in quickbi.calls]
    assert len(dates) == 3
    assert all(later - earlier >= timedelta(seconds=59) for earlier, later in pairwise(dates))


def test_a_used_nonce_is_replaced(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("GetMailTaskStatus", Fault.error("SignatureNonceUsed"))
    assert client.get_mail_task_status(mail_id) == ()
    assert quickbi.count("GetMailTaskStatus") == 2


def test_a_security_token_is_sent_with_the_request(quickbi: LocalQuickBI, connect: Callable[..., Any]):
    quickbi.add_account("sts-id", "sts-secret", security_token="tok/en+==")
    caller = connect(
        credentials=CredentialSpec.of(
            "sts", access_key_id="sts-id", access_key_secret="sts-secret", security_token="tok/en+=="
        )
    )
    assert caller.get_mail_task_list().total_num == 0
    assert quickbi.calls[-1].access_key_id == "sts-id"


def test_a_bearer_token_replaces_the_signature(wire: Wire, connect: Callable[..., Any]):
    wire.add_bearer_token("bear.er-token")
    caller = connect(wire, credentials=CredentialSpec.of("bearer", bearer_token="bear.er-token"))
    assert caller.get_mail_task_list().total_num == 0
    [request] = wire.arrived
    assert "authorization" not in request.headers
    assert "SignatureType=BEARERTOKEN" in request.raw_query


def test_parameters_are_encoded_as_the_service_expects():
    written = encode_parameters(
        "GetMailTaskList", {"PageNum": 1, "Paused": False, "Other": True, "UserNick": None, "Text": "x"}
    )
    assert written == {"PageNum": "1", "Paused": "false", "Other": "true", "Text": "x"}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"MailId": 1.5}, "MailId must be a string"),
        ({"MailId": ["a"]}, "not list"),
        ({"MailId": b"a"}, "not bytes"),
        ({"Mail Id": "a"}, "not a valid parameter name"),
        ({"": "a"}, "not a valid parameter name"),
        ({7: "a"}, "not a valid parameter name"),
        ({"MailId": "\ud800"}, "not valid Unicode"),
        ({"MailId": "x" * 9000}, "too long"),
        ({f"P{number}": "x" * 1000 for number in range(9)}, "query is too long"),
        ({"MailId": "日" * 3000}, "query is too long"),
    ],
)
def test_invalid_parameters_are_refused_before_a_request_is_sent(
    quickbi: LocalQuickBI, client: Any, parameters: dict[Any, Any], said: str
):
    with pytest.raises(PermanentError, match=said) as caught:
        client.call("Echo", parameters, repeatable=True)
    assert caught.value.kind is ErrorKind.BAD_REQUEST
    assert quickbi.count() == 0


@pytest.mark.parametrize("action", ["", "Get Mail", "a" * 101, "7Up", "Get\r\nX: y", "获取"])
def test_an_invalid_operation_name_is_refused_before_a_request_is_sent(quickbi: LocalQuickBI, client: Any, action: str):
    with pytest.raises(PermanentError, match="not a valid operation name"):
        client.call(action)
    assert quickbi.count() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"access_key_id": "ключ", "access_key_secret": "the-secret"},
        {"access_key_id": "id\r\nX-Other: y", "access_key_secret": "the-secret"},
        {"access_key_id": "id", "access_key_secret": "secret-marked-\ud800"},
        {"access_key_id": "id", "access_key_secret": "the-secret", "security_token": "жетон-marked"},
    ],
)
def test_credentials_that_a_header_cannot_carry_are_refused_without_being_shown(
    quickbi: LocalQuickBI, connect: Callable[..., Any], fields: dict[str, str]
):
    caller = connect(credentials=CredentialSpec.of("sts" if "security_token" in fields else "access_key", **fields))
    with pytest.raises(PermanentError, match="cannot be sent") as caught:
        caller.get_mail_task_list()
    assert caught.value.kind is ErrorKind.CREDENTIALS
    shown = f"{caught.value} {caught.value!r} {json.dumps(caught.value.as_dict(), ensure_ascii=False)}"
    assert not any(value in shown for value in fields.values() if value != "id")
    assert quickbi.count() == 0
