"""Whatever a connection holds: it is understood or refused in words, and one host is meant."""

from __future__ import annotations

import contextlib
from collections import Counter
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from airflow_provider_quickbi import connection
from airflow_provider_quickbi.api.settings import Endpoint, split_endpoint

from .inputs import JSON, attempt, given_much, is_tame

# Airflow and its dependencies warn about each other when a connection is read first.
pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")


@given_much
@given(
    raw=st.builds(
        connection.RawConnection,
        conn_id=st.just("c"),
        conn_type=st.sampled_from(("quickbi", "alibaba_cloud")),
        login=st.one_of(st.none(), st.text(max_size=10)),
        password=st.one_of(st.none(), st.text(max_size=10)),
        host=st.one_of(st.none(), st.text(max_size=30)),
        port=st.one_of(st.none(), st.integers()),
        schema=st.one_of(st.none(), st.text(max_size=6), st.sampled_from(("https", "http", "file"))),
        extra=st.dictionaries(
            st.one_of(st.sampled_from(sorted(connection.FIELD_NAMES)), st.text(max_size=5)), JSON, max_size=5
        ),
    )
)
@example(raw=connection.RawConnection("c", login="l", password="p", extra={"verify": "a" * 5000}))
@example(raw=connection.RawConnection("c", login="l", password="p", extra={"timezone": "../../etc/passwd"}))
@example(raw=connection.RawConnection("c", login="l", password="p", extra={"read_timeout": 10**400}))
def test_a_connection_is_understood_or_the_error_names_it(tried: Counter[str], raw: connection.RawConnection) -> None:
    tried["connections read"] += 1
    found, error = attempt(lambda: connection.read_connection(raw), connection.ConnectionFieldError)
    if error is None:
        assert_one_host(found.settings.endpoint)
    else:
        assert str(error).startswith("Connection 'c': ")
        assert is_tame(str(error))


def assert_one_host(endpoint: Endpoint) -> None:
    """Assert that everything that takes an address apart finds the host that was checked, and nothing else."""
    host = endpoint.host.strip("[]").lower().rstrip(".")
    prepared = requests.Request("POST", endpoint.url).prepare().url or ""
    for seen in (urlsplit(endpoint.url).hostname, URL(endpoint.url, encoded=True).host, urlsplit(prepared).hostname):
        assert (seen or "").lower().rstrip(".") == host
    assert urlsplit(endpoint.url).path == "/"
    assert "@" not in endpoint.url


NO_HOSTS = (
    *("user:pw@evil.example", "good.example@evil.example", "good.example:80@evil.example"),
    *("good.example#@evil.example", "good.example\\@evil.example", "good.example\\.evil.example"),
    *("evil.example/", "evil.example/path", "evil.example?x=1", "evil.example#x", "evil.example;x", "evil example"),
    *("evil.example\r\nX: y", "evil\x00.example", "file:///etc/passwd", "ftp://evil.example", "gopher://evil.example"),
    *("javascript:alert(1)", "unix:/run/x.sock", "https://https://evil.example", "https:///evil.example"),
    *("//evil.example", "http:evil.example", "://", "good.example%2eevil.example", "xn--\u200d.example"),
    # Letters and dots that look like others, or become others.
    *("\u24d4vil.example", "evil\u3002example", "\uff11\uff12\uff17.0.0.1", "ex\u0430mple.com", "\u202eelpmaxe"),
    *(".", "..", "-", ":80", "a:b", "a:99999", "a:-1", "a:0x50", "[::1", "::1]", "[evil.example]", "[::1%25eth0]"),
    *("a" * 254, ".".join(["a" * 64, "example"]), "a..b", "{{ host }}", "${HOST}", "*", "\ud800"),
)


@pytest.mark.parametrize("host", NO_HOSTS, ids=ascii)
def test_an_endpoint_that_is_not_a_host_is_refused_or_is_only_that_host(host: str, tried: Counter[str]) -> None:
    tried["endpoints tried"] += 1
    raw = connection.RawConnection("c", login="l", password="p", host=host)
    with contextlib.suppress(connection.ConnectionFieldError):
        endpoint = connection.read_connection(raw).settings.endpoint
        assert_one_host(endpoint)
        # Nothing but a scheme, a port and a slash at the end may have been taken off.
        assert host.rstrip("/").removeprefix("//") == endpoint.host


@given_much
@given(text=st.one_of(st.text(max_size=30), st.text("ab.:/@#?[]\\%-_ 01", max_size=15)))
def test_any_text_is_an_endpoint_with_one_host_or_refused(tried: Counter[str], text: str) -> None:
    tried["endpoints tried"] += 1
    try:
        scheme, host, port = split_endpoint(text)
        endpoint = Endpoint(host, scheme or "https", port)
    except ValueError:
        return
    assert_one_host(endpoint)
