"""Controlling a simulator over HTTP, as other processes do."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
import requests
import trustme

from airflow_provider_quickbi.testing import DOCUMENTED_CALLS_PER_SECOND, Fault, LocalQuickBI, RemoteQuickBI
from airflow_provider_quickbi.testing.remote import decode, encode

from .conftest import Caller


@pytest.fixture
def remote(quickbi: LocalQuickBI) -> RemoteQuickBI:
    return RemoteQuickBI(quickbi.url)


def test_a_dataset_is_added_and_refreshed_from_afar(quickbi: LocalQuickBI, remote: RemoteQuickBI, call: Caller) -> None:
    dataset_id = remote.datasets.add("Sales")
    remote.datasets.set_start(dataset_id, duration=float("inf"))
    assert call("AllotDatasetAccelerationTask", CubeId=dataset_id) is True
    (run,) = remote.datasets.runs(dataset_id)
    remote.datasets.finish_run(run["job_id"], "FAILURE")
    assert call("QueryLastAccelerationEngineJob", CubeId=dataset_id)["Status"] == "FAILURE"
    assert remote.datasets.starts(dataset_id) == quickbi.datasets.starts(dataset_id) == 1


def test_a_mail_is_added_run_and_finished_from_afar(quickbi: LocalQuickBI, remote: RemoteQuickBI, call: Caller) -> None:
    mail_id = remote.add_mail_task("日报", owner="王芳", paused=True)
    remote.set_manual_start(mail_id, outcome=["FAILED", "SENT"])
    assert quickbi.mail_tasks() == remote.mail_tasks()
    task_id = remote.add_run(mail_id, exec_time=datetime(2026, 7, 1, tzinfo=UTC), status="PROCESSING")
    assert call("GetMailTaskStatus", MailId=mail_id)[0]["execTime"] == "2026-07-01 08:00:00"
    remote.finish_run(task_id, "FAILED")
    assert remote.runs(mail_id) == quickbi.runs(mail_id)
    assert [call("ManualRunMailTask", MailId=mail_id) for _ in range(2)] == [True, True]
    assert (remote.starts(mail_id), remote.mails_sent(mail_id), remote.mails_sent(mail_id, "added")) == (2, 1, 0)
    remote.remove_mail_task(mail_id)
    assert remote.mail_tasks() == []


def test_the_clock_is_moved_from_afar(quickbi: LocalQuickBI, remote: RemoteQuickBI) -> None:
    stopped = remote.clock.freeze(datetime(2026, 7, 1, tzinfo=UTC))
    assert stopped == remote.clock.now() == quickbi.clock.now() == datetime(2026, 7, 1, tzinfo=UTC)
    assert remote.clock.advance(60) == stopped + timedelta(seconds=60)
    assert remote.clock.time() == quickbi.clock.time()
    assert remote.clock.skew == 0


def test_faults_are_injected_from_afar(remote: RemoteQuickBI, call: Caller) -> None:
    remote.fail("GetMailTaskList", Fault.html_503(), Fault.throttled(), times=2)
    assert [call.send("GetMailTaskList").status_code for _ in range(5)] == [503, 400, 503, 400, 200]
    remote.fail(None, Fault.empty_502(), times=None)
    remote.clear_faults()
    assert call.send("GetMailTaskList").status_code == 200


@pytest.mark.parametrize(
    "fault", [Fault.throttled(retry_after_ms=5), Fault.error("A", "b"), Fault.custom(200, b"\xff"), Fault.delay(1)]
)
def test_a_fault_travels_as_json(fault: Fault) -> None:
    assert encode(decode(encode(fault))) == encode(fault)


def test_limits_and_calls_are_set_and_read_from_afar(
    quickbi: LocalQuickBI, remote: RemoteQuickBI, call: Caller
) -> None:
    remote.limit_calls(DOCUMENTED_CALLS_PER_SECOND)
    assert remote.calls_per_second == quickbi.calls_per_second == DOCUMENTED_CALLS_PER_SECOND
    call("GetMailTaskList", PageNum=1)
    call("GetMailTaskStatus")
    assert remote.calls == quickbi.calls
    assert remote.counters() == quickbi.counters()
    assert (remote.count(), remote.count("GetMailTaskList"), remote.count(code="MailId.Is.Null")) == (2, 1, 1)
    remote.reset()
    assert (remote.calls, remote.calls_per_second) == ([], {})


def test_control_connections_are_neither_counted_nor_dropped(
    quickbi: LocalQuickBI, remote: RemoteQuickBI, call: Caller
) -> None:
    remote.mail_tasks()
    call("GetMailTaskList")
    assert remote.connections_opened == quickbi.connections_opened == 1
    assert len(remote.calls) == 1
    assert remote.drop_connections() == 1
    assert call("GetMailTaskList")["TotalNum"] == 0
    assert remote.connections_opened == 2


def test_mistakes_are_the_same_errors_as_locally(remote: RemoteQuickBI) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        remote.add_run("nowhere")
    with pytest.raises(ValueError, match="only moves forward"):
        remote.clock.advance(-1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        remote.add_run("m", colour="red")
    with pytest.raises(TypeError, match="cannot be sent"):
        remote.add_run("m", exec_time=object())
    with pytest.raises(ValueError, match="looks like"):
        RemoteQuickBI("127.0.0.1:8765")
    for name in ("fly", "stop", "clock.__class__"):
        with pytest.raises(AttributeError, match="no attribute"):
            remote.post(name, (), {})


@pytest.mark.parametrize(("method", "content_type"), [("POST", "text/plain"), ("GET", "application/json")])
def test_what_a_browser_may_send_of_its_own_accord_controls_nothing(
    quickbi: LocalQuickBI, method: str, content_type: str
) -> None:
    mail_id = quickbi.add_mail_task("m")
    headers, body = {"Content-Type": content_type}, '{"args": [], "kwargs": {}}'
    response = requests.request(method, f"{quickbi.url}/_local/reset", data=body, headers=headers, timeout=5)
    assert response.status_code == 403
    assert [mail["mail_id"] for mail in quickbi.mail_tasks()] == [mail_id]


def test_a_control_call_that_is_not_json_is_told_so(quickbi: LocalQuickBI) -> None:
    headers = {"Content-Type": "application/json"}
    response = requests.post(f"{quickbi.url}/_local/reset", data="{", headers=headers, timeout=5)
    assert response.json()["error"][0] == "ValueError"


def test_an_https_simulator_is_controlled_too() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    with LocalQuickBI(ssl_context=server_side) as quickbi:
        remote = RemoteQuickBI(quickbi.url, ssl_context=client_side)
        assert remote.connection(verify=False) == quickbi.connection(verify=False)
        assert remote.connection_json() == quickbi.connection_json()
