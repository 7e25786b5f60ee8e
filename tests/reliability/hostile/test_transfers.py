"""Whatever the network brings: a response is bounded in time and memory, and a request goes to one host."""

from __future__ import annotations

import contextlib
import gzip
import io
import socket
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC
from functools import cache
from typing import Any

import pytest

from airflow_provider_quickbi.api import errors, operations, rate_limit
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

from .inputs import BOUND, MEMORY, both_clients, settings_for

# Airflow and its dependencies warn about each other when a connection is read first.
pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/x", "/elsewhere", "https://[", ""])
def test_a_redirect_is_not_followed_and_the_other_host_gets_nothing(
    quickbi: LocalQuickBI, dialled: list[Any], status: int, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rate_limit.CALLS_PER_SECOND, "ManualRunMailTask", 1000.0)
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, both_clients(settings_for(quickbi)) as both:
        elsewhere.setblocking(False)
        location = target.format(port=elsewhere.getsockname()[1])
        for action, operation in (
            ("GetMailTaskStatus", operations.get_mail_task_status("m", None, UTC)),
            ("ManualRunMailTask", operations.manual_run_mail_task("m")),
        ):
            quickbi.fail(action, Fault.redirect(location, status), times=2)
            for response in both(operation):
                assert isinstance(response, errors.PermanentError)
                assert response.http_status == status
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    assert {address[:2] for address in dialled} <= {(quickbi.host, quickbi.port)}


def test_nothing_but_the_endpoint_is_ever_connected_to(
    quickbi: LocalQuickBI, dialled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", "/dev/null")
    mail_id = quickbi.add_mail_task("Daily sales")
    responses = (
        Fault.custom(
            200, b"{}", {"Link": "<http://127.0.0.1:9/>; rel=preconnect", "Refresh": "0; url=http://127.0.0.1:9/"}
        ),
        Fault.custom(503, b"", {"Alt-Svc": 'h2="127.0.0.1:9"', "Location": "http://127.0.0.1:9/"}),
        Fault.custom(401, b"", {"WWW-Authenticate": "Basic realm=x"}),
        Fault.custom(407, b"", {"Proxy-Authenticate": "Basic realm=x"}),
        Fault.custom(200, b'{"Success":true,"Result":[]}', {"Set-Cookie": "a=b; Domain=127.0.0.1"}),
        Fault.error("InternalError", "see http://127.0.0.1:9/"),
    )
    with both_clients(settings_for(quickbi)) as both:
        for fault in responses:
            quickbi.fail("GetMailTaskStatus", fault, times=2)
            both(operations.get_mail_task_status(mail_id, None, UTC))
        assert both(operations.manual_run_mail_task(mail_id)) == [True, True]
    assert {address[:2] for address in dialled} <= {(quickbi.host, quickbi.port)}
    assert not any({"cookie", "authorization-basic"} & set(call.headers) for call in quickbi.calls)


def serve(response: Callable[[socket.socket], None]) -> contextlib.AbstractContextManager[int]:
    """Listen, and let a function serve each connection; yields the port."""

    @contextlib.contextmanager
    def serving() -> Iterator[int]:
        listener = socket.create_server(("127.0.0.1", 0))
        stopped = threading.Event()

        def talk(accepted: socket.socket) -> None:
            with accepted, contextlib.suppress(OSError):
                accepted.settimeout(BOUND)
                accepted.recv(65536)
                response(accepted)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while not stopped.is_set():
                    threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(BOUND)

    return serving()


def received_at(port: int, **changes: Any) -> tuple[list[Any], float, int]:
    """Call a port with both clients; return the responses, the seconds that it took and the most memory."""
    plain = ClientSettings(
        Endpoint("127.0.0.1", "http", port),
        CredentialSpec.of("access_key", access_key_id="k", access_key_secret="s"),
        status_calls_per_second=1000.0,
    )
    with both_clients(replace(plain, **changes)) as both:
        both(operations.any_operation("-", {}, repeatable=True))  # imports what is imported late
        tracemalloc.start()
        try:
            began = time.monotonic()
            responses = both(operations.get_mail_task_status("m", None, UTC))
            return responses, time.monotonic() - began, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_a_hundred_megabytes_are_not_read() -> None:
    sent: list[int] = []

    def response(connection: socket.socket) -> None:
        connection.sendall(HEAD + b'Content-Length: 100000000\r\n\r\n{"Success":true,"Result":"')
        chunk = b"A" * 65536
        sent.extend(connection.send(chunk) for _ in range(100_000_000 // len(chunk)))

    with serve(response) as port:
        responses, _, memory = received_at(port)
    assert all(isinstance(response, errors.TransientError) and "larger than" in str(response) for response in responses)
    assert memory < MEMORY
    assert sum(sent) < 100_000_000


@pytest.mark.parametrize("levels", [500, 900, 990, 1_000, 5_000, 100_000])
@pytest.mark.parametrize("brackets", [b"[]", b'{"a":}'])
def test_a_response_that_is_nested_deep_is_not_read_and_does_no_harm(levels: int, brackets: bytes) -> None:
    half = len(brackets) - 1
    body = b'{"Success":true,"Result":' + brackets[:half] * levels + b"1" + brackets[half:] * levels + b"}"

    def response(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with serve(response) as port:
        responses, _, memory = received_at(port)
    assert all(isinstance(response, errors.TransientError) for response in responses)
    assert memory < MEMORY


@cache
def make_bomb() -> bytes:
    """Return a few hundred kilobytes that would be a hundred megabytes of valid JSON."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as bomb:
        bomb.write(b'{"Success":true,"Result":[]}')
        for _ in range(100):
            bomb.write(b" " * 1_000_000)
    return packed.getvalue()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_a_compressed_bomb_is_not_unpacked(encoding: str) -> None:
    bomb = make_bomb()

    def response(connection: socket.socket) -> None:
        connection.sendall(
            HEAD + f"Content-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb
        )

    with serve(response) as port:
        responses, _, memory = received_at(port)
    assert all(isinstance(response, errors.TransientError) for response in responses)
    assert all("not a JSON object" in str(response) for response in responses)
    assert memory < MEMORY


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"\r\n"]
)
def test_a_response_that_trickles_in_is_given_up_after_the_response_timeout(framing: bytes) -> None:
    chunked = b"chunked" in framing

    def response(connection: socket.socket) -> None:
        connection.sendall(HEAD + framing)
        for _ in range(int(BOUND / 0.02)):
            connection.sendall(b"1\r\n \r\n" if chunked else b" ")
            time.sleep(0.02)  # real time is what is tried

    with serve(response) as port:
        responses, seconds, _ = received_at(port, connect_timeout=0.2, read_timeout=0.2)
    assert all(isinstance(response, errors.TransientError) for response in responses)
    assert seconds < BOUND / 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 100,
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 999 \xff\xfe\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    ],
    ids=lambda raw: ascii(raw[:30]),
)
def test_what_is_hardly_http_is_a_response_that_cannot_be_read(raw: bytes, tried: Counter[str]) -> None:
    tried["responses parsed"] += 2
    with serve(lambda connection: connection.sendall(raw)) as port:
        responses, _, memory = received_at(port, read_timeout=0.5)
    assert all(isinstance(response, errors.TransientError) for response in responses)
    assert memory < MEMORY
