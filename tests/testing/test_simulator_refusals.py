"""What the simulator refuses over HTTP: wrong calls and callers, and what is denied to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_quickbi.testing import LocalQuickBI
from airflow_provider_quickbi.testing.remote import encode

from .conftest import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Caller


def test_a_refusal_has_the_documented_body(quickbi: LocalQuickBI, call: Caller) -> None:
    response = call.send("GetMailTaskStatus", {"MailId": "nowhere"})
    body = response.json()
    assert response.status_code == 400
    assert REQUEST_ID.fullmatch(body["RequestId"])
    assert body["HostId"] == f"127.0.0.1:{quickbi.port}"
    assert (body["Code"], body["Message"]) == ("Mail.Not.Found", "The mail task does not exist.")
    assert "Mail.Not.Found" in body["Recommend"]
    assert set(body) == {"RequestId", "HostId", "Code", "Message", "Recommend"}


def test_an_unknown_action_version_or_path_is_not_found(quickbi: LocalQuickBI, call: Caller) -> None:
    response = call.send("GetNothing")
    assert (response.status_code, response.json()["Code"]) == (404, "InvalidAction.NotFound")
    assert call.send("GetMailTaskList", version="2020-01-01").json()["Code"] == "InvalidVersion"
    response = requests.post(quickbi.url + "/elsewhere", timeout=5)
    assert (response.status_code, response.json()["Code"]) == (404, "InvalidApi.NotFound")


def test_an_unsigned_call_is_refused_and_logged(quickbi: LocalQuickBI) -> None:
    response = requests.post(quickbi.url, headers={"x-acs-action": "GetMailTaskList"}, timeout=5)
    assert response.json()["Code"] == "IncompleteSignature"
    assert quickbi.count("GetMailTaskList", code="IncompleteSignature") == 1


def test_a_wrong_secret_does_not_match(quickbi: LocalQuickBI, make_caller: Callable[..., Caller]) -> None:
    response = make_caller(quickbi, quickbi.access_key_id, "wrong").send("GetMailTaskList")
    assert (response.status_code, response.json()["Code"]) == (400, "SignatureDoesNotMatch")
    assert "server string to sign is:ACS3-HMAC-SHA256" in response.json()["Message"]
    assert quickbi.access_key_secret not in response.text


def test_a_disabled_or_unknown_key_is_refused(
    quickbi: LocalQuickBI, call: Caller, make_caller: Callable[..., Caller]
) -> None:
    quickbi.change_account(quickbi.access_key_id, active=False)
    assert call("GetMailTaskList") == "InvalidAccessKeyId.Inactive"
    response = make_caller(quickbi, "unknown", "secret").send("GetMailTaskList")
    assert (response.status_code, response.json()["Code"]) == (404, "InvalidAccessKeyId.NotFound")


@pytest.mark.parametrize("seconds", [-1000, 1000])
def test_a_clock_that_is_off_by_more_than_15_minutes_is_noticed(
    quickbi: LocalQuickBI, call: Caller, seconds: float
) -> None:
    quickbi.clock.skew = seconds
    assert call("GetMailTaskList") == "InvalidTimeStamp.Expired"
    quickbi.clock.skew = 0
    assert call("GetMailTaskList")["TotalNum"] == 0


def test_moving_the_clock_of_the_mails_leaves_signatures_alone(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.clock.freeze("2020-01-01T00:00:00")
    assert call("GetMailTaskList")["TotalNum"] == 0


def test_a_temporary_key_needs_its_token(quickbi: LocalQuickBI, make_caller: Callable[..., Caller]) -> None:
    quickbi.add_account("STS.id", "sts-secret", security_token="token")
    call = make_caller(quickbi, "STS.id", "sts-secret")

    def code(token: str) -> str | None:
        headers = {"x-acs-accesskey-id": "STS.id", "x-acs-security-token": token}
        return str(call.send("GetMailTaskList", headers=headers).json().get("Code"))

    assert call("GetMailTaskList") == "InvalidSecurityToken.Malformed"
    assert code("token") == "None"
    assert code("other") == "InvalidSecurityToken.MismatchWithAccessKey"
    quickbi.change_account("STS.id", security_token_expires_at=datetime.now(UTC))
    assert code("token") == "InvalidSecurityToken.Expired"
    assert "token" not in encode(quickbi.calls).replace("x-acs-security-token", "")


def test_a_bearer_token_is_let_in(quickbi: LocalQuickBI) -> None:
    quickbi.add_bearer_token("good")

    def code(token: str, **query: str) -> object:
        headers = {"x-acs-action": "GetMailTaskList", "x-acs-version": "2022-01-01", "x-acs-bearer-token": token}
        return requests.post(quickbi.url, params=query, headers=headers, timeout=5).json().get("Code")

    assert code("good", SignatureType="BEARERTOKEN") is None
    assert code("bad", SignatureType="BEARERTOKEN") == "InvalidSecurityToken.Malformed"
    assert code("good") == "IncompleteSignature"
    assert quickbi.calls[0].access_key_id == quickbi.access_key_id


# Rights


def test_a_denied_operation_is_refused_until_it_is_allowed(quickbi: LocalQuickBI, call: Caller) -> None:
    mail_id, other = quickbi.add_mail_task("m"), quickbi.add_mail_task("other")
    quickbi.deny("Mail.Forbidden.Access", action="ManualRunMailTask", mail_id=mail_id)
    assert call("ManualRunMailTask", MailId=mail_id) == "Mail.Forbidden.Access"
    assert call("ManualRunMailTask", MailId=other) is True
    assert call("GetMailTaskStatus", MailId=mail_id) == []
    quickbi.allow("ManualRunMailTask")
    assert call("ManualRunMailTask", MailId=mail_id) is True


def test_a_ram_denial_is_a_403(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.deny("Forbidden.RAM")
    assert call.send("GetMailTaskStatus").status_code == 403
    quickbi.allow()
    quickbi.deny("Access.Forbidden", message="Edition too small")
    assert call.send("GetMailTaskList").json()["Message"] == "Edition too small"


@pytest.mark.parametrize(
    ("code", "status"),
    [("Forbidden.NoIdea", 403), ("NoPermission", 403), ("ServiceUnavailable", 503), ("Unheard.Of", 400)],
)
def test_a_refusal_has_the_http_status_that_goes_with_its_code(
    quickbi: LocalQuickBI, call: Caller, code: str, status: int
) -> None:
    quickbi.deny(code)
    response = call.send("GetMailTaskList")
    assert (response.status_code, response.json()["Code"]) == (status, code)


def test_an_account_that_makes_no_sense_is_a_mistake(quickbi: LocalQuickBI) -> None:
    with pytest.raises(ValueError, match="not empty"):
        quickbi.add_account("", "secret")
    with pytest.raises(KeyError, match="nobody"):
        quickbi.change_account("nobody", active=False)
    with pytest.raises(TypeError, match="colour"):
        quickbi.change_account(quickbi.access_key_id, colour="red")
