"""Who calls: the fields of each credential type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_quickbi.api.credentials import AUTH_TYPES

from .reading import PLAIN, REQUIRED, fields, plain, read, refusal


@pytest.mark.parametrize("auth_type", AUTH_TYPES)
def test_each_credential_type_takes_its_required_fields_and_no_others(auth_type: str):
    auth = AUTH_TYPES[auth_type]
    found = read(auth_type=auth_type, **REQUIRED[auth_type])
    assert found.settings.credentials.auth_type == auth_type
    assert set(fields(found)) == set(auth.required)


@pytest.mark.parametrize("auth_type", AUTH_TYPES)
def test_each_credential_type_takes_its_optional_fields(auth_type: str):
    values: dict[str, Any] = {
        "security_token": "the-token",
        "role_session_name": "airflow",
        "role_session_expiration": 900,
        "policy": '{"Version": "1"}',
        "external_id": "x",
        "sts_endpoint": "sts.example",
        "role_name": "r",
        "disable_imds_v1": True,
    }
    auth = AUTH_TYPES[auth_type]
    found = read(auth_type=auth_type, **{**values, **REQUIRED[auth_type]})
    assert set(fields(found)) == {*auth.required, *auth.optional}
    assert all(fields(found)[name] == values[name] for name in auth.optional)


@pytest.mark.parametrize("auth_type", AUTH_TYPES)
def test_each_required_field_is_required(auth_type: str):
    for missing in AUTH_TYPES[auth_type].required:
        standard = {"access_key_id": "login", "access_key_secret": "password"}
        raw = plain(**{standard[missing]: None}) if missing in standard else PLAIN
        extra = {name: value for name, value in REQUIRED[auth_type].items() if name != missing}
        message = refusal(raw, auth_type=auth_type, **extra)
        assert f"{standard.get(missing, missing)}" in message
        assert f"is missing. auth_type {auth_type} requires it." in message


@pytest.mark.parametrize(
    ("field", "variable", "auth_type"),
    [
        ("role_arn", "ALIBABA_CLOUD_ROLE_ARN", "ram_role_arn"),
        ("role_arn", "ALIBABA_CLOUD_ROLE_ARN", "oidc_role_arn"),
        ("oidc_provider_arn", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "oidc_role_arn"),
        ("oidc_token_file_path", "ALIBABA_CLOUD_OIDC_TOKEN_FILE", "oidc_role_arn"),
        ("credentials_uri", "ALIBABA_CLOUD_CREDENTIALS_URI", "credentials_uri"),
    ],
)
def test_the_sdks_environment_stands_in_for_a_field(
    monkeypatch: pytest.MonkeyPatch, field: str, variable: str, auth_type: str
):
    monkeypatch.setenv(variable, "from the environment")
    extra = {name: value for name, value in REQUIRED[auth_type].items() if name != field}
    assert fields(read(auth_type=auth_type, **extra))[field] == "from the environment"
    assert fields(read(auth_type=auth_type, **extra, **{field: "own"}))[field] == "own"


def test_an_empty_accesskey_is_never_filled_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "somebody-elses")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "somebody-elses")
    assert "login (AccessKey ID) is missing" in refusal(replace(PLAIN, login=" "), region="cn-hangzhou")
    assert "password (AccessKey Secret) is missing" in refusal(replace(PLAIN, password=""), region="cn-hangzhou")


@pytest.mark.parametrize("written", ["AK", "ak", "access_key", " access_key ", "", None])
def test_an_accesskey_may_be_selected_by_its_aliases(written: str | None):
    assert read(auth_type=written).settings.credentials.auth_type == "access_key"


def test_a_security_token_alone_means_temporary_credentials():
    assert read(security_token="t").settings.credentials.auth_type == "sts"
    assert read(security_token="t", auth_type="access_key").settings.credentials.auth_type == "access_key"


def test_the_accesskey_may_be_in_the_extra_and_login_and_password_count_more():
    extra = {"access_key_id": "extra-id", "access_key_secret": "extra-secret"}
    assert fields(read(replace(PLAIN, login=None, password=None), **extra)) == extra
    assert fields(read(PLAIN, **extra)) == {"access_key_id": "LTAI-id", "access_key_secret": "the-secret"}


@pytest.mark.parametrize(
    ("parts", "extra", "said"),
    [
        ({}, {"auth_type": "password"}, ["auth_type is 'password'", "one of access_key, sts, ram_role_arn"]),
        ({}, {"auth_type": ["AK"]}, ["auth_type is of type list", "Write it as a string"]),
        ({"login": "a\nb"}, {}, ["login contains a line break", "Remove it"]),
        ({"password": "a\x00b"}, {}, ["password contains a line break or another control character"]),
        ({}, {"auth_type": "sts", "security_token": "a\r\nb"}, ["security_token contains a line break"]),
        ({}, {"auth_type": "sts", "security_token": 7}, ["security_token is 7", "Write it as a string"]),
        (
            {},
            {"auth_type": "ram_role_arn", "role_arn": "r", "role_session_expiration": 60},
            ["role_session_expiration is 60", "from 900 to 43200"],
        ),
        (
            {},
            {"auth_type": "ecs_ram_role", "disable_imds_v1": "yes"},
            ["disable_imds_v1 is 'yes'. It must be true or false"],
        ),
    ],
)
def test_credentials_that_are_wrong_are_refused(parts: dict[str, Any], extra: dict[str, Any], said: list[str]):
    message = refusal(replace(PLAIN, **parts), **({"region": "cn-hangzhou"} | extra))
    assert [part for part in said if part not in message] == [], message
