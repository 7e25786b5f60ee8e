"""GetMailTaskStatus: what is sent, and how runs, their ids and their times are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi.api.errors import ErrorKind, TransientError
from airflow_provider_quickbi.api.models import MailTaskRun, MailTaskStatus
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

BIG = 7218865303929605212


def response(result: Any, **more: Any) -> Fault:
    return Fault.custom(200, {"RequestId": "R-1", "Result": result, "Success": True, **more})


def run(**changes: Any) -> dict[str, Any]:
    """A run as the service writes it; ``None`` leaves a field out."""
    written = {"execTime": "2026-07-01 08:00:00", "mailId": "m", "status": "SENT", "taskId": BIG, **changes}
    return {name: value for name, value in written.items() if value is not None}


def test_a_status_has_every_documented_field(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    task_id = quickbi.add_run(mail_id, exec_time="2026-07-01T08:00:00", status="FAILED")
    [found] = client.get_mail_task_status(mail_id)
    assert found.as_dict() == {
        "mail_id": mail_id,
        "task_id": task_id,
        "status": "FAILED",
        "exec_time": "2026-07-01T08:00:00+08:00",
    }


def test_the_latest_run_is_requested_without_a_task_id_and_another_one_with_it(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    first = quickbi.add_run(mail_id, exec_time="2026-07-01T08:00:00")
    second = quickbi.add_run(mail_id, exec_time="2026-07-02T08:00:00")
    assert [found.task_id for found in client.get_mail_task_status(mail_id)] == [second]
    assert dict(quickbi.calls[-1].params) == {"MailId": mail_id}
    assert [found.task_id for found in client.get_mail_task_status(mail_id, first)] == [first]
    assert dict(quickbi.calls[-1].params) == {"MailId": mail_id, "TaskId": first}
    assert [found.task_id for found in client.get_mail_task_status(mail_id, int(first))] == [first]
    assert dict(quickbi.calls[-1].params) == {"MailId": mail_id, "TaskId": first}


def test_a_task_that_never_ran_or_an_unknown_run_gives_no_run(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    assert client.get_mail_task_status(mail_id) == ()
    assert client.get_mail_task_status(mail_id, "1") == ()


@pytest.mark.parametrize("as_string", [False, True])
def test_no_digit_of_a_task_id_is_lost(connect: Callable[..., Any], as_string: bool):
    with LocalQuickBI() as quickbi:
        quickbi.task_id_as_string = as_string
        mail_id = quickbi.add_mail_task("Daily sales")
        task_id = quickbi.add_run(mail_id)
        assert int(task_id) > 2**53
        client = connect(quickbi)
        assert client.get_mail_task_status(mail_id)[0].task_id == task_id
        assert client.get_mail_task_status(mail_id, task_id)[0].task_id == task_id


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_every_int64_is_a_task_id_as_number_and_as_text(number: int):
    for written in (number, str(number), f" {number} "):
        item = json.loads(json.dumps(run(taskId=written)))
        assert MailTaskRun.from_json(item, mail_id="m", timezone=UTC).task_id == str(number)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (run(taskId=7218865303929605000.0), "taskId as a string or an integer"),
        (run(taskId=1.0), "taskId as a string or an integer"),
        (run(taskId="7.2e18"), "taskId as an integer"),
        (run(taskId="-1"), "taskId as an integer"),
        (run(taskId=-1), "taskId as an integer"),
        (run(taskId="1" * 21), "taskId as an integer"),
        (run(taskId="１２"), "taskId as an integer"),  # noqa: RUF001 - digits of another script
        (run(taskId=True), "taskId as a string or an integer"),
        (run(taskId=""), "taskId as a string or an integer"),
        (run(taskId=None), "taskId as a string or an integer"),
        (run(status=None), "status as a string"),
        (run(status=" "), "status as a string"),
        (run(status=["SENT"]), "status as a string"),
        (run(execTime=None), "execTime as a string"),
        (run(execTime="2026-07-01"), "execTime as yyyy-MM-dd HH:mm:ss"),
        (run(execTime="2026-07-01T08:00:00"), "execTime as yyyy-MM-dd HH:mm:ss"),
        (run(execTime="2026-02-30 08:00:00"), "execTime as yyyy-MM-dd HH:mm:ss"),
        (run(execTime=1782864000000), "execTime as yyyy-MM-dd HH:mm:ss"),
        (run(mailId=1.5), "mailId as a string"),
        ("SENT", "a JSON object"),
        (None, "a JSON object"),
    ],
)
def test_a_malformed_run_is_refused(quickbi: LocalQuickBI, client: Any, item: Any, said: str):
    quickbi.fail("GetMailTaskStatus", response([item]), times=None)
    with pytest.raises(TransientError, match=said) as caught:
        client.get_mail_task_status("m", retries=NO_RETRY)
    assert caught.value.kind is ErrorKind.TRANSIENT


@pytest.mark.parametrize(
    "item",
    [
        run(),
        {name.lower(): value for name, value in run().items()},
        {name[0].upper() + name[1:]: value for name, value in run().items()},
        run(status="sent"),
        run(status=" SENT "),
        run(taskId=str(BIG)),
        run(mailId=None),
        run(execTime=" 2026-07-01 08:00:00 "),
        run(unknown=[{}]),
    ],
)
def test_a_run_is_read_whatever_the_case_of_its_keys_and_the_spaces_around_its_values(item: dict[str, Any]):
    found = MailTaskRun.from_json(item, mail_id="m", timezone=UTC)
    assert found == MailTaskRun("m", str(BIG), "SENT", datetime(2026, 7, 1, 8, tzinfo=UTC))


def test_an_unknown_status_is_kept_unchanged(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.add_run(mail_id, status="QUEUED")
    [found] = client.get_mail_task_status(mail_id)
    assert found.status == "QUEUED"
    assert found.status not in list(MailTaskStatus)


@pytest.mark.parametrize("result", [[], None])
def test_an_empty_result_is_no_run(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("GetMailTaskStatus", response(result))
    assert client.get_mail_task_status("m") == ()


def test_a_result_that_is_one_run_instead_of_a_list_is_read(quickbi: LocalQuickBI, client: Any):
    quickbi.fail("GetMailTaskStatus", response(run()))
    assert [found.task_id for found in client.get_mail_task_status("m")] == [str(BIG)]


@pytest.mark.parametrize("result", ["SENT", 7, True, {}, [[]]])
def test_a_result_that_is_not_a_list_of_runs_is_a_transient_error(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("GetMailTaskStatus", response(result))
    with pytest.raises(TransientError, match="unexpected response"):
        client.get_mail_task_status("m", retries=NO_RETRY)


def test_several_runs_are_returned_oldest_first(connect: Callable[..., Any]):
    with LocalQuickBI() as quickbi:
        quickbi.status_list, quickbi.shuffle_status_list = 5, True
        mail_id = quickbi.add_mail_task("Daily sales")
        added = [quickbi.add_run(mail_id, exec_time=f"2026-07-0{day}T08:00:00") for day in (1, 2, 3, 4, 5)]
        client = connect(quickbi)
        for _ in range(4):
            assert [found.task_id for found in client.get_mail_task_status(mail_id)] == added


def test_runs_of_the_same_second_are_ordered_by_number_not_by_text(quickbi: LocalQuickBI, client: Any):
    quickbi.fail("GetMailTaskStatus", response([run(taskId="10"), run(taskId="9")]))
    assert [found.task_id for found in client.get_mail_task_status("m")] == ["9", "10"]


@pytest.mark.parametrize(
    ("timezone", "offset"), [("Asia/Shanghai", 8), ("UTC", 0), ("Asia/Tokyo", 9), ("America/New_York", -4)]
)
def test_the_time_of_a_run_is_in_the_configured_zone(connect: Callable[..., Any], timezone: str, offset: int):
    with LocalQuickBI(timezone=timezone) as quickbi:
        mail_id = quickbi.add_mail_task("Daily sales")
        quickbi.add_run(mail_id, exec_time="2026-07-01T00:00:00+00:00")
        client = connect(quickbi, timezone=timezone)
        [found] = client.get_mail_task_status(mail_id)
        assert found.exec_time == datetime(2026, 7, 1, tzinfo=UTC)
        assert found.exec_time.utcoffset() == timedelta(hours=offset)


NEW_YORK = ZoneInfo("America/New_York")


def read_at(now: datetime, *written: str, zone: ZoneInfo = NEW_YORK) -> list[str]:
    """Return when the runs of a response started, in UTC, as read at a given time."""
    runs = [
        MailTaskRun.from_json(run(taskId=number, execTime=text), mail_id="m", timezone=zone, now=now)
        for number, text in enumerate(written)
    ]
    return [found.exec_time.astimezone(UTC).strftime("%d %H:%M") for found in sorted(runs, key=lambda r: r.age_order)]


@pytest.mark.parametrize(
    ("now", "written", "began"),
    [
        # On 1 November 2026 New York's clocks go from 01:59:59 (-04:00) back to 01:00:00 (-05:00), at 06:00 UTC.
        ("2026-11-01T05:30:00+00:00", ["2026-11-01 01:10:00"], ["01 05:10"]),
        ("2026-11-01T06:09:59+00:00", ["2026-11-01 01:10:00"], ["01 05:10"]),
        ("2026-11-01T06:10:00+00:00", ["2026-11-01 01:10:00"], ["01 06:10"]),
        ("2026-11-02T00:00:00+00:00", ["2026-11-01 01:10:00"], ["01 06:10"]),
        ("2026-11-02T00:00:00+00:00", ["2026-11-01 00:59:59", "2026-11-01 02:00:00"], ["01 04:59", "01 07:00"]),
        # At 01:20 the second time, 01:50 can only be the first occurrence.
        ("2026-11-01T06:20:00+00:00", ["2026-11-01 01:05:00", "2026-11-01 01:50:00"], ["01 05:50", "01 06:05"]),
        # The hour that is skipped in spring, and a zone without clock changes.
        ("2026-11-02T00:00:00+00:00", ["2026-03-08 02:30:00"], ["08 07:30"]),
    ],
)
def test_an_ambiguous_local_time_is_the_later_one_unless_that_is_in_the_future(
    now: str, written: list[str], began: list[str]
):
    assert read_at(datetime.fromisoformat(now), *written) == began


def test_a_zone_without_daylight_saving_is_read_the_same_at_any_time():
    shanghai = ZoneInfo("Asia/Shanghai")
    for now in (datetime(1970, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)):
        assert read_at(now, "2026-11-01 01:10:00", zone=shanghai) == ["31 17:10"]


def test_the_mail_id_is_read_in_the_case_of_the_request():
    requested, utc = "03EC3D4E-straSSe", ZoneInfo("UTC")
    for returned in ("03ec3d4e-strasse", "03EC3D4E-STRASSE", 7, "other"):
        found = MailTaskRun.from_json(run(mailId=returned), mail_id=requested, timezone=utc)
        assert found.mail_id == (requested if str(returned).startswith("03") else str(returned))


def test_a_run_survives_json(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.add_run(mail_id)
    [found] = client.get_mail_task_status(mail_id)
    assert MailTaskRun.from_dict(json.loads(json.dumps(found.as_dict()))) == found
