"""Proxies of the settings and of the environment, the same for both clients; ``~/.netrc`` is never used."""

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

from airflow_provider_quickbi.api import proxies
from airflow_provider_quickbi.api.credentials import CredentialSource, CredentialSpec
from airflow_provider_quickbi.api.errors import QuickBIError, TransientError
from airflow_provider_quickbi.api.proxies import proxy_for
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.api.settings import NO_PROXIES, ClientSettings, Endpoint
from airflow_provider_quickbi.testing import LocalQuickBI

BOUND = 10.0

pytestmark = pytest.mark.own_proxies


class Tunnel:
    """A proxy that supports ``CONNECT`` only; every tunnel leads to the same port of this machine.

    :param port: where the tunnels lead.
    :param refusal: the status line with which tunnels are refused, if they are.
    """

    def __init__(self, port: int, refusal: str = "") -> None:
        self.port = port
        self.refusal = refusal
        self.requests: list[str] = []
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
            self.requests.append(head.decode())
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


#: A host that does not resolve: whoever reaches Quick BI by it used the proxy.
NOWHERE = Endpoint("quickbi.example", "http")
NOWHERE_SECURE = Endpoint("quickbi.example", "https")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ipv6_works() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


# The local Quick BI accepts requests in the form that a proxy receives, so it can stand in for one.


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
    """A proxy on loopback that counts the requests it receives."""
    with LocalQuickBI() as server:
        yield server


@pytest.fixture
def named(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """The local Quick BI under a host name that is not a loopback name."""
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


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let addresses of this machine stand for addresses of a network."""
    monkeypatch.setattr(proxies, "is_loopback", lambda host: False)


@pytest.mark.parametrize(
    ("address", "no_proxy", "direct"),
    [
        ("127.0.0.1", "127.0.0.0/8", True),
        ("127.0.0.1", "bi.corp.example,  10.0.0.0/8 , 127.0.0.0/30", True),
        ("127.0.0.1", "127.0.0.1:{port}", True),
        ("127.0.0.1", "10.0.0.0/8,::1,fd00::/8", False),
        ("[::1]", "::1", True),
        ("[::1]", "10.0.0.0/8, ::/64", True),
        ("[::1]", "[::1]:{port}", True),
        ("[::1]", "127.0.0.0/8,fd00::/8,::2", False),
    ],
)
def test_addresses_and_ranges_of_no_proxy_are_connected_directly(
    elsewhere: None,
    proxy: LocalQuickBI,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    no_proxy: str,
    direct: bool,
):
    if address == "[::1]" and not ipv6_works():
        pytest.skip("this machine has no IPv6")
    with LocalQuickBI(host=address.strip("[]")) as there:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", no_proxy.format(port=there.port))
        connect(endpoint=Endpoint(address, "http", there.port)).get_mail_task_list()
        assert (there.count(), proxy.count()) == ((1, 0) if direct else (0, 1))


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


def test_https_goes_through_a_tunnel(
    secure: LocalQuickBI, connect: Callable[..., Any], tunnel_to: Callable[..., Tunnel], ca_file: str
):
    mail_id = secure.add_mail_task("Daily sales")
    tunnel = tunnel_to(secure.port)
    caller = connect(secure, endpoint=NOWHERE_SECURE, proxies=(("https", tunnel.url),), verify=ca_file)
    assert caller.get_mail_task_list().total_num == 1
    assert caller.manual_run_mail_task(mail_id)
    assert [request.split(" HTTP/")[0] for request in tunnel.requests] == ["CONNECT quickbi.example:443"] * 2
    assert not any("x-acs" in request.lower() for request in tunnel.requests)


def test_user_and_password_of_a_proxy_are_sent_only_to_the_proxy(
    secure: LocalQuickBI, connect: Callable[..., Any], tunnel_to: Callable[..., Tunnel], ca_file: str
):
    tunnel = tunnel_to(secure.port)
    address = tunnel.url.replace("http://", "http://user:pass-word@")
    connect(secure, endpoint=NOWHERE_SECURE, proxies=(("https", address),), verify=ca_file).get_mail_task_list()
    wanted = base64.b64encode(b"user:pass-word").decode()
    assert f"proxy-authorization: basic {wanted}".lower() in tunnel.requests[0].lower()
    assert "proxy-authorization" not in secure.calls[-1].headers


@pytest.mark.parametrize("refusal", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_nothing_arrives_through_a_refused_tunnel(
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
def test_nothing_arrives_through_an_unreachable_proxy(connect: Callable[..., Any], endpoint: Endpoint):
    address = f"http://user:pass-word@127.0.0.1:{free_port()}"
    caller = connect(endpoint=endpoint, proxies=(("all", address),))
    with pytest.raises(TransientError) as caught:
        caller.manual_run_mail_task("m")
    assert not caught.value.may_have_arrived
    assert "pass-word" not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    "address", ["socks5://127.0.0.1:1", "socks5h://127.0.0.1:1", "ftp://127.0.0.1:1", "http://", "://", "http://[:1"]
)
def test_an_invalid_proxy_of_the_environment_is_a_quickbi_error(
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


@pytest.mark.parametrize("auth_type", ["ram_role_arn", "oidc_role_arn"])
@pytest.mark.parametrize("environment", [False, True])
def test_the_proxy_of_a_connection_is_used_for_sts_whatever_the_environment_says(
    tunnel_to: Callable[..., Tunnel],
    spec_of: Callable[..., CredentialSpec],
    monkeypatch: pytest.MonkeyPatch,
    auth_type: str,
    environment: bool,
):
    tunnel, other = tunnel_to(0, "502 Bad Gateway"), tunnel_to(0, "502 Bad Gateway")
    if environment:
        monkeypatch.setenv("HTTPS_PROXY", other.url)
    with pytest.raises(TransientError) as caught:
        CredentialSource(spec_of(auth_type, sts_endpoint="sts.example", proxy=tunnel.url)).get()
    assert tunnel.requests[0].startswith("CONNECT sts.example:443 ")
    assert other.requests == []
    assert "HTTPS_PROXY" not in str(caught.value)


@pytest.mark.parametrize("auth_type", ["ram_role_arn", "oidc_role_arn"])
def test_a_proxy_of_the_environment_that_the_vendors_packages_use_for_sts_is_named(
    spec_of: Callable[..., CredentialSpec], monkeypatch: pytest.MonkeyPatch, auth_type: str
):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(TransientError, match="ignores NO_PROXY: unset HTTPS_PROXY, or set"):
        CredentialSource(spec_of(auth_type, sts_endpoint="sts.example")).get()
