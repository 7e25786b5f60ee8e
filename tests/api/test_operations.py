"""Each operation sends what is documented and reads every documented shape of its answer, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError, TransientError
from airflow_provider_quickbi.api.models import MailTask, MailTaskRun, MailTaskStatus, MalformedResponse
from airflow_provider_quickbi.api.paging import MailTaskPage
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.testing import Fault, LocalQuickBI, Refusal

BIG = 7218865303929605212


def response(result: Any, **more: Any) -> Fault:
    return Fault.custom(200, {"RequestId": "R-1", "Result": result, "Success": True, **more})


def run(**changes: Any) -> dict[str, Any]:
    """A run as the service writes it; ``None`` leaves a field out."""
    written = {"execTime": "2026-07-01 08:00:00", "mailId": "m", "status": "SENT", "taskId": BIG, **changes}
    return {name: value for name, value in written.items() if value is not None}


def mail(**changes: Any) -> dict[str, Any]:
    """A mail task as the service writes it; ``None`` leaves a field out."""
    written = {
        "MailId": "m",
        "Paused": False,
        "BizOwnerUserId": "u",
        "BizOwnerName": "Wang Fang",
        "SubscribeName": "Daily sales",
        **changes,
    }
    return {name: value for name, value in written.items() if value is not None}


# GetMailTaskList


def test_a_list_of_mail_tasks_has_every_documented_field(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("日报 & more", owner="王芳", owner_id="u-1", paused=True)
    assert client.get_mail_task_list() == MailTaskPage(
        items=(
            MailTask(
                mail_id=mail_id,
                subscribe_name="日报 & more",
                paused=True,
                biz_owner_user_id="u-1",
                biz_owner_name="王芳",
            ),
        ),
        page_num=1,
        page_size=25,
        total_num=1,
    )


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({}, {"PageNum": "1", "PageSize": "25"}),
        ({"page_num": 3, "page_size": 7}, {"PageNum": "3", "PageSize": "7"}),
        ({"user_nick": "王芳"}, {"PageNum": "1", "PageSize": "25", "UserNick": "王芳"}),
        ({"user_nick": ""}, {"PageNum": "1", "PageSize": "25"}),
        ({"paused": True}, {"PageNum": "1", "PageSize": "25", "Paused": "true"}),
        ({"paused": False}, {"PageNum": "1", "PageSize": "25", "Paused": "false"}),
    ],
)
def test_a_list_of_mail_tasks_is_asked_for_with_the_documented_parameters(
    quickbi: LocalQuickBI, client: Any, arguments: dict[str, Any], sent: dict[str, str]
):
    client.get_mail_task_list(**arguments)
    assert dict(quickbi.calls[-1].params) == sent


def test_mail_tasks_are_filtered_by_the_service(quickbi: LocalQuickBI, client: Any):
    quickbi.add_mail_task("a", mail_id="running", owner="Wang Fang")
    quickbi.add_mail_task("b", mail_id="paused", owner="Li Na", paused=True)

    def found(**arguments: Any) -> list[str]:
        return [task.mail_id for task in client.get_mail_task_list(**arguments).mail_tasks]

    assert found() == ["running", "paused"]
    assert found(paused=True) == ["paused"]
    assert found(paused=False) == ["running"]
    assert found(user_nick="Li Na") == ["paused"]
    assert found(user_nick="Li Na", paused=False) == []


@pytest.mark.parametrize(
    "item",
    [
        mail(),
        {name.lower(): value for name, value in mail().items()},
        {name[0].lower() + name[1:]: value for name, value in mail().items()},
        {name.upper(): value for name, value in mail().items()},
        mail(MailId=" m ", SubscribeName="Daily sales ", Paused="false"),
        mail(Unknown={"nested": [1]}),
    ],
)
def test_a_mail_task_is_read_whatever_the_case_of_its_keys(item: dict[str, Any]):
    assert MailTask.from_json(item) == MailTask("m", "Daily sales", False, "u", "Wang Fang")


@pytest.mark.parametrize("missing", ["SubscribeName", "BizOwnerUserId", "BizOwnerName"])
def test_a_mail_task_may_lack_what_is_not_needed(missing: str):
    assert MailTask.from_json(mail(**{missing: None})).mail_id == "m"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (mail(MailId=None), "MailId as a string"),
        (mail(MailId=""), "MailId as a string"),
        (mail(MailId=1.5), "MailId as a string"),
        (mail(MailId=["m"]), "MailId as a string"),
        (mail(Paused=None), "Paused as true or false"),
        (mail(Paused="yes"), "Paused as true or false"),
        (mail(Paused=1), "Paused as true or false"),
        ("m", "a JSON object"),
        (None, "a JSON object"),
    ],
)
def test_what_is_no_mail_task_is_not_read_as_one(item: Any, said: str):
    with pytest.raises(MalformedResponse, match=said):
        MailTask.from_json(item)


@pytest.mark.parametrize(
    "result", [None, [], "x", {}, {"Data": None}, {"Data": "x"}, {"Data": [1]}, {"Data": {}}, {"Data": [[]]}]
)
def test_what_is_no_page_is_a_transient_error(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("GetMailTaskList", response(result), times=None)
    with pytest.raises(TransientError, match="unexpected response"):
        client.get_mail_task_list()


@pytest.mark.parametrize("result", [{"Data": None, "TotalNum": 0}, {"Data": []}, {"data": [], "totalNum": 0}])
def test_a_list_without_mail_tasks_is_an_empty_page(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("GetMailTaskList", response(result))
    assert client.get_mail_task_list(page_num=2, page_size=9).mail_tasks == ()


def test_a_page_without_numbers_is_the_page_that_was_asked_for(quickbi: LocalQuickBI, client: Any):
    quickbi.fail(
        "GetMailTaskList", response({"Data": [mail()], "PageNum": None, "PageSize": "25", "TotalNum": -1}), times=1
    )
    page = client.get_mail_task_list(page_num=2, page_size=9)
    assert (page.page_num, page.page_size, page.total_num) == (2, 9, None)


# GetMailTaskStatus


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


def test_the_latest_run_is_asked_for_without_a_task_id_and_another_one_with_it(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    first = quickbi.add_run(mail_id, exec_time="2026-07-01T08:00:00")
    second = quickbi.add_run(mail_id, exec_time="2026-07-02T08:00:00")
    assert [found.task_id for found in client.get_mail_task_status(mail_id)] == [second]
    assert dict(quickbi.calls[-1].params) == {"MailId": mail_id}
    assert [found.task_id for found in client.get_mail_task_status(mail_id, first)] == [first]
    assert dict(quickbi.calls[-1].params) == {"MailId": mail_id, "TaskId": first}
    assert [found.task_id for found in client.get_mail_task_status(mail_id, int(first))] == [first]
    assert dict(quickbi.calls[-1].params) == {"MailId": mail_id, "TaskId": first}


def test_a_task_that_never_ran_or_a_run_that_is_not_known_gives_no_run(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    assert client.get_mail_task_status(mail_id) == ()
    assert client.get_mail_task_status(mail_id, "1") == ()


@pytest.mark.parametrize("as_string", [False, True])
def test_no_digit_of_a_task_id_is_lost(connect: Callable[..., Any], as_string: bool):
    with LocalQuickBI(task_id_as_string=as_string) as quickbi:
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
def test_what_is_no_run_is_not_read_as_one(quickbi: LocalQuickBI, client: Any, item: Any, said: str):
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


def test_a_status_that_nobody_knows_is_kept_as_it_is(quickbi: LocalQuickBI, client: Any):
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
def test_a_result_that_is_no_list_of_runs_is_a_transient_error(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("GetMailTaskStatus", response(result))
    with pytest.raises(TransientError, match="unexpected response"):
        client.get_mail_task_status("m", retries=NO_RETRY)


def test_several_runs_are_given_oldest_first_whatever_their_order(connect: Callable[..., Any]):
    with LocalQuickBI(status_list=5, shuffle_status_list=True, seed=3) as quickbi:
        mail_id = quickbi.add_mail_task("Daily sales")
        added = [quickbi.add_run(mail_id, exec_time=f"2026-07-0{day}T08:00:00") for day in (1, 2, 3, 4, 5)]
        client = connect(quickbi)
        for _ in range(4):
            assert [found.task_id for found in client.get_mail_task_status(mail_id)] == added


def test_runs_of_the_same_second_are_ordered_by_their_number_not_by_their_text(quickbi: LocalQuickBI, client: Any):
    quickbi.fail("GetMailTaskStatus", response([run(taskId="10"), run(taskId="9")]))
    assert [found.task_id for found in client.get_mail_task_status("m")] == ["9", "10"]


@pytest.mark.parametrize(
    ("timezone", "offset"), [("Asia/Shanghai", 8), ("UTC", 0), ("Asia/Tokyo", 9), ("America/New_York", -4)]
)
def test_the_time_of_a_run_is_in_the_zone_that_the_settings_name(
    connect: Callable[..., Any], timezone: str, offset: int
):
    with LocalQuickBI(timezone=timezone) as quickbi:
        mail_id = quickbi.add_mail_task("Daily sales")
        quickbi.add_run(mail_id, exec_time="2026-07-01T00:00:00+00:00")
        client = connect(quickbi, timezone=timezone)
        [found] = client.get_mail_task_status(mail_id)
        assert found.exec_time == datetime(2026, 7, 1, tzinfo=UTC)
        assert found.exec_time.utcoffset() == timedelta(hours=offset)


NEW_YORK = ZoneInfo("America/New_York")


def read_at(now: datetime, *written: str, zone: ZoneInfo = NEW_YORK) -> list[str]:
    """Return when the runs of an answer began, in UTC, as it is read at an instant."""
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
        # The run at 01:50 began before the one at 01:05: it is the one that cannot have begun later.
        ("2026-11-01T06:20:00+00:00", ["2026-11-01 01:05:00", "2026-11-01 01:50:00"], ["01 05:50", "01 06:05"]),
        # An hour that is left out in spring, and a zone that has neither.
        ("2026-11-02T00:00:00+00:00", ["2026-03-08 02:30:00"], ["08 07:30"]),
    ],
)
def test_a_time_in_an_hour_that_the_clocks_repeat_is_the_later_one_unless_that_is_to_come(
    now: str, written: list[str], began: list[str]
):
    assert read_at(datetime.fromisoformat(now), *written) == began


def test_a_zone_without_summer_time_is_read_the_same_at_any_time():
    shanghai = ZoneInfo("Asia/Shanghai")
    for now in (datetime(1970, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)):
        assert read_at(now, "2026-11-01 01:10:00", zone=shanghai) == ["31 17:10"]


def test_the_mail_id_is_read_in_the_case_in_which_it_was_asked_for():
    asked, utc = "03EC3D4E-straSSe", ZoneInfo("UTC")
    for succeeded in ("03ec3d4e-strasse", "03EC3D4E-STRASSE", 7, "other"):
        found = MailTaskRun.from_json(run(mailId=succeeded), mail_id=asked, timezone=utc)
        assert found.mail_id == (asked if str(succeeded).startswith("03") else str(succeeded))


def test_a_run_survives_json(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.add_run(mail_id)
    [found] = client.get_mail_task_status(mail_id)
    assert MailTaskRun.from_dict(json.loads(json.dumps(found.as_dict()))) == found


# ManualRunMailTask


def test_a_manual_run_starts_one_run(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    assert client.manual_run_mail_task(mail_id) is True
    assert quickbi.starts(mail_id) == 1
    assert dict(quickbi.calls[-1].params) == {"MailId": mail_id}


@pytest.mark.parametrize("result", ["true", "True ", True])
def test_a_manual_run_is_accepted_if_the_service_says_true(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("ManualRunMailTask", response(result))
    assert client.manual_run_mail_task("m") is True


@pytest.mark.parametrize("result", [False, None, "false", 1, {}, [True]])
def test_it_is_unknown_whether_a_run_was_started_if_the_service_says_anything_else(
    quickbi: LocalQuickBI, client: Any, result: Any
):
    quickbi.fail("ManualRunMailTask", response(result))
    with pytest.raises(TransientError, match="the run may not have started") as caught:
        client.manual_run_mail_task("m")
    assert caught.value.may_have_arrived


# Any other operation


def test_any_other_operation_can_be_called(quickbi: LocalQuickBI, client: Any):
    quickbi.add_mail_task("Daily sales", owner="Wang Fang", owner_id="u-1")
    found = client.call("QueryUserInfoByAccount", {"Account": "Wang Fang"})
    assert found["UserId"] == "u-1"
    with pytest.raises(PermanentError) as caught:
        client.call("QueryUserInfoByAccount", {"Account": "Nobody"})
    assert caught.value.code == "User.Not.In.Organization"


def test_any_other_operation_is_repeated_only_if_it_may_be(quickbi: LocalQuickBI, client: Any):
    quickbi.register("AddSomething", lambda params: "added")
    quickbi.fail("AddSomething", Fault.html_503(), times=2)
    with pytest.raises(TransientError):
        client.call("AddSomething")
    assert client.call("AddSomething", repeatable=True) == "added"
    assert quickbi.count("AddSomething") == 3


def test_a_refusal_of_any_other_operation_names_it(quickbi: LocalQuickBI, client: Any):
    def refuse(params: Any) -> Any:
        raise Refusal("Invalid.Parameter", "Name is too long")

    quickbi.register("AddSomething", refuse)
    with pytest.raises(PermanentError, match=r"^AddSomething: Name is too long \(Code Invalid.Parameter, RequestId "):
        client.call("AddSomething", {"Name": "x"})


def test_who_counts_calls_is_told_how_each_one_ended(quickbi: LocalQuickBI, connect: Callable[..., Any]):
    mail_id = quickbi.add_mail_task("Daily sales")
    notified: list[tuple[str, str]] = []
    client = connect(on_call=lambda action, result: notified.append((action, result)))
    quickbi.fail("GetMailTaskStatus", Fault.throttled(), Fault.reset())
    client.get_mail_task_status(mail_id)
    with pytest.raises(PermanentError):
        client.get_mail_task_status("unknown")
    assert notified == [
        ("GetMailTaskStatus", "throttled"),
        ("GetMailTaskStatus", "transient"),
        ("GetMailTaskStatus", "succeeded"),
        ("GetMailTaskStatus", "not_found"),
    ]
