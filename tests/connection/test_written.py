"""What Airflow, its forms, URIs and other providers' connections make of values, and what is a secret."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_quickbi.api.credentials import AUTH_TYPES
from airflow_provider_quickbi.api.settings import Endpoint
from airflow_provider_quickbi.connection import (
    FIELDS,
    SECRET_FIELDS,
    ConnectionFieldError,
    RawConnection,
    form_behaviour,
    form_fields,
    read_connection,
    secrets_of,
)

from .reading import PLAIN, REQUIRED, fields, plain, read, refusal

# What Airflow, its forms and URIs make of values


@pytest.mark.parametrize("mask", ["***", " *** ", "*", "********"])
@pytest.mark.parametrize("name", [*SECRET_FIELDS, "password", "proxies", "login", "access_key_id", "connect_timeout"])
def test_a_value_that_is_airflows_mask_is_refused_even_if_nothing_uses_it(name: str, mask: str):
    standard = name in ("login", "password")
    message = refusal(plain(**{name: mask})) if standard else refusal(**{name: mask})
    what = "the secret" if name in (*SECRET_FIELDS, "password") else "the value"
    assert message == f"Connection 'my_quickbi': {name} holds Airflow's mask, not {what}. Enter it again."


@pytest.mark.parametrize("user_info", ["user:***", "***", "user:a:***", "user:***:b", "user:a@***"])
@pytest.mark.parametrize("form", ["{}", '{{"https": "{}"}}'])
def test_a_url_with_airflows_mask_before_its_host_is_refused(form: str, user_info: str):
    url = f"http://{user_info}@proxy:3128"
    for extra in ({"proxies": form.format(url)}, {"proxies": {"https": url}}, {"credentials_uri": url}):
        (name,) = extra
        assert f"{name} holds Airflow's mask" in refusal(**extra)


@pytest.mark.parametrize("name", [*SECRET_FIELDS, "access_key_id", "credentials_uri", "external_id"])
@pytest.mark.parametrize("value", ["ab cd", "abcd ", " abcd"])
def test_a_blank_in_a_credential_of_the_extra_is_refused_as_what_a_uri_makes_of_a_plus(name: str, value: str):
    auth_type = next(auth.name for auth in AUTH_TYPES.values() if name in (*auth.required, *auth.optional))
    extra = {"access_key_id": "id", "access_key_secret": "secret", **REQUIRED[auth_type]}
    extra |= {"auth_type": auth_type, name: value}
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


@pytest.mark.parametrize("auth_type", sorted(AUTH_TYPES))
@pytest.mark.parametrize("proxies", ["http://proxy:1", {"https": "http://proxy:1", "all": "http://other:1"}])
def test_the_proxy_of_a_connection_applies_to_sts_but_not_to_this_machine(auth_type: str, proxies: Any):
    found = fields(read(auth_type=auth_type, **REQUIRED[auth_type], proxies=proxies))
    assert found.get("proxy") == ("http://proxy:1" if "role_arn" in REQUIRED[auth_type] else None)
    assert "proxy" not in fields(read(auth_type=auth_type, **REQUIRED[auth_type], proxies="none"))


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


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("extra__alibaba_cloud__regoin", "Rename it to region"),
        ("extra__quickbi__regoin", "Rename it to region"),
        ("extra__alibaba_cloud__access_key", "Rename it to access_key_id"),
        ("extra__alibaba_cloud__bucket_name", "Remove it"),
        ("extra__oss__region", "Rename it to region"),
        ("extra__alibaba__region", "Rename it to region"),
        ("extra__alibaba__regoin", "Rename it to region"),
    ],
)
def test_a_name_of_an_older_form_that_nothing_reads_is_refused_by_name(name: str, remedy: str):
    extra = {"access_key_id": "id", "access_key_secret": "secret", name: "us-east-1"}
    assert f"{name} is not a known field. {remedy}." in refusal(replace(ALIBABA, extra=extra))


@pytest.mark.parametrize("name", ["extra__oss__region", "extra__oss__bucket_name", "extra__region", "oss__region"])
def test_what_other_services_have_beside_a_region_does_not_matter(name: str):
    raw = replace(ALIBABA, extra={**(ALIBABA.extra or {}), name: "us-east-1"})
    assert read_connection(raw) == read_connection(ALIBABA)


# Secrets


def test_everything_secret_is_to_be_masked():
    extra = {name: f"secret-of-{name}" for name in SECRET_FIELDS} | {"region": "cn-hangzhou"}
    assert set(secrets_of(replace(PLAIN, extra=extra))) == {
        "the-secret",
        *(f"secret-of-{name}" for name in SECRET_FIELDS),
    }
    assert secrets_of(RawConnection("c")) == []
    assert secrets_of(RawConnection("c", extra={"proxies": "http://user:a@b:c@proxy:1"})) == ["a@b:c"]


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
