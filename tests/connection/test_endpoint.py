"""Where a connection leads: region, network, host, port, and how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quickbi.api.settings import NO_PROXIES, REGIONS, Endpoint
from airflow_provider_quickbi.connection import (
    CHINA_CONSOLE_URL,
    FIELDS,
    ConnectionFieldError,
    form_fields,
    read_connection,
)

from .reading import PLAIN, fields, read, refusal


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
