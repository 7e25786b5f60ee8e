"""Controlling a simulator over HTTP, as other processes and languages do."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import requests
import trustme

from airflow_provider_quickbi.testing import Fault, LocalQuickBI, RemoteQuickBI
from airflow_provider_quickbi.testing.controls import PART_OF, PARTS

if TYPE_CHECKING:
    from .conftest import Caller


@pytest.fixture
def remote(quickbi: LocalQuickBI) -> RemoteQuickBI:
    return RemoteQuickBI(quickbi.url)


def test_everything_in_the_table_is_there_locally_and_from_afar(quickbi: LocalQuickBI, remote: RemoteQuickBI) -> None:
    for name in PART_OF:
        assert callable(getattr(quickbi, name)) == callable(getattr(remote, name)), name
    for part, (_, names) in PARTS.items():
        for name in names:
            assert callable(getattr(getattr(quickbi, part), name)) == callable(getattr(getattr(remote, part), name))
    for wrong in (quickbi, remote):
        with pytest.raises(AttributeError, match="no attribute 'fly'"):
            wrong.fly()  # type: ignore[union-attr]


def test_a_dataset_is_added_and_refreshed_from_afar(quickbi: LocalQuickBI, remote: RemoteQuickBI, call: Caller) -> None:
    dataset_id = remote.datasets.add("Sales", run_duration=float("inf"))
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
    assert remote.runs(mail_id)[0]["status"] == "FAILED"
    assert call("ManualRunMailTask", MailId=mail_id) is True
    assert call("ManualRunMailTask", MailId=mail_id) is True
    assert (remote.starts(mail_id), remote.mails_sent(mail_id), remote.mails_sent(mail_id, "added")) == (2, 1, 0)
    remote.set_paused(mail_id, False)
    assert remote.mail_tasks()[0]["paused"] is False
    remote.remove_mail_task(mail_id)
    assert remote.mail_tasks() == []


def test_manual_starts_are_decided_from_afar(remote: RemoteQuickBI, call: Caller) -> None:
    mail_id = remote.add_mail_task("m")
    remote.limit_manual_starts(mail_id, calls=1, language="zh")
    assert call("ManualRunMailTask", MailId=mail_id) == "MailApi.Beyond.ScheduleLimit"
    remote.refuse_manual_start(mail_id, "Timer.Schedule.Task")
    assert call("ManualRunMailTask", MailId=mail_id) == "Timer.Schedule.Task"
    remote.set_manual_start(mail_id, duration=float("inf"))
    assert call("ManualRunMailTask", MailId=mail_id) is True
    assert call("ManualRunMailTask", MailId=mail_id) == "MailTask.Already.Running"


def test_the_clock_is_moved_from_afar(quickbi: LocalQuickBI, remote: RemoteQuickBI) -> None:
    stopped = remote.clock.freeze(datetime(2026, 7, 1, tzinfo=UTC))
    assert stopped == remote.clock.now() == quickbi.clock.now() == datetime(2026, 7, 1, tzinfo=UTC)
    assert remote.clock.frozen
    mail_id = remote.add_mail_task("m")
    remote.add_schedule(mail_id, every=60)
    remote.add_schedule(mail_id, cron="1 8 * * *")
    remote.add_schedule(mail_id, times=[datetime(2026, 7, 1, 0, 0, 30, tzinfo=UTC), "2026-07-01T08:00:45"])
    assert remote.clock.advance(60) == stopped + timedelta(seconds=60)
    assert [run["exec_time"][-14:-6] for run in remote.runs(mail_id)] == [
        "08:00:30",
        "08:00:45",
        "08:01:00",
        "08:01:00",
    ]
    assert remote.clock.set("2026-07-02T00:00:00").isoformat() == "2026-07-01T16:00:00+00:00"
    assert remote.clock.time() == quickbi.clock.time()
    remote.clock.unfreeze()
    assert not quickbi.clock.frozen
    remote.clock.set_skew(7200)
    assert remote.clock.skew == quickbi.clock.skew == 7200


def test_faults_are_injected_from_afar(quickbi: LocalQuickBI, remote: RemoteQuickBI, call: Caller) -> None:
    remote.fail("GetMailTaskList", Fault.html_503(), Fault.throttled(), times=2)
    assert [call.send("GetMailTaskList").status_code for _ in range(5)] == [503, 400, 503, 400, 200]
    remote.fail(None, Fault.empty_502(), times=None)
    remote.clear_faults()
    assert quickbi.faults.rules == []


def test_a_fault_can_be_named_without_python(quickbi: LocalQuickBI, call: Caller) -> None:
    order = {"action": "GetMailTaskList", "faults": [{"make": "throttled", "with": {"retry_after_ms": 20}}]}
    assert requests.post(quickbi.url + "/_local/fail", json=order, timeout=5).json() == {"result": None}
    assert call.send("GetMailTaskList").headers["x-acs-retry-after"] == "20"
    for wrong in ({"make": "coffee"}, {"make": "from_json"}, {"kind": "x", "more": 1}):
        answer = requests.post(quickbi.url + "/_local/fail", json={"faults": [wrong]}, timeout=5)
        assert answer.status_code == 400


def test_callers_rights_and_limits_are_set_from_afar(
    quickbi: LocalQuickBI, remote: RemoteQuickBI, call: Caller
) -> None:
    remote.add_account(
        "STS.id", "secret", security_token="t", security_token_expires_at=datetime(2020, 1, 1, tzinfo=UTC)
    )
    remote.change_account("STS.id", active=False)
    remote.add_bearer_token("bearer", expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    account = quickbi.accounts.find_account("STS.id")
    assert account is not None
    assert (account.active, account.security_token, account.security_token_expires_at) == (False, "t", 1577836800)
    remote.deny("NoPermission", action="GetMailTaskList")
    assert call("GetMailTaskList") == "NoPermission"
    remote.allow("GetMailTaskList")
    remote.limit_calls({"GetMailTaskStatus": 1, None: 0.001})
    assert quickbi.calls_per_second == {"GetMailTaskStatus": 1, None: 0.001}
    assert [call("GetMailTaskList") != "Throttling.User" for _ in range(2)] == [True, False]
    remote.limit_calls(None)
    assert remote.calls_per_second == {}


def test_calls_and_counters_are_read_from_afar(quickbi: LocalQuickBI, remote: RemoteQuickBI, call: Caller) -> None:
    call("GetMailTaskList", PageNum=1)
    call("GetMailTaskStatus")
    assert remote.calls == quickbi.calls
    assert remote.counters() == quickbi.counters()
    assert (remote.count(), remote.count("GetMailTaskList"), remote.count(code="MailId.Is.Null")) == (2, 1, 1)
    read = requests.post(quickbi.url + "/_local/calls", json={}, timeout=5).json()["result"]
    assert [seen["action"] for seen in read] == ["GetMailTaskList", "GetMailTaskStatus"]
    remote.reset()
    assert remote.calls == []


def test_control_connections_are_neither_counted_nor_logged(
    quickbi: LocalQuickBI, remote: RemoteQuickBI, call: Caller
) -> None:
    remote.mail_tasks()
    call("GetMailTaskList")
    assert remote.connections_opened == quickbi.connections_opened == 1
    assert len(remote.calls) == 1
    assert remote.drop_connections() == 1
    assert call("GetMailTaskList")["TotalNum"] == 0
    assert remote.connections_opened == 2


def test_the_connection_is_read_from_afar(quickbi: LocalQuickBI, remote: RemoteQuickBI) -> None:
    assert remote.connection(verify=False) == quickbi.connection(verify=False)
    assert remote.connection_json() == quickbi.connection_json()


def test_mistakes_are_the_same_errors_as_locally(remote: RemoteQuickBI) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        remote.add_run("nowhere")
    with pytest.raises(ValueError, match="only moves forward"):
        remote.clock.advance(-1)
    with pytest.raises(TypeError, match="cannot be sent"):
        remote.add_run("m", exec_time=object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="looks like"):
        RemoteQuickBI("127.0.0.1:8765")


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "status"),
    [
        ("POST", "reset", "{}", "text/plain", 405),
        ("DELETE", "reset", "", "application/json", 405),
        ("POST", "nothing", "{}", "application/json", 404),
        ("POST", "__init__", "{}", "application/json", 404),
        ("GET", "calls", "", "", 405),
        ("POST", "clock.fly", "{}", "application/json", 404),
        ("POST", "mails.clear", "{}", "application/json", 404),
        ("POST", "reset", "{", "application/json", 400),
        ("POST", "reset", "[]", "application/json", 400),
        ("POST", "add_mail_task", "{}", "application/json", 400),
        ("POST", "add_run", '{"mail_id": "m", "more": 1}', "application/json", 400),
    ],
)
def test_a_control_call_that_makes_no_sense_is_told_so(
    quickbi: LocalQuickBI, method: str, path: str, body: str, content_type: str, status: int
) -> None:
    headers = {"Content-Type": content_type}
    answer = requests.request(method, f"{quickbi.url}/_local/{path}", data=body, headers=headers, timeout=5)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_only_callers_on_this_machine_are_answered() -> None:
    from airflow_provider_quickbi.testing.control import _is_local

    assert [_is_local(address) for address in ("127.0.0.1", "::1", "10.0.0.1", None, "x")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_an_https_simulator_is_controlled_too() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    with LocalQuickBI(ssl_context=server_side) as quickbi:
        remote = RemoteQuickBI(quickbi.url, ssl_context=client_side)
        assert remote.connection() == quickbi.connection()
