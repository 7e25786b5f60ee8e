"""Network faults: reads are retried, starts never are, and an error says whether the request may have arrived."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    ErrorKind,
    NotStartedError,
    PermanentError,
    QuickBIError,
    ThrottledError,
    TransientError,
)
from airflow_provider_quickbi.api.responses import MAX_RESPONSE_BYTES
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.api.settings import Endpoint
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

TRANSIENT = {
    "html 503": Fault.html_503(),
    "empty 502": Fault.empty_502(),
    "half a body": Fault.half_body(),
    "half a JSON": Fault.half_json(),
    "other types": Fault.wrong_types(),
    "reset": Fault.reset(),
    "reset after the work": Fault.reset(processed=True),
    "hang": Fault.hang(),
    "hang after the work": Fault.hang(processed=True),
    "500 of the service": Fault.error("InternalError"),
    "400 of the service": Fault.error("Internal.System.Error"),
    "no success": Fault.unsuccessful(),
    "empty 200": Fault.custom(200),
    "HTML 200": Fault.custom(200, "<html>log in</html>", {"Content-Type": "text/html"}),
    "HTML 404": Fault.custom(404, "<html>not here</html>", {"Content-Type": "text/html"}),
    "text 429": Fault.custom(429, "slow down"),
    "JSON null": Fault.custom(200, "null"),
    "no UTF-8": Fault.custom(200, b"\xff\xfe\x00"),
    "deep JSON": Fault.custom(200, b"[" * 200_000),
    "deep JSON within": Fault.custom(200, b'{"Success": true, "Result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a number of 5,000 digits": Fault.custom(200, b'{"Success": true, "Result": ' + b"9" * 5_000 + b"}"),
    "unrequested gzip": Fault.custom(200, gzip.compress(b"{}"), {"Content-Encoding": "gzip"}),
}


@pytest.fixture
def hasty(connect: Callable[..., Any]) -> Any:
    """A client with short timeouts."""
    return connect(read_timeout=0.15)


@contextmanager
def raw_server(*responses: bytes | Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept one connection per response, read a request, send the bytes or call the function, and close."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            for response in responses:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(10)
                    received = b""
                    while b"\r\n\r\n" not in received and (more := connection.recv(65536)):
                        received += more
                    try:
                        if callable(response):
                            response(connection)
                        else:
                            connection.sendall(response)
                    except OSError:
                        continue  # the client has given up

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
    thread.join(10)
    assert not thread.is_alive()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def no_more_room() -> Iterator[int]:
    """Listen without accepting, with a full backlog, so that further connections hang."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_a_read_is_retried_until_it_succeeds(quickbi: LocalQuickBI, hasty: Any, fault: Fault):
    mail_id = quickbi.add_mail_task("Daily sales")
    task_id = quickbi.add_run(mail_id)
    quickbi.fail("GetMailTaskStatus", fault, times=2)
    assert [run.task_id for run in hasty.get_mail_task_status(mail_id)] == [task_id]
    assert quickbi.count("GetMailTaskStatus") == 3


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_a_start_is_never_retried_and_may_have_arrived(quickbi: LocalQuickBI, hasty: Any, fault: Fault):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("ManualRunMailTask", fault)
    with pytest.raises(TransientError) as caught:
        hasty.manual_run_mail_task(mail_id)
    assert caught.value.may_have_arrived
    assert caught.value.kind is ErrorKind.TRANSIENT
    assert quickbi.count("ManualRunMailTask") == 1
    assert quickbi.starts(mail_id) == (1 if fault.processed else 0)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.throttled(), ThrottledError),
        (Fault.throttled("Throttling.Api", 10), ThrottledError),
        (Fault.error("MailApi.Beyond.ScheduleLimit"), NotStartedError),
        (Fault.error("Timer.Schedule.Task"), NotStartedError),
        (Fault.error("MailTask.Already.Running"), AlreadyRunningError),
        (Fault.error("Mail.Forbidden.Access"), PermanentError),
        (Fault.error("SignatureNonceUsed"), TransientError),
        (Fault.error("Brand.New"), PermanentError),
        (Fault.error("InvalidSecurityToken.Expired"), PermanentError),
        (Fault.redirect("http://127.0.0.1:9/"), PermanentError),
    ],
)
def test_a_refused_start_is_not_retried(quickbi: LocalQuickBI, client: Any, fault: Fault, expected: type[QuickBIError]):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("ManualRunMailTask", fault)
    with pytest.raises(expected):
        client.manual_run_mail_task(mail_id)
    assert quickbi.count("ManualRunMailTask") == 1
    assert quickbi.starts(mail_id) == 0


@pytest.mark.parametrize("how", ["reset", "hang", "unavailable"])
def test_a_start_whose_response_is_lost_happens_once(quickbi: LocalQuickBI, hasty: Any, how: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("ManualRunMailTask", Fault.answer_lost(how), times=None)
    with pytest.raises(TransientError) as caught:
        hasty.manual_run_mail_task(mail_id)
    assert caught.value.may_have_arrived
    assert quickbi.starts(mail_id) == 1


def test_a_start_uses_a_new_connection(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    client.get_mail_task_status(mail_id)
    client.get_mail_task_status(mail_id)
    client.manual_run_mail_task(mail_id)
    client.get_mail_task_status(mail_id)
    first, second, start, third = [call.connection_id for call in quickbi.calls]
    assert first == second == third
    assert start != first


def test_a_start_survives_a_pooled_connection_that_was_closed_while_idle(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    client.get_mail_task_status(mail_id)
    quickbi.drop_connections()
    assert client.manual_run_mail_task(mail_id)
    assert quickbi.count("ManualRunMailTask") == quickbi.starts(mail_id) == 1


def test_a_read_survives_a_pooled_connection_that_was_closed_while_idle(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    for _ in range(3):
        assert client.get_mail_task_status(mail_id) == ()
        quickbi.drop_connections()


def test_reads_share_a_connection(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    for _ in range(10):
        client.get_mail_task_status(mail_id)
    assert quickbi.connections_opened == 1


def test_a_closed_client_opens_new_connections(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    client.get_mail_task_status(mail_id)
    client.close()
    client.close()
    assert client.get_mail_task_status(mail_id) == ()
    assert quickbi.connections_opened == 2


# The request has not arrived


def test_nothing_arrives_over_a_refused_connection(connect: Callable[..., Any]):
    caller = connect(endpoint=Endpoint("127.0.0.1", "http", free_port()))
    with pytest.raises(TransientError, match=r"no connection to 127\.0\.0\.1:\d+: \w+, .*[Cc]onnect") as caught:
        caller.manual_run_mail_task("m")
    assert not caught.value.may_have_arrived


def test_nothing_arrives_at_a_host_that_does_not_resolve(connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    caller = connect(endpoint=Endpoint("nowhere.example", "http", 8080))
    with pytest.raises(TransientError, match=r"no connection to nowhere.example:8080") as caught:
        caller.manual_run_mail_task("m")
    assert not caught.value.may_have_arrived


def test_nothing_arrives_after_a_connect_timeout(connect: Callable[..., Any]):
    with no_more_room() as port:
        caller = connect(endpoint=Endpoint("127.0.0.1", "http", port), connect_timeout=0.2)
        with pytest.raises(TransientError, match=r"no connection to 127\.0\.0\.1:\d+ within 0\.2 s") as caught:
            caller.manual_run_mail_task("m")
    assert not caught.value.may_have_arrived


def test_an_exception_handled_before_the_call_is_not_taken_for_its_cause(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    try:
        socket.create_connection(("127.0.0.1", free_port()))
    except ConnectionRefusedError:
        with pytest.raises(TransientError, match="lost") as caught:
            client.manual_run_mail_task(mail_id)
    assert caught.value.may_have_arrived
    assert quickbi.starts(mail_id) == 1


# Time


def test_a_missing_response_times_out_after_the_read_timeout(quickbi: LocalQuickBI, hasty: Any):
    quickbi.fail("GetMailTaskStatus", Fault.hang(), times=None)
    with pytest.raises(TransientError, match=r"no response from 127\.0\.0\.1:\d+ within 0\.15 s"):
        hasty.get_mail_task_status("m", retries=NO_RETRY)


def test_a_response_that_trickles_in_times_out(connect: Callable[..., Any]):
    done = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not done.wait(0.02):
            connection.sendall(b" ")

    with raw_server(trickle) as port:
        caller = connect(endpoint=Endpoint("127.0.0.1", "http", port), connect_timeout=0.1, read_timeout=0.1)
        with pytest.raises(TransientError) as caught:
            caller.get_mail_task_status("m", retries=NO_RETRY)
        done.set()
    assert caught.value.may_have_arrived


# Size


def test_an_oversized_response_is_not_read_to_its_end(quickbi: LocalQuickBI, client: Any):
    quickbi.fail("GetMailTaskStatus", Fault.oversized(), times=None)
    with pytest.raises(TransientError, match=r"larger than 8,388,608 bytes"):
        client.get_mail_task_status("m", retries=NO_RETRY)


def test_a_response_of_the_maximum_size_is_read(quickbi: LocalQuickBI, client: Any):
    body = json.dumps({"Success": True, "Result": [], "RequestId": "R"})
    quickbi.fail("GetMailTaskStatus", Fault.custom(200, body + " " * (MAX_RESPONSE_BYTES - len(body))))
    assert client.get_mail_task_status("m") == ()


def test_endless_headers_are_not_read_to_their_end(connect: Callable[..., Any]):
    endless = b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 1_000_000
    with raw_server(endless) as port, pytest.raises(TransientError):
        connect(endpoint=Endpoint("127.0.0.1", "http", port)).get_mail_task_status("m", retries=NO_RETRY)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"\r\n\r\n",
        b"220 smtp.example ESMTP ready\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ],
)
def test_a_response_that_is_not_http_is_a_transient_error(connect: Callable[..., Any], response: bytes):
    with raw_server(response) as port, pytest.raises(TransientError) as caught:
        connect(endpoint=Endpoint("127.0.0.1", "http", port)).manual_run_mail_task("m")
    assert caught.value.may_have_arrived


# Redirects and cookies


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(quickbi: LocalQuickBI, client: Any, status: int):
    with LocalQuickBI() as elsewhere:
        quickbi.fail("GetMailTaskStatus", Fault.redirect(f"{elsewhere.url}/?token=secret", status), times=None)
        with pytest.raises(
            PermanentError, match=r"redirects to http://127\.0\.0\.1; redirects are not followed"
        ) as caught:
            client.get_mail_task_status("m")
        assert elsewhere.connections_opened == 0
    assert quickbi.count() == 1
    assert "secret" not in str(caught.value)
    assert "Check the endpoint" in caught.value.hint


@pytest.mark.parametrize("location", [None, "", "/relative", "//[broken", "http://["])
def test_a_redirect_without_a_valid_location_is_an_error(quickbi: LocalQuickBI, client: Any, location: str | None):
    headers = {} if location is None else {"Location": location}
    quickbi.fail("GetMailTaskStatus", Fault.custom(302, b"", headers))
    with pytest.raises(PermanentError, match="redirects"):
        client.get_mail_task_status("m")


def test_a_cookie_is_not_sent_back(quickbi: LocalQuickBI, client: Any):
    body = {"Success": True, "Result": [], "RequestId": "R"}
    quickbi.fail("GetMailTaskStatus", Fault.custom(200, body, {"Set-Cookie": "session=1; Path=/"}))
    client.get_mail_task_status("m")
    mail_id = quickbi.add_mail_task("Daily sales")
    client.get_mail_task_status(mail_id)
    assert "cookie" not in quickbi.calls[-1].headers
