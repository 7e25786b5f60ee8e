"""A connection is understood completely, or the error names the connection, the field and what to write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_quickbi.api.credentials import AUTH_TYPES
from airflow_provider_quickbi.api.settings import NO_PROXIES, REGIONS, Endpoint
from airflow_provider_quickbi.connection import (
    CHINA_CONSOLE_URL,
    FIELDS,
    SECRET_FIELDS,
    ConnectionFieldError,
    QuickBIConnection,
    RawConnection,
    form_behaviour,
    form_fields,
    read_connection,
    secrets_of,
)

PLAIN = RawConnection(conn_id="my_quickbi", login="LTAI-id", password="the-secret")


def read(raw: RawConnection = PLAIN, /, **extra: Any) -> QuickBIConnection:
    return read_connection(replace(raw, extra=extra))


def plain(**fields: Any) -> RawConnection:
    """Return the plain connection with other standard fields."""
    return replace(PLAIN, **fields)


def fields(connection: QuickBIConnection) -> dict[str, Any]:
    return dict(connection.settings.credentials.fields)


def refusal(raw: RawConnection = PLAIN, /, **extra: Any) -> str:
    with pytest.raises(ConnectionFieldError) as caught:
        read_connection(replace(raw, extra=extra or raw.extra))
    message = str(caught.value)
    assert message.startswith(f"Connection '{raw.conn_id}': ")
    assert message.endswith(".")
    assert message.count("\n") == 0
    assert caught.value.__cause__ is None
    return message


def test_login_and_password_are_enough():
    found = read()
    assert found.settings.endpoint == Endpoint("quickbi-public.cn-hangzhou.aliyuncs.com")
    assert found.settings.credentials.auth_type == "access_key"
    assert fields(found) == {"access_key_id": "LTAI-id", "access_key_secret": "the-secret"}
    assert found.settings.timezone == "Asia/Shanghai"
    assert found.settings.status_calls_per_second == 1.0
    assert (found.settings.connect_timeout, found.settings.read_timeout) == (5.0, 10.0)
    assert found.settings.verify is True
    assert found.settings.proxies is None
    assert found.console_url == CHINA_CONSOLE_URL


def test_an_extra_that_is_left_out_is_empty():
    assert read_connection(replace(PLAIN, extra=None)) == read()


def test_every_field_that_is_left_empty_has_its_default():
    """The form stores null for what is left empty, or an empty text."""
    for empty in (None, ""):
        assert read(**{field.name: empty for field in FIELDS}) == read()


def test_the_defaults_that_the_form_shows_are_those_that_count():
    shown = {name: field["schema"]["default"] for name, field in form_fields().items() if "default" in field["schema"]}
    assert read(**shown) == read()
    assert read(**{name: str(value) for name, value in shown.items()}) == read()


# Where it is


@pytest.mark.parametrize("region", REGIONS)
def test_each_region_gives_its_address(region: str):
    assert read(region=region).settings.endpoint == Endpoint.of_region(region)
    assert read(region=f" {region} ", network="vpc").settings.endpoint == Endpoint.of_region(region, "vpc")


@pytest.mark.parametrize(
    ("parts", "endpoint"),
    [
        ({"host": "bi.corp.example"}, Endpoint("bi.corp.example", "https")),
        ({"host": "bi.corp.example", "port": 8443}, Endpoint("bi.corp.example", "https", 8443)),
        ({"host": "bi.corp.example", "schema": "http"}, Endpoint("bi.corp.example", "http")),
        ({"host": "bi.corp.example", "schema": "HTTP "}, Endpoint("bi.corp.example", "http")),
        ({"host": " bi.corp.example:8443 "}, Endpoint("bi.corp.example", "https", 8443)),
        ({"host": "http://bi.corp.example:8080/"}, Endpoint("bi.corp.example", "http", 8080)),
        ({"host": "https://bi.corp.example"}, Endpoint("bi.corp.example", "https")),
        ({"host": "10.1.2.3", "port": 80, "schema": "http"}, Endpoint("10.1.2.3", "http", 80)),
        ({"host": "[fd00::1]", "schema": "https"}, Endpoint("[fd00::1]", "https")),
        ({"schema": "https"}, Endpoint("quickbi-public.cn-hangzhou.aliyuncs.com")),
    ],
)
def test_a_host_gives_the_address_whatever_the_region(parts: dict[str, Any], endpoint: Endpoint):
    assert read(replace(PLAIN, **parts), region="us-east-1" if "host" in parts else None).settings.endpoint == endpoint


@pytest.mark.parametrize(
    ("parts", "extra", "said"),
    [
        (
            {},
            {"region": "cn-beijing"},
            ["region is 'cn-beijing'", "Use cn-hangzhou, which serves all of mainland China"],
        ),
        ({}, {"region": "mars-1"}, ["region is 'mars-1'", "one of cn-hangzhou, cn-hongkong"]),
        ({}, {"region": 7}, ["region is 7", "Write it as a string"]),
        ({}, {"network": "internal"}, ["network is 'internal'", "one of public, vpc"]),
        ({"schema": "ftp"}, {}, ["schema is 'ftp'", "https or http"]),
        ({"schema": "http"}, {}, ["host is missing", "apply only to a host"]),
        ({"port": 8443}, {}, ["host is missing", "apply only to a host"]),
        ({"host": "a b"}, {}, ["host is invalid", "Write a host name such as"]),
        ({"host": "bi.example/path"}, {}, ["host is invalid", "more than a scheme, a host and a port"]),
        ({"host": "bi.example:port"}, {}, ["host is invalid", "Write a host name such as"]),
        ({"host": "bi.example", "port": 99999}, {}, ["host is invalid: port must be between 1 and 65535"]),
        ({"host": "ftp://bi.example"}, {}, ["host is invalid: scheme must be https or http"]),
    ],
)
def test_an_address_that_is_wrong_is_refused(parts: dict[str, Any], extra: dict[str, Any], said: list[str]):
    message = refusal(replace(PLAIN, **parts), **extra)
    assert [part for part in said if part not in message] == [], message


def test_a_password_that_somebody_wrote_into_the_host_is_not_shown():
    message = refusal(replace(PLAIN, host="https://user:pass-word@bi.example/"))
    assert "host is invalid" in message
    assert "pass-word" not in message


@pytest.mark.parametrize(
    ("extra", "url"),
    [
        ({}, CHINA_CONSOLE_URL),
        ({"region": "us-east-1"}, None),
        ({"region": "us-east-1", "console_url": " https://bi.example/x "}, "https://bi.example/x"),
        ({"console_url": "http://10.0.0.1:8080"}, "http://10.0.0.1:8080"),
    ],
)
def test_the_console_is_where_the_connection_says_or_where_it_is_in_china(extra: dict[str, Any], url: str | None):
    assert read(**extra).console_url == url


@pytest.mark.parametrize("url", ["bi.example", "javascript:alert(1)", "https://", "https:///x", "ftp://a", "http://[1"])
def test_a_console_that_is_no_web_address_is_refused(url: str):
    assert "console_url is not a URL. It must start with https:// or http://" in refusal(console_url=url)


# Who asks

REQUIRED = {
    "access_key": {},
    "sts": {"security_token": "the-token"},
    "ram_role_arn": {"role_arn": "acs:ram::1:role/r"},
    "ecs_ram_role": {},
    "oidc_role_arn": {
        "role_arn": "acs:ram::1:role/r",
        "oidc_provider_arn": "acs:ram::1:oidc-provider/p",
        "oidc_token_file_path": "/var/run/token",
    },
    "credentials_uri": {"credentials_uri": "http://127.0.0.1:7002/"},
    "bearer": {"bearer_token": "the-token"},
    "default": {},
}


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
def test_each_required_field_is_asked_for(auth_type: str):
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
def test_an_accesskey_may_be_asked_for_by_its_aliases(written: str | None):
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


# How


@pytest.mark.parametrize("name", ["status_calls_per_second", "connect_timeout", "read_timeout"])
@pytest.mark.parametrize(("written", "number"), [(2, 2.0), (0.5, 0.5), ("3", 3.0), (" 4.5 ", 4.5)])
def test_numbers_are_read_as_numbers_and_as_text(name: str, written: Any, number: float):
    assert getattr(read(**{name: written}).settings, name) == number


@pytest.mark.parametrize("name", ["status_calls_per_second", "connect_timeout", "read_timeout"])
@pytest.mark.parametrize("written", [0, -1, 10**400, "fast", True, [1], {}, float("nan"), float("inf"), "1e999", "nan"])
def test_what_is_no_such_number_is_refused(name: str, written: Any):
    message = refusal(**{name: written})
    assert f": {name} is " in message
    assert ". It must be a number from 0.001 to " in message
    assert len(message) < 300


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", " Asia/Tokyo "])
def test_any_iana_zone_may_be_named(name: str):
    assert read(timezone=name).settings.timezone == name.strip()
    assert read(timezone=name).settings.zone.key == name.strip()


@pytest.mark.parametrize(
    "name", ["CST8", "+08:00", "../../etc/passwd", "/etc/passwd", "Asia", "x" * 5000, "Asia/\ud800"]
)
def test_what_is_no_zone_is_refused(name: str):
    message = refusal(timezone=name)
    assert "timezone is " in message
    assert "an IANA name such as Asia/Shanghai" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("written", "expected"),
    [(True, True), (False, False), ("true", True), ("False", False), (" TRUE ", True), ("", True), (None, True)],
)
def test_verification_is_on_unless_it_is_switched_off(written: Any, expected: bool):
    assert read(verify=written).settings.verify is expected


def test_verification_may_name_a_ca_file(tmp_path: Path):
    path = tmp_path / "ca.pem"
    path.touch()
    assert read(verify=f" {path} ").settings.verify == str(path)
    assert "which does not exist. Write true, false or the path of a CA bundle" in refusal(verify=f"{path}.other")


@pytest.mark.parametrize("written", ["no", "0", "x" * 100_000, "\ud800", "/nowhere/ca.pem"])
def test_a_ca_file_that_cannot_be_is_refused(written: str):
    assert "verify is " in refusal(verify=written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("http://proxy:3128", (("all", "http://proxy:3128"),)),
        ('{"https": "http://proxy:3128"}', (("https", "http://proxy:3128"),)),
        (
            {"https": "http://u:p@proxy:3128", "http": "http://other:1"},
            (("http", "http://other:1"), ("https", "http://u:p@proxy:3128")),
        ),
        ("none", NO_PROXIES),
        (" None ", NO_PROXIES),
        ({}, None),
        ("", None),
        (None, None),
    ],
)
def test_proxies_are_read_as_address_as_object_and_as_its_text(written: Any, expected: Any):
    assert read(proxies=written).settings.proxies == expected


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("proxy:3128", "proxies is not a proxy URL"),
        ("socks5://proxy:1080", "proxies is not a proxy URL"),
        ({"ftp": "http://proxy:3128"}, "keys http, https, all"),
        ({"https": None}, "proxies is not a proxy URL"),
        ({"https": "http://user:pass-word@"}, "proxies is not a proxy URL"),
        ("http://user:pass-word@proxy:port", "proxies is not a proxy URL"),
        ('{"https": ', "proxies is not valid JSON. Check its quotes and braces"),
        ("{" * 100_000, "proxies is not valid JSON"),
        (["http://proxy:3128"], "proxies is of type list"),
        (7, "proxies is 7"),
    ],
)
def test_proxies_that_cannot_be_used_are_refused_without_being_shown(written: Any, said: str):
    message = refusal(proxies=written)
    assert said in message
    assert "pass-word" not in message


@pytest.mark.parametrize("name", ["regoin", "ak", "Region", "extra__quickbi__regoin", "extra__http__region", "<b>"])
def test_a_field_that_nobody_knows_is_refused_with_those_that_there_are(name: str):
    message = refusal(**{name: "x"})
    assert f"{name} is not a known field" in message
    assert "The known fields are region, network, auth_type" in message
    assert ("; did you mean region?" in message) == (name in ("regoin", "Region"))


@pytest.mark.parametrize("extra", [[], "region", 7])
def test_an_extra_that_is_no_object_is_refused(extra: Any):
    with pytest.raises(ConnectionFieldError, match="extra is not a JSON object"):
        read_connection(replace(PLAIN, extra=extra))


# What Airflow, its forms and URIs make of values


@pytest.mark.parametrize("mask", ["***", " *** ", "*", "********"])
@pytest.mark.parametrize("name", [*SECRET_FIELDS, "password", "proxies", "login", "access_key_id", "connect_timeout"])
def test_a_value_that_is_airflows_mask_is_refused_even_if_nothing_uses_it(name: str, mask: str):
    standard = name in ("login", "password")
    message = refusal(plain(**{name: mask})) if standard else refusal(**{name: mask})
    what = "the secret" if name in (*SECRET_FIELDS, "password") else "the value"
    assert message == f"Connection 'my_quickbi': {name} holds Airflow's mask, not {what}. Enter it again."


def test_a_proxy_password_that_is_airflows_mask_is_refused():
    message = refusal(proxies={"https": "http://user:***@proxy:3128"})
    assert "proxies holds Airflow's mask, not the secret. Enter the password again." in message


@pytest.mark.parametrize("name", [*SECRET_FIELDS, "access_key_id"])
@pytest.mark.parametrize("value", ["ab cd", "abcd ", " abcd"])
def test_a_blank_in_a_credential_of_the_extra_is_refused_as_what_a_uri_makes_of_a_plus(name: str, value: str):
    auth_type = {"security_token": "sts", "bearer_token": "bearer"}.get(name, "access_key")
    extra = {"access_key_id": "id", "access_key_secret": "secret", "auth_type": auth_type, name: value}
    message = refusal(replace(PLAIN, login=None, password=None), **extra)
    assert f"{name} contains a blank. In a connection URI, write + as %2B; otherwise remove it." in message


@pytest.mark.parametrize("name", ["login", "password"])
def test_a_blank_inside_login_or_password_is_refused_and_one_around_it_is_removed(name: str):
    assert f"{name} contains a blank. In a connection URI, write + as %2B" in refusal(plain(**{name: "a b"}))
    assert read(plain(**{name: f" {getattr(PLAIN, name)}\n"})) == read()


@pytest.mark.parametrize("conn_type", ["quickbi", "alibaba_cloud"])
@pytest.mark.parametrize("prefix", ["extra__quickbi__", "extra__alibaba_cloud__"])
def test_names_as_older_forms_store_them_are_read(conn_type: str, prefix: str):
    raw = replace(PLAIN, conn_type=conn_type)
    plain = {"region": "cn-hongkong", "auth_type": "sts", "security_token": "the-token"}
    prefixed = {f"{prefix}{name}": value for name, value in plain.items()}
    assert read(raw, **prefixed) == read(raw, **plain)
    assert secrets_of(replace(raw, extra=prefixed)) == ["the-secret", "the-token"]


def test_a_plain_name_takes_precedence_over_one_with_a_prefix_unless_it_is_empty():
    prefixed = {"extra__quickbi__region": "us-east-1"}
    assert read(region="cn-hongkong", **prefixed) == read(region="cn-hongkong")
    for empty in ("", None):
        assert read(region=empty, **prefixed) == read(region="us-east-1")


@pytest.mark.parametrize("auth_type", ["ram_role_arn", "oidc_role_arn"])
def test_a_role_is_assumed_inside_the_vpc_unless_the_connection_says_otherwise(auth_type: str):
    role = {"auth_type": auth_type, **REQUIRED[auth_type]}
    assert "sts_endpoint" not in fields(read(**role))
    inside = {**role, "network": "vpc", "region": "cn-hongkong"}
    assert fields(read(**inside))["sts_endpoint"] == "sts-vpc.cn-hongkong.aliyuncs.com"
    assert fields(read(**inside, sts_endpoint="sts.example"))["sts_endpoint"] == "sts.example"


def test_the_connection_for_the_shared_rate_limit_is_optional():
    assert read().pacing_conn_id is None
    assert read(pacing_conn_id=" redis_default ").pacing_conn_id == "redis_default"
    assert "pacing_conn_id is 7. Write it as a string" in refusal(pacing_conn_id=7)


# A connection of apache-airflow-providers-alibaba

ALIBABA = RawConnection(
    conn_id="alibaba_cloud_default",
    conn_type="alibaba_cloud",
    extra={"access_key_id": "id", "access_key_secret": "secret", "auth_type": "AK", "region": "cn-hongkong"},
)


def test_a_connection_to_alibaba_cloud_is_understood_as_it_is():
    found = read_connection(ALIBABA)
    assert found.settings.endpoint == Endpoint.of_region("cn-hongkong")
    assert fields(found) == {"access_key_id": "id", "access_key_secret": "secret"}


def test_what_such_a_connection_says_about_other_services_does_not_matter():
    extra = {**(ALIBABA.extra or {}), "endpoint": "oss-cn-hongkong.aliyuncs.com", "bucket_name": "b", "project": "p"}
    raw = replace(ALIBABA, host="oss-cn-hongkong.aliyuncs.com", port=443, schema="http", extra=extra)
    assert read_connection(raw) == read_connection(ALIBABA)


@pytest.mark.parametrize("region", ["cn-beijing", "cn-shenzhen", "", None])
def test_such_a_connections_region_in_mainland_china_is_served_by_hangzhou(region: str | None):
    raw = replace(ALIBABA, extra={**(ALIBABA.extra or {}), "region": region})
    assert read_connection(raw).settings.endpoint == Endpoint.of_region("cn-hangzhou")


def test_such_a_connections_region_without_quick_bi_is_refused():
    assert "region is 'eu-west-1'" in refusal(replace(ALIBABA, extra={**(ALIBABA.extra or {}), "region": "eu-west-1"}))


# Secrets


def test_everything_secret_is_to_be_masked():
    extra = {name: f"secret-of-{name}" for name in SECRET_FIELDS} | {"region": "cn-hangzhou"}
    assert set(secrets_of(replace(PLAIN, extra=extra))) == {
        "the-secret",
        *(f"secret-of-{name}" for name in SECRET_FIELDS),
    }
    assert secrets_of(RawConnection("c")) == []


def test_neither_a_connection_nor_what_it_says_shows_a_secret():
    extra = {name: f"secret-of-{name}" for name in SECRET_FIELDS} | {"proxies": "http://user:secret-of-proxy@proxy:1"}
    raw = replace(PLAIN, password="secret-of-login", extra=extra)
    assert "secret-of" not in f"{raw!r} {raw} {read_connection(raw)!r}"


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["true", "", "http://a", "AK", "default", "cn-hangzhou", "vpc", "UTC", "{", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_secret = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEFGH0123456789+/=\n\ud800é", min_size=12, max_size=30)


@given(
    extra=st.dictionaries(st.sampled_from([field.name for field in FIELDS]) | st.text(max_size=10), _values, max_size=8)
    | _values,
    auth_type=st.sampled_from([*AUTH_TYPES, None]),
    secrets=st.lists(_secret, min_size=4, max_size=4, unique=True),
    login=st.none() | st.text(max_size=10),
    host=st.none() | st.text(max_size=30) | st.sampled_from(["a", "https://a:1/", "[::1]"]),
    port=st.none() | st.integers(-5, 70000),
    schema=st.none() | st.text(max_size=6) | st.sampled_from(["http", "https"]),
    conn_type=st.sampled_from(["quickbi", "alibaba_cloud"]),
)
@example(
    extra={"verify": "x" * 5000},
    auth_type=None,
    secrets=["a" * 12] * 4,
    login="i",
    host=None,
    port=None,
    schema=None,
    conn_type="quickbi",
)
@settings(max_examples=150, deadline=None)
def test_any_connection_is_understood_or_refused_in_words_that_show_no_secret(
    extra: Any, auth_type: Any, secrets: list[str], login: Any, host: Any, port: Any, schema: Any, conn_type: str
):
    if isinstance(extra, dict):
        extra = {**extra, **dict(zip(SECRET_FIELDS, secrets, strict=False))}
        if auth_type is not None:
            extra["auth_type"] = auth_type
    raw = RawConnection("c", conn_type, login, secrets[3], host, port, schema, extra)
    try:
        found = read_connection(raw)
    except ConnectionFieldError as error:
        shown = str(error)
        assert shown.startswith("Connection 'c': ")
        assert len(shown) < 1200
    else:
        shown = repr(found)
        assert found.settings.endpoint.url
        assert found.settings.zone
        hash(found.settings)
    assert not any(secret in shown for secret in secrets)


def test_the_form_says_the_same_each_time_and_nobody_can_change_it():
    form_behaviour()["hidden_fields"].append("login")
    form_fields()["region"]["schema"]["enum"].clear()
    assert form_behaviour()["hidden_fields"] == ["extra"]
    assert form_fields()["region"]["schema"]["enum"]
