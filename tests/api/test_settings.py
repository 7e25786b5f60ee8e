"""Endpoints: which exist, how people write them, and that anything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.settings import REGIONS, ClientSettings, Endpoint, is_web_address, split_endpoint


@pytest.mark.parametrize("region", REGIONS)
def test_each_region_has_a_public_and_a_vpc_endpoint(region: str):
    assert Endpoint.of_region(region).url == f"https://quickbi-public.{region}.aliyuncs.com/"
    assert Endpoint.of_region(region, "vpc").url == f"https://quickbi-public-vpc.{region}.aliyuncs.com/"
    assert {Endpoint.of_region(region, network).region for network in ("public", "vpc")} == {region}
    assert Endpoint(f"quickbi-public.{region}.example").region is None


@pytest.mark.parametrize(("region", "network"), [("cn-beijing", "public"), ("", "public"), ("cn-hangzhou", "internal")])
def test_other_regions_and_networks_are_refused(region: str, network: str):
    with pytest.raises(ValueError, match="is not one of"):
        Endpoint.of_region(region, network)


@pytest.mark.parametrize(
    ("endpoint", "host_header", "url"),
    [
        (Endpoint("a.example"), "a.example", "https://a.example/"),
        (Endpoint("a.example", "https", 443), "a.example", "https://a.example/"),
        (Endpoint("a.example", "http", 443), "a.example:443", "http://a.example:443/"),
        (Endpoint("a.example", "https", 8443), "a.example:8443", "https://a.example:8443/"),
        (Endpoint("10.0.0.1", "http", 80), "10.0.0.1", "http://10.0.0.1/"),
        (Endpoint("[::1]", "http", 8080), "[::1]:8080", "http://[::1]:8080/"),
        (Endpoint("localhost."), "localhost.", "https://localhost./"),
        (Endpoint("under_score.internal"), "under_score.internal", "https://under_score.internal/"),
    ],
)
def test_the_host_header_and_url_are_those_of_http_clients(endpoint: Endpoint, host_header: str, url: str):
    assert endpoint.host_header == host_header
    assert endpoint.url == url


@pytest.mark.parametrize(
    ("host", "scheme", "port"),
    [
        ("", "https", None),
        ("a b", "https", None),
        ("a/b", "https", None),
        ("a?b", "https", None),
        ("user@a", "https", None),
        ("a:80", "https", None),
        ("a\r\nHost: b", "https", None),
        ("a\n", "https", None),
        ("例え.jp", "https", None),
        ("a..b", "https", None),
        (".a", "https", None),
        ("-a", "https", None),
        ("x" * 64, "https", None),
        ("a." * 130 + "a", "https", None),
        ("[::1", "https", None),
        ("[fe80::1%eth0]", "https", None),
        ("a", "ftp", None),
        ("a", "HTTPS", None),
        ("a", "", None),
        ("a", "https", 0),
        ("a", "https", 65536),
        ("a", "https", -1),
    ],
)
def test_an_invalid_endpoint_is_refused(host: str, scheme: str, port: int | None):
    with pytest.raises(ValueError, match=r"host name|scheme|port"):
        Endpoint(host, scheme, port)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.example", (None, "a.example", None)),
        ("a.example:8443", (None, "a.example", 8443)),
        ("https://a.example", ("https", "a.example", None)),
        ("https://a.example/", ("https", "a.example", None)),
        ("http://a.example:8080/", ("http", "a.example", 8080)),
        ("[::1]:8080", (None, "[::1]", 8080)),
        ("A.Example", (None, "a.example", None)),
    ],
)
def test_an_endpoint_is_parsed_as_people_write_it(text: str, parts: tuple[Any, ...]):
    assert split_endpoint(text) == parts


@pytest.mark.parametrize(
    "text", ["a/path", "a?query", "a#fragment", "user:pass@a", "a:port", "a:99999", "[::1", "https://a/b", "a:-1"]
)
def test_an_endpoint_with_anything_else_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever urllib says, or that there is more
        split_endpoint(text)


@given(st.text(max_size=40))
def test_any_text_is_an_endpoint_or_a_value_error(text: str):
    try:
        scheme, host, port = split_endpoint(text)
        endpoint = Endpoint(host, scheme or "https", port)
    except ValueError:
        return
    assert endpoint.url.isascii()
    assert is_web_address(endpoint.url)


@given(st.text(max_size=40) | st.integers() | st.none() | st.binary())
def test_anything_is_a_web_address_or_not(value: Any):
    assert is_web_address(value) in (True, False)


def settings(**fields: Any) -> ClientSettings:
    spec = CredentialSpec.of("access_key", **{"access_key_id": "id", "access_key_secret": "s", **fields})
    return ClientSettings(Endpoint("a.example"), spec)


def test_an_account_is_the_endpoint_and_the_identity_only():
    assert (
        settings().account
        == settings(access_key_secret="other").account
        == ("https://a.example/", "access_key:access_key_id=id")
    )
    assert settings().account != settings(access_key_id="other").account


def test_settings_are_equal_unless_the_secret_differs():
    assert settings() == settings()
    assert hash(settings()) == hash(settings())
    assert settings() != settings(access_key_secret="other")


@pytest.mark.parametrize(
    ("auth_type", "fields", "identity"),
    [
        ("ram_role_arn", {"access_key_id": "id", "role_arn": "acs:role"}, "ram_role_arn:role_arn=acs:role"),
        ("oidc_role_arn", {"role_arn": "acs:role"}, "oidc_role_arn:role_arn=acs:role"),
        ("ecs_ram_role", {"role_name": "r"}, "ecs_ram_role:role_name=r"),
        ("ecs_ram_role", {}, "ecs_ram_role:"),
        ("default", {}, "default:"),
    ],
)
def test_an_identity_consists_of_public_fields(auth_type: str, fields: dict[str, Any], identity: str):
    assert CredentialSpec.of(auth_type, **fields).identity == identity


@pytest.mark.parametrize(("auth_type", "field"), [("bearer", "bearer_token"), ("credentials_uri", "credentials_uri")])
def test_two_secrets_are_two_identities_and_neither_is_shown(auth_type: str, field: str):
    secrets = ("http://user:one@localhost/", "http://user:two@localhost/")
    first, second = (CredentialSpec.of(auth_type, **{field: secret}).identity for secret in secrets)
    assert first != second
    assert "one" not in first
