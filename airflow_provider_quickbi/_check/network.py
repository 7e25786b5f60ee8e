"""Whether the endpoint can be reached: proxy, name, port and certificate, one after the other."""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from airflow_provider_quickbi._check.report import failed, ok, skipped, warning
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.proxies import is_loopback, proxy_for
from airflow_provider_quickbi.api.settings import DEFAULT_PORTS
from airflow_provider_quickbi.api.tls import ssl_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any
    from urllib.parse import SplitResult

    from airflow_provider_quickbi._check.report import Finding
    from airflow_provider_quickbi.api.settings import ClientSettings


_WRONG_PORT = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF", "RECORD_LAYER_FAILURE")


def probe(settings: ClientSettings, resolve: Callable[..., list[Any]] = socket.getaddrinfo) -> Iterator[Finding]:
    """Yield the lines ``proxy``, ``dns``, ``tcp`` and ``tls``; the first that fails is the last.

    :param resolve: looks a name up, as :func:`socket.getaddrinfo` does.
    """
    endpoint = settings.endpoint
    host, port = endpoint.host.strip("[]"), endpoint.effective_port
    try:
        proxy = proxy_for(settings)
    except QuickBIError as error:
        yield failed("proxy", "the proxy's address cannot be used", error.hint)
        return
    through = "the proxy" if proxy else "the endpoint"
    where = urlsplit(proxy) if proxy else None
    if where is not None:
        host, port = where.hostname or "", where.port or DEFAULT_PORTS.get(where.scheme, 80)
    else:
        yield ok("proxy", "none, direct connection")
    try:
        addresses = resolve(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        remedy = "Check proxies" if proxy else "Check region, network and host, and this machine's DNS"
        yield failed("dns", f"the name of {through} does not resolve", remedy, detail=f"{host}: {error}")
        return
    yield ok("dns", f"{through} resolves to {len(addresses)} address(es)", detail=host)
    try:
        connection = _connect(addresses, settings.connect_timeout)
    except OSError as error:
        remedy = (
            "Check proxies: nothing accepts connections there"
            if proxy
            else "Check host and port, the firewall, and whether a proxy or network=vpc is needed"
        )
        what = f"no connection to {through} within {settings.connect_timeout:g} s: {_reason(error)}"
        yield failed("proxy" if proxy else "tcp", what, remedy, detail=f"{host}:{port}")
        return
    with connection:
        yield ok("tcp", f"{through} accepts connections", detail=f"{host}:{port}")
        if where is not None:
            if endpoint.scheme == "https" and where.scheme == "http":
                refusal = _tunnel(
                    connection, where, f"{endpoint.host}:{endpoint.effective_port}", settings.read_timeout
                )
                if refusal:
                    yield failed("proxy", f"the proxy opens no tunnel: {refusal}", _proxy_remedy(refusal))
                    return
            yield ok("proxy", "used")
        if endpoint.scheme == "http":
            yield _without_tls(endpoint.host)
        elif where is not None and where.scheme == "https":
            yield skipped("tls", "not checked separately, because the proxy itself uses TLS")
        else:
            yield _handshake(connection, settings)


def _connect(addresses: list[Any], timeout: float) -> socket.socket:
    error: OSError = OSError("no address")
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(timeout)
        try:
            connection.connect(address)
        except OSError as caught:
            connection.close()
            error = caught
        else:
            return connection
    raise error


def _tunnel(connection: socket.socket, proxy: SplitResult, target: str, timeout: float) -> str:
    """Request a tunnel from a proxy; return why it refuses, or nothing."""
    user = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}".encode()
    login = f"Proxy-Authorization: Basic {b64encode(user).decode()}\r\n" if proxy.username else ""
    connection.settimeout(timeout)
    try:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 65536 and (more := connection.recv(4096)):
            head += more
    except OSError as error:
        return _reason(error)
    parts = head.partition(b"\r\n")[0].decode("latin-1").split(maxsplit=2)
    if len(parts) < 2 or not parts[1].isdigit():
        return "the response is not HTTP"
    return "" if parts[1].startswith("2") else f"HTTP {parts[1]}"


def _proxy_remedy(refusal: str) -> str:
    if refusal == "HTTP 407":
        return "The proxy requires valid credentials: write proxies as http://user:password@host:port"
    return "Allow CONNECT to the endpoint on the proxy, or set proxies"


def _without_tls(host: str) -> Finding:
    if is_loopback(host):
        return ok("tls", "not used, on this machine only")
    return warning("tls", "not used: requests and responses can be read in transit", "Set schema to https")


def _handshake(connection: socket.socket, settings: ClientSettings) -> Finding:
    try:
        verifying = ssl_context(settings)
    except QuickBIError:
        seen = "no CA certificates at the path set by verify or the environment"
        return failed("tls", seen, "Check verify", detail=settings.ca_bundle() or "")
    if (context := verifying) is None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    connection.settimeout(settings.connect_timeout)
    try:
        with context.wrap_socket(connection, server_hostname=settings.endpoint.host.strip("[]")) as secure:
            version = secure.version() or "TLS"
    except ssl.SSLCertVerificationError as error:
        return failed(
            "tls",
            f"the certificate is not trusted: {error.verify_message}",
            "Set verify to the file of the CA that issued it, or check host",
        )
    except OSError as error:
        plain = any(reason in str(error) for reason in _WRONG_PORT)
        seen = "the port does not use TLS" if plain else f"no TLS connection: {_reason(error)}"
        return failed("tls", seen, "Check port; for plain HTTP, set schema to http")
    if verifying is None:
        return warning("tls", f"{version}, the certificate is not verified", "Set verify to true or to a CA file")
    return ok("tls", f"{version}, the certificate is trusted")


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
