"""Proxies of the settings and of the environment, the same for both clients; ``~/.netrc`` never."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.errors import QuickBIError, TransientError
from airflow_provider_quickbi.api.proxies import is_loopback, no_proxy_matches, proxy_for
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.api.settings import NO_PROXIES, ClientSettings, Endpoint
from airflow_provider_quickbi.testing import LocalQuickBI

BOUND = 10.0


class Tunnel:
    """A proxy that knows ``CONNECT`` only; every tunnel leads to the same port of this machine.

    :param port: where the tunnels lead.
    :param refusal: the status line with which tunnels are refused, if they are.
    """

    def __init__(self, port: int, refusal: str = "") -> None:
        self.port = port
        self.refusal = refusal
        self.asked: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(BOUND)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.threads: list[threading.Thread] = []
        self.start(self.accept)

    def start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.start(self.serve, connection)

    def serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(BOUND)
            head = b""
            while b"\r\n\r\n" not in head and (more := client.recv(65536)):
                head += more
            self.asked.append(head.decode())
            if self.refusal:
                client.sendall(f"HTTP/1.1 {self.refusal}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            with socket.create_connection(("127.0.0.1", self.port), BOUND) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self.start(self.pump, server, client)
                self.pump(client, server)

    @staticmethod
    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self.listener.close()


@pytest.fixture
def tunnel_to() -> Iterator[Callable[..., Tunnel]]:
    tunnels: list[Tunnel] = []

    def make(port: int, refusal: str = "") -> Tunnel:
        tunnels.append(Tunnel(port, refusal))
        return tunnels[-1]

    yield make
    for tunnel in tunnels:
        tunnel.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[LocalQuickBI]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("quickbi.example").configure_cert(context)
    with LocalQuickBI(ssl_context=context) as server:
        yield server


#: A host without an address: whoever reaches Quick BI with it went through the proxy.
NOWHERE = Endpoint("quickbi.example", "http")
NOWHERE_SECURE = Endpoint("quickbi.example", "https")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# The local Quick BI understands the form in which a proxy is asked, so it can stand for one.


@pytest.mark.parametrize("scheme", ["http", "all"])
def test_a_proxy_of_the_settings_is_used(quickbi: LocalQuickBI, connect: Callable[..., Any], scheme: str):
    mail_id = quickbi.add_mail_task("Daily sales")
    caller = connect(endpoint=NOWHERE, proxies=((scheme, quickbi.url),))
    assert caller.get_mail_task_list().total_num == 1
    assert caller.manual_run_mail_task(mail_id)
    assert quickbi.starts(mail_id) == 1
    assert quickbi.calls[-1].headers["host"] == "quickbi.example"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("with_scheme", [True, False])
def test_a_proxy_of_the_environment_is_used(
    quickbi: LocalQuickBI,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    with_scheme: bool,
):
    monkeypatch.setenv(name, quickbi.url if with_scheme else quickbi.url.removeprefix("http://"))
    assert connect(endpoint=NOWHERE).get_mail_task_list().total_num == 0


@pytest.fixture
def proxy() -> Iterator[LocalQuickBI]:
    """A real proxy on loopback that counts what it is asked to forward."""
    with LocalQuickBI() as server:
        yield server


@pytest.fixture
def named(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """The local Quick BI under a name that is not known to be this machine's."""
    resolve = socket.getaddrinfo

    def local(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("127.0.0.1" if host == "bi.corp.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    return Endpoint("bi.corp.example", "http", quickbi.port)


def test_a_proxy_for_https_is_not_used_for_http(
    proxy: LocalQuickBI, named: Endpoint, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("https_proxy", proxy.url)
    assert connect(endpoint=named).get_mail_task_list().total_num == 0
    assert connect(endpoint=named, proxies=(("https", proxy.url),)).get_mail_task_list().total_num == 0
    assert proxy.count() == 0


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "no_proxy", ["bi.corp.example", "other.example, .corp.example", "*.example", "*", "BI.corp.example:{port}"]
)
def test_hosts_of_no_proxy_are_connected_directly(
    quickbi: LocalQuickBI,
    proxy: LocalQuickBI,
    named: Endpoint,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    no_proxy: str,
):
    monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("NO_PROXY", no_proxy.format(port=quickbi.port))
    assert connect(endpoint=named).get_mail_task_list().total_num == 0
    assert (quickbi.count(), proxy.count()) == (1, 0)


@pytest.mark.parametrize("no_proxy", ["", "other.example", "corp", "bi.corp.example:1", "10.0.0.0/8,::1"])
def test_other_hosts_use_the_proxy_of_the_environment(
    quickbi: LocalQuickBI,
    proxy: LocalQuickBI,
    named: Endpoint,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    no_proxy: str,
):
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    connect(endpoint=named).get_mail_task_list()
    assert (quickbi.count(), proxy.count()) == (0, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "all_proxy"])
def test_endpoints_on_this_machine_never_use_the_proxy_of_the_environment(
    quickbi: LocalQuickBI,
    proxy: LocalQuickBI,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    host: str,
):
    monkeypatch.setenv(name, proxy.url)
    endpoint = Endpoint(host, "http", quickbi.port)
    assert connect(endpoint=endpoint).get_mail_task_list().total_num == 0
    assert (quickbi.count(), proxy.count()) == (1, 0)
    connect(endpoint=endpoint, proxies=(("http", proxy.url),)).get_mail_task_list()
    assert (quickbi.count(), proxy.count()) == (1, 1)


def test_no_proxies_in_the_settings_connects_directly_whatever_the_environment_says(
    quickbi: LocalQuickBI,
    proxy: LocalQuickBI,
    named: Endpoint,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert connect(endpoint=named, proxies=NO_PROXIES).get_mail_task_list().total_num == 0
    assert (quickbi.count(), proxy.count()) == (1, 0)


def test_the_proxies_of_the_settings_take_precedence_over_the_environment(
    quickbi: LocalQuickBI, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "*")
    assert connect(endpoint=NOWHERE, proxies=(("http", quickbi.url),)).get_mail_task_list().total_num == 0


def test_lower_case_variables_take_precedence_and_the_environment_is_read_each_time(monkeypatch: pytest.MonkeyPatch):
    settings = ClientSettings(Endpoint("quickbi.example"), CredentialSpec())
    assert proxy_for(settings) is None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert proxy_for(settings) == "http://proxy.example:3128"
    monkeypatch.setenv("https_proxy", "other.example:3128")
    assert proxy_for(settings) == "http://other.example:3128"
    monkeypatch.setenv("no_proxy", ".example")
    assert proxy_for(settings) is None


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


def test_https_goes_through_a_tunnel(
    secure: LocalQuickBI, connect: Callable[..., Any], tunnel_to: Callable[..., Tunnel], ca_file: str
):
    mail_id = secure.add_mail_task("Daily sales")
    tunnel = tunnel_to(secure.port)
    caller = connect(secure, endpoint=NOWHERE_SECURE, proxies=(("https", tunnel.url),), verify=ca_file)
    assert caller.get_mail_task_list().total_num == 1
    assert caller.manual_run_mail_task(mail_id)
    assert [asked.split(" HTTP/")[0] for asked in tunnel.asked] == ["CONNECT quickbi.example:443"] * 2
    assert not any("x-acs" in asked.lower() for asked in tunnel.asked)


def test_user_and_password_of_a_proxy_are_sent_to_it_and_to_nobody_else(
    secure: LocalQuickBI, connect: Callable[..., Any], tunnel_to: Callable[..., Tunnel], ca_file: str
):
    tunnel = tunnel_to(secure.port)
    address = tunnel.url.replace("http://", "http://user:pass-word@")
    connect(secure, endpoint=NOWHERE_SECURE, proxies=(("https", address),), verify=ca_file).get_mail_task_list()
    wanted = base64.b64encode(b"user:pass-word").decode()
    assert f"proxy-authorization: basic {wanted}".lower() in tunnel.asked[0].lower()
    assert "proxy-authorization" not in secure.calls[-1].headers


@pytest.mark.parametrize("refusal", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_a_tunnel_that_is_refused_has_carried_nothing(
    secure: LocalQuickBI,
    connect: Callable[..., Any],
    tunnel_to: Callable[..., Tunnel],
    ca_file: str,
    refusal: str,
):
    mail_id = secure.add_mail_task("Daily sales")
    tunnel = tunnel_to(secure.port, refusal)
    address = tunnel.url.replace("http://", "http://user:pass-word@")
    caller = connect(secure, endpoint=NOWHERE_SECURE, proxies=(("https", address),), verify=ca_file)
    with pytest.raises(TransientError) as caught:
        caller.manual_run_mail_task(mail_id)
    assert not caught.value.may_have_arrived
    assert "pass-word" not in f"{caught.value} {caught.value!r} {caught.value.as_dict()}"
    assert secure.count() == 0


@pytest.mark.parametrize("endpoint", [NOWHERE, NOWHERE_SECURE], ids=["http", "https"])
def test_a_proxy_that_is_not_there_has_carried_nothing(connect: Callable[..., Any], endpoint: Endpoint):
    address = f"http://user:pass-word@127.0.0.1:{free_port()}"
    caller = connect(endpoint=endpoint, proxies=(("all", address),))
    with pytest.raises(TransientError) as caught:
        caller.manual_run_mail_task("m")
    assert not caught.value.may_have_arrived
    assert "pass-word" not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    "address", ["socks5://127.0.0.1:1", "socks5h://127.0.0.1:1", "ftp://127.0.0.1:1", "http://", "://", "http://[:1"]
)
def test_a_proxy_of_the_environment_that_cannot_be_used_is_an_error_of_ours(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, address: str
):
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(QuickBIError) as caught:
        connect(endpoint=NOWHERE, connect_timeout=1.0).get_mail_task_status("m", retries=NO_RETRY)
    assert "prox" in str(caught.value)


def test_netrc_is_never_used(
    quickbi: LocalQuickBI, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login intruder password stolen\ndefault login intruder password stolen\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    caller = connect()
    assert caller.get_mail_task_list().total_num == 0
    quickbi.add_bearer_token("the-token")
    bearer = connect(credentials=CredentialSpec.of("bearer", bearer_token="the-token"))
    assert bearer.get_mail_task_list().total_num == 0
    assert quickbi.count(code="OK") == quickbi.count() == 2
