"""TLS: certificates are verified unless configured otherwise, in the same way by both clients."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_provider_quickbi.api import tls
from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError, TransientError
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.api.settings import Endpoint
from airflow_provider_quickbi.testing import LocalQuickBI


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A CA that nobody trusts by default."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    """The file of its certificate."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[LocalQuickBI]:
    """A local Quick BI that speaks HTTPS."""
    with LocalQuickBI(ssl_context=server_context(authority)) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_warned_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_warned", set())


def test_a_certificate_of_an_unknown_ca_is_refused(secure: LocalQuickBI, connect: Callable[..., Any]):
    with pytest.raises(PermanentError, match="TLS certificate is not trusted") as caught:
        connect(secure).get_mail_task_list()
    assert caught.value.kind is ErrorKind.BAD_REQUEST
    assert "Set verify to the file of the CA" in caught.value.hint
    assert secure.count() == 0


def test_no_run_is_started_over_an_untrusted_connection(secure: LocalQuickBI, connect: Callable[..., Any]):
    mail_id = secure.add_mail_task("Daily sales")
    with pytest.raises(PermanentError):
        connect(secure).manual_run_mail_task(mail_id)
    assert secure.starts(mail_id) == 0


def test_a_private_ca_is_trusted_if_the_settings_name_its_file(
    secure: LocalQuickBI, connect: Callable[..., Any], ca_file: str
):
    mail_id = secure.add_mail_task("Daily sales")
    caller = connect(secure, verify=ca_file)
    for _ in range(3):
        caller.get_mail_task_status(mail_id)
    assert secure.connections_opened == 1
    assert caller.manual_run_mail_task(mail_id)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_private_ca_is_trusted_if_the_environment_names_its_file(
    secure: LocalQuickBI, connect: Callable[..., Any], ca_file: str, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv(name, ca_file)
    assert connect(secure).get_mail_task_list().total_num == 0


def test_a_certificate_of_another_host_is_refused_even_if_its_ca_is_trusted(
    authority: trustme.CA, connect: Callable[..., Any], ca_file: str
):
    with LocalQuickBI(ssl_context=server_context(authority, "elsewhere.example")) as server:
        with pytest.raises(PermanentError, match="not trusted"):
            connect(server, verify=ca_file).get_mail_task_list()
        assert server.count() == 0


def test_certificates_are_not_verified_with_verify_false_and_the_log_warns_once(
    connect: Callable[..., Any], secure: LocalQuickBI, caplog: pytest.LogCaptureFixture
):
    assert connect(secure, verify=False).get_mail_task_list().total_num == 0
    for _ in range(3):
        connect(secure, verify=False, endpoint=Endpoint("quickbi.example"))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["Quick BI at https://quickbi.example/: TLS certificates are not verified (verify=False)"]


def test_plain_http_is_warned_about_once_per_endpoint(
    connect: Callable[..., Any], quickbi: LocalQuickBI, caplog: pytest.LogCaptureFixture
):
    for _ in range(3):
        connect(endpoint=Endpoint("quickbi.example", "http"), proxies=(("http", quickbi.url),)).get_mail_task_list()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["Quick BI at http://quickbi.example/: no TLS; requests and responses can be read in transit"]


def test_an_unprotected_loopback_connection_logs_no_warning(
    connect: Callable[..., Any], secure: LocalQuickBI, caplog: pytest.LogCaptureFixture
):
    assert connect().get_mail_task_list().total_num == 0
    assert connect(secure, verify=False).get_mail_task_list().total_num == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_verified_https_logs_no_warning(
    secure: LocalQuickBI, connect: Callable[..., Any], ca_file: str, caplog: pytest.LogCaptureFixture
):
    connect(secure, verify=ca_file).get_mail_task_list()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("written", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_ca_file_without_certificates_is_a_permanent_error_that_names_it(
    secure: LocalQuickBI, connect: Callable[..., Any], tmp_path: Path, written: bytes | None
):
    path = tmp_path / "other.pem"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(PermanentError, match=r"no CA certificates in '.*other\.pem'") as caught:
        connect(secure, verify=str(path)).get_mail_task_list()
    assert "Check verify" in caught.value.hint
    assert secure.connections_opened == 0


def test_verify_may_be_a_directory_of_ca_certificates(
    secure: LocalQuickBI, connect: Callable[..., Any], tmp_path: Path
):
    with pytest.raises(PermanentError, match="TLS certificate is not trusted"):
        connect(secure, verify=str(tmp_path)).get_mail_task_list()


def test_https_to_an_http_port_is_a_transient_error_that_says_what_to_check(
    quickbi: LocalQuickBI, connect: Callable[..., Any]
):
    caller = connect(endpoint=Endpoint(quickbi.host, "https", quickbi.port))
    with pytest.raises(TransientError, match=r"TLS connection to 127\.0\.0\.1:\d+ failed.*check port and schema"):
        caller.call("GetMailTaskList", {"UserNick": "certificate"})


def test_a_tls_failure_after_the_request_may_have_started_a_run(
    authority: trustme.CA, connect: Callable[..., Any], ca_file: str
):
    context = server_context(authority)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = context.wrap_bio(incoming, outgoing, server_side=True)
                request = b""
                while b"\r\n\r\n" not in request:
                    try:
                        request += tls.read(65536)
                    except ssl.SSLWantReadError:
                        connection.sendall(outgoing.read())
                        incoming.write(connection.recv(65536))
                connection.sendall(b"this is no TLS record, and long enough to be taken for one")
                connection.recv(65536)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        caller = connect(endpoint=Endpoint("127.0.0.1", "https", listener.getsockname()[1]), verify=ca_file)
        with pytest.raises(TransientError) as caught:
            caller.manual_run_mail_task("m")
        thread.join(10)
    assert caught.value.may_have_arrived


def test_an_endless_handshake_times_out(connect: Callable[..., Any]):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("127.0.0.1", "https", listener.getsockname()[1])
        caller = connect(endpoint=endpoint, connect_timeout=0.2, read_timeout=0.2)
        with pytest.raises(TransientError):
            caller.get_mail_task_status("m", retries=NO_RETRY)
