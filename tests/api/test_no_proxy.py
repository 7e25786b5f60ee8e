"""``NO_PROXY``: every form that an entry may have, and which hosts are this machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi.api.proxies import is_loopback, no_proxy_matches


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        ("127.0.0.0/8", "127.0.0.1"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("192.168.0.0/16", "192.168.7.9"),
        ("10.1.2.3/8", "10.9.9.9"),
        ("example.com,10.0.0.0/8 , 192.168.0.0/16", "192.168.7.9"),
        ("10.*", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3:443", "10.1.2.3"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("[::1]:443", "[::1]"),
        ("0:0:0:0:0:0:0:1", "[::1]"),
        ("fd00::5", "[fd00::5]"),
        ("FD00:0::5", "[fd00::5]"),
        ("fd00::/8", "[fd12:3456::1]"),
        ("[fd00::]/8", "[fd12:3456::1]"),
        ("example.com", "example.com"),
        ("example.com", "bi.example.com"),
        (".example.com", "bi.example.com"),
        (".example.com", "example.com"),
        ("*.example.com", "bi.eu.example.com"),
        ("Example.COM.", "bi.example.com"),
        ("bi-*.example.com", "bi-1.example.com"),
        ("example.com:443", "bi.example.com"),
        ("a.example b.example\tc.example", "b.example"),
        (" , ,bi.example.com,", "bi.example.com"),
        ("*", "bi.example.com"),
        ("*", "10.1.2.3"),
    ],
)
def test_no_proxy_matches(no_proxy: str, host: str):
    assert no_proxy_matches(no_proxy, host, 443)


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        ("", "bi.example.com"),
        (",", "bi.example.com"),
        ("127.0.0.0/8", "128.0.0.1"),
        ("10.0.0.0/8", "110.1.2.3"),
        ("10.0.0.0/33", "10.1.2.3"),
        ("10.0.0.0/x", "10.1.2.3"),
        ("10.0.0.0/8", "bi.example.com"),
        ("fd00::/8", "10.1.2.3"),
        ("fd00::/8", "[fe80::1]"),
        ("::1", "[::2]"),
        ("[::1]:80", "[::1]"),
        ("0.1.2.3", "10.1.2.3"),
        ("1.2.3", "10.1.2.3"),
        ("example.com", "notexample.com"),
        (".example.com", "notexample.com"),
        ("*.example.com", "notexample.com"),
        ("bi.example.com", "example.com"),
        ("example.com:80", "example.com"),
        ("example.com:99999", "example.com"),
        ("example.com:", "example.com"),
        (".", "example.com"),
        ("[", "example.com"),
    ],
)
def test_no_proxy_does_not_match(no_proxy: str, host: str):
    assert not no_proxy_matches(no_proxy, host, 443)


@given(st.text(max_size=60), st.sampled_from(["bi.example.com", "10.1.2.3", "[fd00::5]"]))
def test_any_no_proxy_either_matches_or_does_not(no_proxy: str, host: str):
    assert no_proxy_matches(no_proxy, host, 443) in (True, False)


@pytest.mark.parametrize("host", ["localhost", "LocalHost.", "bi.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1"])
def test_a_loopback_host_is_this_machine(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["bi.example.com", "localhost.example.com", "128.0.0.1", "10.0.0.1", "[::2]", ""])
def test_any_other_host_is_not_this_machine(host: str):
    assert not is_loopback(host)
