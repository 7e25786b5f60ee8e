"""Whatever is to be sent: it arrives as it is with a good signature, or is not sent."""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi.api import errors, operations, rate_limit, signing
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.testing import LocalQuickBI

from .inputs import BothClients, both_clients, examples, settings_for

# Airflow and its dependencies warn about each other when a connection is read first.
pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")


WEIRD = (
    *("a&MailId=b", "a=b", "a+b", "a b", "a%26b", "%", "a#b", "a?b", "/../..", "\x00", "\x7f", "\ud800", "~*!'()"),
    *("日本語", "🙂", "\u02bc", "\u0627", "\u202e", "'; DROP TABLE mail; --", "{{ var.value.secret }}"),
    *("a\r\nX-Evil: 1", "a\nb", "x-acs-action:ManualRunMailTask", "?" * 2000, "é" * 1000, "a" * 10_000_000),
)


def clean_headers(quickbi: LocalQuickBI) -> bool:
    """Whether the last request had the headers that it should have, and no others."""
    wanted = {"host", "accept", "accept-encoding", "user-agent", "content-length", "content-type", "connection"}
    return all(name in wanted or name.startswith("x-acs-") for name in quickbi.calls[-1].headers)


@examples(80)
@given(text=st.text(st.characters(), max_size=60))
def test_any_text_arrives_as_it_is_with_a_good_signature_or_is_not_sent(
    tried: Counter[str], server: LocalQuickBI, clients: BothClients, text: str
) -> None:
    _sent_or_not(tried, server, clients, text)


@pytest.mark.parametrize("text", WEIRD, ids=lambda text: ascii(text[:20]))
def test_weird_text_arrives_as_it_is_with_a_good_signature_or_is_not_sent(
    tried: Counter[str], server: LocalQuickBI, clients: BothClients, text: str
) -> None:
    _sent_or_not(tried, server, clients, text)


def _sent_or_not(tried: Counter[str], server: LocalQuickBI, clients: BothClients, text: str) -> None:
    for name, operation in (
        ("MailId", operations.get_mail_task_status(text, None, UTC)),
        ("MailId", operations.manual_run_mail_task(text)),
        ("UserNick", operations.get_mail_task_list(user_nick=text)),
    ):
        tried["requests tried"] += 2
        before = server.count()
        for response in clients.each(operation):
            if server.count() == before:
                assert isinstance(response, errors.PermanentError)
                assert response.hint == "No request was sent"
                continue
            before += 1
            assert server.count() == before
            assert len(text) < signing.MAX_QUERY_BYTES
            assert server.calls[-1].params.get(name, "") == text
            assert server.calls[-1].code in ("OK", "Mail.Not.Found", "MailId.Is.Null")
            assert clean_headers(server)


@pytest.fixture(autouse=True)
def _starts_are_not_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow any number of starts per second; pacing is tried elsewhere."""
    monkeypatch.setitem(rate_limit.CALLS_PER_SECOND, "ManualRunMailTask", 1000.0)


@pytest.mark.parametrize(
    "action", ["", "Get MailTaskList", "A\r\nX-Evil: 1", "日本", "A" * 200, "../x", "A\x00", "A&B=C"]
)
def test_what_is_no_name_of_an_operation_is_not_sent(server: LocalQuickBI, clients: BothClients, action: str) -> None:
    before = server.count()
    for response in clients(operations.any_operation(action, {}, repeatable=True)):
        assert isinstance(response, errors.PermanentError)
    assert server.count() == before


@pytest.mark.parametrize("name", ["", "Mail Id", "MailId&x", "a\r\nb", "日本", "A" * 200, 7, None])
def test_what_is_no_name_of_a_parameter_is_not_sent(server: LocalQuickBI, clients: BothClients, name: Any) -> None:
    before = server.count()
    for response in clients(operations.any_operation("GetMailTaskList", {name: "x"}, repeatable=True)):
        assert isinstance(response, errors.PermanentError)
    assert server.count() == before


@pytest.mark.parametrize("piece", ["\r\nX-Evil: 1", "\n", "\x00", "é", "日", "\ud800", "\x7f"])
@pytest.mark.parametrize("kind", ["access_key_id", "access_key_secret", "security_token", "bearer_token"])
def test_a_credential_that_would_end_a_header_is_not_sent(server: LocalQuickBI, kind: str, piece: str) -> None:
    fields = {name: f"my-{name}" for name in ("access_key_id", "access_key_secret", "security_token")} | {
        kind: f"a{piece}b"
    }
    spec = CredentialSpec.of("sts", **fields)
    if kind == "bearer_token":
        spec = CredentialSpec.of("bearer", bearer_token=f"a{piece}b")
    before = server.count()
    with both_clients(settings_for(server, credentials=spec)) as both:
        for response in both(operations.get_mail_task_list()):
            assert isinstance(response, errors.PermanentError)
            assert "characters that cannot be sent" in str(response)
    assert server.count() == before
