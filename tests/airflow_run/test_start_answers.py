"""What the service answers to a start: later, throttled, refused, out of reach; and what the task makes of it."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from typing import Any

import pytest
import trustme
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout

from airflow_provider_quickbi.api.errors import ErrorKind, TransientError
from airflow_provider_quickbi.exceptions import QuickBIRequestError, QuickBIStartUnknown, QuickBIUnavailable
from airflow_provider_quickbi.testing import Fault

BEGIN = 1772413200.0


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_schedule_limit_is_waited_for_exactly_as_long_as_it_says_without_a_worker(
    language: str, make_task: Any, store: Any, quickbi: Any, mail_id: str, world: Any, starts: Any, newest: Any
) -> None:
    quickbi.limit_manual_starts(mail_id, calls=1, announced_minutes=7, language=language)
    task = make_task(store=store, deferrable=True)
    result = task.run()
    pause = task.deferrals[0]
    assert pause.trigger == "QuickBIPauseTrigger"
    assert pause.arguments["until"] - BEGIN == pytest.approx(7 * 60, abs=0.1)
    assert sum(world.slept) < 1
    assert quickbi.count("ManualRunMailTask") == 2
    assert (starts(), result) == (1, newest())
    assert task.errors == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_schedule_limit_is_slept_over_where_the_task_does_not_defer(
    language: str, make_task: Any, store: Any, quickbi: Any, mail_id: str, world: Any, starts: Any
) -> None:
    quickbi.limit_manual_starts(mail_id, calls=1, announced_minutes=7, language=language)
    task = make_task(store=store, deferrable=False)
    task.run()
    assert max(world.slept) == pytest.approx(7 * 60, abs=0.1)
    assert starts() == 1
    assert task.deferrals == []


def test_a_schedule_limit_that_lasts_is_waited_for_again(
    task: Any, quickbi: Any, mail_id: str, starts: Any, world: Any
) -> None:
    quickbi.limit_manual_starts(mail_id, minutes=25)
    task.run()
    assert starts() == 1
    assert quickbi.count("ManualRunMailTask", "MailApi.Beyond.ScheduleLimit") == 1
    assert world.elapsed() >= 25 * 60


def test_a_schedule_limit_beyond_the_timeout_ends_with_the_timeout(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, world: Any
) -> None:
    quickbi.limit_manual_starts(mail_id, minutes=60)
    task = make_task(store=store, deferrable=deferrable, timeout=1200)
    with pytest.raises(AirflowSensorTimeout, match=r"could be started\. Nothing was sent"):
        task.run()
    assert starts() == 0
    assert world.elapsed() == pytest.approx(1200, abs=1)
    assert not task.noted


def test_timer_schedule_task_is_tried_again_after_a_minute(
    task: Any, quickbi: Any, mail_id: str, starts: Any, world: Any
) -> None:
    quickbi.refuse_manual_start(mail_id, "Timer.Schedule.Task")
    task.run()
    assert starts() == 1
    assert 60 <= world.elapsed() - 240 <= 90


@pytest.mark.parametrize("code", ["MailApi.Beyond.ScheduleLimit", "Timer.Schedule.Task"])
def test_on_schedule_limit_fail_fails_for_good_and_sends_nothing(
    code: str, make_task: Any, store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any
) -> None:
    quickbi.refuse_manual_start(mail_id, code)
    task = make_task(store=store, deferrable=deferrable, on_schedule_limit="fail")
    with pytest.raises(AirflowFailException, match=r'on_schedule_limit="fail"\)\. Nothing was sent'):
        task.run()
    assert starts() == 0
    assert not task.noted


@pytest.mark.parametrize("action", ["ManualRunMailTask", "GetMailTaskStatus"])
@pytest.mark.parametrize("retry_after_ms", [None, 4000])
def test_being_throttled_is_never_a_failure_and_is_asked_again_slower(
    action: str,
    retry_after_ms: int | None,
    make_task: Any,
    store: Any,
    quickbi: Any,
    starts: Any,
    newest: Any,
    world: Any,
) -> None:
    quickbi.fail(
        action, Fault.throttled(retry_after_ms=retry_after_ms), times=8 if action == "ManualRunMailTask" else 28
    )
    task = make_task(store=store, deferrable=True)
    result = task.run()
    assert task.errors == []
    assert (starts(), result) == (1, newest())
    assert all(seconds <= 8 for seconds in world.slept)
    pauses = [deferral for deferral in task.deferrals if deferral.trigger == "QuickBIPauseTrigger"]
    waits = [pause.arguments["until"] - BEGIN - pause.began for pause in pauses]
    assert pauses
    assert min(waits) > 6  # below Airflow 3.3 a deferral that is over earlier fails the task
    assert waits[-1] > waits[0]
    assert max(waits) <= 60


REFUSALS = {
    "Mail.Not.Found": "there is no such mail task, or it is not visible",
    "Mail.Forbidden.Access": "organisation administrator",
    "Forbidden.RAM": "RAM policy",
    "Access.Forbidden": "Professional edition",
    "SignatureDoesNotMatch": "AccessKey Secret",
    "Never.Heard.Of": "Never.Heard.Of",
}


@pytest.mark.parametrize("action", ["ManualRunMailTask", "GetMailTaskStatus"])
@pytest.mark.parametrize(("code", "advice"), REFUSALS.items(), ids=REFUSALS)
def test_a_refusal_fails_for_good_with_the_code_and_what_to_do(
    code: str, advice: str, action: str, make_task: Any, new_store: Any, quickbi: Any, starts: Any
) -> None:
    task = make_task(store=new_store(), deferrable=code.startswith("Mail"))
    quickbi.fail(action, Fault.error(code))
    with pytest.raises(QuickBIRequestError, match=advice) as raised:
        task.run()
    assert raised.value.code == code
    assert raised.value.request_id in str(raised.value)
    assert starts() == 0
    assert not task.noted


def test_an_unknown_mail_task_is_not_found(make_task: Any, store: Any, deferrable: bool) -> None:
    with pytest.raises(QuickBIRequestError, match=r"Mail\.Not\.Found"):
        make_task(store=store, deferrable=deferrable, mail_id="nobody").run()


def test_a_quick_bi_out_of_reach_is_tried_again_until_it_is_unavailable_and_nothing_was_sent(
    make_task: Any, store: Any, deferrable: bool, quickbi: Any, starts: Any, world: Any
) -> None:
    task = make_task(store=store, deferrable=deferrable, unreachable_timeout=900, retries=1)
    quickbi.stop()
    with pytest.raises(QuickBIUnavailable, match=r"was unreachable for 9\d\d s"):
        task.run()
    assert [type(error) for error in task.errors] == [QuickBIUnavailable] * 2
    assert world.elapsed() == pytest.approx(900 + 60 + 900, abs=40)
    assert not task.noted
    if deferrable:
        assert all(seconds <= 8 for seconds in world.slept)
    quickbi.start()
    assert starts() == 0


def test_a_quick_bi_that_comes_back_gets_its_start(
    task: Any, quickbi: Any, starts: Any, newest: Any, world: Any
) -> None:
    quickbi.stop()
    world.after(400, quickbi.start)
    result = task.run()
    assert task.errors == []
    assert (starts(), result) == (1, newest())


def test_a_start_that_never_reached_the_service_is_tried_again_in_the_same_try(
    task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_quickbi.api.client import QuickBIClient

    real = QuickBIClient.do
    refused = iter([True] * 3)

    def call(client: Any, operation: Any, **kwargs: Any) -> Any:
        if operation.action == "ManualRunMailTask" and next(refused, False):
            raise TransientError("no connection", kind=ErrorKind.TRANSIENT, may_have_arrived=False)
        return real(client, operation, **kwargs)

    monkeypatch.setattr(QuickBIClient, "do", call)
    result = task.run()
    assert task.errors == []
    assert (starts(), result) == (1, newest())


def test_a_start_that_never_reaches_the_service_is_unavailable_in_the_end(
    make_task: Any, store: Any, deferrable: bool, starts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_quickbi.api.client import QuickBIClient

    real = QuickBIClient.do

    def call(client: Any, operation: Any, **kwargs: Any) -> Any:
        if operation.action == "ManualRunMailTask":
            raise TransientError("no connection", kind=ErrorKind.TRANSIENT, may_have_arrived=False)
        return real(client, operation, **kwargs)

    monkeypatch.setattr(QuickBIClient, "do", call)
    task = make_task(store=store, deferrable=deferrable, retries=0)
    with pytest.raises(QuickBIUnavailable, match="Nothing was sent"):
        task.run()
    assert starts() == 0
    assert not task.noted


def test_an_ambiguous_start_whose_run_never_appears_is_looked_for_again_and_then_started(
    task: Any, quickbi: Any, starts: Any, newest: Any, world: Any
) -> None:
    quickbi.fail("ManualRunMailTask", Fault.reset())
    result = task.run()
    assert [type(error) for error in task.errors] == [QuickBIStartUnknown]
    assert "None appeared within start_timeout (300 s). It is not known whether Quick BI accepted" in str(
        task.errors[0]
    )
    assert (starts(), result) == (1, newest())
    assert world.elapsed() == pytest.approx(300 + 60 + 300 + 240, abs=70)


def test_an_accepted_start_whose_run_never_appears_fails_for_good_and_is_not_sent_again(
    task: Any, quickbi: Any, mail_id: str, starts: Any
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=1e9)
    with pytest.raises(AirflowSensorTimeout, match=r"None appeared within start_timeout.*The mail was started.*again"):
        task.run()
    assert len(task.errors) == 1
    assert starts() == 1
    assert not task.noted


def test_an_accepted_start_stays_accepted_for_a_retry(
    make_task: Any, new_store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, die_at: Any
) -> None:
    from airflow_provider_quickbi.api.client import QuickBIClient

    quickbi.set_manual_start(mail_id, appears_after=1e9)
    die_at(QuickBIClient, "GetMailTaskStatus", 2)
    task = make_task(store=new_store(), deferrable=deferrable)
    with pytest.raises(AirflowSensorTimeout, match="The mail was started"):
        task.run()
    assert len(task.errors) == 2
    assert starts() == 1


@pytest.mark.parametrize("seconds", [400, 2000])
def test_a_service_that_fails_after_an_ambiguous_start_does_not_make_it_a_start_that_is_not_there(
    seconds: float,
    make_task: Any,
    new_store: Any,
    deferrable: bool,
    quickbi: Any,
    starts: Any,
    newest: Any,
    world: Any,
) -> None:
    """What could not be asked is not known not to have started, in the first try as in the retry."""
    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    task = make_task(store=new_store(), deferrable=deferrable, unreachable_timeout=900)

    def outage(call: Any) -> None:
        quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=None)
        world.after(seconds, quickbi.clear_faults)

    quickbi.when_called("ManualRunMailTask", outage, nth=1)
    result = task.run()
    assert {type(error) for error in task.errors} <= {QuickBIUnavailable}
    assert len(task.errors) == (0 if seconds == 400 else 2)
    assert (starts(), result) == (1, newest())


def test_execution_timeout_ends_a_pause_before_the_start(
    make_task: Any, store: Any, quickbi: Any, mail_id: str, starts: Any, world: Any
) -> None:
    from datetime import timedelta

    quickbi.limit_manual_starts(mail_id, minutes=60)
    task = make_task(store=store, deferrable=True, execution_timeout=timedelta(minutes=10), retries=0)
    with pytest.raises(AirflowTaskTimeout, match="execution_timeout is over"):
        task.attempt()
    assert world.elapsed() == pytest.approx(600, abs=1)
    assert starts() == 0


@pytest.mark.parametrize("refuse_while_running", [True, False])
def test_the_run_of_an_earlier_try_that_appears_while_a_limit_is_waited_for_is_joined(
    refuse_while_running: bool,
    make_task: Any,
    new_store: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
) -> None:
    """The first try has started a run that shows up only while the retry waits to start another one."""
    quickbi.set_manual_start(mail_id, appears_after=800, refuse_while_running=refuse_while_running)
    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    quickbi.when_called(
        "ManualRunMailTask", lambda call: quickbi.limit_manual_starts(mail_id, calls=1, announced_minutes=10), nth=2
    )
    task = make_task(store=new_store(), deferrable=deferrable)
    result = task.run()
    assert [type(error) for error in task.errors] == [QuickBIStartUnknown]
    assert quickbi.count("ManualRunMailTask", "MailApi.Beyond.ScheduleLimit") == 1
    assert (starts(), result) == (1, newest())
    assert not task.noted


def test_a_tls_connection_that_breaks_off_may_have_carried_the_start(tmp_path: Any) -> None:
    """A device on the way that answers in the clear makes the same error as a handshake that fails."""
    from airflow_provider_quickbi._send.record import StartResult, classify_response
    from airflow_provider_quickbi.api.client import QuickBIClient
    from airflow_provider_quickbi.api.credentials import CredentialSpec
    from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint

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
