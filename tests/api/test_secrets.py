"""Secrets appear in no text that may be shown: errors, settings, requests, logs, quotes of the service."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_quickbi.api.credentials import Credentials, CredentialSource, CredentialSpec
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.flow import GetCredentials
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
from airflow_provider_quickbi.api.signing import sign
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

SECRET = "Mk7secretQ2access3key9Zw"
TOKEN = "CAIS" + "tokenPart/+=" * 60
BEARER = "bearer-" + "b3arer.tok3n." * 20
SECRETS = (SECRET, TOKEN, BEARER)


def leaked(text: str) -> list[str]:
    """Return the parts of secrets, of 12 characters or more, in a text."""
    return sorted(
        {
            secret[start : start + 12]
            for secret in SECRETS
            for start in range(len(secret) - 11)
            if secret[start : start + 12] in text
        }
    )


def shown(error: BaseException) -> str:
    """Return everything that a log, a debugger or another process can see of an error."""
    texts = [str(error), repr(error), repr(error.args), "".join(traceback.format_exception(error))]
    if isinstance(error, QuickBIError):
        texts += [json.dumps(error.as_dict()), repr(vars(error))]
        texts += [repr(pickle.dumps(error)), str(pickle.loads(pickle.dumps(error)))]  # noqa: S301 - made just before
    return "\n".join(texts)


@pytest.fixture
def caller_with(quickbi: LocalQuickBI, connect: Callable[..., Any]) -> Callable[[str], Any]:
    """Make a client whose every secret is marked."""
    quickbi.add_account("sts-id", SECRET, security_token=TOKEN)
    quickbi.add_bearer_token(BEARER)

    def make(auth_type: str) -> Any:
        fields = {
            "access_key": {"access_key_id": "sts-id", "access_key_secret": SECRET},
            "sts": {"access_key_id": "sts-id", "access_key_secret": SECRET, "security_token": TOKEN},
            "bearer": {"bearer_token": BEARER},
        }[auth_type]
        return connect(credentials=CredentialSpec.of(auth_type, **fields), read_timeout=0.2)

    return make


@pytest.mark.parametrize("auth_type", ["access_key", "sts", "bearer"])
@pytest.mark.parametrize(
    "quoted",
    [
        "{secret}",
        "server string to sign is: POST x-acs-security-token:{secret} x-acs-version:2022-01-01",
        "x" * 990 + "{secret}",
        "x" * 200 + "{secret}" * 3,
        "Authorization: Bearer {secret}\r\n{secret}",
    ],
)
@pytest.mark.parametrize("where", ["message", "body", "html"])
def test_a_secret_quoted_by_the_service_is_masked(
    quickbi: LocalQuickBI, caller_with: Callable[[str], Any], auth_type: str, quoted: str, where: str
):
    secret = {"access_key": SECRET, "sts": TOKEN, "bearer": BEARER}[auth_type]
    text = quoted.replace("{secret}", secret)
    fault = {
        "message": Fault.error("SignatureDoesNotMatch", text),
        "body": Fault.custom(500, {"Message": text, "RequestId": text}),
        "html": Fault.custom(502, text),
    }[where]
    quickbi.fail(None, fault, times=None)
    with pytest.raises(QuickBIError) as caught:
        caller_with(auth_type).get_mail_task_status("m", retries=NO_RETRY)
    assert leaked(shown(caught.value)) == []


@pytest.mark.parametrize("auth_type", ["access_key", "sts", "bearer"])
@pytest.mark.parametrize(
    "fault",
    [Fault.reset(), Fault.hang(), Fault.html_503(), Fault.half_body(), Fault.redirect(f"http://{TOKEN[:20]}/{SECRET}")],
    ids=lambda fault: fault.kind,
)
def test_no_failure_shows_a_secret(
    quickbi: LocalQuickBI, caller_with: Callable[[str], Any], auth_type: str, fault: Fault
):
    quickbi.fail(None, fault, times=None)
    with pytest.raises(QuickBIError) as caught:
        caller_with(auth_type).get_mail_task_status("m", retries=NO_RETRY)
    assert leaked(shown(caught.value)) == []


def test_text_that_resembles_a_short_secret_is_not_masked(quickbi: LocalQuickBI, connect: Callable[..., Any]):
    for secret in ("*", "***", "a", "e"):
        quickbi.add_account("short", secret)
        spec = CredentialSpec.of("access_key", access_key_id="short", access_key_secret=secret)
        quickbi.fail(None, Fault.error("Mail.Not.Found", "a * message"))
        with pytest.raises(QuickBIError):
            connect(credentials=spec).get_mail_task_status("m")


def test_no_repr_shows_a_secret():
    spec = CredentialSpec.of("sts", access_key_id="id", access_key_secret=SECRET, security_token=TOKEN)
    settings = ClientSettings(
        endpoint=Endpoint("quickbi.example"), credentials=spec, proxies=(("https", f"http://user:{SECRET}@proxy:1"),)
    )
    credentials = Credentials("id", SECRET, TOKEN, "")
    request = sign("A", {}, endpoint=settings.endpoint, credentials=credentials, now=datetime.now(UTC))
    bearer = sign("A", {}, endpoint=settings.endpoint, credentials=Credentials(bearer_token=BEARER))
    for value in (
        spec,
        settings,
        settings.account,
        credentials,
        request,
        bearer,
        CredentialSource(spec),
        GetCredentials(refused=credentials),
        CredentialSpec.of("bearer", bearer_token=BEARER).identity,
        CredentialSpec.of("ram_role_arn", access_key_secret=SECRET, security_token=TOKEN).identity,
    ):
        assert leaked(f"{value} {value!r}") == []
    assert leaked(request.url) == leaked(bearer.url) == []


@pytest.mark.parametrize("auth_type", ["access_key", "sts", "bearer"])
def test_no_secret_is_logged_even_at_debug(
    quickbi: LocalQuickBI, caller_with: Callable[[str], Any], auth_type: str, caplog: pytest.LogCaptureFixture
):
    quickbi.fail("GetMailTaskStatus", Fault.html_503(), Fault.reset(), Fault.throttled())
    with caplog.at_level(logging.DEBUG):
        client = caller_with(auth_type)
        with pytest.raises(QuickBIError):
            client.get_mail_task_status("m")
        assert repr(client.client)
    assert leaked(caplog.text + repr(client.client)) == []
    assert caplog.records
