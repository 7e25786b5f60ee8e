"""Failures of the credential services and of the vendor's packages: what is raised, and that nothing leaks."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quickbi.api import vendor
from airflow_provider_quickbi.api.credentials import AUTH_TYPES, Credentials, CredentialSource
from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError, QuickBIError, TransientError
from airflow_provider_quickbi.testing import LocalQuickBI

MARK = "SECRET-that-nobody-may-see"


OWN = {
    "access_key": Credentials("own-id", "own-secret"),
    "sts": Credentials("own-id", "own-secret", "own-token"),
    "bearer": Credentials(bearer_token="own-bearer-token"),
    "default": Credentials("own-id", "own-secret"),
}
FETCHED = sorted(set(AUTH_TYPES) - set(OWN))


# Failures of the credential service

RESPONSES = {
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
        for name, response in RESPONSES.items()
        # The provider of the instance metadata does not pass the Code of a refusal on.
        if (auth_type, name) != ("ecs_ram_role", "throttled")
    ],
)
def test_a_response_without_credentials_is_an_error_that_does_not_quote_it(
    stand_in: Any,
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
def test_the_code_of_a_refusal_is_passed_on(stand_in: Any, spec_of: Callable[..., Any], auth_type: str):
    stand_in.response = (403, json.dumps({"Code": "EntityNotExist.Role", "Message": MARK}))
    with pytest.raises(PermanentError) as caught:
        CredentialSource(spec_of(auth_type)).get()
    assert (caught.value.code, caught.value.http_status) == ("EntityNotExist.Role", 403)


@pytest.mark.parametrize("auth_type", FETCHED)
def test_an_unreachable_credential_service_is_a_transient_error(
    stand_in: Any, spec_of: Callable[..., Any], auth_type: str
):
    spec = spec_of(auth_type)
    stand_in.server.shutdown()
    stand_in.server.server_close()
    with pytest.raises(TransientError) as caught:
        CredentialSource(spec).get()
    assert not caught.value.may_have_arrived


def test_credentials_that_have_already_expired_are_refused(stand_in: Any, spec_of: Callable[..., Any]):
    stand_in.response = (
        200,
        json.dumps(
            {
                "Code": "Success",
                "AccessKeyId": "id",
                "AccessKeySecret": MARK,
                "SecurityToken": MARK,
                "Expiration": "2020-01-01T00:00:00Z",
            }
        ),
    )
    with pytest.raises(PermanentError) as caught:
        CredentialSource(spec_of("credentials_uri")).get()
    assert MARK not in str(caught.value)


def test_a_missing_token_file_is_a_permanent_error_that_names_the_field(spec_of: Callable[..., Any]):
    with pytest.raises(PermanentError, match="oidc_token_file_path"):
        CredentialSource(spec_of("oidc_role_arn", oidc_token_file_path="/nowhere/token")).get()


def test_a_credential_chain_without_credentials_is_a_permanent_error(
    stand_in: Any, spec_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    spec = spec_of("default")
    from alibabacloud_credentials.utils import auth_util

    monkeypatch.setattr(auth_util, "environment_access_key_id", None)
    stand_in.response = (404, MARK)
    with pytest.raises(PermanentError) as caught:
        CredentialSource(spec).get()
    assert MARK not in str(caught.value)


def test_a_start_without_credentials_has_not_arrived(
    quickbi: LocalQuickBI, stand_in: Any, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    mail_id = quickbi.add_mail_task("Daily sales")
    stand_in.response = (503, "busy")
    with pytest.raises(TransientError) as caught:
        connect(credentials=spec_of("credentials_uri")).manual_run_mail_task(mail_id)
    assert not caught.value.may_have_arrived
    assert quickbi.count() == 0


@pytest.mark.parametrize("auth_type", ["credentials_uri", "ecs_ram_role"])
def test_a_proxy_that_the_vendors_packages_use_for_this_machine_is_named(
    spec_of: Callable[..., Any], auth_type: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(TransientError, match=r"ignores NO_PROXY: unset HTTP_PROXY"):
        CredentialSource(spec_of(auth_type)).get()


# Logging


def test_the_vendors_packages_add_no_handlers_and_log_nothing_even_at_debug(
    stand_in: Any, spec_of: Callable[..., Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
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


def test_other_users_of_a_logger_of_that_name_still_log(caplog: pytest.LogCaptureFixture):
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
