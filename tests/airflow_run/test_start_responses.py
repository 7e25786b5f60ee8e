"""What a service that is busy costs: pauses without a worker, slower requests; and which responses are ambiguous."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from typing import Any

import pytest
import trustme

from airflow_provider_quickbi._send.record import StartResult, classify_response
from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.errors import TransientError
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
from airflow_provider_quickbi.exceptions import QuickBIRequestError, QuickBIStartUnknown
from airflow_provider_quickbi.testing import Fault
from tests.datasets import both

from .tries import BEGIN, Case, deferred, held


@deferred
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_schedule_limit_is_waited_for_exactly_as_long_as_it_says_without_a_worker(language: str, case: Case) -> None:
    case.quickbi.limit_manual_starts(case.mail_id, calls=1, announced_minutes=7, language=language)
    task = case.task()
    result = task.run()
    pause = task.deferrals[0]
    assert pause.trigger == "QuickBIPauseTrigger"
    assert pause.arguments["until"] - BEGIN.timestamp() == pytest.approx(7 * 60, abs=0.1)
    assert sum(case.world.slept) < 1
    assert case.quickbi.count("ManualRunMailTask") == 2
    assert (case.starts(), result) == (1, case.newest())
    assert task.errors == []


@held
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_schedule_limit_is_slept_over_where_the_task_does_not_defer(language: str, case: Case) -> None:
    case.quickbi.limit_manual_starts(case.mail_id, calls=1, announced_minutes=7, language=language)
    task = case.task()
    task.run()
    assert max(case.world.slept) == pytest.approx(7 * 60, abs=0.1)
    assert case.starts() == 1
    assert task.deferrals == []


@both
@deferred
def test_waiting_for_another_run_holds_no_worker(case: Case) -> None:
    other = case.quickbi.add_run(case.mail_id, status="PROCESSING")
    case.world.after(110, lambda: case.quickbi.finish_run(other, "SENT"))
    task = case.task()
    task.run()
    assert case.starts() == 1
    assert sum(case.world.slept) < 1
    assert all(deferral.timeout.total_seconds() > 900 for deferral in task.deferrals)


@both
@pytest.mark.parametrize("visible_after", [0, 60], ids=["seen by its status", "known only by the refusal"])
def test_attach_waits_for_the_active_run_and_starts_none(visible_after: float, case: Case) -> None:
    other = case.quickbi.add_run(case.mail_id, status="PROCESSING", appears_after=visible_after)
    case.world.advance(10)
    case.world.after(110, lambda: case.quickbi.finish_run(other, "SENT"))
    task = case.task(on_running="attach")
    result = task.run()
    assert (case.starts(), result) == (0, case.newest())
    assert case.run_id(result) == other
    assert not task.has_unfinished_record


@both
@deferred
@pytest.mark.parametrize("action", ["ManualRunMailTask", "GetMailTaskStatus"])
@pytest.mark.parametrize("retry_after_ms", [None, 4000])
def test_being_throttled_is_never_a_failure_and_slows_requests_down(
    action: str, retry_after_ms: int | None, case: Case
) -> None:
    times = 8 if action == "ManualRunMailTask" else 28
    case.fail(action, Fault.throttled(retry_after_ms=retry_after_ms), times=times)
    task = case.task()
    result = task.run()
    assert task.errors == []
    assert (case.starts(), result) == (1, case.newest())
    assert all(seconds <= 8 for seconds in case.world.slept)
    pauses = [deferral for deferral in task.deferrals if deferral.trigger == "QuickBIPauseTrigger"]
    waits = [pause.arguments["until"] - BEGIN.timestamp() - pause.began for pause in pauses]
    assert pauses
    assert min(waits) > 6  # below Airflow 3.3 a deferral that ends earlier fails the task
    assert waits[-1] > waits[0]
    assert max(waits) <= 60


def test_a_refusal_has_its_code_and_request_id(case: Case) -> None:
    case.fail("ManualRunMailTask", Fault.error("Mail.Forbidden.Access"))
    with pytest.raises(QuickBIRequestError) as raised:
        case.task().run()
    assert raised.value.code == "Mail.Forbidden.Access"
    assert raised.value.request_id in str(raised.value)


@both
def test_an_ambiguous_start_is_logged_and_explained(case: Case, log: Any) -> None:
    case.fail("ManualRunMailTask", Fault.reset())
    task = case.task(retries=0)
    with pytest.raises(
        QuickBIStartUnknown,
        match=r"None appeared within start_timeout \(300 s\)\. It is not known whether Quick BI accepted",
    ):
        task.run()
    assert "daily-sales: it is not known" in log.text


def test_a_tls_connection_that_breaks_off_may_have_carried_the_start(tmp_path: Any) -> None:
    """A device on the way that responds in the clear makes the same error as a handshake that fails."""

    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    received: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        spoken = server_side.wrap_socket(connection, server_side=True)
        received.append(spoken.recv(65536))
        plain = spoken.detach()
        os.write(plain, b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        os.close(plain)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        endpoint = Endpoint("localhost", "https", listener.getsockname()[1])
        credentials = CredentialSpec.of("access_key", access_key_id="id", access_key_secret="secret")
        with (
            QuickBIClient(ClientSettings(endpoint, credentials, verify=str(bundle))) as client,
            pytest.raises(TransientError) as raised,
        ):
            client.manual_run_mail_task("daily-sales")
        thread.join(20)
    assert received
    assert classify_response(raised.value) is StartResult.UNKNOWN
